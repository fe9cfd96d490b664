"""The whole ledger under random histories: the money identity, once-only credits and payouts, and replay, always."""

from __future__ import annotations

from collections.abc import Iterable
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
from smpc.protocol.end_records import ChallengeRaised
from smpc.protocol.intents import Intent, IntentInput, IntentKind
from smpc.protocol.ledger import replay
from smpc.protocol.ledger_state import BurnStatus, IntentEntry, IntentStatus
from smpc.protocol.records import RESERVE_ACCOUNT, Record
from smpc.types import BurnId, ChildIndex, IntentId, Network, Outpoint, Sats, Signature, Txid
from tests.support.chain import LedgerChain, make_intent
from tests.support.groups import endorse, make_account, sign

USERS = ("alice", "bob", "carol")
users = st.sampled_from(USERS)


class LedgerMachine(RuleBasedStateMachine):
    """Honest and dishonest moves; what must always hold is checked from the tables alone, never from the totals."""

    @initialize()
    def start(self) -> None:
        self.chain = LedgerChain.activated()
        self.deposits: dict[Outpoint, tuple[int, int]] = {}
        self.index = 0
        self.paid_in = 0
        for user in USERS:
            self.deposit(user, [1_500_000, 40_000])
            self.index += 1
            self.chain.fund(user, 2_000_000, self.index)
            self.chain.burn(user, 100_000)

    # -------------------------------------------------------------- peg-in

    @rule(user=users, values=st.lists(st.integers(20_000, 3_000_000), min_size=1, max_size=3))
    def deposit(self, user: str, values: list[int]) -> None:
        """Issue one invoice and pay it once or several times."""
        self.index += 1
        terms = self.chain.make_terms(self.index, user=user)
        self.chain.add(self.chain.make_invoices(terms, request_id=b"%d" % self.index))
        for place, value in enumerate(values):
            self.deposits[Outpoint(Txid(self.index.to_bytes(32, "big")), place)] = (self.index, value)

    @precondition(lambda self: self.free_deposits())
    @rule(data=st.data(), fee=st.integers(200, 6_000), outputs=st.integers(1, 2))
    def transfer(self, data: st.DataObject, fee: int, outputs: int) -> None:
        """Record a transfer of deposits nobody holds."""
        chosen = data.draw(st.lists(st.sampled_from(self.free_deposits()), min_size=1, max_size=4, unique=True))
        self.offer(self.build_transfer(chosen, fee, outputs))

    # -------------------------------------------------------------- peg-out

    @rule(user=users, payout=st.integers(10_000, 400_000), extra=st.integers(0, 500))
    def burn(self, user: str, payout: int, extra: int) -> None:
        """Burn, where the account can pay for it."""
        record = self.chain.make_burn(user, payout)
        fee = record.fee + extra
        if self.chain.ledger.get_account(record.sender).balance >= payout + fee:
            self.chain.add(self.chain.make_burn(user, payout, fee=fee))

    @precondition(lambda self: self.open_burns())
    @rule(data=st.data(), extra=st.integers(1, 2_000))
    def raise_limit(self, data: st.DataObject, extra: int) -> None:
        """Raise a burn's limit; the ledger says whether it can be."""
        burn, user = data.draw(st.sampled_from(self.open_burns()))
        self.attempt(self.chain.make_raise(user, burn, extra))

    @precondition(lambda self: self.open_burns())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Cancel: exactly when no standing intent pays the burn."""
        burn, user = data.draw(st.sampled_from(self.open_burns()))
        held = bool(self.chain.ledger.find_standing([], [burn]))
        assert self.attempt(self.chain.make_cancel(user, burn)) is not held

    @precondition(lambda self: self.free_outputs() and self.free_burns())
    @rule(data=st.data(), fee=st.integers(200, 6_000), outputs=st.integers(0, 2))
    def payout(self, data: st.DataObject, fee: int, outputs: int) -> None:
        """Record a payout from outputs and of burns nobody holds, where the value suffices."""
        outpoints = data.draw(st.lists(st.sampled_from(self.free_outputs()), min_size=1, max_size=3, unique=True))
        burns = data.draw(st.lists(st.sampled_from(self.free_burns()), min_size=1, max_size=3, unique=True))
        self.offer_payout(outpoints, burns, fee, outputs, ())

    # -------------------------------------------------------------- intents' lives

    @precondition(lambda self: self.live())
    @rule(data=st.data(), more=st.integers(1, 2_000))
    def bump(self, data: st.DataObject, more: int) -> None:
        """Replace a live intent by one with a higher fee and the same inputs and payments."""
        entry = data.draw(st.sampled_from(self.live()))
        old = entry.intent
        standing = self.chain.ledger.find_standing(old.outpoints, old.burns)
        fee = max(item.intent.fee for item in standing) + more
        replaces = tuple(item.intent.intent_id for item in standing)
        if old.kind is IntentKind.PAYOUT:
            burns = list(dict.fromkeys(burn for item in standing for burn in item.intent.burns))
            outpoints = [item.outpoint for item in old.inputs]
            self.offer_payout(outpoints, burns, fee, len(old.vault_outputs), replaces)
            return
        rest = sum(item.value for item in old.inputs) - fee
        if rest >= len(old.vault_outputs) * REGTEST.min_vault_output:
            inputs = old.inputs
            self.offer(make_intent(old.kind, inputs, (), fee=fee, outputs=len(old.vault_outputs), replaces=replaces))

    @precondition(lambda self: self.standing())
    @rule(data=st.data())
    def book(self, data: st.DataObject) -> None:
        """Book any standing version: it is the one that was mined."""
        entry = data.draw(st.sampled_from(self.standing()))
        record = self.chain.sign_booking(self.chain.ledger.compute_booking(entry.intent.intent_id))
        halted = entry.intent.kind is IntentKind.TRANSFER and self.chain.ledger.reserve < 0
        assert self.attempt(record) is not halted

    @precondition(lambda self: self.standing())
    @rule(data=st.data(), is_withdrawn=st.booleans())
    def end(self, data: st.DataObject, is_withdrawn: bool) -> None:
        """Withdraw an intent, or declare it dead because a stranger spent one of its inputs."""
        intent = data.draw(st.sampled_from(self.standing())).intent
        if is_withdrawn:
            self.chain.add(self.chain.make_withdrawal(intent.intent_id))
        elif intent.kind is IntentKind.TRANSFER:
            outpoint = intent.inputs[0].outpoint
            self.chain.add(self.chain.make_death(intent.intent_id, outpoint, Txid(b"\xee" * 32)))
            self.deposits.pop(outpoint, None)

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def challenge(self, data: st.DataObject) -> None:
        """Challenge an honest intent: it is never made void."""
        intent = data.draw(st.sampled_from(self.live())).intent.intent_id
        identity, secret = next(iter(self.chain.epoch.identities.items()))
        record = ChallengeRaised(Network.REGTEST, intent, identity, "V10", "", Signature(bytes(64)))
        self.attempt(replace(record, signature=sign(secret, record.digest)))
        assert self.chain.ledger.intents[intent].status is IntentStatus.LIVE

    # -------------------------------------------------------------- kBTC

    @rule(sender=users, recipient=users, amount=st.integers(1, 2_500_000))
    def send(self, sender: str, recipient: str, amount: int) -> None:
        """Send kBTC: exactly when the balance suffices."""
        record = self.chain.make_send(sender, make_account(recipient)[1], amount)
        suffices = self.chain.ledger.get_account(record.sender).balance >= amount
        assert self.attempt(record) is suffices

    @precondition(lambda self: self.chain.ledger.reserve < 10_000)
    @rule(sender=users, amount=st.integers(1, 5_000))
    def pay_in(self, sender: str, amount: int) -> None:
        """Top the reserve up."""
        if self.attempt(self.chain.make_send(sender, RESERVE_ACCOUNT, amount)):
            self.paid_in += amount

    # -------------------------------------------------------------- lies

    @precondition(lambda self: self.standing())
    @rule(data=st.data())
    def pay_again(self, data: st.DataObject) -> None:
        """Offer a second intent on held outpoints without naming the first: always refused."""
        entry = data.draw(st.sampled_from(self.standing()))
        again = replace(entry.intent, txid=Txid(b"\xdd" * 32), replaces=())
        assert not self.attempt(endorse(self.chain.epoch, again, self.chain.ledger.height))

    @precondition(lambda self: self.chain.ledger.bookings)
    @rule(data=st.data())
    def book_again(self, data: st.DataObject) -> None:
        """Offer a booking twice: always refused."""
        booking = data.draw(st.sampled_from(sorted(self.chain.ledger.bookings.values(), key=lambda item: item.txid)))
        assert not self.attempt(self.chain.sign_booking(booking))

    @precondition(lambda self: self.standing())
    @rule(data=st.data(), change=st.sampled_from([-1, 1]))
    def book_wrongly(self, data: st.DataObject, change: int) -> None:
        """Offer a booking that moves the reserve by one satoshi more or less: always refused."""
        entry = data.draw(st.sampled_from(self.standing()))
        booking = self.chain.ledger.compute_booking(entry.intent.intent_id)
        if booking.reserve_gain + change >= 0:
            wrong = replace(booking, reserve_gain=Sats(booking.reserve_gain + change))
            assert not self.attempt(self.chain.sign_booking(wrong))

    # -------------------------------------------------------------- what always holds

    @invariant()
    def the_money_identity_holds_to_the_satoshi(self) -> None:
        ledger = self.chain.ledger
        vault = sum(entry.value for entry in ledger.vault.values())
        supply = sum(entry.balance for entry in ledger.accounts.values())
        burns = [entry for entry in ledger.burns.values() if entry.status is BurnStatus.OPEN]
        open_burns = sum(entry.request.payout + entry.fee for entry in burns)
        booked = sum(booking.reserve_gain - booking.reserve_loss for booking in ledger.bookings.values())
        assert vault == supply + open_burns + booked + self.paid_in
        assert (ledger.vault_total, ledger.supply, ledger.open_burns) == (vault, supply, open_burns)
        assert ledger.reserve == booked + self.paid_in

    @invariant()
    def no_balance_is_negative(self) -> None:
        assert all(entry.balance >= 0 for entry in self.chain.ledger.accounts.values())

    @invariant()
    def each_deposit_is_credited_once_and_each_burn_settled_once(self) -> None:
        bookings = self.chain.ledger.bookings.values()
        credited = [credit.outpoint for booking in bookings for credit in booking.credits]
        settled = [burn for booking in bookings for burn in booking.settled]
        assert len(set(credited)) == len(credited) == len(self.chain.ledger.credited)
        assert len(set(settled)) == len(settled)

    @invariant()
    def standing_intents_that_share_a_burn_share_an_input(self) -> None:
        standing = self.standing()
        for entry in standing:
            for other in standing:
                if entry.intent.burns & other.intent.burns:
                    assert entry.intent.outpoints & other.intent.outpoints

    @invariant()
    def at_most_one_intent_is_live_per_outpoint_and_burn(self) -> None:
        live = [entry.intent for entry in self.live()]
        for things in ([intent.outpoints for intent in live], [intent.burns for intent in live]):
            flat: list[object] = [thing for group in things for thing in group]
            assert len(set(flat)) == len(flat)

    def teardown(self) -> None:
        """Replaying every block gives the state we ended in."""
        chain = getattr(self, "chain", None)
        if chain is not None:
            again = replay(chain.epoch.genesis, REGTEST, chain.blocks)
            assert again.compute_state_root() == chain.ledger.compute_state_root()

    # -------------------------------------------------------------- helpers of the rules

    def attempt(self, record: Record) -> bool:
        try:
            self.chain.add(record)
        except (Refused, InvalidInput, Conflict):
            return False
        return True

    def offer(self, intent: Intent) -> None:
        record = endorse(self.chain.epoch, intent, self.chain.ledger.height)
        halted = intent.kind is IntentKind.TRANSFER and not intent.replaces and self.chain.ledger.reserve < 0
        if intent.intent_id in self.chain.ledger.intents or halted or len(intent.replaces) > REGTEST.bump_max_count:
            assert not self.attempt(record)
        else:
            self.chain.add(record)

    def build_transfer(self, outpoints: Iterable[Outpoint], fee: int, outputs: int) -> Intent:
        inputs = tuple(
            IntentInput(outpoint, Sats(self.deposits[outpoint][1]), ChildIndex(self.deposits[outpoint][0]))
            for outpoint in outpoints
        )
        rest = sum(item.value for item in inputs) - fee
        return make_intent(IntentKind.TRANSFER, inputs, (), fee=fee, outputs=outputs if rest >= 200_000 else 1)

    def offer_payout(
        self, outpoints: list[Outpoint], burns: list[BurnId], fee: int, outputs: int, replaces: tuple[IntentId, ...]
    ) -> None:
        ledger = self.chain.ledger
        rest = sum(ledger.vault[outpoint].value for outpoint in outpoints) - fee
        rest -= sum(ledger.burns[burn].request.payout for burn in burns)
        if rest >= outputs * REGTEST.min_vault_output and outputs:
            self.offer(self.chain.make_payout(outpoints, burns, fee=fee, outputs=outputs, replaces=replaces))
        elif 0 <= rest < REGTEST.min_vault_output:
            self.offer(self.chain.make_payout(outpoints, burns, fee=fee + rest, outputs=0, replaces=replaces))

    def standing(self) -> list[IntentEntry]:
        return [entry for entry in self.chain.ledger.intents.values() if entry.status.is_standing]

    def live(self) -> list[IntentEntry]:
        return [entry for entry in self.standing() if entry.status is IntentStatus.LIVE]

    def free_deposits(self) -> list[Outpoint]:
        ledger = self.chain.ledger
        return [
            outpoint
            for outpoint in self.deposits
            if outpoint not in ledger.credited and not ledger.find_standing([outpoint], [])
        ]

    def free_outputs(self) -> list[Outpoint]:
        ledger = self.chain.ledger
        return sorted(outpoint for outpoint in ledger.vault if not ledger.find_standing([outpoint], []))

    def open_burns(self) -> list[tuple[BurnId, str]]:
        names = {make_account(user)[1]: user for user in USERS}
        burns = self.chain.ledger.burns.values()
        return [(item.burn_id, names[item.request.sender]) for item in burns if item.status is BurnStatus.OPEN]

    def free_burns(self) -> list[BurnId]:
        return [burn for burn, _ in self.open_burns() if not self.chain.ledger.find_standing([], [burn])]


def explore(examples: int, steps: int) -> None:
    bounds = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(LedgerMachine, settings=bounds)


def test_no_history_breaks_the_ledger() -> None:
    explore(60, 50)


@pytest.mark.soak
def test_no_long_history_breaks_the_ledger() -> None:
    explore(2_000, 120)
