"""The pod's gRPC face: envelopes in, answers out; no rule is judged here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar

import grpc.aio
import structlog

from pegbridge.v1 import dkg_pb2, dkg_pb2_grpc, envelope_pb2, signing_pb2, signing_pb2_grpc
from smpc.errors import InvalidInput, ProtocolError, Unavailable
from smpc.host.peer import PeerIdentity, PeerRole, require_peer
from smpc.participant.ceremonies import Ceremonies, Outcome
from smpc.participant.mailroom import Letter, open_letter, refuse, seal_answer
from smpc.participant.shares import ShareRing
from smpc.participant.signer import Signer
from smpc.protocol.leaders import OPEN_PURPOSES
from smpc.protocol.ledger import Ledger
from smpc.protocol.pod_messages import (
    AbortRequest,
    CommitRequest,
    CompleteRequest,
    DkgFinalizeRequest,
    DkgInvestigateRequest,
    DkgRecoverRequest,
    DkgStep1Request,
    DkgStep2Request,
    EndorseRequest,
    Envelope,
    Refusal,
    Request,
    SignRequest,
    compute_protocol_hash,
)
from smpc.protocol.review import RULES
from smpc.types import KaonHeight
from smpc.wire.envelope import from_envelope_message, to_answer_message

log = structlog.get_logger()

R = TypeVar("R", bound=Request)

MAX_SLOT_LEAD: Final = 20
"""Final blocks that a leader's chain may be ahead of mine."""

Context = grpc.aio.ServicerContext[Any, Any]


class LedgerSource(Protocol):
    """The pod's own replica of the consensus layer."""

    @property
    def ledger(self) -> Ledger:
        """Return the ledger of final blocks."""
        ...

    async def wait_for(self, predicate: Callable[[Ledger], object]) -> None:
        """Wait until the predicate holds, asked after every final block."""
        ...


class Desk:
    """Opens letters for both services: signature, leader, parameters, and a replica that has reached the slot."""

    def __init__(self, replica: LedgerSource) -> None:
        self._replica = replica
        self._protocol = compute_protocol_hash(replica.ledger.params)

    @property
    def ledger(self) -> Ledger:
        """Return the ledger of final blocks."""
        return self._replica.ledger

    async def open(self, message: envelope_pb2.Envelope, rpc: str, expected: type[R], context: Context) -> Letter[R]:
        """Open one request; ProtocolError names the rule it breaks, Unavailable while my own chain is behind its slot.

        The leader read the slot from final blocks, so an honest replica is there at once or a block later.
        """
        envelope = from_envelope_message(message)
        letter = open_letter(
            envelope,
            rpc,
            expected,
            ledger=self.ledger,
            protocol=self._protocol,
        )
        check_peer(require_peer(context, self.ledger.params.network), letter)
        slot = letter.request.header.slot
        # A chain that lags by a few blocks catches up in time; a slot far ahead is not worth waiting for.
        patience = min(5.0, seconds_left(context) / 2) if slot <= self.ledger.height + MAX_SLOT_LEAD else 0.0
        if not await self._has_reached(slot, patience):
            raise Unavailable(
                f"my consensus replica is at final height {self.ledger.height}, the slot is {slot}",
                code="NODE_BEHIND",
                remedy="check this pod's consensus node",
            )
        return letter

    async def _has_reached(self, slot: KaonHeight, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._replica.wait_for(lambda ledger: ledger.height >= slot)
        except TimeoutError:
            return False
        return True


def check_peer(peer: PeerIdentity, letter: Letter[R]) -> None:
    """Refuse (ProtocolError, V03) what another validator brings unless it leads that itself: it relays for nobody."""
    if peer.role is not PeerRole.PARTICIPANT:
        return
    if letter.request.header.purpose not in OPEN_PURPOSES or letter.sender != peer.identity_key:
        raise ProtocolError(f"{peer.uri} leads no such session", rule="V03", code="NOT_LEADER")


def seconds_left(context: Context) -> float:
    """Return the time until the caller's deadline; the interceptor lets no call without one in."""
    return float(context.time_remaining())


async def answer_letter(
    desk: Desk,
    message: envelope_pb2.Envelope,
    rpc: str,
    expected: type[R],
    context: Context,
    handle: Callable[[Letter[R]], Awaitable[Envelope | Refusal]],
) -> envelope_pb2.Answer:
    """Open, handle and answer one request; a fault in the envelope itself is a refusal that names the rule."""
    try:
        letter = await desk.open(message, rpc, expected, context)
        return to_answer_message(await handle(letter))
    except ProtocolError as fault:
        if fault.rule not in RULES:
            raise InvalidInput(fault.message, code=fault.code) from fault
        log.warning("request.refused", rpc=rpc, rule=fault.rule, code=fault.code)
        reason = fault.code if fault.code in RULES[fault.rule].reasons else RULES[fault.rule].reasons[0]
        return to_answer_message(refuse(fault.rule, reason, fault.message))
    except OverflowError as fault:
        # Integers travel as u64; Bitcoin's serialisation and SQLite take less.
        raise InvalidInput(f"{rpc}: a number is larger than any of its kind") from fault


class DkgServicer(dkg_pb2_grpc.DkgServiceServicer):
    """Key ceremonies."""

    def __init__(self, desk: Desk, ceremonies: Ceremonies, ring: ShareRing) -> None:
        self._desk = desk
        self._ceremonies = ceremonies
        self._ring = ring

    async def Step1(self, request: dkg_pb2.Step1Request, context: Context) -> dkg_pb2.Step1Response:  # noqa: N802
        """Open a ceremony."""

        async def run(letter: Letter[DkgStep1Request]) -> Outcome:
            ledger = self._desk.ledger
            epoch = ledger.epochs.get(letter.request.header.group.epoch)
            elapsed = 0 if epoch is None else ledger.count_acting(epoch.announced)
            return self._ceremonies.step1(letter.request, epoch, elapsed)

        return dkg_pb2.Step1Response(
            answer=await self._answer(request.envelope, "Step1", DkgStep1Request, context, run)
        )

    async def Step2(self, request: dkg_pb2.Step2Request, context: Context) -> dkg_pb2.Step2Response:  # noqa: N802
        """Check the commitments."""
        answer = await self._answer(
            request.envelope, "Step2", DkgStep2Request, context, lambda it: self._ceremonies.step2(it.request)
        )
        return dkg_pb2.Step2Response(answer=answer)

    async def Finalize(  # noqa: N802
        self, request: dkg_pb2.FinalizeRequest, context: Context
    ) -> dkg_pb2.FinalizeResponse:
        """Accept the certificate."""
        answer = await self._answer(
            request.envelope, "Finalize", DkgFinalizeRequest, context, lambda it: self._ceremonies.finalize(it.request)
        )
        return dkg_pb2.FinalizeResponse(answer=answer)

    async def Investigate(  # noqa: N802
        self, request: dkg_pb2.InvestigateRequest, context: Context
    ) -> dkg_pb2.InvestigateResponse:
        """Name who sent a wrong share."""
        answer = await self._answer(
            request.envelope,
            "Investigate",
            DkgInvestigateRequest,
            context,
            lambda it: self._ceremonies.investigate(it.request),
        )
        return dkg_pb2.InvestigateResponse(answer=answer)

    async def Recover(self, request: dkg_pb2.RecoverRequest, context: Context) -> dkg_pb2.RecoverResponse:  # noqa: N802
        """Restore a share, or hand out recovery data."""

        async def run(letter: Letter[DkgRecoverRequest]) -> Outcome:
            epoch = self._desk.ledger.epochs.get(letter.request.header.group.epoch)
            return self._ceremonies.recover(letter.request, epoch)

        answer = await self._answer(request.envelope, "Recover", DkgRecoverRequest, context, run)
        return dkg_pb2.RecoverResponse(answer=answer)

    async def _answer(
        self,
        message: envelope_pb2.Envelope,
        rpc: str,
        expected: type[R],
        context: Context,
        run: Callable[[Letter[R]], Awaitable[Outcome]],
    ) -> envelope_pb2.Answer:
        async def handle(letter: Letter[R]) -> Envelope | Refusal:
            outcome = await run(letter)
            if isinstance(outcome, Refusal):
                return outcome
            header = letter.request.header
            secret = self._ring.derive_host_secret(header.group, header.attempt)
            return seal_answer(secret, rpc, letter.session_id, outcome)

        return await answer_letter(self._desk, message, rpc, expected, context, handle)


class SigningServicer(signing_pb2_grpc.SigningServiceServicer):
    """Endorsements and signing sessions."""

    def __init__(self, desk: Desk, signer: Signer) -> None:
        self._desk = desk
        self._signer = signer

    async def Endorse(  # noqa: N802
        self, request: signing_pb2.EndorseRequest, context: Context
    ) -> signing_pb2.EndorseResponse:
        """Review an intent."""
        answer = await answer_letter(
            self._desk,
            request.envelope,
            "Endorse",
            EndorseRequest,
            context,
            lambda it: self._signer.endorse(it, seconds_left(context)),
        )
        return signing_pb2.EndorseResponse(answer=answer)

    async def Commit(self, request: signing_pb2.CommitRequest, context: Context) -> signing_pb2.CommitResponse:  # noqa: N802
        """Round one."""
        answer = await answer_letter(
            self._desk,
            request.envelope,
            "Commit",
            CommitRequest,
            context,
            lambda it: self._signer.commit(it, seconds_left(context)),
        )
        return signing_pb2.CommitResponse(answer=answer)

    async def Sign(self, request: signing_pb2.SignRequest, context: Context) -> signing_pb2.SignResponse:  # noqa: N802
        """Round two."""
        answer = await answer_letter(self._desk, request.envelope, "Sign", SignRequest, context, self._signer.sign)
        return signing_pb2.SignResponse(answer=answer)

    async def Abort(self, request: signing_pb2.AbortRequest, context: Context) -> signing_pb2.AbortResponse:  # noqa: N802
        """End a session."""
        answer = await answer_letter(self._desk, request.envelope, "Abort", AbortRequest, context, self._signer.abort)
        return signing_pb2.AbortResponse(answer=answer)

    async def Complete(  # noqa: N802
        self, request: signing_pb2.CompleteRequest, context: Context
    ) -> signing_pb2.CompleteResponse:
        """Take the final signatures."""
        answer = await answer_letter(
            self._desk, request.envelope, "Complete", CompleteRequest, context, self._signer.complete
        )
        return signing_pb2.CompleteResponse(answer=answer)
