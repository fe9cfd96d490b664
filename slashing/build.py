"""Builds armings: which outputs of an intent are armed by which E, to whom, and the transactions (sections 4 and 5)."""

from __future__ import annotations

from collections.abc import Iterable

from slashing.model import BuiltArming
from smpc.errors import InvalidInput, NotFound, Refused
from smpc.protocol.arming_records import Arming, list_armable, list_created
from smpc.protocol.emergency import Target, build_emergency, build_target, find_target_epoch
from smpc.protocol.facts import LedgerView
from smpc.protocol.intents import Intent, IntentInput, IntentKind
from smpc.protocol.ledger_state import EpochEntry
from smpc.types import EpochNumber, Outpoint


def find_target(ledger: LedgerView, epoch: EpochNumber) -> EpochEntry | None:
    """Return the epoch to which outputs of `epoch` are armed now; None when there is none: then credits halt."""
    return find_target_epoch(ledger.epochs, ledger.active_epoch, epoch)


def build_armings(ledger: LedgerView, intent: Intent) -> tuple[BuiltArming, ...]:
    """Build the armings an intent needs, by epoch: its vault outputs, and the deposits it spends.

    Refused (V65, NO_TARGET) when an epoch's outputs have no parallel group now; InvalidInput for more inputs or vault
    outputs than a batch has; NotFound and InvalidInput as `build_emergency`.
    """
    params = ledger.params
    if len(intent.inputs) > params.max_batch_inputs or len(intent.vault_outputs) > params.vault_outputs:
        raise InvalidInput(f"{len(intent.inputs)} inputs, {len(intent.vault_outputs)} vault outputs: too many to arm")
    return tuple(build_arming(ledger, epoch, outputs) for epoch, outputs in list_armable(intent).items())


def build_arming(ledger: LedgerView, epoch: EpochNumber, outputs: Iterable[IntentInput]) -> BuiltArming:
    """Build the arming of these outputs of one epoch; errors as `build_armings`."""
    arming = plan_arming(ledger, epoch, outputs)
    target = Target(arming.target, arming.target_script)
    return BuiltArming(arming, tuple(build_emergency(ledger, epoch, item, target) for item in arming.outputs))


def plan_arming(ledger: LedgerView, epoch: EpochNumber, outputs: Iterable[IntentInput]) -> Arming:
    """Say what to arm and to whom, without any transaction; Refused (V65, NO_TARGET) as `build_armings`."""
    entry = find_target(ledger, epoch)
    if entry is None:
        raise Refused(
            f"outputs of epoch {epoch} have no parallel group to go to",
            remedy="wait until the next epoch is standby",
            rule="V65",
            code="NO_TARGET",
        )
    target = build_target(ledger.params, entry)
    ordered = tuple(sorted(outputs, key=lambda item: item.outpoint))
    return Arming(ledger.params.network, epoch, target.epoch, target.script, ordered)


def require_arming_stands(ledger: LedgerView, arming: Arming) -> None:
    """Raise (Refused) unless what was reviewed goes where E would send it now too: V65 for nowhere, V60 elsewhere."""
    if plan_arming(ledger, arming.epoch, arming.outputs) != arming:
        text = f"outputs of epoch {arming.epoch} are no longer armed to epoch {arming.target} as that was keyed"
        raise Refused(text, rule="V60", code="WRONG_TARGET")


def build_renewal(ledger: LedgerView, epoch: EpochNumber, outpoints: Iterable[Outpoint]) -> BuiltArming:
    """Build a new arming of booked vault outputs, what standing intents create, and deposits they spend.

    NotFound when the ledger knows no such output of the epoch; else errors as `build_armings`.
    """
    return build_arming(ledger, epoch, [_find_standing(ledger, epoch, outpoint) for outpoint in outpoints])


def _find_standing(ledger: LedgerView, epoch: EpochNumber, outpoint: Outpoint) -> IntentInput:
    booked = ledger.vault.get(outpoint)
    if booked is not None and booked.epoch == epoch:
        return IntentInput(outpoint, booked.value, booked.child)
    for entry in ledger.intents.values():
        if entry.status.is_standing and entry.intent.target_epoch == epoch and entry.intent.txid == outpoint.txid:
            # Mined or not, it may come to be; were this to wait for its booking, that would wait for the arming.
            for created in list_created(entry.intent):
                if created.outpoint == outpoint:
                    return created
    for entry in ledger.find_standing((outpoint,), ()):
        if entry.intent.kind is IntentKind.TRANSFER and entry.intent.epoch == epoch:
            return next(item for item in entry.intent.inputs if item.outpoint == outpoint)
    raise NotFound(f"the ledger knows no output {outpoint} of epoch {epoch} to arm")
