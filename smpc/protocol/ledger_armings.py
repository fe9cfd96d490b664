"""Ledger rules of armings: what E must have signed before anything is recorded or credited, and what is covered (4, 5).

Everything here sleeps unless the genesis says `emergency: armed`.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from smpc.curve import verify_schnorr
from smpc.errors import BridgeError, Refused
from smpc.protocol.arming_records import Arming, ArmingRecorded, list_armable, list_created
from smpc.protocol.arming_state import ArmingEntry, ArmingFault, Coverage, EpochCoverage, UnarmedOutput
from smpc.protocol.emergency import Emergency, build_emergency, build_target, find_target_epoch
from smpc.protocol.epoch import is_serving
from smpc.protocol.intents import Booking, Intent, IntentInput, IntentKind, VaultEntry
from smpc.protocol.ledger_state import EpochEntry, EpochState
from smpc.protocol.ledger_tables import LedgerTables
from smpc.threshold.child_keys import VAULT_RANGE_START
from smpc.types import EpochNumber, Outpoint, Purpose, Sats, Signature, Txid

_GOOD: Final = frozenset({EpochState.STANDBY, EpochState.ACTIVE, EpochState.RETIRING})
"""In these states a group receives BTC, or soon will."""

MAX_ARMED: Final = 50_000
"""Outpoints that one epoch's E arms, at most: three for each invoice that an epoch has time for."""


def apply_arming_recorded(tables: LedgerTables, record: ArmingRecorded) -> None:
    """Take an arming whose every signature fits the digest computed here; outputs need not exist or be recorded yet.

    E has rebuilt what creates them; that an intent's own outputs are armed is asked when the intent is recorded.
    """
    arming = record.arming
    if not tables.genesis.needs_arming:
        raise Refused("this chain arms nothing", rule="V65", code="ARMING_OFF")
    if arming.network != tables.params.network:
        raise Refused(f"the arming is for {arming.network}", rule="V01", code="WRONG_NETWORK")
    source = tables.epochs.get(arming.epoch)
    if source is None or not is_serving(source, Purpose.ARMING):
        state = source.state if source else "unknown"
        raise Refused(f"epoch {arming.epoch} is {state}: it arms nothing", rule="V06", code="EPOCH_STATE")
    check_outputs(tables, arming)
    _check_deposits(tables, source, arming)
    _check_target(tables, arming)
    _check_own(tables, arming)
    _check_booked(tables, arming)
    for entry in _verify_outputs(tables, record):
        outpoint = entry.output.outpoint
        known = tables.armings.get(outpoint, ())
        if all(item.epoch != entry.epoch for item in known):
            tables.add_to(tables.armed, entry.epoch, 1)
        others = (item for item in known if not _is_same(item, entry))
        tables.put(tables.armings, outpoint, (*others, entry))


def check_armed(tables: LedgerTables, intent: Intent) -> None:
    """Refuse an intent before all it creates, and every deposit it spends, is armed; new deposits while value is not.

    A replacement spends what was taken in already, so it goes on while credits halt.
    """
    unarmed = find_unarmed(tables, intent)
    if unarmed:
        raise Refused(
            f"{unarmed[0]} is not armed, one of {len(unarmed)}",
            remedy="let E of its epoch arm it and record that first",
            rule="V36" if unarmed[0] in intent.outpoints else "V54",
            code="NOT_ARMED",
        )
    if intent.kind is IntentKind.TRANSFER and not intent.replaces and list_unarmed(tables):
        raise Refused(
            "not all vault outputs are armed: no deposit is taken while credits halt",
            remedy="let the outputs that the coverage names be armed again",
            rule="V36",
            code="COVERAGE",
        )


def check_booking_armed(tables: LedgerTables, booking: Booking) -> None:
    """Refuse a booking while one of its vault outputs has no arming to a target that can still take it.

    A parked target still can. Were a booking to wait for a renewal, an E that is gone would lock value out for ever;
    so only what credits somebody waits for a target that was judged or keyed anew since.
    """
    if not tables.genesis.needs_arming:
        return
    borne = {None, ArmingFault.TARGET_PARKED}
    if not booking.credits:
        borne |= {ArmingFault.TARGET_CONVICTED, ArmingFault.TARGET_REKEYED}
    for created in booking.vault_created:
        fault = _find_fault(tables, created.epoch, _to_input(created))
        if fault not in borne:
            raise Refused(
                f"vault output {created.outpoint} is not armed: {fault}",
                remedy="let E of its epoch arm it and record that first",
                rule="V70",
                code="NOT_ARMED",
            )


def find_unarmed(tables: LedgerTables, intent: Intent) -> tuple[Outpoint, ...]:
    """Return the vault outputs and deposits of an intent without a current arming; () where nothing is armed."""
    if not tables.genesis.needs_arming:
        return ()
    return tuple(
        item.outpoint
        for epoch, items in list_armable(intent).items()
        for item in items
        if _find_fault(tables, epoch, item) is not None
    )


def list_unarmed(tables: LedgerTables) -> tuple[UnarmedOutput, ...]:
    """Return the booked vault outputs without a current arming, by outpoint, each with its kind of staleness."""
    if not tables.genesis.needs_arming:
        return ()
    found = ((entry, _find_fault(tables, entry.epoch, _to_input(entry))) for _, entry in sorted(tables.vault.items()))
    return tuple(
        UnarmedOutput(entry.outpoint, entry.value, entry.epoch, fault) for entry, fault in found if fault is not None
    )


def list_unarmed_created(tables: LedgerTables) -> tuple[UnarmedOutput, ...]:
    """Return what standing intents create, mined or not, without a current arming, by outpoint.

    It is not booked, so no coverage counts it; but its booking may wait for a new arming, which no one else asks for.
    """
    if not tables.genesis.needs_arming:
        return ()
    standing = sorted({key for held in tables.outpoint_holders.values() for key in held})
    intents = (tables.intents[key].intent for key in standing)
    created = {item.outpoint: (intent.target_epoch, item) for intent in intents for item in list_created(intent)}
    found = ((epoch, item, _find_fault(tables, epoch, item)) for _, (epoch, item) in sorted(created.items()))
    return tuple(
        UnarmedOutput(item.outpoint, item.value, epoch, fault) for epoch, item, fault in found if fault is not None
    )


def compute_coverage(tables: LedgerTables) -> Coverage:
    """Return how much of the booked vault value has a current arming; nothing of it on a chain that arms nothing."""
    totals = dict(sorted(tables.epoch_value.items()))
    missing = dict.fromkeys(totals, 0)
    for item in list_unarmed(tables):
        missing[item.epoch] += item.value
    if not tables.genesis.needs_arming:
        missing = totals
    return Coverage(
        tuple(EpochCoverage(epoch, Sats(value - missing[epoch]), Sats(value)) for epoch, value in totals.items())
    )


def is_still_target(tables: LedgerTables, epoch: EpochNumber) -> bool:
    """Tell whether something that may still be spent was ever armed to an epoch: it is not erased before [R6]."""
    if not tables.armings:
        return False
    standing = list_standing_txids(tables)
    return any(
        item.target == epoch and _may_be_spent(tables, standing, item)
        for items in tables.armings.values()
        for item in items
    )


def list_standing_txids(tables: LedgerTables) -> frozenset[Txid]:
    """Return the transactions of every intent that may still be mined."""
    return frozenset(tables.intents[key].intent.txid for held in tables.outpoint_holders.values() for key in held)


def may_be_spent(tables: LedgerTables, standing: Container[Txid], outpoint: Outpoint, epoch: EpochNumber) -> bool:
    """Tell whether what an epoch's E armed exists unspent, or may come to, by the ledger.

    `standing` is `list_standing_txids`.
    """
    items = tables.armings.get(outpoint, ())
    return any(item.epoch == epoch and _may_be_spent(tables, standing, item) for item in items)


def _may_be_spent(tables: LedgerTables, standing: Container[Txid], item: ArmingEntry) -> bool:
    """Tell whether what was armed exists unspent, or may come to, by the ledger; of a deposit it knows the credit only.

    Each arming by what it says itself: another epoch's E may have recorded something else beside it.
    """
    outpoint, booked = item.output.outpoint, tables.vault.get(item.output.outpoint)
    if booked is not None:
        return (item.epoch, item.output.child) == (booked.epoch, booked.child)
    if item.output.child >= VAULT_RANGE_START:
        return outpoint.txid in standing
    return outpoint not in tables.credited


def check_outputs(tables: LedgerTables, arming: Arming) -> None:
    """Refuse more outputs than a batch has, or any out of order or named twice."""
    most = tables.params.max_batch_inputs + tables.params.vault_outputs
    outpoints = [item.outpoint for item in arming.outputs]
    if not 1 <= len(outpoints) <= most:
        raise Refused(f"an arming is of 1 to {most} outputs, got {len(outpoints)}", rule="V12", code="COUNT")
    if outpoints != sorted(set(outpoints)):
        raise Refused("an arming names each output once, by outpoint", rule="V13", code="DUPLICATE")


def _check_own(tables: LedgerTables, arming: Arming) -> None:
    """Refuse a second meaning of an outpoint, and more of them than an epoch can have: E's word is all there is.

    An outpoint has one value and one place in the tree of keys, so an honest E never arms it as two; a hostile one
    could otherwise let every replica remember, and go through, as much as it likes to sign.
    """
    known = {item.outpoint: tables.armings.get(item.outpoint, ()) for item in arming.outputs}
    for item in arming.outputs:
        if any(entry.epoch == arming.epoch and entry.output != item for entry in known[item.outpoint]):
            text = f"E of epoch {arming.epoch} armed {item.outpoint} as another output"
            raise Refused(text, remedy="take its value and child index from there", rule="V60", code="ARMED_OTHERWISE")
    fresh = sum(all(entry.epoch != arming.epoch for entry in entries) for entries in known.values())
    if tables.armed.get(arming.epoch, 0) + fresh > MAX_ARMED:
        text = f"an epoch arms at most {MAX_ARMED} outputs"
        raise Refused(text, remedy="wait for the next epoch", rule="V12", code="TOO_MANY_ARMED")


def _check_booked(tables: LedgerTables, arming: Arming) -> None:
    """Refuse an arming that says otherwise of a booked vault output than its booking.

    Of booked outputs alone the ledger knows whose they are: a deposit's script stands nowhere in it, and an intent's
    txid is its endorsers' word until V and W have signed for it.
    """
    for item in arming.outputs:
        booked = tables.vault.get(item.outpoint)
        if booked is not None and (booked.epoch, _to_input(booked)) != (arming.epoch, item):
            text = f"{item.outpoint} is booked as another output, of epoch {booked.epoch}"
            raise Refused(text, remedy="take it as the ledger's vault has it", rule="V60", code="BOOKED_OTHERWISE")


def _check_deposits(tables: LedgerTables, source: EpochEntry, arming: Arming) -> None:
    """Refuse new deposits of a convicted epoch: nothing of it is transferred any more, users refund (section 6)."""
    if not source.is_convicted:
        return
    deposits = [item for item in arming.outputs if item.child < VAULT_RANGE_START]
    fresh = [
        item
        for item in deposits
        if all(known.epoch != source.number for known in tables.armings.get(item.outpoint, ()))
    ]
    if fresh:
        raise Refused(
            f"epoch {source.number} is judged: deposit {fresh[0].outpoint} was not armed before and is not now",
            remedy="its user takes it back with the refund",
            rule="V65",
            code="EPOCH_JUDGED",
        )


def _check_target(tables: LedgerTables, arming: Arming) -> None:
    expected = find_target_epoch(tables.epochs, tables.head.active_epoch, arming.epoch)
    if expected is None:
        raise Refused(f"outputs of epoch {arming.epoch} have no parallel group", rule="V65", code="NO_TARGET")
    target = build_target(tables.params, expected)
    if (arming.target, arming.target_script) != (target.epoch, target.script):
        raise Refused(
            f"outputs of epoch {arming.epoch} are armed to epoch {target.epoch} as it is keyed now",
            remedy="build the arming again",
            rule="V60",
            code="WRONG_TARGET",
        )


def _verify_outputs(tables: LedgerTables, record: ArmingRecorded) -> list[ArmingEntry]:
    """Return what to remember of each output; built and verified one by one, so that a forgery costs little."""
    arming, found, start = record.arming, list[ArmingEntry](), 0
    target = build_target(tables.params, tables.epochs[arming.target])
    for item in arming.outputs:
        emergency = build_emergency(tables, arming.epoch, item, target)
        signatures = record.signatures[start : start + len(emergency.rungs)]
        start += len(emergency.rungs)
        _verify(emergency, signatures)
        entry = ArmingEntry(item, arming.epoch, target.epoch, target.script, signatures, tables.head.height)
        found.append(entry)
    if start != len(record.signatures):
        text = f"{start} rungs need as many signatures, got {len(record.signatures)}"
        raise Refused(text, rule="V60", code="BAD_SIGNATURE")
    return found


def _verify(emergency: Emergency, signatures: tuple[Signature, ...]) -> None:
    outpoint, rungs = emergency.output.outpoint, emergency.rungs
    if not rungs:
        raise Refused(f"{outpoint} bears no emergency fee", rule="V65", code="VALUE_TOO_SMALL")
    is_signed = len(signatures) == len(rungs) and all(
        verify_schnorr(emergency.emergency_key, rung.digest, signature)
        for rung, signature in zip(rungs, signatures, strict=True)
    )
    if not is_signed:
        raise Refused(f"an emergency of {outpoint} is not signed by E", rule="V60", code="BAD_SIGNATURE")


def _is_same(one: ArmingEntry, other: ArmingEntry) -> bool:
    """Tell whether two armings are of the same transactions."""
    return (one.epoch, one.output, one.target_script) == (other.epoch, other.output, other.target_script)


def _to_input(entry: VaultEntry) -> IntentInput:
    return IntentInput(entry.outpoint, entry.value, entry.child)


def _find_fault(tables: LedgerTables, epoch: EpochNumber, output: IntentInput) -> ArmingFault | None:
    """Return why an output is not armed; None when one of its armings is current."""
    known = [item for item in tables.armings.get(output.outpoint, ()) if (item.epoch, item.output) == (epoch, output)]
    fault = ArmingFault.MISSING
    for item in reversed(known):
        found = judge_target(tables, item)
        if found is None:
            return None
        fault = found if fault is ArmingFault.MISSING else fault
    return fault


def judge_target(tables: LedgerTables, item: ArmingEntry) -> ArmingFault | None:
    """Return why an arming's target takes nothing, or soon will not; None when it is good."""
    target = tables.epochs.get(item.target)
    if target is None or target.state is EpochState.RETIRED:
        return ArmingFault.TARGET_RETIRED
    try:
        is_same = build_target(tables.params, target).script == item.target_script
    except BridgeError:
        is_same = False
    if not is_same:
        return ArmingFault.TARGET_REKEYED
    if target.is_convicted:
        return ArmingFault.TARGET_CONVICTED
    if target.state is EpochState.PARKED:
        return ArmingFault.TARGET_PARKED
    return None if target.state in _GOOD else ArmingFault.TARGET_REKEYED
