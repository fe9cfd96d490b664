"""Gets the emergency of an output into a block against a crowded or hostile mempool (design.md 5, emergency-relay.md).

Whoever executes has the rungs, a node, and a wallet of his own. The node's floors and whoever stands in the way decide
which rung goes, alone or with a child that pays; what was refused is not tried again until the market changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from coordinator.executor_wallet import ExecutorWallet
from slashing.package import (
    ANCHOR_PLACE,
    FeeGoal,
    Payable,
    WalletCoin,
    build_child,
    build_child_psbt,
    complete_child,
)
from slashing.rungs import Attempt, Market, choose_rung
from smpc.bitcoin.interpreter import verify_input_scripts
from smpc.bitcoin.mempool import Rival
from smpc.bitcoin.transaction import Transaction, TxOut
from smpc.errors import BridgeError, Refused
from smpc.node.package_relay import NotTaken, PackageRelay
from smpc.node.ports import BitcoinNode, BroadcastRefused
from smpc.types import FeeRate, Outpoint, Sats, Txid

log = structlog.get_logger()

DEFAULT_MOST_FEE: Final = Sats(50_000)
"""What a child may pay when nobody says otherwise: at 150 vB beside a rung of 201, some 140 sat/vB."""


@dataclass(frozen=True, slots=True)
class Order:
    """One output to be moved."""

    outpoint: Outpoint
    prevout: TxOut
    rungs: tuple[Payable, ...]
    """Signed and complete, ascending; any one of them moves it."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An attempt that did not get in, and why."""

    attempt: Attempt
    reason: str


@dataclass(frozen=True, slots=True)
class Execution:
    """How an order stands after one go."""

    outpoint: Outpoint
    txid: Txid | None = None
    """The emergency that is mined or in my node's mempool; None while none is."""
    confirmations: int = 0
    place: int | None = None
    """The rung's place in the ladder, from 0."""
    rate: FeeRate | None = None
    """What it pays in the mempool together with what hangs on it; None once mined."""
    child: Txid | None = None
    """The child of ours that this go sent along."""
    child_fee: Sats | None = None
    refusals: tuple[Refusal, ...] = ()
    is_absent: bool = False
    """The output is not on my chain: not mined yet, or spent by something else."""
    fault: str = ""
    """Why this go came to nothing, where it was no refusal of the mempool's: as a node that does not answer."""

    @property
    def is_mined(self) -> bool:
        """Tell whether an emergency stands in a block of the best chain."""
        return self.confirmations > 0

    @property
    def is_in(self) -> bool:
        """Tell whether an emergency is mined or waits in the mempool."""
        return self.txid is not None


@dataclass(slots=True)
class _Child:
    """A child of ours, with the coins it spends: it may be replaced by another that spends them."""

    transaction: Transaction
    coins: tuple[WalletCoin, ...]
    fee: Sats


@dataclass(slots=True)
class EmergencyExecutor:
    """One executor's node and wallet; without a wallet no child is ever made."""

    node: BitcoinNode
    relay: PackageRelay
    wallet: ExecutorWallet | None
    most_fee: Sats
    """What one child may pay, at most: the executor's own money."""
    _children: dict[Outpoint, _Child] = field(default_factory=dict)
    """The newest child of ours, by the emergency's anchor."""

    async def execute(self, order: Order, rate: FeeRate) -> Execution:
        """Bring an order into the mempool at `rate` (sat/kvB), or as near as it gets; say where it stands.

        Idempotent: what is mined stays, what already pays enough is left alone.
        """
        mined = await self.find_mined(order)
        if mined is not None:
            return mined
        if await self.node.fetch_output(order.outpoint, include_mempool=False) is None:
            return Execution(order.outpoint, is_absent=True)
        market = await self.look(order.outpoint, rate)
        waiting = _find_waiting(order, market)
        if waiting is not None and waiting.rate is not None and waiting.rate >= rate:
            return waiting
        refusals: list[Refusal] = []
        refused: frozenset[Attempt] = frozenset()
        while (attempt := choose_rung(order.rungs, market, refused)) is not None:
            done = await self._attempt(order, attempt, market)
            if isinstance(done, Execution):
                return replace(done, refusals=tuple(refusals))
            log.info("attempt.refused", outpoint=str(order.outpoint), place=attempt.place, reason=done)
            refusals.append(Refusal(attempt, done))
            refused |= {attempt}
        return waiting or Execution(order.outpoint, refusals=tuple(refusals))

    async def find_mined(self, order: Order) -> Execution | None:
        """Return where a rung stands that is mined already; None when none is."""
        for place, rung in enumerate(order.rungs):
            found = await self.node.fetch_transaction(rung.transaction.txid)
            if found is not None and found.height is not None:
                return Execution(order.outpoint, rung.transaction.txid, found.confirmations, place)
        return None

    async def look(self, outpoint: Outpoint, rate: FeeRate) -> Market:
        """Return what my node asks now, and who holds the output."""
        policy = await self.relay.fetch_mempool_policy()
        rival = await self.relay.fetch_rival(outpoint)
        holder = None if rival is None else await self.relay.fetch_rival(Outpoint(rival.txid, ANCHOR_PLACE))
        wanted = FeeRate(max(rate, policy.minimum))
        return Market(policy, wanted, rival, has_coin=await self._has_coin(holder))

    async def build_child(self, parent: Payable, market: Market) -> Transaction:
        """Build and sign the child that brings a rung to the market's rate and past whoever is in its way.

        Refused as `slashing.package.build_child`, CheckFailed when the wallet does not sign.
        """
        return (await self._make_child(parent, market)).transaction

    async def try_attempt(self, rungs: Sequence[Payable], attempt: Attempt, market: Market) -> str:
        """Hand one attempt to the node; empty when it is in now, else why it is not."""
        parent = rungs[attempt.place]
        if not attempt.needs_child:
            try:
                await self.node.broadcast(parent.transaction.to_bytes())
            except BroadcastRefused as refused:
                return refused.node_reason
            return ""
        try:
            child = await self._make_child(parent, market)
        except BridgeError as impossible:
            # Also a wallet that is locked, or does not answer: rungs that go alone need none.
            return impossible.message
        outcome = await self.relay.submit_package(parent.transaction.to_bytes(), child.transaction.to_bytes())
        for admission in (outcome.parent, outcome.child):
            if isinstance(admission, NotTaken):
                return admission.node_reason
        self._children[parent.transaction.outpoint(ANCHOR_PLACE)] = child
        return ""

    # -------------------------------------------------------------- inner steps

    async def _attempt(self, order: Order, attempt: Attempt, market: Market) -> Execution | str:
        parent = order.rungs[attempt.place]
        # Bitcoin's own interpreter first: what it refuses is never broadcast (case B21).
        await asyncio.to_thread(verify_input_scripts, parent.transaction, [order.prevout])
        reason = await self.try_attempt(order.rungs, attempt, market)
        if reason:
            return reason
        txid, child = parent.transaction.txid, self._children.get(parent.transaction.outpoint(ANCHOR_PLACE))
        fee, vsize = int(parent.fee), int(parent.vsize)
        if not attempt.needs_child or child is None:
            log.info("emergency.sent", outpoint=str(order.outpoint), txid=txid[::-1].hex(), place=attempt.place)
            return Execution(order.outpoint, txid, place=attempt.place, rate=FeeRate(fee * 1000 // vsize))
        fee, vsize = fee + child.fee, vsize + child.transaction.vsize
        log.info("package.sent", outpoint=str(order.outpoint), txid=txid[::-1].hex(), fee=child.fee)
        return Execution(
            order.outpoint,
            txid,
            place=attempt.place,
            rate=FeeRate(fee * 1000 // vsize),
            child=child.transaction.txid,
            child_fee=child.fee,
        )

    async def _make_child(self, parent: Payable, market: Market) -> _Child:
        if self.wallet is None:
            raise Refused("no wallet pays for a child", code="TOO_LITTLE_COIN", remedy="name one with --wallet")
        anchor = parent.transaction.outpoint(ANCHOR_PLACE)
        rival = market.rival if market.rival and market.rival.txid != parent.transaction.txid else None
        holder = await self.relay.fetch_rival(anchor)
        goal = FeeGoal(market.rate, market.policy.increment, self.most_fee, parent_rival=rival, anchor_rival=holder)
        coins = await self._list_coins(holder)
        draft = build_child(parent, coins, await self.wallet.fetch_change(), goal)
        signed = complete_child(draft, await self.wallet.sign(build_child_psbt(draft)))
        spent = {item.outpoint for item in signed.inputs}
        return _Child(signed, tuple(coin for coin in coins if coin.outpoint in spent), draft.fee)

    async def _has_coin(self, holder: Rival | None) -> bool:
        """Tell whether the wallet can pay for a child; where it does not say, making one will, and why not."""
        try:
            return bool(await self._list_coins(holder))
        except BridgeError as unknown:
            log.warning("wallet.not_read", code=unknown.code, reason=unknown.message)
            return True

    async def _list_coins(self, holder: Rival | None) -> tuple[WalletCoin, ...]:
        """Return the wallet's coins, and those of the own child that a new one would replace."""
        if self.wallet is None:
            return ()
        free = {coin.outpoint: coin for coin in await self.wallet.list_coins()}
        for child in self._children.values():
            if holder is not None and child.transaction.txid == holder.txid:
                free |= {coin.outpoint: coin for coin in child.coins}
        return tuple(free[outpoint] for outpoint in sorted(free))


def _find_waiting(order: Order, market: Market) -> Execution | None:
    """Return the rung that is in the mempool already, and what it pays with all that hangs on it."""
    rival = market.rival
    places = {rung.transaction.txid: place for place, rung in enumerate(order.rungs)}
    if rival is None or rival.txid not in places:
        return None
    rate = FeeRate(rival.family_fee * 1000 // rival.family_vsize)
    return Execution(order.outpoint, rival.txid, place=places[rival.txid], rate=rate)
