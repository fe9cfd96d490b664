"""The state root: one hash over everything the ledger remembers, so that replicas compare themselves in 32 bytes."""

from __future__ import annotations

from smpc.protocol.codec import encode
from smpc.protocol.encoding import Field, hash_fields
from smpc.protocol.ledger_state import EpochEntry, IntentEntry
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
        [_epoch_fields(entry) for _, entry in sorted(tables.epochs.items())],
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
    )


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
