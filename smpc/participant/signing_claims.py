"""What signatures take: outpoints per leaf, burns, one digest per tagged subject; and when takings conflict."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final, Self

from smpc.errors import Refused
from smpc.participant.signing_tables import MESSAGES, PAYMENTS, SPENDS, insert_row
from smpc.protocol.intents import Intent
from smpc.types import BurnId, GroupId, IntentId, KaonHeight, Outpoint, Purpose, Txid

_LEAVES: Final = {
    Purpose.TRANSFER: "transfer",
    Purpose.PAYOUT: "transfer",
    Purpose.SWEEP: "transfer",
    Purpose.ARMING: "arming",
    Purpose.REJECTION: "rejection",
    Purpose.RECOVERY: "recovery",
}

_REPLACEABLE: Final = {"transfer": ("transfer",), "recovery": ("recovery",), "arming": (), "rejection": ()}
"""Per leaf to sign: the leaves whose earlier spend forbids it until replaced or freed. Rungs of armings coexist."""

_FINAL: Final = {"transfer": ("rejection", "recovery"), "recovery": (), "arming": (), "rejection": ()}
"""Per leaf to sign: the leaves after which it is never signed again. A signed transfer forbids neither of them."""

OWN_SHARE: Final = "share"
RECORDED: Final = "ledger"


@dataclass(frozen=True, slots=True)
class SpendClaim:
    """What one transaction takes: the outpoints it spends and the burns it pays, for which intent."""

    intent: IntentId
    txid: Txid
    purpose: Purpose
    outpoints: frozenset[Outpoint]
    burns: frozenset[BurnId] = frozenset()

    @classmethod
    def from_intent(cls, intent: Intent) -> Self:
        """Return what a recorded or proposed intent takes."""
        return cls(intent.intent_id, intent.txid, Purpose(intent.kind.value), intent.outpoints, intent.burns)

    @property
    def leaf(self) -> str:
        """The leaf through which the outpoints are spent; ValueError for a purpose that spends nothing."""
        if self.purpose not in _LEAVES:
            raise ValueError(f"{self.purpose} spends no outpoint")
        return _LEAVES[self.purpose]


@dataclass(frozen=True, slots=True)
class MessageClaim:
    """One tagged message: `digest` (32 bytes) is the only one a group's member signs for `subject` under `purpose`."""

    purpose: Purpose
    subject: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class SpendConflict:
    """Something claimed that another transaction, signed here or recorded, takes already."""

    claimed: Outpoint | BurnId
    intent: IntentId
    txid: Txid

    @property
    def rule(self) -> str:
        """V07 for an outpoint, V20 for a burn that would be paid twice."""
        return "V07" if isinstance(self.claimed, Outpoint) else "V20"

    @property
    def text(self) -> str:
        """The outpoint or burn, to show."""
        return str(self.claimed) if isinstance(self.claimed, Outpoint) else f"burn {self.claimed.hex()}"

    @property
    def reason(self) -> str:
        """The rule's fixed reason name."""
        return "CONFLICTING_SPEND" if isinstance(self.claimed, Outpoint) else "DOUBLE_PAY"


def find_spend_conflicts(
    connection: sqlite3.Connection, claim: SpendClaim, released: frozenset[IntentId]
) -> tuple[SpendConflict, ...]:
    """Return what of a claim is taken already, in a fixed order. `released` intents no longer hold what they took."""
    found: list[SpendConflict] = []
    for outpoint in sorted(claim.outpoints):
        rows = connection.execute(
            "SELECT leaf, intent, spender FROM spends WHERE txid = ? AND vout = ?", (outpoint.txid, outpoint.vout)
        )
        found += [
            SpendConflict(outpoint, IntentId(intent), Txid(spender))
            for leaf, intent, spender in rows
            if leaf in _FINAL[claim.leaf]
            or (leaf in _REPLACEABLE[claim.leaf] and _is_other(claim, intent, spender, released))
        ]
    for burn in sorted(claim.burns):
        rows = connection.execute("SELECT intent, spender FROM payments WHERE burn = ?", (burn,))
        found += [
            SpendConflict(burn, IntentId(intent), Txid(spender))
            for intent, spender in rows
            if _is_other(claim, intent, spender, released)
        ]
    return tuple(found)


def insert_spend_claim(connection: sqlite3.Connection, claim: SpendClaim, source: str, height: KaonHeight) -> int:
    """Write down what a claim takes; return how many rows are new. Signed rows are never turned into recorded ones."""
    added = 0
    for outpoint in sorted(claim.outpoints):
        key = (outpoint.txid, outpoint.vout, claim.leaf, claim.intent, claim.txid)
        added += _upsert(connection, SPENDS.name, key, source, height)
    for burn in sorted(claim.burns):
        added += _upsert(connection, PAYMENTS.name, (burn, claim.intent, claim.txid), source, height)
    return added


def has_own_share(connection: sqlite3.Connection, intent: IntentId) -> bool:
    """Tell whether a share for an intent's transaction was signed here."""
    query = "SELECT 1 FROM spends WHERE intent = ? AND source = ? LIMIT 1"
    return connection.execute(query, (intent, OWN_SHARE)).fetchone() is not None


def find_message_digest(
    connection: sqlite3.Connection, purpose: Purpose, group: GroupId, subject: bytes
) -> bytes | None:
    """Return the digest signed for a subject, or None."""
    query = "SELECT digest FROM messages WHERE purpose = ? AND epoch = ? AND role = ? AND subject = ?"
    row = connection.execute(query, (purpose.value, group.epoch, group.role.value, subject)).fetchone()
    return None if row is None else bytes(row[0])


def is_withdrawn(connection: sqlite3.Connection, intent: IntentId) -> bool:
    """Tell whether a withdrawal of the intent was signed here: no share of it may follow."""
    query = "SELECT 1 FROM messages WHERE purpose = ? AND subject = ? LIMIT 1"
    return connection.execute(query, (Purpose.WITHDRAWAL.value, intent)).fetchone() is not None


def insert_message_claim(
    connection: sqlite3.Connection, group: GroupId, claim: MessageClaim, height: KaonHeight
) -> None:
    """Write down a subject's digest; Refused (MESSAGE_CONFLICT, V07) when the group has another."""
    known = find_message_digest(connection, claim.purpose, group, claim.subject)
    if known == claim.digest:
        return
    if known is not None:
        raise Refused(
            f"another {claim.purpose} was signed for {claim.subject.hex()}",
            code="MESSAGE_CONFLICT",
            rule="V07",
            remedy="see `peg explain`",
        )
    values = (claim.purpose.value, group.epoch, group.role.value, claim.subject, claim.digest, height)
    insert_row(connection, MESSAGES, values)


def _is_other(claim: SpendClaim, intent: bytes, spender: bytes, released: frozenset[IntentId]) -> bool:
    """Tell whether a row belongs to another transaction that still holds what it took."""
    if intent == claim.intent:
        return spender != claim.txid  # one intent, one transaction, whatever anyone replaces
    return intent not in released


def _upsert(
    connection: sqlite3.Connection, table: str, key: tuple[bytes | str | int, ...], source: str, height: KaonHeight
) -> int:
    sealed = SPENDS if table == SPENDS.name else PAYMENTS
    where = " AND ".join(f"{column} = ?" for column in sealed.columns[: len(key)])
    row = connection.execute(f"SELECT source FROM {sealed.name} WHERE {where}", key).fetchone()  # noqa: S608
    if row is None or (row[0] != source and source == OWN_SHARE):
        insert_row(connection, sealed, (*key, source, height), replace=True)
    return int(row is None)


def find_release(connection: sqlite3.Connection, group: GroupId, subject: bytes) -> tuple[bytes, bytes] | None:
    """Return header and sealed answer, as bytes, of the newest share of a transaction that left for a group."""
    query = (
        "SELECT header, response FROM sessions JOIN releases USING (session)"
        " WHERE subject = ? AND epoch = ? AND role = ? ORDER BY height DESC, session LIMIT 1"
    )
    row = connection.execute(query, (subject, group.epoch, group.role.value)).fetchone()
    return None if row is None else (bytes(row[0]), bytes(row[1]))
