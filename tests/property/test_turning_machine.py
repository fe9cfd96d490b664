"""The ledger through turns under random histories: money, promises and epochs hold together, and replay agrees."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from smpc.errors import Conflict, InvalidInput, Refused
from smpc.params import REGTEST
from smpc.protocol.intents import Intent, IntentKind
from smpc.protocol.ledger import replay
from smpc.protocol.ledger_state import BurnStatus, EpochState, IntentEntry
from smpc.protocol.records import RESERVE_ACCOUNT, Record
from smpc.types import BurnId, EpochNumber, Sats
from tests.support.groups import endorse
from tests.support.turning_chain import BTC_START, TurningChain

FULL = {EpochState.ACTIVE, EpochState.RETIRING}


class TurningMachine(RuleBasedStateMachine):
    """Deposits, burns, sweeps and turns in any order; what must hold is checked from the tables alone."""

    @initialize(reserve=st.sampled_from([20_000, 1_500_000]))
    def start(self, reserve: int) -> None:
        self.chain = TurningChain.started()
        self.index = 1
        self.paid_in = reserve
        self.chain.fund_active("alice", 4_000_000, 1)
        self.chain.add(self.chain.make_send("alice", RESERVE_ACCOUNT, reserve))

    # -------------------------------------------------------------- time

    @rule()
    def turn(self) -> None:
        """Let the next epoch become active."""
        before = self.chain.epoch.number
        assert self.chain.turn() == before + 1

    @rule(blocks=st.integers(1, 12))
    def mine(self, blocks: int) -> None:
        """Bitcoin goes on, and the heartbeats say so."""
        self.chain.pulse(self.chain.btc_height + blocks)

    @rule()
    def vote(self) -> None:
        """Two more checkpoints are signed; whoever signs them beats as well, or it would soon count as silent."""
        self.chain.pulse(self.chain.btc_height)
        before = self.chain.ledger.final_height
        assert self.chain.finalise() == self.chain.ledger.final_height > before

    # -------------------------------------------------------------- flows

    @rule(value=st.integers(20_000, 900_000))
    def deposit(self, value: int) -> None:
        """Record the transfer of a deposit to the active epoch."""
        self.index += 1
        terms = self.chain.make_terms(self.index)
        self.chain.add(self.chain.make_invoices(terms, request_id=b"%d" % self.index))
        intent = self.chain.make_transfer_of(self.chain.epoch.number, [(self.index, value)])
        self.attempt(endorse(self.chain.epoch, intent, self.chain.ledger.height))

    @rule(payout=st.integers(10_000, 60_000))
    def burn(self, payout: int) -> None:
        """Alice burns some of hers."""
        self.attempt(self.chain.make_burn("alice", payout))

    @precondition(lambda self: self.sweepable())
    @rule(data=st.data(), fee=st.integers(500, 4_000), outputs=st.integers(1, 2), carried=st.integers(0, 2))
    def sweep(self, data: st.DataObject, fee: int, outputs: int, carried: int) -> None:
        """Sweep a retiring epoch with some of the open burns: taken exactly when the reserve can pay."""
        epoch = data.draw(st.sampled_from(self.sweepable()))
        burns = self.free_burns()[:carried]
        intent = self.build_sweep(epoch, fee, outputs, burns)
        if intent is None:
            return
        gain = sum(self.chain.ledger.burns[burn].fee for burn in burns)
        cost = fee + sum(item.amount for item in intent.commissions)
        is_new = intent.intent_id not in self.chain.ledger.intents
        taken = self.attempt(endorse(self.chain.keyed[epoch], intent, self.chain.ledger.height))
        assert taken is (is_new and self.chain.ledger.reserve + gain >= cost)

    @precondition(lambda self: self.standing())
    @rule(data=st.data())
    def book(self, data: st.DataObject) -> None:
        """Any standing intent is mined and booked."""
        entry = data.draw(st.sampled_from(self.standing()))
        halted = entry.intent.kind is IntentKind.TRANSFER and self.chain.ledger.reserve < 0
        record = self.chain.sign_booking(self.chain.ledger.compute_booking(entry.intent.intent_id))
        assert self.attempt(record) is not halted

    @precondition(lambda self: self.standing())
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        """Any standing intent is withdrawn by its own epoch, which is there to do it."""
        intent = data.draw(st.sampled_from(self.standing())).intent
        active = self.chain.epoch
        self.chain.epoch = self.chain.keyed[intent.epoch]
        record = self.chain.make_withdrawal(intent.intent_id)
        self.chain.epoch = active
        self.chain.add(record)

    @rule(amount=st.integers(1, 400_000))
    def pay_in(self, amount: int) -> None:
        """Top the reserve up."""
        if self.attempt(self.chain.make_send("alice", RESERVE_ACCOUNT, amount)):
            self.paid_in += amount

    # -------------------------------------------------------------- lies

    @precondition(lambda self: self.sweepable())
    @rule(data=st.data(), lie=st.sampled_from(["commission", "op_return", "target", "value"]))
    def sweep_wrongly(self, data: st.DataObject, lie: str) -> None:
        """Offer a sweep that pays, notarises or goes where it must not: always refused."""
        epoch = data.draw(st.sampled_from(self.sweepable()))
        intent = self.build_sweep(epoch, 600, 1, [])
        if intent is None:
            return
        stale = self.chain.ledger.find_op_return(epoch, EpochNumber(self.chain.epoch.number - 1))
        assert stale is not None
        first = intent.vault_outputs[0]
        wrong = {
            "commission": replace(intent, commissions=intent.commissions[1:])
            if intent.commissions
            else replace(intent, fee=Sats(intent.fee + 1)),
            "op_return": replace(intent, op_return=stale),
            "target": replace(intent, target_epoch=epoch),
            "value": replace(intent, vault_outputs=(Sats(first + 1),)),
        }[lie]
        assert not self.attempt(endorse(self.chain.keyed[epoch], wrong, self.chain.ledger.height))

    # -------------------------------------------------------------- what always holds

    @invariant()
    def the_money_identity_holds_to_the_satoshi(self) -> None:
        ledger = self.chain.ledger
        vault = sum(entry.value for entry in ledger.vault.values())
        supply = sum(entry.balance for entry in ledger.accounts.values())
        burns = [entry for entry in ledger.burns.values() if entry.status is BurnStatus.OPEN]
        open_burns = sum(entry.request.payout + entry.fee for entry in burns)
        assert vault == supply + open_burns + ledger.reserve
        assert vault == ledger.vault_total == sum(ledger.epoch_value.values())

    @invariant()
    def the_reserve_is_what_came_less_what_was_spent(self) -> None:
        ledger = self.chain.ledger
        booked = [ledger.intents[booking.intent].intent for booking in ledger.bookings.values()]
        commission = sum(item.amount for intent in booked for item in intent.commissions)
        fees = sum(intent.fee for intent in booked)
        credits_in = sum(credit.fee_in for booking in ledger.bookings.values() for credit in booking.credits)
        fees_out = sum(ledger.burns[burn].fee for booking in ledger.bookings.values() for burn in booking.settled)
        assert ledger.reserve == self.paid_in + credits_in + fees_out - fees - commission

    @invariant()
    def value_lies_and_goes_only_where_groups_still_serve(self) -> None:
        ledger = self.chain.ledger
        assert all(ledger.epochs[epoch].state in FULL for epoch in ledger.epoch_value)
        for entry in self.standing():
            intent = entry.intent
            assert ledger.epochs[intent.epoch].state in {*FULL, EpochState.PARKED}
            assert ledger.epochs[intent.target_epoch].state in FULL or not intent.vault_outputs

    @invariant()
    def commission_is_paid_once_and_as_promised(self) -> None:
        ledger = self.chain.ledger
        for number, entry in ledger.epochs.items():
            booked = [ledger.intents[booking.intent].intent for booking in ledger.bookings.values()]
            paid = [intent.commissions for intent in booked if intent.epoch == number and intent.commissions]
            assert len(paid) <= 1
            assert bool(paid) is entry.is_commission_paid
            assert not paid or paid[0] == entry.commissions

    @invariant()
    def exactly_one_epoch_is_active_with_its_successors_announced_or_due(self) -> None:
        ledger = self.chain.ledger
        active = [number for number, entry in ledger.epochs.items() if entry.state is EpochState.ACTIVE]
        assert active == [ledger.active_epoch]
        assert ledger.epochs[EpochNumber(active[0] + 1)].state is EpochState.STANDBY
        assert EpochNumber(active[0] + 2) in {*ledger.epochs, *ledger.due}

    def teardown(self) -> None:
        """Replaying every block gives the state we ended in."""
        chain = getattr(self, "chain", None)
        if chain is not None:
            again = replay(chain.ledger.genesis, REGTEST, chain.blocks)
            assert again.compute_state_root() == chain.ledger.compute_state_root()
            assert again.anchors == chain.ledger.anchors
            assert chain.ledger.median_btc_height is None or chain.ledger.median_btc_height >= BTC_START

    # -------------------------------------------------------------- helpers of the rules

    def attempt(self, record: Record) -> bool:
        try:
            self.chain.add(record)
        except (Refused, InvalidInput, Conflict):
            return False
        return True

    def standing(self) -> list[IntentEntry]:
        return [entry for entry in self.chain.ledger.intents.values() if entry.status.is_standing]

    def sweepable(self) -> list[EpochNumber]:
        ledger = self.chain.ledger
        retiring = [number for number, entry in ledger.epochs.items() if entry.state is EpochState.RETIRING]
        return [number for number in retiring if ledger.list_free_outputs(number)]

    def free_burns(self) -> list[BurnId]:
        ledger = self.chain.ledger
        burns = [item.burn_id for item in ledger.burns.values() if item.status is BurnStatus.OPEN]
        return [burn for burn in burns if not ledger.find_standing([], [burn])]

    def build_sweep(self, epoch: EpochNumber, fee: int, outputs: int, burns: list[BurnId]) -> Intent | None:
        """Return the sweep that the builder would make: with its commission where there is room for it."""
        ledger = self.chain.ledger
        value = sum(item.value for item in ledger.list_free_outputs(epoch))
        rest = value - fee - sum(ledger.burns[burn].request.payout for burn in burns)
        due = ledger.find_due_commission(epoch)
        left = rest - sum(item.amount for item in due)
        if left < outputs * REGTEST.min_vault_output:
            return None
        return self.chain.make_sweep(epoch, fee=fee, outputs=outputs, burns=burns)


def explore(examples: int, steps: int) -> None:
    bounds = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(TurningMachine, settings=bounds)


def test_no_history_of_turns_breaks_the_ledger() -> None:
    explore(12, 25)


@pytest.mark.soak
def test_no_long_history_of_turns_breaks_the_ledger() -> None:
    explore(600, 80)
