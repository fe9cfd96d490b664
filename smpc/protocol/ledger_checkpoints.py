"""Ledger rules of checkpoint votes: who may sign which block, and what becomes final by it [R4]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from smpc.errors import Conflict, Refused
from smpc.protocol.attestations import CheckpointVote
from smpc.protocol.checkpoints import CHECKPOINT_BLOCKS, find_final, has_two_thirds, is_checkpoint, verify_vote
from smpc.protocol.ledger_heartbeats import is_jailed, require_checkpoints
from smpc.protocol.ledger_state import Checkpoint
from smpc.protocol.ledger_tables import LedgerTables
from smpc.types import IdentityKey, KaonHash, KaonHeight


def apply_checkpoint_vote(tables: LedgerTables, record: CheckpointVote) -> None:
    """Take a vote of a registered, unjailed validator for a checkpoint of this chain that is not final yet."""
    require_checkpoints(tables.genesis)
    checkpoint = _require_checkpoint(tables, record)
    if record.identity not in list_voting_stakes(tables):
        raise Refused("only a registered validator who is not jailed signs checkpoints", code="NOT_A_VALIDATOR")
    if record.identity in checkpoint.voters:
        raise Conflict(f"this validator signed checkpoint {record.height} already", code="VOTED")
    if not verify_vote(record.identity, record.digest, record.signature):
        raise Refused("the vote's signature is not the validator's", rule="V78", code="BAD_SIGNATURE")
    voters = checkpoint.voters | {record.identity}
    is_justified = checkpoint.is_justified or has_two_thirds(list_voting_stakes(tables), voters)
    tables.put(tables.checkpoints, record.height, replace(checkpoint, voters=voters, is_justified=is_justified))
    if is_justified:
        _finalise(tables)


def note_checkpoint(tables: LedgerTables, block_hash: KaonHash) -> None:
    """Remember the block that was just applied when it is a checkpoint: from now on it can be voted for."""
    height = tables.head.height
    if tables.genesis.has_checkpoints and is_checkpoint(height):
        tables.put(tables.checkpoints, height, Checkpoint(block_hash))


def list_stakes(tables: LedgerTables) -> Mapping[IdentityKey, int]:
    """Return the stake of every registered validator who is not jailed in this block."""
    if not tables.jailed:
        return tables.stakes
    return {identity: stake for identity, stake in tables.stakes.items() if not is_jailed(tables, identity)}


def list_voting_stakes(tables: LedgerTables) -> Mapping[IdentityKey, int]:
    """Return the stake of everybody who signs checkpoints now: who is not jailed in a final block.

    A replica counts by the last final block, so whoever a newer one jails still votes until that one is final. Were it
    otherwise, jailing two groups at once, a third of the stake or more, would leave nobody to make it final.
    """
    if not tables.jailed:
        return tables.stakes
    return {identity: stake for identity, stake in tables.stakes.items() if not _is_jailed_finally(tables, identity)}


def _is_jailed_finally(tables: LedgerTables, identity: IdentityKey) -> bool:
    if not is_jailed(tables, identity):
        return False
    known, head = tables.judgements.punishments.get(identity, ()), tables.head
    serving = [item for item in known if item.until is None or item.until >= head.height]
    return not serving or any(item.recorded <= head.final_height for item in serving)


def _require_checkpoint(tables: LedgerTables, record: CheckpointVote) -> Checkpoint:
    checkpoint = tables.checkpoints.get(record.height)
    if checkpoint is None or record.height < tables.head.final_height:
        raise Refused(
            f"block {record.height} is no checkpoint that waits for votes",
            remedy=f"vote for a multiple of {CHECKPOINT_BLOCKS} above {tables.head.final_height}",
            rule="V78",
            code="NO_CHECKPOINT",
        )
    if checkpoint.block_hash != record.block_hash:
        raise Refused(f"the vote is for another block {record.height}", rule="V78", code="OTHER_BLOCK")
    return checkpoint


def _finalise(tables: LedgerTables) -> None:
    justified = {height for height, checkpoint in tables.checkpoints.items() if checkpoint.is_justified}
    final = find_final(justified)
    if final <= tables.head.final_height:
        return
    tables.head = replace(tables.head, final_height=final, final_hash=tables.checkpoints[final].block_hash)
    for height in sorted(tables.checkpoints):
        # The newest final one stays: with the next it may make that one final in turn.
        if KaonHeight(height) < final:
            tables.drop(tables.checkpoints, height)
