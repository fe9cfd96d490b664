"""Ledger rules of epochs: draw, host keys, emergency preimage, certified group keys, activation (sections 4 and 6)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from smpc.curve import is_valid_plain, verify_schnorr
from smpc.errors import BridgeError, Conflict, Refused
from smpc.protocol.ceremony_records import HostKeyAnnounced
from smpc.protocol.election import ROLES, compute_genesis_seed, find_draw
from smpc.protocol.epoch import EPOCH, HostKeyArrived, KeysRecorded, TurnCame
from smpc.protocol.ledger_attendance import punish_missing
from smpc.protocol.ledger_destinations import derive_vault_scripts
from smpc.protocol.ledger_draws import count_attempts
from smpc.protocol.ledger_events import GroupKeyed, HostKeyKnown, PreimageOpened
from smpc.protocol.ledger_state import DrawOrigin, EpochEntry, EpochState, GroupMembers
from smpc.protocol.ledger_tables import LedgerTables
from smpc.protocol.ledger_turns import advance_epochs, enter_announced, move_epoch, note_successor_due
from smpc.protocol.records import EpochAnnounced, GroupInfo, GroupKeyRecorded, PreimageConfirmed, compute_ready_digest
from smpc.threshold.dkg import coordinator_recover
from smpc.types import EpochNumber, GroupId, HostKey, IdentityKey, Role

MAX_SEALED: Final = 256
"""Bytes of one sealed preimage, at most: an ephemeral key, a nonce, 32 bytes and an authentication tag fit well."""

_KEYING: Final = frozenset({EpochState.ANNOUNCED, EpochState.KEYGEN})


def begin_block(tables: LedgerTables) -> None:
    """Move every epoch that is due to move; where epochs do not turn, activate the first once it is standby."""
    if tables.genesis.has_checkpoints:
        advance_epochs(tables)
        return
    if tables.head.active_epoch is not None:
        return
    for number, entry in tables.epochs.items():
        if entry.state is EpochState.STANDBY:
            move_epoch(tables, entry, TurnCame(tables.head.height))
            tables.head = replace(tables.head, active_epoch=number)
            return


def apply_epoch_announced(tables: LedgerTables, record: EpochAnnounced) -> None:
    """Take the proposer's announcement when its draw is the one everybody computes."""
    drawn, origin = _find_draw(tables, record.epoch)
    if not drawn or drawn != record.members:
        raise Refused("the members are not the ones the election draws", remedy="recompute the draw", code="WRONG_DRAW")
    members = dict(record.members)
    _check_sealed(record, members[Role.EMERGENCY])
    entry = EpochEntry(
        number=record.epoch,
        state=EpochState.ANNOUNCED,
        announced=tables.head.height,
        activated=None,
        members=members,
        thresholds={role: tables.params.compute_threshold(len(keys)) for role, keys in members.items()},
        preimage_hash=record.preimage_hash,
        sealed_preimages=dict(record.sealed_preimages),
        confirmed=frozenset(),
        host_keys={},
        groups={},
        origin=origin,
    )
    enter_announced(tables, entry)
    if origin is not None:
        tables.drop(tables.due, record.epoch)
        note_successor_due(tables, record.epoch)


def apply_host_key_announced(tables: LedgerTables, record: HostKeyAnnounced) -> None:
    """Take a member's ceremony host key: once per attempt, never used before, under the identity's signature."""
    entry = _keying_epoch(tables, record.group.epoch)
    role, identity = record.group.role, record.identity
    members = entry.members[role]
    if identity not in members:
        raise Refused(f"{identity.hex()} is no member of {role} in epoch {entry.number}", code="NOT_A_MEMBER")
    if role in entry.groups:
        raise Conflict(f"the {role} group of epoch {entry.number} has its key already", code="GROUP_KEYED")
    attempts = count_attempts(entry, role)
    if not entry.first_attempt <= record.attempt < entry.first_attempt + attempts:
        raise Refused(
            f"attempt {record.attempt} is none of the {attempts} a ceremony has, from {entry.first_attempt} on",
            code="TOO_MANY_ATTEMPTS",
        )
    if entry.is_attempt_over(role, record.attempt):
        raise Refused(f"a proven fault ended attempt {record.attempt}", remedy="take the next", code="ATTEMPT_OVER")
    _check_host_key(tables, record)
    known = entry.host_keys.get((role, record.attempt), {})
    if identity in known:
        raise Conflict("this member announced its host key for this attempt already", code="HOST_KEY_KNOWN")
    host_keys = {**entry.host_keys, (role, record.attempt): {**known, identity: record.host_key}}
    tables.put(tables.used_host_keys, record.host_key, identity)
    tables.events.append(HostKeyKnown(record.group, record.attempt, identity))
    entry = replace(entry, host_keys=host_keys)
    if entry.state is EpochState.ANNOUNCED:
        move_epoch(tables, entry, HostKeyArrived())
    else:
        tables.put(tables.epochs, entry.number, entry)


def apply_preimage_confirmed(tables: LedgerTables, record: PreimageConfirmed) -> None:
    """Take an emergency member's word that its sealed preimage opens to `h`."""
    entry = _epoch(tables, record.epoch)
    if record.identity not in entry.members[Role.EMERGENCY]:
        raise Refused(f"{record.identity.hex()} is no emergency member of epoch {entry.number}", code="NOT_A_MEMBER")
    if record.identity not in entry.sealed_preimages:
        raise Refused("a successor has no sealed preimage to open", code="NO_PREIMAGE")
    if entry.state in EPOCH.terminal:
        raise Refused(f"epoch {entry.number} is {entry.state}", code="EPOCH_KEYED")
    if record.draw != entry.draw:
        raise Refused(f"the preimage confirmed is of draw {record.draw}, not {entry.draw}", code="OTHER_DRAW")
    if record.identity in entry.confirmed:
        raise Conflict("this member confirmed its preimage already", code="PREIMAGE_CONFIRMED")
    if not verify_schnorr(record.identity, record.digest, record.signature):
        raise Refused("the confirmation's signature is not the member's", code="BAD_SIGNATURE")
    tables.events.append(PreimageOpened(entry.number, record.identity))
    _settle_keys(tables, replace(entry, confirmed=entry.confirmed | {record.identity}))


def apply_group_key_recorded(tables: LedgerTables, record: GroupKeyRecorded) -> None:
    """Take a certified group key: all `n` certificates, a proof that every share signs, and a key never seen before."""
    entry = _keying_epoch(tables, record.group.epoch)
    role = record.group.role
    if role in entry.groups:
        raise Conflict(f"the {role} group of epoch {entry.number} has its key already", code="GROUP_KEYED")
    group = _read_certified_group(entry, record)
    if group.group_key in tables.used_group_keys:
        raise Refused("this group key was recorded before", remedy="run the ceremony again", code="KEY_REUSED")
    _check_readiness(record, group)
    tables.put(tables.used_group_keys, group.group_key, entry.number)
    tables.events.append(GroupKeyed(record.group))
    punish_missing(tables, entry, role)
    _settle_keys(tables, replace(entry, groups={**entry.groups, role: group}))


def compute_ready_signatures_needed(size: int, threshold: int) -> int:
    """Return how many overlapping subsets of `threshold` signers it takes to use every one of `size` shares."""
    return -(-size // threshold)


def _find_draw(tables: LedgerTables, epoch: EpochNumber) -> tuple[GroupMembers, DrawOrigin | None]:
    """Return the draw that is due for an epoch, and where it came from; Refused when none is due."""
    if not tables.genesis.has_checkpoints and epoch == 0 and not tables.epochs:
        seed = compute_genesis_seed(tables.genesis.genesis_hash, epoch)
        draw = find_draw(tables.params, tables.genesis.validators, seed)
        return (draw.members if draw else ()), None
    due = tables.due.get(epoch)
    if due is None:
        remedy = "epoch N + 2 is announced when N is active, where epochs turn"
        raise Refused(f"epoch {epoch} is not due", remedy=remedy, code="EPOCH_NOT_DUE")
    return due.members, due.origin


def _check_sealed(record: EpochAnnounced, emergency: tuple[IdentityKey, ...]) -> None:
    if tuple(key for key, _ in record.sealed_preimages) != emergency:
        raise Refused("the preimage must be sealed to every emergency member in order", code="WRONG_SEALED_PREIMAGES")
    if any(not 0 < len(sealed) <= MAX_SEALED for _, sealed in record.sealed_preimages):
        raise Refused(f"a sealed preimage has 1 to {MAX_SEALED} bytes", code="WRONG_SEALED_PREIMAGES")
    if len(record.preimage_hash) != 32:
        raise Refused("the preimage's hash has 32 bytes", code="WRONG_PREIMAGE_HASH")


def _check_host_key(tables: LedgerTables, record: HostKeyAnnounced) -> None:
    if not is_valid_plain(record.host_key):
        raise Refused("the host key is not a compressed curve point", code="BAD_KEY")
    if record.host_key in tables.used_host_keys:
        raise Refused("this host key was announced before", remedy="derive one per ceremony", code="HOST_KEY_REUSED")
    if not verify_schnorr(record.identity, record.digest, record.signature):
        raise Refused("the announcement's signature is not the member's", code="BAD_SIGNATURE")


def _read_certified_group(entry: EpochEntry, record: GroupKeyRecorded) -> GroupInfo:
    role, threshold = record.group.role, entry.thresholds[record.group.role]
    try:
        certified, params = coordinator_recover(record.recovery_data)
    except BridgeError as fault:
        raise Refused(
            f"the recovery data is not certified by every member of its ceremony: {fault.message}",
            remedy="submit the recovery data of the finished ceremony, unchanged",
            code="NOT_CERTIFIED",
        ) from fault
    members = _find_members(entry, record, params.host_keys)
    if params.threshold != threshold:
        raise Refused(f"the ceremony's threshold is {params.threshold}, not {threshold}", code="WRONG_THRESHOLD")
    return GroupInfo(
        group=GroupId(entry.number, role),
        members=members,
        host_keys=params.host_keys,
        threshold=threshold,
        attempt=record.attempt,
        group_key=certified.threshold_pubkey,
        public_shares=certified.public_shares,
        recovery_data=record.recovery_data,
    )


def _find_members(
    entry: EpochEntry, record: GroupKeyRecorded, host_keys: tuple[HostKey, ...]
) -> tuple[IdentityKey, ...]:
    # The first attempt needs all who were drawn; a rerun may leave members out, never so many that under `t` are left.
    role, drawn = record.group.role, entry.members[record.group.role]
    known = entry.host_keys.get((role, record.attempt), {})
    present = tuple(identity for identity in drawn if known.get(identity) in set(host_keys))
    least = len(drawn) if record.attempt == entry.first_attempt else entry.thresholds[role]
    if tuple(known[identity] for identity in present) != host_keys or len(present) < least:
        raise Refused(
            f"the ceremony's host keys are not those {role} announced for attempt {record.attempt}, in order",
            remedy=f"run the ceremony among the members announced, at least {least} of them",
            code="WRONG_MEMBERS",
        )
    return present


def _check_readiness(record: GroupKeyRecorded, group: GroupInfo) -> None:
    needed = compute_ready_signatures_needed(len(group.members), group.threshold)
    if len(set(record.ready_signatures)) != len(record.ready_signatures) or len(record.ready_signatures) < needed:
        raise Refused(f"{needed} different key-ready signatures are needed", rule="V75", code="NOT_READY")
    if len(record.ready_signatures) > len(group.members):
        raise Refused("more key-ready signatures than members", rule="V75", code="NOT_READY")
    digest = compute_ready_digest(record.network, record.group, record.attempt, record.recovery_data)
    if not all(verify_schnorr(group.group_key[1:], digest, item) for item in record.ready_signatures):
        raise Refused("a key-ready signature does not verify", rule="V75", code="BAD_SIGNATURE")


def _settle_keys(tables: LedgerTables, entry: EpochEntry) -> None:
    is_confirmed = len(entry.confirmed) >= entry.thresholds[Role.EMERGENCY]
    if entry.state in _KEYING and is_confirmed and all(role in entry.groups for role in ROLES):
        move_epoch(tables, entry, KeysRecorded(tables.head.height))
        for script in derive_vault_scripts(tables.params, entry):
            tables.put(tables.own_scripts, script, entry.number)
    else:
        tables.put(tables.epochs, entry.number, entry)


def _epoch(tables: LedgerTables, number: EpochNumber) -> EpochEntry:
    entry = tables.epochs.get(number)
    if entry is None:
        raise Refused(f"epoch {number} was never announced", code="UNKNOWN_EPOCH")
    return entry


def _keying_epoch(tables: LedgerTables, number: EpochNumber) -> EpochEntry:
    entry = _epoch(tables, number)
    if entry.state not in _KEYING:
        raise Refused(f"epoch {number} is {entry.state}: its ceremonies are over", code="EPOCH_KEYED")
    return entry
