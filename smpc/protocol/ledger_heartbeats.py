"""Ledger rules of heartbeats, and their medians: Bitcoin's height and the price of its block space (V78)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from smpc.curve import verify_schnorr
from smpc.errors import Conflict, InvalidInput, Refused
from smpc.protocol.attestations import Heartbeat
from smpc.protocol.ledger_state import HeartbeatEntry
from smpc.protocol.ledger_tables import LedgerTables
from smpc.protocol.records import Genesis
from smpc.types import BtcHeight, FeeRate, IdentityKey, KaonHeight

_LAST_BTC_HEIGHT: Final = 499_999_999
"""Above this, Bitcoin reads a lock time as Unix time."""


def apply_heartbeat(tables: LedgerTables, record: Heartbeat) -> None:
    """Take a registered validator's heartbeat: fresh, and one in every `heartbeat_blocks`."""
    require_checkpoints(tables.genesis)
    _check_values(tables, record)
    if record.identity not in tables.stakes:
        raise Refused("only a registered validator sends heartbeats", code="NOT_A_VALIDATOR")
    height, every = tables.head.height, tables.params.heartbeat_blocks
    if not height - tables.params.endorsement_blocks <= record.kaon_height < height:
        raise Refused(
            f"a heartbeat made at height {record.kaon_height} is too old or from the future in block {height}",
            remedy="make a new one",
            rule="V78",
            code="STALE_HEARTBEAT",
        )
    last = tables.heartbeats.get(record.identity)
    if last is not None and record.kaon_height // every <= last.heartbeat.kaon_height // every:
        raise Conflict(f"this validator's heartbeat of these {every} blocks is recorded", code="HEARTBEAT_KNOWN")
    if not verify_schnorr(record.identity, record.digest, record.signature):
        raise Refused("the heartbeat's signature is not the validator's", rule="V78", code="BAD_SIGNATURE")
    tables.put(tables.heartbeats, record.identity, HeartbeatEntry(record, height))


def refresh_medians(tables: LedgerTables) -> None:
    """Take the medians of what counts in the block that begins: they stay the same throughout it.

    There are none while the validators heard hold half of the stake or less: a few could say anything then.
    """
    entries = list_counting(tables)
    if not _has_quorum(tables, entries):
        entries = []
    heights = sorted(entry.heartbeat.btc_height for entry in entries)
    # Who has no estimate says the default: else the one node that has one would set everybody's price.
    rates = sorted(entry.heartbeat.fee_rate or tables.params.fee_default for entry in entries)
    middle = (len(entries) - 1) // 2
    btc_height = BtcHeight(heights[middle]) if heights else None
    rate = FeeRate(rates[middle]) if rates else tables.params.fee_default
    tables.head = replace(tables.head, btc_height=btc_height, rates=_list_rates(tables, rate))


def list_counting(tables: LedgerTables) -> list[HeartbeatEntry]:
    """Return the heartbeats that count: the latest of every validator who is neither jailed nor silent."""
    oldest = tables.head.height - tables.params.silence_blocks
    return [
        entry
        for identity, entry in tables.heartbeats.items()
        if entry.recorded >= oldest and not is_jailed(tables, identity)
    ]


def _has_quorum(tables: LedgerTables, entries: Sequence[HeartbeatEntry]) -> bool:
    heard = sum(tables.stakes[entry.heartbeat.identity] for entry in entries)
    return heard * 2 > sum(stake for identity, stake in tables.stakes.items() if not is_jailed(tables, identity))


def is_jailed(tables: LedgerTables, identity: IdentityKey) -> bool:
    """Tell whether a validator sits out: nobody draws, counts or pays him until the block his term ends with."""
    until = tables.jailed.get(identity)
    return until is not None and until >= tables.head.height


def list_jailed(tables: LedgerTables) -> tuple[IdentityKey, ...]:
    """Return who is jailed in this block, sorted."""
    return tuple(sorted(identity for identity in tables.jailed if is_jailed(tables, identity)))


def require_checkpoints(genesis: Genesis) -> None:
    """Refuse records of a chain whose genesis knows neither checkpoints nor turning epochs."""
    if not genesis.has_checkpoints:
        raise Refused(
            f"in this chain blocks are final by {genesis.finality}",
            remedy="only a genesis with finality `checkpoints` has heartbeats and checkpoints",
            code="NO_CHECKPOINTS",
        )


def _check_values(tables: LedgerTables, record: Heartbeat) -> None:
    if len(record.btc_hash) != 32 or not 0 <= record.btc_height <= _LAST_BTC_HEIGHT:
        raise InvalidInput("a heartbeat names a Bitcoin block by its height and 32-byte hash")
    params = tables.params
    if record.fee_rate and not params.fee_floor <= record.fee_rate <= params.fee_cap:
        raise Refused(
            f"an estimate is 0 or {params.fee_floor} to {params.fee_cap} sat/kvB, got {record.fee_rate}",
            remedy="clamp the node's estimate to the network's floor and cap",
            rule="V78",
            code="WRONG_ESTIMATE",
        )


def _list_rates(tables: LedgerTables, rate: FeeRate) -> tuple[tuple[KaonHeight, FeeRate], ...]:
    height, rates = tables.head.height, tables.head.rates
    if not rates or rates[-1][1] != rate:
        rates = (*rates, (height, rate))
    oldest = height - tables.params.endorsement_blocks
    first = max((place for place, (since, _) in enumerate(rates) if since <= oldest), default=0)
    return rates[first:]
