"""Signing rounds over real pods in memory: who is slow, silent or hostile costs no more than its own absence."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.attendance import Progress
from coordinator.signing_job import build_booking_job, build_spend_job
from coordinator.signing_round import run_signing_round
from smpc.protocol.envelope import is_signed
from smpc.protocol.pod_messages import Refusal, Reply, SignReply
from smpc.types import Role
from tests.support.groups import EPOCH
from tests.support.pod_network import (
    Behaviour,
    deaf_after,
    find_identity,
    late,
    lying,
    refusing,
    silent,
    slow,
    unreachable,
)
from tests.support.round_stage import CALM, QUICK, SHORT, RoundStage
from tests.support.virtual_loop import in_virtual_time


@pytest.fixture
def stage(tmp_path: Path) -> RoundStage:
    return RoundStage(tmp_path)


@in_virtual_time
async def test_a_healthy_group_signs_a_whole_transaction_in_two_questions_to_a_signer(stage: RoundStage) -> None:
    outcome = await run_signing_round(stage.voice, stage.job(), policy=CALM)
    assert outcome.is_signed, outcome.describe()
    assert stage.built.find_bad_signatures(Role.VALIDATOR, outcome.require_signatures()) == ()
    assert stage.network.asked["Sign"] == 3
    assert stage.network.asked["Commit"] <= 4
    assert set(stage.network.asked) == {"Commit", "Sign"}


@in_virtual_time
async def test_witnesses_sign_only_what_the_validators_signed(stage: RoundStage) -> None:
    info = stage.pods.world.ledger.epochs[EPOCH].groups[Role.WITNESS]
    alone = await run_signing_round(stage.voice, stage.job(Role.WITNESS), policy=CALM)
    assert not alone.is_signed
    assert alone.reason == "TOO_FEW_MEMBERS"
    assert len(alone.declined) >= 2
    validators = (await run_signing_round(stage.voice, stage.job(), policy=CALM)).require_signatures()
    outcome = await run_signing_round(stage.voice, build_spend_job(info, stage.built, validators), policy=CALM)
    complete = stage.built.complete(validators, outcome.require_signatures())
    assert complete.txid == stage.built.intent.txid


@in_virtual_time
async def test_a_pod_that_is_down_costs_nothing(stage: RoundStage) -> None:
    stage.let(1, unreachable())
    outcome = await run_signing_round(stage.voice, stage.job(), policy=CALM)
    assert outcome.is_signed
    assert outcome.sessions == 1
    assert outcome.millis == 0


@in_virtual_time
async def test_a_pod_that_never_answers_costs_nothing(stage: RoundStage) -> None:
    stage.let(0, silent())
    outcome = await run_signing_round(stage.voice, stage.job(), policy=CALM)
    assert outcome.is_signed
    assert outcome.sessions == 1


@in_virtual_time
async def test_a_slow_pod_is_not_waited_for(stage: RoundStage) -> None:
    stage.let(2, slow(20))
    outcome = await run_signing_round(stage.voice, stage.job(), policy=CALM)
    assert outcome.is_signed
    assert outcome.millis == 0


@pytest.mark.parametrize(
    "way", [silent("Sign"), unreachable("Sign"), deaf_after("Sign")], ids=["silent", "down", "its answer is lost"]
)
@in_virtual_time
async def test_a_pod_that_commits_and_then_vanishes_costs_one_more_session(stage: RoundStage, way: Behaviour) -> None:
    stage.let(0, way)
    stage.let(3, late(stage.network.signing, "Commit"))
    outcome = await run_signing_round(stage.voice, stage.job(), policy=QUICK)
    assert outcome.is_signed, outcome.describe()
    assert outcome.sessions == 2
    assert outcome.millis <= 1_000 * QUICK.hedge
    assert outcome.culprits == ()


@pytest.mark.parametrize("way", [silent("Commit"), deaf_after("Commit"), silent("Sign"), deaf_after("Sign")])
@in_virtual_time
async def test_a_pod_cut_off_at_any_point_is_used_again_in_the_first_round_after_it_is_back(
    stage: RoundStage, way: Behaviour
) -> None:
    """Cut before or after either round, then healed: no stale share or nonce gets into the next round (G8)."""
    stage.let(0, way)
    assert (await run_signing_round(stage.voice, stage.job(), policy=QUICK)).is_signed
    stage.network.ways.clear()
    stage.let(1, unreachable())
    healed = await run_signing_round(stage.voice, stage.job(), policy=CALM)
    assert healed.is_signed, healed.describe()
    assert healed.sessions == 1
    assert healed.culprits == ()


@in_virtual_time
async def test_one_pod_more_than_may_be_silent_ends_the_round_by_its_deadline_and_is_named(stage: RoundStage) -> None:
    stage.let(1, silent())
    stage.let(3, silent())
    outcome = await run_signing_round(stage.voice, stage.job(), policy=SHORT)
    assert not outcome.is_signed
    assert outcome.reason == "DEADLINE"
    assert {each.seat.position for each in outcome.lost} == {1, 3}
    assert outcome.millis == SHORT.deadline * 1_000


@in_virtual_time
async def test_one_pod_more_than_may_be_down_ends_the_round_at_once(stage: RoundStage) -> None:
    stage.let(1, unreachable())
    stage.let(3, unreachable())
    outcome = await run_signing_round(stage.voice, stage.job(), policy=CALM)
    assert outcome.reason == "TOO_FEW_MEMBERS"
    assert outcome.millis == 0
    assert "missing (UNAVAILABLE)" in outcome.describe()


@pytest.mark.parametrize(
    "shares",
    [bytes(64), b"\xff" * 64, b"\x01" * 63, b""],
    ids=["zero", "not below the order", "one byte short", "none"],
)
@in_virtual_time
async def test_a_wrong_share_names_its_author_and_the_round_goes_on_without_it(
    stage: RoundStage, shares: bytes
) -> None:
    stage.lie(0, "Sign", shares=shares)
    stage.let(3, late(stage.network.signing, "Commit"))
    outcome = await run_signing_round(stage.voice, stage.job(), policy=CALM)
    assert outcome.is_signed, outcome.describe()
    assert outcome.sessions == 2
    assert [(each.seat.position, each.code) for each in outcome.culprits] == [(0, "INVALID_SHARE")]


@in_virtual_time
async def test_a_group_that_lies_as_one_is_named_whole_by_what_its_own_answers_say(stage: RoundStage) -> None:
    for position in range(4):
        stage.lie(position, "Sign", shares=b"\x01" * 64)
    outcome = await run_signing_round(stage.voice, stage.job(), policy=CALM)
    assert not outcome.is_signed
    assert len(outcome.culprits) >= 3
    assert {each.code for each in outcome.culprits} == {"INVALID_SHARE"}


@in_virtual_time
async def test_nobody_is_named_when_all_shares_fail_against_what_their_answers_do_not_name(stage: RoundStage) -> None:
    for position in range(4):
        stage.lie(position, "Sign", shares=b"\x01" * 64, answered=bytes(32))
    outcome = await run_signing_round(stage.voice, stage.job(), policy=CALM)
    assert outcome.reason == "INTERNAL"
    assert outcome.culprits == ()


@in_virtual_time
async def test_a_culprit_is_shown_with_everything_that_was_signed_in_the_session(stage: RoundStage) -> None:
    stage.lie(0, "Sign", shares=bytes(64))
    stage.let(3, late(stage.network.signing, "Commit"))
    (culprit,) = (await run_signing_round(stage.voice, stage.job(), policy=CALM)).culprits
    assert [each.method for each in culprit.transcript] == [
        "Commit/request",
        "Commit/reply",
        "Sign/request",
        "Sign/reply",
    ]
    assert all(is_signed(each.envelope, each.method) for each in culprit.transcript)
    assert len({each.envelope.session_id for each in culprit.transcript}) == 1


@pytest.mark.parametrize(
    "nonces", [b"", bytes(259), b"\x04" + bytes(259)], ids=["none", "one byte short", "no curve point"]
)
@in_virtual_time
async def test_malformed_nonces_name_their_author_and_the_round_goes_on_without_them(
    stage: RoundStage, nonces: bytes
) -> None:
    stage.lie(1, "Commit", nonces=nonces)
    for other in (0, 2, 3):
        stage.let(other, late(stage.answered(1, "Commit"), "Commit"))
    outcome = await run_signing_round(stage.voice, stage.job(), policy=CALM)
    assert outcome.is_signed, outcome.describe()
    assert [(each.seat.position, each.code) for each in outcome.culprits] == [(1, "INVALID_NONCE")]


@in_virtual_time
async def test_a_pod_that_speaks_for_another_is_caught(stage: RoundStage) -> None:
    stage.lie(2, "Commit", position=1)
    for other in (0, 1, 3):
        stage.let(other, late(stage.answered(2, "Commit"), "Commit"))
    outcome = await run_signing_round(stage.voice, stage.job(), policy=CALM)
    assert outcome.is_signed
    assert [each.seat.position for each in outcome.culprits] == [2]


@in_virtual_time
async def test_an_answer_signed_with_another_key_is_no_answer(stage: RoundStage) -> None:
    stranger = stage.pods.world.chain.epoch.groups[Role.VALIDATOR].host_secrets[1]
    stage.let(0, lying(stranger, {"Commit"}, lambda reply: reply))
    for other in (1, 2, 3):
        stage.let(other, late(stage.answered(0, "Commit"), "Commit"))
    outcome = await run_signing_round(stage.voice, stage.job(), policy=CALM)
    assert outcome.is_signed
    assert [(each.seat.position, each.code) for each in outcome.lost] == [(0, "WRONG_SESSION")]
    assert outcome.culprits == ()


@in_virtual_time
async def test_the_inputs_that_succeeded_are_kept_when_a_share_is_wrong(stage: RoundStage) -> None:
    """The liar spoils the second input only; every later session has to sign that one alone."""
    secret = stage.pods.world.chain.epoch.groups[Role.VALIDATOR].host_secrets[0]

    def alter(reply: Reply) -> Reply:
        assert isinstance(reply, SignReply)
        return replace(reply, shares=reply.shares[:32] + bytes(32))

    stage.let(0, lying(secret, {"Sign"}, alter))
    stage.let(2, silent("Sign"))
    stage.let(3, late(stage.network.signing, "Commit"))
    outcome = await run_signing_round(stage.voice, stage.job(), policy=SHORT)
    assert not outcome.is_signed
    stage.let(2, slow(0.05, "Sign"))
    stage.let(3, silent())
    outcome = await run_signing_round(stage.voice, stage.job(), policy=SHORT)
    assert outcome.signatures[0] is not None
    assert outcome.signatures[1] is None
    assert [each.seat.position for each in outcome.culprits] == [0]


@in_virtual_time
async def test_refusals_are_told_with_their_rules(stage: RoundStage) -> None:
    refusal = Refusal("V05", ("V05",), "PAUSED", "transfers are paused here")
    stage.let(0, refusing(refusal, "Commit", after=[stage.answered(at, "Commit") for at in (2, 3)]))
    stage.let(1, refusing(refusal, "Commit"))
    outcome = await run_signing_round(stage.voice, stage.job(), policy=CALM)
    assert outcome.reason == "TOO_FEW_MEMBERS"
    await asyncio.sleep(0.05)
    assert stage.network.asked["Abort"] == 2, "who committed in vain may forget its nonces"
    assert {(each.seat.position, each.refusal.rule) for each in outcome.declined} == {(0, "V05"), (1, "V05")}
    assert "refused (V05 PAUSED)" in outcome.describe()


@in_virtual_time
async def test_a_round_begun_again_in_the_same_slot_opens_new_sessions(stage: RoundStage) -> None:
    first = await run_signing_round(stage.voice, stage.job(), policy=CALM)
    second = await run_signing_round(stage.voice, stage.job(), policy=CALM)
    assert first.is_signed
    assert second.is_signed
    assert first.signatures != second.signatures


@in_virtual_time
async def test_the_watcher_hears_who_has_committed_and_who_is_missing(stage: RoundStage) -> None:
    stage.let(1, silent())
    heard: list[Progress] = []
    await run_signing_round(stage.voice, stage.job(), policy=CALM, watch=heard.append)
    name = find_identity(stage.pods, Role.VALIDATOR, 1)
    last = [each for each in heard if each.verb == "committed"][-1]
    assert (last.done, last.needed, last.size, last.missing) == (3, 3, 4, (name,))
    text = last.describe(lambda identity: "pod-07" if identity == name else "another")
    assert text == "signing validator: 3/4 committed (3 needed), missing pod-07"


@in_virtual_time
async def test_a_cancelled_round_leaves_no_question_running(stage: RoundStage) -> None:
    before = len(asyncio.all_tasks())
    stage.let(0, silent())
    stage.let(1, silent())
    running = asyncio.create_task(run_signing_round(stage.voice, stage.job(), policy=SHORT))
    await asyncio.sleep(0.1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(asyncio.all_tasks()) == before


@in_virtual_time
async def test_a_named_set_of_signers_signs_alone(stage: RoundStage) -> None:
    outcome = await run_signing_round(stage.voice, stage.job(signers=frozenset({1, 2, 3})), policy=CALM)
    assert outcome.is_signed
    assert stage.network.asked == {"Commit": 3, "Sign": 3}


@in_virtual_time
async def test_a_named_set_that_lacks_a_member_fails_and_names_only_that_member(stage: RoundStage) -> None:
    stage.let(1, unreachable())
    outcome = await run_signing_round(stage.voice, stage.job(signers=frozenset({1, 2, 3})), policy=CALM)
    assert not outcome.is_signed
    assert [each.seat.position for each in outcome.lost if each.code == "UNAVAILABLE"] == [1]
    assert 0 not in {each.seat.position for each in outcome.lost}


@in_virtual_time
async def test_a_booking_is_signed_by_the_group_key_itself(stage: RoundStage) -> None:
    ledger = stage.pods.world.ledger
    info = ledger.epochs[EPOCH].groups[Role.VALIDATOR]
    booking = ledger.compute_booking(stage.built.intent.intent_id)
    job = build_booking_job(info, booking)
    assert job.tasks[0].message == booking.digest
    assert job.tasks[0].key.plain_key == info.group_key
