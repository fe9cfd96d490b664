"""What both chains say about each record now, as the views the lifecycles compare themselves with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from coordinator.ancestor_watch import AncestorWatch
from coordinator.board import Board
from coordinator.chain_look import ChainLook, ask_all
from pegin.bookings import compute_booking_depth
from pegin.lifecycle import Deposit
from pegin.steps import DepositView
from pegout.lifecycle import PegOut
from pegout.steps import PegOutView
from smpc.protocol.ancestry import ForeignSpend
from smpc.protocol.batch import UNRECORDED, Batch, BatchState
from smpc.protocol.batch_view import BatchView
from smpc.protocol.intents import IntentKind
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import IntentEntry, IntentStatus
from smpc.types import BtcHeight, BurnId, IntentId, Outpoint, Sats, Txid

_SENT: Final = frozenset({BatchState.BROADCAST, BatchState.CONFIRMED, BatchState.BURIED, BatchState.BOOKING_SIGNED})


class Observer:
    """Builds views from one look at Bitcoin and the ledger of final blocks; changes no record."""

    def __init__(self, ledger: Ledger, board: Board, look: ChainLook, ancestors: AncestorWatch) -> None:
        self._ledger = ledger
        self._board = board
        self._look = look
        self._ancestors = ancestors
        self._plans: Mapping[BurnId, IntentId] | None = None

    # -------------------------------------------------------------- batches

    async def view_batch(self, batch: Batch) -> BatchView:
        """Return what the chains say about a batch."""
        entry = self._ledger.intents.get(batch.intent_id)
        found = await self._look.transaction(batch.intent.txid)
        mined = None if found is None else found.height
        lost, spent = (None, None) if mined is not None else await self._find_input_trouble(batch)
        return BatchView(
            kaon_height=self._ledger.height,
            btc_height=self._look.tip.height,
            status=None if entry is None else entry.status,
            recorded=None if entry is None else entry.recorded,
            replaced_by=None if entry is None else entry.replaced_by,
            is_window_over=entry is not None and self._is_window_over(entry),
            is_in_mempool=found is not None and found.mempool is not None,
            mined=mined,
            booking_depth=1 if mined is None else await self._compute_depth(batch, mined),
            lost_input=lost,
            spent_input=spent,
        )

    async def _compute_depth(self, batch: Batch, mined: BtcHeight) -> int:
        params, intent = self._ledger.params, batch.intent
        if intent.kind is not IntentKind.TRANSFER:
            return params.confirmations
        heights = await ask_all({outpoint.txid for outpoint in intent.outpoints}, self._look.find_height)
        known = {point: height for point in intent.outpoints if (height := heights[point.txid]) is not None}
        return compute_booking_depth(params, intent, mined, known)

    async def _find_input_trouble(self, batch: Batch) -> tuple[Outpoint | None, ForeignSpend | None]:
        """Return an input that is gone, and what a buried stranger spent, while the transaction is not mined."""
        outputs = await ask_all(batch.intent.outpoints, self._look.output)
        lost: Outpoint | None = None
        for outpoint in sorted(point for point, output in outputs.items() if output is None):
            stranger = await self._find_buried_stranger(outpoint)
            if stranger is not None:
                return None, ForeignSpend(outpoint, stranger)
            if batch.state in UNRECORDED or await self._look.find_height(outpoint.txid) is None:
                lost = lost or outpoint
                taken = None if batch.state in UNRECORDED else await self._find_taken_ancestor(outpoint)
                if taken is not None:
                    return None, taken
        return lost, None

    async def _find_buried_stranger(self, outpoint: Outpoint) -> Txid | None:
        """Return the transaction of no recorded intent that spent an output, once it is `confirmations` deep."""
        note = self._board.spends.get(outpoint)
        if note is None or self._is_ours(outpoint, note.spender):
            return None
        return note.spender if await self._is_buried(note.spender) else None

    async def _find_taken_ancestor(self, lost: Outpoint) -> ForeignSpend | None:
        """Return who took what an ancestor of a lost input needs, once that is `confirmations` deep.

        Only a standing intent's transaction is spared, as in the ledger: one that ended may have been mined after all.
        """
        if await self._look.transaction(lost.txid) is not None:
            return None
        for need in await self._ancestors.list_needs(self._look, lost):
            note = self._board.spends.get(need.outpoint)
            standing = self._ledger.find_standing((need.outpoint,), ())
            if note is None or any(entry.intent.txid == note.spender for entry in standing):
                continue
            if await self._is_buried(note.spender):
                return ForeignSpend(need.outpoint, note.spender, need.path)
        return None

    async def _is_buried(self, txid: Txid) -> bool:
        height = await self._look.find_height(txid)
        return height is not None and self._look.tip.height - height + 1 >= self._ledger.params.confirmations

    # -------------------------------------------------------------- deposits

    async def view_deposit(self, deposit: Deposit) -> DepositView:
        """Return what the chains and batches say about a deposit."""
        outpoint, tip = deposit.outpoint, self._look.tip.height
        standing = [entry for entry in self._ledger.find_standing((outpoint,), ()) if _is_live(entry)]
        newest = standing[-1].intent.intent_id if standing else None
        batch = None if newest is None else self._board.batches.get(newest)
        place = await self._place_deposit(outpoint)
        return DepositView(
            tip=tip,
            height=place.height,
            is_in_mempool=place.is_in_mempool,
            spender=place.spender,
            spender_confirmations=place.spender_confirmations,
            intent=newest,
            signed=batch.intent.txid if batch is not None and batch.signed_tx else None,
            transfer=place.transfer,
            transfer_height=place.transfer_height,
            credited=self._find_credit(outpoint),
        )

    async def _place_deposit(self, outpoint: Outpoint) -> DepositView:
        tip = self._look.tip.height
        output = await self._look.output(outpoint)
        if output is not None:
            spender = await self._look.mempool_spender(outpoint)
            stranger = None if spender is None or self._is_ours(outpoint, spender) else spender
            return DepositView(tip, height=BtcHeight(tip - output.confirmations + 1), spender=stranger)
        found = await self._look.transaction(outpoint.txid)
        if found is None or found.height is None:
            return DepositView(tip, is_in_mempool=found is not None)
        return await self._find_taker(outpoint, found.height)

    async def _find_taker(self, outpoint: Outpoint, height: BtcHeight) -> DepositView:
        """Say which mined transaction spent an output: one of ours, an emergency, or a stranger the scan noted."""
        tip = self._look.tip.height
        for txid in self._list_own_spenders(outpoint):
            mined = await self._look.find_height(txid)
            if mined is not None:
                return DepositView(tip, height=height, transfer=txid, transfer_height=mined)
        note = self._board.spends.get(outpoint)
        taken = None if note is None else await self._look.find_height(note.spender)
        if note is None or taken is None:
            # Spent by a block whose scan is still to come: nothing is known yet, and the next look will tell.
            return DepositView(tip, height=height)
        if self._is_ours(outpoint, note.spender):
            return DepositView(tip, height=height, transfer=note.spender, transfer_height=taken)
        return DepositView(tip, height=height, spender=note.spender, spender_confirmations=tip - taken + 1)

    def _find_credit(self, outpoint: Outpoint) -> tuple[Txid, Sats] | None:
        txid = self._ledger.credited.get(outpoint)
        if txid is None:
            return None
        credit = next(item for item in self._ledger.bookings[txid].credits if item.outpoint == outpoint)
        return txid, Sats(credit.value - credit.fee_in)

    # -------------------------------------------------------------- peg-outs

    async def view_pegout(self, pegout: PegOut) -> PegOutView:
        """Return what the chains and batches say about a burn."""
        entry = self._ledger.burns.get(pegout.burn)
        standing = self._ledger.find_standing((), (pegout.burn,))
        live = [item for item in standing if _is_live(item)]
        newest = live[-1] if live else None
        batch = None if newest is None else self._board.batches.get(newest.intent.intent_id)
        settled_by = None if entry is None else entry.settled_by
        known = (*(item.intent.txid for item in standing), *pegout.txids)
        mined, height = await self._find_mined(known if settled_by is None else (settled_by, *known))
        return PegOutView(
            kaon_height=self._ledger.height,
            status=None if entry is None else entry.status,
            settled_by=settled_by,
            planned=None if newest is not None else self._find_plan(pegout),
            intent=None if newest is None else newest.intent.intent_id,
            is_signing=newest is not None and self._is_window_over(newest),
            sent=batch.intent.txid if batch is not None and batch.state in _SENT else None,
            mined=mined,
            height=height,
        )

    async def _find_mined(self, txids: tuple[Txid, ...]) -> tuple[Txid | None, BtcHeight | None]:
        for txid in dict.fromkeys(txids):
            height = await self._look.find_height(txid)
            if height is not None:
                return txid, height
        return None, None

    def _find_plan(self, pegout: PegOut) -> IntentId | None:
        if self._plans is None:
            plans = [batch for batch in self._board.open_batches() if batch.state in UNRECORDED]
            self._plans = {burn: batch.intent_id for batch in plans for burn in batch.intent.burns}
        return self._plans.get(pegout.burn)

    # -------------------------------------------------------------- shared

    def _is_window_over(self, entry: IntentEntry) -> bool:
        return self._ledger.params.is_window_over(entry.recorded, self._ledger.height)

    def _list_own_spenders(self, outpoint: Outpoint) -> list[Txid]:
        """Return the transactions of recorded intents that spend an output, newest first."""
        standing = [entry.intent.txid for entry in self._ledger.find_standing((outpoint,), ())]
        booked = self._ledger.credited.get(outpoint)
        return [*reversed(standing), *((booked,) if booked is not None else ())]

    def _is_ours(self, outpoint: Outpoint, spender: Txid) -> bool:
        """Tell whether a transaction is a recorded intent's, booked, or an emergency of that output."""
        if spender in self._list_own_spenders(outpoint) or spender in self._ledger.bookings:
            return True
        return self._ledger.judgements.is_released_emergency(outpoint, spender)


def _is_live(entry: IntentEntry) -> bool:
    return entry.status is IntentStatus.LIVE
