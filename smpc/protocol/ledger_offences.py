"""Ledger rules of evidence: what a proven offence does to its author (design.md sections 3.9 and 6) [R5, R10]."""

from __future__ import annotations

from typing import Final

from smpc.errors import Conflict, Refused
from smpc.protocol.codec import encode_variant
from smpc.protocol.evidence import MAX_BUNDLE_SIZE, MemberEvidence
from smpc.protocol.evidence_anchor import (
    Anchor,
    SpendAnchor,
    find_doubts,
    find_spend_doubts,
    list_announced,
    read_header,
)
from smpc.protocol.evidence_proof import prove_member_evidence
from smpc.protocol.ledger_punishments import jail, slash
from smpc.protocol.ledger_rejections import compute_loss_id, find_emergency
from smpc.protocol.ledger_state import EpochEntry, EpochState, IntentStatus
from smpc.protocol.ledger_tables import LedgerTables
from smpc.protocol.ledger_verdicts import convict, require_emergency
from smpc.protocol.pod_messages import compute_protocol_hash
from smpc.protocol.spend_evidence import UnauthorisedSpend
from smpc.protocol.spend_proof import prove_spend
from smpc.protocol.verdict_records import EvidenceRecorded
from smpc.protocol.verdict_state import Cause, Misdeed
from smpc.types import EpochNumber, Outpoint, RecordId, Role, Txid, to_display_hex

_FORBIDDEN: Final = frozenset({IntentStatus.VOID, IntentStatus.WITHDRAWN})
"""Intents that no share may ever have left for; what stands, is booked or died was allowed to be signed."""

_GUARDING: Final = frozenset({EpochState.ACTIVE, EpochState.RETIRING, EpochState.PARKED})
"""States in which an epoch may hold outputs to release."""

_OVER: Final = frozenset({EpochState.RETIRED, EpochState.ABORTED})
"""Epochs of whose armings nothing is remembered: what their groups signed cannot be judged any more."""


def apply_evidence_recorded(tables: LedgerTables, record: EvidenceRecorded) -> None:
    """Punish whom evidence proves guilty, once; Refused when it proves nothing, or is not about this network.

    Anyone may submit it, without a signature: what costs most, the proof, comes after all that costs little.
    """
    require_emergency(tables)
    size = len(encode_variant(record.evidence))
    if size > MAX_BUNDLE_SIZE:
        raise Refused(f"the evidence has {size} bytes, more than {MAX_BUNDLE_SIZE}", rule="V12", code="TOO_LARGE")
    if isinstance(record.evidence, UnauthorisedSpend):
        _judge_groups(tables, record.evidence, record.record_id)
    else:
        _judge_member(tables, record.evidence, record.record_id)


def find_permission(tables: LedgerTables, epoch: EpochNumber, outpoint: Outpoint, txid: Txid) -> str:
    """Return which record lets the groups of an epoch sign a spend of their output; empty when none does."""
    entries = (entry for entry in tables.intents.values() if entry.intent.txid == txid)
    for entry in entries:
        if entry.status not in _FORBIDDEN:
            return f"it is the transaction of intent {entry.intent.intent_id.hex()}, which is {entry.status}"
    booking = tables.bookings.get(txid)
    if booking is not None and booking.intent != compute_loss_id(tables.params.network, txid):
        return "the transaction is booked"
    known = tables.epochs.get(epoch)
    if known is not None and known.released is not None and find_emergency(tables, outpoint, txid) is not None:
        return f"it is an emergency of epoch {epoch}, which is released"
    return ""


def _judge_member(tables: LedgerTables, evidence: MemberEvidence, record_id: RecordId) -> None:
    """Slash the author of a proven offence."""
    doubts = find_doubts(evidence, _find_anchor(tables, evidence))
    if doubts:
        raise Refused(f"the evidence is not about a group of this ledger: {doubts[0]}", code="NOT_ANCHORED")
    conviction = prove_member_evidence(evidence)
    if not slash(tables, conviction.accused, record_id, conviction.code):
        raise Conflict(f"{conviction.accused.hex()} is slashed already", code="SLASHED_ALREADY")


def _judge_groups(tables: LedgerTables, evidence: UnauthorisedSpend, record_id: RecordId) -> None:
    """Jail every member of each group that signed, and judge the group itself; it slashes nobody [R10]."""
    conviction = prove_spend(evidence)
    entry = tables.epochs.get(conviction.epoch)
    doubts = find_spend_doubts(evidence, _find_spend_anchor(tables, entry))
    permission = "" if doubts else find_permission(tables, conviction.epoch, conviction.outpoint, conviction.txid)
    if entry is None or doubts:
        text = doubts[0] if doubts else f"there is no epoch {conviction.epoch}"
        raise Refused(f"the evidence is not about a group of this ledger: {text}", code="NOT_ANCHORED")
    if permission:
        raise Refused(f"the spend is allowed: {permission}", code="SPEND_ALLOWED")
    if entry.state in _OVER:
        raise Refused(f"epoch {entry.number} is {entry.state}", rule="V06", code="EPOCH_STATE")
    fresh = [role for role in conviction.roles if (entry.number, role) not in tables.judgements.unauthorised]
    if not fresh:
        raise Conflict(f"epoch {entry.number} was punished for such a signature already", code="PUNISHED_ALREADY")
    for role in fresh:
        _punish_group(tables, entry, role, conviction.txid, record_id)


def _punish_group(tables: LedgerTables, entry: EpochEntry, role: Role, txid: Txid, record_id: RecordId) -> None:
    text = f"{role} of epoch {entry.number} signed {to_display_hex(txid)}, which no record allows"
    tables.put(tables.judgements.unauthorised, (entry.number, role), txid)
    for member in entry.groups[role].members:
        jail(tables, member, Misdeed.GROUP_SIGNATURE, text, record_id)
    # W too for what it did, though none of it is left to sign: a parked epoch is judged for that only once value comes,
    # and by then the terms may be over.
    if entry.state in _GUARDING:
        convict(tables, entry.number, role, Cause.UNAUTHORISED_SPEND, text)


def _find_spend_anchor(tables: LedgerTables, entry: EpochEntry | None) -> SpendAnchor:
    if entry is None or any(role not in entry.groups for role in Role):
        return SpendAnchor(tables.params.network, None, b"")
    return SpendAnchor(
        network=tables.params.network,
        group_keys=(
            entry.groups[Role.VALIDATOR].group_key,
            entry.groups[Role.WITNESS].group_key,
            entry.groups[Role.EMERGENCY].group_key,
        ),
        release_hash=entry.preimage_hash,
    )


def _find_anchor(tables: LedgerTables, evidence: MemberEvidence) -> Anchor:
    group = read_header(evidence).group
    entry = tables.epochs.get(group.epoch)
    known = {} if entry is None else entry.host_keys
    announced = frozenset(
        item
        for item in list_announced(evidence)
        if item.group == group and known.get((group.role, item.attempt), {}).get(item.identity) == item.host_key
    )
    return Anchor(
        protocol=compute_protocol_hash(tables.params),
        coordinators=frozenset(tables.genesis.coordinators),
        validators=frozenset(item.identity for item in tables.genesis.validators),
        announced=announced,
        threshold=None if entry is None else entry.thresholds.get(group.role),
        info=None if entry is None else entry.groups.get(group.role),
    )
