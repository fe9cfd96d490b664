"""Watches every output of the bridge on this pod's own Bitcoin node, and accuses groups that sign what none may.

A theft is seen in the mempool already. Nothing is remembered that the two chains do not say: after a restart the same
look finds the same spend, and it is reported until the ledger shows what became of it. Whether a record allows a
transaction is the ledger's to say; a pod that lags is told so and accuses nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, islice
from typing import Final

import structlog

from smpc.bitcoin.transaction import Transaction, TxOut, parse_transaction
from smpc.errors import BridgeError, CheckFailed, Conflict, TimedOut, Unavailable
from smpc.node.consensus import ConsensusNode
from smpc.node.ports import BitcoinNode, ChainTip
from smpc.node.spend_search import SpendSearch
from smpc.node.trial_ledger import read_in_thread
from smpc.participant.questions import ask_all
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import EpochState
from smpc.protocol.spend_evidence import UnauthorisedSpend
from smpc.protocol.spend_proof import prove_spend
from smpc.protocol.spend_sighting import find_spend_evidence
from smpc.protocol.verdict_records import EvidenceRecorded
from smpc.protocol.watched_outputs import WatchedOutput, list_watched
from smpc.types import BlockHash, BtcHeight, EpochNumber, KaonHeight, Outpoint, RecordId, Txid, to_display_hex

log = structlog.get_logger()

LOOK_SECONDS: Final = 1.0
"""Between two looks into the mempool."""

MAX_OUTPUTS: Final = 256
"""Outputs looked at each time; where there are more, the next look goes on with the rest."""

MAX_CASES: Final = 64
"""Spends not yet settled; one is enough to judge a group."""

REPEAT_AFTER: Final = 10
"""Final blocks after which evidence that the ledger still does not show is submitted again."""

_OVER: Final = frozenset({EpochState.RETIRED, EpochState.ABORTED})


class SpendWatcher:
    """One pod's eye on the bridge's outputs."""

    def __init__(self, node: BitcoinNode, consensus: ConsensusNode, view: Callable[[], Ledger]) -> None:
        self._node = node
        self._consensus = consensus
        self._view = view
        self._search = SpendSearch(node)
        self._watched: tuple[KaonHeight, Mapping[Outpoint, tuple[WatchedOutput, ...]]] | None = None
        self._place = 0
        self._tip: BlockHash | None = None
        self._cases: dict[tuple[EpochNumber, Txid], UnauthorisedSpend] = {}
        self._sent: dict[RecordId, KaonHeight] = {}

    async def run(self) -> None:
        """Look for ever; returns at once on a chain that judges nobody."""
        while self._view().needs_arming:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Look at both chains once and report what is found; what fails is tried again next time."""
        ledger = self._view()
        if not ledger.needs_arming:
            return
        try:
            await self._look_at_mempool(ledger)
            tip = await self._node.fetch_tip()
            if tip.block_hash != self._tip and await self._look_at_chain(ledger, tip):
                self._tip = tip.block_hash
        except BridgeError as reason:
            log.info("outputs.not_seen", code=reason.code, reason=reason.message)
        await self.report()

    def take(self, evidence: UnauthorisedSpend) -> None:
        """Have a spend reported that was seen elsewhere: as a proposer showed it to this member of W."""
        conviction = prove_spend(evidence)
        key = (conviction.epoch, conviction.txid)
        if key not in self._cases and len(self._cases) < MAX_CASES:
            self._cases[key] = evidence

    async def report(self) -> None:
        """Submit every case that the ledger does not show settled and that is not on its way."""
        ledger = self._view()
        for key, evidence in list(self._cases.items()):
            record = EvidenceRecorded(evidence)
            if is_settled(ledger, evidence):
                del self._cases[key]
                self._sent.pop(record.record_id, None)
                continue
            sent = self._sent.get(record.record_id)
            if sent is not None and ledger.height < sent + REPEAT_AFTER:
                continue
            if await self._submit(record, key):
                self._sent[record.record_id] = ledger.height

    # -------------------------------------------------------------- looking

    async def _look_at_mempool(self, ledger: Ledger) -> None:
        watched = self._list_watched(ledger)
        start = self._place if self._place < len(watched) else 0
        part = list(islice(chain(watched, watched), start, start + min(MAX_OUTPUTS, len(watched))))
        self._place = start + len(part)
        spenders = await ask_all(part, self._node.fetch_mempool_spender)
        for outpoint, txid in spenders.items():
            if txid is not None:
                await self._judge(ledger, outpoint, watched[outpoint], txid)

    async def _look_at_chain(self, ledger: Ledger, tip: ChainTip) -> bool:
        """Look for outputs that are gone; False while blocks are left to read."""
        watched = self._list_watched(ledger)
        gone = await ask_all(watched, lambda outpoint: self._find_birth(ledger, outpoint))
        wanted = {outpoint: height for outpoint, height in gone.items() if height is not None}
        if not wanted:
            return True
        found = await self._search.find(wanted, tip)
        for outpoint in wanted.keys() & found.keys():
            await self._judge(ledger, outpoint, watched[outpoint], found[outpoint].txid)
        return wanted.keys() <= found.keys()

    async def _find_birth(self, ledger: Ledger, outpoint: Outpoint) -> BtcHeight | None:
        """Return the block height of an output that is spent on my chain though no record says by what; else None."""
        if await self._node.fetch_output(outpoint, include_mempool=False) is not None:
            return None
        maker = await self._node.fetch_transaction(outpoint.txid)
        if maker is None or maker.height is None:
            return None
        for txid in _list_allowed(ledger, outpoint):
            known = await self._node.fetch_transaction(txid)
            if known is not None and known.height is not None:
                return None
        return maker.height

    async def _judge(self, ledger: Ledger, outpoint: Outpoint, watched: Iterable[WatchedOutput], txid: Txid) -> None:
        """Take a spend as a case of the one epoch whose keys it shows, of all that the output may be."""
        unsettled = [
            item
            for item in watched
            if (item.epoch, txid) not in self._cases
            and not ledger.judgements.find_permission(item.epoch, outpoint, txid)
        ]
        if not unsettled:
            return
        status = await self._node.fetch_transaction(txid)
        if status is None:
            return
        transaction = parse_transaction(status.raw)
        spent = [item.outpoint for item in transaction.inputs]
        if outpoint not in spent:
            raise CheckFailed(f"my node says that {to_display_hex(txid)} spends {outpoint}, which it does not")
        prevouts = await self._fetch_prevouts(transaction)
        position = spent.index(outpoint)
        for item in unsettled:
            try:
                evidence = await read_in_thread(
                    ledger, find_spend_evidence, item.epoch, item.child, transaction, prevouts, position
                )
            except BridgeError as reason:
                log.info("spend.not_theirs", epoch=item.epoch, txid=to_display_hex(txid), reason=reason.message)
                continue
            if evidence is not None:
                self.take(evidence)
                return

    async def _fetch_prevouts(self, transaction: Transaction) -> tuple[TxOut, ...]:
        """Return what a transaction spends; Unavailable when my node does not know one of its parents now."""
        parents = await ask_all(
            sorted({item.outpoint.txid for item in transaction.inputs}), self._node.fetch_transaction
        )
        found: list[TxOut] = []
        for item in transaction.inputs:
            status = parents[item.outpoint.txid]
            if status is None:
                raise Unavailable(f"my node does not have {to_display_hex(item.outpoint.txid)}", code="NO_PARENT")
            outputs = parse_transaction(status.raw).outputs
            if item.outpoint.vout >= len(outputs):
                raise CheckFailed(f"my node has a spend of {item.outpoint}, which does not exist")
            found.append(outputs[item.outpoint.vout])
        return tuple(found)

    def _list_watched(self, ledger: Ledger) -> Mapping[Outpoint, tuple[WatchedOutput, ...]]:
        if self._watched is None or self._watched[0] != ledger.height:
            self._watched = (ledger.height, list_watched(ledger))
        return self._watched[1]

    # -------------------------------------------------------------- reporting

    async def _submit(self, record: EvidenceRecorded, key: tuple[EpochNumber, Txid]) -> bool:
        """Offer the evidence to my consensus node; False when it did not hear it."""
        epoch, txid = key
        try:
            await self._consensus.submit(record)
        except (Unavailable, TimedOut) as reason:
            log.warning("spend.report_postponed", reason=reason.message)
            return False
        except Conflict as known:
            log.info("spend.known", epoch=epoch, txid=to_display_hex(txid), reason=known.message)
        except BridgeError as reason:
            log.warning("spend.not_an_offence", epoch=epoch, txid=to_display_hex(txid), reason=reason.message)
        else:
            log.error("spend.accused", epoch=epoch, txid=to_display_hex(txid))
        return True


def is_settled(ledger: Ledger, evidence: UnauthorisedSpend) -> bool:
    """Tell whether nothing is left to report: every group that signed is judged, its epoch over, or it was allowed."""
    conviction = prove_spend(evidence)
    entry = ledger.epochs.get(conviction.epoch)
    if entry is None or entry.state in _OVER:
        return True
    if all((conviction.epoch, role) in ledger.judgements.unauthorised for role in conviction.roles):
        return True
    return bool(ledger.judgements.find_permission(conviction.epoch, conviction.outpoint, conviction.txid))


def _list_allowed(ledger: Ledger, outpoint: Outpoint) -> Iterable[Txid]:
    """Yield the transactions that may have spent an output by what is recorded, the likely ones first."""
    for entry in ledger.find_standing((outpoint,), ()):
        yield entry.intent.txid
    for item in ledger.judgements.list_emergencies(outpoint):
        yield item.transaction.txid
