"""Says where a proposed transaction departs from the rebuilt one, so that a refusal names the lie and not only V10."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Final

from pegin.model import BuiltTransaction
from smpc.bitcoin.fees import compute_dust_limit
from smpc.bitcoin.script import OutputType, find_output_type
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut, parse_transaction
from smpc.errors import InvalidInput
from smpc.protocol.intents import Intent
from smpc.protocol.review import Review

_MAX_BYTES = 100_000
"""An unsigned transaction of standard size is smaller."""


def judge_difference(review: Review, built: BuiltTransaction, unsigned_tx: bytes) -> None:
    """Note the rules (V11-V17, V42, V43, V52) that the proposed bytes break beside V10."""
    try:
        proposed = parse_transaction(unsigned_tx, _MAX_BYTES)
    except InvalidInput as malformed:
        review.require("V12", False, malformed.message)
        return
    expected = built.transaction
    _judge_shape(review, expected, proposed)
    _judge_inputs(review, expected.inputs, proposed.inputs)
    rules = _list_output_rules(built.intent)
    for position, (ours, theirs) in enumerate(zip_longest(expected.outputs, proposed.outputs)):
        _judge_output(review, position, ours, theirs, rules[min(position, len(rules) - 1)])


_VAULT: Final = ("V15", "")
_PAYMENT: Final = ("V42", "V43")
_COMMISSION: Final = ("V52", "V52")
_NOTARISATION: Final = ("V16", "V16")
_NOTHING: Final = ("", "")


def _list_output_rules(intent: Intent) -> list[tuple[str, str]]:
    """Return per output the rules that a wrong script and a wrong value break; the last for all that is too much."""
    return [
        *([_VAULT] * len(intent.vault_outputs)),
        *([_PAYMENT] * len(intent.payments)),
        *([_COMMISSION] * len(intent.commissions)),
        *([_NOTARISATION] if intent.op_return else []),
        _NOTHING,
    ]


def _judge_shape(review: Review, expected: Transaction, proposed: Transaction) -> None:
    shape = (expected.version, expected.locktime, {txin.sequence for txin in expected.inputs})
    found = (proposed.version, proposed.locktime, {txin.sequence for txin in proposed.inputs})
    review.require("V12", shape == found, f"version, locktime and sequences are {found}, not {shape}")
    unsigned = not any(txin.witness or txin.script_sig for txin in proposed.inputs)
    review.require("V12", unsigned, "the transaction to be signed carries signatures already")


def _judge_inputs(review: Review, expected: Sequence[TxIn], proposed: Sequence[TxIn]) -> None:
    ours = [txin.outpoint for txin in expected]
    theirs = [txin.outpoint for txin in proposed]
    review.require("V13", len(set(theirs)) == len(theirs), "the same input stands twice")
    foreign = [outpoint for outpoint in theirs if outpoint not in ours]
    text = f"it spends {foreign[0]}, which the intent does not name" if foreign else ""
    review.require("V14", not foreign, text, reason="INPUT_MISSING")


def _judge_output(
    review: Review, position: int, ours: TxOut | None, theirs: TxOut | None, rules: tuple[str, str]
) -> None:
    if ours == theirs:
        return
    if theirs is None:
        review.require("V16", rules != _NOTARISATION, f"output {position}, the notarisation, is missing")
        return
    is_return = find_output_type(theirs.script) is OutputType.OP_RETURN
    review.require("V16", not is_return, f"output {position} is an OP_RETURN that no rule asks for")
    limit = compute_dust_limit(theirs.script)
    review.require("V17", theirs.value >= limit, f"output {position} of {theirs.value} sat is dust")
    if ours is None:
        return
    by_script, by_value = rules
    if by_script:
        text = f"output {position} pays another script than the one it is for"
        review.require(by_script, ours.script == theirs.script, text)
    if by_value:
        text = f"output {position} pays {theirs.value} sat instead of {ours.value}"
        review.require(by_value, ours.value == theirs.value, text)
