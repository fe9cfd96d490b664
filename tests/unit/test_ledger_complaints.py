"""Complaints about bad service: who may bring them, about what and when, and how many make a verdict."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smpc.params import REGTEST
from smpc.protocol.intents import IntentKind
from smpc.protocol.ledger_events import VerdictReached
from smpc.protocol.ledger_state import IntentStatus
from smpc.protocol.service import list_overdue
from smpc.protocol.verdict_records import ServiceComplaint, compute_sweep_subject
from smpc.protocol.verdict_state import Cause
from smpc.types import EpochNumber, IdentityKey, IntentId, KaonHeight, Network, Role
from tests.support.armed_world import ArmedWorld, arm_deposit
from tests.support.chain import UNSIGNED, make_intent
from tests.support.groups import sign
from tests.support.turning_chain import TurningChain, list_identities, list_secrets

V, W, E = Role.VALIDATOR, Role.WITNESS, Role.EMERGENCY
ZERO, ONE = EpochNumber(0), EpochNumber(1)
OTHER = {V: W, W: V, E: V}
WAIT = REGTEST.challenge_blocks + REGTEST.silence_blocks


def complain(
    chain: TurningChain,
    subject: bytes,
    position: int = 0,
    *,
    role: Role = V,
    epoch: EpochNumber = ZERO,
    accuser: IdentityKey | None = None,
) -> ServiceComplaint:
    """Return the signed complaint of a member of the other group about an intent or a sweep of epoch 0."""
    who = chain.entry(epoch).groups[OTHER[role]].members[position] if accuser is None else accuser
    record = ServiceComplaint(Network.REGTEST, epoch, role, subject, who, UNSIGNED)
    secret = list_secrets()[list_identities().index(who)]
    return replace(record, signature=sign(secret, record.digest))


def recorded_at(remainder: int) -> tuple[ArmedWorld, IntentId]:
    """Return a world with an intent in a block of this height modulo four: finality comes in fours."""
    world = ArmedWorld.filled()
    built, armings = arm_deposit(world, 500_000)
    world.chain.add(*(world.armed.pre_sign(item) for item in armings))
    while (world.ledger.height + 1) % 4 != remainder:
        world.chain.add()
    intent_id = super(type(world.armed), world.armed).record(built.intent)
    assert world.ledger.intents[intent_id].recorded % 4 == remainder
    return world, intent_id


def overdue() -> tuple[ArmedWorld, IntentId]:
    """Return a world with an intent that may be called undone."""
    world, intent = recorded_at((-WAIT) % 4)
    world.turning.finalise_to(world.ledger.intents[intent].recorded + WAIT)
    return world, intent


def test_an_intent_may_be_called_undone_when_its_silence_is_final_and_not_one_block_before() -> None:
    early, intent = recorded_at((-WAIT + 1) % 4)
    due = early.ledger.intents[intent].recorded + WAIT
    early.turning.finalise_to(due - 1 - 8)
    while early.ledger.final_height < due - 1:
        finalise_four(early.turning)
    assert early.ledger.final_height == due - 1
    assert early.chain.refusal(complain(early.turning, intent)) == "NOT_OVERDUE"
    late, intent = recorded_at((-WAIT) % 4)
    due = late.ledger.intents[intent].recorded + WAIT
    late.turning.finalise_to(due - 8)
    while late.ledger.final_height < due:
        finalise_four(late.turning, late=10)
    assert late.ledger.final_height == due
    late.chain.add(complain(late.turning, intent))


def test_after_a_stall_a_group_has_its_whole_silence_from_the_block_in_which_it_could_act() -> None:
    world, intent = recorded_at(0)
    chain, since = world.turning, KaonHeight(world.ledger.intents[intent].recorded + REGTEST.challenge_blocks)
    while world.ledger.height < since + 2 * REGTEST.silence_blocks:
        chain.pulse()  # everybody is there, and nothing becomes final
    chain.finalise()
    assert world.ledger.final_height >= since + WAIT
    assert world.chain.refusal(complain(chain, intent)) == "NOT_OVERDUE"
    assert not list_overdue(world.ledger, chain.entry(0).groups[W].members[0])
    chain.wait_almost(since, REGTEST.silence_blocks - 1)
    assert world.chain.refusal(complain(chain, intent)) == "NOT_OVERDUE"
    chain.add()
    world.chain.add(complain(chain, intent))


def test_an_intent_that_is_live_again_has_its_silence_again() -> None:
    world, intent = overdue()
    chain, older = world.armed, world.ledger.intents[intent].intent
    bump = make_intent(IntentKind.TRANSFER, older.inputs, (), fee=older.fee + 5_000, outputs=1, replaces=(intent,))
    newer = chain.record(bump)
    assert chain.refusal(complain(chain, intent)) == "NOTHING_DUE"
    root = world.ledger.compute_state_root()
    chain.add(chain.make_withdrawal(newer))
    since, accuser = chain.ledger.height, chain.entry(0).groups[W].members[0]
    assert (world.ledger.intents[intent].status, world.ledger.intents[intent].resumed) == (IntentStatus.LIVE, since)
    assert world.ledger.compute_state_root() != root
    assert chain.refusal(complain(chain, intent)) == "NOT_OVERDUE"
    assert not [item for item in list_overdue(world.ledger, accuser) if item.subject == intent]
    chain.wait_acting(since, REGTEST.silence_blocks)
    assert [item.since for item in list_overdue(world.ledger, accuser) if item.subject == intent] == [since]
    chain.add(complain(chain, intent))


def test_a_second_stall_counts_against_nobody_either() -> None:
    world, intent = recorded_at(0)
    chain, since = world.turning, KaonHeight(world.ledger.intents[intent].recorded + REGTEST.challenge_blocks)
    chain.finalise_to(since)
    before = world.ledger.count_acting(since)
    while world.ledger.height < since + 2 * WAIT:
        chain.pulse()
    chain.finalise()
    assert world.ledger.final_height >= since + WAIT
    assert world.ledger.count_acting(since) <= before + REGTEST.endorsement_blocks + 4
    assert world.chain.refusal(complain(chain, intent)) == "NOT_OVERDUE"


def test_a_sweep_that_could_not_be_recorded_while_nothing_became_final_is_not_overdue_when_that_ends() -> None:
    world = ArmedWorld.retiring(500_000)
    chain, ended = world.turning, world.ledger.epochs[ZERO].ended
    assert ended is not None
    while world.ledger.height < ended + 2 * WAIT:
        chain.pulse()
    chain.finalise()
    assert world.ledger.final_height >= ended + REGTEST.silence_blocks
    assert world.chain.refusal(complain(chain, compute_sweep_subject(ZERO))) == "NOT_OVERDUE"
    assert not list_overdue(world.ledger, chain.entry(0).groups[W].members[0])
    chain.wait_acting(ended, REGTEST.silence_blocks)
    assert list_overdue(world.ledger, chain.entry(0).groups[W].members[0])
    world.chain.add(complain(chain, compute_sweep_subject(ZERO)))


def finalise_four(chain: TurningChain, *, late: int = 0) -> None:
    """Make the next checkpoint final, and no more, so many blocks later than can be."""
    wanted = chain.ledger.final_height + 8
    while chain.ledger.height < wanted + late:
        chain.add()
    chain.vote(wanted)


@pytest.mark.parametrize("role", [V, W])
def test_t_members_of_the_other_group_make_a_verdict_and_one_less_do_not(role: Role) -> None:
    world, intent = overdue()
    threshold = world.ledger.epochs[ZERO].groups[OTHER[role]].threshold
    for position in range(threshold - 1):
        world.chain.add(complain(world.turning, intent, position, role=role))
    assert not world.ledger.judgements.verdicts
    events = world.chain.add(complain(world.turning, intent, threshold - 1, role=role))
    assert VerdictReached(ZERO, role) in events
    verdict = world.ledger.judgements.verdicts[ZERO, role]
    assert verdict.cause is Cause.DOES_NOT_SERVE
    assert intent.hex() in verdict.detail
    assert not world.ledger.judgements.punishments, "bad service alone punishes nobody"
    assert world.chain.refusal(complain(world.turning, intent, threshold, role=role)) == "JUDGED"


def test_complaints_about_different_things_do_not_add_up() -> None:
    world, intent = overdue()
    world.chain.add(complain(world.turning, intent, 0), complain(world.turning, intent, 1))
    built, armings = arm_deposit(world, 600_000)
    world.chain.add(*(world.armed.pre_sign(item) for item in armings))
    other = super(type(world.armed), world.armed).record(built.intent)
    world.turning.finalise_to(world.ledger.height + WAIT)
    world.chain.add(complain(world.turning, other, 2), complain(world.turning, other, 3))
    assert not world.ledger.judgements.verdicts
    world.chain.add(complain(world.turning, other, 0))
    assert (ZERO, V) in world.ledger.judgements.verdicts


def test_only_members_of_the_other_group_complain_once_and_sign_it_themselves() -> None:
    world, intent = overdue()
    chain = world.turning
    own = chain.entry(0).groups[V].members[0]
    third = chain.entry(0).groups[E].members[0]
    stranger = next(
        key for key in list_identities() if all(key not in group.members for group in chain.entry(0).groups.values())
    )
    for accuser in (own, third, stranger):
        assert chain.refusal(complain(chain, intent, accuser=accuser)) == "NOT_A_MEMBER"
    assert chain.refusal(complain(chain, intent, role=E)) == "EPOCH_STATE"
    assert chain.refusal(complain(chain, intent, epoch=ONE)) == "EPOCH_STATE"
    good = complain(chain, intent, 0)
    assert chain.refusal(replace(good, signature=complain(chain, intent, 1).signature)) == "BAD_SIGNATURE"
    assert chain.refusal(replace(good, network=Network.MAINNET)) == "WRONG_NETWORK"
    chain.add(good)
    assert chain.refusal(good) == "ALREADY_RECORDED"
    assert chain.ledger.judgements.complaints[ZERO, V, intent] == frozenset({good.accuser})


def test_who_is_jailed_judges_nobody() -> None:
    world, intent = recorded_at((-WAIT) % 4)
    chain = world.turning
    jailed = chain.entry(0).groups[W].members[0]
    chain.finalise_to(world.ledger.intents[intent].recorded + WAIT, silent=[list_identities().index(jailed)])
    chain.add()
    assert jailed not in chain.ledger.stakes
    assert chain.refusal(complain(chain, intent, 0)) == "JAILED"
    assert not list_overdue(chain.ledger, jailed)
    assert list_overdue(chain.ledger, chain.entry(0).groups[W].members[1])
    chain.add(complain(chain, intent, 1))


def test_there_is_nothing_to_complain_about_once_the_intent_is_booked_or_was_never_recorded() -> None:
    world, intent = overdue()
    chain = world.turning
    assert chain.refusal(complain(chain, bytes(32))) == "NOTHING_DUE"
    chain.book(intent)
    assert chain.refusal(complain(chain, intent)) == "NOTHING_DUE"


def test_another_epochs_intent_is_nothing_of_this_ones() -> None:
    world, intent = overdue()
    world.turn()
    chain = world.turning
    accuser = chain.entry(ONE).groups[W].members[0]
    assert chain.refusal(complain(chain, intent, epoch=ONE, accuser=accuser)) == "NOTHING_DUE"
    chain.add(complain(chain, intent))


def test_a_sweep_is_due_only_while_the_epoch_retires_with_value_that_nothing_spends() -> None:
    active = ArmedWorld.filled(500_000)
    subject = compute_sweep_subject(ZERO)
    active.turning.finalise_to(active.ledger.height + WAIT)
    assert active.chain.refusal(complain(active.turning, subject)) == "NOTHING_DUE"
    active.turn()
    ended = active.ledger.epochs[ZERO].ended
    assert ended is not None
    assert active.chain.refusal(complain(active.turning, subject)) == "NOT_OVERDUE"
    active.turning.wait_acting(ended, REGTEST.silence_blocks)
    assert active.chain.refusal(complain(active.turning, compute_sweep_subject(ONE))) == "NOTHING_DUE"
    for position in range(3):
        active.chain.add(complain(active.turning, subject, position))
    assert active.ledger.judgements.verdicts[ZERO, V].cause is Cause.DOES_NOT_SERVE


def test_a_recorded_sweep_is_no_missing_one() -> None:
    world = ArmedWorld.retiring(500_000)
    chain = world.armed
    chain.finalise_to(chain.ledger.height + WAIT)
    chain.record(chain.make_sweep(0))
    assert chain.refusal(complain(chain, compute_sweep_subject(ZERO))) == "NOTHING_DUE"


def test_what_a_verdict_on_one_group_forbids_is_not_the_others_fault() -> None:
    world, intent = overdue()
    chain = world.turning
    world.ledger.check_record(complain(chain, intent, 0, role=W))
    chain.add(*(complain(chain, intent, position) for position in range(3)))
    assert world.ledger.epochs[ZERO].released is not None
    assert chain.refusal(complain(chain, intent, 0, role=W)) == "NOTHING_DUE"


def test_nobody_owes_the_sweep_of_a_released_epoch() -> None:
    world = ArmedWorld.retiring(500_000)
    chain = world.armed
    chain.finalise_to(chain.ledger.height + WAIT)
    subject = compute_sweep_subject(ZERO)
    world.ledger.check_record(complain(chain, subject, 0, role=W))
    chain.add(*(complain(chain, subject, position) for position in range(3)))
    assert chain.refusal(complain(chain, subject, 0, role=W)) == "NOTHING_DUE"


def test_a_chain_that_arms_nothing_takes_no_complaint() -> None:
    chain = TurningChain.started()
    assert chain.refusal(complain(chain, bytes(32))) == "NO_EMERGENCY"
