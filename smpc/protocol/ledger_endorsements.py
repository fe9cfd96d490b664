"""Ledger rules of endorsements: at least `t` of each signing group, by their ceremony host keys, not long ago (3.8)."""

from __future__ import annotations

from collections.abc import Mapping

from smpc.curve import verify_schnorr
from smpc.errors import InvalidInput, Refused
from smpc.protocol.intents import Endorsement, compute_endorsement_digest, list_signing_roles
from smpc.protocol.ledger_state import EpochEntry
from smpc.protocol.ledger_tables import LedgerTables
from smpc.protocol.records import IntentRecorded
from smpc.types import IntentId, Role


def check_endorsements(
    tables: LedgerTables, entry: EpochEntry, record: IntentRecorded
) -> Mapping[Role, frozenset[int]]:
    """Return who endorsed the intent per role; one endorsement that does not hold refuses the whole record."""
    found: dict[Role, set[int]] = {role: set() for role in list_signing_roles(record.intent.kind)}
    intent_id = record.intent.intent_id
    for item in record.endorsements:
        positions = found.get(item.role)
        if positions is None or item.position in positions:
            raise InvalidInput(f"endorsement of {item.role} {item.position} is out of place or twice there")
        _check_endorsement(tables, entry, intent_id, item)
        positions.add(item.position)
    for role, positions in found.items():
        if len(positions) < entry.thresholds[role]:
            raise Refused(
                f"{len(positions)} of the {entry.thresholds[role]} {role} endorsements needed",
                remedy="ask more members",
                rule="V21",
                code="TOO_FEW_ENDORSEMENTS",
            )
    return {role: frozenset(positions) for role, positions in found.items()}


def _check_endorsement(tables: LedgerTables, entry: EpochEntry, intent_id: IntentId, item: Endorsement) -> None:
    height = tables.head.height
    if not height - tables.params.endorsement_blocks <= item.kaon_height <= height:
        raise Refused(
            f"an endorsement at height {item.kaon_height} is too old or from the future in block {height}",
            remedy="ask for fresh endorsements",
            rule="V21",
            code="STALE_ENDORSEMENT",
        )
    host_keys = entry.groups[item.role].host_keys
    if not 0 <= item.position < len(host_keys):
        raise InvalidInput(f"{item.role} has no member {item.position}")
    digest = compute_endorsement_digest(tables.params.network, intent_id, item.role, item.kaon_height)
    if not verify_schnorr(host_keys[item.position][1:], digest, item.signature):
        raise Refused(
            f"the endorsement of {item.role} {item.position} does not verify", rule="V21", code="BAD_SIGNATURE"
        )
