"""A bridge transaction as everyone builds it, and what each of its inputs needs to be signed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pegin.vault import EpochKeys, build_vault_tree
from smpc.bitcoin.fees import VAULT_TRANSFER, InputKind, assemble_witness, compute_spend_vbytes
from smpc.bitcoin.script import Leaf
from smpc.bitcoin.sighash import precompute_sighash
from smpc.bitcoin.taproot import InvoiceTree, Timelocks, VaultTree
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.curve import verify_schnorr
from smpc.errors import InvalidInput
from smpc.params import Params
from smpc.protocol.intents import Commission, Intent, IntentChoice, IntentInput, IntentKind, Payment, list_signing_roles
from smpc.threshold.child_keys import compute_emergency_index
from smpc.types import ChildIndex, FeeRate, Role, Sats, Script, Signature, Vbytes, XOnlyKey

TX_VERSION: Final = 2
"""Relative locks need version 2 (BIP 68)."""


@dataclass(frozen=True, slots=True)
class Spend:
    """One input with all a signer needs: the output it spends, the leaf and its proof, the keys."""

    item: IntentInput
    script: Script
    """The scriptPubKey spent."""
    leaf: Script
    control_block: bytes
    validator_key: XOnlyKey
    cosigner_key: XOnlyKey
    """W's child, or E's where the recovery leaf is spent."""

    @classmethod
    def from_tree(cls, item: IntentInput, tree: InvoiceTree | VaultTree) -> Spend:
        """Spend an invoice's or a vault output's tree by its transfer leaf."""
        leaf, proof = tree.leaf(Leaf.TRANSFER), tree.control_block(Leaf.TRANSFER)
        return cls(item, tree.script, leaf, proof, tree.keys.v, tree.keys.w)

    @classmethod
    def by_recovery(cls, item: IntentInput, tree: VaultTree) -> Spend:
        """Spend a vault output's tree by its recovery leaf."""
        leaf, proof = tree.leaf(Leaf.RECOVERY), tree.control_block(Leaf.RECOVERY)
        return cls(item, tree.script, leaf, proof, tree.keys.v, tree.keys.e)


@dataclass(frozen=True, slots=True)
class Plan:
    """What decides a transaction beside the proposer's choice: what is spent, paid, kept and left to miners."""

    choice: IntentChoice
    spends: tuple[Spend, ...]
    payments: tuple[Payment, ...]
    vault_outputs: tuple[Sats, ...]
    fee: Sats


@dataclass(frozen=True, slots=True)
class BuiltTransaction:
    """An intent with its unsigned transaction and its inputs in order; the same bytes for whoever builds it."""

    intent: Intent
    transaction: Transaction
    spends: tuple[Spend, ...]

    @property
    def prevouts(self) -> tuple[TxOut, ...]:
        """The outputs spent, in input order."""
        return tuple(TxOut(spend.item.value, spend.script) for spend in self.spends)

    @property
    def weight(self) -> int:
        """The exact weight once signed: every signature has 64 bytes."""
        dummy = bytes(64)
        stacks = ((dummy, dummy, spend.leaf, spend.control_block) for spend in self.spends)
        return self.transaction.with_witnesses(stacks).weight

    @property
    def vsize(self) -> Vbytes:
        """The exact virtual size once signed."""
        return Vbytes(-(-self.weight // 4))

    def compute_digests(self) -> tuple[bytes, ...]:
        """Return the 32-byte SIGHASH_DEFAULT digest of every input's leaf, in input order."""
        context = precompute_sighash(self.transaction, self.prevouts)
        return tuple(context.compute(place, spend.leaf) for place, spend in enumerate(self.spends))

    @property
    def roles(self) -> tuple[Role, Role]:
        """The groups that sign, in order."""
        return list_signing_roles(self.intent.kind)

    def find_bad_signatures(self, role: Role, signatures: Sequence[bytes]) -> tuple[int, ...]:
        """Return the inputs whose signature by `role` does not verify; all of them when the count is wrong."""
        if len(signatures) != len(self.spends):
            return tuple(range(len(self.spends)))
        digests = self.compute_digests()
        keys = [spend.validator_key if role is Role.VALIDATOR else spend.cosigner_key for spend in self.spends]
        triples = zip(keys, digests, signatures, strict=True)
        return tuple(place for place, (key, digest, sig) in enumerate(triples) if not verify_schnorr(key, digest, sig))

    def complete(self, validators: Sequence[Signature], cosigners: Sequence[Signature]) -> Transaction:
        """Return the transaction with both groups' signatures in place; InvalidInput when a count is wrong."""
        if not len(validators) == len(cosigners) == len(self.spends):
            raise InvalidInput(f"{len(self.spends)} inputs need as many signatures of each group")
        triples = zip(self.spends, validators, cosigners, strict=True)
        return self.transaction.with_witnesses(
            assemble_witness(spend.leaf, spend.control_block, (first, second)) for spend, first, second in triples
        )


def build_transaction(params: Params, plan: Plan, target: EpochKeys) -> BuiltTransaction:
    """Write a plan down: version 2, locktime 0, the lock of the leaf spent as sequence.

    Outputs: the vault's, payments, commissions, then the notarisation; the last two are a sweep's alone.
    """
    sequence = compute_lock(params, plan.choice.kind)
    inputs = tuple(TxIn(spend.item.outpoint, sequence) for spend in plan.spends)
    vault = tuple(
        TxOut(value, build_vault_tree(params, target, position).script)
        for position, value in enumerate(plan.vault_outputs)
    )
    choice = plan.choice
    dues: tuple[Payment | Commission, ...] = (*plan.payments, *choice.commissions)
    paid = tuple(TxOut(due.amount, due.script) for due in dues)
    notarised = (TxOut(Sats(0), choice.op_return),) if choice.op_return else ()
    transaction = Transaction(TX_VERSION, inputs, vault + paid + notarised, 0)
    intent = Intent(
        network=params.network,
        kind=choice.kind,
        epoch=choice.epoch,
        target_epoch=choice.target_epoch,
        inputs=tuple(spend.item for spend in plan.spends),
        payments=plan.payments,
        vault_outputs=plan.vault_outputs,
        fee=plan.fee,
        fee_rate=choice.fee_rate,
        txid=transaction.txid,
        replaces=choice.replaces,
        commissions=choice.commissions,
        op_return=choice.op_return,
    )
    return BuiltTransaction(intent, transaction, plan.spends)


def compute_lock(params: Params, kind: IntentKind) -> int:
    """Return the relative lock of the leaf that an intent of this kind spends, in Bitcoin blocks: its sequence."""
    return params.recovery_csv if kind is IntentKind.RECOVERY else params.transfer_csv


def compute_signing_index(role: Role, child: ChildIndex) -> ChildIndex:
    """Return the child index under which a group signs for an output: E has a range of its own (section 11)."""
    return compute_emergency_index(child) if role is Role.EMERGENCY else child


def compute_built_vbytes(
    params: Params, inputs: int, vault_outputs: int, scripts: Sequence[Script], kind: InputKind = VAULT_TRANSFER
) -> Vbytes:
    """Return the exact size of a signed transaction of inputs of one kind, vault outputs and other scripts."""
    outputs = [_VAULT_SHAPE] * vault_outputs + list(scripts)
    # An invoice's and a vault output's transfer leaf stand at the same depth and have the same size.
    return compute_spend_vbytes([kind] * inputs, outputs, Timelocks.from_params(params))


_VAULT_SHAPE: Final = Script(bytes(34))
"""Any Taproot script: 34 bytes."""


def compute_first_rate(params: Params, estimate: FeeRate | None) -> FeeRate:
    """Return the rate a coordinator proposes first: half of what every pod accepts, so that bumps have room."""
    return FeeRate(max(params.fee_floor, compute_rate_limit(params, estimate) // 2))


def compute_rate_limit(params: Params, estimate: FeeRate | None) -> FeeRate:
    """Return the highest fee rate a pod accepts: min(cap, max(floor, 2 x estimate)); the default without one (V18)."""
    limit = params.fee_default if estimate is None else max(params.fee_floor, 2 * estimate)
    return FeeRate(min(params.fee_cap, limit))


def compute_budget(paid: int, reserve: int) -> Sats:
    """Return the most a transaction may cost: what its deposits or burns paid and a tenth of the reserve (V18)."""
    return Sats(paid + max(reserve, 0) // 10)
