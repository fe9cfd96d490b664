"""A peg-out's and a batch's life against small models of the chains and of pods that answer, refuse or stay silent."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from pegout.events import PegOutEvent
from pegout.lifecycle import PEGOUT, PegOut, PegOutState
from pegout.steps import PegOutView
from pegout.steps import find_event as find_pegout_event
from pegout.steps import step as step_pegout
from smpc.params import REGTEST
from smpc.protocol import batch_events as events
from smpc.protocol.ancestry import ForeignSpend
from smpc.protocol.batch import BATCH, UNRECORDED, Batch, BatchState, find_due_effect
from smpc.protocol.batch_events import BatchEvent
from smpc.protocol.batch_steps import open_batch, open_recorded_batch, step
from smpc.protocol.batch_view import BatchView, find_event
from smpc.protocol.codec import decode, encode
from smpc.protocol.ledger_state import BurnStatus, IntentEntry, IntentStatus
from smpc.protocol.machine import advance
from smpc.types import BtcHeight, KaonHeight, Role, Txid
from tests.support.lifecycle_samples import BOOKING, INTENT, INTENT_ID, OTHER_ID, OUTPOINT, PEGOUT_SAMPLE, SIGNATURE

P, B = PegOutState, BatchState
PAID = Txid(b"\x0c" * 32)
BUMPED = Txid(b"\x0d" * 32)
STEPS = settings(max_examples=100, stateful_step_count=30, deadline=None)


# ------------------------------------------------------------------ peg-out


def settle_pegout(pegout: PegOut, view: PegOutView) -> PegOut:
    """Step a peg-out until it agrees with the chains."""

    def look(record: PegOut) -> PegOutEvent | None:
        return find_pegout_event(record, view)

    steps = advance(pegout, look, step_pegout)
    return steps[-1][1].record if steps else pegout


class PegOutLife(RuleBasedStateMachine):
    """Batches come and go, transactions are mined and unmined; the record follows."""

    def __init__(self) -> None:
        super().__init__()
        self.pegout = PEGOUT_SAMPLE
        self.view = PegOutView(KaonHeight(6), BurnStatus.OPEN)
        self.ended: PegOut | None = None

    def change(self, **changes: object) -> None:
        """Change what is true."""
        fields = {name: getattr(self.view, name) for name in PegOutView.__slots__}
        self.view = PegOutView(**{**fields, **changes})

    @property
    def is_open(self) -> bool:
        """Whether the burn may still be paid or cancelled."""
        return self.view.status is BurnStatus.OPEN

    @rule(blocks=st.integers(1, 30))
    def pass_blocks(self, blocks: int) -> None:
        self.change(kaon_height=KaonHeight(self.view.kaon_height + blocks))

    @precondition(lambda self: self.is_open and self.view.intent is None)
    @rule(planned=st.booleans())
    def plan(self, planned: bool) -> None:
        self.change(planned=OTHER_ID if planned else None)

    @precondition(lambda self: self.is_open and self.view.mined is None)
    @rule(intent=st.sampled_from([None, INTENT_ID, OTHER_ID]), signing=st.booleans(), sent=st.booleans())
    def record(self, intent: bytes | None, signing: bool, sent: bool) -> None:
        txid = PAID if intent == INTENT_ID else BUMPED
        is_sent = intent is not None and signing and sent
        self.change(planned=None, intent=intent, is_signing=signing, sent=txid if is_sent else None)

    @precondition(lambda self: self.is_open and self.view.sent is not None)
    @rule(height=st.sampled_from([None, 61, 62]))
    def mine_or_unmine(self, height: int | None) -> None:
        self.change(mined=self.view.sent if height else None, height=height)

    @precondition(lambda self: self.is_open and self.view.mined is not None)
    @rule()
    def settle_burn(self) -> None:
        self.change(status=BurnStatus.SETTLED, settled_by=self.view.mined, intent=None)

    @precondition(lambda self: self.is_open and self.view.intent is None and self.view.mined is None)
    @rule(status=st.sampled_from([BurnStatus.CANCELLED, None]))
    def cancel_or_undo(self, status: BurnStatus | None) -> None:
        self.change(status=status)

    @precondition(lambda self: self.is_open)
    @rule()
    def pay_at_once(self) -> None:
        """Let the whole honest way happen unseen, so that the late states are met often."""
        self.change(intent=INTENT_ID, is_signing=True, sent=PAID, mined=PAID, height=61)
        self.look()

    @precondition(lambda self: self.view.intent is not None)
    @rule()
    def replace_what_was_sent(self) -> None:
        self.change(intent=OTHER_ID, is_signing=True, sent=BUMPED, mined=None, height=None)
        self.look()

    @rule()
    def restart(self) -> None:
        self.pegout = decode(PegOut, encode(self.pegout))

    @rule()
    def look(self) -> None:
        self.pegout = settle_pegout(self.pegout, self.view)
        if self.ended is not None:
            assert self.pegout == self.ended, "a terminal peg-out moved"
            return
        assert self.pegout.state in self.compute_state()
        assert find_pegout_event(self.pegout, self.view) is None
        if PEGOUT.is_terminal(self.pegout.state):
            self.ended = self.pegout

    @rule()
    def rebuild(self) -> None:
        """From nothing but the chains comes the state that the old record has."""
        assert settle_pegout(PEGOUT_SAMPLE, self.view).state in self.compute_state()

    def compute_state(self) -> set[PegOutState]:
        """Say in which states the peg-out may be, from what is true alone."""
        view = self.view
        ends = {BurnStatus.SETTLED: P.BOOKED, BurnStatus.CANCELLED: P.CANCELLED, None: P.UNDONE}
        if view.status is not BurnStatus.OPEN:
            return {ends[view.status]}
        if view.mined is not None:
            return {P.CONFIRMED}
        if view.intent is not None:
            return {P.BROADCAST} if view.sent else {P.SIGNING} if view.is_signing else {P.RECORDED}
        return {P.PLANNED} if view.planned else {P.REQUESTED}


TestPegOutLife = PegOutLife.TestCase
TestPegOutLife.settings = STEPS

# ------------------------------------------------------------------ batch


@dataclass(slots=True)
class Chains:
    """What is true of the intent and its transaction."""

    kaon: int = 100
    btc: int = 50
    status: IntentStatus | None = None
    recorded: int | None = None
    is_signed: bool = False
    in_mempool: bool = False
    mined: int | None = None
    spent_otherwise: bool = False

    def to_view(self) -> BatchView:
        """Return what an observer reads."""
        recorded = None if self.recorded is None else KaonHeight(self.recorded)
        return BatchView(
            kaon_height=KaonHeight(self.kaon),
            btc_height=BtcHeight(self.btc),
            status=self.status,
            recorded=recorded,
            replaced_by=OTHER_ID if self.status is IntentStatus.REPLACED else None,
            is_window_over=recorded is not None and REGTEST.is_window_over(recorded, KaonHeight(self.kaon - 2)),
            is_in_mempool=self.in_mempool and self.mined is None,
            mined=None if self.mined is None else BtcHeight(self.mined),
            booking_depth=1,
            spent_input=ForeignSpend(OUTPOINT, PAID) if self.spent_otherwise else None,
        )


class BatchLife(RuleBasedStateMachine):
    """Pods answer or not, chains move, the coordinator dies and comes back; money is asked for in one order only."""

    def __init__(self) -> None:
        super().__init__()
        self.chains = Chains()
        self.batch = open_batch(INTENT, KaonHeight(100)).record
        self.ended: Batch | None = None

    @initialize()
    def plan(self) -> None:
        opened = open_batch(INTENT, KaonHeight(100))
        assert opened.effects == (events.AskEndorsements(INTENT.intent_id),)

    def answer(self, event: BatchEvent) -> None:
        """Take an answer of pods or of the ledger, if this state waits for it."""
        if BATCH.find_row(self.batch.state, type(event)) is not None:
            self.take(step(self.batch, event).effects, step(self.batch, event).record)

    def take(self, effects: tuple[object, ...], record: Batch) -> None:
        """Persist, then check what is asked for."""
        self.batch = decode(Batch, encode(record))
        for effect in effects:
            self.check_effect(effect)

    def check_effect(self, effect: object) -> None:
        """Nothing is asked for out of turn."""
        batch, chains = self.batch, self.chains
        match effect:
            case events.AskValidators():
                assert chains.to_view().is_window_over
            case events.AskCosigners():
                assert batch.validator_signatures
            case events.BroadcastTransaction():
                assert batch.signed_tx
                assert batch.recorded is not None
            case events.AskBooking() | events.SubmitBooking():
                assert batch.mined is not None
            case events.PlanBump():
                assert batch.state in {B.WINDOW_OVER, B.VALIDATORS_SIGNED, B.SIGNED, B.BROADCAST}
                assert batch.mined is None
            case events.AskWithdrawal():
                assert not batch.validator_signatures
            case _:
                pass

    @rule(stages=st.integers(1, 9))
    def proceed(self, stages: int) -> None:
        """Let the next honest things happen, so that the late states are met often."""
        for _ in range(stages):
            self.proceed_once()
            self.look()

    def proceed_once(self) -> None:
        """Answer as honest pods, nodes and ledgers do in this state."""
        self.chains.kaon += 1
        match self.batch.state:
            case B.PLANNED:
                self.endorse()
            case B.ENDORSED:
                self.record()
            case B.RECORDED:
                self.chains.kaon += 4
            case B.WINDOW_OVER:
                self.sign_by_validators()
            case B.VALIDATORS_SIGNED:
                self.sign_by_witnesses()
            case B.SIGNED:
                self.chains.in_mempool = True
            case B.BROADCAST if not self.chains.spent_otherwise:
                self.chains.btc += 1
                self.chains.mined = self.chains.btc
            case B.BURIED:
                self.sign_the_booking()
            case B.BOOKING_SIGNED:
                self.chains.status = IntentStatus.BOOKED
            case _:
                self.chains.btc += 1

    @rule(kaon=st.integers(1, 8), btc=st.integers(0, 4))
    def pass_blocks(self, kaon: int, btc: int) -> None:
        self.chains.kaon += kaon
        self.chains.btc += btc

    @rule()
    def endorse(self) -> None:
        self.answer(events.EndorsementsGathered((), KaonHeight(self.chains.kaon)))

    @rule()
    def refuse(self) -> None:
        self.answer(events.EndorsementsRefused("V18", "too dear", KaonHeight(self.chains.kaon)))

    @precondition(lambda self: self.batch.state is B.ENDORSED and self.chains.status is None)
    @rule()
    def record(self) -> None:
        self.chains.kaon += 1
        self.chains.status, self.chains.recorded = IntentStatus.LIVE, self.chains.kaon

    @rule()
    def sign_by_validators(self) -> None:
        self.answer(events.ValidatorsSigned((SIGNATURE,), KaonHeight(self.chains.kaon)))

    @rule()
    def sign_by_witnesses(self) -> None:
        if self.batch.state is B.VALIDATORS_SIGNED:
            self.chains.is_signed = True
        self.answer(events.CosignersSigned((SIGNATURE,), b"signed", KaonHeight(self.chains.kaon)))

    @rule()
    def refuse_to_sign(self) -> None:
        self.answer(events.SigningRefused(Role.VALIDATOR, "V34", "too close", KaonHeight(self.chains.kaon)))

    @precondition(lambda self: self.chains.is_signed and self.chains.mined is None)
    @rule(present=st.booleans())
    def enter_or_leave_the_mempool(self, present: bool) -> None:
        self.chains.in_mempool = present

    @precondition(lambda self: self.chains.in_mempool and self.chains.mined is None and not self.chains.spent_otherwise)
    @rule()
    def mine(self) -> None:
        self.chains.btc += 1
        self.chains.mined = self.chains.btc

    @precondition(lambda self: self.chains.mined is not None)
    @rule(again=st.booleans())
    def reorganise(self, again: bool) -> None:
        """Take the transaction's block back, and perhaps mine it again elsewhere before anybody looks."""
        self.chains.btc += 1
        self.chains.mined = self.chains.btc if again else None

    @rule()
    def sign_the_booking(self) -> None:
        self.answer(events.BookingSigned(BOOKING, SIGNATURE, SIGNATURE, KaonHeight(self.chains.kaon)))

    @rule()
    def refuse_the_booking(self) -> None:
        self.answer(events.BookingRefused("moved on", KaonHeight(self.chains.kaon)))

    @precondition(lambda self: self.batch.state is B.BOOKING_SIGNED)
    @rule()
    def book(self) -> None:
        self.chains.status = IntentStatus.BOOKED

    @precondition(lambda self: self.chains.status in {IntentStatus.LIVE, IntentStatus.REPLACED})
    @rule(replaced=st.booleans())
    def replace_or_revive(self, replaced: bool) -> None:
        self.chains.status = IntentStatus.REPLACED if replaced else IntentStatus.LIVE

    @precondition(lambda self: self.chains.status is IntentStatus.LIVE and self.chains.mined is None)
    @rule()
    def spend_an_input_otherwise(self) -> None:
        self.chains.spent_otherwise = True

    @precondition(lambda self: self.chains.spent_otherwise and self.chains.status is IntentStatus.LIVE)
    @rule()
    def declare_dead(self) -> None:
        self.chains.status = IntentStatus.DEAD

    @rule()
    def look(self) -> None:
        view = self.chains.to_view()

        def find(record: Batch) -> BatchEvent | None:
            return find_event(record, view)

        for _, transition in advance(self.batch, find, step):
            self.take(transition.effects, transition.record)
        if self.ended is not None:
            assert self.batch == self.ended, "a terminal batch moved"
            return
        if BATCH.is_terminal(self.batch.state):
            self.ended = self.batch
            return
        assert find_event(self.batch, view) is None
        self.check_agreement()

    def check_agreement(self) -> None:
        """Assert that a settled batch says what the chains say."""
        state, chains = self.batch.state, self.chains
        assert (state in UNRECORDED) == (chains.status is None)
        assert (state is B.BOOKED) == (chains.status is IntentStatus.BOOKED)
        if chains.status in {IntentStatus.LIVE, IntentStatus.REPLACED}:
            assert (state in {B.BURIED, B.BOOKING_SIGNED}) == (chains.mined is not None)
            assert self.batch.mined == chains.mined
        if chains.status is IntentStatus.REPLACED and chains.mined is None:
            assert (state, self.batch.replaced_by) == (B.REPLACED, OTHER_ID)
        if state is B.WINDOW_OVER:
            assert find_due_effect(self.batch) == events.AskValidators(self.batch.intent_id)

    @precondition(lambda self: self.chains.status is not None and self.ended is None)
    @rule()
    def rebuild(self) -> None:
        """From the ledger's entry and the chains alone, a batch is as far as without signatures it can be."""
        assert self.chains.status is not None
        recorded = KaonHeight(self.chains.recorded or 0)
        entry = IntentEntry(INTENT, recorded, self.chains.status, {})
        view = self.chains.to_view()

        def find(record: Batch) -> BatchEvent | None:
            return find_event(record, view)

        fresh = open_recorded_batch(entry, KaonHeight(self.chains.kaon)).record
        steps = advance(fresh, find, step)
        fresh = steps[-1][1].record if steps else fresh
        assert (fresh.state is B.BURIED) == (view.mined is not None and self.chains.status.is_standing)
        assert fresh.state not in UNRECORDED


TestBatchLife = BatchLife.TestCase
TestBatchLife.settings = STEPS
