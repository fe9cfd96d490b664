"""Transactions that no record allows, signed by the groups' own keys, and the evidence of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from smpc.bitcoin.fees import assemble_witness
from smpc.bitcoin.foreign_sighash import compute_foreign_sighash
from smpc.bitcoin.script import Leaf
from smpc.bitcoin.taproot import InvoiceTree, VaultTree
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.protocol.emergency import build_output_tree, find_keyed_epoch
from smpc.protocol.ledger import Ledger
from smpc.protocol.spend_evidence import SIGNERS, ShownSignatures, UnauthorisedSpend, build_spend_evidence
from smpc.protocol.spend_sighting import describe_origin
from smpc.threshold.child_keys import compute_emergency_index, compute_rejection_index
from smpc.types import ChildIndex, EpochNumber, Outpoint, Role, Sats, Script, Signature
from tests.support.groups import KeyedEpoch, make_xonly, sign_with_child

THIEF = Script(b"\x51\x20" + make_xonly("a thief"))


@dataclass(frozen=True, slots=True)
class Theft:
    """One output spent by a leaf of its tree, by whoever holds the groups' secrets."""

    ledger: Ledger
    keyed: KeyedEpoch
    outpoint: Outpoint
    value: Sats
    child: ChildIndex
    leaf: Leaf = Leaf.TRANSFER
    hash_type: int = 0
    annex: bytes = b""
    unsigned: Transaction | None = None
    """Another transaction than to the thief; its one input spends the output."""

    @property
    def epoch(self) -> EpochNumber:
        """Whose output it is."""
        return self.keyed.number

    @property
    def tree(self) -> InvoiceTree | VaultTree:
        """The output's."""
        return build_output_tree(self.ledger, find_keyed_epoch(self.ledger, self.epoch), self.child)

    @property
    def prevout(self) -> TxOut:
        """The output."""
        return TxOut(self.value, self.tree.script)

    @property
    def transaction(self) -> Transaction:
        """The unsigned transaction."""
        locks = self.tree.locks
        csv = {Leaf.TRANSFER: locks.transfer, Leaf.REJECTION: locks.emergency, Leaf.RECOVERY: locks.recovery}
        spent = TxIn(self.outpoint, csv[self.leaf])
        return self.unsigned or Transaction(2, (spent,), (TxOut(Sats(self.value - 10_000), THIEF),), 0)

    def sign(self, role: Role) -> bytes:
        """Return a group's signature as a witness has it."""
        tree, of = self.tree, self.child
        if role is Role.EMERGENCY:
            of = compute_emergency_index(self.child)
        elif self.leaf is Leaf.REJECTION:
            of = compute_rejection_index(self.child)
        digest = compute_foreign_sighash(
            self.transaction, [self.prevout], 0, tree.leaf(self.leaf), self.hash_type, self.annex
        )
        signature = sign_with_child(self.keyed.groups[role], of, digest)
        return signature + bytes([self.hash_type] if self.hash_type else [])

    def complete(self) -> Transaction:
        """Return the transaction with every signature, as it would be mined."""
        tree = self.tree
        plain = [Signature(self.sign(role)[:64]) for role in SIGNERS[self.leaf]]
        preimage = self.keyed.preimage if self.leaf is Leaf.REJECTION else None
        stack = list(assemble_witness(tree.leaf(self.leaf), tree.control_block(self.leaf), plain, preimage))
        for place, role in enumerate(reversed(SIGNERS[self.leaf])):
            stack[place] = self.sign(role)
        return self.transaction.with_witnesses([(*stack, *([self.annex] if self.annex else []))])

    def accuse(self, *roles: Role) -> UnauthorisedSpend:
        """Return evidence against these groups."""
        shown = ShownSignatures(
            self.leaf,
            self.sign(Role.VALIDATOR) if Role.VALIDATOR in roles else b"",
            self.sign(Role.WITNESS) if Role.WITNESS in roles else b"",
            self.annex,
        )
        origin = describe_origin(self.ledger, self.epoch, self.child)
        return build_spend_evidence(self.ledger.params.network, origin, self.transaction, [self.prevout], 0, shown)

    def pay(self, *outputs: TxOut) -> Theft:
        """Return the theft with other outputs."""
        return replace(self, unsigned=replace(self.transaction, outputs=outputs))


def steal(
    ledger: Ledger, keyed: KeyedEpoch, outpoint: Outpoint, value: Sats, child: ChildIndex, leaf: Leaf = Leaf.TRANSFER
) -> Theft:
    """Return a theft of any output of an epoch."""
    return Theft(ledger, keyed, outpoint, value, child, leaf)


def steal_vault(ledger: Ledger, keyed: KeyedEpoch, leaf: Leaf = Leaf.TRANSFER, at: int = 0) -> Theft:
    """Return a theft of a booked vault output of an epoch, by the order of the outpoints."""
    mine: Sequence[Outpoint] = sorted(key for key, item in ledger.vault.items() if item.epoch == keyed.number)
    entry = ledger.vault[mine[at]]
    return Theft(ledger, keyed, entry.outpoint, entry.value, entry.child, leaf)
