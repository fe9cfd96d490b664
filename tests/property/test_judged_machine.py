"""Random histories of a ledger that judges: whatever is proven, claimed or left undone, no satoshi is lost or made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from slashing.rejection import build_rejections
from slashing.release import find_release
from smpc.errors import BridgeError, Conflict, InvalidInput, NotFound, Refused
from smpc.params import REGTEST
from smpc.protocol.arming_records import list_armable
from smpc.protocol.checkpoints import CHECKPOINT_BLOCKS
from smpc.protocol.epoch import is_serving
from smpc.protocol.intents import Intent, IntentInput, IntentKind
from smpc.protocol.ledger import replay
from smpc.protocol.ledger_state import BurnStatus, EpochState, IntentEntry
from smpc.protocol.records import RESERVE_ACCOUNT, BookingRecorded, Record
from smpc.protocol.verdict_records import EvidenceRecorded
from smpc.protocol.verdict_state import Penalty, Verdict
from smpc.types import BtcHeight, BurnId, EpochNumber, IdentityKey, KaonHeight, Purpose, Role, Txid
from tests.support.armed_world import ArmedChain
from tests.support.chain import make_intent
from tests.support.groups import endorse
from tests.support.recovery_world import build_crowded_genesis
from tests.support.thefts import steal_vault
from tests.support.turning_chain import BTC_START, run_ceremonies
from tests.support.verdict_chain import complain, reject, reveal

JUDGED = (Role.VALIDATOR, Role.WITNESS)
HELD = {EpochState.ACTIVE, EpochState.RETIRING}
GONE = {EpochState.RETIRED, EpochState.ABORTED}
MOST_STEPS = 200
"""Blocks within which a verdict is reached, or a turn comes, where anything can still come."""


class JudgedMachine(RuleBasedStateMachine):
    """Deposits, burns and sweeps among silences, thefts, complaints, emergencies, recoveries and losses."""

    @initialize(reserve=st.sampled_from([60_000, 1_500_000]))
    def start(self, reserve: int) -> None:
        self.chain = ArmedChain.started(genesis=build_crowded_genesis())
        self.index = 1
        self.voted = self.chain.ledger.height - self.chain.ledger.height % CHECKPOINT_BLOCKS
        self.judged: dict[tuple[EpochNumber, Role], Verdict] = {}
        self.losses = 0
        self.chain.fund_active("alice", 4_000_000, 1)
        self.chain.fund_active("alice", 900_000, 2)
        self.chain.add(self.chain.make_send("alice", RESERVE_ACCOUNT, reserve))
        self.index = 2
        self.pass_blocks(4)

    # -------------------------------------------------------------- time

    @rule(blocks=st.sampled_from([1, 4, 20, 60]))
    def wait(self, blocks: int) -> None:
        """Time passes, and all but nobody beat and vote; whatever epoch is due gets its keys."""
        self.pass_blocks(blocks)

    @rule(blocks=st.integers(1, 40))
    def mine(self, blocks: int) -> None:
        """Bitcoin goes on, and the heartbeats say so."""
        self.chain.btc_height = BtcHeight(self.chain.btc_height + blocks)
        self.pass_blocks(REGTEST.heartbeat_blocks + 1)

    # -------------------------------------------------------------- flows

    @rule(value=st.integers(60_000, 900_000))
    def deposit(self, value: int) -> None:
        """Record the transfer of a deposit to the active epoch."""
        self.index += 1
        terms = self.chain.make_terms(self.index)
        if not self.attempt(self.chain.make_invoices(terms, request_id=b"%d" % self.index)):
            return
        self.offer(self.chain.make_transfer_of(self.chain.epoch.number, [(self.index, value)]))

    @precondition(lambda self: len(self.free_burns()) < 3)
    @rule(payout=st.integers(10_000, 60_000))
    def burn(self, payout: int) -> None:
        """Alice burns some of hers."""
        self.attempt(self.chain.make_burn("alice", payout))

    @precondition(lambda self: self.free_burns() and self.holding())
    @rule(data=st.data())
    def payout(self, data: st.DataObject) -> None:
        """Pay a burn from any epoch's outputs; only the active one's, while nobody judged it, is taken."""
        epoch = data.draw(st.sampled_from(self.holding()))
        burn = data.draw(st.sampled_from(self.free_burns()))
        booked = self.chain.ledger.list_free_outputs(epoch)
        if booked:
            self.chain.epoch = self.chain.keyed[epoch]
            intent = self.chain.make_payout([booked[0].outpoint], [burn])
            self.chain.epoch = self.chain.keyed[self.active]
            self.offer(intent)

    @precondition(lambda self: self.holding())
    @rule(data=st.data(), fee=st.integers(500, 4_000))
    def sweep(self, data: st.DataObject, fee: int) -> None:
        """Sweep any epoch that holds something."""
        epoch = data.draw(st.sampled_from(self.holding()))
        if self.chain.ledger.list_free_outputs(epoch) and epoch != self.active:
            self.offer_built(epoch, IntentKind.SWEEP, fee)

    @precondition(lambda self: self.holding())
    @rule(data=st.data(), fee=st.integers(500, 4_000))
    def recover(self, data: st.DataObject, fee: int) -> None:
        """Recover any epoch's outputs: taken only once its W is judged, and another epoch is active."""
        self.offer_built(data.draw(st.sampled_from(self.holding())), IntentKind.RECOVERY, fee)

    @precondition(lambda self: self.standing())
    @rule(data=st.data())
    def book(self, data: st.DataObject) -> None:
        """Any standing intent is mined and booked, by whichever epoch says so."""
        entry = data.draw(st.sampled_from(self.standing()))
        signer = data.draw(st.sampled_from([self.active, EpochNumber(max(0, self.active - 1))]))
        self.attempt_booking(lambda: self.chain.ledger.compute_booking(entry.intent.intent_id, signer))

    @precondition(lambda self: self.standing())
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        """Any standing intent is withdrawn by its own epoch."""
        intent = data.draw(st.sampled_from(self.standing())).intent
        self.chain.epoch = self.chain.keyed[intent.epoch]
        record = self.chain.make_withdrawal(intent.intent_id)
        self.chain.epoch = self.chain.keyed[self.active]
        self.attempt(record)

    @precondition(lambda self: self.chain.ledger.list_unarmed())
    @rule()
    def renew(self) -> None:
        """Let every E arm again what is stale, as far as there is anybody to arm it to."""
        for item in self.chain.ledger.list_unarmed():
            try:
                self.chain.renew(item.epoch, [item.outpoint])
            except (Refused, InvalidInput, Conflict, NotFound):
                continue

    # -------------------------------------------------------------- verdicts

    @precondition(lambda self: self.judgeable())
    @rule(data=st.data())
    def silence(self, data: st.DataObject) -> None:
        """Half of V or of W of an epoch stops for good, until that is judged and final."""
        epoch, role = data.draw(st.sampled_from(self.judgeable()))
        silent = self.chain.entry(epoch).groups[role].members[:2]
        if len(self.chain.ledger.stakes) < 16 or self.chain.entry(self.active).is_convicted:
            return
        for _ in range(MOST_STEPS):
            if (epoch, role) in self.chain.ledger.judgements.verdicts or self.chain.state(epoch) in GONE:
                return
            self.pass_blocks(1, silent)

    @precondition(lambda self: self.chain.ledger.epochs.get(EpochNumber(self.active + 1)))
    @rule(role=st.sampled_from(list(Role)))
    def lose_standby(self, role: Role) -> None:
        """Half of a standby's group stops: it is drawn again."""
        number = EpochNumber(self.active + 1)
        if self.chain.state(number) is not EpochState.STANDBY or len(self.chain.ledger.stakes) < 18:
            return
        silent = self.chain.entry(number).groups[role].members[:2]
        for _ in range(MOST_STEPS):
            if self.chain.state(number) is not EpochState.STANDBY:
                return
            self.pass_blocks(1, silent)

    @precondition(lambda self: self.judgeable())
    @rule(data=st.data(), both=st.booleans())
    def steal(self, data: st.DataObject, both: bool) -> None:
        """V signs what nothing records, alone or with W, and somebody shows it."""
        epoch, role = data.draw(st.sampled_from(self.judgeable()))
        held = [item for item in self.chain.ledger.vault.values() if item.epoch == epoch]
        if held and len(self.chain.ledger.stakes) >= 18:
            roles = JUDGED if both else (role,)
            self.attempt(EvidenceRecorded(steal_vault(self.chain.ledger, self.chain.keyed[epoch]).accuse(*roles)))

    @precondition(lambda self: self.standing())
    @rule(data=st.data(), role=st.sampled_from(JUDGED), count=st.integers(1, 4))
    def complain(self, data: st.DataObject, role: Role, count: int) -> None:
        """Members of the other group complain about an intent: taken only when it is overdue and may be signed."""
        entry = data.draw(st.sampled_from(self.standing()))
        epoch = entry.intent.epoch
        accusers = self.chain.entry(epoch).groups[JUDGED[role is Role.VALIDATOR]].members[:count]
        since = entry.recorded + REGTEST.challenge_blocks + REGTEST.silence_blocks
        is_due = is_serving(self.chain.entry(epoch), Purpose(entry.intent.kind)) and entry.replaced_by is None
        for accuser in accusers:
            taken = self.attempt(complain(accuser, role, entry.intent.intent_id, epoch))
            assert not taken or (is_due and self.chain.ledger.final_height >= since)

    @rule(data=st.data(), right=st.booleans())
    def reveal(self, data: st.DataObject, right: bool) -> None:
        """Publish the preimage, or something else: taken only under a final release."""
        epoch = data.draw(st.sampled_from(sorted(self.chain.keyed)))
        preimage = self.chain.keyed[epoch].preimage if right else bytes(32)
        judgements = self.chain.ledger.judgements
        expected = right and epoch not in judgements.preimages and judgements.is_final(epoch, Role.VALIDATOR)
        assert self.attempt(reveal(epoch, preimage)) is expected or self.chain.entry(epoch).draw

    @precondition(lambda self: self.released())
    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        """W signs what is left to reject of a released epoch: taken once the release is final."""
        epoch = data.draw(st.sampled_from(self.released()))
        is_final = self.chain.ledger.judgements.is_final(epoch, Role.VALIDATOR)
        is_served = is_serving(self.chain.entry(epoch), Purpose.REJECTION)
        for built in build_rejections(self.chain.ledger, epoch):
            assert self.attempt(reject(self.chain, built)) is (is_final and is_served)

    @precondition(lambda self: self.released() and self.holding())
    @rule(data=st.data(), rung=st.integers(0, 2))
    def book_emergency(self, data: st.DataObject, rung: int) -> None:
        """Any rung of any armed output of a released epoch is mined and booked; a second one of it never is."""
        epoch = data.draw(st.sampled_from(self.released()))
        ledger = self.chain.ledger
        outpoints = ledger.judgements.list_rejectable(epoch)
        if not outpoints:
            return
        outpoint = data.draw(st.sampled_from(outpoints))
        found = find_release(ledger, epoch, outpoint)
        if found.bundle is None:
            return
        rungs = found.bundle.emergency.rungs
        txid = rungs[min(rung, len(rungs) - 1)].transaction.txid
        if self.attempt_booking(lambda: ledger.judgements.compute_emergency_booking(outpoint, txid)):
            for other in rungs:
                again = other.transaction.txid
                assert not self.attempt_booking(lambda: ledger.judgements.compute_emergency_booking(outpoint, again))  # noqa: B023

    @precondition(lambda self: self.released())
    @rule()
    def execute(self) -> None:
        """Do everything that the newest release asks for, one after the other, and let nothing of it be left."""
        epoch = self.released()[-1]
        self.pass_blocks(3 * CHECKPOINT_BLOCKS)
        self.attempt(reveal(epoch, self.chain.keyed[epoch].preimage))
        for built in build_rejections(self.chain.ledger, epoch):
            self.attempt(reject(self.chain, built))
        ledger = self.chain.ledger
        is_signer_void = self.chain.entry(self.active).is_convicted
        for outpoint in ledger.judgements.list_rejectable(epoch):
            found = find_release(ledger, epoch, outpoint)
            if found.fault is None and outpoint in ledger.vault:
                txid = found.complete()[0].transaction.txid
                booked = self.attempt_booking(lambda: ledger.judgements.compute_emergency_booking(outpoint, txid))  # noqa: B023
                assert booked is not is_signer_void

    @precondition(lambda self: self.chain.ledger.vault)
    @rule(data=st.data(), odds=st.integers(0, 4))
    def lose(self, data: st.DataObject, odds: int) -> None:
        """Book the loss of an output that a transaction of no record spent for good: the reserve bears it."""
        if odds:
            return
        outpoint = data.draw(st.sampled_from(sorted(self.chain.ledger.vault)))
        reserve, value = self.chain.ledger.reserve, self.chain.ledger.vault[outpoint].value
        txid = Txid(self.losses.to_bytes(32, "big"))
        if self.attempt_booking(lambda: self.chain.ledger.judgements.compute_loss_booking((outpoint,), txid)):
            self.losses += 1
            assert self.chain.ledger.reserve == reserve - value

    @precondition(lambda self: self.chain.ledger.reserve < 100_000)
    @rule(amount=st.integers(1, 900_000))
    def top_up(self, amount: int) -> None:
        """Top the reserve up."""
        self.attempt(self.chain.make_send("alice", RESERVE_ACCOUNT, amount))

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
    def what_is_covered_and_what_is_not_is_all_there_is(self) -> None:
        ledger = self.chain.ledger
        missing = Counter[EpochNumber]()
        for item in ledger.list_unarmed():
            missing[item.epoch] += item.value
        for coverage in ledger.compute_coverage().epochs:
            assert coverage.armed + missing[coverage.epoch] == coverage.total == ledger.epoch_value[coverage.epoch]

    @invariant()
    def a_verdict_is_for_ever(self) -> None:
        now = dict(self.chain.ledger.judgements.verdicts)
        assert now.items() >= self.judged.items()
        self.judged = now
        for (epoch, role), verdict in now.items():
            entry = self.chain.entry(epoch)
            assert verdict.recorded == (entry.released if role is Role.VALIDATOR else entry.witness_lost)

    @invariant()
    def nothing_but_a_recovery_is_recorded_of_a_judged_epoch(self) -> None:
        for entry in self.chain.ledger.intents.values():
            epoch = self.chain.entry(entry.intent.epoch)
            ends = [height for height in (epoch.released, epoch.witness_lost) if height is not None]
            if entry.intent.kind is IntentKind.RECOVERY:
                assert epoch.witness_lost is not None
                assert entry.recorded > epoch.witness_lost
            else:
                assert all(entry.recorded <= end for end in ends)

    @invariant()
    def every_output_is_spent_and_every_deposit_credited_once(self) -> None:
        bookings = self.chain.ledger.bookings.values()
        gone = Counter(outpoint for booking in bookings for outpoint in booking.vault_spent)
        credited = Counter(credit.outpoint for booking in bookings for credit in booking.credits)
        assert all(count == 1 for count in (*gone.values(), *credited.values()))
        assert not gone.keys() & self.chain.ledger.vault.keys()

    @invariant()
    def no_epoch_retires_with_value_or_while_it_is_needed(self) -> None:
        ledger = self.chain.ledger
        assert all(ledger.epochs[epoch].state not in GONE for epoch in ledger.epoch_value)
        for outpoint, entry in ledger.vault.items():
            for item in ledger.armings.get(outpoint, ()):
                if (item.epoch, item.output.child) == (entry.epoch, entry.child):
                    assert ledger.epochs[item.target].state is not EpochState.RETIRED

    @invariant()
    def nobody_is_slashed_for_what_a_group_signed(self) -> None:
        everything = (item for items in self.chain.ledger.judgements.punishments.values() for item in items)
        assert all(item.penalty is Penalty.JAILED and not item.stake for item in everything)

    @invariant()
    def exactly_one_epoch_is_active(self) -> None:
        ledger = self.chain.ledger
        active = [number for number, entry in ledger.epochs.items() if entry.state is EpochState.ACTIVE]
        assert active == [ledger.active_epoch]

    def teardown(self) -> None:
        """Replaying every block gives the state we ended in."""
        chain = getattr(self, "chain", None)
        if chain is not None:
            again = replay(chain.ledger.genesis, REGTEST, chain.blocks)
            assert again.compute_state_root() == chain.ledger.compute_state_root()
            assert chain.ledger.median_btc_height is None or chain.ledger.median_btc_height >= BTC_START

    # -------------------------------------------------------------- helpers of the rules

    @property
    def active(self) -> EpochNumber:
        active = self.chain.ledger.active_epoch
        assert active is not None
        return active

    def pass_blocks(self, count: int, silent: Collection[IdentityKey] = ()) -> None:
        """Let blocks pass with what everybody but `silent` attests, and key whatever is due."""
        chain, ledger = self.chain, self.chain.ledger
        for _ in range(count):
            present = [
                (number, item.identity)
                for number, item in enumerate(ledger.genesis.validators)
                if item.identity not in silent
            ]
            newest = ledger.height - ledger.height % CHECKPOINT_BLOCKS
            votes: list[Record] = []
            if newest > self.voted:
                self.voted = newest
                # Who was jailed just now votes first: once the block that jailed him is final he may not.
                ordered = sorted(present, key=lambda item: item[1] in ledger.stakes)
                voters = [number for number, key in ordered if key in ledger.voting_stakes]
                votes = [chain.make_vote(number, newest) for number in voters]
            span = ledger.height // REGTEST.heartbeat_blocks
            due = [number for number, key in present if self.last_span(key) < span]
            chain.add(*votes, *(chain.make_heartbeat(number) for number in due))
            self.key_what_is_due()

    def last_span(self, identity: IdentityKey) -> int:
        known = self.chain.ledger.heartbeats.get(identity)
        return -1 if known is None else known.heartbeat.kaon_height // REGTEST.heartbeat_blocks

    def key_what_is_due(self) -> None:
        chain, ledger = self.chain, self.chain.ledger
        for number, due in list(ledger.due.items()):
            if due.members:
                keyed = run_ceremonies(number, due.members, due.origin.draw, due.origin.first_attempt)
                if self.attempt(keyed.announced):
                    chain.keyed[number] = keyed
        for number, entry in list(ledger.epochs.items()):
            if entry.state is EpochState.ANNOUNCED:
                self.attempt(*chain.keyed[number].records[1:])

    def attempt(self, *records: Record) -> bool:
        """Offer a block; what is taken of a judged epoch is checked on the way."""
        judged = {number for number, _ in self.chain.ledger.judgements.verdicts}
        try:
            self.chain.add(*records)
        except (Refused, InvalidInput, Conflict):
            return False
        for record in records:
            if isinstance(record, BookingRecorded):
                assert record.booking.epoch not in judged, "a judged epoch books nothing"
        return True

    def attempt_booking(self, compute: object) -> bool:
        try:
            booking = compute()  # type: ignore[operator]
        except (Refused, InvalidInput, NotFound):
            return False
        return self.attempt(self.chain.sign_booking(booking))

    def offer(self, intent: Intent) -> bool:
        """Arm an intent as far as the ledger takes it, and offer it: what is taken was armed whole."""
        try:
            armings = self.chain.list_armings(intent)
        except BridgeError:
            armings = ()
        for record in armings:
            self.attempt(record)
        unarmed = {
            item.outpoint
            for epoch, items in list_armable(intent).items()
            for item in items
            if not any(
                (known.epoch, known.output) == (epoch, item)
                and self.chain.state(known.target) in {*HELD, EpochState.STANDBY}
                for known in self.chain.ledger.armings.get(item.outpoint, ())
            )
        }
        offered = endorse(self.chain.keyed[intent.epoch], intent, self.height)
        taken = self.attempt(offered)
        assert not (taken and unarmed), "an intent was recorded of which not everything is armed"
        return taken

    @property
    def height(self) -> KaonHeight:
        return self.chain.ledger.height

    def offer_built(self, epoch: EpochNumber, kind: IntentKind, fee: int) -> None:
        """Offer a transaction of all that an epoch holds."""
        ledger = self.chain.ledger
        booked = [item for item in ledger.vault.values() if item.epoch == epoch]
        if kind is IntentKind.SWEEP:
            booked = list(ledger.list_free_outputs(epoch))
        due = ledger.find_due_commission(epoch) if kind is IntentKind.SWEEP else ()
        value = sum(item.value for item in booked) - fee - sum(item.amount for item in due)
        if value < REGTEST.min_vault_output:
            return
        if kind is IntentKind.SWEEP:
            self.offer(self.chain.make_sweep(epoch, fee=fee))
            return
        inputs = tuple(IntentInput(item.outpoint, item.value, item.child) for item in booked)
        ordered = tuple(sorted(inputs, key=lambda item: item.outpoint))
        self.offer(make_intent(kind, ordered, (), fee=fee, outputs=1, epoch=epoch, target=self.active))

    def standing(self) -> list[IntentEntry]:
        return [entry for entry in self.chain.ledger.intents.values() if entry.status.is_standing]

    def holding(self) -> list[EpochNumber]:
        return sorted(self.chain.ledger.epoch_value)

    def released(self) -> list[EpochNumber]:
        return [number for number, entry in sorted(self.chain.ledger.epochs.items()) if entry.released is not None]

    def judgeable(self) -> list[tuple[EpochNumber, Role]]:
        ledger = self.chain.ledger
        states = [number for number, entry in sorted(ledger.epochs.items()) if entry.state in HELD]
        return [
            (number, role) for number in states for role in JUDGED if (number, role) not in ledger.judgements.verdicts
        ]

    def free_burns(self) -> list[BurnId]:
        ledger = self.chain.ledger
        burns = [item.burn_id for item in ledger.burns.values() if item.status is BurnStatus.OPEN]
        return [burn for burn in burns if not ledger.find_standing([], [burn])]


def explore(examples: int, steps: int) -> None:
    bounds = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        # A history takes seconds: made shorter, a failure would be told after many minutes.
        phases=(Phase.reuse, Phase.generate),
    )
    run_state_machine_as_test(JudgedMachine, settings=bounds)


def test_no_history_of_verdicts_breaks_the_ledger() -> None:
    explore(10, 25)


@pytest.mark.soak
def test_no_long_history_of_verdicts_breaks_the_ledger() -> None:
    explore(50, 60)
