"""Which deposits may be transferred, one by one, and how they are gathered into batches (rules V14, V19, V30-V37).

The planner asks the same questions as a reviewer, so that one bad deposit is left out and never blocks the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pegin.build import find_terms
from pegin.change import Outlay, find_change
from pegin.invoice import build_invoice_tree
from pegin.lifecycle import COINBASE_DEPTH
from pegin.model import compute_budget
from pegin.vault import find_epoch_keys
from smpc.errors import BridgeError
from smpc.params import Params
from smpc.protocol.facts import InputFacts, LedgerView
from smpc.protocol.intents import Intent, IntentInput, IntentKind
from smpc.protocol.invoices import InvoiceTerms
from smpc.protocol.ledger_state import IntentStatus
from smpc.types import EpochNumber, FeeRate, Outpoint, Sats

_COUNTED: Final = frozenset({IntentStatus.LIVE, IntentStatus.BOOKED})
"""What uses the caps up: one version of every transfer that was or may still be mined."""

NOTHING: Final = Sats(0)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a deposit cannot be transferred now: the rule, its fixed reason, a sentence."""

    rule: str
    reason: str
    detail: str


def find_deposit_faults(
    ledger: LedgerView, epoch: EpochNumber, item: IntentInput, facts: InputFacts | None
) -> tuple[Fault, ...]:
    """Return every rule a deposit breaks by itself, by my own node's facts; none for one that may be transferred."""
    try:
        terms = find_terms(ledger, epoch, item)
        script = build_invoice_tree(find_epoch_keys(ledger.epochs, epoch), terms).script
    except BridgeError as unknown:
        return (Fault("V31", "INVOICE_UNKNOWN", unknown.message),)
    faults = [*_judge_template(ledger.params, epoch, item, terms), *_judge_history(ledger, item)]
    if facts is None:
        return (*faults, Fault("V14", "INPUT_MISSING", f"my node has no unspent output {item.outpoint}"))
    if facts.script != script:
        faults.append(Fault("V14", "UNKNOWN_SCRIPT", f"{item.outpoint} does not pay invoice {epoch}/{item.child}"))
    if facts.value != item.value:
        text = f"{item.outpoint} holds {facts.value} sat by my node, {item.value} were claimed"
        faults.append(Fault("V14", "AMOUNT_MISMATCH", text))
    return (*faults, *_judge_depth(ledger.params, facts), *_judge_amount(facts, terms))


def select_deposits(
    ledger: LedgerView,
    epoch: EpochNumber,
    deposits: Iterable[tuple[IntentInput, InputFacts]],
    rate: FeeRate,
    promised: Sats = NOTHING,
) -> tuple[IntentInput, ...]:
    """Return the next batch of transferable deposits of one epoch, those whose refund opens first; () for none.

    Leaves out whatever breaks a rule by itself, is being spent, or stands in an intent. Keeps to the input limit and
    the caps, of which proposals that no block records yet take what was `promised` with them, and takes as many as pay
    for themselves together with a tenth of the reserve.
    """
    free = [(item, facts) for item, facts in deposits if _is_free(ledger, epoch, item, facts)]
    free.sort(key=lambda pair: (-pair[1].confirmations, pair[0].outpoint))
    room = compute_room(ledger) - promised
    batch: list[IntentInput] = []
    for item, _ in free:
        if len(batch) < ledger.params.max_batch_inputs and item.value <= room:
            batch.append(item)
            room -= item.value
    return _keep_within_budget(ledger, epoch, batch, rate)


def find_untransferable(
    ledger: LedgerView, intent: Intent, inputs: Mapping[Outpoint, InputFacts]
) -> frozenset[Outpoint]:
    """Return the deposits of a transfer that nobody signs for any more: gone, being refunded, or about to be.

    While it stands in an intent one such deposit holds up all others of its batch; a replacement leaves it out.
    """
    found = ((item, inputs.get(item.outpoint)) for item in intent.inputs)
    return frozenset(
        item.outpoint
        for item, facts in found
        if find_deposit_faults(ledger, intent.epoch, item, facts)
        or (facts is not None and facts.spender not in {None, intent.txid})
    )


def compute_room(ledger: LedgerView) -> int:
    """Return how much more may be deposited now: the smaller of what the total and the rolling cap leave (V33)."""
    params = ledger.params
    since = ledger.height - params.cap_window
    held = sum(entry.value for entry in ledger.vault.values())
    coming = recent = 0
    for entry in ledger.intents.values():
        if entry.intent.kind is not IntentKind.TRANSFER or entry.status not in _COUNTED:
            continue
        value = sum(item.value for item in entry.intent.inputs)
        coming += value if entry.status is IntentStatus.LIVE else 0
        recent += value if entry.recorded > since else 0
    return min(params.max_total_locked - held - coming, params.max_window_deposits - recent)


def _is_free(ledger: LedgerView, epoch: EpochNumber, item: IntentInput, facts: InputFacts) -> bool:
    if facts.spender is not None or ledger.find_standing((item.outpoint,), ()):
        return False
    return not find_deposit_faults(ledger, epoch, item, facts)


def _keep_within_budget(
    ledger: LedgerView, epoch: EpochNumber, batch: list[IntentInput], rate: FeeRate
) -> tuple[IntentInput, ...]:
    """Drop the deposits that pay least until the batch pays its fee; every input costs the same."""
    kept = sorted(batch, key=lambda item: (-_compute_fee_in(ledger, epoch, item), item.outpoint))
    while kept and not _is_affordable(ledger, epoch, kept, rate):
        kept.pop()
    return tuple(sorted(kept, key=lambda item: item.outpoint))


def _is_affordable(ledger: LedgerView, epoch: EpochNumber, items: list[IntentInput], rate: FeeRate) -> bool:
    paid = sum(_compute_fee_in(ledger, epoch, item) for item in items)
    total = Sats(sum(item.value for item in items))
    most = ledger.params.vault_outputs
    change = find_change(ledger.params, Outlay(rate, len(items), total, Sats(0), (), most, Sats(paid)))
    return change is not None and change.fee <= compute_budget(paid, ledger.reserve)


def _compute_fee_in(ledger: LedgerView, epoch: EpochNumber, item: IntentInput) -> Sats:
    return find_terms(ledger, epoch, item).compute_fee_in(item.value)


def _judge_template(params: Params, epoch: EpochNumber, item: IntentInput, terms: InvoiceTerms) -> Iterable[Fault]:
    locks = (terms.emergency_csv, terms.transfer_csv, terms.refund_csv)
    if locks != (params.emergency_csv, params.transfer_csv, params.refund_csv):
        yield Fault("V30", "UNKNOWN_TEMPLATE", f"invoice {item.child} has the locks {locks}, not this network's")
    if (terms.network, terms.epoch, terms.index) != (params.network, epoch, item.child):
        yield Fault("V31", "TERMS_MISMATCH", f"the terms of invoice {epoch}/{item.child} name another place")


def _judge_history(ledger: LedgerView, item: IntentInput) -> Iterable[Fault]:
    if item.outpoint in ledger.credited:
        yield Fault("V37", "ALREADY_CREDITED", f"{item.outpoint} is credited already")


def _judge_depth(params: Params, facts: InputFacts) -> Iterable[Fault]:
    needed = COINBASE_DEPTH if facts.is_coinbase else params.confirmations
    if facts.confirmations < 1:
        yield Fault("V19", "UNCONFIRMED_INPUT", f"{facts.outpoint} is unconfirmed")
    if facts.confirmations < needed:
        text = f"{facts.outpoint} has {facts.confirmations} of {needed} confirmations"
        yield Fault("V32", "NOT_DEEP_ENOUGH", text)
    left = compute_blocks_to_refund(params, facts.confirmations)
    if left <= params.refund_stop:
        yield Fault("V34", "REFUND_TOO_CLOSE", f"the refund of {facts.outpoint} opens in {max(left, 0)} blocks")


def _judge_amount(facts: InputFacts, terms: InvoiceTerms) -> Iterable[Fault]:
    if not terms.min_amount <= facts.value <= terms.max_amount:
        text = f"{facts.value} sat are outside the invoice's {terms.min_amount}..{terms.max_amount}"
        yield Fault("V33", "OUT_OF_BOUNDS", text)
    if facts.is_blocked:
        yield Fault("V35", "BLOCKED", f"{facts.outpoint} is on my blocklist")


def compute_blocks_to_refund(params: Params, confirmations: int) -> int:
    """Return in how many blocks a deposit's refund may be mined; 0 or less when it may be already (rule V34)."""
    return params.refund_csv - confirmations
