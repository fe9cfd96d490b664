"""Builds the child that pays for an emergency transaction: its anchor and the executor's own coins (design.md 5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from smpc.bitcoin.fees import compute_dust_limit, compute_fee
from smpc.bitcoin.mempool import MAX_TRUC_CHILD_VBYTES, Rival
from smpc.bitcoin.psbt import Psbt, PsbtInput, build_psbt
from smpc.bitcoin.script import PAY_TO_ANCHOR, OutputType, find_output_type
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.errors import CheckFailed, InvalidInput, Refused
from smpc.protocol.emergency import ANCHOR_VALUE
from smpc.types import FeeRate, Outpoint, Sats, Script, Vbytes

ANCHOR_PLACE: Final = 1
"""Pay-to-anchor at its dust limit (design.md section 5)."""

TRUC_VERSION: Final = 3
_REPLACEABLE: Final = 0xFFFFFFFD
_LARGEST_WITNESS: Final = {OutputType.P2WPKH: (bytes(72), bytes(33)), OutputType.P2TR: (bytes(64),)}
"""What a stock wallet's own coins carry when signed, at most: a DER signature and its key, or one BIP 340 signature."""


@dataclass(frozen=True, slots=True)
class Payable:
    """A signed emergency transaction, with its witness, and the fee it pays by itself."""

    transaction: Transaction
    fee: Sats

    @property
    def vsize(self) -> Vbytes:
        """Its virtual size."""
        return self.transaction.vsize


@dataclass(frozen=True, slots=True)
class WalletCoin:
    """An output of the executor's own wallet; `confirmations` by the executor's own node."""

    outpoint: Outpoint
    output: TxOut
    confirmations: int


@dataclass(frozen=True, slots=True)
class FeeGoal:
    """What the child must achieve.

    `rate` (sat/kvB) is what parent and child pay together, and the child by itself. `increment` (sat/kvB) is the
    node's price of a replacement. `parent_rival` holds the emergency's input, `anchor_rival` its anchor: both are
    outbid when named. `budget` bounds the child's fee.
    """

    rate: FeeRate
    increment: FeeRate
    budget: Sats
    parent_rival: Rival | None = None
    anchor_rival: Rival | None = None


@dataclass(frozen=True, slots=True)
class FeeChild:
    """The unsigned child: the anchor first, then the coins. `vsize` is its size once signed, at most."""

    transaction: Transaction
    prevouts: tuple[TxOut, ...]
    fee: Sats
    vsize: Vbytes


def build_child(parent: Payable, coins: Sequence[WalletCoin], change: Script, goal: FeeGoal) -> FeeChild:
    """Build the child from as few coins as will do: the smallest that suffices alone, else the largest together.

    InvalidInput when the parent has no anchor where one belongs, a coin is unconfirmed or of a kind whose size is not
    known, or is named twice. Refused with `CHILD_TOO_DEAR` (beyond the budget), `TOO_LITTLE_COIN` (the change would
    be dust or less) or `CHILD_TOO_LARGE` (above 1000 vB).
    """
    _require_anchored(parent.transaction)
    _require_spendable(coins)
    last: Refused | None = None
    for chosen in _list_choices(coins):
        try:
            return _build_from(parent, chosen, change, goal)
        except Refused as refused:
            if refused.code != "TOO_LITTLE_COIN":
                raise
            last = refused
    raise last or Refused(
        "the executor's wallet has no coin", code="TOO_LITTLE_COIN", remedy="fund it and wait for one confirmation"
    )


def compute_child_fee(parent: Payable, child_vsize: Vbytes, goal: FeeGoal) -> Sats:
    """Return the fee in satoshi with which a child of this size achieves the goal.

    The least there is, but for a package that replaces: there the node compares whole fee diagrams, and a rate above
    that of the rival and of its family is enough for each of them.
    """
    both = Vbytes(parent.vsize + child_vsize)
    fee = max(compute_fee(goal.rate, both) - parent.fee, compute_fee(goal.rate, child_vsize))
    if goal.parent_rival is not None:
        fee = max(fee, _outbid(goal.parent_rival, both, goal.increment) - parent.fee)
        fee = max(fee, goal.parent_rival.family_fee * both // goal.parent_rival.family_vsize + 1 - parent.fee)
        # A package that replaces must pay a better rate than its parent, or the node wants the parent alone.
        fee = max(fee, parent.fee * child_vsize // parent.vsize + 1)
    if goal.anchor_rival is not None:
        fee = max(fee, _outbid(goal.anchor_rival, child_vsize, goal.increment))
    return Sats(fee)


def build_child_psbt(child: FeeChild) -> Psbt:
    """Build the PSBT with which the executor's own wallet signs its coins (`walletprocesspsbt`).

    The anchor needs no witness: with its output named (witness_utxo), wallets of Core 28 and later hold it for final.
    """
    return build_psbt(child.transaction, [PsbtInput(prevout, None) for prevout in child.prevouts])


def complete_child(child: FeeChild, signed: Transaction) -> Transaction:
    """Return the child as the wallet signed it.

    CheckFailed when it is another transaction, a coin is unsigned, or it is larger than planned.
    """
    if signed.without_witness() != child.transaction:
        raise CheckFailed("the wallet signed another transaction than the one it was given")
    if any(not txin.witness for txin in signed.inputs[1:]) or signed.inputs[0].witness:
        raise CheckFailed("the wallet did not sign every coin of the child", remedy="use the wallet that owns them")
    if signed.vsize > child.vsize:
        raise CheckFailed(f"the signed child has {signed.vsize} vB, its fee was computed for {child.vsize}")
    return signed


def _build_from(parent: Payable, coins: Sequence[WalletCoin], change: Script, goal: FeeGoal) -> FeeChild:
    anchor = TxIn(parent.transaction.outpoint(ANCHOR_PLACE), _REPLACEABLE)
    inputs = (anchor, *(TxIn(coin.outpoint, _REPLACEABLE) for coin in coins))
    draft = Transaction(TRUC_VERSION, inputs, (TxOut(Sats(0), change),), 0)
    vsize = draft.with_witnesses([(), *(_find_witness(coin) for coin in coins)]).vsize
    if vsize > MAX_TRUC_CHILD_VBYTES:
        raise Refused(
            f"the child would have {vsize} vB, at most {MAX_TRUC_CHILD_VBYTES} are relayed",
            code="CHILD_TOO_LARGE",
            remedy="join the wallet's coins into a larger one",
        )
    fee = compute_child_fee(parent, vsize, goal)
    if fee > goal.budget:
        raise Refused(f"the child would pay {fee} sat, the budget is {goal.budget} sat", code="CHILD_TOO_DEAR")
    left = ANCHOR_VALUE + sum(coin.output.value for coin in coins) - fee
    if left < compute_dust_limit(change):
        raise Refused(
            f"after a fee of {fee} sat the child would pay back {left} sat, below the dust limit",
            code="TOO_LITTLE_COIN",
            remedy="fund the executor's wallet and wait for one confirmation",
        )
    prevouts = (parent.transaction.outputs[ANCHOR_PLACE], *(coin.output for coin in coins))
    return FeeChild(replace(draft, outputs=(TxOut(Sats(left), change),)), prevouts, fee, vsize)


def _outbid(rival: Rival, vsize: Vbytes, increment: FeeRate) -> int:
    """Return the least fee of `vsize` that replaces a rival: its whole family's and our relay, at a better rate."""
    return max(rival.family_fee + compute_fee(increment, vsize), rival.fee * vsize // rival.vsize + 1)


def _list_choices(coins: Sequence[WalletCoin]) -> Iterator[tuple[WalletCoin, ...]]:
    rising = sorted(coins, key=lambda coin: (coin.output.value, coin.outpoint))
    yield from ((coin,) for coin in rising)
    falling = rising[::-1]
    yield from (tuple(falling[:count]) for count in range(2, len(falling) + 1))


def _find_witness(coin: WalletCoin) -> tuple[bytes, ...]:
    kind = find_output_type(coin.output.script)
    witness = None if kind is None else _LARGEST_WITNESS.get(kind)
    if witness is None:
        raise InvalidInput(f"coin {coin.outpoint} is neither P2WPKH nor P2TR: its size is not known before signing")
    return witness


def _require_anchored(parent: Transaction) -> None:
    anchor = TxOut(ANCHOR_VALUE, PAY_TO_ANCHOR)
    if parent.version != TRUC_VERSION or parent.outputs[ANCHOR_PLACE:] != (anchor,):
        raise InvalidInput("an emergency has version 3, two outputs and a 240 sat anchor as the second")


def _require_spendable(coins: Sequence[WalletCoin]) -> None:
    for coin in coins:
        if coin.confirmations < 1:
            raise InvalidInput(f"coin {coin.outpoint} is unconfirmed: such a child is no package for any node")
    if len({coin.outpoint for coin in coins}) != len(coins):
        raise InvalidInput("a coin is named twice")
