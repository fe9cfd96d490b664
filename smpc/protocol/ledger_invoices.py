"""Ledger rules of invoices: terms exactly as the parameters and the fee rate of the block say (section 5, 6) [R19]."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from smpc.curve import is_valid_xonly, verify_schnorr
from smpc.errors import Conflict, InvalidInput, Refused
from smpc.params import Params
from smpc.protocol.invoices import InvoiceRequest, InvoiceTerms, RefundOrigin, compute_fee_base
from smpc.protocol.ledger_destinations import derive_invoice_script
from smpc.protocol.ledger_events import InvoicesIssued
from smpc.protocol.ledger_state import EpochEntry, InvoiceEntry
from smpc.protocol.ledger_tables import LedgerTables
from smpc.protocol.records import InvoicesRecorded
from smpc.types import BtcHeight, FeeRate

MAX_INVOICES_PER_RECORD: Final = 100
"""Outputs of one peg-in, at most."""

INVOICE_INDEX_END: Final = 0x10000000
"""Invoice child indices are below this (section 11, child ranges)."""

MAX_REQUEST_ID: Final = 64
"""Bytes of a request id, at most; at least one."""

MAX_ORIGIN_PATH: Final = 16
"""Child numbers in a refund key's path, at most; wallets use four to six."""

MIN_AMOUNT_FEES: Final = 4
"""An invoice's lower bound is at least this many times the fee of a deposit of that size (section 6)."""

_LAST_BTC_HEIGHT: Final = 499_999_999
"""Above this, Bitcoin reads a lock time as Unix time."""


def compute_fee_rate(tables: LedgerTables) -> FeeRate:
    """Return the block's fee rate: the median of the heartbeats' estimates; the default while there are none."""
    return tables.head.rates[-1][1] if tables.head.rates else tables.params.fee_default


def list_recent_rates(tables: LedgerTables) -> tuple[FeeRate, ...]:
    """Return the rates valid now or not long ago: who priced something at an older final block is not refused."""
    return tuple(rate for _, rate in tables.head.rates) or (tables.params.fee_default,)


def apply_invoices_recorded(tables: LedgerTables, record: InvoicesRecorded) -> None:
    """Take a peg-in: posted by a coordinator of the genesis, every invoice's terms exactly those of this block."""
    _check_request(tables, record)
    if record.coordinator not in tables.genesis.coordinators:
        raise Refused("only a coordinator of the genesis records invoices", code="NOT_A_COORDINATOR")
    _check_counts(tables, record)
    pegin = record.record_id
    if not verify_schnorr(record.coordinator, pegin, record.signature):
        raise Refused("the peg-in's signature is not the coordinator's", code="BAD_SIGNATURE")
    active = tables.require_active_epoch()
    if active.is_convicted:
        raise Refused(
            f"epoch {active.number} is judged: it issues no invoice",
            remedy=f"ask again once epoch {active.number + 1} is active",
            rule="V06",
            code="EPOCH_JUDGED",
        )
    for invoice in record.invoices:
        _check_invoice(tables, active, invoice)
        key = (active.number, invoice.terms.index)
        tables.put(tables.invoices, key, InvoiceEntry(invoice, pegin, tables.head.height))
        tables.put(tables.own_scripts, derive_invoice_script(tables.params, active, invoice.terms), active.number)
    _note_grace(tables, record)
    keys = tuple((active.number, invoice.terms.index) for invoice in record.invoices)
    tables.put(tables.pegins, pegin, keys)
    tables.put(tables.invoice_requests, (record.coordinator, record.request_id), pegin)
    tables.head = replace(tables.head, invoices_in_block=tables.head.invoices_in_block + len(keys))
    tables.events.append(InvoicesIssued(pegin, keys))


def _note_grace(tables: LedgerTables, record: InvoicesRecorded) -> None:
    """Remember how long deposits to these invoices count, so that their epoch does not retire before [R6]."""
    head, params, active = tables.head, tables.params, tables.require_active_epoch()
    if not tables.genesis.has_checkpoints:
        return
    until = active.watched_until
    if head.btc_height is not None:
        # A coordinator may name any expiry; one far from what the heartbeats say must not keep the epoch for ever.
        latest = head.btc_height + params.invoice_blocks + params.confirmations
        expires = min(latest, max(invoice.terms.expires for invoice in record.invoices))
        until = BtcHeight(max(until or 0, expires + params.grace_blocks))
    tables.put(tables.epochs, active.number, replace(active, last_invoice=head.height, watched_until=until))


def _check_request(tables: LedgerTables, record: InvoicesRecorded) -> None:
    if not 1 <= len(record.request_id) <= MAX_REQUEST_ID:
        raise InvalidInput(f"a request id has 1 to {MAX_REQUEST_ID} bytes, got {len(record.request_id)}")
    known = tables.invoice_requests.get((record.coordinator, record.request_id))
    if known is not None:
        raise Conflict(
            f"request id {record.request_id.hex()} belongs to peg-in {known.hex()}",
            remedy="use a new request id for other invoices",
            code="REQUEST_ID_USED",
        )


def _check_counts(tables: LedgerTables, record: InvoicesRecorded) -> None:
    count = len(record.invoices)
    if not 1 <= count <= MAX_INVOICES_PER_RECORD:
        raise InvalidInput(f"a peg-in has 1 to {MAX_INVOICES_PER_RECORD} invoices, got {count}")
    if tables.head.invoices_in_block + count > tables.params.max_invoices_per_block:
        raise Refused(
            f"this block's {tables.params.max_invoices_per_block} invoices are used up",
            remedy="submit again for the next block",
            code="INVOICE_RATE_LIMIT",
        )


def _check_invoice(tables: LedgerTables, active: EpochEntry, invoice: InvoiceRequest) -> None:
    terms = invoice.terms
    if terms.epoch != active.number:
        raise Refused(
            f"epoch {terms.epoch} is not active", remedy="issue invoices of the active one", code="NOT_ACTIVE"
        )
    if not 0 <= terms.index < INVOICE_INDEX_END:
        raise Refused(f"index {terms.index} is outside the invoice range", rule="V31", code="INDEX_OUT_OF_RANGE")
    if (terms.epoch, terms.index) in tables.invoices:
        raise Conflict(f"invoice index {terms.index} is used", remedy="take the next free one", code="INDEX_USED")
    _check_preset(tables, terms)
    _check_bounds(tables.params, invoice)
    _check_keys(terms)
    _check_origin(invoice.origin)


def _check_preset(tables: LedgerTables, terms: InvoiceTerms) -> None:
    params = tables.params
    expected = (params.network, params.emergency_csv, params.transfer_csv, params.refund_csv, params.commission_bp)
    stated = (terms.network, terms.emergency_csv, terms.transfer_csv, terms.refund_csv, terms.fee_bp)
    vbytes, margin = params.fee_in_vbytes, params.fee_margin_percent
    fee_bases = [compute_fee_base(vbytes, rate, margin) for rate in list_recent_rates(tables)]
    if stated != expected or terms.fee_base not in fee_bases:
        raise Refused(
            f"the terms {stated} and {terms.fee_base} differ from the parameters {expected} and {fee_bases[-1]}"
            " (network, locks, basis points; base fee)",
            remedy="build the terms from the preset and the ledger's fee rate",
            rule="V31",
            code="WRONG_TERMS",
        )


def _check_bounds(params: Params, invoice: InvoiceRequest) -> None:
    terms = invoice.terms
    least = max(params.min_deposit, MIN_AMOUNT_FEES * terms.compute_fee_in(terms.min_amount))
    if not least <= terms.min_amount <= terms.max_amount <= params.max_deposit:
        raise Refused(
            f"bounds {terms.min_amount}..{terms.max_amount} sat must lie within {least}..{params.max_deposit}",
            rule="V33",
            code="BOUNDS",
        )
    if not terms.min_amount <= invoice.amount <= terms.max_amount:
        raise Refused(
            f"the amount asked, {invoice.amount} sat, is outside the invoice's bounds", rule="V33", code="BOUNDS"
        )
    if not 0 < terms.expires <= _LAST_BTC_HEIGHT:
        raise Refused(f"{terms.expires} is no Bitcoin height an invoice can expire at", rule="V31", code="WRONG_EXPIRY")


def _check_keys(terms: InvoiceTerms) -> None:
    if not is_valid_xonly(terms.recipient):
        raise Refused("the recipient is not an x-only key", rule="V31", code="BAD_KEY")
    if not is_valid_xonly(terms.refund_key):
        raise Refused("the refund key is not an x-only key", rule="V31", code="BAD_KEY")


def _check_origin(origin: RefundOrigin) -> None:
    if len(origin.fingerprint) != 4 or len(origin.path) > MAX_ORIGIN_PATH or any(item >> 32 for item in origin.path):
        raise InvalidInput(
            f"a refund key's origin is a 4-byte fingerprint and at most {MAX_ORIGIN_PATH} 32-bit child numbers"
        )
