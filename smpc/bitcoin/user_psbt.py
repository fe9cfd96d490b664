"""PSBTs for a user's own wallet: the refund that a stock wallet signs and finalises, and the funding template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from smpc.bitcoin.fees import INVOICE_REFUND, compute_dust_limit, compute_fee, compute_spend_vbytes
from smpc.bitcoin.key_origin import UserKey
from smpc.bitcoin.psbt import LeafSpend, Psbt, PsbtInput, build_psbt
from smpc.bitcoin.psbt_maps import GlobalField, OutputField, PsbtMap, PsbtMaps
from smpc.bitcoin.reader import to_var_bytes
from smpc.bitcoin.script import NUMS_KEY, Leaf
from smpc.bitcoin.taproot import LEAF_VERSION, InvoiceTree, TapTree
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.errors import InvalidInput
from smpc.types import FeeRate, Outpoint, Sats, Script

_VERSION: Final = 2
"""Relative locks need version 2 (BIP 68)."""


@dataclass(frozen=True, slots=True)
class RefundableDeposit:
    """A deposit its user may take back: where it is, its value, its invoice's tree, and the refund key's origin."""

    outpoint: Outpoint
    value: Sats
    tree: InvoiceTree
    user: UserKey


def build_refund_psbt(deposits: Sequence[RefundableDeposit], destination: Script, rate: FeeRate) -> Psbt:
    """Build the PSBT that pays deposits, less the fee, to `destination` through their refund leaves.

    A Bitcoin Core wallet that holds the refund keys signs and finalises it alone (`walletprocesspsbt`). InvalidInput
    when there is no deposit, an origin is of another key, or the fee leaves less than dust.
    """
    if not deposits or any(deposit.user.key != deposit.tree.user_key for deposit in deposits):
        raise InvalidInput("a refund needs deposits, each with the origin of its own invoice's refund key")
    locks = deposits[0].tree.locks
    fee = compute_fee(rate, compute_spend_vbytes([INVOICE_REFUND] * len(deposits), [destination], locks))
    value = Sats(sum(deposit.value for deposit in deposits) - fee)
    if value < compute_dust_limit(destination):
        raise InvalidInput(
            f"after a fee of {fee} sat the refund would pay {value} sat, below the dust limit",
            remedy="lower the fee rate",
        )
    inputs = tuple(TxIn(deposit.outpoint, deposit.tree.locks.refund) for deposit in deposits)
    return build_psbt(
        Transaction(_VERSION, inputs, (TxOut(value, destination),), 0), [_describe(deposit) for deposit in deposits]
    )


def build_funding_template(outputs: Sequence[tuple[InvoiceTree, Sats]]) -> bytes:
    """Build a PSBT without inputs that pays each invoice its amount, for a wallet to fund and sign.

    Every output carries its internal key and whole script tree (BIP 371), so that a signer can check what it pays.
    The node reads it; embit cannot, so it is written here. InvalidInput when there is no output.
    """
    if not outputs:
        raise InvalidInput("a funding template needs at least one output")
    txouts = tuple(TxOut(value, tree.script) for tree, value in outputs)
    transaction = Transaction(_VERSION, (), txouts, 0)
    unsigned = {bytes((GlobalField.UNSIGNED_TX,)): transaction.to_bytes()}
    return PsbtMaps(transaction, unsigned, (), tuple(_describe_output(tree.tree) for tree, _ in outputs)).to_bytes()


def _describe(deposit: RefundableDeposit) -> PsbtInput:
    spend = LeafSpend.from_tree(deposit.tree.tree, Leaf.REFUND)
    origins = ((deposit.user.key, deposit.user.origin),)
    return PsbtInput(TxOut(deposit.value, deposit.tree.script), spend, origins)


def _describe_output(tree: TapTree) -> PsbtMap:
    leaves = (bytes((len(leaf.path) // 32, LEAF_VERSION)) + to_var_bytes(leaf.script) for leaf in tree.leaves)
    return {
        bytes((OutputField.TAP_INTERNAL_KEY,)): NUMS_KEY,
        bytes((OutputField.TAP_TREE,)): b"".join(leaves),
    }
