"""Judges evidence of an unauthorised spend from its own bytes alone: whose group key signed which transaction.

A group signature names nobody, so the verdict is about groups. No honest group ever signs but with SIGHASH_DEFAULT
and after the record, so whatever a valid signature commits to, its group is held to the whole transaction shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from smpc.bitcoin.foreign_sighash import ANNEX_TAG, verify_foreign_signature
from smpc.bitcoin.script import Leaf, is_witness_program
from smpc.bitcoin.taproot import InvoiceTree, VaultTree
from smpc.bitcoin.transaction import Transaction, TxOut, parse_transaction
from smpc.errors import BridgeError, Refused
from smpc.protocol.offences import RULES, Offence
from smpc.protocol.spend_evidence import SIGNERS, UnauthorisedSpend, build_origin_tree
from smpc.types import EpochNumber, Network, Outpoint, Role, Txid, XOnlyKey

RESTS_ON: Final = "recorded keys and intents"
"""What only the ledger says."""


@dataclass(frozen=True, slots=True)
class GroupConviction:
    """Groups of one epoch signed a transaction; it is an offence where no record allows it."""

    network: Network
    epoch: EpochNumber
    roles: tuple[Role, ...]
    """Who signed, V before W."""
    txid: Txid
    outpoint: Outpoint
    """Which output was to be spent."""
    leaf: Leaf
    rests_on: str = RESTS_ON

    @property
    def offence(self) -> Offence:
        """What the evidence shows."""
        return Offence.UNAUTHORISED_SPEND

    @property
    def code(self) -> str:
        """The fault's stable name."""
        return "UNAUTHORISED_SPEND"

    @property
    def rule(self) -> str:
        """The rule that was broken, in a sentence."""
        return RULES[self.offence]


def prove_spend(evidence: UnauthorisedSpend) -> GroupConviction:
    """Return which groups signed; Refused (NOT_PROVEN) when a signature given is not theirs, or none is."""
    try:
        transaction = parse_transaction(evidence.transaction)
        tree = build_origin_tree(evidence.network, evidence.output)
    except BridgeError as error:
        raise _not_proven(f"the evidence holds no such spend: {error.message}") from error
    _check_place(evidence, transaction, tree)
    roles = tuple(role for role, signature in _list_signatures(evidence) if signature)
    if not roles:
        raise _not_proven("it shows no signature")
    prevouts = [TxOut(item.value, item.script) for item in evidence.prevouts]
    for role, signature in _list_signatures(evidence):
        if signature and not verify_foreign_signature(
            _find_key(tree, evidence.leaf, role),
            signature,
            transaction,
            prevouts,
            evidence.position,
            tree.leaf(evidence.leaf),
            evidence.annex,
        ):
            raise Refused(f"{role} did not sign this transaction", code="BAD_SIGNATURE")
    outpoint = transaction.inputs[evidence.position].outpoint
    return GroupConviction(evidence.network, evidence.output.epoch, roles, transaction.txid, outpoint, evidence.leaf)


def _check_place(evidence: UnauthorisedSpend, transaction: Transaction, tree: InvoiceTree | VaultTree) -> None:
    if transaction.has_witness:
        raise _not_proven("the transaction carries witnesses, which belong beside it")
    if len(evidence.prevouts) != len(transaction.inputs) or not 0 <= evidence.position < len(transaction.inputs):
        raise _not_proven(f"input {evidence.position} of {len(transaction.inputs)} is not shown")
    # No digest commits to a scriptSig, but the txid does: with one, a signature of what is recorded would seem to stand
    # under a transaction that no record allows. What spends a witness program has none (BIP 141).
    pairs = zip(transaction.inputs, evidence.prevouts, strict=True)
    if any(item.script_sig and is_witness_program(prevout.script) for item, prevout in pairs):
        raise _not_proven("a scriptSig stands where none may")
    if evidence.prevouts[evidence.position].script != tree.script:
        raise _not_proven("the output spent has another tree than these keys'")
    if evidence.leaf not in SIGNERS or all(leaf.name != evidence.leaf for leaf in tree.tree.leaves):
        raise _not_proven(f"the output has no {evidence.leaf} leaf that a group signs")
    if evidence.annex and evidence.annex[0] != ANNEX_TAG:
        raise _not_proven("the annex is none")
    for role, signature in _list_signatures(evidence):
        if signature and role not in SIGNERS[evidence.leaf]:
            raise _not_proven(f"{role} signs no {evidence.leaf} leaf")


def _list_signatures(evidence: UnauthorisedSpend) -> tuple[tuple[Role, bytes], ...]:
    return (Role.VALIDATOR, evidence.validator_signature), (Role.WITNESS, evidence.witness_signature)


def _find_key(tree: InvoiceTree | VaultTree, leaf: Leaf, role: Role) -> XOnlyKey:
    if role is Role.VALIDATOR:
        return tree.keys.v
    return tree.keys.wr if leaf is Leaf.REJECTION else tree.keys.w


def _not_proven(message: str) -> Refused:
    return Refused(message, code="NOT_PROVEN")
