"""Stories about a member of E asked to pre-sign: it rebuilds what creates the outputs, and signs each rung once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pegin.model import BuiltTransaction
from slashing.build import build_armings, build_renewal
from slashing.model import BuiltArming
from smpc.protocol.arming_records import list_created
from smpc.protocol.codec import decode_variant, encode_variant
from smpc.protocol.ledger_state import EpochState
from smpc.protocol.pod_messages import ArmingSubject, CommitReply, Refusal, SignReply, SignRequest, Subject
from smpc.protocol.review import Stage
from smpc.protocol.verdict_records import EvidenceRecorded
from smpc.threshold.child_keys import VAULT_RANGE_START
from smpc.types import ChildIndex, EpochNumber, Outpoint, Purpose, Role, Sats, Script, Txid
from tests.property.test_pegin_review import iter_field_changes
from tests.support.armed_world import ArmedWorld, arm_deposit
from tests.support.groups import EPOCH, endorse
from tests.support.pod_world import MemberPod, PodWorld
from tests.support.sweep_world import SweepWorld
from tests.support.thefts import steal
from tests.support.turning_chain import BTC_START

E = Role.EMERGENCY


@pytest.fixture
def pods(tmp_path: Path) -> PodWorld:
    return PodWorld(ArmedWorld.filled(), tmp_path, roles=tuple(Role))


def world_of(pods: PodWorld) -> ArmedWorld:
    assert isinstance(pods.world, ArmedWorld)
    return pods.world


def ask(pods: PodWorld, *values: int) -> tuple[BuiltTransaction, BuiltArming, ArmingSubject]:
    parent, (built,) = arm_deposit(world_of(pods), *values)
    return parent, built, ArmingSubject(built.arming, parent.intent)


async def refusal_of(pods: PodWorld, subject: ArmingSubject, pod: MemberPod | None = None) -> tuple[str, str]:
    """Ask a member of E to commit to a subject; the rule and the reason of its refusal."""
    header = pods.header(E, Purpose.ARMING, subject.arming.digest)
    reply = await pods.commit(pod or pods.pods[E, 0], subject, header)
    assert isinstance(reply, Refusal), reply
    return reply.rule, reply.reason


async def test_three_members_arm_a_transfer_and_the_ledger_takes_it_and_then_the_intent(pods: PodWorld) -> None:
    parent, built, subject = ask(pods, 500_000, 600_000)
    signatures = await pods.pre_sign(built, subject)
    assert not built.find_bad_signatures(signatures)
    chain = pods.world.chain
    chain.add(built.to_record(signatures), endorse(chain.epoch, parent.intent, chain.ledger.height))
    assert parent.intent.intent_id in chain.ledger.intents


async def test_the_subject_is_the_same_after_the_wire(pods: PodWorld) -> None:
    _, built, subject = ask(pods, 500_000)
    for item in (subject, ArmingSubject(built.arming, None)):
        assert decode_variant(Subject, encode_variant(item)) == item


@pytest.mark.parametrize("role", [Role.VALIDATOR, Role.WITNESS])
async def test_only_members_of_the_emergency_group_arm(pods: PodWorld, role: Role) -> None:
    _, _, subject = ask(pods, 500_000)
    for named in (role, E):
        header = pods.header(named, Purpose.ARMING, subject.arming.digest)
        reply = await pods.commit(pods.pods[role, 0], subject, header)
        assert isinstance(reply, Refusal)
        assert (reply.rule, reply.reason) == ("V06", "WRONG_GROUP")


async def test_a_member_of_e_endorses_and_signs_no_transfer(pods: PodWorld) -> None:
    parent, _, _ = ask(pods, 500_000)
    reply = await pods.endorse(pods.pods[E, 0], parent)
    assert isinstance(reply, Refusal)
    assert reply.rule == "V06"
    header = pods.header(E, Purpose.TRANSFER, parent.intent.intent_id)
    reply = await pods.commit(pods.pods[E, 0], pods.subject(parent), header)
    assert isinstance(reply, Refusal)
    assert reply.rule == "V06"


LIES: list[tuple[tuple[str, str], dict[str, object]]] = [
    (("V60", "WRONG_TARGET"), {"target": EPOCH}),
    (("V60", "WRONG_TARGET"), {"target": EpochNumber(2)}),
    (("V15", "CHANGE_SCRIPT"), {"target_script": Script(b"\x51\x20" + b"\x01" * 32)}),
    (("V12", "TX_TOO_LARGE"), {"outputs": ()}),
]


@pytest.mark.parametrize(("expected", "changes"), LIES)
async def test_a_coordinator_that_names_another_target_is_refused(
    pods: PodWorld, expected: tuple[str, str], changes: dict[str, object]
) -> None:
    _, built, subject = ask(pods, 500_000)
    lie = replace(built.arming, **changes)  # type: ignore[arg-type]
    assert await refusal_of(pods, replace(subject, arming=lie)) == expected


async def test_a_coordinator_that_lies_about_an_output_is_refused(pods: PodWorld) -> None:
    _, built, subject = ask(pods, 500_000, 600_000)
    outputs = built.arming.outputs

    def lie(**changes: object) -> ArmingSubject:
        return replace(subject, arming=replace(built.arming, outputs=changes.pop("outputs")))  # type: ignore[arg-type]

    place = next(at for at, item in enumerate(outputs) if item.child < 0x10000000)
    more = replace(outputs[place], value=Sats(outputs[place].value + 1))
    assert await refusal_of(pods, lie(outputs=(*outputs[:place], more, *outputs[place + 1 :]))) == (
        "V14",
        "AMOUNT_MISMATCH",
    )
    assert await refusal_of(pods, lie(outputs=(*outputs, outputs[0]))) == ("V13", "DUPLICATE")
    assert await refusal_of(pods, lie(outputs=outputs[1:])) == ("V10", "NOT_REBUILT")
    assert await refusal_of(pods, lie(outputs=outputs[::-1])) == ("V10", "NOT_REBUILT")


async def test_a_parent_that_is_not_what_its_choice_builds_is_refused(pods: PodWorld) -> None:
    parent, _, _ = ask(pods, 500_000)
    false = replace(parent.intent, txid=Txid(b"\x01" * 32))
    (built,) = build_armings(pods.world.ledger, false)
    assert await refusal_of(pods, ArmingSubject(built.arming, false)) == ("V14", "PARENT_MISMATCH")


async def test_a_deposit_that_my_node_does_not_have_or_only_in_its_mempool_is_not_armed(pods: PodWorld) -> None:
    parent, _, subject = ask(pods, 500_000)
    (outpoint,) = parent.intent.outpoints
    facts = pods.world.outputs[outpoint]
    pods.world.outputs[outpoint] = replace(facts, confirmations=0)
    assert await refusal_of(pods, subject) == ("V19", "UNCONFIRMED_INPUT")
    pods.world.outputs[outpoint] = replace(facts, confirmations=1)
    await pods.commit(pods.pods[E, 1], subject, pods.header(E, Purpose.ARMING, subject.arming.digest))
    del pods.world.outputs[outpoint]
    assert await refusal_of(pods, subject) == ("V14", "PARENT_MISMATCH")
    assert await refusal_of(pods, ArmingSubject(subject.arming, None)) == ("V14", "INPUT_MISSING")


async def test_a_renewal_of_what_the_ledger_does_not_know_is_refused(pods: PodWorld) -> None:
    parent, built, _ = ask(pods, 500_000)
    created = tuple(item for item in built.arming.outputs if item.outpoint.txid == parent.intent.txid)
    subject = ArmingSubject(replace(built.arming, outputs=created), None)
    assert await refusal_of(pods, subject) == ("V10", "NOT_REBUILT")


async def test_where_nothing_is_armed_a_member_pre_signs_nothing(tmp_path: Path) -> None:
    world = SweepWorld.filled()
    pods = PodWorld(world, tmp_path, roles=(E,))
    parent = world.transfer(world.deposit(0, 500_000))
    (built,) = build_armings(world.ledger, parent.intent)
    assert await refusal_of(pods, ArmingSubject(built.arming, parent.intent)) == ("V65", "ARMING_OFF")


async def test_asked_again_it_signs_the_same_rungs_and_never_another_transaction_for_one(pods: PodWorld) -> None:
    parent, built, subject = ask(pods, 500_000)
    first = await pods.pre_sign(built, subject)
    again = await pods.pre_sign(built, subject, attempt=1)
    assert not built.find_bad_signatures(again)
    assert len(first) == len(again)
    # My node changes its mind about the deposit: other transactions would spend the same outpoint to the same target.
    (outpoint,) = parent.intent.outpoints
    pods.world.outputs[outpoint] = replace(pods.world.outputs[outpoint], value=Sats(600_000))
    other = pods.world.transfer(outpoint)
    (another,) = build_armings(pods.world.ledger, other.intent)
    lie = ArmingSubject(another.arming, other.intent)
    assert await refusal_of(pods, lie) == ("V64", "RUNG_SIGNED")
    pods.pods[E, 0].log.close()
    assert await refusal_of(pods, lie, pods.start_pod(E, 0)) == ("V64", "RUNG_SIGNED")
    # Who signed nothing of it has nothing against it.
    idle = await pods.commit(pods.pods[E, 3], lie, pods.header(E, Purpose.ARMING, lie.arming.digest))
    assert isinstance(idle, CommitReply)


async def test_of_two_sessions_open_at_once_one_releases_shares(pods: PodWorld) -> None:
    parent, built, subject = ask(pods, 500_000)
    (outpoint,) = parent.intent.outpoints
    first = await open_round_two(pods, built, subject)
    pods.world.outputs[outpoint] = replace(pods.world.outputs[outpoint], value=Sats(600_000))
    other = pods.world.transfer(outpoint)
    (another,) = build_armings(pods.world.ledger, other.intent)
    second = await open_round_two(pods, another, ArmingSubject(another.arming, other.intent))
    assert isinstance(await pods.sign(pods.pods[E, 0], first), SignReply)
    refused = await pods.sign(pods.pods[E, 0], second)
    assert isinstance(refused, Refusal)
    assert (refused.rule, refused.reason) == ("V64", "RUNG_SIGNED")


async def open_round_two(pods: PodWorld, built: BuiltArming, subject: ArmingSubject) -> SignRequest:
    header = pods.header(E, Purpose.ARMING, built.arming.digest)
    commitments: dict[int, bytes] = {}
    for pod in pods.group(E)[:3]:
        reply = await pods.commit(pod, subject, header)
        assert isinstance(reply, CommitReply), reply
        commitments[reply.position] = reply.nonces
    return pods.round_two(header, commitments, len(built.rungs))


async def test_a_new_target_is_armed_again(tmp_path: Path) -> None:
    world = ArmedWorld.filled(500_000)
    outpoints = list(world.ledger.vault)
    world.turn()
    world.turn()
    world.turning.pulse(BTC_START + 10)
    world.chain.skip(2)
    assert world.ledger.list_unarmed()
    world.chain.epoch = world.turning.keyed[EPOCH]  # the pods of this test are epoch 0's
    pods = PodWorld(world, tmp_path, roles=(E,))
    built = build_renewal(world.ledger, EPOCH, outpoints)
    signatures = await pods.pre_sign(built, ArmingSubject(built.arming, None))
    world.chain.add(built.to_record(signatures))
    assert world.ledger.list_unarmed() == ()


async def test_a_new_deposit_of_a_judged_epoch_is_never_pre_signed(tmp_path: Path) -> None:
    """The invoice was issued and paid before the verdict: after it nothing of the epoch is transferred any more."""
    world = ArmedWorld.filled(500_000)
    deposit = world.deposit(len(world.ledger.invoices), 700_000)
    world.release()
    pods = PodWorld(world, tmp_path, roles=(E,))
    parent = world.transfer(deposit)
    built = next(item for item in build_armings(world.ledger, parent.intent) if item.arming.epoch == EPOCH)
    for position in range(4):
        subject = ArmingSubject(built.arming, parent.intent)
        assert await refusal_of(pods, subject, pods.pods[E, position]) == ("V65", "EPOCH_JUDGED")
    assert pods.world.chain.refusal(world.armed.pre_sign(built)) == "EPOCH_JUDGED"


@pytest.mark.parametrize("is_judged", [False, True])
async def test_what_was_armed_before_the_verdict_is_armed_again_after_it(tmp_path: Path, is_judged: bool) -> None:
    world = ArmedWorld.filled(500_000)
    parent, armings = arm_deposit(world, 700_000)
    world.chain.add(*(world.armed.pre_sign(item) for item in armings))
    world.record(parent)
    vault, *_ = world.ledger.vault
    created, *_ = (item.outpoint for item in list_created(parent.intent))
    if is_judged:
        world.release()
    pods = PodWorld(world, tmp_path, roles=(E,))
    for outpoint in (vault, created, *parent.intent.outpoints):
        built = build_renewal(world.ledger, EPOCH, [outpoint])
        signatures = await pods.pre_sign(built, ArmingSubject(built.arming, None))
        assert not built.find_bad_signatures(signatures), outpoint


async def test_e_releases_no_share_for_a_target_that_changed_after_it_committed(pods: PodWorld) -> None:
    world = world_of(pods)
    _, built, subject = ask(pods, 500_000)
    request = await open_round_two(pods, built, subject)
    world.turn()  # its target is active now: the same group, keyed as it was
    assert isinstance(await pods.sign(pods.pods[E, 0], request), SignReply)
    world.turn()
    refused = await pods.sign(pods.pods[E, 1], request)
    assert isinstance(refused, Refusal)
    assert (refused.rule, refused.reason) == ("V60", "WRONG_TARGET")


async def test_e_releases_no_share_for_a_target_that_was_judged_after_it_committed(pods: PodWorld) -> None:
    world = world_of(pods)
    _, built, subject = ask(pods, 500_000)
    request = await open_round_two(pods, built, subject)
    thrown = Outpoint(Txid(b"\x07" * 32), 0)
    keyed = world.turning.keyed[built.arming.target]
    theft = steal(world.ledger, keyed, thrown, Sats(100_000), ChildIndex(VAULT_RANGE_START))
    world.chain.add(EvidenceRecorded(theft.accuse(Role.VALIDATOR)))
    world.chain.skip(8)
    assert world.ledger.epochs[built.arming.target].state is EpochState.ABORTED
    refused = await pods.sign(pods.pods[E, 0], request)
    assert isinstance(refused, Refusal)
    assert (refused.rule, refused.reason) == ("V65", "NO_TARGET")


def test_v_and_w_sign_nothing_whose_target_is_parked_meanwhile() -> None:
    world = ArmedWorld.filled()
    parent, _ = arm_deposit(world, 500_000)
    world.record(parent)
    raw = parent.transaction.to_bytes()
    assert world.review(Stage.SIGN, parent.intent, raw).refusal() is None
    world.turn()
    assert world.review(Stage.SIGN, parent.intent, raw).refusal() is None
    world.turn()
    world.turning.pulse(BTC_START + 10)
    world.chain.skip(2)
    refusal = world.review(Stage.SIGN, parent.intent, raw).refusal()
    assert refusal is not None
    assert {"V36", "V54"} <= set(refusal.rules)


def test_an_arming_names_everything_in_its_digest() -> None:
    _, (built,) = arm_deposit(ArmedWorld.filled(), 500_000)
    changed = list(iter_field_changes(built.arming))
    assert len({item.digest for item in (built.arming, *changed)}) == len(changed) + 1
