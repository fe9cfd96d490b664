"""What the ceremony host keys were used for, on disk: in one attempt a member certifies or complains, never both.

A complaint opens what its author and the accused's public nonce have in common. A lying relay could run a second
ceremony of the same attempt in which an accomplice repeats the nonce of an honest member of the first one: the
complaint would then open that member's share of the first, and enough of them the first one's key. No transcript
that its author signed in the same attempt makes it harmless; so the first of the two forbids the other, also after a
restart.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from smpc.errors import Refused
from smpc.participant.signing_tables import CEREMONIES, COMPLAINTS, insert_row
from smpc.protocol.ceremony_records import CeremonyFault
from smpc.protocol.codec import decode, encode
from smpc.types import Attempt, GroupId

CERTIFIED: Final = "certified"
COMPLAINED: Final = "complained"

KEPT_EPOCHS: Final = 64
"""Epochs below the newest whose complaints are kept: nothing older is keyed any more."""


def mark_attempt(connection: sqlite3.Connection, group: GroupId, attempt: Attempt, mark: str) -> None:
    """Write down what this attempt's host key is used for; the same again changes nothing, the other is Refused."""
    key = (group.epoch, group.role.value, attempt)
    query = "SELECT mark FROM ceremonies WHERE epoch = ? AND role = ? AND attempt = ?"
    row = connection.execute(query, key).fetchone()
    if row is None:
        insert_row(connection, CEREMONIES, (*key, mark))
    elif row[0] != mark:
        raise Refused(
            f"attempt {attempt} of {group.role} in epoch {group.epoch} is {row[0]} here",
            code="ATTEMPT_SPENT",
            remedy="take the next attempt: every host key there is a new one",
        )


def insert_complaint(connection: sqlite3.Connection, fault: CeremonyFault) -> None:
    """Keep a complaint, the first about each member and attempt; Refused when this attempt is certified here."""
    header = fault.header
    mark_attempt(connection, header.group, header.attempt, COMPLAINED)
    query = "SELECT count(*) FROM complaints WHERE record_id = ?"
    if connection.execute(query, (fault.record_id,)).fetchone()[0]:
        return
    insert_row(connection, COMPLAINTS, (fault.record_id, header.group.epoch, encode(fault)))
    connection.execute("DELETE FROM complaints WHERE epoch < ?", (header.group.epoch - KEPT_EPOCHS,))


def list_complaints(connection: sqlite3.Connection) -> tuple[CeremonyFault, ...]:
    """Return the complaints kept, by epoch."""
    rows = connection.execute("SELECT record FROM complaints ORDER BY epoch, record_id")
    return tuple(decode(CeremonyFault, bytes(row[0])) for row in rows)
