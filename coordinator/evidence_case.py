"""Makes evidence of what a round kept about a culprit; what nobody could verify is left out here already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from coordinator.attendance import Culprit, SignedMessage
from coordinator.signing_job import SigningJob
from smpc.errors import InvalidInput
from smpc.protocol.ceremony_records import CeremonyFault, HostKeyAnnounced
from smpc.protocol.codec import decode_variant
from smpc.protocol.evidence import (
    CeremonyOffence,
    Evidence,
    InvalidNonce,
    InvalidShare,
    Membership,
    ShareAnswer,
    SignedTask,
)
from smpc.protocol.evidence_proof import prove_evidence
from smpc.protocol.pod_messages import CommitRequest, Envelope, Request
from smpc.types import ChildIndex, HostKey


@dataclass(frozen=True, slots=True)
class SigningCase:
    """A member caught in a signing round."""

    job: SigningJob
    culprit: Culprit

    @property
    def host_keys(self) -> tuple[HostKey, ...]:
        """Whose announcements the evidence needs."""
        return (self.culprit.seat.host_key,)


@dataclass(frozen=True, slots=True)
class CeremonyCase:
    """A fault proven in a key ceremony."""

    fault: CeremonyFault
    threshold: int

    @property
    def host_keys(self) -> tuple[HostKey, ...]:
        """Whose announcements the evidence needs."""
        return self.fault.host_keys


Case: TypeAlias = SigningCase | CeremonyCase


def build_evidence(case: Case, announced: Mapping[HostKey, HostKeyAnnounced]) -> Evidence:
    """Return evidence that holds; InvalidInput or Refused, saying why, where the case proves nothing to others."""
    missing = [key for key in case.host_keys if key not in announced]
    if missing:
        raise InvalidInput(f"{len(missing)} host keys of the session have no record", code="NOT_ANNOUNCED")
    if isinstance(case, CeremonyCase):
        members = tuple(announced[key] for key in case.host_keys)
        evidence: Evidence = CeremonyOffence(case.fault, members, case.threshold)
    else:
        evidence = _build_signing_evidence(case, announced[case.culprit.seat.host_key])
    prove_evidence(evidence)
    return evidence


def list_signed_tasks(job: SigningJob) -> tuple[SignedTask, ...]:
    """Return what a job's signers sign, by message and child."""
    children: tuple[ChildIndex | None, ...] = job.children or (None,) * len(job.tasks)
    return tuple(SignedTask(task.message, child) for task, child in zip(job.tasks, children, strict=True))


def _build_signing_evidence(case: SigningCase, announced: HostKeyAnnounced) -> InvalidShare | InvalidNonce:
    member = Membership(announced, case.job.recovery_data)
    sealed = {message.method: message for message in case.culprit.transcript}
    if "Sign/reply" not in sealed:
        opened = _find(sealed, "Commit/request")
        request = decode_variant(Request, opened.body)
        if not isinstance(request, CommitRequest):
            raise InvalidInput("the transcript begins with no request to commit")
        return InvalidNonce(member, request.header, _find(sealed, "Commit/reply"))
    answer = ShareAnswer(
        request=_find(sealed, "Sign/request"),
        commitment=_find(sealed, "Commit/reply"),
        answer=_find(sealed, "Sign/reply"),
        tasks=list_signed_tasks(case.job),
    )
    return InvalidShare(member, answer)


def _find(sealed: Mapping[str, SignedMessage], method: str) -> Envelope:
    if method not in sealed:
        raise InvalidInput(f"the transcript has no {method}")
    return sealed[method].envelope
