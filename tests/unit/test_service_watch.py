"""Does the other group serve? Stories of members who watch it, ask its members themselves, and complain or do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pegin.checks import BYTES_DIFFER
from pegin.model import BuiltTransaction
from smpc.bitcoin.transaction import parse_transaction
from smpc.errors import InvalidInput, Unavailable
from smpc.node.ports import TransactionStatus
from smpc.params import REGTEST
from smpc.participant.gather import FactGatherer
from smpc.participant.review_log import StoredReview
from smpc.participant.reviewer import Reviewer
from smpc.participant.service_desk import ServiceDesk, is_asked_wrongly
from smpc.participant.service_watch import REPEAT_AFTER, ServiceWatch
from smpc.participant.sweep_memory import SweepMemory
from smpc.protocol.intents import Endorsement, Intent, compute_endorsement_digest
from smpc.protocol.ledger_state import EpochState, IntentStatus
from smpc.protocol.pod_messages import CommitReply, EndorseRequest, Envelope, IntentSubject, Refusal, SessionHeader
from smpc.protocol.records import GroupInfo, Record
from smpc.protocol.review import Finding, Stage
from smpc.protocol.service import (
    IDLE_PATIENCE,
    NotAsked,
    Overdue,
    ServedAnswer,
    ServedOutcome,
    ServedQuestion,
    ServiceRefused,
    ShareReleased,
    Standing,
    SweepEndorsed,
    compute_served_digest,
    is_group_serving,
    judge_answer,
    list_overdue,
)
from smpc.protocol.verdict_records import ServiceComplaint, compute_sweep_subject
from smpc.protocol.verdict_state import Cause
from smpc.types import (
    Attempt,
    EpochNumber,
    GroupId,
    IntentId,
    KaonHeight,
    Network,
    Purpose,
    RecordId,
    Role,
    SessionId,
    Signature,
)
from tests.support.armed_world import ArmedWorld, arm_deposit
from tests.support.groups import EPOCH, endorse, sign
from tests.support.peer_lines import MemoryPeers
from tests.support.pod_world import MemberPod, PodWorld
from tests.support.turning_chain import list_identities, list_secrets

V, W, E = Role.VALIDATOR, Role.WITNESS, Role.EMERGENCY
WAIT = REGTEST.challenge_blocks + REGTEST.silence_blocks
SECRETS = dict(zip(list_identities(), list_secrets(), strict=True))


@dataclass
class Mailbox:
    """A member's consensus node: what it takes goes into the next block."""

    world: ArmedWorld
    sent: list[ServiceComplaint] = field(default_factory=list)
    is_away: bool = False

    async def submit(self, record: Record, *, wait: bool = False) -> RecordId:
        assert not wait
        assert isinstance(record, ServiceComplaint)
        if self.is_away:
            raise Unavailable("my consensus node is away")
        self.world.ledger.check_record(record)
        self.sent.append(record)
        return record.record_id


class Town:
    """Epoch 0's V and W as pods over one armed ledger; every member's desk answers, every member can be a watcher."""

    def __init__(self, directory: Path, world: ArmedWorld) -> None:
        self.world = world
        self.pods = PodWorld(world, directory)
        self.peers = MemoryPeers(SECRETS)
        self.box = Mailbox(world)
        for (role, position), pod in self.pods.pods.items():
            self.peers.desks[pod.ring.identity] = ServiceDesk(
                identity_secret=world.chain.epoch.groups[role].identities[position],
                ring=pod.ring,
                signing_log=pod.log,
                sweeps=pod.signer.sweeps,
                view=lambda: world.ledger,
            )

    def watch(self, role: Role, position: int = 0, *, paused: tuple[str, ...] = ()) -> ServiceWatch:
        """Return a member's watch, as after a restart."""
        pod, view = self.pods.pods[role, position], lambda: self.world.ledger
        gatherer = FactGatherer(pod.node, clock=lambda: 1_000.0)
        return ServiceWatch(
            identity_secret=SECRETS[pod.ring.identity],
            signing_log=pod.log,
            reviewer=Reviewer(ring=pod.ring, signing_log=pod.log, gatherer=gatherer, view=view, paused=paused),
            gatherer=gatherer,
            node=pod.node,
            peers=self.peers,
            consensus=self.box,  # type: ignore[arg-type]
            view=view,
        )

    def group(self, role: Role) -> list[MemberPod]:
        return self.pods.group(role)

    def leave(self, role: Role, count: int = 4) -> None:
        """Let a group's first members answer nobody."""
        self.peers.away.update(pod.ring.identity for pod in self.group(role)[:count])

    async def complains(self, role: Role, position: int = 0) -> bool:
        """Tell whether a member's fresh watch complains at its next look."""
        before = len(self.box.sent)
        await self.watch(role, position).look()
        return len(self.box.sent) > before

    def wait(self, blocks: int) -> None:
        """Let so many blocks become final, with everybody's heartbeats."""
        self.world.turning.finalise_to(self.world.ledger.height + blocks)


@dataclass
class Story:
    """A town with a transfer that is recorded and whose silence is over."""

    town: Town
    built: BuiltTransaction

    @property
    def subject(self) -> bytes:
        return self.built.intent.intent_id

    @property
    def item(self) -> Overdue:
        """What W sees."""
        return next(it for it in list_overdue(self.town.world.ledger, self.town.group(W)[0].ring.identity))

    @property
    def info(self) -> GroupInfo:
        return self.town.world.ledger.epochs[EPOCH].groups[V]


def open_town(directory: Path) -> Story:
    """Return a town right after an intent's window, before its silence is over."""
    world = ArmedWorld.filled()
    built, armings = arm_deposit(world, 500_000)
    world.chain.add(*(world.armed.pre_sign(item) for item in armings))
    world.record(built)
    return Story(Town(directory, world), built)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Story]:
    story = open_town(tmp_path)
    yield story
    for pod in story.town.pods.pods.values():
        pod.log.close()


@pytest.fixture
def late(fresh: Story) -> Story:
    fresh.town.wait(WAIT)
    return fresh


# ------------------------------------------------------------------ when nobody answers


async def test_a_group_of_which_nobody_answers_is_complained_about_by_each_member_and_judged(late: Story) -> None:
    town = late.town
    town.leave(V)
    for position in range(3):
        assert await town.complains(W, position)
    town.world.chain.add(*town.box.sent)
    assert {record.subject for record in town.box.sent} == {late.subject}
    assert town.world.ledger.judgements.verdicts[EPOCH, V].cause is Cause.DOES_NOT_SERVE
    assert not await town.complains(W, 3), "it is judged"


async def test_nobody_is_asked_before_the_silence_is_over(fresh: Story) -> None:
    town = fresh.town
    town.leave(V)
    recorded = town.world.ledger.intents[fresh.built.intent.intent_id].recorded
    town.world.turning.wait_almost(recorded + REGTEST.challenge_blocks, REGTEST.silence_blocks)
    assert not await town.complains(W)
    assert not town.peers.asked
    town.world.chain.add()
    assert list_overdue(town.world.ledger, town.group(W)[0].ring.identity)


async def test_the_third_member_that_does_not_answer_is_one_too_many(late: Story) -> None:
    late.town.leave(V, 1)
    assert not await late.town.complains(W)
    late.town.leave(V, 2)
    assert await late.town.complains(W)


async def test_each_member_is_asked_with_a_nonce_of_its_own(late: Story) -> None:
    await late.town.complains(W)
    assert len({question.nonce for question in late.town.peers.asked}) == 4
    assert {(question.subject, question.role) for question in late.town.peers.asked} == {(late.subject, V)}


async def test_a_complaint_is_brought_once_also_after_a_restart(late: Story) -> None:
    town = late.town
    town.leave(V)
    watch = town.watch(W)
    await watch.look()
    await watch.look()
    town.world.chain.add(*town.box.sent)
    asked = len(town.peers.asked)
    town.wait(2 * REPEAT_AFTER)
    await watch.look()
    await town.watch(W).look()
    assert (len(town.box.sent), len(town.peers.asked)) == (1, asked)


async def test_a_complaint_that_could_not_be_sent_is_brought_later(late: Story) -> None:
    town, watch = late.town, late.town.watch(W)
    town.leave(V)
    town.box.is_away = True
    await watch.look()
    assert not town.box.sent
    town.box.is_away = False
    town.wait(REPEAT_AFTER)
    await watch.look()
    assert len(town.box.sent) == 1


@pytest.mark.parametrize("role", [V, E])
async def test_nobody_but_w_watches_v(late: Story, role: Role) -> None:
    identity = late.town.world.ledger.epochs[EPOCH].groups[role].members[0]
    assert not [item for item in list_overdue(late.town.world.ledger, identity) if item.role is V]


# ------------------------------------------------------------------ what members answer


async def test_a_group_whose_shares_are_out_serves_until_something_should_long_have_come_of_it(late: Story) -> None:
    """All of V could make up a session, and its relay, and stall the epoch for ever."""
    town = late.town
    await town.pods.sign_with(V, late.built)
    since = late.item.since
    town.world.turning.wait_almost(since, IDLE_PATIENCE * REGTEST.silence_blocks)
    assert not await town.complains(W)
    town.peers.away.update(pod.ring.identity for pod in town.group(V)[:2])
    assert await town.complains(W), "one of the three that released, and one that was never asked"
    town.peers.away.clear()
    town.world.chain.add()
    assert await town.complains(W, 1)


async def test_who_was_not_asked_is_believed_until_the_patience_is_over(late: Story) -> None:
    town = late.town
    assert not await town.complains(W)
    since = late.item.since
    town.world.turning.wait_almost(since, IDLE_PATIENCE * REGTEST.silence_blocks)
    assert not await town.complains(W)
    town.world.chain.add()
    assert await town.complains(W)


async def test_members_who_refuse_what_my_own_rules_allow_do_not_serve(late: Story) -> None:
    town = late.town
    for position in range(2):
        pod = town.group(V)[position]
        kept = dict(town.world.outputs)
        town.world.outputs.clear()
        header = town.pods.header(V, Purpose.TRANSFER, late.subject)
        reply = await town.pods.commit(pod, town.pods.subject(late.built), header)
        assert isinstance(reply, Refusal)
        town.world.outputs.update(kept)
    assert await town.complains(W)


async def test_a_member_that_committed_and_was_never_asked_for_its_share_did_not_refuse(late: Story) -> None:
    town = late.town
    header = town.pods.header(V, Purpose.TRANSFER, late.subject)
    for pod in town.group(V):
        assert isinstance(await town.pods.commit(pod, town.pods.subject(late.built), header), CommitReply)
    assert not await town.complains(W)


async def test_only_a_member_answers_for_its_group(late: Story) -> None:
    desk = late.town.peers.desks[late.town.group(V)[0].ring.identity]
    for role, epoch in ((W, EPOCH), (E, EPOCH), (V, EpochNumber(9))):
        with pytest.raises(InvalidInput):
            await desk.answer(ServedQuestion(Network.REGTEST, epoch, role, late.subject, bytes(32)))


# ------------------------------------------------------------------ what my own node and rules say


async def test_what_is_mined_or_in_my_mempool_is_served(late: Story) -> None:
    late.town.leave(V)
    node = late.town.group(W)[0].node
    node.transactions[late.built.intent.txid] = TransactionStatus(
        late.built.transaction.to_bytes(), 0, None, None, None
    )
    watch = late.town.watch(W)
    await watch.look()
    node.transactions.clear()
    late.town.wait(2 * REPEAT_AFTER)
    await watch.look()
    assert not late.town.box.sent, "it was there: my node dropped it for its fee"
    assert await late.town.complains(W), "who was restarted cannot know"


async def test_what_my_own_rules_would_refuse_is_nobodys_duty(late: Story) -> None:
    town = late.town
    town.leave(V)
    kept = dict(town.world.outputs)
    town.world.outputs.clear()
    assert not await town.complains(W)
    town.world.outputs.update(kept)
    assert await town.complains(W)


async def test_a_member_whose_node_is_behind_complains_about_nobody(late: Story) -> None:
    late.town.leave(V)
    late.town.group(W)[0].node.is_synced = False
    assert not await late.town.complains(W)


async def test_a_paused_flow_is_not_complained_about(late: Story) -> None:
    late.town.leave(V)
    await late.town.watch(W, paused=("transfer",)).look()
    assert not late.town.box.sent


# ------------------------------------------------------------------ V watches W


async def test_v_complains_about_w_only_when_its_own_share_is_out(late: Story) -> None:
    town = late.town
    town.leave(W)
    assert not await town.complains(V)
    await town.pods.sign_with(V, late.built)
    assert await town.complains(V, 0)
    assert town.box.sent[-1].role is W
    assert not await town.complains(V, 3), "its share was not taken"


async def test_w_that_released_serves_and_a_member_of_w_accuses_v_no_more_once_it_saw_its_signatures(
    late: Story,
) -> None:
    town = late.town
    signatures = await town.pods.sign_with(V, late.built)
    await town.pods.sign_with(W, late.built, validators=signatures)
    assert not await town.complains(V)
    town.leave(V)
    assert not await town.complains(W, 0)
    assert await town.complains(W, 3), "nobody showed it V's signatures"
    town.peers.away.clear()
    town.wait(IDLE_PATIENCE * REGTEST.silence_blocks)
    assert await town.complains(V), "with shares of both its transaction would be in my node"


# ------------------------------------------------------------------ coordinators that lie


PATIENCE = IDLE_PATIENCE * REGTEST.silence_blocks
"""Blocks in which a group could act until nothing is believed any more that nobody else can see."""


def wait_almost(story: Story) -> None:
    """Go on to the last block in which everything is believed."""
    story.town.world.turning.wait_almost(story.item.since, PATIENCE)


def lose_patience(story: Story) -> None:
    """Go on by the one block more."""
    story.town.world.chain.add()
    assert story.town.world.ledger.count_acting(story.item.since) == PATIENCE


async def show_to_w(story: Story) -> tuple[Signature, ...]:
    """Let V sign for a coordinator that shows it to W, and never asks W for its shares."""
    pods = story.town.pods
    signatures = await pods.sign_with(V, story.built)
    header = pods.header(W, Purpose.TRANSFER, story.subject)
    for pod in story.town.group(W):
        assert isinstance(await pods.commit(pod, pods.subject(story.built, signatures), header), CommitReply)
    return signatures


async def test_who_is_asked_as_if_it_were_of_v_has_seen_no_signature(late: Story) -> None:
    """A coordinator could else talk each member of W out of complaining about a V that withholds, with one refusal."""
    town = late.town
    header = town.pods.header(V, Purpose.TRANSFER, late.subject)
    for pod in town.group(W):
        reply = await town.pods.commit(pod, town.pods.subject(late.built), header)
        assert isinstance(reply, Refusal)
        assert reply.rule == "V06"
    town.leave(V)
    for position in range(3):
        assert await town.complains(W, position)
    town.world.chain.add(*town.box.sent)
    assert town.world.ledger.judgements.verdicts[EPOCH, V].cause is Cause.DOES_NOT_SERVE


async def test_what_v_signed_of_another_intent_under_this_one_s_name_is_no_signature_of_this_one(late: Story) -> None:
    """The envelope's session id is the sender's choice: it may be any intent's id."""
    town, held = late.town, (Finding("V06", ok=True), Finding("V11", ok=True))
    borrowed = StoredReview(late.subject, bytes(32), Stage.SIGN, Purpose.TRANSFER, held, town.world.ledger.height)
    town.group(W)[0].log.record_review(borrowed)
    town.leave(V)
    assert await town.complains(W)


async def test_v_that_signed_once_and_then_withholds_is_judged_when_the_patience_is_over(late: Story) -> None:
    town = late.town
    await show_to_w(late)
    town.leave(V)
    wait_almost(late)
    for position in range(4):
        assert not await town.complains(W, position)
    lose_patience(late)
    for position in range(3):
        assert await town.complains(W, position)
    town.world.chain.add(*town.box.sent)
    assert town.world.ledger.judgements.verdicts[EPOCH, V].cause is Cause.DOES_NOT_SERVE


async def test_a_share_of_mine_excuses_v_no_longer_than_a_share_of_its_own(late: Story) -> None:
    town = late.town
    await town.pods.sign_with(W, late.built, validators=await town.pods.sign_with(V, late.built))
    town.leave(V)
    wait_almost(late)
    assert not await town.complains(W, 0)
    lose_patience(late)
    assert await town.complains(W, 0)


async def test_a_transaction_that_my_node_dropped_excuses_v_until_the_patience_is_over(late: Story) -> None:
    town = late.town
    node, early, later = town.group(W)[0].node, town.watch(W), town.watch(W)
    seen = TransactionStatus(late.built.transaction.to_bytes(), 0, None, None, None)
    node.transactions[late.built.intent.txid] = seen
    await early.look()
    await later.look()
    node.transactions.clear()
    town.leave(V)
    wait_almost(late)
    await early.look()
    assert not town.box.sent
    lose_patience(late)
    node.transactions[late.built.intent.txid] = seen
    assert not await town.complains(W), "it is there"
    node.transactions.clear()
    await later.look()
    assert len(town.box.sent) == 1


def _of_the_other_group(header: SessionHeader, subject: IntentSubject) -> tuple[SessionHeader, IntentSubject]:
    role = W if header.group.role is V else V
    return replace(header, group=GroupId(EPOCH, role)), subject


JUNK: dict[str, Callable[[SessionHeader, IntentSubject], tuple[SessionHeader, IntentSubject]]] = {
    "the other group": _of_the_other_group,
    "another epoch": lambda header, it: (replace(header, group=GroupId(EpochNumber(1), header.group.role)), it),
    "another purpose": lambda header, it: (replace(header, purpose=Purpose.PAYOUT), it),
    "an old slot": lambda header, it: (replace(header, slot=KaonHeight(1)), it),
    "no transaction": lambda header, it: (header, replace(it, unsigned_tx=b"")),
    "another transaction": lambda header, it: (header, replace(it, unsigned_tx=_add_output(it.unsigned_tx))),
    "no signatures": lambda header, it: (header, replace(it, validator_signatures=())),
    "wrong signatures": lambda header, it: (header, replace(it, validator_signatures=(Signature(bytes(64)),))),
}


def _add_output(raw: bytes) -> bytes:
    transaction = parse_transaction(raw)
    return replace(transaction, outputs=(*transaction.outputs, transaction.outputs[0])).to_bytes()


async def offer(story: Story, role: Role, name: str, signatures: tuple[Signature, ...] = ()) -> None:
    """Ask every member of a group about the story's intent as no honest coordinator does."""
    pods = story.town.pods
    header, subject = pods.header(role, Purpose.TRANSFER, story.subject), pods.subject(story.built, signatures)
    for pod in story.town.group(role):
        reply = await pods.commit(pod, JUNK[name](header, subject)[1], JUNK[name](header, subject)[0])
        assert isinstance(reply, Refusal), name


@pytest.mark.parametrize("name", [name for name in JUNK if not name.endswith("signatures")])
async def test_no_coordinator_makes_v_fail_by_asking_it_wrongly(late: Story, name: str) -> None:
    await offer(late, V, name)
    assert not await late.town.complains(W)


@pytest.mark.parametrize("name", JUNK)
async def test_no_coordinator_makes_w_fail_by_asking_it_wrongly(late: Story, name: str) -> None:
    await offer(late, W, name, await late.town.pods.sign_with(V, late.built))
    assert not await late.town.complains(V)


async def test_who_was_only_ever_asked_wrongly_is_believed_until_the_patience_is_over(late: Story) -> None:
    town = late.town
    wait_almost(late)
    await offer(late, V, "no transaction")
    assert not await town.complains(W)
    lose_patience(late)
    assert await town.complains(W)


async def test_being_asked_before_the_window_is_over_is_no_refusal(tmp_path: Path) -> None:
    world = ArmedWorld.filled()
    built, armings = arm_deposit(world, 500_000)
    world.chain.add(*(world.armed.pre_sign(item) for item in armings))
    story = Story(Town(tmp_path, world), built)
    world.chain.add(endorse(world.chain.epoch, built.intent, world.ledger.height))
    town, header = story.town, story.town.pods.header(V, Purpose.TRANSFER, story.subject)
    for pod in town.group(V):
        reply = await town.pods.commit(pod, town.pods.subject(built), header)
        assert isinstance(reply, Refusal)
        assert reply.reason in {"INTENT_NOT_FINAL", "WINDOW_NOT_OVER"}
    town.wait(WAIT)
    assert not await town.complains(W)
    for pod in town.pods.pods.values():
        pod.log.close()


async def test_what_a_member_refuses_by_its_own_rules_is_not_forgotten_for_a_junk_question(late: Story) -> None:
    town, header = late.town, late.town.pods.header(V, Purpose.TRANSFER, late.subject)
    kept = dict(town.world.outputs)
    town.world.outputs.clear()
    for pod in town.group(V)[:2]:
        assert isinstance(await town.pods.commit(pod, town.pods.subject(late.built), header), Refusal)
    town.world.outputs.update(kept)
    for name in ("the other group", "no transaction"):
        await offer(late, V, name)
    assert await town.complains(W)


def test_an_intent_that_a_member_of_w_cannot_rebuild_is_its_own_refusal_whatever_it_was_shown() -> None:
    def is_skipped(*failed: Finding) -> bool:
        return is_asked_wrongly(StoredReview(b"", bytes(32), Stage.SIGN, Purpose.TRANSFER, failed, KaonHeight(1)))

    mine = Finding("V10", ok=False, reason="NOT_REBUILT", detail="it cannot be rebuilt: an input is missing")
    bytes_only = Finding("V10", ok=False, reason="NOT_REBUILT", detail=BYTES_DIFFER)
    shown = Finding("V11", ok=False, reason="SIGHASH_MISMATCH")
    closed = Finding("V06", ok=False, reason="EPOCH_CLOSED")
    assert not is_skipped(mine, shown)
    assert not is_skipped(mine, bytes_only)
    assert not is_skipped(closed)
    assert not is_skipped(Finding("V14", ok=False, reason="INPUT_MISSING"))
    assert is_skipped(bytes_only, Finding("V12", ok=False, reason="TX_SHAPE"))
    assert is_skipped(shown)
    assert is_skipped(closed, Finding("V06", ok=False, reason="WRONG_GROUP"))


# ------------------------------------------------------------------ sweeps


@pytest.fixture
def retiring(tmp_path: Path) -> Iterator[Town]:
    world = ArmedWorld.filled(800_000, 900_000)
    town = Town(tmp_path, world)
    world.turn()
    yield town
    for pod in town.pods.pods.values():
        pod.log.close()


async def test_a_sweep_that_nobody_records_is_complained_about_after_its_silence(retiring: Town) -> None:
    town, watch = retiring, retiring.watch(W)
    town.leave(V)
    await watch.look()
    town.wait(REGTEST.silence_blocks - 16)
    await watch.look()
    assert not town.box.sent
    town.wait(32)
    await watch.look()
    assert [record.subject for record in town.box.sent] == [compute_sweep_subject(EPOCH)]


async def test_a_sweep_counts_from_when_my_own_node_had_its_outputs_deep_enough(retiring: Town) -> None:
    town, watch = retiring, retiring.watch(W)
    town.leave(V)
    kept = dict(town.world.outputs)
    town.world.outputs.update({point: replace(facts, confirmations=2) for point, facts in kept.items()})
    await watch.look()
    town.wait(2 * REGTEST.silence_blocks)
    await watch.look()
    town.world.outputs.update(kept)
    town.wait(REPEAT_AFTER)
    await watch.look()
    assert not town.box.sent
    town.wait(REGTEST.silence_blocks)
    await watch.look()
    assert len(town.box.sent) == 1


async def test_a_sweep_that_is_recorded_in_time_is_no_ones_fault(retiring: Town) -> None:
    town, watch = retiring, retiring.watch(W)
    town.leave(V)
    await watch.look()
    town.world.armed.record(town.world.armed.make_sweep(0))
    town.wait(REGTEST.silence_blocks // 2)
    await watch.look()
    assert not town.box.sent
    assert [it.status for it in town.world.ledger.intents.values()][-1] is IntentStatus.LIVE


@pytest.mark.parametrize(("refusing", "is_blamed"), [(1, False), (2, True)])
async def test_w_that_refuses_what_v_endorses_is_blamed_for_the_missing_sweep_and_v_is_not(
    retiring: Town, refusing: int, is_blamed: bool
) -> None:
    town, mine, theirs = retiring, retiring.watch(V), retiring.watch(W)
    await mine.look()
    await theirs.look()
    town.wait((IDLE_PATIENCE + 1) * REGTEST.silence_blocks)
    sweep = town.world.armed.make_sweep(0)
    height = town.world.ledger.height
    for position, pod in enumerate(town.group(V)):
        secret = pod.ring.derive_host_secret(GroupId(EPOCH, V), Attempt(0))
        digest = compute_endorsement_digest(Network.REGTEST, sweep.intent_id, V, height)
        made = Endorsement(V, position, height, sign(secret, digest))
        pod.signer.sweeps.note(GroupId(EPOCH, V), sweep, made)
    for position in range(refusing):
        refusal = Refusal("V53", ("V53",), "OUTPUT_LEFT_OUT", "no")
        town.pods.pods[W, position].signer.sweeps.note(GroupId(EPOCH, W), sweep, refusal)
    await mine.look()
    await theirs.look()
    assert [record.role for record in town.box.sent] == ([W] if is_blamed else [])


async def test_a_pod_remembers_what_it_said_to_a_proposed_sweep(retiring: Town) -> None:
    pods, built = retiring.pods, retiring.world.sweep()
    pod, group = pods.pods[V, 0], GroupId(EPOCH, V)
    assert pod.signer.sweeps.find(group) is None
    await pods.endorse(pod, built)
    said = pod.signer.sweeps.find(group)
    assert isinstance(said, SweepEndorsed)
    assert said.intent == built.intent.intent_id
    pod.node.is_synced = False
    await pods.endorse(pod, built)
    assert pod.signer.sweeps.find(group) == ServiceRefused("V02", "NODE_BEHIND")


async def test_a_pod_remembers_nothing_of_groups_that_are_not_its_own(retiring: Town) -> None:
    """A coordinator could else name an epoch after the other and have each remembered for ever."""
    pods, built = retiring.pods, retiring.world.sweep()
    pod = pods.pods[V, 0]
    header = pods.header(V, Purpose.SWEEP, built.intent.intent_id)
    invented = [(GroupId(EpochNumber(number), V), number) for number in (1, 2, 1_000, 2**64 - 1)]
    for group, number in [(GroupId(EPOCH, W), EPOCH), (GroupId(EPOCH, E), EPOCH), *invented]:
        intent = replace(built.intent, epoch=EpochNumber(number))
        request = EndorseRequest(replace(header, group=group), intent, b"")
        assert isinstance(await pod.signer.endorse(pods.letter("Endorse", request), 10.0), Refusal)
        assert pod.signer.sweeps.find(group) is None
    await pods.endorse(pod, built, b"\x00")
    assert isinstance(pod.signer.sweeps.find(GroupId(EPOCH, V)), ServiceRefused)


async def test_what_was_said_for_an_epoch_is_forgotten_when_the_epoch_is_over(retiring: Town) -> None:
    sweeps, epochs = SweepMemory(), dict(retiring.world.ledger.epochs)
    group, sweep = GroupId(EPOCH, V), retiring.world.armed.make_sweep(0)
    said = Refusal("V53", ("V53",), "OUTPUT_LEFT_OUT", "no")
    for state, is_kept in (
        (EpochState.RETIRING, True),
        (EpochState.PARKED, True),
        (EpochState.RETIRED, False),
        (EpochState.ABORTED, False),
    ):
        sweeps.note(group, sweep, said)
        sweeps.forget_over({**epochs, EPOCH: replace(epochs[EPOCH], state=state)})
        assert (sweeps.find(group) is not None) is is_kept, state
    sweeps.note(group, sweep, said)
    sweeps.forget_over({})
    assert sweeps.find(group) is None


async def test_an_endorsement_counts_only_as_its_member_made_it_since_the_sweep_is_due(retiring: Town) -> None:
    town, info = retiring, retiring.world.ledger.epochs[EPOCH].groups[V]
    pod, height = town.group(V)[0], town.world.ledger.height
    secret = pod.ring.derive_host_secret(GroupId(EPOCH, V), Attempt(0))
    intent = IntentId(b"\x07" * 32)
    made = Endorsement(V, 0, height, sign(secret, compute_endorsement_digest(Network.REGTEST, intent, V, height)))
    subject = compute_sweep_subject(EPOCH)
    item = Overdue(Network.REGTEST, EPOCH, V, subject, height, None)
    question = ServedQuestion(Network.REGTEST, EPOCH, V, subject, bytes(32))

    def judge(said: SweepEndorsed, about: Overdue = item) -> Standing:
        return judge_answer(about, info, pod.ring.identity, question, answer_as(pod, question, said))

    honest = SweepEndorsed(intent, made)
    assert judge(honest) is Standing.SERVES
    assert judge(honest, replace(item, since=KaonHeight(height + 1))) is Standing.FAILS
    assert judge(honest, replace(item, intent=make_intent())) is Standing.FAILS
    assert judge(replace(honest, intent=IntentId(bytes(32)))) is Standing.FAILS
    for lie in (replace(made, position=1), replace(made, role=W), replace(made, signature=Signature(bytes(64)))):
        assert judge(SweepEndorsed(intent, lie)) is Standing.FAILS


async def test_nobody_is_blamed_for_a_sweep_that_e_cannot_arm(retiring: Town) -> None:
    town, watch = retiring, retiring.watch(W)
    town.leave(V)
    emergency = town.world.ledger.epochs[EpochNumber(1)].groups[E].members[:2]
    silent = [list_identities().index(member) for member in emergency]
    town.world.turning.finalise_to(town.world.ledger.height + REGTEST.silence_blocks + 1, silent=silent)
    town.world.chain.add()
    assert len(town.world.ledger.judgements.list_good(EpochNumber(1), E)) == 2
    for _ in range(3):
        await watch.look()
        town.world.turning.finalise_to(town.world.ledger.height + REGTEST.silence_blocks, silent=silent)
    assert not town.box.sent


async def test_v_blames_w_for_a_missing_sweep_only_when_w_fails_and_never_for_being_idle(
    retiring: Town,
) -> None:
    town, watch = retiring, retiring.watch(V)
    await watch.look()
    town.wait((IDLE_PATIENCE + 1) * REGTEST.silence_blocks)
    await watch.look()
    assert not town.box.sent
    town.leave(W, 2)
    town.wait(REPEAT_AFTER)
    await watch.look()
    assert [(record.role, record.subject) for record in town.box.sent] == [(W, compute_sweep_subject(EPOCH))]


# ------------------------------------------------------------------ answers that lie


def answer_as(pod: MemberPod, question: ServedQuestion, outcome: ServedOutcome) -> ServedAnswer:
    """Return an outcome under a member's identity key."""
    secret = SECRETS[pod.ring.identity]
    return ServedAnswer(outcome, sign(secret, compute_served_digest(question, pod.ring.identity, outcome)))


def _change_header(**fields: object) -> Callable[[ShareReleased], ShareReleased]:
    return lambda it: replace(it, header=replace(it.header, **fields))  # type: ignore[arg-type]


def _change_envelope(**fields: object) -> Callable[[ShareReleased], ShareReleased]:
    return lambda it: replace(it, envelope=replace(it.envelope, **fields))  # type: ignore[arg-type]


LIES: dict[str, Callable[[ShareReleased], ShareReleased]] = {
    "another subject": _change_header(subject=bytes(32)),
    "another purpose": _change_header(purpose=Purpose.PAYOUT),
    "another attempt": _change_header(attempt=Attempt(7)),
    "another slot": _change_header(slot=KaonHeight(1)),
    "another network": _change_header(network=Network.MAINNET),
    "another suite": _change_header(suite="other"),
    "another session": _change_envelope(session_id=SessionId(bytes(32))),
    "another signature": _change_envelope(signature=Signature(bytes(64))),
    "another body": _change_envelope(body=b"\x00"),
}


async def released_by(late: Story, position: int = 0) -> tuple[MemberPod, ServedQuestion, ShareReleased]:
    """Return a member, a question and its honest answer after V signed."""
    pod = late.town.group(V)[position]
    question = ServedQuestion(Network.REGTEST, EPOCH, V, late.subject, bytes([position]) * 32)
    answer = await late.town.peers.desks[pod.ring.identity].answer(question)
    assert isinstance(answer.outcome, ShareReleased)
    assert judge_answer(late.item, late.info, pod.ring.identity, question, answer) is Standing.SERVES
    return pod, question, answer.outcome


async def test_a_released_share_counts_only_as_it_left(late: Story) -> None:
    await late.town.pods.sign_with(V, late.built)
    pod, question, honest = await released_by(late)
    for name, lie in LIES.items():
        answer = answer_as(pod, question, lie(honest))
        assert judge_answer(late.item, late.info, pod.ring.identity, question, answer) is Standing.FAILS, name


async def test_another_members_share_and_another_members_signature_are_worth_nothing(late: Story) -> None:
    await late.town.pods.sign_with(V, late.built)
    first, question, honest = await released_by(late, 0)
    second, _, other = await released_by(late, 1)
    stolen = answer_as(first, question, other)
    assert judge_answer(late.item, late.info, first.ring.identity, question, stolen) is Standing.FAILS
    borrowed = answer_as(second, question, honest)
    assert judge_answer(late.item, late.info, first.ring.identity, question, borrowed) is Standing.FAILS


async def test_an_answer_to_another_question_is_none(late: Story) -> None:
    pod = late.town.group(V)[0]
    question = ServedQuestion(Network.REGTEST, EPOCH, V, late.subject, bytes(32))
    answer = answer_as(pod, replace(question, nonce=b"\x01" * 32), NotAsked())
    assert judge_answer(late.item, late.info, pod.ring.identity, question, answer) is Standing.FAILS
    right = answer_as(pod, question, NotAsked())
    assert judge_answer(late.item, late.info, pod.ring.identity, question, right) is Standing.IDLE
    assert judge_answer(late.item, late.info, pod.ring.identity, question, None) is Standing.FAILS


@pytest.mark.parametrize(
    ("rule", "standing"),
    [("V18", Standing.FAILS), ("V05", Standing.FAILS), ("V08", Standing.IDLE), ("", Standing.FAILS)],
)
async def test_a_refusal_in_passing_is_no_refusal_for_good(late: Story, rule: str, standing: Standing) -> None:
    pod = late.town.group(V)[0]
    question = ServedQuestion(Network.REGTEST, EPOCH, V, late.subject, bytes(32))
    answer = answer_as(pod, question, ServiceRefused(rule, "SOMETHING"))
    assert judge_answer(late.item, late.info, pod.ring.identity, question, answer) is standing


@pytest.mark.parametrize(
    ("rule", "standing"),
    [("V53", Standing.DISAGREES), ("V52", Standing.DISAGREES), ("V05", Standing.FAILS), ("V02", Standing.IDLE)],
)
async def test_who_refuses_a_proposed_sweep_may_be_right(late: Story, rule: str, standing: Standing) -> None:
    pod, sweep = late.town.group(V)[0], replace(late.item, intent=None, subject=compute_sweep_subject(EPOCH))
    question = ServedQuestion(Network.REGTEST, EPOCH, V, sweep.subject, bytes(32))
    answer = answer_as(pod, question, ServiceRefused(rule, "SOMETHING"))
    assert judge_answer(sweep, late.info, pod.ring.identity, question, answer) is standing


@pytest.mark.parametrize("role", [V, W])
def test_disagreeing_about_a_sweep_is_believed_until_the_patience_is_over(role: Role) -> None:
    item = Overdue(Network.REGTEST, EPOCH, role, compute_sweep_subject(EPOCH), KaonHeight(1_000), None)
    last, answers = IDLE_PATIENCE * 60, [Standing.DISAGREES] * 3 + [Standing.FAILS]
    assert is_group_serving(item, 3, answers, last - 1, 60)
    assert not is_group_serving(item, 3, answers, last, 60)


async def test_lying_members_are_found_out_by_the_watch_itself(late: Story) -> None:
    town = late.town
    await town.pods.sign_with(V, late.built)

    def lie(question: ServedQuestion, answer: ServedAnswer) -> ServedAnswer:
        del question
        assert isinstance(answer.outcome, ShareReleased)
        forged = Envelope(**{**_fields(answer.outcome.envelope), "signature": Signature(bytes(64))})  # type: ignore[arg-type]
        return replace(answer, outcome=replace(answer.outcome, envelope=forged))

    for pod in town.group(V)[:2]:
        town.peers.bends[pod.ring.identity] = lie
    assert await town.complains(W)


def _fields(envelope: Envelope) -> dict[str, object]:
    return {name: getattr(envelope, name) for name in ("session_id", "sender", "body", "signature")}


def test_t_members_serve_and_one_less_does_not_and_patience_ends_with_its_block() -> None:
    intent = make_intent()
    last = IDLE_PATIENCE * 60

    def serves(item: Overdue, *answers: Standing, waited: int = 100) -> bool:
        return is_group_serving(item, 3, answers, waited, 60)

    item = Overdue(Network.REGTEST, EPOCH, V, bytes(32), KaonHeight(1_000), intent)
    good, idle, bad = Standing.SERVES, Standing.IDLE, Standing.FAILS
    assert serves(item, good, good, good, bad)
    assert not serves(item, good, good, bad, bad)
    assert serves(item, good, idle, idle, bad, waited=last - 1)
    assert not serves(item, good, idle, idle, bad, waited=last)
    assert serves(item, good, good, good, idle, waited=last - 1)
    assert not serves(item, good, good, good, good, waited=last)
    sweep = Overdue(Network.REGTEST, EPOCH, W, compute_sweep_subject(EPOCH), KaonHeight(1_000), None)
    assert serves(sweep, idle, idle, idle, bad, waited=last)
    assert not serves(sweep, idle, idle, bad, bad, waited=last)
    assert serves(replace(sweep, role=V), good, good, good, idle, waited=last)
    assert not serves(replace(sweep, role=V), idle, idle, idle, bad, waited=last)


def make_intent() -> Intent:
    """Return any intent."""
    built, _ = arm_deposit(ArmedWorld.filled(), 500_000)
    return built.intent
