"""Pods without processes: the real signer, log, vault and reviewers of several members over one `FlowWorld`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from pegin.model import BuiltTransaction
from slashing.model import BuiltArming, BuiltRejection
from smpc.bitcoin.transaction import Transaction
from smpc.curve import SecretKey, compute_xonly_key
from smpc.node.burial_watch import BurialWatch
from smpc.node.ports import ChainTip, RawBlock, TransactionStatus, UnspentOutput
from smpc.participant.gather import FactGatherer
from smpc.participant.mailroom import Letter, open_letter
from smpc.participant.reviewer import Reviewer
from smpc.participant.shares import ShareRing
from smpc.participant.signer import Signer
from smpc.participant.signing_log import SigningLog
from smpc.protocol.envelope import open_reply, seal_message
from smpc.protocol.pod_messages import (
    ArmingSubject,
    CommitReply,
    CommitRequest,
    EndorseRequest,
    Envelope,
    IntentSubject,
    Refusal,
    RejectionSubject,
    Reply,
    Request,
    SessionHeader,
    SignReply,
    SignRequest,
    Subject,
)
from smpc.protocol.spend_evidence import UnauthorisedSpend
from smpc.protocol.verdict_records import compute_rejection_subject
from smpc.threshold.frost import SigningContext, SigningTask, TweakContext, aggregate_commitments, aggregate_signatures
from smpc.types import (
    Attempt,
    BlockHash,
    BtcHeight,
    ChildIndex,
    FeeRate,
    GroupId,
    Network,
    Outpoint,
    Purpose,
    Role,
    Signature,
    Txid,
    XOnlyKey,
)
from tests.support.flow_world import TIP, FlowWorld
from tests.support.groups import EPOCH

SECONDS: Final = 10.0

R = TypeVar("R", bound=Request)


class WorldNode:
    """A member's bitcoind: the world's unspent outputs and mined transactions, behind the real port."""

    def __init__(self, world: FlowWorld) -> None:
        self._world = world
        self.tip_height = TIP
        self.tip_hash = BlockHash(bytes(32))
        self.is_synced = True
        self.transactions: dict[Txid, TransactionStatus] = {}
        self.broadcasts: list[bytes] = []
        self.thief: RawBlock | None = None
        """A block at the tip that spends vault outputs; the only one a pod may read."""
        self.gone: set[Outpoint] = set()
        """What it spends."""
        self.asked: list[Outpoint | Txid] = []
        """Which outputs and transactions it was asked for."""

    def see_spent(self, transaction: Transaction) -> None:
        """Have a transaction in the tip's block, and in the block's before what it spends."""
        raw = bytes(80) + b"\x01" + transaction.to_bytes()
        self.tip_hash = BlockHash(transaction.txid)
        self.thief = RawBlock(self.tip_height, self.tip_hash, BlockHash(bytes(32)), raw)
        self.gone = {item.outpoint for item in transaction.inputs}
        made = TransactionStatus(b"", 1, self.tip_hash, self.tip_height, None)
        self.transactions.update(dict.fromkeys((item.txid for item in self.gone), made))

    def forget_spent(self) -> None:
        """Have another tip, in whose chain none of this ever happened."""
        self.tip_hash, self.thief, self.gone = BlockHash(bytes(31) + b"\x01"), None, set()

    async def fetch_tip(self) -> ChainTip:
        return ChainTip(self.tip_height, self.tip_hash, 1_000, self.is_synced, Network.REGTEST, self.tip_height)

    async def fetch_block(self, at: BtcHeight | BlockHash) -> RawBlock:
        if self.thief is not None and at == self.thief.height:
            return self.thief
        raise AssertionError(f"a pod reads no blocks, asked for {at!r}")

    async def fetch_output(self, outpoint: Outpoint, *, include_mempool: bool) -> UnspentOutput | None:
        self.asked.append(outpoint)
        found = self._world.outputs.get(outpoint)
        if outpoint in self.gone:
            return None
        if found is None or (found.confirmations == 0 and not include_mempool):
            return None
        return UnspentOutput(found.value, found.script, found.confirmations, found.is_coinbase)

    async def fetch_transaction(self, txid: Txid) -> TransactionStatus | None:
        self.asked.append(txid)
        return self.transactions.get(txid)

    async def estimate_fee_rate(self, blocks: int) -> FeeRate | None:
        assert blocks == 3
        return self._world.estimate

    async def broadcast(self, raw: bytes) -> Txid:
        self.broadcasts.append(raw)
        return Txid(bytes(32))

    async def fetch_mempool_spender(self, outpoint: Outpoint) -> Txid | None:
        found = self._world.outputs.get(outpoint)
        return None if found is None else found.spender


@dataclass(slots=True)
class MemberPod:
    """One member's pod with everything but its network."""

    role: Role
    position: int
    signer: Signer
    ring: ShareRing
    log: SigningLog
    node: WorldNode
    sent: list[bytes]
    burials: BurialWatch

    @property
    def host_xonly(self) -> XOnlyKey:
        """The key this member's answers are signed with."""
        return compute_xonly_key(self.ring.derive_host_secret(GroupId(EPOCH, self.role), Attempt(0)))


class PodWorld:
    """Every member of V and W (or of other roles) as a pod over one ledger, and a coordinator's pen."""

    def __init__(
        self,
        world: FlowWorld,
        directory: Path,
        *,
        paused: tuple[str, ...] = (),
        roles: tuple[Role, ...] = (Role.VALIDATOR, Role.WITNESS),
    ) -> None:
        self.world = world
        self._directory = directory
        self._paused = paused
        self.reported: list[UnauthorisedSpend] = []
        """What pods were shown and no record allows, by their own eyes."""
        self.coordinator: SecretKey = world.chain.epoch.coordinator
        self.pods = {(role, position): self.start_pod(role, position) for role in roles for position in range(4)}

    def start_pod(self, role: Role, position: int) -> MemberPod:
        """Start a member's pod; on an existing directory it is the same pod after a restart."""
        secret = self.world.chain.epoch.groups[role].identities[position]
        ring = ShareRing(secret, Network.REGTEST)
        ring.refresh(self.world.ledger.epochs)
        path = self._directory / f"{role}-{position}.sqlite"
        opener = SigningLog.open if path.exists() else SigningLog.create
        log = opener(path, network=Network.REGTEST, identity=ring.identity)
        node = WorldNode(self.world)
        sent: list[bytes] = []
        reviewer = Reviewer(
            ring=ring,
            signing_log=log,
            gatherer=FactGatherer(node, clock=lambda: 1_000.0),
            view=lambda: self.world.ledger,
            paused=self._paused,
            report_spend=self.reported.append,
        )
        signer = Signer(
            ring=ring, signing_log=log, reviewer=reviewer, view=lambda: self.world.ledger, broadcast=sent.append
        )
        return MemberPod(role, position, signer, ring, log, node, sent, reviewer.burials)

    def group(self, role: Role) -> list[MemberPod]:
        """Return a group's pods by position."""
        return [self.pods[role, position] for position in range(4)]

    def header(self, role: Role, purpose: Purpose, subject: bytes, attempt: int = 0) -> SessionHeader:
        """Return an honest header of a session about `subject`, opened at the ledger's height."""
        facts = self.world.session(purpose, subject, role)
        return replace(facts.header, slot=self.world.ledger.height, attempt=Attempt(attempt))

    def letter(self, rpc: str, request: R, secret: SecretKey | None = None) -> Letter[R]:
        """Seal a request as the coordinator does and open it as a pod's door does."""
        pen = secret or self.coordinator
        sealed = seal_message(pen, f"{rpc}/request", request.header.session_id, request, aux=bytes(32))
        return open_letter(
            sealed,
            rpc,
            type(request),
            ledger=self.world.ledger,
            protocol=self.header(Role.VALIDATOR, Purpose.TRANSFER, bytes(32)).protocol,
        )

    async def endorse(self, pod: MemberPod, built: BuiltTransaction, unsigned: bytes | None = None) -> Reply:
        """Ask one pod for an endorsement."""
        purpose = Purpose(built.intent.kind.value)
        header = self.header(pod.role, purpose, built.intent.intent_id)
        request = EndorseRequest(header, built.intent, unsigned or built.transaction.to_bytes())
        letter = self.letter("Endorse", request)
        return self.read(pod, "Endorse", letter, await pod.signer.endorse(letter, SECONDS))

    async def commit(self, pod: MemberPod, subject: Subject, header: SessionHeader) -> Reply:
        """Open a session with one pod."""
        letter = self.letter("Commit", CommitRequest(header, subject))
        return self.read(pod, "Commit", letter, await pod.signer.commit(letter, SECONDS))

    async def sign(self, pod: MemberPod, request: SignRequest) -> Reply:
        """Ask one pod for its shares."""
        letter = self.letter("Sign", request)
        return self.read(pod, "Sign", letter, await pod.signer.sign(letter))

    @staticmethod
    def read(pod: MemberPod, rpc: str, letter: Letter[R], outcome: Envelope | Refusal) -> Reply:
        """Open a pod's answer as the coordinator does."""
        if isinstance(outcome, Refusal):
            return outcome
        return open_reply(outcome, f"{rpc}/reply", sender=pod.host_xonly, session_id=letter.session_id)

    def subject(self, built: BuiltTransaction, validators: tuple[Signature, ...] = ()) -> IntentSubject:
        """Return an intent's subject as an honest coordinator sends it."""
        return IntentSubject(built.intent, built.transaction.to_bytes(), validators)

    async def sign_with(
        self, role: Role, built: BuiltTransaction, *, validators: tuple[Signature, ...] = (), attempt: int = 0
    ) -> tuple[Signature, ...]:
        """Run both rounds with the first three members and return every input's signature."""
        pods = self.group(role)[:3]
        header = self.header(role, Purpose(built.intent.kind.value), built.intent.intent_id, attempt)
        commitments: dict[int, bytes] = {}
        for pod in pods:
            reply = await self.commit(pod, self.subject(built, validators), header)
            assert isinstance(reply, CommitReply), reply
            commitments[reply.position] = reply.nonces
        request = self.round_two(header, commitments, len(built.spends))
        shares: dict[int, bytes] = {}
        for pod in pods:
            answer = await self.sign(pod, request)
            assert isinstance(answer, SignReply), answer
            shares[answer.position] = answer.shares
        contexts = [spend.item.child for spend in built.spends]
        return self._aggregate(role, contexts, built.compute_digests(), commitments, shares)

    async def pre_sign(self, built: BuiltArming, subject: ArmingSubject, *, attempt: int = 0) -> tuple[Signature, ...]:
        """Run both rounds with the first three members of E and return every rung's signature."""
        header = self.header(Role.EMERGENCY, Purpose.ARMING, built.arming.digest, attempt)
        return await self._sign_rungs(built, subject, header)

    async def reject(self, built: BuiltRejection, *, attempt: int = 0) -> tuple[Signature, ...]:
        """Run both rounds with the first three members of W and return every rung's signature."""
        subject = compute_rejection_subject(built.arming)
        header = self.header(Role.WITNESS, Purpose.REJECTION, subject, attempt)
        return await self._sign_rungs(built, RejectionSubject(built.arming), header)

    async def _sign_rungs(
        self, built: BuiltArming | BuiltRejection, subject: Subject, header: SessionHeader
    ) -> tuple[Signature, ...]:
        role = header.group.role
        pods = self.group(role)[:3]
        commitments: dict[int, bytes] = {}
        for pod in pods:
            reply = await self.commit(pod, subject, header)
            assert isinstance(reply, CommitReply), reply
            commitments[reply.position] = reply.nonces
        request = self.round_two(header, commitments, len(built.rungs))
        shares: dict[int, bytes] = {}
        for pod in pods:
            answer = await self.sign(pod, request)
            assert isinstance(answer, SignReply), answer
            shares[answer.position] = answer.shares
        children = [child for child, _ in built.list_tasks()]
        return self._aggregate(role, children, built.list_digests(), commitments, shares)

    @staticmethod
    def round_two(header: SessionHeader, commitments: dict[int, bytes], count: int) -> SignRequest:
        """Return round two's request for these commitments."""
        aggregates = aggregate_commitments(commitments, count)
        return SignRequest(header, tuple(sorted(commitments)), b"".join(nonce.to_bytes() for nonce in aggregates))

    def _aggregate(
        self,
        role: Role,
        children: Sequence[ChildIndex],
        digests: Sequence[bytes],
        commitments: dict[int, bytes],
        shares: dict[int, bytes],
    ) -> tuple[Signature, ...]:
        key = self.world.chain.epoch.groups[role].outputs[0].group
        tasks = [
            SigningTask(digest, TweakContext.from_child(key.threshold_pubkey, child))
            for digest, child in zip(digests, children, strict=True)
        ]
        context = SigningContext.build(key, commitments)
        aggregates = aggregate_commitments(commitments, len(tasks))
        outcome = aggregate_signatures(context, tasks, commitments, aggregates, shares)
        assert outcome.is_complete, outcome.culprits
        return tuple(signature for signature in outcome.signatures if signature is not None)
