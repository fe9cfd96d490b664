"""The checkpoints this participant signed: never two for one height, never back to a lower one [R4]."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from smpc.errors import Refused
from smpc.participant.signing_tables import VOTES, insert_row
from smpc.types import KaonHash, KaonHeight

KEPT_VOTES: Final = 64
"""Blocks below the newest vote whose votes are kept; nothing is signed below the newest anyway."""


@dataclass(frozen=True, slots=True)
class CastVote:
    """A checkpoint signed here."""

    height: KaonHeight
    block_hash: KaonHash


def find_last_vote(connection: sqlite3.Connection) -> CastVote | None:
    """Return the highest checkpoint signed here, or None."""
    row = connection.execute("SELECT height, block_hash FROM votes ORDER BY height DESC LIMIT 1").fetchone()
    return None if row is None else CastVote(KaonHeight(row[0]), KaonHash(row[1]))


def forbid_votes(connection: sqlite3.Connection, height: KaonHeight) -> None:
    """Vote for nothing up to `height` any more: which of its checkpoints were signed is not known.

    The hash of zeros stands for them. No chain holds it, so nothing above is signed either before `height` is final.
    """
    last = find_last_vote(connection)
    if last is None or last.height < height:
        insert_row(connection, VOTES, (height, bytes(32)))


def insert_vote(connection: sqlite3.Connection, vote: CastVote) -> None:
    """Write a vote down; the same one again changes nothing.

    Refused when another block of its height was signed, or one of a greater height.
    """
    last = find_last_vote(connection)
    if last is not None and vote.height <= last.height:
        row = connection.execute("SELECT block_hash FROM votes WHERE height = ?", (vote.height,)).fetchone()
        if row is not None and row[0] == vote.block_hash:
            return
        raise Refused(
            f"checkpoint {last.height} {last.block_hash.hex()} was signed here: not {vote.height} any more",
            code="CHECKPOINT_SIGNED",
            remedy="find out why this node shows another chain than before",
        )
    insert_row(connection, VOTES, (vote.height, vote.block_hash))
    connection.execute("DELETE FROM votes WHERE height < ?", (vote.height - KEPT_VOTES,))
