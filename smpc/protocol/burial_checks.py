"""Does Bitcoin notarise another consensus-layer chain than mine? Judged from transactions that spend my own vault.

Anyone can write any OP_RETURN, so only what spends a vault output of my own ledger counts: V and W signed it, or took
part in a rejection or recovery. What my ledger recorded as a sweep was compared when it was recorded. What is left is
a transaction that my ledger does not know although it spends my vault: if it notarises a block that my chain does not
have, then my consensus node shows me another chain than the one that moved the BTC, or one that ends far too early.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from smpc.protocol.intents import Booking, VaultEntry
from smpc.protocol.ledger_state import Anchor
from smpc.protocol.notarisation import Notarisation
from smpc.types import EpochNumber, Outpoint, Txid, to_display_hex


class BurialView(Protocol):
    """What is compared: the vault, and the blocks that sweeps notarise (`smpc.protocol.ledger.Ledger` is one)."""

    @property
    def vault(self) -> Mapping[Outpoint, VaultEntry]:
        """Return the booked vault outputs."""
        ...

    @property
    def bookings(self) -> Mapping[Txid, Booking]:
        """Return every booked transaction."""
        ...

    @property
    def anchors(self) -> Mapping[EpochNumber, Anchor]:
        """Return the block that made each epoch active."""
        ...


@dataclass(frozen=True, slots=True)
class Sighting:
    """A mined transaction that my ledger has no standing intent for, and that spends what it has in its vault."""

    missing: Outpoint
    """The booked vault output that is not on my Bitcoin chain any more, or never was."""
    spent: Outpoint
    """What the transaction spends: `missing`, or a vault output that `missing` descends from by my bookings."""
    txid: Txid
    said: tuple[Notarisation, ...]
    """What its outputs notarise, in their order; empty for most."""


def find_contradiction(ledger: BurialView, sightings: Iterable[Sighting]) -> str:
    """Return the first contradiction as a sentence, empty when there is none; a booking in between explains its own."""
    for sighting in sightings:
        if sighting.missing not in ledger.vault:
            continue
        for said in sighting.said:
            if not is_own_block(ledger, sighting.spent, said):
                return (
                    f"{to_display_hex(sighting.txid)} spends the vault output {sighting.spent} and notarises block"
                    f" {said.block_hash.hex()} for epoch {said.epoch}, which my consensus layer does not have:"
                    " it is another chain than the one Bitcoin buries, or is far behind it"
                )
    return ""


def is_own_block(ledger: BurialView, spent: Outpoint, said: Notarisation) -> bool:
    """Tell whether a sweep of this vault output may say so: epoch, block hash and state root are my own chain's."""
    entry = find_vault_entry(ledger, spent)
    return (
        entry is not None
        and entry.epoch == said.epoch
        and any(
            (anchor.block_hash, anchor.state_root) == (said.block_hash, said.state_root) and target > said.epoch
            for target, anchor in ledger.anchors.items()
        )
    )


def find_vault_entry(ledger: BurialView, outpoint: Outpoint) -> VaultEntry | None:
    """Return what my ledger booked of a vault output, spent by now or not; None when it booked none."""
    booking = ledger.bookings.get(outpoint.txid)
    created = () if booking is None else booking.vault_created
    return next((entry for entry in created if entry.outpoint == outpoint), None)
