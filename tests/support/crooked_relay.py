"""A relay of key ceremonies that takes every step by hand, so that a test may lie at any of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from coordinator.attendance import Answered, Heard
from coordinator.ceremony import CeremonyTask
from smpc.protocol.ceremony_records import compute_dkg_subject
from smpc.protocol.pod_messages import (
    DKG_SUITE,
    DkgFault,
    DkgFinalizeRequest,
    DkgInvestigateRequest,
    DkgReply,
    DkgStep1Request,
    DkgStep2Request,
    Envelope,
    Reply,
    Request,
    SessionHeader,
)
from smpc.threshold.dkg import coordinator_finalize, coordinator_investigate, coordinator_step1
from smpc.threshold.messages import CoordinatorMessage1
from tests.support.keygen_world import KeygenWorld


class CrookedRelay:
    """One session of one attempt, under a coordinator's real key."""

    def __init__(self, world: KeygenWorld, task: CeremonyTask) -> None:
        self._world = world
        self.task = task
        slot = world.voice.open_slot()
        subject = compute_dkg_subject(slot.network, task.group, task.attempt, task.host_keys)
        self.header: SessionHeader = slot.open_header(task.group, None, subject, task.attempt, suite=DKG_SUITE)
        self.firsts: tuple[Envelope, ...] = ()
        self.messages: list[bytes] = []

    async def ask(self, position: int, request: Request) -> Heard[Reply]:
        """Ask one member."""
        seat = self.task.seats[position]
        return await self._world.voice.hear(seat, self._world.voice.seal(request), seconds=10.0)

    async def collect_firsts(self) -> None:
        """Have every member begin, in the order of the session."""
        request = DkgStep1Request(self.header, self.task.host_keys, self.task.threshold)
        heard = [await self.ask(position, request) for position in range(len(self.task.seats))]
        answered = [each for each in heard if isinstance(each, Answered)]
        assert len(answered) == len(self.task.seats), heard
        self.firsts = tuple(each.signed.envelope for each in answered)
        self.messages = [each.reply.message for each in answered if isinstance(each.reply, DkgReply)]

    def broadcast(self, alter: Callable[[CoordinatorMessage1], CoordinatorMessage1] = lambda it: it) -> bytes:
        """Return the first message to all, changed or not."""
        params = self.task.params
        honest = coordinator_step1(self.messages, params)[1]
        parsed = CoordinatorMessage1.from_bytes(honest, threshold=params.threshold, size=params.size)
        return alter(parsed).to_bytes()

    async def certify(self, position: int, broadcast: bytes) -> Heard[Reply]:
        """Ask for a member's second message."""
        return await self.ask(position, DkgStep2Request(self.header, broadcast))

    async def finish(self) -> bytes:
        """Run the rest honestly; the recovery data."""
        state, broadcast = coordinator_step1(self.messages, self.task.params)
        signatures = []
        for position in range(len(self.task.seats)):
            heard = await self.certify(position, broadcast)
            assert isinstance(heard, Answered), heard
            assert isinstance(heard.reply, DkgReply), heard
            signatures.append(heard.reply.message)
        certificate, output = coordinator_finalize(state, signatures)
        for position in range(len(self.task.seats)):
            await self.ask(position, DkgFinalizeRequest(self.header, certificate))
        return output.recovery_data

    async def investigate(self, position: int, firsts: Sequence[Envelope] | None = None) -> DkgFault:
        """Let a member investigate; its finding."""
        message = coordinator_investigate(self.messages, self.task.params)[position]
        shown = self.firsts if firsts is None else tuple(firsts)
        heard = await self.ask(position, DkgInvestigateRequest(self.header, message, shown))
        assert isinstance(heard, Answered), heard
        assert isinstance(heard.reply, DkgFault), heard
        return heard.reply


def spoil_sum(position: int) -> Callable[[CoordinatorMessage1], CoordinatorMessage1]:
    """Return what changes the summed share for one member in the relay's message."""

    def change(message: CoordinatorMessage1) -> CoordinatorMessage1:
        shares = list(message.encrypted_shares)
        shares[position] ^= 1
        return replace(message, encrypted_shares=tuple(shares))

    return change
