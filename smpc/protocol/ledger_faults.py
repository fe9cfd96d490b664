"""Ledger rules of faults in key ceremonies: a member convicted by its own messages is replaced by the next draw.

Nothing here rests on anybody's word (section 4): a record that proves nothing is refused, and who was silent is no
business of the ledger. The threshold is never computed again.
"""

from __future__ import annotations

from dataclasses import replace

from smpc.errors import Conflict, Refused
from smpc.protocol.ceremony_faults import prove_fault
from smpc.protocol.ceremony_records import CeremonyFault
from smpc.protocol.election import ROLES
from smpc.protocol.epoch import EPOCH
from smpc.protocol.ledger_draws import count_attempts, find_successor_of, list_convicted
from smpc.protocol.ledger_events import MemberConvicted, MemberReplaced
from smpc.protocol.ledger_heartbeats import list_jailed
from smpc.protocol.ledger_punishments import slash
from smpc.protocol.ledger_state import EpochEntry, EpochState, FaultEntry, GroupMembers, Replacement
from smpc.protocol.ledger_tables import LedgerTables
from smpc.protocol.pod_messages import compute_protocol_hash
from smpc.types import EpochNumber, GroupId, Role


def apply_ceremony_fault(tables: LedgerTables, record: CeremonyFault) -> None:
    """Take a proven fault: evidence in any case, and a change of members while the group has no key yet."""
    entry = _find_epoch(tables, record)
    group, attempt = record.header.group, record.header.attempt
    known = tables.ceremony_faults.get(group.epoch, ())
    if any((item.record.accused, item.draw) == (record.accused, entry.draw) for item in known):
        raise Conflict(f"{record.accused.hex()} is convicted in epoch {group.epoch} already", code="CONVICTED_ALREADY")
    code = prove_fault(
        record,
        protocol=compute_protocol_hash(tables.params),
        announced=entry.host_keys.get((group.role, attempt), {}),
        threshold=entry.thresholds[group.role],
    )
    fault = FaultEntry(record, entry.draw, code, tables.head.height)
    tables.put(tables.ceremony_faults, group.epoch, (*known, fault))
    tables.events.append(MemberConvicted(group, attempt, record.accused, code))
    if tables.genesis.needs_arming:
        slash(tables, record.accused, record.record_id, code)
    if entry.state in {EpochState.ANNOUNCED, EpochState.KEYGEN} and group.role not in entry.groups:
        _replace(tables, entry, record)


def _find_epoch(tables: LedgerTables, record: CeremonyFault) -> EpochEntry:
    header = record.header
    if header.leader not in tables.genesis.coordinators:
        raise Refused("no coordinator of this network opened that session", rule="V03", code="WRONG_SESSION")
    entry = tables.epochs.get(header.group.epoch)
    if entry is None:
        raise Refused(f"epoch {header.group.epoch} was never announced", code="UNKNOWN_EPOCH")
    if entry.state in EPOCH.terminal:
        raise Refused(f"epoch {entry.number} is {entry.state}", code="EPOCH_OVER")
    attempts = count_attempts(entry, header.group.role)
    if not entry.first_attempt <= header.attempt < entry.first_attempt + attempts:
        raise Refused(f"attempt {header.attempt} is of another draw of epoch {entry.number}", code="OTHER_DRAW")
    return entry


def _replace(tables: LedgerTables, entry: EpochEntry, record: CeremonyFault) -> None:
    """Put the next draw's successor into the accused's place; without one the group goes on with one member less."""
    role, accused = record.header.group.role, record.accused
    left = Replacement(
        role=role,
        attempt=record.header.attempt,
        accused=accused,
        position=entry.members[role].index(accused),
        successor=None,
        bound=0,
        recorded=tables.head.height,
        convicted=list_convicted(tables, entry.number),
        jailed=list_jailed(tables),
        previous=_list_groups(tables, EpochNumber(entry.number - 1)) if entry.number else (),
        following=_list_groups(tables, EpochNumber(entry.number + 1)),
    )
    # Without a successor its place closes, and whoever draws again opens it first: the same groups either way.
    shrunk = _exchange(entry, left)
    found = find_successor_of(tables.genesis, shrunk, len(entry.replaced))
    after = shrunk
    if found is not None:
        after = _exchange(entry, replace(left, successor=found.identity, bound=found.bound))
    if role is Role.EMERGENCY:
        # The preimage is sealed to who was announced: a successor has none, and the accused counts no more.
        after = replace(after, confirmed=after.confirmed - {accused})
    tables.put(tables.epochs, entry.number, after)
    group = GroupId(entry.number, role)
    tables.events.append(MemberReplaced(group, accused, found.identity if found else None))


def _exchange(entry: EpochEntry, item: Replacement) -> EpochEntry:
    group = list(entry.members[item.role])
    group[item.position : item.position + 1] = [] if item.successor is None else [item.successor]
    members = {**entry.members, item.role: tuple(group)}
    return replace(entry, members=members, replaced=(*entry.replaced, item))


def _list_groups(tables: LedgerTables, number: EpochNumber) -> GroupMembers:
    """Return the groups of an epoch that is announced or due, in the order V, W, E."""
    entry = tables.epochs.get(number)
    if entry is not None and entry.state is not EpochState.ABORTED:
        return tuple((role, entry.members[role]) for role in ROLES)
    due = tables.due.get(number)
    return due.members if due is not None else ()
