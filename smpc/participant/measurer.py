"""Pings the peers that this pod is drawn to measure, and votes on who never answered (`smpc.protocol.measuring`)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from smpc.curve import SecretKey, compute_xonly_key, sign_schnorr, verify_schnorr
from smpc.errors import BridgeError, TimedOut, Unavailable
from smpc.node.consensus import ConsensusNode
from smpc.participant.peers import Peers
from smpc.protocol.encoding import hash_fields
from smpc.protocol.ledger import Ledger
from smpc.protocol.measuring import MeasuringWindow, list_absent, list_measured
from smpc.protocol.service import compute_ping_digest
from smpc.protocol.verdict_records import AbsenceVote
from smpc.types import IdentityKey, KaonHeight, Signature

log = structlog.get_logger()

FIRST_PART: Final = 2
"""A window is divided by this: within its first part every peer is asked once, each at a block of its own."""

PINGS: Final = 5
"""A peer that does not answer is asked again after a fifth of what is left of the window then, and so on."""

MIN_PINGS: Final = 3
"""Who was asked less often is not accused: this pod was started, or fell behind, within the window."""

PING_SECONDS: Final = 5.0
"""How long a peer may take to answer."""

MAX_PINGS_AT_ONCE: Final = 8


@dataclass(slots=True)
class _Round:
    """What one window has shown so far."""

    window: MeasuringWindow
    peers: tuple[IdentityKey, ...]
    answered: set[IdentityKey] = field(default_factory=set)
    asked: dict[IdentityKey, int] = field(default_factory=dict)
    due: dict[IdentityKey, int] = field(default_factory=dict)
    """The height at which a peer is asked next."""
    voted: set[IdentityKey] = field(default_factory=set)

    def list_accused(self) -> tuple[IdentityKey, ...]:
        """Return who is to be accused and was not yet."""
        measured = {
            peer: peer in self.answered
            for peer in self.peers
            if peer in self.answered or self.asked.get(peer, 0) >= MIN_PINGS
        }
        return tuple(peer for peer in list_absent(measured) if peer not in self.voted)


class Measurer:
    """One validator's measuring. Does nothing where the genesis arms nothing, and while it is jailed."""

    def __init__(
        self, *, identity_secret: SecretKey, peers: Peers, consensus: ConsensusNode, view: Callable[[], Ledger]
    ) -> None:
        self._secret = identity_secret
        self._identity = IdentityKey(compute_xonly_key(identity_secret))
        self._peers = peers
        self._consensus = consensus
        self._view = view
        self._rounds: dict[KaonHeight, _Round] = {}

    async def measure(self) -> None:
        """Do what the newest final block asks for: ping who is due, vote on the windows that are over."""
        ledger = self._view()
        if not ledger.needs_arming or self._identity not in ledger.stakes:
            return
        await self._open_rounds(ledger)
        for current in tuple(self._rounds.values()):
            if ledger.height < current.window.end:
                await self._ping_due(current, ledger.height)
            else:
                await self._vote(current, ledger)

    async def _open_rounds(self, ledger: Ledger) -> None:
        windows = ledger.judgements.windows
        self._rounds = {start: item for start, item in self._rounds.items() if start in windows}
        for start, window in windows.items():
            if start not in self._rounds and ledger.height < window.end:
                stakes = self._list_all_stakes(ledger)
                peers = await asyncio.to_thread(list_measured, window, stakes, self._identity)
                self._rounds[start] = _Round(window, peers, due=self._spread(window, peers))

    def _spread(self, window: MeasuringWindow, peers: Sequence[IdentityKey]) -> dict[IdentityKey, int]:
        """Return when each peer is asked first: were all asked at once, by all, every window began with a storm."""
        part = max(1, (window.end - window.start) // FIRST_PART)
        tickets = {peer: hash_fields("measuring-turn", window.seed, self._identity, peer) for peer in peers}
        return {peer: window.start + int.from_bytes(ticket, "big") % part for peer, ticket in tickets.items()}

    @staticmethod
    def _list_all_stakes(ledger: Ledger) -> dict[IdentityKey, int]:
        return {item.identity: item.stake for item in ledger.genesis.validators if item.stake > 0}

    async def _ping_due(self, current: _Round, height: KaonHeight) -> None:
        pause = max(1, (current.window.end - current.window.start) // FIRST_PART // PINGS)
        gate = asyncio.Semaphore(MAX_PINGS_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for peer in current.peers:
                if peer not in current.answered and height >= current.due[peer]:
                    current.due[peer] = height + pause
                    group.create_task(self._ping(current, peer, gate))

    async def _ping(self, current: _Round, peer: IdentityKey, gate: asyncio.Semaphore) -> None:
        network = self._view().params.network
        nonce = int.from_bytes(os.urandom(8), "big")
        async with gate:
            try:
                async with asyncio.timeout(2 * PING_SECONDS):
                    signature = await self._peers.ping(peer, nonce, seconds=PING_SECONDS)
            except (BridgeError, TimeoutError) as reason:
                log.info("peer.not_answering", peer=peer.hex(), reason=str(reason))
            else:
                if verify_schnorr(peer, compute_ping_digest(network, peer, nonce), signature):
                    current.answered.add(peer)
        current.asked[peer] = current.asked.get(peer, 0) + 1

    async def _vote(self, current: _Round, ledger: Ledger) -> None:
        for peer in current.list_accused():
            if peer not in ledger.stakes:
                # Others said enough, or he is out for another reason: after his term this window is no new outage.
                current.voted.add(peer)
                continue
            try:
                await self._consensus.submit(self._build_vote(current.window, peer, ledger))
                log.warning("absence.voted", peer=peer.hex(), window=current.window.start)
            except (Unavailable, TimedOut) as reason:
                log.warning("absence.postponed", reason=reason.message)
                return
            except BridgeError as reason:
                log.info("absence.refused", peer=peer.hex(), code=reason.code)
            current.voted.add(peer)

    def _build_vote(self, window: MeasuringWindow, accused: IdentityKey, ledger: Ledger) -> AbsenceVote:
        unsigned = AbsenceVote(ledger.params.network, window.start, accused, self._identity, Signature(bytes(64)))
        return replace(unsigned, signature=sign_schnorr(self._secret, unsigned.digest, os.urandom(32)))
