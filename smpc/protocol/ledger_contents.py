"""Ledger rules of what an intent says: its shape, its amounts, and that inputs and payments are the ledger's own."""

from __future__ import annotations

from collections.abc import Sequence

from smpc.errors import Refused
from smpc.protocol.election import ROLES
from smpc.protocol.intents import Intent, IntentInput, IntentKind, Payment
from smpc.protocol.ledger_commission import can_carry_commission, find_due_commission
from smpc.protocol.ledger_state import Anchor, BurnStatus
from smpc.protocol.ledger_tables import LedgerTables
from smpc.protocol.notarisation import Notarisation, build_op_return
from smpc.types import MAX_MONEY, EpochNumber, Script


def check_content(tables: LedgerTables, intent: Intent) -> None:
    """Refuse an intent whose amounts do not add up or whose inputs and payments are not the ledger's own."""
    _check_shape(tables, intent)
    _check_amounts(tables, intent)
    if intent.kind is not IntentKind.SWEEP and (intent.commissions or intent.op_return):
        raise Refused("only a sweep pays commission and notarises", rule="V16", code="NOT_A_SWEEP")
    if not is_conserved(intent):
        raise Refused(
            "inputs differ from payments + commission + vault outputs + fee", rule="V10", code="NOT_CONSERVED"
        )
    match intent.kind:
        case IntentKind.TRANSFER:
            _check_deposits(tables, intent)
        case IntentKind.PAYOUT:
            _check_payout(tables, intent)
        case IntentKind.SWEEP:
            _check_sweep(tables, intent)
        case IntentKind.RECOVERY:
            _check_recovery(tables, intent)


def is_conserved(intent: Intent) -> bool:
    """Tell whether the inputs are worth exactly the payments, the commission, the vault outputs and the fee."""
    paid = sum(item.amount for item in intent.payments) + sum(item.amount for item in intent.commissions)
    return sum(item.value for item in intent.inputs) == paid + sum(intent.vault_outputs) + intent.fee


def check_reserve(tables: LedgerTables, intent: Intent) -> None:
    """Refuse what the reserve cannot bear in this block: deposits while it is negative, a sweep or recovery."""
    if intent.kind in {IntentKind.SWEEP, IntentKind.RECOVERY}:
        _check_sweep_cost(tables, intent)
    if intent.kind is IntentKind.TRANSFER and tables.money.reserve < 0 and not intent.replaces:
        raise Refused(
            f"the reserve is {tables.money.reserve} sat: no deposit is taken while credits halt",
            remedy="top the reserve up with a transfer to it",
            code="RESERVE_NEGATIVE",
        )


def _check_shape(tables: LedgerTables, intent: Intent) -> None:
    params = tables.params
    if intent.network != params.network:
        raise Refused(f"the intent is for {intent.network}", rule="V01", code="WRONG_NETWORK")
    _check_count("inputs", len(intent.inputs), 1, params.max_batch_inputs)
    _check_count("payments", len(intent.payments), 0, params.max_batch_payouts)
    _check_count("vault outputs", len(intent.vault_outputs), 0, params.vault_outputs)
    _check_count("commission payments", len(intent.commissions), 0, len(ROLES) * params.group_size)
    _check_count("replaced intents", len(intent.replaces), 0, params.bump_max_count)
    _check_distinct("outpoint", [item.outpoint for item in intent.inputs])
    _check_distinct("burn", [item.burn for item in intent.payments])
    _check_distinct("replaced intent", intent.replaces)


def _check_amounts(tables: LedgerTables, intent: Intent) -> None:
    least = tables.params.min_vault_output
    paid = [item.amount for item in intent.payments] + [item.amount for item in intent.commissions]
    amounts = [*(item.value for item in intent.inputs), *paid, intent.fee]
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
    _check_vault_spend(tables, intent)


def _check_sweep(tables: LedgerTables, intent: Intent) -> None:
    anchor = tables.anchors.get(intent.target_epoch)
    if anchor is None or intent.op_return != compute_op_return(anchor, intent.epoch):
        raise Refused(
            "a sweep notarises the block that made its target epoch active, and nothing else",
            remedy="take the OP_RETURN from the ledger as it stands",
            rule="V16",
            code="WRONG_OP_RETURN",
        )
    if not intent.vault_outputs and not intent.payments:
        raise Refused("a sweep leaves at least one vault output", rule="V17", code="NO_VAULT_OUTPUT")
    _check_vault_spend(tables, intent)


def _check_recovery(tables: LedgerTables, intent: Intent) -> None:
    """Refuse a recovery that pays anybody; that W of its epoch was judged is asked with the epoch (V06)."""
    if intent.payments:
        raise Refused("a recovery moves vault outputs and pays nobody", rule="V77", code="PAYS_SOMEBODY")
    _check_vault_spend(tables, intent)


def _check_vault_spend(tables: LedgerTables, intent: Intent) -> None:
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


def check_commission(tables: LedgerTables, intent: Intent) -> None:
    """Refuse a sweep whose commission is not exactly what is due; none is right where there is no room for it (V52)."""
    due = find_due_commission(tables, intent.epoch, intent.replaces)
    if intent.commissions == due:
        return
    if not intent.commissions and not can_carry_commission(tables.params, intent, due):
        return
    raise Refused(
        f"the sweep pays {len(intent.commissions)} commissions where the ledger says {len(due)}, or other amounts",
        remedy="take the commission from the ledger as it stands",
        rule="V52",
        code="WRONG_COMMISSION",
    )


def compute_op_return(anchor: Anchor, epoch: EpochNumber) -> Script:
    """Return the output script with which a sweep of `epoch` notarises the block that made its target active."""
    return build_op_return(Notarisation(epoch, anchor.block_hash, anchor.state_root))


def _check_sweep_cost(tables: LedgerTables, intent: Intent) -> None:
    gain = sum(tables.burns[item.burn].fee for item in intent.payments)
    cost = intent.fee + sum(item.amount for item in intent.commissions)
    if tables.money.reserve + gain < cost and not intent.replaces:
        raise Refused(
            f"the reserve of {tables.money.reserve} sat cannot pay a {intent.kind} of {cost - gain} sat",
            remedy="wait for lower fees, or top the reserve up with a transfer to it",
            rule="V18",
            code="RESERVE_TOO_LOW",
        )
