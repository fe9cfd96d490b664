"""W executes what E armed without any release: evidence jails it, and lets what it moved be booked (section 6) [R10].

W needs the preimage for that, which every member of E has. The BTC is where E said, so a booking says where it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from coordinator.emergency_desk import is_recorded, list_executed, list_released
from slashing.bookings import is_unrecorded
from slashing.bundle import list_bundles
from slashing.release import find_release, list_released_txids
from smpc.bitcoin.script import Leaf
from smpc.errors import Refused
from smpc.params import REGTEST
from smpc.protocol.emergency import ANCHOR_VALUE, Rung
from smpc.protocol.intents import Booking
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import EpochState, IntentStatus
from smpc.protocol.records import RESERVE_ACCOUNT
from smpc.protocol.verdict_records import EvidenceRecorded, compute_release_id
from smpc.threshold.child_keys import VAULT_RANGE_START
from smpc.types import EpochNumber, Network, Outpoint, Role, Sats, Txid
from tests.support.armed_world import ArmedChain, ArmedWorld, arm_deposit
from tests.support.groups import EPOCH
from tests.support.thefts import Theft, steal
from tests.support.verdict_chain import attest_without

V, W = Role.VALIDATOR, Role.WITNESS
ONE = EpochNumber(1)


@dataclass(slots=True)
class Act:
    """An armed output of epoch 0 and the emergency of it that W executed."""

    world: ArmedWorld
    outpoint: Outpoint
    place: int = 0

    @property
    def chain(self) -> ArmedChain:
        return self.world.armed

    @property
    def ledger(self) -> Ledger:
        return self.world.ledger

    @property
    def rung(self) -> Rung:
        (bundle,) = list_bundles(self.ledger, self.outpoint)
        return bundle.emergency.rungs[self.place]

    @property
    def theft(self) -> Theft:
        """What a chain shows of it."""
        (item,) = self.ledger.armings[self.outpoint]
        stolen = steal(
            self.ledger, self.chain.keyed[EPOCH], self.outpoint, item.output.value, item.output.child, Leaf.REJECTION
        )
        return replace(stolen, unsigned=self.rung.transaction)

    def accuse(self) -> None:
        """Record the evidence; W of epoch 0 is jailed, and epoch 1 is active in the block after."""
        self.chain.add(EvidenceRecorded(self.theft.accuse(W)))
        self.chain.skip(2)
        assert set(self.ledger.judgements.verdicts) == {(EPOCH, W)}
        assert self.ledger.active_epoch == ONE

    def compute(self) -> Booking:
        return self.ledger.judgements.compute_emergency_booking(self.outpoint, self.rung.transaction.txid)

    def book(self) -> Booking:
        booking = self.compute()
        self.chain.add(self.chain.sign_booking(booking))
        assert self.ledger.money.is_balanced
        return booking


def act_of(world: ArmedWorld, at: int = 0) -> Act:
    return Act(world, sorted(world.ledger.vault)[at])


def act_on_deposit(world: ArmedWorld) -> Act:
    _, armings = arm_deposit(world, 600_000)
    world.chain.add(*(world.armed.pre_sign(item) for item in armings))
    outputs = (item.output for arming in armings for item in arming.emergencies)
    return Act(world, next(item.outpoint for item in outputs if item.child < VAULT_RANGE_START))


def refused(act: Act) -> str:
    with pytest.raises(Refused) as caught:
        act.compute()
    return caught.value.code


def test_without_evidence_it_is_no_booking_and_no_loss() -> None:
    act = act_of(ArmedWorld.filled(500_000))
    after = act_of(ArmedWorld.filled(500_000))
    after.accuse()
    proven = after.compute()
    assert refused(act) == "NOT_RELEASED"
    assert not is_unrecorded(act.ledger, proven)
    assert act.chain.refusal(act.chain.sign_booking(replace(proven, epoch=EPOCH))) == "UNKNOWN_INTENT"
    with pytest.raises(Refused, match="book it"):
        act.ledger.judgements.compute_loss_booking((act.outpoint,), act.rung.transaction.txid)
    assert list_released_txids(act.ledger, act.outpoint) == ()
    assert list_executed(act.ledger) == ()


def test_a_verdict_on_w_alone_is_no_evidence() -> None:
    world = ArmedWorld.filled(500_000)
    act = act_of(world)
    world.armed.silence(0, W)
    assert (EPOCH, W) in world.ledger.judgements.verdicts
    assert refused(act) == "NOT_RELEASED"
    assert list_executed(world.ledger) == ()


def test_with_evidence_it_is_booked_to_the_satoshi_and_once() -> None:
    act = act_of(ArmedWorld.filled(500_000))
    act.accuse()
    before, value = act.ledger.money, act.ledger.vault[act.outpoint].value
    booking = act.book()
    cost, after = act.rung.fee + ANCHOR_VALUE, act.ledger.money
    assert booking.intent == compute_release_id(Network.REGTEST, EPOCH)
    assert (after.vault, after.supply, after.reserve) == (before.vault - cost, before.supply, before.reserve - cost)
    created = Outpoint(act.rung.transaction.txid, 0)
    assert (act.ledger.vault[created].epoch, act.ledger.vault[created].value) == (ONE, value - cost)
    assert act.chain.refusal(act.chain.sign_booking(booking)) == "ALREADY_RECORDED"
    assert act.chain.refusal(act.chain.sign_booking(replace(booking, reserve_loss=Sats(1)))) == "BOOKED"
    assert refused(act) == "NOT_BOOKED"
    with pytest.raises(Refused) as caught:
        replace(act, place=1).compute()
    assert caught.value.code == "NOT_BOOKED", "nor by another rung"


def test_a_lie_about_it_is_refused() -> None:
    act = act_of(ArmedWorld.filled(500_000))
    act.accuse()
    good = act.compute()
    sign = act.chain.sign_booking
    assert is_unrecorded(act.ledger, good)
    assert act.chain.refusal(sign(replace(good, reserve_loss=Sats(good.reserve_loss - 1)))) == "WRONG_BOOKING"
    assert act.chain.refusal(sign(replace(good, txid=Txid(b"\x09" * 32)))) == "NOT_RELEASED"
    assert act.chain.refusal(sign(replace(good, intent=compute_release_id(Network.REGTEST, ONE)))) == "UNKNOWN_INTENT"
    assert act.chain.refusal(sign(replace(good, epoch=EPOCH))) == "NOT_ACTIVE", "its own epoch is convicted"


def test_it_explains_what_is_gone_to_everybody_who_looks_and_sends_nothing() -> None:
    act = act_of(ArmedWorld.filled(500_000))
    act.accuse()
    txid = act.rung.transaction.txid
    assert txid in list_released_txids(act.ledger, act.outpoint)
    assert txid in {item.transaction.txid for item in act.ledger.judgements.list_emergencies(act.outpoint)}
    assert act.ledger.judgements.is_released_emergency(act.outpoint, txid)
    assert (list_released(act.ledger), list_executed(act.ledger)) == ((), (EPOCH,))
    assert find_release(act.ledger, EPOCH, act.outpoint).fault is not None


def test_another_output_that_the_same_w_moved_is_booked_as_well_and_another_epochs_is_not() -> None:
    world = ArmedWorld.filled(150_000, 170_000)
    first, second = (act_of(world, at) for at in range(2))
    world.turn()
    world.armed.fund_active("bob", 150_000, 10)
    calm = next(key for key, item in world.ledger.vault.items() if item.epoch == ONE)
    first.accuse()
    first.book()
    second.book()
    assert refused(Act(world, calm)) == "NOT_RELEASED"


def test_a_deposit_that_w_moved_is_credited_and_its_transfer_is_dead() -> None:
    world = ArmedWorld.filled(150_000)
    built, armings = arm_deposit(world, 600_000)
    world.chain.add(*(world.armed.pre_sign(item) for item in armings))
    intent_id = world.record(built).intent.intent_id
    act = Act(world, next(iter(built.intent.outpoints)))
    act.accuse()
    before = world.ledger.money
    (credit,) = act.book().credits
    cost, after = act.rung.fee + ANCHOR_VALUE, world.ledger.money
    assert after.supply == before.supply + 600_000 - credit.fee_in
    assert after.vault == before.vault + 600_000 - cost
    assert world.ledger.intents[intent_id].status is IntentStatus.DEAD
    assert world.ledger.credited[act.outpoint] == act.rung.transaction.txid
    again = replace(act, place=1)
    assert act.chain.refusal(act.chain.sign_booking(again.compute())) == "CREDITED", "nor by another rung"


def test_the_deposit_that_the_evidence_names_is_booked_even_when_its_epoch_is_over() -> None:
    """While the reserve is negative credits halt, and the epoch's grace passes all the same."""
    world = ArmedWorld.filled(150_000)
    act = act_on_deposit(world)
    rung = act.rung
    act.accuse()
    (vault,) = world.ledger.vault
    loss = world.ledger.judgements.compute_loss_booking((vault,), Txid(b"\x66" * 32))
    world.chain.add(act.chain.sign_booking(loss))
    assert act.chain.refusal(act.chain.sign_booking(act.compute())) == "RESERVE_NEGATIVE"
    expires = act.chain.entry(0).watched_until
    assert expires is not None
    act.chain.pulse(expires + REGTEST.confirmations + 1)
    act.chain.skip(3)
    assert act.chain.state(0) is EpochState.RETIRED
    world.chain.add(world.chain.make_send("alice", RESERVE_ACCOUNT, -world.ledger.reserve))
    act.book()
    assert world.ledger.credited[act.outpoint] == rung.transaction.txid
    assert act.outpoint not in world.ledger.armings


def test_what_w_sent_to_keys_that_the_standby_has_no_more_is_a_loss() -> None:
    """The newest arming goes to the standby as it is keyed now; the older ones stay, and W can sign those as well."""
    world = ArmedWorld.filled(500_000)
    act = act_of(world)
    chain, rung, stolen = world.armed, act.rung, act.theft
    quiet = chain.entry(1).groups[V].members[:2]
    while chain.state(1) is not EpochState.ABORTED:
        attest_without(chain, quiet)
    chain.announce()
    chain.key(1)
    chain.renew(0, [act.outpoint])
    chain.add(EvidenceRecorded(stolen.accuse(W)))
    chain.skip(2)
    assert world.ledger.active_epoch == ONE
    txid = rung.transaction.txid
    with pytest.raises(Refused) as caught:
        world.ledger.judgements.compute_emergency_booking(act.outpoint, txid)
    assert caught.value.code == "TARGET_LOST"
    assert txid not in list_released_txids(world.ledger, act.outpoint)
    assert not is_recorded(world.ledger, act.outpoint, txid)
    before, value = world.ledger.money, world.ledger.vault[act.outpoint].value
    chain.add(chain.sign_booking(world.ledger.judgements.compute_loss_booking((act.outpoint,), txid)))
    after = world.ledger.money
    assert (after.vault, after.supply, after.reserve) == (before.vault - value, before.supply, before.reserve - value)
