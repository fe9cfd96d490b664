"""Ledger rules of executed emergencies: W's half of the signatures, and the booking of what was mined (section 6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from smpc.curve import verify_schnorr
from smpc.errors import NotFound, Refused
from smpc.protocol.arming_state import ArmingEntry, ArmingFault
from smpc.protocol.emergency import ANCHOR_VALUE, EMERGENCY_POSITION, Rung, Target, build_emergency
from smpc.protocol.encoding import hash_fields
from smpc.protocol.epoch import is_serving
from smpc.protocol.intents import Booking, Credit, VaultEntry
from smpc.protocol.ledger_armings import check_outputs, judge_target
from smpc.protocol.ledger_events import OutputsRejected
from smpc.protocol.ledger_state import IntentStatus
from smpc.protocol.ledger_tables import LedgerTables
from smpc.protocol.ledger_verdicts import is_verdict_final, require_emergency
from smpc.protocol.verdict_records import RejectionSigned, compute_release_id
from smpc.protocol.verdict_state import RejectionEntry
from smpc.threshold.child_keys import VAULT_RANGE_START, compute_vault_index
from smpc.types import EpochNumber, IntentId, Network, Outpoint, Purpose, Role, Sats, Script, Txid


def apply_rejection_signed(tables: LedgerTables, record: RejectionSigned) -> None:
    """Take W's signatures of emergencies that E armed, of an epoch whose release is final (V60, V61, V76)."""
    require_emergency(tables)
    arming = record.arming
    entry = tables.epochs.get(arming.epoch)
    if entry is None or not is_serving(entry, Purpose.REJECTION):
        raise Refused(f"epoch {arming.epoch} is not released", rule="V76", code="NOT_RELEASED")
    if not is_verdict_final(tables, arming.epoch, Role.VALIDATOR):
        raise Refused(f"the release of epoch {arming.epoch} is not final", rule="V61", code="NOT_FINAL")
    check_outputs(tables, arming)
    for found in _verify_outputs(tables, record):
        outpoint = found.output.outpoint
        known = tables.judgements.rejections.get(outpoint, ())
        # What another epoch's W signed of the same outpoint stays: it is another leaf, which may be the true one.
        place = (found.epoch, found.target_script)
        others = (item for item in known if (item.epoch, item.target_script) != place)
        tables.put(tables.judgements.rejections, outpoint, (*others, found))
    tables.events.append(OutputsRejected(arming.epoch, tuple(item.outpoint for item in arming.outputs)))


def find_usable_arming(
    tables: LedgerTables, outpoint: Outpoint, epoch: EpochNumber | None = None
) -> ArmingEntry | None:
    """Return the newest arming of an output whose target can still take it, also a parked one; None without one.

    With `epoch` only what that epoch's E signed: the ledger does not know whose output an outpoint is, so another E
    could record something beside it.
    """
    return next((item for item in list_usable_armings(tables, outpoint) if epoch in {None, item.epoch}), None)


def list_usable_armings(tables: LedgerTables, outpoint: Outpoint) -> Iterator[ArmingEntry]:
    """Yield the armings of an output whose targets can still take it, also parked ones, the newest first."""
    for item in reversed(tables.armings.get(outpoint, ())):
        if is_usable(tables, item):
            yield item


def is_usable(tables: LedgerTables, item: ArmingEntry) -> bool:
    """Tell whether the target of an arming can still take what is sent to it, also a parked one."""
    return judge_target(tables, item) in {None, ArmingFault.TARGET_PARKED}


def reaches_target(tables: LedgerTables, item: ArmingEntry) -> bool:
    """Tell whether what an arming pays are its target's keys, so that the vault output it makes can be spent.

    W signs none else; one that is sent all the same, to a standby group that was keyed anew since, is a theft.
    """
    return judge_target(tables, item) not in {ArmingFault.TARGET_REKEYED, ArmingFault.TARGET_RETIRED}


def is_emergency(tables: LedgerTables, outpoint: Outpoint, txid: Txid) -> bool:
    """Tell whether a transaction is an armed emergency of an output that reaches its target."""
    return any(reaches_target(tables, item) for item, _ in _list_matches(tables, outpoint, txid))


def find_emergency(
    tables: LedgerTables, outpoint: Outpoint, txid: Txid, leaf: Script | None = None
) -> tuple[ArmingEntry, Rung] | None:
    """Return the armed emergency of an output that has this txid; None when none of them does.

    Another epoch's E may have recorded an arming of the same outpoint as if it were its own epoch's: its transactions
    have the same txid and can never be mined. So of several the one counts whose `leaf` the mined transaction revealed.
    """
    return next(iter(_list_matches(tables, outpoint, txid, leaf)), None)


def _list_matches(
    tables: LedgerTables, outpoint: Outpoint, txid: Txid, leaf: Script | None = None
) -> list[tuple[ArmingEntry, Rung]]:
    found = []
    booked = tables.vault.get(outpoint)
    for item in reversed(tables.armings.get(outpoint, ())):
        if booked is not None and (item.epoch, item.output.child) != (booked.epoch, booked.child):
            continue
        emergency = build_emergency(tables, item.epoch, item.output, Target(item.target, item.target_script))
        if leaf in {None, emergency.leaf}:
            found += [(item, rung) for rung in emergency.rungs if rung.transaction.txid == txid]
    return found


def list_emergencies(tables: LedgerTables, outpoint: Outpoint) -> tuple[Rung, ...]:
    """Return every armed emergency of an output whose epoch has them booked; () of any other."""
    return tuple(
        rung
        for item in tables.armings.get(outpoint, ())
        if is_booked_when_mined(tables, item.epoch)
        for rung in build_emergency(tables, item.epoch, item.output, Target(item.target, item.target_script)).rungs
    )


def compute_emergency_booking(
    tables: LedgerTables, outpoint: Outpoint, txid: Txid, epoch: EpochNumber, leaf: Script | None = None
) -> Booking:
    """Return the one booking an emergency of `outpoint` can have, to be signed by the groups of `epoch`.

    `leaf` is the rejection leaf that the mined transaction revealed (`find_emergency`). Refused (V70) when it is no
    armed emergency of an epoch whose emergencies are booked, when it pays keys that its target does not have, or when
    the ledger does not hold the output any more.
    """
    found = find_emergency(tables, outpoint, txid, leaf)
    if found is None or not is_booked_when_mined(tables, found[0].epoch):
        raise Refused(f"{outpoint} has no released emergency of that txid", rule="V70", code="NOT_RELEASED")
    return _book_match(tables, outpoint, *found, epoch)


def is_booked_when_mined(tables: LedgerTables, epoch: EpochNumber) -> bool:
    """Tell whether an epoch's emergencies are booked: it is released, or its W is proven to have signed without that.

    Such evidence releases its outputs as well (section 6, Emergency): W executes what E armed with the preimage from
    any one member of E, and the BTC is where E said. Without evidence nobody accounts for it, so it stays refused.
    """
    return tables.epochs[epoch].released is not None or (epoch, Role.WITNESS) in tables.judgements.unauthorised


def list_booked_when_mined(tables: LedgerTables) -> tuple[EpochNumber, ...]:
    """Return the epochs whose emergencies are booked, ascending."""
    judged = tables.judgements
    named = {number for number, _ in (*judged.verdicts, *judged.unauthorised)}
    return tuple(number for number in sorted(named) if is_booked_when_mined(tables, number))


def _book_match(tables: LedgerTables, outpoint: Outpoint, item: ArmingEntry, rung: Rung, epoch: EpochNumber) -> Booking:
    if not reaches_target(tables, item):
        text = f"the emergency of {outpoint} pays keys that epoch {item.target} does not have"
        raise Refused(text, remedy="book a vault output as a loss", rule="V70", code="TARGET_LOST")
    txid = rung.transaction.txid
    is_vault = item.output.child >= VAULT_RANGE_START
    cost = rung.fee + ANCHOR_VALUE
    credited = () if is_vault else (_compute_credit(tables, item),)
    if is_vault and outpoint not in tables.vault:
        raise Refused(f"{outpoint} is not booked, or spent already", rule="V70", code="NOT_BOOKED")
    gain = sum(credit.fee_in for credit in credited) - cost
    return Booking(
        network=tables.params.network,
        epoch=epoch,
        intent=compute_release_id(tables.params.network, item.epoch),
        txid=txid,
        credits=credited,
        settled=(),
        vault_spent=(outpoint,) if is_vault else (),
        vault_created=(
            VaultEntry(
                outpoint=Outpoint(txid, EMERGENCY_POSITION),
                value=Sats(item.output.value - cost),
                epoch=item.target,
                child=compute_vault_index(EMERGENCY_POSITION),
            ),
        ),
        reserve_gain=Sats(max(gain, 0)),
        reserve_loss=Sats(max(-gain, 0)),
    )


def compute_loss_id(network: Network, txid: Txid) -> IntentId:
    """Return the 32 bytes that stand in a loss's booking where others have their intent's id."""
    return IntentId(hash_fields("loss", network, txid))


def compute_loss_booking(
    tables: LedgerTables, outpoints: tuple[Outpoint, ...], txid: Txid, epoch: EpochNumber
) -> Booking:
    """Return the booking of vault outputs that a transaction of no record spent for good: the reserve bears it.

    NotFound when one of them is not booked; Refused when one stands twice (V13), or when the transaction is recorded or
    an emergency (V70).
    """
    if len(set(outpoints)) != len(outpoints):
        text = "the loss names the same vault output twice"
        raise Refused(text, remedy="name each output once", rule="V13", code="DUPLICATE")
    missing = [item for item in outpoints if item not in tables.vault]
    if missing or not outpoints:
        raise NotFound(f"{missing[0] if missing else 'nothing'} is no booked vault output")
    # Of an intent that stands no more the transaction is a loss like any other: it was not to be signed or mined.
    is_known = any(
        entry.intent.txid == txid and (entry.status.is_standing or entry.status is IntentStatus.BOOKED)
        for entry in tables.intents.values()
    )
    if is_known or any(is_emergency(tables, item, txid) for item in outpoints):
        raise Refused("that transaction is recorded: book it", rule="V70", code="NOT_A_LOSS")
    return Booking(
        network=tables.params.network,
        epoch=epoch,
        intent=compute_loss_id(tables.params.network, txid),
        txid=txid,
        credits=(),
        settled=(),
        vault_spent=tuple(sorted(outpoints)),
        vault_created=(),
        reserve_gain=Sats(0),
        reserve_loss=Sats(sum(tables.vault[item].value for item in outpoints)),
    )


def is_further_loss(known: Booking, booking: Booking) -> bool:
    """Tell whether a booking adds to what its transaction has booked: a loss of outputs that entered the books later.

    Money is protected output by output: each leaves the vault once, whichever of the transaction's losses names it.
    """
    is_loss = booking.intent == known.intent == compute_loss_id(booking.network, booking.txid)
    return is_loss and not set(known.vault_spent) & set(booking.vault_spent)


def add_loss(known: Booking, further: Booking) -> Booking:
    """Return what stands in the books of a transaction after a further loss of it: all that it took."""
    spent = tuple(sorted((*known.vault_spent, *further.vault_spent)))
    return replace(further, vault_spent=spent, reserve_loss=Sats(known.reserve_loss + further.reserve_loss))


def compute_booking_without_intent(tables: LedgerTables, booking: Booking) -> Booking | None:
    """Return what the booking of an emergency or a loss must be; None for one that names neither. Errors as theirs.

    Where several epochs' E armed one outpoint, V and W say by their own nodes whose it was.
    """
    network, epoch = tables.params.network, booking.epoch
    if booking.intent == compute_loss_id(network, booking.txid):
        return compute_loss_booking(tables, booking.vault_spent, booking.txid, epoch)
    if all(booking.intent != compute_release_id(network, number) for number in list_booked_when_mined(tables)):
        return None
    outpoints = (*booking.vault_spent, *(credit.outpoint for credit in booking.credits))
    if len(outpoints) != 1:
        raise Refused("an emergency spends one output", rule="V70", code="WRONG_BOOKING")
    matches = _list_matches(tables, outpoints[0], booking.txid)
    booked = (
        match for match in matches if is_booked_when_mined(tables, match[0].epoch) and reaches_target(tables, match[0])
    )
    made = [_book_match(tables, outpoints[0], *match, epoch) for match in booked]
    if booking in made:
        return booking
    return made[0] if made else compute_emergency_booking(tables, outpoints[0], booking.txid, epoch)


def _compute_credit(tables: LedgerTables, item: ArmingEntry) -> Credit:
    terms = tables.invoices[item.epoch, item.output.child].request.terms
    value = item.output.value
    return Credit(item.output.outpoint, terms.recipient, value, terms.compute_fee_in(value))


def _verify_outputs(tables: LedgerTables, record: RejectionSigned) -> list[RejectionEntry]:
    arming, found, start = record.arming, list[RejectionEntry](), 0
    for item in arming.outputs:
        known = _require_armed(tables, record, item.outpoint)
        emergency = build_emergency(tables, arming.epoch, item, Target(known.target, known.target_script))
        signatures = record.signatures[start : start + len(emergency.rungs)]
        start += len(emergency.rungs)
        is_signed = len(signatures) == len(emergency.rungs) and all(
            verify_schnorr(emergency.witness_key, rung.digest, signature)
            for rung, signature in zip(emergency.rungs, signatures, strict=True)
        )
        if not is_signed:
            text = f"an emergency of {item.outpoint} is not signed by W"
            raise Refused(text, rule="V60", code="BAD_SIGNATURE")
        place = (item, arming.epoch, known.target, known.target_script)
        found.append(RejectionEntry(*place, signatures, tables.head.height))
    if start != len(record.signatures):
        text = f"{start} rungs need as many signatures, got {len(record.signatures)}"
        raise Refused(text, rule="V60", code="BAD_SIGNATURE")
    return found


def _require_armed(tables: LedgerTables, record: RejectionSigned, outpoint: Outpoint) -> ArmingEntry:
    """Return the arming that a rejection completes; Refused when there is none, or its target takes nothing."""
    arming = record.arming
    for known in tables.armings.get(outpoint, ()):
        named = (known.epoch, known.target, known.target_script)
        if named == (arming.epoch, arming.target, arming.target_script) and known.output in arming.outputs:
            fault = judge_target(tables, known)
            if fault not in {None, ArmingFault.TARGET_PARKED}:
                raise Refused(f"the target of {outpoint} takes nothing: {fault}", rule="V60", code="WRONG_TARGET")
            return known
    raise Refused(f"{outpoint} is not armed to epoch {arming.target}", rule="V60", code="NOT_ARMED")
