"""Ledger rule of missed ceremonies: who was drawn and never announced a host key is jailed (section 6, Emergency).

A ceremony that leaves a member out proves nothing, because whoever relays decides who is silent. But a host key is a
record that a pod sends through its own consensus node: who announced none for any attempt, though its heartbeats went
on, would not take part. Who was not there at all is silent, which has a longer measure: were an outage of minutes to
jail here, two members of a group of four away at the wrong moment would release its outputs.
"""

from __future__ import annotations

from typing import Final

from smpc.protocol.ledger_patience import count_acting
from smpc.protocol.ledger_punishments import jail
from smpc.protocol.ledger_state import EpochEntry
from smpc.protocol.ledger_tables import LedgerTables
from smpc.protocol.verdict_state import Misdeed
from smpc.types import IdentityKey, KaonHeight, Role

ANNOUNCE_BLOCKS: Final = 20
"""Final blocks a member has to announce: with less, those who keyed without it may simply have been quicker.

Pods act on final blocks: while nothing becomes final nobody learns what it was drawn into, and when that ends they need
these blocks all the same. So as many must pass as `smpc.protocol.ledger_patience` counts, too."""

GENESIS_EPOCHS: Final = 2
"""Epochs 0 and 1 are keyed while pods are still being started for the first time: nobody is jailed for these."""


def punish_missing(tables: LedgerTables, entry: EpochEntry, role: Role) -> None:
    """Jail the members of one group who announced nothing, now that its ceremonies are over."""
    if not tables.genesis.needs_arming or (entry.number < GENESIS_EPOCHS and entry.draw == 0):
        return
    for identity in list_missing(entry, role, tables.head.final_height):
        if not _was_there(tables, entry, role, identity):
            continue
        text = f"no host key for the {role} ceremony of epoch {entry.number}, draw {entry.draw}"
        jail(tables, identity, Misdeed.MISSED_CEREMONY, text)


def list_missing(entry: EpochEntry, role: Role, final: KaonHeight) -> tuple[IdentityKey, ...]:
    """Return who of a group as drawn had the time to announce a host key and announced none, in the group's order.

    `final` is the newest final height.
    """
    return tuple(
        identity
        for identity in entry.members[role]
        if identity not in _list_announced(entry, role)
        and final - _find_start(entry, role, identity) >= ANNOUNCE_BLOCKS
    )


def _was_there(tables: LedgerTables, entry: EpochEntry, role: Role, identity: IdentityKey) -> bool:
    """Tell whether a member's heartbeats went on until its blocks to announce, since it knew of them, were over."""
    known = tables.heartbeats.get(identity)
    start = _find_start(entry, role, identity)
    return known is not None and count_acting(tables, start, known.recorded) >= ANNOUNCE_BLOCKS


def _list_announced(entry: EpochEntry, role: Role) -> frozenset[IdentityKey]:
    return frozenset(identity for (of, _), keys in entry.host_keys.items() if of is role for identity in keys)


def _find_start(entry: EpochEntry, role: Role, identity: IdentityKey) -> KaonHeight:
    joined = {item.successor: item.recorded for item in entry.replaced if item.role is role}
    return joined.get(identity, entry.announced)
