"""Records and events of every lifecycle in enough variants to exercise each row of each table."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final

from pegin import events as deposit_events
from pegin import invoice_life
from pegin import steps as deposit_steps
from pegin.lifecycle import DEPOSIT, Deposit, DepositLimits, DepositState
from pegout import events as pegout_events
from pegout import steps as pegout_steps
from pegout.lifecycle import PEGOUT, PegOut, PegOutState
from smpc.protocol import batch_events, batch_steps
from smpc.protocol.arming_records import Arming, ArmingRecorded
from smpc.protocol.batch import BATCH, Batch, BatchState
from smpc.protocol.intents import Booking, Endorsement, Intent, IntentInput, IntentKind
from smpc.protocol.ledger_state import IntentStatus
from smpc.protocol.machine import Machine, Transition
from smpc.types import (
    BtcHeight,
    BurnId,
    ChildIndex,
    EpochNumber,
    FeeRate,
    IntentId,
    KaonHeight,
    Network,
    Outpoint,
    RecordId,
    Role,
    Sats,
    Script,
    Signature,
    Txid,
)

OUTPOINT: Final = Outpoint(Txid(b"\x01" * 32), 0)
INTENT_ID: Final = IntentId(b"\x02" * 32)
OTHER_ID: Final = IntentId(b"\x03" * 32)
TXID: Final = Txid(b"\x04" * 32)
SIGNATURE: Final = Signature(b"\x05" * 64)

INTENT: Final = Intent(
    network=Network.REGTEST,
    kind=IntentKind.TRANSFER,
    epoch=EpochNumber(0),
    target_epoch=EpochNumber(0),
    inputs=(IntentInput(OUTPOINT, Sats(50_000), ChildIndex(7)),),
    payments=(),
    vault_outputs=(Sats(49_000),),
    fee=Sats(1_000),
    fee_rate=FeeRate(5_000),
    txid=TXID,
    replaces=(),
)
ARMING: Final = ArmingRecorded(
    Arming(
        network=Network.REGTEST,
        epoch=EpochNumber(0),
        target=EpochNumber(1),
        target_script=Script(b"\x51\x20" + bytes(32)),
        outputs=(IntentInput(OUTPOINT, Sats(50_000), ChildIndex(7)),),
    ),
    (SIGNATURE,),
)
BOOKING: Final = Booking(
    network=Network.REGTEST,
    epoch=EpochNumber(0),
    intent=INTENT.intent_id,
    txid=TXID,
    credits=(),
    settled=(),
    vault_spent=(),
    vault_created=(),
    reserve_gain=Sats(0),
    reserve_loss=Sats(0),
)
LIMITS: Final = DepositLimits(
    min_amount=Sats(20_000),
    max_amount=Sats(1_000_000),
    confirmations=3,
    refund_csv=36,
    refund_stop=6,
    settled=3,
    on_time_until=BtcHeight(120),
    watched_until=BtcHeight(180),
)
DEPOSIT_SAMPLE: Final = Deposit(
    outpoint=OUTPOINT,
    epoch=EpochNumber(0),
    child=ChildIndex(7),
    pegin=RecordId(b"\x06" * 32),
    value=Sats(50_000),
    limits=LIMITS,
    state=DepositState.SEEN,
    tip=BtcHeight(100),
)
PEGOUT_SAMPLE: Final = PegOut(
    burn=BurnId(b"\x07" * 32),
    epoch=EpochNumber(0),
    payout=Sats(30_000),
    script=Script(b"\x00\x14" + bytes(20)),
    recorded=KaonHeight(5),
    state=PegOutState.REQUESTED,
    asked=KaonHeight(6),
)
INVOICE_SAMPLE: Final = invoice_life.Invoice(
    epoch=EpochNumber(0),
    child=ChildIndex(7),
    pegin=RecordId(b"\x06" * 32),
    state=invoice_life.InvoiceState.ISSUED,
    watched_until=BtcHeight(180),
)


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """A machine with its step, and samples of its records and events."""

    machine: Machine
    step: Callable[[Any, Any], Transition[Any]]
    make_records: Callable[[Any], Iterable[Any]]
    """Records in a state, in variants."""
    events: tuple[Any, ...]

    def run(self, state: enum.StrEnum, event: type) -> list[Transition[Any]]:
        """Step every record variant in `state` by every variant of an event."""
        variants = [item for item in self.events if type(item) is event]
        return [self.step(record, item) for record, item in product(self.make_records(state), variants)]


def make_batches(state: BatchState) -> Iterable[Batch]:
    """Yield batches with nothing, V's signatures, or everything in hand, unsent or long sent."""
    bare = Batch(INTENT, state, KaonHeight(100), KaonHeight(100))
    half = replace(bare, validator_signatures=(SIGNATURE,))
    full = replace(half, cosigner_signatures=(SIGNATURE,), signed_tx=b"signed")
    two = (*INTENT.inputs, replace(INTENT.inputs[0], outpoint=replace(OUTPOINT, vout=1)))
    yield replace(bare, intent=replace(INTENT, inputs=two))
    for batch in (bare, half, full):
        yield batch
        yield replace(batch, bump_from=BtcHeight(50), mined=BtcHeight(60))


_AGEING: Final = frozenset({DepositState.MATURING, DepositState.MATURE, DepositState.EXPIRED})
_SPOKEN_FOR: Final = frozenset({DepositState.RECORDED, DepositState.TRANSFERRING})


def make_deposits(state: DepositState) -> Iterable[Deposit]:
    """Yield deposits of every value and age that can be in a state, with and without an intent."""
    small, good = Sats(19_999), Sats(50_000)
    heights = (None, BtcHeight(90), BtcHeight(98), BtcHeight(99), BtcHeight(100))
    values = (good,) if state in _AGEING else (small,) if state is DepositState.OUT_OF_BOUNDS else (small, good)
    is_free = state in _AGEING or state is DepositState.OUT_OF_BOUNDS
    intents = (None,) if is_free else (INTENT_ID,) if state in _SPOKEN_FOR else (None, INTENT_ID)
    for value, height, intent in product(values, heights, intents):
        yield replace(
            DEPOSIT_SAMPLE,
            state=state,
            value=value,
            height=height,
            intent=intent,
            missing_since=BtcHeight(100) if state is DepositState.MISSING else None,
        )


def make_pegouts(state: PegOutState) -> Iterable[PegOut]:
    """Yield peg-outs with and without an intent and a transaction."""
    for intent, txids in product((None, INTENT_ID), ((), (TXID,))):
        yield replace(PEGOUT_SAMPLE, state=state, intent=intent, txids=txids)


def make_invoices(state: invoice_life.InvoiceState) -> Iterable[invoice_life.Invoice]:
    """Yield invoices paid never, once and twice."""
    paid = ((OUTPOINT,), (OUTPOINT, replace(OUTPOINT, vout=1)))
    for deposits in ((),) if state is invoice_life.InvoiceState.ISSUED else paid:
        yield replace(INVOICE_SAMPLE, state=state, deposits=deposits)


def _list_batch_events() -> tuple[batch_events.BatchEvent, ...]:
    at = KaonHeight(101)
    return (
        batch_events.EndorsementsGathered((Endorsement(Role.WITNESS, 1, at, SIGNATURE),), at),
        batch_events.EndorsementsGathered((Endorsement(Role.WITNESS, 1, at, SIGNATURE),), at, (ARMING,)),
        batch_events.EndorsementsRefused("V18", "too dear", at),
        batch_events.SubmissionRefused("no", at),
        batch_events.IntentFound(KaonHeight(99), at),
        batch_events.IntentLost(at),
        batch_events.WindowPassed(at),
        batch_events.ValidatorsSigned((SIGNATURE,), at),
        batch_events.CosignersSigned((SIGNATURE,), b"signed", at),
        batch_events.SigningRefused(Role.VALIDATOR, "V34", "too close", at),
        batch_events.TransactionSent(BtcHeight(60), at),
        batch_events.TransactionDropped(at),
        batch_events.TransactionMined(BtcHeight(61), 1, at),
        batch_events.TransactionBuried(BtcHeight(61), 3, at),
        batch_events.TransactionUnmined(at),
        batch_events.BookingSigned(BOOKING, SIGNATURE, SIGNATURE, at),
        batch_events.BookingRefused("moved on", at),
        batch_events.BookingFound(at),
        batch_events.TransactionSettled(BtcHeight(61), 3, at),
        batch_events.IntentReplaced(OTHER_ID, at),
        batch_events.IntentRevived(at),
        *(
            batch_events.IntentEnded(status, at)
            for status in (IntentStatus.VOID, IntentStatus.WITHDRAWN, IntentStatus.DEAD)
        ),
        batch_events.InputsLost(OUTPOINT, at),
        batch_events.InputSpent(OUTPOINT, TXID, at),
        batch_events.BlocksPassed(KaonHeight(104), BtcHeight(61)),
        batch_events.BlocksPassed(KaonHeight(121), BtcHeight(61)),
    )


def _list_deposit_events() -> tuple[deposit_events.DepositEvent, ...]:
    tip = BtcHeight(100)
    return (
        deposit_events.DepositSeen(tip),
        deposit_events.DepositConfirmed(BtcHeight(100), tip),
        deposit_events.DepositConfirmed(BtcHeight(98), tip),
        deposit_events.DepositConfirmed(BtcHeight(60), tip),
        deposit_events.DepositConfirmed(BtcHeight(181), BtcHeight(184)),
        deposit_events.DepositDisconnected(tip),
        deposit_events.DepositVanished(tip),
        deposit_events.DepositSpentElsewhere(TXID, tip),
        deposit_events.RefundBuried(TXID, tip),
        deposit_events.TransferRecorded(INTENT_ID, tip),
        deposit_events.TransferSigned(INTENT_ID, TXID, tip),
        deposit_events.TransferConfirmed(TXID, tip, tip),
        deposit_events.TransferUnconfirmed(tip),
        deposit_events.IntentDropped(tip),
        deposit_events.IntentDropped(BtcHeight(130)),
        deposit_events.Credited(TXID, Sats(49_000), tip),
        deposit_events.BlocksPassed(tip),
        deposit_events.BlocksPassed(BtcHeight(103)),
        deposit_events.BlocksPassed(BtcHeight(130)),
    )


def _list_pegout_events() -> tuple[pegout_events.PegOutEvent, ...]:
    at = KaonHeight(30)
    return (
        pegout_events.PayoutPlanned(INTENT_ID, at),
        pegout_events.PayoutRecorded(INTENT_ID, at),
        pegout_events.ValidatorsAsked(INTENT_ID, at),
        pegout_events.PayoutSent(INTENT_ID, TXID, at),
        pegout_events.PayoutMined(TXID, BtcHeight(61), at),
        pegout_events.PayoutUnmined(at),
        pegout_events.IntentDropped(at),
        pegout_events.BurnSettled(TXID, at),
        pegout_events.CancelFound(at),
        pegout_events.BurnUndone(at),
        pegout_events.BlocksPassed(at),
    )


LIFECYCLES: Final = {
    "batch": Lifecycle(BATCH, batch_steps.step, make_batches, _list_batch_events()),
    "deposit": Lifecycle(DEPOSIT, deposit_steps.step, make_deposits, _list_deposit_events()),
    "peg-out": Lifecycle(PEGOUT, pegout_steps.step, make_pegouts, _list_pegout_events()),
    "invoice": Lifecycle(
        invoice_life.INVOICE,
        invoice_life.step,
        make_invoices,
        (
            invoice_life.InvoicePaid(OUTPOINT),
            invoice_life.PaymentLost(OUTPOINT),
            invoice_life.GraceOver(BtcHeight(190)),
            invoice_life.InvoiceUndone(),
        ),
    ),
}
"""Every lifecycle there is."""
