"""Signature digests against another library, and what they commit to."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from embit.script import Script as EmbitScript
from embit.transaction import Transaction as EmbitTransaction

from smpc.bitcoin.script import Leaf
from smpc.bitcoin.sighash import compute_tapscript_sighash, precompute_sighash
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.errors import InvalidInput
from smpc.types import Outpoint, Sats, Script, Txid
from tests.support.leaf_signers import LeafSigners

TREE = LeafSigners("sighash").vault()
LEAF = TREE.leaf(Leaf.TRANSFER)
INPUTS = tuple(TxIn(Outpoint(Txid(bytes([place]) * 32), place), 3) for place in range(1, 4))
PREVOUTS = tuple(TxOut(Sats(10_000 * place), TREE.script) for place in range(1, 4))
UNSIGNED = Transaction(2, INPUTS, (TxOut(Sats(5), Script(b"\x51")), TxOut(Sats(6), TREE.script)), 9)


def _ask_embit(transaction: Transaction, prevouts: tuple[TxOut, ...], index: int, leaf: bytes) -> bytes:
    other = EmbitTransaction.parse(transaction.to_bytes())
    scripts = [EmbitScript(prevout.script) for prevout in prevouts]
    values = [prevout.value for prevout in prevouts]
    digest: bytes = other.sighash_taproot(index, scripts, values, sighash=0, ext_flag=1, script=EmbitScript(leaf))
    return digest


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("leaf", list(TREE.tree.leaves), ids=lambda leaf: leaf.name)
def test_another_library_computes_the_same_digest(index: int, leaf: object) -> None:
    script = leaf.script  # type: ignore[attr-defined]  # a TapLeaf
    assert compute_tapscript_sighash(UNSIGNED, PREVOUTS, index, script) == _ask_embit(UNSIGNED, PREVOUTS, index, script)


def test_a_witness_changes_no_digest() -> None:
    signed = UNSIGNED.with_witnesses([(b"a",), (), (b"b", b"c")])
    assert compute_tapscript_sighash(signed, PREVOUTS, 1, LEAF) == compute_tapscript_sighash(
        UNSIGNED, PREVOUTS, 1, LEAF
    )


def test_every_field_of_the_transaction_and_of_the_spent_outputs_changes_the_digest() -> None:
    other = INPUTS[2]
    variants = [
        (replace(UNSIGNED, version=3), PREVOUTS),
        (replace(UNSIGNED, locktime=8), PREVOUTS),
        (replace(UNSIGNED, outputs=UNSIGNED.outputs[:1]), PREVOUTS),
        (replace(UNSIGNED, outputs=UNSIGNED.outputs[::-1]), PREVOUTS),
        (replace(UNSIGNED, inputs=(*INPUTS[:2], replace(other, sequence=4))), PREVOUTS),
        (replace(UNSIGNED, inputs=(*INPUTS[:2], replace(other, outpoint=Outpoint(Txid(bytes(32)), 3)))), PREVOUTS),
        (UNSIGNED, (*PREVOUTS[:2], replace(PREVOUTS[2], value=Sats(1)))),
        (UNSIGNED, (*PREVOUTS[:2], replace(PREVOUTS[2], script=Script(b"")))),
    ]
    digests = {compute_tapscript_sighash(transaction, prevouts, 0, LEAF) for transaction, prevouts in variants}
    digests |= {compute_tapscript_sighash(UNSIGNED, PREVOUTS, index, LEAF) for index in range(3)}
    digests.add(compute_tapscript_sighash(UNSIGNED, PREVOUTS, 0, TREE.leaf(Leaf.REJECTION)))
    assert len(digests) == len(variants) + 3 + 1


def test_refuses_a_missing_prevout_and_an_input_that_is_not_there() -> None:
    with pytest.raises(InvalidInput, match="3 inputs need"):
        precompute_sighash(UNSIGNED, PREVOUTS[:2])
    context = precompute_sighash(UNSIGNED, PREVOUTS)
    for index in (-1, 3):
        with pytest.raises(InvalidInput, match="there is no input"):
            context.compute(index, LEAF)


def test_the_digests_of_500_inputs_cost_about_as_much_as_their_number() -> None:
    def measure(count: int) -> float:
        inputs = tuple(TxIn(Outpoint(Txid(bytes(32)), place), 3) for place in range(count))
        transaction = Transaction(2, inputs, UNSIGNED.outputs, 0)
        started = time.thread_time()
        context = precompute_sighash(transaction, [PREVOUTS[0]] * count)
        assert len({context.compute(index, LEAF) for index in range(count)}) == count
        return time.thread_time() - started

    few = min(measure(50) for _ in range(5))
    many = min(measure(500) for _ in range(3))
    assert many < 30 * few, "quadratic work would cost a hundred times as much"
