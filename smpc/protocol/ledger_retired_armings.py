"""Ledger rules of a retired epoch's armings: they are forgotten, but for what a user's credit still rests on [R6].

An emergency of a deposit may be mined and not be booked for long, because the reserve is negative, or be broadcast late
by whoever has the rejection from the chain. Its user is credited all the same (section 6, Peg-in), so what its booking
is computed from stays until then. While it does, its target is not erased either (`is_still_target`): a parked target
that gets the BTC retires from then on as any other that value comes back to.
"""

from __future__ import annotations

from smpc.protocol.arming_state import ArmingEntry
from smpc.protocol.emergency import Target, build_emergency
from smpc.protocol.ledger_state import EpochState
from smpc.protocol.ledger_tables import LedgerTables
from smpc.threshold.child_keys import VAULT_RANGE_START
from smpc.types import EpochNumber, Outpoint, Role


def forget_epoch(tables: LedgerTables, epoch: EpochNumber) -> None:
    """Forget the armings of an epoch that retires: its W is gone, so nobody can use them who has no rejection yet.

    No sooner: the same arming is never recorded twice, and what an ended intent had may be wanted by its successor.
    """
    if epoch in tables.armed:
        tables.drop(tables.armed, epoch)
    for outpoint, items in list(tables.armings.items()):
        _keep(tables, outpoint, tuple(item for item in items if item.epoch != epoch or _is_awaited(tables, item)))


def forget_credited(tables: LedgerTables, outpoint: Outpoint) -> None:
    """Forget what was kept of a deposit of a retired epoch: the booking that it waited for has come."""
    items = tables.armings.get(outpoint, ())
    is_retired = {item.epoch: tables.epochs[item.epoch].state is EpochState.RETIRED for item in items}
    _keep(tables, outpoint, tuple(item for item in items if not is_retired[item.epoch]))


def _keep(tables: LedgerTables, outpoint: Outpoint, kept: tuple[ArmingEntry, ...]) -> None:
    if kept == tables.armings.get(outpoint, ()):
        return
    if kept:
        tables.put(tables.armings, outpoint, kept)
        return
    tables.drop(tables.armings, outpoint)
    if outpoint in tables.judgements.rejections:
        tables.drop(tables.judgements.rejections, outpoint)


def _is_awaited(tables: LedgerTables, item: ArmingEntry) -> bool:
    """Tell whether an arming is of a deposit without a credit whose emergency anybody may send, or W has sent.

    What pays vault outputs needs no such care: an epoch with booked ones, or ones to come, does not retire.
    """
    if item.output.child >= VAULT_RANGE_START or item.output.outpoint in tables.credited:
        return False
    return _is_rejected(tables, item) or _is_proven(tables, item)


def _is_rejected(tables: LedgerTables, item: ArmingEntry) -> bool:
    signed = tables.judgements.rejections.get(item.output.outpoint, ())
    place = (item.epoch, item.output, item.target_script)
    return any((entry.epoch, entry.output, entry.target_script) == place for entry in signed)


def _is_proven(tables: LedgerTables, item: ArmingEntry) -> bool:
    """Tell whether evidence shows that W signed one of its emergencies without a release."""
    txid = tables.judgements.unauthorised.get((item.epoch, Role.WITNESS))
    if txid is None:
        return False
    emergency = build_emergency(tables, item.epoch, item.output, Target(item.target, item.target_script))
    return any(rung.transaction.txid == txid for rung in emergency.rungs)
