"""Gathers a participant's own facts before it judges: its bitcoind, its ledger replica, its signing log.

Nothing a proposer says enters here, except which outpoints to look at.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Final

from pegin.invoice import build_invoice_tree
from pegin.vault import find_epoch_keys
from smpc.bitcoin.address import to_address
from smpc.bitcoin.script import find_revealed_leaf
from smpc.bitcoin.transaction import parse_transaction
from smpc.errors import BridgeError
from smpc.node.burial_watch import BurialWatch
from smpc.node.ports import BitcoinNode
from smpc.participant.questions import ask_all
from smpc.participant.spending import list_asked_outpoints
from smpc.protocol.facts import (
    BookingFacts,
    EndFacts,
    Facts,
    InputFacts,
    LedgerView,
    NodeFacts,
    SessionFacts,
    StandingFacts,
    TransactionFacts,
)
from smpc.protocol.intents import Booking, Intent
from smpc.protocol.ledger_state import InvoiceEntry
from smpc.types import BtcHeight, EpochNumber, IntentId, KaonHeight, Outpoint, Script, Txid, to_display_hex

FEE_TARGET_BLOCKS: Final = 3
"""The estimate rule V18 asks for."""


INVOICES_AT_ONCE: Final = 20
"""Scripts built between two turns of the event loop: some milliseconds' work. A start finds all there ever were."""


class WatchedScripts:
    """The deposit script of every recorded invoice and the block of its record, kept up with the ledger as it grows."""

    def __init__(self) -> None:
        self._scripts: dict[Script, KaonHeight] = {}
        self._seen = 0
        self._waiting: deque[tuple[EpochNumber, InvoiceEntry]] = deque()

    async def refresh(self, ledger: LedgerView) -> Mapping[Script, KaonHeight]:
        """Add what was recorded since the last call; invoices are never removed.

        Others go on meanwhile. Calls at the same time share the work, and each ends when none of it is left.
        """
        new = islice(ledger.invoices.items(), self._seen, None)
        self._waiting.extend((epoch, entry) for (epoch, _), entry in new)
        self._seen = len(ledger.invoices)
        while self._waiting:
            self._add_some(ledger)
            await asyncio.sleep(0)
        return self._scripts

    def _add_some(self, ledger: LedgerView) -> None:
        for _ in range(min(INVOICES_AT_ONCE, len(self._waiting))):
            epoch, entry = self._waiting[0]
            keys = find_epoch_keys(ledger.epochs, epoch)
            self._scripts.setdefault(build_invoice_tree(keys, entry.request.terms).script, entry.recorded)
            self._waiting.popleft()


class FactGatherer:
    """Asks this operator's own node and ledger; keeps only when it first saw each intent unconfirmed."""

    def __init__(
        self, node: BitcoinNode, *, blocklist: frozenset[str] = frozenset(), clock: Callable[[], float] = time.time
    ) -> None:
        self._node = node
        self._blocklist = blocklist
        self._clock = clock
        self._watched = WatchedScripts()
        self._first_seen: dict[IntentId, BtcHeight] = {}
        self.burials: Final = BurialWatch(node)
        """Whether my two chains go together (V24)."""

    async def read_invoices(self, ledger: LedgerView) -> Mapping[Script, KaonHeight]:
        """Return the deposit script of every recorded invoice by its block; the first call after a start takes long."""
        return await self._watched.refresh(ledger)

    async def gather_node(self) -> NodeFacts:
        """Return the state of my own bitcoind."""
        tip = await self._node.fetch_tip()
        return NodeFacts(
            chain=tip.chain,
            is_synced=tip.is_synced,
            height=tip.height,
            tip_time=tip.time,
            now=int(self._clock()),
            fee_estimate=await self._node.estimate_fee_rate(FEE_TARGET_BLOCKS),
        )

    async def gather_intent(
        self, ledger: LedgerView, session: SessionFacts, intent: Intent, conflicts: tuple[str, ...]
    ) -> Facts:
        """Return everything a transfer, payout or sweep is judged by; for a sweep also what it should have spent."""
        own_scripts = await self.read_invoices(ledger)
        node, params = await self.gather_node(), ledger.params
        if intent.intent_id in ledger.intents:
            self._first_seen.setdefault(intent.intent_id, node.height)
        asked = list_asked_outpoints(ledger, intent)
        inputs = await self.gather_inputs(ledger, asked)
        replaced = intent.replaces[: params.bump_max_count + 1]
        standing = [await self._gather_standing(ledger, older, node.height) for older in replaced]
        return Facts(
            session=session,
            node=node,
            final_height=ledger.height,
            inputs=inputs,
            conflicts=conflicts,
            standing=tuple(facts for facts in standing if facts is not None),
            own_scripts=own_scripts,
        )

    async def gather_inputs(self, ledger: LedgerView, outpoints: Iterable[Outpoint]) -> Mapping[Outpoint, InputFacts]:
        """Return what my node has unspent of these outputs, on its best chain or in its mempool."""
        found = await ask_all(outpoints, lambda outpoint: self._find_input(ledger, outpoint))
        return {outpoint: facts for outpoint, facts in found.items() if facts is not None}

    async def gather_booking(self, ledger: LedgerView, session: SessionFacts, booking: Booking) -> BookingFacts:
        """Return everything a booking is judged by."""
        node = await self.gather_node()
        entry = ledger.intents.get(booking.intent)
        parents = sorted({outpoint.txid for outpoint in entry.intent.outpoints}) if entry is not None else []
        heights = await ask_all(parents, self._find_height)
        return BookingFacts(
            session=session,
            node=node,
            final_height=ledger.height,
            transaction=await self._gather_transaction(booking.txid),
            input_heights={
                outpoint: height
                for outpoint in (entry.intent.outpoints if entry is not None else ())
                if (height := heights[outpoint.txid]) is not None
            },
        )

    async def gather_end(
        self, ledger: LedgerView, session: SessionFacts, *, has_released_share: bool, spender: Txid | None
    ) -> EndFacts:
        """Return what a withdrawal or a dead intent is judged by."""
        return EndFacts(
            session=session,
            node=await self.gather_node(),
            final_height=ledger.height,
            has_released_share=has_released_share,
            spender=None if spender is None else await self._gather_transaction(spender),
        )

    async def gather_spenders(
        self, candidates: Mapping[Outpoint, Iterable[Txid]]
    ) -> Mapping[Outpoint, TransactionFacts]:
        """Return which of the transactions that could take an output did so on my node's best chain."""
        found = await ask_all(candidates, lambda outpoint: self._find_spender(outpoint, candidates[outpoint]))
        return {outpoint: facts for outpoint, facts in found.items() if facts is not None}

    async def _find_spender(self, outpoint: Outpoint, candidates: Iterable[Txid]) -> TransactionFacts | None:
        if await self._node.fetch_output(outpoint, include_mempool=False) is not None:
            return None
        for txid in candidates:
            facts = await self._gather_transaction(txid)
            if facts is not None and outpoint in facts.spends:
                return facts
        return None

    async def _find_input(self, ledger: LedgerView, outpoint: Outpoint) -> InputFacts | None:
        found = await self._node.fetch_output(outpoint, include_mempool=False)
        spender = None if found is None else await self._node.fetch_mempool_spender(outpoint)
        if found is None:
            found = await self._node.fetch_output(outpoint, include_mempool=True)
        if found is None:
            return None
        return InputFacts(
            outpoint=outpoint,
            value=found.value,
            script=found.script,
            confirmations=found.confirmations,
            is_coinbase=found.is_coinbase,
            spender=spender,
            is_blocked=self._is_blocked(ledger, outpoint, found.script),
        )

    def _is_blocked(self, ledger: LedgerView, outpoint: Outpoint, script: Script) -> bool:
        if not self._blocklist:
            return False
        names = {str(outpoint), to_display_hex(outpoint.txid), script.hex()}
        with contextlib.suppress(BridgeError):
            names.add(to_address(script, ledger.params.network))
        return not names.isdisjoint(self._blocklist)

    async def _gather_standing(self, ledger: LedgerView, older: IntentId, height: BtcHeight) -> StandingFacts | None:
        entry = ledger.intents.get(older)
        if entry is None:
            return None
        found = await self._node.fetch_transaction(entry.intent.txid)
        if found is None or found.mempool is None:
            return StandingFacts(older, waiting_blocks=max(0, height - self._first_seen.setdefault(older, height)))
        waiting = max(0, height - found.mempool.entered)
        return StandingFacts(older, waiting, mempool_fee=found.mempool.fee, mempool_vsize=found.mempool.vsize)

    async def _gather_transaction(self, txid: Txid) -> TransactionFacts | None:
        found = await self._node.fetch_transaction(txid)
        if found is None or found.height is None:
            return None
        inputs = parse_transaction(found.raw).inputs
        leaves = tuple(find_revealed_leaf(item.witness) for item in inputs)
        return TransactionFacts(
            txid, tuple(item.outpoint for item in inputs), found.confirmations, found.height, leaves
        )

    async def _find_height(self, txid: Txid) -> BtcHeight | None:
        found = await self._node.fetch_transaction(txid)
        return None if found is None else found.height
