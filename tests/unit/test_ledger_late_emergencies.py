"""A deposit moved by an emergency is credited all the same, however long its booking must wait (section 6, Peg-in)."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from slashing.bundle import list_bundles
from slashing.release import find_release
from smpc.errors import Refused
from smpc.params import REGTEST
from smpc.protocol.emergency import ANCHOR_VALUE, Rung
from smpc.protocol.intents import Booking
from smpc.protocol.ledger_state import EpochState
from smpc.protocol.records import RESERVE_ACCOUNT
from smpc.threshold.child_keys import VAULT_RANGE_START
from smpc.types import EpochNumber, Outpoint, Role, Txid
from tests.support.armed_world import ArmedChain, ArmedWorld, arm_deposit
from tests.support.turning_chain import list_identities
from tests.support.verdict_chain import (
    FIRST,
    book_emergency,
    find_preimage,
    list_rejections,
    reject,
    reveal,
    silence_group,
    wait_until_final,
)

ONE = EpochNumber(1)
V = Role.VALIDATOR


@dataclass(slots=True)
class Incident:
    """V of epoch 0 is judged while a deposit of 600,000 sat is armed and not transferred; its vault is at epoch 1."""

    world: ArmedWorld
    deposit: Outpoint
    rung: Rung

    @property
    def chain(self) -> ArmedChain:
        return self.world.armed

    def book(self) -> Booking:
        """Book the deposit's emergency, which is mined."""
        return book_emergency(self.chain, self.deposit, self.rung.transaction.txid)

    def refusal(self) -> str:
        """Return why it cannot be booked."""
        try:
            booking = self.world.ledger.judgements.compute_emergency_booking(self.deposit, self.rung.transaction.txid)
        except Refused as refused:
            return refused.code
        return self.chain.refusal(self.chain.sign_booking(booking))

    def retire(self) -> None:
        """Let the grace of epoch 0 pass."""
        entry = self.chain.entry(0)
        assert entry.watched_until is not None
        free = [number for number, key in enumerate(list_identities()) if key in self.chain.ledger.stakes]
        self.chain.pulse(max(entry.watched_until, entry.rests_until or 0) + REGTEST.confirmations + 1, validators=free)
        self.chain.skip(2)
        assert self.chain.state(0) is EpochState.RETIRED

    def turn_and_empty(self) -> None:
        """Let epoch 2 be active and hold all there is, with epoch 1 behind its grace."""
        self.chain.turn()
        if self.world.ledger.list_free_outputs(ONE):
            self.chain.book(self.chain.record(self.chain.make_sweep(1)))
        self.chain.pulse((self.chain.ledger.median_btc_height or 0) + 2 * REGTEST.confirmations + 1)
        self.chain.skip(3)


def open_incident(*, is_rejected: bool = True) -> Incident:
    world = ArmedWorld.filled(150_000)
    chain = world.armed
    _, armings = arm_deposit(world, 600_000)
    chain.add(*(chain.pre_sign(item) for item in armings))
    silent = silence_group(chain, FIRST, V)
    wait_until_final(chain, world.ledger.judgements.verdicts[FIRST, V].recorded, silent)
    chain.add(reveal(0, find_preimage(chain, 0)))
    (deposit,) = (
        item.output.outpoint
        for arming in armings
        for item in arming.emergencies
        if item.output.child < VAULT_RANGE_START
    )
    if is_rejected:
        chain.add(*(reject(chain, item) for item in list_rejections(chain)))
    (vault,) = world.ledger.vault
    (bundle,) = list_bundles(world.ledger, vault)
    book_emergency(chain, vault, bundle.emergency.rungs[0].transaction.txid)
    (bundle,) = list_bundles(world.ledger, deposit)
    return Incident(world, deposit, bundle.emergency.rungs[0])


def test_a_mined_emergency_waits_for_the_reserve_beyond_its_epochs_life_and_is_booked_then() -> None:
    incident = open_incident()
    world, chain = incident.world, incident.chain
    # What a theft took makes the reserve negative: credits halt, and the grace passes meanwhile.
    (vault,) = world.ledger.vault
    loss = world.ledger.judgements.compute_loss_booking((vault,), Txid(b"\x66" * 32))
    chain.add(chain.sign_booking(loss))
    assert incident.refusal() == "RESERVE_NEGATIVE"
    incident.retire()
    assert incident.refusal() == "RESERVE_NEGATIVE"
    chain.add(chain.make_send("alice", RESERVE_ACCOUNT, -world.ledger.reserve))
    before = world.ledger.money
    (credit,) = incident.book().credits
    cost, after = incident.rung.fee + ANCHOR_VALUE, world.ledger.money
    assert after.supply == before.supply + 600_000 - credit.fee_in
    assert after.vault == before.vault + 600_000 - cost
    assert after.is_balanced
    assert world.ledger.credited[incident.deposit] == incident.rung.transaction.txid
    assert incident.deposit not in world.ledger.armings, "nothing waits for it any more"
    assert incident.deposit not in world.ledger.judgements.rejections
    assert incident.refusal() == "NOT_RELEASED"


def test_a_recorded_rejection_is_sent_and_booked_after_the_epoch_retired() -> None:
    incident = open_incident()
    incident.retire()
    ledger = incident.world.ledger
    release = find_release(ledger, FIRST, incident.deposit)
    assert release.fault is None
    assert incident.rung.transaction.txid in {rung.transaction.txid for rung in release.complete()}
    assert incident.deposit in ledger.judgements.list_rejectable(FIRST)
    incident.book()
    assert ledger.judgements.list_rejectable(FIRST) == ()


def test_without_a_rejection_nothing_is_kept_of_a_retired_epoch() -> None:
    incident = open_incident(is_rejected=False)
    incident.retire()
    assert {item.epoch for items in incident.world.ledger.armings.values() for item in items} == set()
    assert incident.refusal() == "NOT_RELEASED"


def test_a_credited_deposit_keeps_nothing_of_a_retired_epoch() -> None:
    incident = open_incident()
    incident.book()
    assert incident.deposit in incident.world.ledger.armings
    incident.retire()
    assert not incident.world.ledger.armings
    assert not incident.world.ledger.judgements.rejections


@pytest.mark.parametrize("is_booked", [True, False], ids=["booked in time", "booked late"])
def test_the_target_is_not_erased_while_an_emergency_may_pay_it_and_serves_what_comes_late(*, is_booked: bool) -> None:
    incident = open_incident()
    chain, ledger = incident.chain, incident.world.ledger
    if is_booked:
        incident.book()
    incident.retire()
    incident.turn_and_empty()
    if is_booked:
        assert chain.state(1) is EpochState.RETIRED
        return
    assert chain.state(1) is EpochState.PARKED
    booking = incident.book()
    chain.skip(2)
    assert chain.state(1) is EpochState.RETIRING, "value makes a parked epoch retiring again"
    (created,) = booking.vault_created
    assert ledger.vault[created.outpoint].epoch == ONE
    chain.book(chain.record(chain.make_sweep(1)))
    chain.pulse((ledger.median_btc_height or 0) + 2 * REGTEST.confirmations + 1)
    chain.skip(3)
    assert chain.state(1) is EpochState.RETIRED


def test_what_is_kept_of_a_retired_epoch_survives_an_undone_block() -> None:
    incident = open_incident()
    incident.retire()
    ledger = incident.world.ledger
    root = ledger.compute_state_root()
    booking = ledger.judgements.compute_emergency_booking(incident.deposit, incident.rung.transaction.txid)
    ledger.open_draft()
    ledger.add_to_draft(incident.chain.sign_booking(booking))
    assert incident.deposit not in ledger.armings
    ledger.drop_draft()
    assert incident.deposit in ledger.armings
    assert ledger.compute_state_root() == root
