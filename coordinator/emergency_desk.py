"""Executes what a release allows, as the coordinator does: W's rejections, the rungs, the booking (design.md 6).

Level-triggered: every look starts from the two chains, so a coordinator that was killed, or meets a reorg, just looks
again. It has no wallet: where no rung gets in by itself, `peg emergency execute` pays for one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import structlog

from coordinator.message_rounds import MessageRounds
from coordinator.pods import Pods
from coordinator.rejection_rounds import RejectionRounds
from coordinator.signing_job import build_booking_job
from slashing.package import Payable
from slashing.release import Release, is_good_emergency, list_released_txids, list_releases
from smpc.bitcoin.interpreter import verify_input_scripts
from smpc.bitcoin.script import find_revealed_leaf
from smpc.bitcoin.transaction import parse_transaction
from smpc.errors import BridgeError, Conflict
from smpc.node.consensus import ConsensusNode
from smpc.node.ports import BitcoinNode, BroadcastRefused
from smpc.node.spend_search import SpendSearch
from smpc.protocol.epoch import is_serving
from smpc.protocol.intents import Booking
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import IntentStatus
from smpc.protocol.records import BookingRecorded
from smpc.types import BtcHeight, EpochNumber, Outpoint, Purpose, Role, Txid

log = structlog.get_logger()

LOOK_SECONDS: Final = 5.0
"""Between two looks; one that finds no verdict asks the node for the booked vault outputs and nothing else."""

MAX_RUNNING: Final = 8
"""Outputs of an epoch, and epochs, worked on at a time."""

MOST_KEPT: Final = 256
"""Signed records kept until they are final; older ones are signed again."""

_KNOWN: Final = frozenset({"ALREADY_RECORDED", "BOOKED"})


class EmergencyDesk:
    """The coordinator's part of every emergency. Where the chain arms nothing it does nothing."""

    def __init__(
        self,
        *,
        pods: Pods,
        node: BitcoinNode,
        consensus: ConsensusNode,
        view: Callable[[], Ledger],
    ) -> None:
        self._pods = pods
        self._node = node
        self._consensus = consensus
        self._view = view
        self._search = SpendSearch(node)
        self._rejections = RejectionRounds(pods, consensus, view, node)
        self._messages = MessageRounds(pods)
        self._signed: dict[bytes, BookingRecorded] = {}
        """Bookings that wait to become final, by digest; until then nobody signs them twice."""

    async def run(self) -> None:
        """Look for ever; what fails is tried again."""
        while self._view().needs_arming:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Do once whatever can be done now: for every released epoch, and for what is lost for good.

        Side by side, so that nothing waits for a group that does not answer about something else.
        """
        gate = asyncio.Semaphore(MAX_RUNNING)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._attempt("losses", gate, self._book_losses))
            for epoch in list_released(self._view()):
                group.create_task(self._attempt("rejection", gate, partial(self._reject, epoch)))
            for epoch in list_executed(self._view()):
                group.create_task(self._attempt("execution", gate, partial(self._execute_all, epoch)))

    async def _attempt(self, what: str, gate: asyncio.Semaphore, work: Callable[[], Awaitable[None]]) -> None:
        """Let one thing fail without the others: each is looked at again."""
        try:
            async with gate:
                await work()
        except BridgeError as reason:
            log.warning("emergency.delayed", work=what, code=reason.code, reason=reason.message)
        except Exception:
            # A fault of our own about one output must not end the work on everybody else's money.
            log.exception("emergency.broken", work=what)

    async def _reject(self, epoch: EpochNumber) -> None:
        await self._rejections.run(epoch)

    async def _execute_all(self, epoch: EpochNumber) -> None:
        """Bring every armed output of an epoch forward."""
        gate = asyncio.Semaphore(MAX_RUNNING)
        async with asyncio.TaskGroup() as group:
            for release in list_releases(self._view(), epoch):
                group.create_task(self._attempt("execution", gate, partial(self._execute, release)))

    # -------------------------------------------------------------- on Bitcoin

    async def _execute(self, release: Release) -> None:
        """Bring one output's emergency forward: broadcast it, raise it, or book it."""
        output = await self._node.fetch_output(release.outpoint, include_mempool=False)
        if output is None:
            await self._book_mined(release.outpoint)
        elif release.fault is None and output.confirmations >= self._view().params.emergency_csv:
            await self._broadcast(release)

    async def _broadcast(self, release: Release) -> None:
        """Hand the lowest rung that the node takes to it; the next one after some blocks without a confirmation."""
        rungs = release.complete()
        spender = await self._node.fetch_mempool_spender(release.outpoint)
        txids = [rung.transaction.txid for rung in rungs]
        if spender is not None and spender not in txids and is_good_emergency(self._view(), release.outpoint, spender):
            return  # to an earlier target that can take it as well
        if spender in txids:
            if not await self._is_stuck(spender):
                return
            rungs = rungs[txids.index(spender) + 1 :]
        for rung in rungs:
            if await self._try_rung(release, rung):
                return
        if rungs:
            log.warning("emergency.not_taken", outpoint=str(release.outpoint), epoch=release.epoch)

    async def _try_rung(self, release: Release, rung: Payable) -> bool:
        # One more gate: Bitcoin's own interpreter. What it refuses is never broadcast (case B21).
        await asyncio.to_thread(verify_input_scripts, rung.transaction, [release.prevout])
        try:
            txid = await self._node.broadcast(rung.transaction.to_bytes())
        except BroadcastRefused as refused:
            log.info("rung.refused", outpoint=str(release.outpoint), fee=rung.fee, reason=refused.node_reason)
            return False
        log.info("emergency.sent", outpoint=str(release.outpoint), txid=txid[::-1].hex(), fee=rung.fee)
        return True

    async def _is_stuck(self, txid: Txid) -> bool:
        """Tell whether a rung has been in my node's mempool for as long as anything waits before it is raised."""
        found = await self._node.fetch_transaction(txid)
        if found is None or found.mempool is None:
            return False
        tip = await self._node.fetch_tip()
        return tip.height - found.mempool.entered >= self._view().params.bump_after

    # -------------------------------------------------------------- on the ledger

    async def _book_mined(self, outpoint: Outpoint) -> None:
        """Book the emergency that spent an output, once it is `confirmations` deep."""
        ledger = self._view()
        txid = await find_mined_emergency(ledger, self._node, outpoint)
        signer = find_signer(ledger)
        if txid is None or signer is None or txid in ledger.bookings or not await self._is_deep(txid):
            return
        found = await self._node.fetch_transaction(txid)
        if found is not None:
            (spent,) = parse_transaction(found.raw).inputs
            leaf = find_revealed_leaf(spent.witness)
            await self._book(ledger.judgements.compute_emergency_booking(outpoint, txid, signer, leaf))

    async def _book_losses(self) -> None:
        """Book vault outputs that a transaction of no record spent, `confirmations` deep: all that it spent at once."""
        gone = await self._list_unexplained()
        found = await self._search.find(gone, await self._node.fetch_tip()) if gone else {}
        for thief in {transaction.txid: transaction for transaction in found.values()}.values():
            ledger = self._view()
            signer = find_signer(ledger)
            spent = tuple(sorted({item.outpoint for item in thief.inputs} & ledger.vault.keys()))
            is_known = any(is_recorded(ledger, outpoint, thief.txid) for outpoint in spent)
            if signer is not None and spent and not is_known and await self._is_deep(thief.txid):
                log.error("vault.lost", txid=thief.txid[::-1].hex(), outputs=len(spent))
                await self._book(ledger.judgements.compute_loss_booking(spent, thief.txid, signer))

    async def _list_unexplained(self) -> dict[Outpoint, BtcHeight]:
        """Return the booked outputs that are spent on my chain by no intent and no emergency, with their own blocks."""
        found: dict[Outpoint, BtcHeight] = {}
        for outpoint in sorted(self._view().vault):
            if await self._node.fetch_output(outpoint, include_mempool=False) is not None:
                continue
            ledger = self._view()
            recorded = (entry.intent.txid for entry in ledger.find_standing((outpoint,), ()))
            allowed = (*recorded, *list_released_txids(ledger, outpoint))
            if not any([await self._find_height(txid) is not None for txid in allowed]):
                height = await self._find_height(outpoint.txid)
                found |= {} if height is None else {outpoint: height}
        return found

    async def _find_height(self, txid: Txid) -> BtcHeight | None:
        found = await self._node.fetch_transaction(txid)
        return None if found is None else found.height

    async def _is_deep(self, txid: Txid) -> bool:
        found = await self._node.fetch_transaction(txid)
        return found is not None and found.confirmations >= self._view().params.confirmations

    async def _book(self, booking: Booking) -> None:
        digest = booking.digest
        if digest not in self._signed:
            groups = self._view().epochs[booking.epoch].groups
            jobs = [build_booking_job(groups[role], booking) for role in (Role.VALIDATOR, Role.WITNESS)]
            signatures = await self._messages.sign(jobs, subject=booking.txid)
            if signatures is None:
                return
            self._keep(digest, BookingRecorded(booking, *signatures))
        await self._submit(self._signed[digest])

    async def _submit(self, record: BookingRecorded) -> None:
        """Submit a record; one that waits for its block to become final is no news."""
        try:
            await self._consensus.submit(record)
        except Conflict as known:
            if known.code not in _KNOWN:
                raise
            return
        log.info("emergency.booked", txid=record.booking.txid[::-1].hex())

    def _keep(self, digest: bytes, record: BookingRecorded) -> None:
        while len(self._signed) >= MOST_KEPT:
            del self._signed[next(iter(self._signed))]
        self._signed[digest] = record


def list_released(ledger: Ledger) -> tuple[EpochNumber, ...]:
    """Return the epochs under a final release whose preimage is published, ascending."""
    released = (epoch for epoch, role in ledger.judgements.verdicts if role is Role.VALIDATOR)
    return tuple(sorted(epoch for epoch in released if epoch in ledger.judgements.preimages))


def list_executed(ledger: Ledger) -> tuple[EpochNumber, ...]:
    """Return the epochs whose emergencies may be on Bitcoin: released ones, and where W is proven not to have waited.

    Of the latter nothing is sent from here (`Release.fault`), only booked.
    """
    proven = {epoch for epoch, role in ledger.judgements.unauthorised if role is Role.WITNESS}
    return tuple(sorted({*list_released(ledger), *proven}))


def find_signer(ledger: Ledger) -> EpochNumber | None:
    """Return the epoch whose V and W book now: the active one, or while that is judged the one before; None else."""
    active = ledger.active_epoch
    if active is None:
        return None
    for number in (active, EpochNumber(active - 1)):
        entry = ledger.epochs.get(number)
        if entry is not None and not entry.is_convicted and is_serving(entry, Purpose.BOOKING):
            return number
    return None


async def find_mined_emergency(ledger: Ledger, node: BitcoinNode, outpoint: Outpoint) -> Txid | None:
    """Return the emergency of an output that stands on the node's best chain and may be booked; None without one."""
    for txid in list_released_txids(ledger, outpoint):
        found = await node.fetch_transaction(txid)
        if found is not None and found.height is not None:
            return txid
    return None


def is_recorded(ledger: Ledger, outpoint: Outpoint, txid: Txid) -> bool:
    """Tell whether a transaction that spends a vault output is an intent's that counts, or an emergency of it."""
    is_intent = any(
        entry.intent.txid == txid and (entry.status.is_standing or entry.status is IntentStatus.BOOKED)
        for entry in ledger.intents.values()
    )
    return is_intent or ledger.judgements.is_emergency(outpoint, txid)
