"""Reviews bookings: is the transaction deep enough by my node, and is the entry what the money table says (V70)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from smpc.errors import BridgeError, Refused
from smpc.params import Params
from smpc.protocol.facts import BookingFacts, LedgerView, TransactionFacts
from smpc.protocol.intents import Booking, Intent, IntentKind
from smpc.protocol.ledger_rejections import is_further_loss
from smpc.protocol.review import Review, Stage, Verdict
from smpc.protocol.session_checks import judge_node, judge_session
from smpc.types import BtcHeight, Outpoint, Purpose


def review_booking(ledger: LedgerView, facts: BookingFacts, booking: Booking) -> Verdict:
    """Judge whether my group may sign a booking, of a transfer or a payout."""
    review = open_review(ledger, facts, booking)
    entry = ledger.intents.get(booking.intent)
    if entry is None or entry.recorded > facts.final_height:
        review.require("V70", False, "the intent is not in a final block", reason="INTENT_UNKNOWN")
        return review.to_verdict()
    _judge_content(review, ledger, booking)
    _judge_armed(review, ledger, booking)
    _judge_depth(review, ledger.params, facts, entry.intent)
    return review.to_verdict()


def open_review(ledger: LedgerView, facts: BookingFacts, booking: Booking) -> Review:
    """Judge what holds for every booking: the session, my node, whose turn it is, that nothing is booked twice.

    And that what is credited is paid for: the ledger takes no credit while the reserve is negative.
    """
    review = Review(Stage.SIGN, Purpose.BOOKING)
    judge_session(review, facts.session, ledger, booking.digest, booking.epoch)
    judge_node(review, facts.node, ledger.params)
    active = ledger.active_epoch
    in_turn = active is not None and booking.epoch in {active, active - 1}
    review.require("V70", in_turn, f"epoch {booking.epoch} books nothing: {active} is active")
    known = ledger.bookings.get(booking.txid)
    is_new = known is None or is_further_loss(known, booking)
    review.require("V70", is_new, "the transaction is booked already", reason="ALREADY_BOOKED")
    _judge_duplicates(review, booking)
    twice = [credit.outpoint for credit in booking.credits if credit.outpoint in ledger.credited]
    review.require("V70", not twice, f"{twice[:1]} is credited already", reason="ALREADY_BOOKED")
    is_paid = not booking.credits or ledger.reserve >= 0
    review.require("V70", is_paid, f"the reserve is {ledger.reserve} sat: credits halt", reason="RESERVE_NEGATIVE")
    return review


def _judge_duplicates(review: Review, booking: Booking) -> None:
    """Judge V13 of everything a booking lists: what is compared with my node's facts is compared as sets."""
    lists: tuple[tuple[str, Sequence[object]], ...] = (
        ("credit", [credit.outpoint for credit in booking.credits]),
        ("burn", booking.settled),
        ("spent output", booking.vault_spent),
        ("new output", [entry.outpoint for entry in booking.vault_created]),
    )
    for what, items in lists:
        review.require("V13", len(set(items)) == len(items), f"the booking names the same {what} twice")


def compute_booking_depth(
    params: Params, intent: Intent, height: BtcHeight, input_heights: Mapping[Outpoint, BtcHeight]
) -> int:
    """Return how deep a transaction mined at `height` must be before it is booked.

    A payout needs `confirmations`. A transfer needs `credit_confirmations`, but `confirmations` when a refund of one of
    its inputs was open, or within `confirmations` blocks of opening, in the block that mined it [R8]: a reorg could
    then put the refund in its place. An input whose height is unknown counts as such.
    """
    if intent.kind is not IntentKind.TRANSFER:
        return params.confirmations
    opens = [
        input_heights[item.outpoint] + params.refund_csv for item in intent.inputs if item.outpoint in input_heights
    ]
    is_known = len(opens) == len(intent.inputs)
    is_safe = is_known and all(opening - height > params.confirmations for opening in opens)
    return params.credit_confirmations if is_safe else params.confirmations


def _judge_content(review: Review, ledger: LedgerView, booking: Booking) -> None:
    try:
        expected = replace(ledger.compute_booking(booking.intent), epoch=booking.epoch)
    except BridgeError as refused:
        review.require("V70", False, refused.message, reason="ALREADY_BOOKED")
        return
    review.require("V70", booking == expected, "the booking is not what the money table says of the intent")


def _judge_armed(review: Review, ledger: LedgerView, booking: Booking) -> None:
    try:
        ledger.check_booking_armed(booking)
    except Refused as refused:
        review.require("V70", False, refused.message, reason="NOT_ARMED")


def _judge_depth(review: Review, params: Params, facts: BookingFacts, intent: Intent) -> None:
    mined: TransactionFacts | None = facts.transaction
    if (
        mined is None
        or mined.height is None
        or mined.txid != intent.txid
        or frozenset(mined.spends) != intent.outpoints
    ):
        review.require("V70", False, "my node's best chain has no such transaction", reason="NOT_MINED")
        return
    needed = compute_booking_depth(params, intent, mined.height, facts.input_heights)
    text = f"the transaction has {mined.confirmations} of {needed} confirmations"
    review.require("V70", mined.confirmations >= needed, text, reason="NOT_DEEP_ENOUGH")
