"""Sends released emergencies through the pod's own node, so that no executor is needed where a rung enters alone.

The lowest rung first, the next one where the node wants a higher fee or has a rival. Children that pay for more are an
executor's business: a pod has no wallet.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import structlog

from slashing.release import Release, is_good_emergency, list_releases
from smpc.bitcoin.transaction import Transaction
from smpc.errors import BridgeError
from smpc.node.ports import BitcoinNode, BroadcastRefused, RefusalReason
from smpc.participant.servicers import LedgerSource
from smpc.protocol.ledger import Ledger
from smpc.types import KaonHeight, Outpoint, Txid, to_display_hex

log = structlog.get_logger()

PAUSE_SECONDS: Final = 30.0
"""The longest time between two looks while no block becomes final; Bitcoin's blocks take longer."""

_NEXT_RUNG: Final = frozenset({RefusalReason.FEE_TOO_LOW, RefusalReason.CONFLICT})
"""What a rung that pays more may overcome."""


class EmergencyKeeper:
    """Looks at every released output and does what is left to do; nothing it meets is raised."""

    def __init__(self, node: BitcoinNode, replica: LedgerSource) -> None:
        self._node = node
        self._replica = replica
        self._told: dict[Outpoint, str] = {}
        """The last outcome logged of each output, so that a refusal that stays is told once."""

    async def run(self) -> None:
        """Look after every final block until cancelled; also where none comes, because Bitcoin goes on."""
        while True:
            height = self._replica.ledger.height
            await self.execute()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PAUSE_SECONDS):
                    await self._wait_beyond(height)

    async def _wait_beyond(self, height: KaonHeight) -> None:
        await self._replica.wait_for(lambda ledger: ledger.height > height)

    async def execute(self) -> None:
        """Send what can be sent now."""
        ledger = self._replica.ledger
        for epoch in sorted(ledger.judgements.preimages):
            for release in list_releases(ledger, epoch):
                try:
                    await self._execute(ledger, release)
                except BridgeError as reason:
                    self._tell(release.outpoint, f"{reason.code}: {reason.message}")

    async def _execute(self, ledger: Ledger, release: Release) -> None:
        outpoint = release.outpoint
        found = await self._node.fetch_output(outpoint, include_mempool=False)
        if release.fault is not None or found is None or found.confirmations < ledger.params.emergency_csv:
            return
        holder = await self._node.fetch_mempool_spender(outpoint)
        if holder is not None and is_good_emergency(ledger, outpoint, holder):
            return  # also one to an earlier target: what it pays takes it just as well
        for place, rung in enumerate(await asyncio.to_thread(release.complete)):
            if await self._try_rung(outpoint, place, rung.transaction):
                return

    async def _try_rung(self, outpoint: Outpoint, place: int, rung: Transaction) -> bool:
        """Offer one rung; True when the node has it, or when no other rung would fare better."""
        try:
            txid: Txid = await self._node.broadcast(rung.to_bytes())
        except BroadcastRefused as refused:
            self._tell(outpoint, f"rung {place}: {refused.node_reason}")
            return refused.reason not in _NEXT_RUNG
        self._told.pop(outpoint, None)
        log.info("emergency.sent", outpoint=str(outpoint), txid=to_display_hex(txid), rung=place)
        return True

    def _tell(self, outpoint: Outpoint, reason: str) -> None:
        if self._told.get(outpoint) != reason:
            log.warning("emergency.not_sent", outpoint=str(outpoint), reason=reason)
        self._told[outpoint] = reason
