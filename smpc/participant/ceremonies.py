"""A member's side of key ceremonies: ChillDKG's steps over sealed messages, one per group, attempt and leader."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog

from smpc.curve import SecretKey
from smpc.errors import BridgeError, CoordinatorFault, Refused, UnattributedFault
from smpc.participant.accusation import build_fault, find_accusations
from smpc.participant.duties import KEYING, is_attempt_open
from smpc.participant.mailroom import refuse
from smpc.participant.shares import ShareRing
from smpc.protocol.ceremony_records import CeremonyFault, compute_dkg_subject
from smpc.protocol.codec import encode
from smpc.protocol.ledger_state import EpochEntry
from smpc.protocol.pod_messages import (
    DKG_SUITE,
    DkgFault,
    DkgFinalizeRequest,
    DkgInvestigateRequest,
    DkgRecoverRequest,
    DkgReply,
    DkgStep1Request,
    DkgStep2Request,
    Refusal,
    SessionHeader,
    ShareAccusation,
    compute_answered_hash,
)
from smpc.threshold.dkg import (
    ParticipantState1,
    ParticipantState2,
    SessionParams,
    ShareFault,
    participant_finalize,
    participant_investigate,
    participant_step1,
    participant_step2,
)
from smpc.types import Attempt, EpochNumber, GroupId, HostKey, IdentityKey, Network, SessionId

log = structlog.get_logger()

Outcome = DkgReply | DkgFault | Refusal
Relayed = DkgStep2Request | DkgFinalizeRequest | DkgInvestigateRequest
_Key = tuple[GroupId, Attempt, IdentityKey]
"""A ceremony's group and attempt, and who leads it."""


@dataclass(slots=True)
class _Ceremony:
    """One running ceremony: where it stands, and the answers given so that a repeated request gets the same one."""

    params: SessionParams
    members: tuple[IdentityKey, ...]
    """In the order of the session."""
    state1: ParticipantState1 | None = None
    state2: ParticipantState2 | None = None
    fault: ShareFault | None = None
    answers: dict[str, tuple[bytes, Outcome]] = field(default_factory=dict)
    """Per step: the hash of the latest question that was answered, and its answer."""


class CeremonyLog(Protocol):
    """What of a ceremony must be on disk before it leaves this pod; every method waits for the disk."""

    def certify_ceremony(self, group: GroupId, attempt: Attempt) -> None:
        """Write down that a transcript of this attempt is signed; Refused after a complaint in the same attempt."""
        ...

    def record_complaints(self, faults: Sequence[CeremonyFault]) -> None:
        """Keep complaints, all of one attempt; Refused when a transcript of it is signed."""
        ...


class Ceremonies:
    """Runs this member's part of every ceremony the ledger announces; states live in memory only."""

    def __init__(self, ring: ShareRing, network: Network, log: CeremonyLog) -> None:
        self._ring = ring
        self._network = network
        self._log = log
        self._running: dict[SessionId, _Ceremony] = {}
        self._begun: dict[_Key, SessionId] = {}

    def step1(self, request: DkgStep1Request, epoch: EpochEntry | None, elapsed: int) -> Outcome:
        """Begin a ceremony: check it against the ledger, draw fresh randomness, answer with the first message.

        `elapsed` says how long everybody could act on the epoch's announcement (`compute_open_attempts`).
        """
        header = request.header
        refusal = self._review(request, epoch, elapsed)
        if refusal is not None:
            return refusal
        running = self._running.get(header.session_id)
        if running is not None:
            return running.answers["step1"][1]
        secret = self._secret(header)
        params = SessionParams(request.host_keys, request.threshold)
        state, message = participant_step1(secret, params, os.urandom(32))
        answer = DkgReply(message)
        self._supersede(header)
        members = self._find_members(request, epoch)
        self._running[header.session_id] = _Ceremony(params, members, state1=state, answers={"step1": (b"", answer)})
        log.info("ceremony.begun", epoch=header.group.epoch, role=header.group.role, attempt=header.attempt)
        return answer

    async def step2(self, request: DkgStep2Request) -> Outcome:
        """Check all commitments and the own share, and sign the transcript; on disk first that this attempt is used."""
        outcome = await self._answer(request, "step2", lambda it: self._step2(it, request))
        if not isinstance(outcome, DkgReply):
            return outcome
        header = request.header
        try:
            await asyncio.to_thread(self._log.certify_ceremony, header.group, header.attempt)
        except Refused as reason:
            return refuse("V09", "SESSION_SEEN", reason.message)
        return outcome

    async def finalize(self, request: DkgFinalizeRequest) -> Outcome:
        """Accept the certificate and hold the share; the answer is the public recovery data."""
        return await self._answer(request, "finalize", lambda it: self._finalize(it, request))

    async def investigate(self, request: DkgInvestigateRequest) -> Outcome:
        """Name whose share did not fit, from the relay's message, and prove it where the sealed messages show it."""
        return await self._answer(request, "investigate", lambda it: self._investigate(it, request))

    def recover(self, request: DkgRecoverRequest, epoch: EpochEntry | None) -> Outcome:
        """Restore a share from recovery data; without any, hand out that of a ceremony finished here.

        Recovery data is public, so a relay that lost it asks any member.
        """
        header = request.header
        announced = {} if epoch is None else epoch.host_keys.get((header.group.role, header.attempt), {})
        if self._ring.identity not in announced:
            return refuse("V06", "WRONG_GROUP", "I announced no host key for this ceremony")
        if not request.recovery_data:
            held = self._ring.find_pending(header.group, header.attempt)
            return DkgReply(held.recovery_data if held is not None else b"")
        try:
            self._ring.restore(header.group, header.attempt, request.recovery_data)
        except BridgeError as error:
            return DkgFault((), is_proven=False, code=error.code, message=error.message)
        return DkgReply(b"")

    def forget_over(self, epochs: Mapping[EpochNumber, EpochEntry]) -> None:
        """Drop every ceremony whose key is recorded or whose epoch makes keys no more; after `ShareRing.refresh`.

        So a share ends with its group [R6], and what was computed in vain ends at once: nobody asks for it again.
        """
        for key in [key for key in self._begun if _is_over(epochs.get(key[0].epoch), key[0], key[1])]:
            self._drop(key)
            log.info("ceremony.forgotten", epoch=key[0].epoch, role=key[0].role, attempt=key[1])

    async def _answer(self, request: Relayed, step: str, answer: Callable[[_Ceremony], Awaitable[Outcome]]) -> Outcome:
        """Answer a repeated question as before; refusals are not kept, so that a relay cannot fill the memory."""
        ceremony = self._running.get(request.header.session_id)
        if ceremony is None:
            return refuse("V09", "SESSION_SEEN", "no such ceremony is open here; a restart ends open ceremonies")
        question = compute_answered_hash(encode(request))
        known = ceremony.answers.get(step)
        if known is not None and known[0] == question:
            return known[1]
        outcome = await answer(ceremony)
        if not isinstance(outcome, Refusal):
            ceremony.answers[step] = (question, outcome)
        return outcome

    async def _step2(self, ceremony: _Ceremony, request: DkgStep2Request) -> Outcome:
        if ceremony.state1 is None:
            return refuse("V09", "SESSION_SEEN", "this ceremony's step 2 was answered for another message")
        state, ceremony.state1 = ceremony.state1, None
        try:
            ceremony.state2, signature = participant_step2(
                self._secret(request.header), state, request.message, os.urandom(32)
            )
        except ShareFault as fault:
            ceremony.fault = fault
            return _to_fault(fault)
        except BridgeError as error:
            return _to_fault(error)
        return DkgReply(signature, compute_answered_hash(request.message))

    async def _finalize(self, ceremony: _Ceremony, request: DkgFinalizeRequest) -> Outcome:
        if ceremony.state2 is None:
            return refuse("V09", "SESSION_SEEN", "this ceremony has no transcript to certify")
        try:
            output = participant_finalize(ceremony.state2, request.message)
        except BridgeError as error:
            return _to_fault(error)
        header = request.header
        self._ring.keep_pending(header.group, header.attempt, output)
        log.info("ceremony.certified", epoch=header.group.epoch, role=header.group.role, attempt=header.attempt)
        return DkgReply(output.recovery_data)

    async def _investigate(self, ceremony: _Ceremony, request: DkgInvestigateRequest) -> Outcome:
        finding, header = _name_suspect(ceremony, request), request.header
        if ceremony.fault is None:
            return finding
        secret = self._secret(header)
        accusations = await asyncio.to_thread(find_accusations, secret, ceremony.params, header, request.firsts)
        faults = self._build_faults(ceremony, request, accusations)
        if not faults:
            return finding
        try:
            await asyncio.to_thread(self._log.record_complaints, faults)
        except Refused as reason:
            log.warning("complaint.withheld", epoch=header.group.epoch, role=header.group.role, reason=reason.message)
            return finding
        log.info("complaint.recorded", epoch=header.group.epoch, role=header.group.role, accused=len(faults))
        return replace(finding, accusations=accusations)

    def _build_faults(
        self, ceremony: _Ceremony, request: DkgInvestigateRequest, accusations: Sequence[ShareAccusation]
    ) -> list[CeremonyFault]:
        header, members, identity = request.header, ceremony.members, self._ring.identity
        return [
            build_fault(header, ceremony.params, members, identity, each, request.firsts[each.accused])
            for each in accusations
        ]

    def _find_members(self, request: DkgStep1Request, epoch: EpochEntry | None) -> tuple[IdentityKey, ...]:
        header = request.header
        announced = epoch.host_keys[header.group.role, header.attempt] if epoch is not None else {}
        owners = {key: identity for identity, key in announced.items()}
        return tuple(owners[key] for key in request.host_keys)

    def _supersede(self, header: SessionHeader) -> None:
        """Keep one running ceremony per group, attempt and leader: a relay that lost its state begins again.

        Nobody ends another leader's ceremony. Leaders are the coordinators of genesis (V03), so the memory is bounded.
        """
        key = (header.group, header.attempt, header.leader)
        self._drop(key)
        self._begun[key] = header.session_id

    def _drop(self, key: _Key) -> None:
        """Forget a ceremony, if there is one, and its secrets: its share only where the ring does not hold it."""
        session = self._begun.pop(key, None)
        ceremony = self._running.pop(session, None) if session is not None else None
        if ceremony is None:
            return
        if ceremony.state2 is not None and not self._ring.has_share(ceremony.state2.share):
            ceremony.state2.share.secret.wipe()
        if ceremony.fault is not None:
            for pad in ceremony.fault.investigation.pads:
                pad.wipe()

    def _review(self, request: DkgStep1Request, epoch: EpochEntry | None, elapsed: int) -> Refusal | None:
        header = request.header
        if header.suite != DKG_SUITE or header.network != self._network or header.purpose is not None:
            return refuse("V04", "SESSION_ID_MISMATCH", "the header is not a key ceremony's of this network")
        if epoch is None or self._ring.identity not in epoch.members.get(header.group.role, ()):
            return refuse("V06", "WRONG_GROUP", "I am no member of this group")
        if header.group.role in epoch.groups:
            return refuse("V06", "EPOCH_CLOSED", "this group's key is recorded already")
        if epoch.state not in KEYING:
            return refuse("V06", "EPOCH_CLOSED", f"epoch {epoch.number} is {epoch.state}: its ceremonies are over")
        if not is_attempt_open(epoch, header.group.role, header.attempt, elapsed):
            return refuse("V06", "KEY_NOT_READY", f"attempt {header.attempt} is not open")
        return self._review_members(request, epoch)

    def _review_members(self, request: DkgStep1Request, epoch: EpochEntry) -> Refusal | None:
        header = request.header
        role = header.group.role
        announced = epoch.host_keys.get((role, header.attempt), {})
        known = tuple(announced[member] for member in epoch.members[role] if member in announced)
        # The first attempt needs all who were drawn; a rerun may leave silent members out, never so many that under
        # `t` are left, and always in the order of the draw (design.md section 4).
        least = len(epoch.members[role]) if header.attempt == epoch.first_attempt else epoch.thresholds[role]
        if len(request.host_keys) < least or not _is_in_order(request.host_keys, known):
            return refuse("V06", "WRONG_GROUP", "the host keys are not the group's as announced on the consensus layer")
        if announced.get(self._ring.identity) not in request.host_keys:
            return refuse("V06", "WRONG_GROUP", "my own host key is left out of this ceremony")
        if request.threshold != epoch.thresholds[role]:
            return refuse("V06", "WRONG_GROUP", f"the threshold is {epoch.thresholds[role]}, never another")
        subject = compute_dkg_subject(self._network, header.group, header.attempt, request.host_keys)
        if header.subject != subject:
            return refuse("V04", "SESSION_ID_MISMATCH", "the session names another ceremony")
        return None

    def _secret(self, header: SessionHeader) -> SecretKey:
        return self._ring.derive_host_secret(header.group, header.attempt)


def _is_over(epoch: EpochEntry | None, group: GroupId, attempt: Attempt) -> bool:
    """Tell whether no ceremony of this attempt is needed any more; an epoch drawn again counts its attempts on."""
    if epoch is None or epoch.state not in KEYING:
        return True
    return group.role in epoch.groups or attempt < epoch.first_attempt


def _is_in_order(chosen: tuple[HostKey, ...], known: tuple[HostKey, ...]) -> bool:
    """Tell whether `chosen` are some of `known`, each once and in the same order."""
    rest = iter(known)
    return all(key in rest for key in chosen)


def _name_suspect(ceremony: _Ceremony, request: DkgInvestigateRequest) -> DkgFault:
    if ceremony.fault is None:
        return DkgFault((), is_proven=False, code="NOTHING_TO_INVESTIGATE", message="my share fitted")
    try:
        participant_investigate(ceremony.fault, request.message)
    except BridgeError as error:
        return _to_fault(error)


def _to_fault(error: BridgeError) -> DkgFault:
    """Say whom the finding names. A member alone never proves: it cannot tell a sender from the relay."""
    suspects = error.suspects if isinstance(error, UnattributedFault) else ()
    code = "COORDINATOR_FAULT" if isinstance(error, CoordinatorFault) and not error.code else error.code
    return DkgFault(suspects, is_proven=False, code=code, message=error.message)
