"""Stories about a member of W after a release: it signs what E armed, of that epoch only, and no transfer after it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pegin.model import BuiltTransaction
from slashing.build import build_arming, build_renewal
from slashing.model import BuiltRejection
from slashing.rejection import build_rejections
from smpc.bitcoin.transaction import Transaction
from smpc.node.ports import TransactionStatus
from smpc.node.trial_ledger import TrialLedger, change_unread
from smpc.participant.signing_claims import SpendClaim
from smpc.protocol.arming_records import Arming, list_created
from smpc.protocol.codec import decode_variant, encode_variant
from smpc.protocol.pod_messages import CommitReply, Refusal, RejectionSubject, SignReply, SignRequest, Subject
from smpc.protocol.verdict_records import EvidenceRecorded, compute_rejection_subject
from smpc.threshold.child_keys import REJECTION_RANGE_START, VAULT_RANGE_START
from smpc.types import (
    BlockHash,
    BtcHeight,
    ChildIndex,
    EpochNumber,
    KaonHeight,
    Outpoint,
    Purpose,
    Role,
    Sats,
    Script,
    Signature,
    Txid,
)
from tests.support.armed_world import ArmedWorld, arm_deposit
from tests.support.chain import deposit_outpoint
from tests.support.groups import EPOCH
from tests.support.pod_world import MemberPod, PodWorld
from tests.support.thefts import steal, steal_vault

V, W, E = Role.VALIDATOR, Role.WITNESS, Role.EMERGENCY
VALUES = (500_000, 600_000)


@pytest.fixture
def pods(tmp_path: Path) -> PodWorld:
    return PodWorld(ArmedWorld.released(*VALUES), tmp_path, roles=tuple(Role))


def world_of(pods: PodWorld) -> ArmedWorld:
    assert isinstance(pods.world, ArmedWorld)
    return pods.world


def build(pods: PodWorld) -> BuiltRejection:
    (built,) = build_rejections(pods.world.ledger, EPOCH)
    return built


async def refusal_of(pods: PodWorld, arming: Arming, pod: MemberPod | None = None) -> tuple[str, str]:
    """Ask a member of W to commit to a rejection; the rule and the reason of its refusal."""
    header = pods.header(W, Purpose.REJECTION, compute_rejection_subject(arming))
    reply = await pods.commit(pod or pods.pods[W, 0], RejectionSubject(arming), header)
    assert isinstance(reply, Refusal), reply
    return reply.rule, reply.reason


# -------------------------------------------------------------- what is signed


async def test_three_members_of_w_sign_every_rung_and_the_ledger_takes_it_once(pods: PodWorld) -> None:
    built = build(pods)
    assert [item.outpoint for item in built.arming.outputs] == sorted(pods.world.ledger.vault)
    assert all(child >= REJECTION_RANGE_START for child, _ in built.list_tasks())
    signatures = await pods.reject(built)
    assert not built.find_bad_signatures(signatures)
    assert built.find_bad_signatures((bytes(64), *signatures[1:])) == (0,)
    assert len(built.find_bad_signatures(signatures[1:])) == len(built.rungs)
    pods.world.chain.add(built.to_record(signatures))
    assert set(pods.world.ledger.judgements.rejections) == set(pods.world.ledger.vault)
    assert build_rejections(pods.world.ledger, EPOCH) == ()


async def test_w_signs_a_few_outpoints_alone_and_the_others_later(pods: PodWorld) -> None:
    outpoints = sorted(pods.world.ledger.vault)
    (first,) = build_rejections(pods.world.ledger, EPOCH, outpoints[:1])
    assert [item.outpoint for item in first.arming.outputs] == outpoints[:1]
    pods.world.chain.add(first.to_record(await pods.reject(first)))
    pods.world.chain.epoch = world_of(pods).turning.keyed[EPOCH]
    assert [item.outpoint for item in build(pods).arming.outputs] == outpoints[1:]


async def test_the_subject_is_the_same_after_the_wire(pods: PodWorld) -> None:
    subject = RejectionSubject(build(pods).arming)
    assert decode_variant(Subject, encode_variant(subject)) == subject


async def test_asked_again_w_signs_the_same_rungs_also_after_a_restart(pods: PodWorld) -> None:
    built = build(pods)
    await pods.reject(built)
    pods.pods[W, 0].log.close()
    pods.pods[W, 0] = pods.start_pod(W, 0)
    assert not built.find_bad_signatures(await pods.reject(built, attempt=1))


async def test_w_signs_for_another_target_too_once_e_armed_that(pods: PodWorld) -> None:
    world, first = world_of(pods), build(pods)
    await pods.reject(first)
    world.turning.turn()  # epoch 2 is active now, and epoch 1 a target no more once it is parked
    world.turning.pulse(300)
    world.chain.skip(2)
    world.armed.renew(EPOCH, sorted(world.ledger.vault))
    world.chain.epoch = world.turning.keyed[EPOCH]
    second = build(pods)
    assert second.arming.target != first.arming.target
    assert not second.find_bad_signatures(await pods.reject(second, attempt=1))
    assert await refusal_of(pods, first.arming) == ("V60", "WRONG_TARGET")


async def test_what_another_epochs_e_recorded_of_an_outpoint_hides_nothing(tmp_path: Path) -> None:
    world = ArmedWorld.filled(*VALUES)
    parent, armings = arm_deposit(world, 300_000)
    world.chain.add(*(world.armed.pre_sign(item) for item in armings))
    world.record(parent)
    world.release()
    pods = PodWorld(world, tmp_path, roles=tuple(Role))
    before, item = build(pods), list_created(parent.intent)[0]
    assert item in before.arming.outputs
    world.turning.announce()
    world.turning.key(2)
    beside = build_arming(world.ledger, EpochNumber(1), [item])
    world.chain.add(world.armed.pre_sign(beside))  # once it is booked the ledger refuses that
    world.chain.epoch = world.turning.keyed[EPOCH]
    newest = world.ledger.judgements.find_usable_arming(item.outpoint)
    assert newest is not None
    assert newest.epoch == 1
    assert build(pods) == before
    assert not before.find_bad_signatures(await pods.reject(before))
    world.mine(parent)
    assert item in build(pods).arming.outputs


# -------------------------------------------------------------- what is not


@pytest.mark.parametrize("role", [V, E])
async def test_neither_v_nor_e_signs_a_rejection(pods: PodWorld, role: Role) -> None:
    arming = build(pods).arming
    for named in (role, W):
        header = pods.header(named, Purpose.REJECTION, compute_rejection_subject(arming))
        reply = await pods.commit(pods.pods[role, 0], RejectionSubject(arming), header)
        assert isinstance(reply, Refusal)
        assert (reply.rule, reply.reason) == ("V06", "WRONG_GROUP")


async def test_without_a_release_nothing_is_signed(tmp_path: Path) -> None:
    world = ArmedWorld.filled(*VALUES)
    pods = PodWorld(world, tmp_path, roles=(W,))
    assert build_rejections(world.ledger, EPOCH) == ()
    arming = build_renewal(world.ledger, EPOCH, sorted(world.ledger.vault)).arming
    assert await refusal_of(pods, arming) == ("V06", "EPOCH_CLOSED")
    refusal = world.review_rejection(RejectionSubject(arming)).refusal()
    assert refusal is not None
    assert set(refusal.rules) == {"V06", "V61"}


async def test_a_release_counts_from_the_final_block_that_records_it_and_not_a_block_before(pods: PodWorld) -> None:
    subject = RejectionSubject(build(pods).arming)
    recorded = pods.world.ledger.judgements.verdicts[EPOCH, V].recorded
    assert world_of(pods).review_rejection(subject, final_height=recorded).refusal() is None
    refusal = world_of(pods).review_rejection(subject, final_height=KaonHeight(recorded - 1)).refusal()
    assert refusal is not None
    assert (refusal.rules, refusal.reason) == (("V61",), "NOT_FINAL")


async def test_a_release_that_is_only_tried_out_releases_nothing(tmp_path: Path) -> None:
    # A pod tries the newest blocks out before it votes for their checkpoint; what is asked meanwhile is judged without.
    world = ArmedWorld.filled(*VALUES)
    chain, known = world.chain, len(world.chain.blocks)
    final = TrialLedger(chain.ledger.genesis, chain.ledger.params)
    for block in chain.blocks:
        final.apply_block(block)
    arming = build_renewal(chain.ledger, EPOCH, sorted(chain.ledger.vault)).arming
    theft = steal_vault(chain.ledger, world.armed.keyed[EPOCH])
    chain.add(EvidenceRecorded(theft.accuse(V)))
    chain.skip(2)
    unfinal, chain.ledger = chain.blocks[known:], final
    chain.epoch = world.turning.keyed[EPOCH]
    pods = PodWorld(world, tmp_path, roles=(W,))
    pod, subject = pods.pods[W, 0], RejectionSubject(arming)
    for attempt in range(12):
        header = pods.header(W, Purpose.REJECTION, compute_rejection_subject(arming), attempt)
        asked = asyncio.create_task(pods.commit(pod, subject, header))
        while not asked.done():
            await change_unread(final, final.check_blocks, unfinal)
            await asyncio.sleep(0)
        reply = asked.result()
        assert isinstance(reply, Refusal), reply
        assert (reply.rule, reply.rules) == ("V06", ("V06", "V61"))


async def test_w_releases_no_share_for_a_target_that_was_judged_after_it_committed(pods: PodWorld) -> None:
    world, built = world_of(pods), build(pods)
    header = pods.header(W, Purpose.REJECTION, compute_rejection_subject(built.arming))
    commitments: dict[int, bytes] = {}
    for pod in pods.group(W)[:3]:
        reply = await pods.commit(pod, RejectionSubject(built.arming), header)
        assert isinstance(reply, CommitReply), reply
        commitments[reply.position] = reply.nonces
    request = pods.round_two(header, commitments, len(built.rungs))
    assert isinstance(await pods.sign(pods.pods[W, 0], request), SignReply)
    target = built.arming.target
    thrown = Outpoint(Txid(b"\x07" * 32), 0)
    theft = steal(world.ledger, world.turning.keyed[target], thrown, Sats(100_000), ChildIndex(VAULT_RANGE_START))
    world.chain.add(EvidenceRecorded(theft.accuse(V)))
    world.chain.epoch = world.turning.keyed[EPOCH]
    assert world.ledger.epochs[target].is_convicted
    for pod in pods.group(W)[1:3]:
        refused = await pods.sign(pod, request)
        assert isinstance(refused, Refusal)
        assert refused.rule == "V60"


@pytest.mark.parametrize("role", [V, W])
async def test_who_may_not_be_asked_or_not_yet_asks_no_question_of_its_node(tmp_path: Path, role: Role) -> None:
    world = ArmedWorld.filled(*VALUES)
    pods = PodWorld(world, tmp_path, roles=(role,))
    arming = build_renewal(world.ledger, EPOCH, sorted(world.ledger.vault)).arming
    pod = pods.pods[role, 0]
    await pod.burials.look(world.ledger)  # once for every tip, whoever asks
    pod.node.asked.clear()
    header = pods.header(W, Purpose.REJECTION, compute_rejection_subject(arming))
    reply = await pods.commit(pod, RejectionSubject(arming), header)
    assert isinstance(reply, Refusal)
    assert (reply.rule, reply.rules) == ("V06", ("V06", "V61"))
    assert pod.node.asked == []


async def test_who_may_be_asked_looks_at_every_output_by_its_own_node(pods: PodWorld) -> None:
    arming = build(pods).arming
    header = pods.header(W, Purpose.REJECTION, compute_rejection_subject(arming))
    assert isinstance(await pods.commit(pods.pods[W, 0], RejectionSubject(arming), header), CommitReply)
    assert {item.outpoint for item in arming.outputs} <= set(pods.pods[W, 0].node.asked)


async def test_a_release_of_another_epoch_releases_nothing_of_this_one(pods: PodWorld) -> None:
    arming = build(pods).arming
    refusal = world_of(pods).review_rejection(RejectionSubject(replace(arming, epoch=EpochNumber(1)))).refusal()
    assert refusal is not None
    assert {"V06", "V60", "V61", "V76"} <= set(refusal.rules)


def other_value(arming: Arming) -> Arming:
    first = arming.outputs[0]
    return replace(arming, outputs=(replace(first, value=Sats(first.value + 1)), *arming.outputs[1:]))


def other_child(arming: Arming) -> Arming:
    first = arming.outputs[0]
    return replace(arming, outputs=(replace(first, child=ChildIndex(first.child + 1)), *arming.outputs[1:]))


def unarmed_output(arming: Arming) -> Arming:
    stranger = replace(arming.outputs[0], outpoint=Outpoint(Txid(b"\x01" * 32), 0))
    return replace(arming, outputs=(stranger, *arming.outputs))


LIES: list[tuple[tuple[str, str], Callable[[Arming], Arming]]] = [
    (("V60", "WRONG_TARGET"), lambda arming: replace(arming, target=EPOCH)),
    (("V60", "WRONG_TARGET"), lambda arming: replace(arming, target=EpochNumber(2))),
    (("V60", "WRONG_TARGET"), lambda arming: replace(arming, target_script=Script(b"\x51\x20" + b"\x01" * 32))),
    (("V60", "NOT_ARMED"), unarmed_output),
    (("V10", "NOT_REBUILT"), other_value),
    (("V10", "NOT_REBUILT"), other_child),
    (("V10", "NOT_REBUILT"), lambda arming: replace(arming, outputs=arming.outputs[::-1])),
    (("V13", "DUPLICATE"), lambda arming: replace(arming, outputs=(*arming.outputs, arming.outputs[0]))),
    (("V12", "TX_TOO_LARGE"), lambda arming: replace(arming, outputs=())),
]


@pytest.mark.parametrize(("expected", "lie"), LIES)
async def test_a_leader_that_lies_about_what_is_armed_is_refused(
    pods: PodWorld, expected: tuple[str, str], lie: Callable[[Arming], Arming]
) -> None:
    assert await refusal_of(pods, lie(build(pods).arming)) == expected


async def test_a_deposit_that_was_never_armed_is_not_rejected(pods: PodWorld) -> None:
    arming = build(pods).arming
    stranger = replace(arming.outputs[0], outpoint=deposit_outpoint(9), child=ChildIndex(9))
    refusal = world_of(pods).review_rejection(RejectionSubject(replace(arming, outputs=(stranger,)))).refusal()
    assert refusal is not None
    assert {"V60", "V76"} <= set(refusal.rules)


async def test_a_header_that_names_the_armings_own_digest_is_another_session(pods: PodWorld) -> None:
    arming = build(pods).arming
    header = pods.header(W, Purpose.REJECTION, arming.digest)
    reply = await pods.commit(pods.pods[W, 0], RejectionSubject(arming), header)
    assert isinstance(reply, Refusal)
    assert reply.rule == "V04"


@pytest.mark.parametrize(("confirmations", "is_refused"), [(2, False), (3, True)])
async def test_what_another_transaction_has_for_good_is_not_rejected(
    pods: PodWorld, confirmations: int, is_refused: bool
) -> None:
    built = build(pods)
    emergency, rung = built.rungs[0]
    see_mined(pods.pods[W, 0], emergency.output.outpoint, rung.transaction, confirmations)
    header = pods.header(W, Purpose.REJECTION, compute_rejection_subject(built.arming))
    reply = await pods.commit(pods.pods[W, 0], RejectionSubject(built.arming), header)
    if is_refused:
        assert isinstance(reply, Refusal)
        assert (reply.rule, reply.reason) == ("V63", "INPUT_SPENT")
    else:
        assert isinstance(reply, CommitReply)


def see_mined(pod: MemberPod, outpoint: Outpoint, transaction: Transaction, confirmations: int) -> None:
    block = BlockHash(bytes(32))
    pod.node.gone = {outpoint}
    pod.node.transactions[transaction.txid] = TransactionStatus(
        transaction.to_bytes(), confirmations, block, BtcHeight(200), None
    )


# -------------------------------------------------------------- transfers and rejections


def test_no_digest_of_a_rejection_is_one_of_any_transfer() -> None:
    world = ArmedWorld.retiring(*VALUES)
    sweep = world.sweep()
    built = build_renewal(world.ledger, EPOCH, sorted(world.ledger.vault))
    assert not set(sweep.compute_digests()) & set(built.list_digests())


async def test_a_signed_transfer_forbids_no_rejection_and_after_it_no_transfer_is_signed(tmp_path: Path) -> None:
    world = ArmedWorld.filled()
    parent, _ = arm_deposit(world, 500_000)
    world.record(parent)
    pods = PodWorld(world, tmp_path, roles=(V, W))
    validators = await pods.sign_with(V, parent)
    await pods.sign_with(W, parent, validators=validators)
    left_open = await open_transfer(pods, parent, validators)
    world.release()
    # A session that was open before the release releases no share after it.
    reply = await pods.sign(pods.pods[W, 0], left_open)
    assert isinstance(reply, Refusal)
    assert (reply.rule, reply.reason) == ("V06", "EPOCH_CLOSED")
    built = build(pods)
    assert parent.intent.outpoints <= {item.outpoint for item in built.arming.outputs}
    assert not built.find_bad_signatures(await pods.reject(built))
    # Whatever the ledger says of that intent later: after a rejection the outpoint is never transferred.
    conflicts = pods.pods[W, 0].log.find_conflicts(
        SpendClaim.from_intent(parent.intent), freed=frozenset(world.ledger.intents)
    )
    assert {conflict.claimed for conflict in conflicts} == parent.intent.outpoints
    assert {conflict.rule for conflict in conflicts} == {"V07"}


async def open_transfer(pods: PodWorld, built: BuiltTransaction, validators: tuple[Signature, ...]) -> SignRequest:
    header = pods.header(W, Purpose.TRANSFER, built.intent.intent_id, 1)
    commitments: dict[int, bytes] = {}
    for pod in pods.group(W)[:3]:
        reply = await pods.commit(pod, pods.subject(built, validators), header)
        assert isinstance(reply, CommitReply), reply
        commitments[reply.position] = reply.nonces
    return pods.round_two(header, commitments, len(built.spends))
