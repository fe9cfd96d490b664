"""Recoveries on the ledger: only where W was judged, V and E agree, everything to the active epoch, to the satoshi."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pegin.model import BuiltTransaction
from smpc.params import REGTEST
from smpc.protocol.codec import decode, encode
from smpc.protocol.intents import Commission, Endorsement, Intent, Payment
from smpc.protocol.ledger_state import BurnStatus, EpochState, IntentStatus
from smpc.protocol.records import IntentRecorded
from smpc.protocol.verdict_records import compute_sweep_subject
from smpc.types import EpochNumber, Outpoint, Role, Sats, Txid
from tests.support.chain import destination, with_own_txid
from tests.support.groups import EPOCH, endorse
from tests.support.recovery_world import RecoveryWorld
from tests.support.sweep_world import SweepWorld
from tests.support.verdict_chain import complain


@pytest.fixture
def world() -> RecoveryWorld:
    """Give an epoch 0 with four outputs whose W is gone, and an active epoch 1."""
    return RecoveryWorld.judged(1_000_000, 300_000)


def offer(world: RecoveryWorld, intent: Intent) -> str:
    """Arm what an intent creates and return the code with which it is refused."""
    return world.turning.refusal(world.propose(intent))


def changed(intent: Intent, **parts: object) -> Intent:
    """Return the intent with some parts changed and its money still adding up at the first vault output."""
    other = replace(intent, **parts)  # type: ignore[arg-type]
    paid = sum(item.amount for item in other.payments) + sum(item.amount for item in other.commissions) + other.fee
    rest = sum(item.value for item in other.inputs) - paid - sum(other.vault_outputs[1:])
    return with_own_txid(replace(other, vault_outputs=(Sats(rest), *other.vault_outputs[1:])))


# ------------------------------------------------------------------ what a recovery does


def test_a_recovery_moves_everything_to_the_active_epoch_and_the_reserve_pays_the_fee(world: RecoveryWorld) -> None:
    ledger, built = world.ledger, world.recover()
    held, supply, reserve = ledger.vault_total, ledger.supply, ledger.reserve
    world.record(built)
    booking = ledger.compute_booking(built.intent.intent_id)
    assert (booking.credits, booking.settled) == ((), ())
    assert booking.vault_spent == world.held
    assert (booking.reserve_gain, booking.reserve_loss) == (0, built.intent.fee)
    world.mine(built)
    assert ledger.epoch_value == {EpochNumber(1): held - built.intent.fee}
    assert (ledger.supply, ledger.reserve) == (supply, reserve - built.intent.fee)
    assert ledger.money.is_balanced
    assert ledger.intents[built.intent.intent_id].status is IntentStatus.BOOKED
    assert ledger.intents[built.intent.intent_id].endorsers.keys() == {Role.VALIDATOR, Role.EMERGENCY}


def test_an_emptied_epoch_parks_as_any_other(world: RecoveryWorld) -> None:
    built = world.record(world.recover())
    world.turning.pulse(world.tip + 20)
    assert world.turning.state(0) is EpochState.RETIRING
    world.mine(built)
    world.turning.pulse(world.tip + 20)
    assert world.turning.state(0) is EpochState.PARKED


def test_a_recovery_and_its_record_survive_their_bytes(world: RecoveryWorld) -> None:
    record = world.propose(world.recover().intent)
    assert decode(IntentRecorded, encode(record)) == record


# ------------------------------------------------------------------ what it is refused for


def test_nothing_is_recovered_while_w_serves() -> None:
    world = RecoveryWorld.filled(1_000_000)
    world.turn()
    assert offer(world, world.recover().intent) == "EPOCH_STATE"


def test_after_the_verdict_nothing_else_is_recorded(world: RecoveryWorld) -> None:
    sweep = SweepWorld.sweep(world)
    assert offer(world, sweep.intent) == "EPOCH_STATE"


Lie = Callable[[RecoveryWorld, Intent], Intent]

LIES: dict[str, tuple[Lie, str]] = {
    "a payment": (
        lambda world, intent: changed(
            intent, payments=(Payment(world.burn(50_000), Sats(50_000), destination("alice")),)
        ),
        "PAYS_SOMEBODY",
    ),
    "a commission": (
        lambda world, intent: changed(
            intent,
            commissions=(Commission(world.ledger.genesis.validators[0].identity, Sats(1_000), destination("m")),),
        ),
        "NOT_A_SWEEP",
    ),
    "a notarisation": (
        lambda world, intent: changed(intent, op_return=world.ledger.find_op_return(EPOCH, EpochNumber(1))),
        "NOT_A_SWEEP",
    ),
    "an output that is not booked": (
        lambda _world, intent: changed(
            intent, inputs=(replace(intent.inputs[0], outpoint=Outpoint(Txid(b"\x07" * 32), 0)), *intent.inputs[1:])
        ),
        "NOT_BOOKED",
    ),
    "an input of another value": (
        lambda _world, intent: changed(
            intent, inputs=(replace(intent.inputs[0], value=Sats(intent.inputs[0].value + 1)), *intent.inputs[1:])
        ),
        "WRONG_INPUT",
    ),
    "a satoshi more than came in": (
        lambda _world, intent: with_own_txid(replace(intent, fee=Sats(intent.fee + 1))),
        "NOT_CONSERVED",
    ),
    "the standby epoch": (
        lambda _world, intent: changed(intent, target_epoch=EpochNumber(2)),
        "TARGET_NOT_ACTIVE",
    ),
    "the epoch to be emptied": (lambda _world, intent: changed(intent, target_epoch=EPOCH), "TARGET_JUDGED"),
}


@pytest.mark.parametrize("lie", LIES)
def test_refuses_a_recovery_with(world: RecoveryWorld, lie: str) -> None:
    change, code = LIES[lie]
    intent = change(world, world.recover().intent)
    assert world.turning.refusal(endorse(world.turning.keyed[EPOCH], intent, world.ledger.height)) == code


def test_refuses_to_record_before_what_it_creates_is_armed(world: RecoveryWorld) -> None:
    record = endorse(world.turning.keyed[EPOCH], world.recover().intent, world.ledger.height)
    assert world.turning.refusal(record) == "NOT_ARMED"


def test_v_and_e_endorse_and_nobody_else(world: RecoveryWorld) -> None:
    record = world.propose(world.recover().intent)
    of_v = [item for item in record.endorsements if item.role is Role.VALIDATOR]
    of_e = [item for item in record.endorsements if item.role is Role.EMERGENCY]
    as_w = tuple(replace(item, role=Role.WITNESS) for item in of_e)

    def judge(*endorsements: Endorsement) -> str:
        return world.turning.refusal(replace(record, endorsements=endorsements))

    assert judge(*of_v) == "TOO_FEW_ENDORSEMENTS"
    assert judge(*of_e) == "TOO_FEW_ENDORSEMENTS"
    assert judge(*of_v, *of_e[:-1]) == "TOO_FEW_ENDORSEMENTS"
    assert judge(*of_v, *as_w) == "INVALID_ARGUMENT"
    assert judge(*of_v, replace(of_e[0], position=of_e[1].position), *of_e[2:]) != ""
    world.turning.add(record)


def test_a_sweep_is_not_endorsed_by_e_in_w_s_place() -> None:
    world = RecoveryWorld.filled(1_000_000)
    world.turn()
    record = world.propose(SweepWorld.sweep(world).intent)
    forged = tuple(
        replace(item, role=Role.EMERGENCY) if item.role is Role.WITNESS else item for item in record.endorsements
    )
    assert world.turning.refusal(replace(record, endorsements=forged)) == "INVALID_ARGUMENT"


def test_the_reserve_bears_a_recovery_to_the_last_satoshi_and_not_one_more(world: RecoveryWorld) -> None:
    intent, reserve = world.recover().intent, world.ledger.reserve
    assert offer(world, changed(intent, fee=Sats(reserve + 1))) == "RESERVE_TOO_LOW"
    exact = changed(intent, fee=Sats(reserve))
    world.turning.add(world.propose(exact))
    world.turning.book(exact.intent_id)
    assert world.ledger.reserve == 0
    assert world.ledger.money.is_balanced


# ------------------------------------------------------------------ what stands beside it


def paying() -> tuple[RecoveryWorld, BuiltTransaction]:
    """Return a world in which W was lost while a recorded payout waited for its signature."""
    world = RecoveryWorld.filled(1_000_000, 300_000)
    burn = world.burn(100_000)
    payout = world.record(world.payout(world.held[:1], (burn,)))
    world.lose_witnesses()
    world.age()
    return world, payout


def test_a_payout_that_w_left_unsigned_is_no_hindrance_and_dies_with_the_booking() -> None:
    world, unsigned = paying()
    payout = unsigned.intent
    (burn,) = payout.burns
    built = world.recover()
    assert payout.outpoints < built.intent.outpoints
    world.record(built)
    ledger = world.ledger
    assert ledger.intents[payout.intent_id].status is IntentStatus.LIVE, "it may still be mined, if W had signed it"
    assert ledger.find_standing((), (burn,))
    world.mine(built)
    assert ledger.intents[payout.intent_id].status is IntentStatus.DEAD
    assert ledger.intents[payout.intent_id].spender == built.intent.txid
    assert ledger.burns[burn].status is BurnStatus.OPEN
    assert not ledger.find_standing((), (burn,)), "another epoch may pay it now"
    assert ledger.money.is_balanced


def test_a_payout_that_was_signed_in_time_and_is_mined_first_makes_the_recovery_dead() -> None:
    world, signed = paying()
    payout, ledger = signed.intent, world.ledger
    built = world.record(world.recover())
    world.mine(signed)
    assert ledger.intents[built.intent.intent_id].status is IntentStatus.DEAD
    assert ledger.burns[next(iter(payout.burns))].status is BurnStatus.SETTLED
    assert ledger.money.is_balanced
    rest = world.recover().intent
    assert rest.outpoints == built.intent.outpoints - payout.outpoints | {Outpoint(payout.txid, 0)}


def test_two_recoveries_of_one_output_stand_only_as_replacement(world: RecoveryWorld) -> None:
    first = world.record(world.recover()).intent
    choice = replace(first.choice, fee_rate=first.choice.fee_rate * 2)  # type: ignore[arg-type]
    assert offer(world, world.build_from(choice).intent) == "OUTPOINT_BUSY"
    second = world.build_from(replace(choice, replaces=(first.intent_id,))).intent
    world.turning.add(world.propose(second))
    assert world.ledger.intents[first.intent_id].status is IntentStatus.REPLACED


def test_a_recovery_names_no_other_kind_as_replaced() -> None:
    world, payout = paying()
    choice = replace(world.decide(), replaces=(payout.intent.intent_id,))
    assert offer(world, world.build_from(choice).intent) == "REPLACES_TOO_MUCH"


def test_a_recovery_is_never_withdrawn(world: RecoveryWorld) -> None:
    intent = world.record(world.recover()).intent
    world.as_epoch_zero()
    assert world.turning.refusal(world.turning.make_withdrawal(intent.intent_id)) == "EPOCH_STATE"
    assert world.ledger.intents[intent.intent_id].status is IntentStatus.LIVE


def test_nobody_complains_about_v_for_what_nobody_may_sign_any_more_but_for_a_recovery_left_undone() -> None:
    world, payout = paying()
    gone = world.ledger.epochs[EPOCH].members[Role.WITNESS]
    silence = REGTEST.silence_blocks

    def judge(subject: bytes) -> str:
        return world.turning.refusal(complain(gone[0], Role.VALIDATOR, subject))

    for _ in range(silence + 20):
        world.pass_block()
    while judge(payout.intent.intent_id) == "JAILED":
        world.pass_block()  # its nodes beat again; its shares never come back
    ended = world.ledger.epochs[EPOCH].ended
    assert ended is not None
    assert world.ledger.final_height >= ended + silence
    assert judge(payout.intent.intent_id) == "NOTHING_DUE"
    assert judge(compute_sweep_subject(EPOCH)) == "NOTHING_DUE"
    recovery = world.recover().intent
    world.turning.add(world.propose(recovery))
    assert judge(recovery.intent_id) == "NOT_OVERDUE"
    due = world.ledger.intents[recovery.intent_id].recorded + REGTEST.challenge_blocks + silence
    while world.ledger.final_height < due:
        world.pass_block()
    world.turning.add(complain(gone[0], Role.VALIDATOR, recovery.intent_id))


def test_a_chain_that_arms_nothing_recovers_nothing() -> None:
    world = SweepWorld.retiring(1_000_000)
    assert not world.ledger.genesis.needs_arming
    assert all(entry.witness_lost is None for entry in world.ledger.epochs.values())
    assert REGTEST.recovery_csv == 144
