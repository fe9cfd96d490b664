"""Evidence that a group's key signed a spend of one of its outputs (design.md section 6, Emergency).

It holds everything that the output's tree is built from, so that anyone verifies it offline. That the group was not
allowed to sign is what only the ledger says: it knows what was recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from smpc.bitcoin.foreign_sighash import ANNEX_TAG
from smpc.bitcoin.script import Leaf
from smpc.bitcoin.taproot import (
    InvoiceTree,
    Timelocks,
    VaultTree,
    build_invoice_tree,
    build_vault_tree,
)
from smpc.bitcoin.transaction import Transaction, TxOut
from smpc.errors import InvalidInput
from smpc.params import find_preset
from smpc.protocol.output_keys import derive_child_keys
from smpc.threshold.child_keys import VAULT_RANGE_START
from smpc.types import ChildIndex, EpochNumber, Network, PlainKey, Role, Sats, Script, TermsHash, XOnlyKey

SIGNERS: Final = {
    Leaf.TRANSFER: (Role.VALIDATOR, Role.WITNESS),
    Leaf.REJECTION: (Role.WITNESS, Role.EMERGENCY),
    Leaf.RECOVERY: (Role.VALIDATOR, Role.EMERGENCY),
}
"""Whose signatures a leaf asks for, in script order; on the stack the last one lies lowest."""


@dataclass(frozen=True, slots=True)
class SpentOutput:
    """An output that a transaction spends."""

    value: Sats
    script: Script


@dataclass(frozen=True, slots=True)
class DepositOrigin:
    """What a deposit's tree has beside keys."""

    terms_hash: TermsHash
    refund_key: XOnlyKey


@dataclass(frozen=True, slots=True)
class OutputOrigin:
    """Everything that an output's tree is built from, but for the network's locks."""

    epoch: EpochNumber
    child: ChildIndex
    """Invoice index for a deposit; 0x10000000 + position for a vault output."""
    validator: PlainKey
    """V's group key, 33 bytes; the next two likewise W's and E's."""
    witness: PlainKey
    emergency: PlainKey
    release_hash: bytes
    """`h`, 32 bytes."""
    deposit: DepositOrigin | None
    """None for a vault output."""


@dataclass(frozen=True, slots=True)
class UnauthorisedSpend:
    """A transaction, and the signatures of V or W that stand under it for one of their outputs."""

    network: Network
    transaction: bytes
    """Serialised without witnesses."""
    prevouts: tuple[SpentOutput, ...]
    """What it spends, in input order."""
    position: int
    """Of the input that is judged, from 0."""
    output: OutputOrigin
    """What that input spends."""
    leaf: Leaf
    """Transfer, rejection or recovery."""
    validator_signature: bytes
    """As in the witness, 64 bytes or 65 with the hash type; empty where V's is not known, or not asked for."""
    witness_signature: bytes
    """W's likewise."""
    annex: bytes = b""
    """Empty where the witness has none."""


@dataclass(frozen=True, slots=True)
class ShownSignatures:
    """What a witness shows: which leaf it spends by, and who signed."""

    leaf: Leaf
    validator: bytes
    witness: bytes
    annex: bytes


def build_origin_tree(network: Network, output: OutputOrigin) -> InvoiceTree | VaultTree:
    """Return the output's tree; InvalidInput or ConfigError for keys, an index or a network that are none."""
    if (output.child < VAULT_RANGE_START) != (output.deposit is not None):
        raise InvalidInput("terms belong to deposits, and to them alone")
    locks = Timelocks.from_params(find_preset(network))
    keys = derive_child_keys(output.validator, output.witness, output.emergency, output.child, output.release_hash)
    if output.deposit is None:
        return build_vault_tree(keys, locks)
    terms_hash, refund_key = output.deposit.terms_hash, output.deposit.refund_key
    return build_invoice_tree(keys, user_key=refund_key, terms_hash=terms_hash, locks=locks)


def read_signatures(tree: InvoiceTree | VaultTree, witness: Sequence[bytes]) -> ShownSignatures | None:
    """Return what a complete witness shows; None for a refund, or for what spends the tree by none of its leaves."""
    stack, annex = tuple(witness), b""
    if len(stack) > 1 and stack[-1][:1] == bytes((ANNEX_TAG,)):
        stack, annex = stack[:-1], stack[-1]
    named = [leaf for leaf in tree.tree.leaves if len(stack) > 2 and leaf.script == stack[-2] and leaf.name in SIGNERS]
    if not named:
        return None
    leaf = Leaf(named[0].name)
    signed = dict(zip(reversed(SIGNERS[leaf]), stack, strict=False))
    return ShownSignatures(leaf, signed.get(Role.VALIDATOR, b""), signed.get(Role.WITNESS, b""), annex)


def build_spend_evidence(
    network: Network,
    output: OutputOrigin,
    transaction: Transaction,
    prevouts: Sequence[TxOut],
    position: int,
    shown: ShownSignatures,
) -> UnauthorisedSpend:
    """Return the evidence of one input; `prove_spend` says whether it holds."""
    return UnauthorisedSpend(
        network=network,
        transaction=transaction.to_bytes(include_witness=False),
        prevouts=tuple(SpentOutput(item.value, item.script) for item in prevouts),
        position=position,
        output=output,
        leaf=shown.leaf,
        validator_signature=shown.validator,
        witness_signature=shown.witness,
        annex=shown.annex,
    )
