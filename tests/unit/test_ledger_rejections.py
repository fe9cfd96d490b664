"""W's half of emergencies on the ledger, and the booking of what was executed, to the satoshi (section 6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pegin.model import BuiltTransaction
from slashing.build import build_arming
from slashing.bundle import list_bundles
from slashing.model import BuiltArming, BuiltRejection
from smpc.protocol.arming_records import Arming, list_created
from smpc.protocol.emergency import ANCHOR_VALUE
from smpc.protocol.intents import IntentInput, VaultEntry
from smpc.protocol.ledger_state import BurnStatus, EpochState, IntentStatus
from smpc.protocol.verdict_records import RejectionSigned, compute_release_id
from smpc.threshold.child_keys import VAULT_RANGE_START, compute_vault_index
from smpc.types import EpochNumber, Network, Outpoint, Role, Sats, Script, Signature, Txid
from tests.support.armed_world import ArmedWorld, arm_deposit
from tests.support.verdict_chain import (
    FIRST,
    book_emergency,
    list_rejections,
    reject,
    released_world,
    silence_group,
    wait_until_final,
)

ONE = EpochNumber(1)
V = Role.VALIDATOR


def change(record: RejectionSigned, **fields: object) -> RejectionSigned:
    return replace(record, arming=replace(record.arming, **fields))  # type: ignore[arg-type]


def _with_output(arming: Arming, **fields: object) -> dict[str, object]:
    return {"outputs": (replace(arming.outputs[0], **fields), *arming.outputs[1:])}  # type: ignore[arg-type]


def test_w_signs_every_output_of_a_released_epoch_once() -> None:
    world = released_world(150_000, 170_000)
    (built,) = list_rejections(world.armed)
    assert {item.outpoint for item in built.arming.outputs} == set(world.ledger.vault)
    record = reject(world.armed, built)
    world.chain.add(record)
    for outpoint in world.ledger.vault:
        (known,) = world.ledger.judgements.rejections[outpoint]
        assert (known.epoch, known.target) == (FIRST, ONE)
    assert list_rejections(world.armed) == ()
    assert world.chain.refusal(record) == "ALREADY_RECORDED"


def test_nothing_is_rejected_before_the_release_is_final() -> None:
    world = ArmedWorld.filled(150_000)
    silent = silence_group(world.armed, FIRST, V)
    (built,) = list_rejections(world.armed)
    record = reject(world.armed, built)
    assert world.chain.refusal(record) == "NOT_FINAL"
    wait_until_final(world.armed, world.ledger.judgements.verdicts[FIRST, V].recorded, silent)
    world.chain.add(record)


CHANGES: list[tuple[str, Callable[[RejectionSigned], RejectionSigned]]] = [
    ("WRONG_NETWORK", lambda record: change(record, network=Network.MAINNET)),
    ("NOT_RELEASED", lambda record: change(record, epoch=ONE)),
    ("NOT_RELEASED", lambda record: change(record, epoch=EpochNumber(9))),
    ("NOT_ARMED", lambda record: change(record, target=FIRST)),
    ("NOT_ARMED", lambda record: change(record, target_script=Script(b"\x51\x20" + bytes(32)))),
    ("COUNT", lambda record: change(record, outputs=())),
    ("DUPLICATE", lambda record: change(record, outputs=(record.arming.outputs[0], *record.arming.outputs))),
    ("NOT_ARMED", lambda record: change(record, **_with_output(record.arming, value=Sats(499_999)))),
    ("NOT_ARMED", lambda record: change(record, **_with_output(record.arming, outpoint=Outpoint(Txid(bytes(32)), 0)))),
    ("BAD_SIGNATURE", lambda record: replace(record, signatures=record.signatures[:-1])),
    ("BAD_SIGNATURE", lambda record: replace(record, signatures=(*record.signatures, record.signatures[0]))),
    ("BAD_SIGNATURE", lambda record: replace(record, signatures=(Signature(bytes(64)), *record.signatures[1:]))),
    ("BAD_SIGNATURE", lambda record: replace(record, signatures=record.signatures[::-1])),
]


@pytest.fixture(scope="module")
def released() -> ArmedWorld:
    return released_world(150_000)


@pytest.mark.parametrize(("code", "mutate"), CHANGES)
def test_a_changed_rejection_is_refused_and_changes_nothing(
    released: ArmedWorld, code: str, mutate: Callable[[RejectionSigned], RejectionSigned]
) -> None:
    (built,) = list_rejections(released.armed)
    assert released.chain.refusal(mutate(reject(released.armed, built))) == code


def test_es_own_signatures_are_no_rejection(released: ArmedWorld) -> None:
    (built,) = list_rejections(released.armed)
    (outpoint,) = released.ledger.vault
    (armed,) = released.ledger.armings[outpoint]
    assert released.chain.refusal(built.to_record(armed.signatures)) == "BAD_SIGNATURE"


def test_an_emergency_of_a_vault_output_costs_the_reserve_its_fee_and_anchor_to_the_satoshi() -> None:
    world = released_world(150_000)
    before, (outpoint,) = world.ledger.money, world.ledger.vault
    (bundle,) = list_bundles(world.ledger, outpoint)
    rung = bundle.emergency.rungs[0]
    booking = book_emergency(world.armed, outpoint, rung.transaction.txid)
    cost = rung.fee + ANCHOR_VALUE
    after = world.ledger.money
    assert (after.vault, after.supply, after.reserve) == (before.vault - cost, before.supply, before.reserve - cost)
    assert booking.intent == compute_release_id(Network.REGTEST, FIRST)
    value = bundle.emergency.output.value - cost
    created = Outpoint(rung.transaction.txid, 0)
    assert dict(world.ledger.vault) == {created: VaultEntry(created, Sats(value), ONE, compute_vault_index(0))}
    assert value == rung.transaction.outputs[0].value


def test_the_output_of_an_emergency_is_armed_once_there_is_a_standby() -> None:
    world = released_world(150_000)
    (outpoint,) = world.ledger.vault
    (bundle,) = list_bundles(world.ledger, outpoint)
    book_emergency(world.armed, outpoint, bundle.emergency.rungs[1].transaction.txid)
    assert not world.ledger.compute_coverage().is_full
    world.armed.announce()
    world.armed.key(2)
    world.armed.renew(1, list(world.ledger.vault))
    assert world.ledger.compute_coverage().is_full


def test_an_emergency_is_booked_once_and_only_as_it_was_armed() -> None:
    world = released_world(150_000, 170_000)
    one, other = sorted(world.ledger.vault)
    (bundle,) = list_bundles(world.ledger, one)
    txid = bundle.emergency.rungs[0].transaction.txid
    booking = world.ledger.judgements.compute_emergency_booking(one, txid)
    sign = world.armed.sign_booking
    lies = (
        replace(booking, reserve_loss=Sats(booking.reserve_loss - 1)),
        replace(booking, vault_created=()),
        replace(booking, vault_created=(replace(booking.vault_created[0], value=Sats(1)),)),
        replace(booking, txid=bundle.emergency.rungs[1].transaction.txid),
    )
    assert {world.chain.refusal(sign(lie)) for lie in lies} == {"WRONG_BOOKING"}
    assert world.chain.refusal(sign(replace(booking, vault_spent=(other,)))) == "NOT_RELEASED"
    assert world.chain.refusal(sign(replace(booking, vault_spent=(one, other)))) == "WRONG_BOOKING"
    assert world.chain.refusal(sign(replace(booking, vault_spent=()))) == "WRONG_BOOKING"
    assert world.chain.refusal(sign(replace(booking, epoch=FIRST))) == "NOT_ACTIVE"
    signed = sign(booking)
    assert world.chain.refusal(replace(signed, witness_signature=signed.validator_signature)) == "BAD_SIGNATURE"
    world.chain.add(signed)
    assert world.chain.refusal(signed) in {"ALREADY_RECORDED", "BOOKED"}


def test_an_emergency_of_an_epoch_that_nobody_judged_cannot_be_booked() -> None:
    world = ArmedWorld.filled(150_000)
    (outpoint,) = world.ledger.vault
    (bundle,) = list_bundles(world.ledger, outpoint)
    with pytest.raises(Exception, match="no released emergency"):
        world.ledger.judgements.compute_emergency_booking(outpoint, bundle.emergency.rungs[0].transaction.txid)


def test_a_deposit_moved_by_an_emergency_is_credited_all_the_same() -> None:
    world = ArmedWorld.filled(150_000)
    built, armings = arm_deposit(world, 600_000)
    world.chain.add(*(world.armed.pre_sign(item) for item in armings))
    intent_id = world.record(built).intent.intent_id
    silent = silence_group(world.armed, FIRST, V)
    wait_until_final(world.armed, world.ledger.judgements.verdicts[FIRST, V].recorded, silent)
    (deposit,) = (item.output for item in armings[0].emergencies if item.output.child < VAULT_RANGE_START)
    (bundle,) = list_bundles(world.ledger, deposit.outpoint)
    rung, before = bundle.emergency.rungs[0], world.ledger.money
    booking = book_emergency(world.armed, deposit.outpoint, rung.transaction.txid)
    cost, (credit,) = rung.fee + ANCHOR_VALUE, booking.credits
    after = world.ledger.money
    assert after.vault == before.vault + deposit.value - cost
    assert after.supply == before.supply + deposit.value - credit.fee_in
    assert after.reserve == before.reserve + credit.fee_in - cost
    assert world.ledger.intents[intent_id].status is IntentStatus.DEAD
    assert world.ledger.credited[deposit.outpoint] == rung.transaction.txid


def test_a_payout_that_an_emergency_overtook_is_dead_and_its_burn_is_open_again() -> None:
    world = ArmedWorld.filled(150_000)
    burn = world.burn(40_000)
    payout = world.payout(tuple(world.ledger.vault), (burn,))
    world.chain.add(*world.armed.list_armings(payout.intent))
    intent_id = world.record(payout).intent.intent_id
    silent = silence_group(world.armed, FIRST, V)
    wait_until_final(world.armed, world.ledger.judgements.verdicts[FIRST, V].recorded, silent)
    (outpoint,) = world.ledger.vault
    (bundle,) = list_bundles(world.ledger, outpoint)
    book_emergency(world.armed, outpoint, bundle.emergency.rungs[0].transaction.txid)
    assert world.ledger.intents[intent_id].status is IntentStatus.DEAD
    assert world.ledger.burns[burn].status is BurnStatus.OPEN
    assert world.ledger.find_standing((), (burn,)) == ()


def claim_before_it_is_booked(world: ArmedWorld, built: BuiltTransaction) -> BuiltArming:
    """Let epoch 1's E record as its own the one output of an intent, which then is renewed, mined and booked.

    Once it is booked the ledger refuses that.
    """
    (created,) = list_created(built.intent)
    foreign = build_arming(world.ledger, ONE, [created])
    world.armed.renew(FIRST, [created.outpoint])
    world.chain.add(world.armed.pre_sign(foreign))
    world.mine(built)
    return foreign


def test_what_another_epochs_e_armed_of_an_output_is_never_booked_in_its_place() -> None:
    world = ArmedWorld.filled()
    built = world.record(world.transfer(world.deposit(0, 150_000)))
    world.turn()
    world.turn()
    foreign = claim_before_it_is_booked(world, built)
    (entry,) = world.ledger.vault.values()
    assert foreign.arming.outputs == (IntentInput(entry.outpoint, entry.value, entry.child),)
    silence_group(world.armed, FIRST, V)
    (beside, *bundles) = list_bundles(world.ledger, entry.outpoint)
    own = next(item.emergency for item in bundles if item.emergency.target == beside.emergency.target)
    rung = own.rungs[0]
    assert rung.transaction.txid == beside.emergency.rungs[0].transaction.txid
    assert (beside.emergency.epoch, own.epoch) == (ONE, FIRST)
    judgements = world.ledger.judgements
    found = judgements.find_emergency(entry.outpoint, rung.transaction.txid)
    assert found is not None
    assert found[0].epoch == FIRST
    assert judgements.find_emergency(entry.outpoint, rung.transaction.txid, beside.emergency.leaf) is None
    booking = judgements.compute_emergency_booking(entry.outpoint, rung.transaction.txid, leaf=own.leaf)
    assert booking.intent == compute_release_id(Network.REGTEST, FIRST)
    world.chain.add(world.armed.sign_booking(booking))


def test_what_another_epochs_w_rejects_of_an_output_never_takes_the_place_of_its_own() -> None:
    """With E and W of another released epoch beside it, the output's own rejection was lost, and recorded for ever."""
    world = ArmedWorld.filled()
    chain = world.armed
    parent = world.record(world.transfer(world.deposit(0, 150_000)))
    world.turn()
    chain.fund_active("bob", 150_000, 1)
    chain.turn()
    foreign = claim_before_it_is_booked(world, parent)
    (entry,) = (item for item in world.ledger.vault.values() if item.epoch == FIRST)
    own = next(item for item in reversed(world.ledger.armings[entry.outpoint]) if item.epoch == FIRST)
    assert foreign.arming.target_script == own.target_script
    for epoch in (FIRST, ONE):
        silent = silence_group(chain, epoch, V)
        wait_until_final(chain, world.ledger.judgements.verdicts[epoch, V].recorded, silent)
    (built,) = [item for item in list_rejections(chain) if item.arming.target == own.target]
    chain.add(reject(chain, built))
    beside = BuiltRejection(foreign.arming, foreign.emergencies)
    chain.add(reject(chain, beside))
    assert {item.epoch for item in world.ledger.judgements.rejections[entry.outpoint]} == {FIRST, ONE}
    assert list_rejections(chain) == ()


def test_the_transaction_of_an_intent_that_stands_no_more_is_a_loss_when_it_is_mined_all_the_same() -> None:
    world = ArmedWorld.filled(150_000)
    burn = world.burn(40_000)
    payout = world.payout(tuple(world.ledger.vault), (burn,))
    world.chain.add(*world.armed.list_armings(payout.intent))
    intent_id = world.record(payout).intent.intent_id
    outpoints = tuple(world.ledger.vault)
    with pytest.raises(Exception, match="book it"):
        world.ledger.judgements.compute_loss_booking(outpoints, payout.intent.txid)
    world.chain.add(world.chain.make_withdrawal(intent_id))
    assert world.ledger.intents[intent_id].status is IntentStatus.WITHDRAWN
    booking = world.ledger.judgements.compute_loss_booking(outpoints, payout.intent.txid)
    assert booking.reserve_loss == sum(world.ledger.vault[item].value for item in outpoints)


def test_an_emptied_epoch_that_was_judged_parks() -> None:
    world = released_world(150_000)
    (outpoint,) = world.ledger.vault
    (bundle,) = list_bundles(world.ledger, outpoint)
    book_emergency(world.armed, outpoint, bundle.emergency.rungs[0].transaction.txid)
    world.armed.pulse(world.armed.btc_height + 10)
    assert world.ledger.epochs[FIRST].state is EpochState.PARKED


def test_a_loss_is_borne_by_the_reserve_and_only_for_what_no_record_explains() -> None:
    world = released_world(150_000, 170_000)
    one, other = sorted(world.ledger.vault)
    before, thief = world.ledger.money, Txid(b"\x66" * 32)
    value = world.ledger.vault[one].value
    booking = world.ledger.judgements.compute_loss_booking((one,), thief)
    assert world.chain.refusal(world.armed.sign_booking(replace(booking, reserve_loss=Sats(1)))) == "WRONG_BOOKING"
    world.chain.add(world.armed.sign_booking(booking))
    after = world.ledger.money
    assert (after.vault, after.reserve, after.supply) == (before.vault - value, before.reserve - value, before.supply)
    assert after.reserve < 0
    (bundle,) = list_bundles(world.ledger, other)
    with pytest.raises(Exception, match="book it"):
        world.ledger.judgements.compute_loss_booking((other,), bundle.emergency.rungs[0].transaction.txid)
    with pytest.raises(Exception, match="no booked vault output"):
        world.ledger.judgements.compute_loss_booking((one,), thief)
