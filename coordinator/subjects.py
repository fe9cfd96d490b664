"""Which of the pods' reviews concern something a person asks about: intents, bookings and armings behind an id."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from coordinator.outlook import Outlook
from slashing.build import plan_arming
from smpc.errors import Refused
from smpc.protocol.arming_records import list_armable
from smpc.protocol.intents import Intent
from smpc.types import BurnId, Outpoint, RecordId


def find_related(outlook: Outlook, subject: bytes) -> tuple[bytes, ...]:
    """Return every id under which pods may have reviewed a peg-in, peg-out, intent or transaction; itself first.

    `subject` has 32 bytes; a transaction id is in internal order. Of armings, those that would be asked for now.
    """
    deposits = {item.outpoint for item in outlook.board.deposits_of(RecordId(subject))}
    found = dict.fromkeys([subject])
    for intent in _list_intents(outlook):
        if _concerns(intent, subject, deposits):
            found[intent.intent_id] = None
            found.update(dict.fromkeys(_list_bookings(outlook, intent)))
            found.update(dict.fromkeys(_list_armings(outlook, intent)))
    return tuple(found)


def _list_intents(outlook: Outlook) -> Iterator[Intent]:
    """Yield the recorded intents, then the planned ones."""
    for entry in outlook.ledger.intents.values():
        yield entry.intent
    for intent_id, batch in outlook.board.batches.items():
        if intent_id not in outlook.ledger.intents:
            yield batch.intent


def _concerns(intent: Intent, subject: bytes, deposits: set[Outpoint]) -> bool:
    if subject in {intent.intent_id, intent.txid} or BurnId(subject) in intent.burns:
        return True
    return any(outpoint in deposits or outpoint.txid == subject for outpoint in intent.outpoints)


def _list_bookings(outlook: Outlook, intent: Intent) -> Iterator[bytes]:
    booked = outlook.ledger.bookings.get(intent.txid)
    if booked is not None:
        yield booked.digest
    batch = outlook.board.batches.get(intent.intent_id)
    if batch is not None and batch.booking is not None:
        yield batch.booking.digest


def _list_armings(outlook: Outlook, intent: Intent) -> Iterator[bytes]:
    ledger = outlook.ledger
    if not ledger.needs_arming:
        return
    for epoch, outputs in list_armable(intent).items():
        with contextlib.suppress(Refused):
            yield plan_arming(ledger, epoch, outputs).digest
