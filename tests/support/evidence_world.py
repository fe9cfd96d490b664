"""Honest pods whose every sealed answer is kept, members that lie under their own key, and bundles made of both."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from coordinator.evidence_case import list_signed_tasks
from coordinator.signing_job import build_booking_job, build_spend_job
from pegin.model import BuiltTransaction
from smpc.curve import SecretKey, compute_xonly_key
from smpc.node.ports import TransactionStatus
from smpc.protocol.ceremony_records import HostKeyAnnounced
from smpc.protocol.codec import decode_variant
from smpc.protocol.envelope import seal_message
from smpc.protocol.evidence import (
    CeremonyOffence,
    Evidence,
    EvidenceBundle,
    InvalidNonce,
    InvalidShare,
    Membership,
    ShareAnswer,
    SignedTask,
    TwoAnswers,
    compute_report_digest,
)
from smpc.protocol.ledger_views import RecordedEntry, RecordsPage
from smpc.protocol.pod_messages import (
    CommitReply,
    CommitRequest,
    Envelope,
    Reply,
    SessionHeader,
    SignReply,
    SignRequest,
    Subject,
)
from smpc.protocol.records import Record
from smpc.types import BlockHash, BtcHeight, HostKey, KaonHeight, Purpose, RecordId, Role
from tests.support.faulty_ceremony import CeremonySession
from tests.support.flow_world import FlowWorld
from tests.support.groups import KeyedEpoch, KeyedGroup, make_secret, sign
from tests.support.pod_world import SECONDS, MemberPod, PodWorld

ReplyT = TypeVar("ReplyT", bound=Reply)

REPORTER: Final = make_secret("reporter")


class Announcements:
    """The records of a keyed epoch's host keys, two to a page, as a consensus node lists them."""

    def __init__(self, records: Sequence[HostKeyAnnounced]) -> None:
        self._records = tuple(records)
        self.submitted: list[Record] = []

    async def submit(self, record: Record, *, wait: bool = False) -> RecordId:  # noqa: ARG002 - the port's
        self.submitted.append(record)
        return record.record_id

    async def list_records(self, after: KaonHeight, kinds: Collection[type[Record]] = ()) -> RecordsPage:
        assert kinds == (HostKeyAnnounced,)
        found = self._records[after : after + 2]
        return RecordsPage(
            tuple(RecordedEntry(KaonHeight(after + 1), each) for each in found), KaonHeight(after + len(found))
        )


class EvidenceWorld:
    """V's four pods, two recorded transfers, and a relay that writes down everything."""

    def __init__(self, directory: Path, world: FlowWorld | None = None) -> None:
        world = world or FlowWorld.opened()
        self.first = world.record(world.transfer(world.deposit(0, 100_000), world.deposit(1, 70_000)))
        self.second = world.record(world.transfer(world.deposit(2, 50_000)))
        self.pods = PodWorld(world, directory)
        self.group: KeyedGroup = world.chain.epoch.groups[Role.VALIDATOR]
        self.epoch: KeyedEpoch = world.chain.epoch

    def pod(self, position: int) -> MemberPod:
        """Return a member's pod."""
        return self.pods.pods[Role.VALIDATOR, position]

    def member(self, position: int, group: KeyedGroup | None = None) -> Membership:
        """Return what ties a member's messages to its identity."""
        of = group or self.group
        return Membership(self.announced[of.info.host_keys[position]], of.info.recovery_data)

    @property
    def announced(self) -> dict[HostKey, HostKeyAnnounced]:
        """Every announcement by host key."""
        return {each.host_key: each for each in self.epoch.host_keys}

    # -------------------------------------------------------------- sessions

    def header(self, built: BuiltTransaction, attempt: int) -> SessionHeader:
        """Return an honest session's header."""
        return self.pods.header(Role.VALIDATOR, Purpose.TRANSFER, built.intent.intent_id, attempt)

    def tasks(self, built: BuiltTransaction) -> tuple[SignedTask, ...]:
        """Return what signers of a transfer sign."""
        return list_signed_tasks(build_spend_job(self.group.info, built))

    async def commit(self, position: int, subject: Subject, header: SessionHeader) -> Envelope:
        """Have an honest pod commit."""
        letter = self.pods.letter("Commit", CommitRequest(header, subject))
        sealed = await self.pod(position).signer.commit(letter, SECONDS)
        assert isinstance(sealed, Envelope), sealed
        return sealed

    async def share(self, position: int, request: SignRequest) -> Envelope:
        """Have an honest pod answer round two."""
        sealed = await self.pod(position).signer.sign(self.pods.letter("Sign", request))
        assert isinstance(sealed, Envelope), sealed
        return sealed

    def seal_request(self, request: SignRequest, secret: SecretKey | None = None) -> Envelope:
        """Seal round two's request as the relay."""
        pen = secret or self.pods.coordinator
        return seal_message(pen, "Sign/request", request.header.session_id, request, aux=bytes(32))

    def round_two(self, header: SessionHeader, commitments: Sequence[Envelope]) -> SignRequest:
        """Return round two's request for these commitments."""
        opened = [read(each, CommitReply) for each in commitments]
        nonces = {each.position: each.nonces for each in opened}
        return self.pods.round_two(header, nonces, len(opened[0].nonces) // 130)

    async def run(self, built: BuiltTransaction, attempt: int, signers: Sequence[int]) -> dict[int, ShareAnswer]:
        """Run both rounds with honest pods; each signer's part."""
        header = self.header(built, attempt)
        sealed = {at: await self.commit(at, self.pods.subject(built), header) for at in signers}
        request = self.round_two(header, list(sealed.values()))
        question, tasks = self.seal_request(request), self.tasks(built)
        return {at: ShareAnswer(question, sealed[at], await self.share(at, request), tasks) for at in signers}

    async def run_booking(self, attempt: int, signers: Sequence[int]) -> dict[int, ShareAnswer]:
        """Run both rounds about a booking, under the group key itself."""
        booking = self.pods.world.ledger.compute_booking(self.first.intent.intent_id)
        raw, where = self.first.transaction.to_bytes(), BlockHash(bytes(32))
        for at in signers:
            mined = TransactionStatus(raw, 3, where, BtcHeight(198), None)
            self.pod(at).node.transactions[self.first.intent.txid] = mined
        job = build_booking_job(self.group.info, booking)
        header = self.pods.header(Role.VALIDATOR, Purpose.BOOKING, job.digest, attempt)
        sealed = {at: await self.commit(at, job.subject, header) for at in signers}
        request = self.round_two(header, list(sealed.values()))
        question, tasks = self.seal_request(request), list_signed_tasks(job)
        return {at: ShareAnswer(question, sealed[at], await self.share(at, request), tasks) for at in signers}

    # -------------------------------------------------------------- lies

    def reseal(self, position: int, envelope: Envelope, method: str, alter: Callable[[Reply], Reply]) -> Envelope:
        """Seal something else than an honest answer under the member's own key."""
        secret = self.group.host_secrets[position]
        reply = alter(decode_variant(Reply, envelope.body))
        return seal_message(secret, method, envelope.session_id, reply, aux=bytes(32))

    def lie_share(self, position: int, answer: ShareAnswer, shares: bytes) -> ShareAnswer:
        """Return a member's part with other shares under its own key."""

        def alter(reply: Reply) -> Reply:
            assert isinstance(reply, SignReply)
            return replace(reply, shares=shares)

        return replace(answer, answer=self.reseal(position, answer.answer, "Sign/reply", alter))

    def lie_nonces(self, position: int, header: SessionHeader, honest: Envelope, nonces: bytes) -> InvalidNonce:
        """Return evidence of other nonces under a member's own key."""

        def alter(reply: Reply) -> Reply:
            assert isinstance(reply, CommitReply)
            return replace(reply, nonces=nonces)

        return InvalidNonce(self.member(position), header, self.reseal(position, honest, "Commit/reply", alter))

    # -------------------------------------------------------------- guilty evidence of each kind

    def wrong_share(self, position: int, answer: ShareAnswer) -> InvalidShare:
        """Return true evidence: the member's last share is another."""
        shares = read(answer.answer, SignReply).shares
        wrong = shares[:-1] + bytes([shares[-1] ^ 1])
        return InvalidShare(self.member(position), self.lie_share(position, answer, wrong))

    def two_answers(self, position: int, answer: ShareAnswer) -> TwoAnswers:
        """Return true evidence: the member answered in two ways with the same nonces."""
        return TwoAnswers(self.member(position), answer, self.lie_share(position, answer, bytes(64)))

    def ceremony(self, session: CeremonySession) -> CeremonyOffence:
        """Return true evidence of a wrong share in a key ceremony."""
        announced = tuple(self.announced[key] for key in session.host_keys)
        return CeremonyOffence(session.accuse_share(1, 2), announced, session.threshold)


def read(envelope: Envelope, expected: type[ReplyT]) -> ReplyT:
    """Return the reply inside."""
    reply = decode_variant(Reply, envelope.body)
    assert isinstance(reply, expected)
    return reply


def report(evidence: Evidence, secret: SecretKey = REPORTER) -> EvidenceBundle:
    """Return a bundle signed by a reporter."""
    reporter = compute_xonly_key(secret)
    return EvidenceBundle(evidence, reporter, sign(secret, compute_report_digest(evidence, reporter)))
