"""Reviews bookings of what no intent says: executed emergencies, and losses (V70; design.md section 6, Money).

Both need `confirmations` by my own node. That an emergency was mined makes it right: E armed it and W released it, or
is punished for having signed it without a release.
"""

from __future__ import annotations

from pegin.bookings import open_review
from slashing.rejection import ReleasedBook
from smpc.errors import BridgeError
from smpc.protocol.facts import BookingFacts
from smpc.protocol.intents import Booking
from smpc.protocol.ledger_rejections import compute_loss_id
from smpc.protocol.review import Review, Verdict
from smpc.protocol.verdict_records import compute_release_id


def is_unrecorded(ledger: ReleasedBook, booking: Booking) -> bool:
    """Tell whether a booking names an epoch's release, or a loss, where others name their intent."""
    network = ledger.params.network
    return booking.intent == compute_loss_id(network, booking.txid) or any(
        booking.intent == compute_release_id(network, epoch) for epoch in ledger.judgements.list_booked_when_mined()
    )


def review_unrecorded_booking(ledger: ReleasedBook, facts: BookingFacts, booking: Booking) -> Verdict:
    """Judge whether my group may sign the booking of an emergency or a loss; refused when it is neither."""
    review = open_review(ledger, facts, booking)
    try:
        expected = _compute_expected(ledger, facts, booking)
    except BridgeError as refused:
        review.require("V70", False, refused.message)
        return review.to_verdict()
    if expected is None:
        review.require("V70", False, "the booking names no intent, no release and no loss", reason="INTENT_UNKNOWN")
        return review.to_verdict()
    review.require("V70", booking == expected, "the booking is not what the money table says of the transaction")
    _judge_mined(review, ledger, facts, booking)
    return review.to_verdict()


def _compute_expected(ledger: ReleasedBook, facts: BookingFacts, booking: Booking) -> Booking | None:
    """Return what I make of the mined transaction: of an emergency, by the leaf that it revealed on my own chain.

    Without that another epoch's E could have armed the same outpoint as its own, and who is credited were its choice.
    """
    mined = facts.transaction
    outpoints = (*booking.vault_spent, *(credit.outpoint for credit in booking.credits))
    is_loss = booking.intent == compute_loss_id(ledger.params.network, booking.txid)
    if is_loss or mined is None or len(outpoints) != 1 or outpoints[0] not in mined.spends:
        return ledger.judgements.compute_unrecorded_booking(booking)
    leaf = dict(zip(mined.spends, mined.leaves, strict=True)).get(outpoints[0])
    return ledger.judgements.compute_emergency_booking(outpoints[0], booking.txid, booking.epoch, leaf)


def _judge_mined(review: Review, ledger: ReleasedBook, facts: BookingFacts, booking: Booking) -> None:
    """Judge that my node has that very transaction deep enough, and that it took just what the booking says.

    Of a loss: all the booked outputs that it spends. What enters the books later is another loss of it.
    """
    mined = facts.transaction
    if mined is None or mined.height is None or mined.txid != booking.txid:
        review.require("V70", False, "my node's best chain has no such transaction", reason="NOT_MINED")
        return
    taken = {outpoint for outpoint in mined.spends if outpoint in ledger.vault}
    credited = {credit.outpoint for credit in booking.credits}
    is_whole = taken == set(booking.vault_spent) and credited <= set(mined.spends)
    review.require("V70", is_whole, "the transaction spends other outputs than the booking says")
    needed = ledger.params.confirmations
    text = f"the transaction has {mined.confirmations} of {needed} confirmations"
    review.require("V70", mined.confirmations >= needed, text, reason="NOT_DEEP_ENOUGH")
