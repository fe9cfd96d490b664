"""Ledger rules of intents: who endorsed them, what they may spend and pay, and which of two may stand (3.8) [R2]."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from smpc.errors import Conflict, Refused
from smpc.protocol.intents import Intent, IntentInput, IntentKind, Payment
from smpc.protocol.ledger_endorsements import SIGNING_ROLES, check_endorsements
from smpc.protocol.ledger_events import IntentMoved, IntentOpened
from smpc.protocol.ledger_state import BurnStatus, EpochEntry, EpochState, IntentEntry, IntentStatus
from smpc.protocol.ledger_tables import LedgerTables
from smpc.protocol.records import IntentRecorded
from smpc.types import MAX_MONEY, BurnId, IntentId, Txid

_SERVING: Final[Mapping[IntentKind, frozenset[EpochState]]] = {
    IntentKind.TRANSFER: frozenset({EpochState.ACTIVE, EpochState.RETIRING, EpochState.PARKED}),
    IntentKind.PAYOUT: frozenset({EpochState.ACTIVE, EpochState.RETIRING}),
}
"""The states in which an epoch's groups do this (section 5, "Bitcoin is slower than epochs")."""


def apply_intent_recorded(tables: LedgerTables, record: IntentRecorded) -> None:
    """Take an intent that `t` of V and of W endorsed, whose money adds up and that nothing standing forbids."""
    intent = record.intent
    entry = _check_epochs(tables, intent)
    check_content(tables, intent)
    _check_reserve(tables, intent)
    standing = _check_replacement(tables, intent)
    endorsers = check_endorsements(tables, entry, record)
    intent_id = intent.intent_id
    for older in standing:
        older_id = older.intent.intent_id
        tables.put(tables.intents, older_id, replace(older, status=IntentStatus.REPLACED, replaced_by=intent_id))
        if older.status is IntentStatus.LIVE:
            tables.events.append(IntentMoved(older_id, IntentStatus.REPLACED))
    opened = IntentEntry(intent, tables.head.height, IntentStatus.LIVE, endorsers)
    tables.put(tables.intents, intent_id, opened)
    _hold(tables, intent_id, intent)
    tables.events.append(IntentOpened(intent_id))


def check_content(tables: LedgerTables, intent: Intent) -> None:
    """Refuse an intent whose amounts do not add up or whose inputs and payments are not the ledger's own."""
    _check_shape(tables, intent)
    _check_amounts(tables, intent)
    if not is_conserved(intent):
        raise Refused("inputs differ from payments + vault outputs + fee", rule="V10", code="NOT_CONSERVED")
    if intent.kind is IntentKind.TRANSFER:
        _check_deposits(tables, intent)
    else:
        _check_payout(tables, intent)


def end_intent(tables: LedgerTables, entry: IntentEntry, status: IntentStatus, *, spender: Txid | None = None) -> None:
    """Let an intent stand no longer: free what it held, and make live again what it alone had replaced."""
    intent_id = entry.intent.intent_id
    tables.put(tables.intents, intent_id, replace(entry, status=status, ended=tables.head.height, spender=spender))
    _release(tables, intent_id, entry.intent)
    tables.events.append(IntentMoved(intent_id, status))
    if status is not IntentStatus.BOOKED:
        for older_id in entry.intent.replaces:
            _restore(tables, older_id)


def require_standing(tables: LedgerTables, intent_id: IntentId) -> IntentEntry:
    """Return a recorded intent that may still be mined; Refused for any other."""
    entry = tables.intents.get(intent_id)
    if entry is None:
        raise Refused(f"intent {intent_id.hex()} was never recorded", rule="V21", code="UNKNOWN_INTENT")
    if not entry.status.is_standing:
        raise Refused(f"intent {intent_id.hex()} is {entry.status}", rule="V21", code="NOT_STANDING")
    return entry


def list_conflicts(tables: LedgerTables, intent: Intent) -> Iterable[IntentEntry]:
    """Return the other standing intents that spend an outpoint of `intent`."""
    return (entry for entry in tables.find_standing(intent.outpoints, ()) if entry.intent.intent_id != intent.intent_id)


def holds_burn(tables: LedgerTables, burn: BurnId) -> bool:
    """Tell whether a standing intent pays this burn."""
    return burn in tables.burn_holders


def has_all_payments(intent: Intent, earlier: Intent) -> bool:
    """Tell whether `intent` carries every payment of `earlier` unchanged: same burn, amount and script."""
    return set(earlier.payments) <= set(intent.payments)


def is_conserved(intent: Intent) -> bool:
    """Tell whether the inputs are worth exactly the payments, the vault outputs and the fee."""
    paid = sum(item.amount for item in intent.payments) + sum(intent.vault_outputs) + intent.fee
    return sum(item.value for item in intent.inputs) == paid


def _check_epochs(tables: LedgerTables, intent: Intent) -> EpochEntry:
    entry = tables.epochs.get(intent.epoch)
    if entry is None or any(role not in entry.groups for role in SIGNING_ROLES):
        raise Refused(f"epoch {intent.epoch} has no keyed groups", rule="V06", code="UNKNOWN_EPOCH")
    if entry.state not in _SERVING[intent.kind]:
        raise Refused(
            f"epoch {intent.epoch} is {entry.state}: no {intent.kind} is signed", rule="V06", code="EPOCH_STATE"
        )
    if intent.target_epoch != tables.head.active_epoch:
        raise Refused(
            f"the target epoch {intent.target_epoch} is not active in this block",
            remedy="rebuild the intent for the active epoch",
            rule="V22",
            code="TARGET_NOT_ACTIVE",
        )
    return entry


def _check_shape(tables: LedgerTables, intent: Intent) -> None:
    params = tables.params
    if intent.network != params.network:
        raise Refused(f"the intent is for {intent.network}", rule="V01", code="WRONG_NETWORK")
    _check_count("inputs", len(intent.inputs), 1, params.max_batch_inputs)
    _check_count("payments", len(intent.payments), 0, params.max_batch_payouts)
    _check_count("vault outputs", len(intent.vault_outputs), 0, params.vault_outputs)
    _check_count("replaced intents", len(intent.replaces), 0, params.bump_max_count)
    _check_distinct("outpoint", [item.outpoint for item in intent.inputs])
    _check_distinct("burn", [item.burn for item in intent.payments])
    _check_distinct("replaced intent", intent.replaces)


def _check_amounts(tables: LedgerTables, intent: Intent) -> None:
    least = tables.params.min_vault_output
    amounts = [*(item.value for item in intent.inputs), *(item.amount for item in intent.payments), intent.fee]
    if any(not 0 < amount <= MAX_MONEY for amount in amounts):
        raise Refused("an amount or the fee is zero or more than all bitcoin", rule="V17", code="AMOUNT")
    if any(not least <= value <= MAX_MONEY for value in intent.vault_outputs):
        raise Refused(
            f"a vault output is below {least} sat: change is none or at least that",
            rule="V17",
            code="VAULT_OUTPUT_TOO_SMALL",
        )


def _check_count(what: str, count: int, least: int, most: int) -> None:
    if not least <= count <= most:
        raise Refused(f"an intent has {least} to {most} {what}, got {count}", rule="V12", code="COUNT")


def _check_distinct(what: str, items: Sequence[object]) -> None:
    if len(set(items)) != len(items):
        raise Refused(f"the same {what} twice", rule="V13", code="DUPLICATE")


def _check_reserve(tables: LedgerTables, intent: Intent) -> None:
    if intent.kind is IntentKind.TRANSFER and tables.money.reserve < 0 and not intent.replaces:
        raise Refused(
            f"the reserve is {tables.money.reserve} sat: no deposit is taken while credits halt",
            remedy="top the reserve up with a transfer to it",
            code="RESERVE_NEGATIVE",
        )


def _check_deposits(tables: LedgerTables, intent: Intent) -> None:
    if intent.payments:
        raise Refused("a transfer moves deposits and pays nobody", rule="V23", code="MIXED")
    for item in intent.inputs:
        _check_deposit(tables, intent, item)


def _check_deposit(tables: LedgerTables, intent: Intent, item: IntentInput) -> None:
    invoice = tables.invoices.get((intent.epoch, item.child))
    if invoice is None:
        raise Refused(f"no invoice {item.child} is recorded for epoch {intent.epoch}", rule="V14", code="NO_INVOICE")
    if item.outpoint in tables.credited:
        raise Refused(f"deposit {item.outpoint} is credited already", rule="V37", code="CREDITED")
    if item.outpoint in tables.vault:
        raise Refused(f"{item.outpoint} is a vault output, not a deposit", rule="V23", code="MIXED")
    terms = invoice.request.terms
    if not terms.min_amount <= item.value <= terms.max_amount:
        raise Refused(
            f"deposit {item.outpoint} of {item.value} sat is outside {terms.min_amount}..{terms.max_amount}",
            remedy="leave it to its user's refund",
            rule="V33",
            code="OUT_OF_BOUNDS",
        )


def _check_payout(tables: LedgerTables, intent: Intent) -> None:
    if not intent.payments:
        raise Refused("a payout pays at least one burn", rule="V40", code="NO_PAYMENT")
    for item in intent.inputs:
        booked = tables.vault.get(item.outpoint)
        if booked is None:
            raise Refused(
                f"{item.outpoint} is no booked vault output, and burns are paid from nothing else",
                rule="V23",
                code="NOT_BOOKED",
            )
        if (booked.value, booked.child, booked.epoch) != (item.value, item.child, intent.epoch):
            raise Refused(f"{item.outpoint} differs from its booked entry", rule="V14", code="WRONG_INPUT")
    for payment in intent.payments:
        _check_payment(tables, payment)


def _check_payment(tables: LedgerTables, payment: Payment) -> None:
    burn = tables.burns.get(payment.burn)
    if burn is None or burn.status is not BurnStatus.OPEN:
        raise Refused(
            f"burn {payment.burn.hex()} is {'unknown' if burn is None else burn.status}",
            rule="V40",
            code="BURN_NOT_OPEN",
        )
    if (burn.request.payout, burn.request.script) != (payment.amount, payment.script):
        raise Refused(f"burn {payment.burn.hex()} asks for another amount or script", rule="V41", code="WRONG_PAYMENT")


def _check_replacement(tables: LedgerTables, intent: Intent) -> tuple[IntentEntry, ...]:
    standing = tables.find_standing(intent.outpoints, intent.burns)
    for earlier in standing:
        _check_against(intent, earlier.intent)
    if {entry.intent.intent_id for entry in standing} != set(intent.replaces):
        raise Refused(
            "the intent names as replaced what does not stand in its way", rule="V20", code="REPLACES_TOO_MUCH"
        )
    return standing


def _check_against(intent: Intent, earlier: Intent) -> None:
    if not intent.outpoints & earlier.outpoints:
        raise Refused(
            f"a burn is being paid by intent {earlier.intent_id.hex()}, which shares no input: both could be mined",
            remedy="share an input with it, or wait until it ends",
            rule="V20",
            code="DOUBLE_PAY",
        )
    if earlier.intent_id not in intent.replaces:
        code = "DOUBLE_PAY" if intent.burns & earlier.burns else "OUTPOINT_BUSY"
        raise Refused(
            f"intent {earlier.intent_id.hex()} stands on the same outpoint and is not named as replaced",
            remedy="name every standing intent with a common outpoint or burn, or choose other outpoints",
            rule="V20",
            code=code,
        )
    if not has_all_payments(intent, earlier):
        raise Refused("a replacement carries every payment of what it replaces", rule="V20", code="DOUBLE_PAY")
    if intent.txid == earlier.txid:
        raise Conflict("a standing intent has this transaction already", rule="V13", code="TRANSACTION_RECORDED")
    if intent.fee <= earlier.fee:
        raise Refused(f"a replacement pays more than {earlier.fee} sat of fee", rule="V20", code="FEE_NOT_HIGHER")


def _restore(tables: LedgerTables, older_id: IntentId) -> None:
    older = tables.intents[older_id]
    if older.status is not IntentStatus.REPLACED:
        return
    newer = [
        entry
        for entry in tables.find_standing(older.intent.outpoints, older.intent.burns)
        if older_id in entry.intent.replaces
    ]
    if newer:
        tables.put(tables.intents, older_id, replace(older, replaced_by=newer[-1].intent.intent_id))
        return
    tables.put(tables.intents, older_id, replace(older, status=IntentStatus.LIVE, replaced_by=None))
    tables.events.append(IntentMoved(older_id, IntentStatus.LIVE))


def _hold(tables: LedgerTables, intent_id: IntentId, intent: Intent) -> None:
    """Note that a standing intent uses its outpoints and burns."""
    for outpoint in intent.outpoints:
        held = tables.outpoint_holders.get(outpoint, frozenset())
        tables.put(tables.outpoint_holders, outpoint, held | {intent_id})
    for burn in intent.burns:
        tables.put(tables.burn_holders, burn, tables.burn_holders.get(burn, frozenset()) | {intent_id})


def _release(tables: LedgerTables, intent_id: IntentId, intent: Intent) -> None:
    """Forget that an intent uses its outpoints and burns."""
    for outpoint in intent.outpoints:
        rest = tables.outpoint_holders[outpoint] - {intent_id}
        if rest:
            tables.put(tables.outpoint_holders, outpoint, rest)
        else:
            tables.drop(tables.outpoint_holders, outpoint)
    for burn in intent.burns:
        others = tables.burn_holders[burn] - {intent_id}
        if others:
            tables.put(tables.burn_holders, burn, others)
        else:
            tables.drop(tables.burn_holders, burn)
