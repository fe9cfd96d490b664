"""When the ledger judges a group, what a verdict ends, and what complaints and preimages need (design.md section 6)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smpc.errors import Refused
from smpc.params import REGTEST
from smpc.protocol.epoch import is_serving
from smpc.protocol.ledger_state import EpochState, IntentStatus
from smpc.protocol.verdict_records import compute_sweep_subject
from smpc.protocol.verdict_state import Cause, Misdeed, Penalty
from smpc.types import EpochNumber, Purpose, Role
from tests.support.armed_world import ArmedChain, ArmedWorld, arm_deposit
from tests.support.chain import UNSIGNED
from tests.support.groups import endorse
from tests.support.sweep_world import SweepWorld
from tests.support.verdict_chain import (
    FIRST,
    attest_without,
    complain,
    find_preimage,
    list_members,
    released_world,
    reveal,
    silence_group,
    wait_until_final,
)

ONE, TWO, THREE = EpochNumber(1), EpochNumber(2), EpochNumber(3)
V, W, E = Role.VALIDATOR, Role.WITNESS, Role.EMERGENCY


def test_a_group_of_which_too_few_are_left_is_judged_and_the_next_epoch_is_active_at_once() -> None:
    chain = ArmedWorld.filled(150_000).armed
    members = silence_group(chain, FIRST, V)
    verdict = chain.ledger.judgements.verdicts[FIRST, V]
    assert (verdict.cause, verdict.role) == (Cause.CANNOT_SIGN, V)
    assert chain.ledger.active_epoch == ONE
    assert chain.entry(0).state is EpochState.RETIRING
    assert chain.entry(0).ended == verdict.recorded == chain.entry(0).released
    assert chain.entry(0).commissions == ()
    for member in members:
        (punished,) = chain.ledger.judgements.punishments[member]
        assert (punished.penalty, punished.misdeed, punished.stake) == (Penalty.JAILED, Misdeed.SILENCE, 0)
    assert set(chain.ledger.judgements.punishments) == set(members)


@pytest.mark.parametrize(("gone", "is_judged"), [(1, False), (2, True)], ids=["t are left", "t - 1 are left"])
@pytest.mark.parametrize("role", [V, W])
def test_a_group_is_judged_when_fewer_than_t_are_good_and_not_before(role: Role, gone: int, is_judged: bool) -> None:
    chain = ArmedChain.started()
    silent = list_members(chain, 0, role)[:gone]
    wait_until_final(chain, chain.ledger.height + 2 * REGTEST.silence_blocks, silent)
    assert set(chain.ledger.judgements.punishments) == set(silent)
    assert ((FIRST, role) in chain.ledger.judgements.verdicts) is is_judged
    assert (chain.ledger.active_epoch == ONE) is is_judged


def test_a_lost_emergency_group_is_no_verdict() -> None:
    chain = ArmedChain.started()
    silent = list_members(chain, 0, E)
    wait_until_final(chain, chain.ledger.height + 2 * REGTEST.silence_blocks, silent)
    assert chain.ledger.judgements.list_good(FIRST, E) == ()
    assert not chain.ledger.judgements.verdicts
    assert chain.ledger.active_epoch == FIRST


def test_nobody_is_judged_for_silence_while_nothing_becomes_final() -> None:
    chain = ArmedChain.started()
    chain.skip(3 * REGTEST.silence_blocks)
    assert not chain.ledger.judgements.verdicts
    assert not chain.ledger.judgements.punishments


def test_a_chain_that_arms_nothing_judges_nobody() -> None:
    world = SweepWorld.filled(500_000)
    chain = world.turning
    for _ in range(14):
        height = chain.ledger.height
        while chain.ledger.final_height < height:
            chain.finalise()
    assert not chain.ledger.judgements.verdicts
    assert not chain.ledger.judgements.punishments
    assert world.chain.refusal(complain(list_members(ArmedChain.started(), 0, W)[0], V, bytes(32))) == "NO_EMERGENCY"
    assert world.chain.refusal(reveal(0, bytes(32))) == "NO_EMERGENCY"


def test_an_epoch_that_was_judged_serves_emergencies_only() -> None:
    entry = released_world(150_000).ledger.epochs[FIRST]
    served = {purpose for purpose in Purpose if is_serving(entry, purpose)}
    assert served == {Purpose.ARMING, Purpose.REJECTION, Purpose.WITHDRAWAL}


def test_an_epoch_whose_witnesses_were_judged_serves_recovery_only() -> None:
    world = ArmedWorld.filled(150_000)
    silence_group(world.armed, FIRST, W)
    entry = world.ledger.epochs[FIRST]
    served = {purpose for purpose in Purpose if is_serving(entry, purpose)}
    assert served == {Purpose.ARMING, Purpose.RECOVERY}
    assert entry.released is None
    assert entry.is_convicted


def test_neither_rejection_nor_recovery_is_served_without_its_verdict() -> None:
    entry = ArmedChain.started().entry(0)
    assert not is_serving(entry, Purpose.REJECTION)
    assert not is_serving(entry, Purpose.RECOVERY)


def test_nothing_is_recorded_of_a_judged_epoch_and_its_deposits_are_not_armed_any_more() -> None:
    world = ArmedWorld.filled(150_000)
    built, (arming,) = arm_deposit(world, 600_000)
    silence_group(world.armed, FIRST, V)
    assert world.chain.refusal(world.armed.pre_sign(arming)) == "EPOCH_JUDGED"
    assert world.chain.refusal(endorse(world.chain.epoch, built.intent, world.ledger.height)) == "EPOCH_STATE"


def test_a_deposit_that_was_armed_before_the_verdict_may_be_armed_again() -> None:
    world = ArmedWorld.filled(150_000)
    _, (arming,) = arm_deposit(world, 600_000)
    world.chain.add(world.armed.pre_sign(arming))
    silence_group(world.armed, FIRST, V)
    (deposit,) = (item.output for item in arming.emergencies if item.output.child < 0x10000000)
    (known,) = world.ledger.armings[deposit.outpoint]
    assert known.target == ONE
    assert world.ledger.judgements.list_rejectable(FIRST) == tuple(sorted({*world.ledger.vault, deposit.outpoint}))


def test_a_judged_epoch_books_nothing_any_more() -> None:
    world = ArmedWorld.filled(150_000)
    built, armings = arm_deposit(world, 600_000)
    world.chain.add(*(world.armed.pre_sign(item) for item in armings))
    intent_id = world.record(built).intent.intent_id
    silence_group(world.armed, FIRST, V)
    refused = world.armed.sign_booking(world.ledger.compute_booking(intent_id, FIRST))
    assert world.chain.refusal(refused) == "NOT_ACTIVE"
    # The transfer was signed and may be mined: the next epoch books it, and its output is armed to that epoch.
    world.chain.add(world.armed.sign_booking(world.ledger.compute_booking(intent_id)))
    assert world.ledger.intents[intent_id].status is IntentStatus.BOOKED


def test_a_forced_turn_draws_the_epoch_after_next_once_the_next_is_announced() -> None:
    chain = ArmedChain.started()
    assert list(chain.ledger.due) == [TWO]
    silence_group(chain, FIRST, V)
    assert chain.ledger.active_epoch == ONE
    assert list(chain.ledger.due) == [TWO]
    chain.announce()
    assert set(chain.ledger.epochs) == {FIRST, ONE, TWO, THREE}
    assert set(chain.entry(3).members[V]).isdisjoint(chain.entry(2).members[V])


def test_a_judged_epoch_stays_active_while_the_next_has_no_keys() -> None:
    chain = ArmedChain.started()
    silence_group(chain, FIRST, V)
    silence_group(chain, ONE, V)
    assert chain.ledger.active_epoch == ONE
    assert "epoch 2 is not standby" in chain.ledger.find_turn_hindrance()
    assert chain.refusal(chain.make_invoices(chain.make_terms(7), request_id=b"late")) == "EPOCH_JUDGED"


def test_a_standby_epoch_with_a_lost_group_is_drawn_again_without_the_jailed() -> None:
    chain = ArmedChain.started()
    lost = list_members(chain, 1, V)[:2]
    while chain.state(1) is EpochState.STANDBY:
        attest_without(chain, lost)
    assert chain.state(1) is EpochState.ABORTED
    assert chain.ledger.due[ONE].origin.jailed == tuple(sorted(lost))
    chain.announce()
    members = {member for group in chain.entry(1).members.values() for member in group}
    assert members.isdisjoint(lost)
    assert set(chain.ledger.epochs) == {FIRST, ONE, TWO}
    chain.key(1)
    assert chain.state(1) is EpochState.STANDBY


# ------------------------------------------------------------------------------------------ complaints


def overdue_world() -> tuple[ArmedWorld, bytes]:
    """Return a world with a live intent of epoch 0 whose window has been over for `silence_blocks` final blocks."""
    world = ArmedWorld.filled(150_000)
    built, armings = arm_deposit(world, 600_000)
    world.chain.add(*(world.armed.pre_sign(item) for item in armings))
    intent_id = world.record(built).intent.intent_id
    return world, intent_id


def wait_overdue(world: ArmedWorld, intent_id: bytes, blocks: int = 0) -> None:
    (recorded,) = (entry.recorded for key, entry in world.ledger.intents.items() if key == intent_id)
    world.armed.wait_acting(recorded + REGTEST.challenge_blocks, REGTEST.silence_blocks + blocks)


def test_t_members_of_w_release_what_v_leaves_undone_and_one_less_does_not() -> None:
    world, intent_id = overdue_world()
    wait_overdue(world, intent_id)
    accusers = list_members(world.armed, 0, W)
    world.chain.add(complain(accusers[0], V, intent_id), complain(accusers[1], V, intent_id))
    assert not world.ledger.judgements.verdicts
    world.chain.add(complain(accusers[2], V, intent_id))
    assert world.ledger.judgements.verdicts[FIRST, V].cause is Cause.DOES_NOT_SERVE
    assert not world.ledger.judgements.punishments
    assert world.chain.refusal(complain(accusers[3], V, intent_id)) == "JUDGED"


def test_members_of_v_complain_about_w_likewise() -> None:
    world, intent_id = overdue_world()
    wait_overdue(world, intent_id)
    world.chain.add(*(complain(accuser, W, intent_id) for accuser in list_members(world.armed, 0, V)[:3]))
    assert world.ledger.judgements.verdicts[FIRST, W].cause is Cause.DOES_NOT_SERVE
    assert world.ledger.epochs[FIRST].witness_lost is not None


def test_a_complaint_before_its_time_is_refused() -> None:
    world, intent_id = overdue_world()
    accuser = list_members(world.armed, 0, W)[0]
    assert world.chain.refusal(complain(accuser, V, intent_id)) == "NOT_OVERDUE"
    wait_overdue(world, intent_id)
    world.chain.add(complain(accuser, V, intent_id))


def test_a_complaint_that_lies_is_refused() -> None:
    world, intent_id = overdue_world()
    wait_overdue(world, intent_id)
    accusers, accused = list_members(world.armed, 0, W), list_members(world.armed, 0, V)
    good = complain(accusers[0], V, intent_id)
    assert world.chain.refusal(complain(accused[0], V, intent_id)) == "NOT_A_MEMBER"
    assert world.chain.refusal(complain(accusers[0], W, intent_id)) == "NOT_A_MEMBER"
    assert world.chain.refusal(complain(accusers[0], E, intent_id)) == "EPOCH_STATE"
    assert world.chain.refusal(complain(accusers[0], V, bytes(32))) == "NOTHING_DUE"
    assert world.chain.refusal(complain(accusers[0], V, compute_sweep_subject(FIRST))) == "NOTHING_DUE"
    assert world.chain.refusal(complain(accusers[0], V, intent_id, epoch=5)) == "EPOCH_STATE"
    assert world.chain.refusal(replace(good, signature=UNSIGNED)) == "BAD_SIGNATURE"
    assert world.chain.refusal(replace(good, accuser=accusers[1])) == "BAD_SIGNATURE"
    world.chain.add(good)
    assert world.chain.refusal(good) == "ALREADY_RECORDED"


def test_a_booked_intent_is_nothing_to_complain_about() -> None:
    world, intent_id = overdue_world()
    wait_overdue(world, intent_id)
    world.chain.add(world.armed.sign_booking(world.ledger.compute_booking(intent_id)))  # type: ignore[arg-type]
    assert world.chain.refusal(complain(list_members(world.armed, 0, W)[0], V, intent_id)) == "NOTHING_DUE"


def test_a_due_sweep_without_a_record_is_something_to_complain_about() -> None:
    world = ArmedWorld.retiring(150_000)
    subject = compute_sweep_subject(FIRST)
    accusers = list_members(world.armed, 0, W)
    assert world.chain.refusal(complain(accusers[0], V, subject)) == "NOT_OVERDUE"
    ended = world.ledger.epochs[FIRST].ended
    assert ended is not None
    world.armed.wait_acting(ended, REGTEST.silence_blocks)
    world.chain.add(*(complain(accuser, V, subject) for accuser in accusers[:3]))
    assert world.ledger.judgements.verdicts[FIRST, V].cause is Cause.DOES_NOT_SERVE


# ------------------------------------------------------------------------------------------ preimages


def test_the_preimage_is_taken_once_the_release_is_final_and_not_before() -> None:
    chain = ArmedChain.started()
    preimage = find_preimage(chain, 0)
    assert chain.refusal(reveal(0, preimage)) == "NOT_RELEASED"
    silent = silence_group(chain, FIRST, V)
    assert not chain.ledger.judgements.is_final(FIRST, V)
    assert chain.refusal(reveal(0, preimage)) == "NOT_RELEASED"
    wait_until_final(chain, chain.ledger.judgements.verdicts[FIRST, V].recorded, silent)
    assert chain.refusal(reveal(0, bytes(32))) == "WRONG_PREIMAGE"
    assert chain.refusal(reveal(1, find_preimage(chain, 1))) == "NOT_RELEASED"
    chain.add(reveal(0, preimage))
    assert chain.ledger.judgements.preimages[FIRST].preimage == preimage


def test_a_verdict_on_w_reveals_nothing() -> None:
    chain = ArmedChain.started()
    silent = silence_group(chain, FIRST, W)
    wait_until_final(chain, chain.ledger.height, silent)
    assert chain.refusal(reveal(0, find_preimage(chain, 0))) == "NOT_RELEASED"


def test_what_a_judged_epoch_was_the_target_of_must_be_armed_again() -> None:
    world = ArmedWorld.retiring(150_000)
    assert world.ledger.compute_coverage().is_full
    silence_group(world.armed, ONE, V)
    (unarmed,) = world.ledger.list_unarmed()
    assert (unarmed.epoch, unarmed.fault) == (FIRST, "target_convicted")
    assert world.ledger.active_epoch == TWO
    world.armed.renew(FIRST, [unarmed.outpoint])
    assert world.ledger.compute_coverage().is_full


def test_nothing_is_armed_to_a_judged_epoch_that_has_no_successor_yet() -> None:
    world = ArmedWorld.retiring(150_000)
    silence_group(world.armed, ONE, V)
    silence_group(world.armed, TWO, V)
    (unarmed,) = world.ledger.list_unarmed()
    with pytest.raises(Refused) as refused:
        world.armed.renew(FIRST, [unarmed.outpoint])
    assert refused.value.code == "NO_TARGET"
