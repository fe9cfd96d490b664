"""Which epoch is to be announced next, and its draw: fixed the moment it is due, from buried randomness [R11]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from smpc.params import Params
from smpc.protocol.election import Draw, compute_genesis_seed, find_draw
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
    jailed = list_jailed(tables)
    previous = _find_previous(tables, number)
    found = find_draw(tables.params, tables.genesis.validators, seed, previous=previous, jailed=jailed)
    origin = DrawOrigin(
        draw=draw,
        first_attempt=_find_first_attempt(before),
        seed=seed,
        seed_height=seed_height,
        jailed=jailed,
        bound=found.bound if found else 0,
        strict_bound=found.strict_bound if found else 0,
        redraws=found.redraws if found else 0,
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
    previous = before.members if before else {}
    return find_draw(params, genesis.validators, seed, previous=previous, jailed=origin.jailed)


def _find_previous(tables: LedgerTables, number: EpochNumber) -> Mapping[Role, tuple[IdentityKey, ...]]:
    before = tables.epochs.get(EpochNumber(number - 1))
    return before.members if before else {}


def _find_first_attempt(before: EpochEntry | None) -> Attempt:
    if before is None:
        return Attempt(0)
    return Attempt(before.first_attempt + max(count_attempts(before, role) for role in before.members))


def count_attempts(entry: EpochEntry, role: Role) -> int:
    """Return how many attempts a group's ceremony has: `n - t + 1`, so that each may leave one more member out."""
    return len(entry.members[role]) - entry.thresholds[role] + 1
