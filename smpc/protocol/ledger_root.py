"""The state root: one hash over everything the ledger remembers, so that replicas compare themselves in 32 bytes."""

from __future__ import annotations

from dataclasses import replace

from smpc.protocol.codec import encode
from smpc.protocol.encoding import Field, hash_fields
from smpc.protocol.ledger_state import Anchor, DrawOrigin, EpochEntry, EpochState, IntentEntry
from smpc.protocol.ledger_tables import LedgerTables
from smpc.types import Outpoint


def compute_state_root(tables: LedgerTables) -> bytes:
    """Return the 32-byte tagged hash `KAON/state` of height, block hash and every table, each sorted by its key.

    Takes time in proportion to the whole state; meant for comparisons, not for every block.
    """
    head, money = tables.head, tables.money
    return hash_fields(
        "state",
        head.height,
        head.block_hash,
        head.time_millis,
        [] if head.active_epoch is None else [head.active_epoch],
        [money.vault, money.supply, money.open_burns, max(money.reserve, 0), max(-money.reserve, 0)],
        [_epoch_fields(entry) for entry in _list_unfolded(tables)],
        [
            (key[0], key[1], encode(entry.request), entry.pegin, entry.recorded)
            for key, entry in sorted(tables.invoices.items())
        ],
        [(key, request, pegin) for (key, request), pegin in sorted(tables.invoice_requests.items())],
        [(key, *_intent_fields(entry)) for key, entry in sorted(tables.intents.items())],
        [(key, [encode(item) for item in items]) for key, items in sorted(tables.challenges.items())],
        [
            (key, encode(entry.request), entry.recorded, entry.fee, entry.status, entry.raises, entry.settled_by or b"")
            for key, entry in sorted(tables.burns.items())
        ],
        [entry.to_fields() for _, entry in sorted(tables.vault.items())],
        [(*_outpoint(key), txid) for key, txid in sorted(tables.credited.items())],
        [(txid, booking.digest) for txid, booking in sorted(tables.bookings.items())],
        [(key, entry.balance, entry.nonce) for key, entry in sorted(tables.accounts.items())],
        [(key, height) for key, height in sorted(tables.records.items())],
        *(_turn_fields(tables) if tables.genesis.has_checkpoints else ()),
        *([_fault_fields(tables)] if tables.ceremony_faults else []),
        *([_arming_fields(tables)] if tables.armings else []),
        *([_verdict_fields(tables)] if _has_verdicts(tables) else []),
    )


def note_anchor(tables: LedgerTables) -> None:
    """Remember block and state root when the block just applied made an epoch active: sweeps notarise these.

    Anchors, and which of them are buried, stand outside the root: they say what stands in the chain anyway.
    """
    active, height = tables.head.active_epoch, tables.head.height
    if not tables.genesis.has_checkpoints or active is None or tables.epochs[active].activated != height:
        return
    anchor = Anchor(height, tables.head.block_hash, compute_state_root(tables))
    tables.put(tables.anchors, active, anchor)


def fold_retired(tables: LedgerTables, entry: EpochEntry) -> None:
    """Fold an epoch that just retired into one hash: it changes no more, and there will be tens of thousands a year."""
    root = hash_fields("retired", tables.head.retired_root, _epoch_fields(entry), _life_fields(entry))
    tables.head = replace(tables.head, retired_root=root)


def _list_unfolded(tables: LedgerTables) -> list[EpochEntry]:
    return [entry for _, entry in sorted(tables.epochs.items()) if entry.state is not EpochState.RETIRED]


def _outpoint(outpoint: Outpoint) -> tuple[Field, ...]:
    return (outpoint.txid, outpoint.vout)


def _epoch_fields(entry: EpochEntry) -> Field:
    return (
        entry.number,
        entry.state,
        entry.announced,
        [] if entry.activated is None else [entry.activated],
        [(role, list(keys)) for role, keys in sorted(entry.members.items())],
        [(role, threshold) for role, threshold in sorted(entry.thresholds.items())],
        entry.preimage_hash,
        [(key, sealed) for key, sealed in sorted(entry.sealed_preimages.items())],
        sorted(entry.confirmed),
        [
            (role, attempt, [(identity, key) for identity, key in sorted(keys.items())])
            for (role, attempt), keys in sorted(entry.host_keys.items())
        ],
        [(role, encode(group)) for role, group in sorted(entry.groups.items())],
        *([[encode(item) for item in entry.replaced]] if entry.replaced else []),
    )


def _fault_fields(tables: LedgerTables) -> Field:
    return [
        (number, [(encode(item.record), item.draw, item.code, item.recorded) for item in entries])
        for number, entries in sorted(tables.ceremony_faults.items())
    ]


def _arming_fields(tables: LedgerTables) -> Field:
    return [(*_outpoint(key), [encode(item) for item in items]) for key, items in sorted(tables.armings.items())]


def _has_verdicts(tables: LedgerTables) -> bool:
    judged = tables.judgements
    return bool(judged.verdicts or judged.punishments or judged.complaints or judged.windows)


def _verdict_fields(tables: LedgerTables) -> Field:
    judged = tables.judgements
    return [
        [encode(item) for _, item in sorted(judged.verdicts.items())],
        [(number, item.preimage, item.recorded) for number, item in sorted(judged.preimages.items())],
        [(*_outpoint(key), [encode(item) for item in items]) for key, items in sorted(judged.rejections.items())],
        [(key, [encode(item) for item in items]) for key, items in sorted(judged.punishments.items())],
        [(*key, sorted(accusers)) for key, accusers in sorted(judged.complaints.items())],
        [encode(item) for _, item in sorted(judged.windows.items())],
        [(*key, sorted(voters)) for key, voters in sorted(judged.absences.items())],
        *([[(*key, txid) for key, txid in sorted(judged.unauthorised.items())]] if judged.unauthorised else []),
    ]


def _turn_fields(tables: LedgerTables) -> tuple[Field, ...]:
    """Return what only a chain with checkpoints remembers."""
    head = tables.head
    return (
        [head.final_height, head.final_hash, *([] if head.btc_height is None else [head.btc_height])],
        [(since, rate) for since, rate in head.rates],
        head.retired_root,
        [(entry.number, _life_fields(entry)) for entry in _list_unfolded(tables)],
        [
            (due.number, due.since, _origin_fields(due.origin), [(role, list(keys)) for role, keys in due.members])
            for _, due in sorted(tables.due.items())
        ],
        [(key, until) for key, until in sorted(tables.jailed.items())],
        [(key, encode(entry.heartbeat), entry.recorded) for key, entry in sorted(tables.heartbeats.items())],
        [
            (height, item.block_hash, sorted(item.voters), int(item.is_justified))
            for height, item in sorted(tables.checkpoints.items())
        ],
        *([_time_fields(tables)] if tables.genesis.needs_arming else []),
    )


def _time_fields(tables: LedgerTables) -> Field:
    """Return by what the ledger tells how long something is undone; only a chain that arms judges anybody for it."""
    return [
        [(step.since, step.final, step.lived) for step in tables.head.final_steps],
        [(*_outpoint(key), height) for key, height in sorted(tables.vault_since.items())],
        [(entry.number, entry.keyed) for entry in _list_unfolded(tables) if entry.keyed is not None],
        [(key, entry.resumed) for key, entry in sorted(tables.intents.items()) if entry.resumed is not None],
    ]


def _life_fields(entry: EpochEntry) -> tuple[Field, ...]:
    return (
        [] if entry.origin is None else [_origin_fields(entry.origin)],
        [] if entry.ended is None else [entry.ended],
        [] if entry.last_invoice is None else [entry.last_invoice],
        [] if entry.watched_until is None else [entry.watched_until],
        entry.rests_until or 0,
        [item.to_fields() for item in entry.commissions],
        int(entry.is_commission_paid),
        *([[entry.released or 0, entry.witness_lost or 0]] if entry.is_convicted else []),
    )


def _origin_fields(origin: DrawOrigin) -> Field:
    return (
        origin.draw,
        origin.first_attempt,
        origin.seed,
        origin.seed_height,
        list(origin.jailed),
        origin.bound,
        origin.strict_bound,
        origin.redraws,
        *([origin.previous_replaced] if origin.previous_replaced else []),
    )


def _intent_fields(entry: IntentEntry) -> tuple[Field, ...]:
    return (
        entry.recorded,
        entry.status,
        [(role, sorted(positions)) for role, positions in sorted(entry.endorsers.items())],
        entry.replaced_by or b"",
        [] if entry.ended is None else [entry.ended],
        entry.spender or b"",
        entry.challenge,
    )
