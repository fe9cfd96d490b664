"""Which epoch is to be announced next, and its draw: fixed the moment it is due, from buried randomness [R11]."""

from __future__ import annotations

from typing import Final

from smpc.params import Params
from smpc.protocol.election import Draw, Successor, compute_genesis_seed, find_draw, find_successor
from smpc.protocol.encoding import hash_fields
from smpc.protocol.ledger_heartbeats import list_jailed
from smpc.protocol.ledger_state import DrawOrigin, DueEpoch, EpochEntry
from smpc.protocol.ledger_tables import LedgerTables
from smpc.protocol.records import Genesis
from smpc.types import Attempt, EpochNumber, IdentityKey, KaonHash, KaonHeight, Role

GENESIS_EPOCHS: Final = 2
"""Epochs 0 and 1 are drawn and keyed at genesis, before the first invoice."""


def compute_seed(final_hash: KaonHash, epoch: EpochNumber, draw: int) -> bytes:
    """Return the 32-byte seed of a draw from the hash of a final block."""
    return hash_fields("election-seed", final_hash, epoch, draw)


def note_due(tables: LedgerTables, number: EpochNumber, before: EpochEntry | None = None) -> None:
    """Let an epoch be announced from this block on; `before` is its own earlier draw, which was aborted.

    Epochs 0 and 1 are drawn before any block is buried; a checkpoint that is final gives every later seed.
    """
    head, draw = tables.head, before.draw + 1 if before else 0
    is_genesis = before is None and number < GENESIS_EPOCHS
    seed, seed_height = compute_seed(head.final_hash, number, draw), head.final_height
    if is_genesis:
        seed, seed_height = compute_genesis_seed(tables.genesis.genesis_hash, number), KaonHeight(0)
    previous = tables.epochs.get(EpochNumber(number - 1))
    jailed = tuple(sorted({*list_jailed(tables), *list_convicted(tables, number)}))
    found = _draw(tables, previous, seed, jailed)
    if found is None and (only := list_jailed(tables)) != jailed:
        # A network too small to do without them must not stand still: they may be drawn, and replaced, again.
        jailed, found = only, _draw(tables, previous, seed, only)
    origin = DrawOrigin(
        draw=draw,
        first_attempt=_find_first_attempt(before),
        seed=seed,
        seed_height=seed_height,
        jailed=jailed,
        bound=found.bound if found else 0,
        strict_bound=found.strict_bound if found else 0,
        redraws=found.redraws if found else 0,
        previous_replaced=len(previous.replaced) if previous else 0,
    )
    tables.put(tables.due, number, DueEpoch(number, head.height, origin, found.members if found else ()))


def draw_again(tables: LedgerTables, due: DueEpoch) -> None:
    """Draw a due epoch anew that could not be drawn: jail terms end, and then there may be a draw."""
    note_due(tables, due.number, tables.epochs.get(due.number))


def find_draw_of(
    params: Params, genesis: Genesis, entry: EpochEntry, before: EpochEntry | None, seed_block: KaonHash
) -> Draw | None:
    """Draw a recorded epoch again, as anyone may: from its origin, the epoch before and one block's hash.

    `seed_block` is the hash of the block at `entry.origin.seed_height` in the caller's own chain, the genesis hash for
    0. None when the origin does not follow from it; else compare the draw's members with the epoch's.
    """
    origin = entry.origin
    if origin is None:
        return find_draw(params, genesis.validators, compute_genesis_seed(genesis.genesis_hash, entry.number))
    is_genesis = entry.number < GENESIS_EPOCHS and origin.draw == 0
    seed = compute_seed(seed_block, entry.number, origin.draw)
    if is_genesis:
        seed = compute_genesis_seed(genesis.genesis_hash, entry.number)
    if seed != origin.seed:
        return None
    previous = compute_members_after(before, origin.previous_replaced) if before else {}
    return find_draw(params, genesis.validators, seed, previous=previous, jailed=origin.jailed)


def compute_members_after(entry: EpochEntry, count: int) -> dict[Role, tuple[IdentityKey, ...]]:
    """Return an epoch's groups as they were after its first `count` replacements; 0 gives the draw itself."""
    members = dict(entry.members)
    for item in reversed(entry.replaced[count:]):
        group = list(members[item.role])
        # Whoever had no successor left his place to nobody: there it opens again.
        group[item.position : item.position + (item.successor is not None)] = [item.accused]
        members[item.role] = tuple(group)
    return members


def find_successor_of(genesis: Genesis, entry: EpochEntry, place: int) -> Successor | None:
    """Draw the successor of an epoch's replacement number `place` again, as anyone may; compare it with the recorded.

    The epoch's seed is taken from the entry: `find_draw_of` shows whether that one follows from the chain.
    """
    item, groups = entry.replaced[place], compute_members_after(entry, place)
    seed = entry.origin.seed if entry.origin else compute_genesis_seed(genesis.genesis_hash, entry.number)
    return find_successor(
        genesis.validators,
        compute_successor_seed(seed, item.role, item.attempt, item.accused),
        item.role,
        [member for member in groups[item.role] if member != item.accused],
        size=compute_elected_size(entry, item.role),
        threshold=entry.thresholds[item.role],
        barred={*item.convicted, *(member for group in groups.values() for member in group)},
        neighbours=(dict(item.previous), dict(item.following)),
        jailed=item.jailed,
    )


def compute_successor_seed(seed: bytes, role: Role, attempt: Attempt, accused: IdentityKey) -> bytes:
    """Return the 32-byte seed of one replacement's draw, from the seed of its epoch's."""
    return hash_fields("election-successor", seed, role, attempt, accused)


def list_convicted(tables: LedgerTables, number: EpochNumber) -> tuple[IdentityKey, ...]:
    """Return who was proven at fault in the ceremonies of an epoch, in any of its draws, sorted."""
    return tuple(sorted({entry.record.accused for entry in tables.ceremony_faults.get(number, ())}))


def _draw(
    tables: LedgerTables, previous: EpochEntry | None, seed: bytes, jailed: tuple[IdentityKey, ...]
) -> Draw | None:
    groups = previous.members if previous else {}
    return find_draw(tables.params, tables.genesis.validators, seed, previous=groups, jailed=jailed)


def _find_first_attempt(before: EpochEntry | None) -> Attempt:
    if before is None:
        return Attempt(0)
    return Attempt(before.first_attempt + max(count_attempts(before, role) for role in before.members))


def count_attempts(entry: EpochEntry, role: Role) -> int:
    """Return how many attempts a group's ceremony has: `n - t + 1`, so that each may leave one more member out."""
    return compute_elected_size(entry, role) - entry.thresholds[role] + 1


def compute_elected_size(entry: EpochEntry, role: Role) -> int:
    """Return a group's `n`: as many as were elected, whoever was replaced or left out since."""
    gone = sum(item.role is role and item.successor is None for item in entry.replaced)
    return len(entry.members[role]) + gone
