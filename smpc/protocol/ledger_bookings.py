"""Ledger rules of what ends an intent: the booking that mirrors it, a withdrawal, a death (money table, section 6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from smpc.curve import verify_schnorr
from smpc.errors import Conflict, Refused
from smpc.protocol.ancestry import ForeignSpend, find_path_fault
from smpc.protocol.end_records import IntentDead, IntentWithdrawn
from smpc.protocol.epoch import is_serving
from smpc.protocol.intents import Booking, Credit, Intent, IntentKind, VaultEntry
from smpc.protocol.ledger_armings import check_booking_armed
from smpc.protocol.ledger_events import BurnMoved, DepositCredited, TransactionBooked
from smpc.protocol.ledger_intents import end_intent, require_standing
from smpc.protocol.ledger_rejections import add_loss, compute_booking_without_intent, is_further_loss
from smpc.protocol.ledger_retired_armings import forget_credited
from smpc.protocol.ledger_state import BurnStatus, EpochState, IntentStatus
from smpc.protocol.ledger_tables import LedgerTables
from smpc.protocol.notarisation import Burial
from smpc.protocol.records import BookingRecorded
from smpc.types import (
    BtcHeight,
    ChildIndex,
    EpochNumber,
    IntentId,
    KaonHeight,
    Outpoint,
    Purpose,
    Role,
    Sats,
    Signature,
)

TIP_TOLERANCE: Final = 2
"""Bitcoin blocks a working node may be away from the heartbeats' median (V02)."""

BOOKING_ROLES: Final = (Role.VALIDATOR, Role.WITNESS)
"""Whose group keys sign bookings, withdrawals and deaths."""

VAULT_INDEX_START: Final = 0x10000000
"""A vault output at position i has this child index + i (section 11, child ranges)."""


def compute_booking(tables: LedgerTables, intent_id: IntentId, epoch: EpochNumber) -> Booking:
    """Return the one booking a recorded intent can have as the ledger stands, to be signed by the groups of `epoch`.

    Refused when the intent does not stand any more.
    """
    intent = require_standing(tables, intent_id).intent
    is_transfer = intent.kind is IntentKind.TRANSFER
    credited = tuple(_compute_credits(tables, intent)) if is_transfer else ()
    fees = sum(item.fee_in for item in credited) + sum(tables.burns[burn.burn].fee for burn in intent.payments)
    gain = fees - intent.fee - sum(item.amount for item in intent.commissions)
    return Booking(
        network=intent.network,
        epoch=epoch,
        intent=intent_id,
        txid=intent.txid,
        credits=credited,
        settled=tuple(payment.burn for payment in intent.payments),
        vault_spent=() if is_transfer else tuple(item.outpoint for item in intent.inputs),
        vault_created=tuple(
            VaultEntry(
                outpoint=Outpoint(intent.txid, position),
                value=value,
                epoch=intent.target_epoch,
                child=ChildIndex(VAULT_INDEX_START + position),
            )
            for position, value in enumerate(intent.vault_outputs)
        ),
        reserve_gain=Sats(max(gain, 0)),
        reserve_loss=Sats(max(-gain, 0)),
    )


def apply_booking_recorded(tables: LedgerTables, record: BookingRecorded) -> None:
    """Take a booking: signed by V and W of the active epoch or the one before, exactly what the intent did, once.

    Once per transaction; a theft's losses once per output, since some may enter the vault only after it was booked.
    """
    booking = record.booking
    known = tables.bookings.get(booking.txid)
    if known is not None and not is_further_loss(known, booking):
        raise Conflict("this transaction is booked already", rule="V70", code="BOOKED")
    _check_signer(tables, booking.epoch)
    unrecorded = compute_booking_without_intent(tables, booking)
    if booking != (unrecorded or compute_booking(tables, booking.intent, booking.epoch)):
        raise Refused(
            "the booking is not what the money table makes of the intent",
            remedy="compute it again from the ledger as it stands",
            rule="V70",
            code="WRONG_BOOKING",
        )
    _check_once(tables, booking)
    if unrecorded is None:
        # An emergency goes out at once; its own output is armed when there is a target for it [R14].
        check_booking_armed(tables, booking)
    signatures = {Role.VALIDATOR: record.validator_signature, Role.WITNESS: record.witness_signature}
    check_group_signatures(tables, booking.epoch, booking.digest, signatures)
    _book(tables, booking)
    tables.put(tables.bookings, booking.txid, booking if known is None else add_loss(known, booking))
    tables.events.append(TransactionBooked(booking.intent, booking.txid))


def _check_signer(tables: LedgerTables, epoch: EpochNumber) -> None:
    """Refuse any epoch but the active one or the one before; the keys of a retired or convicted one are void."""
    active = tables.require_active_epoch().number
    entry = tables.epochs.get(epoch)
    is_void = entry is not None and (entry.state is EpochState.RETIRED or entry.is_convicted)
    if epoch not in {active, active - 1} or is_void:
        raise Refused(f"epoch {epoch} books no more: {active} is active", rule="V70", code="NOT_ACTIVE")


def apply_intent_withdrawn(tables: LedgerTables, record: IntentWithdrawn) -> None:
    """Take back an intent whose own epoch's V and W say that no share was released and none will be.

    A recovery is never withdrawn: its W is gone. It needs no exit of that kind, since it pays no burn and nothing else
    of its epoch moves by then; one that V or E refuse is replaced, which frees whatever it held.
    """
    entry = require_standing(tables, record.intent)
    if not is_serving(tables.epochs[entry.intent.epoch], Purpose.WITHDRAWAL):
        raise Refused(f"epoch {record.epoch} signs no withdrawal any more", rule="V06", code="EPOCH_STATE")
    if record.epoch != entry.intent.epoch:
        raise Refused(f"only epoch {entry.intent.epoch} withdraws its intent", rule="V73", code="WRONG_EPOCH")
    signatures = {Role.VALIDATOR: record.validator_signature, Role.WITNESS: record.witness_signature}
    check_group_signatures(tables, record.epoch, record.digest, signatures)
    end_intent(tables, entry, IntentStatus.WITHDRAWN)


def apply_intent_dead(tables: LedgerTables, record: IntentDead) -> None:
    """Take the active epoch's word that another buried transaction spent what an input of the intent needs."""
    entry = require_standing(tables, record.intent)
    if record.epoch != tables.require_active_epoch().number:
        raise Refused(f"epoch {record.epoch} is not active", rule="V73", code="NOT_ACTIVE")
    fault = find_path_fault(ForeignSpend(record.outpoint, record.spender, record.path), entry.intent.outpoints)
    if fault is not None:
        raise Refused(fault, rule="V73", code="BAD_PATH" if record.path else "WRONG_INPUT")
    if any(record.spender == other.intent.txid for other in tables.find_standing([record.outpoint], ())):
        raise Refused(
            "the spender is a recorded intent's own transaction",
            remedy="book that transaction; its booking ends what conflicts with it",
            rule="V73",
            code="NOT_DEAD",
        )
    signatures = {Role.VALIDATOR: record.validator_signature, Role.WITNESS: record.witness_signature}
    check_group_signatures(tables, record.epoch, record.digest, signatures)
    end_intent(tables, entry, IntentStatus.DEAD, spender=record.spender)


def check_group_signatures(
    tables: LedgerTables, epoch: EpochNumber, digest: bytes, signatures: Mapping[Role, Signature]
) -> None:
    """Refuse a digest that the group keys of V and W of `epoch` did not both sign."""
    groups = tables.epochs[epoch].groups
    for role in BOOKING_ROLES:
        if role not in groups or not verify_schnorr(groups[role].group_key[1:], digest, signatures[role]):
            raise Refused(f"the {role} group of epoch {epoch} did not sign this", rule="V70", code="BAD_SIGNATURE")


def _compute_credits(tables: LedgerTables, intent: Intent) -> list[Credit]:
    found: list[Credit] = []
    for item in intent.inputs:
        terms = tables.invoices[intent.epoch, item.child].request.terms
        found.append(Credit(item.outpoint, terms.recipient, item.value, terms.compute_fee_in(item.value)))
    return found


def _check_once(tables: LedgerTables, booking: Booking) -> None:
    if any(credit.outpoint in tables.credited for credit in booking.credits):
        raise Refused("a deposit is credited already", rule="V70", code="CREDITED")
    if any(tables.burns[burn].status is not BurnStatus.OPEN for burn in booking.settled):
        raise Refused("a burn is not open any more", rule="V70", code="BURN_NOT_OPEN")
    if any(outpoint not in tables.vault for outpoint in booking.vault_spent):
        raise Refused("a vault output is spent already", rule="V70", code="NOT_BOOKED")
    if booking.credits and tables.money.reserve < 0:
        raise Refused(
            f"the reserve is {tables.money.reserve} sat: credits halt",
            remedy="top the reserve up with a transfer to it",
            rule="V70",
            code="RESERVE_NEGATIVE",
        )


def _book(tables: LedgerTables, booking: Booking) -> None:
    entry = tables.intents.get(booking.intent)
    spent = [*booking.vault_spent, *(credit.outpoint for credit in booking.credits)]
    if entry is not None:
        end_intent(tables, entry, IntentStatus.BOOKED)
    for loser in tables.find_standing(spent, ()):
        end_intent(tables, loser, IntentStatus.DEAD, spender=booking.txid)
    for credit in booking.credits:
        _credit(tables, booking, credit)
    for burn_id in booking.settled:
        burn = tables.burns[burn_id]
        settled = replace(burn, status=BurnStatus.SETTLED, ended=tables.head.height, settled_by=booking.txid)
        tables.put_burn(settled)
        tables.events.append(BurnMoved(burn_id, BurnStatus.SETTLED))
    for outpoint in booking.vault_spent:
        tables.drop_vault(outpoint)
    for created in booking.vault_created:
        tables.put_vault(created)
    tables.move_reserve(booking.reserve_gain - booking.reserve_loss)
    if entry is not None:
        _note_turns(tables, entry.intent)


def find_burial(tables: LedgerTables, height: KaonHeight) -> Burial | None:
    """Return the lowest notarised height from `height` on whose sweep is booked; None while there is none."""
    found = min((notarised for notarised in tables.notarised if notarised >= height), default=None)
    if found is None:
        return None
    epoch, txid = tables.notarised[found]
    return Burial(found, tables.anchors[epoch].block_hash, txid)


def _note_turns(tables: LedgerTables, intent: Intent) -> None:
    """Note what a booking means for the epoch it spends from: its rest, its paid commission, its notarisation."""
    if not tables.genesis.has_checkpoints:
        return
    entry, params = tables.epochs[intent.epoch], tables.params
    if intent.kind is IntentKind.TRANSFER:
        # Booked before it is `confirmations` deep; the median may lag this booking by the tolerance of V02.
        until = BtcHeight((tables.head.btc_height or 0) + params.confirmations + TIP_TOLERANCE)
        entry = replace(entry, rests_until=max(entry.rests_until or until, until))
    if intent.commissions:
        entry = replace(entry, is_commission_paid=True)
    tables.put(tables.epochs, entry.number, entry)
    anchor = tables.anchors.get(intent.target_epoch)
    if intent.op_return and anchor is not None and anchor.height not in tables.notarised:
        tables.put(tables.notarised, anchor.height, (intent.target_epoch, intent.txid))


def _credit(tables: LedgerTables, booking: Booking, credit: Credit) -> None:
    account = tables.account(credit.recipient)
    balance = Sats(account.balance + credit.value - credit.fee_in)
    tables.put_account(credit.recipient, replace(account, balance=balance))
    tables.put(tables.credited, credit.outpoint, booking.txid)
    forget_credited(tables, credit.outpoint)
    tables.events.append(DepositCredited(credit))
