"""A ledger that can try blocks out: what a node asks before it signs a checkpoint that is not final yet."""

from __future__ import annotations

from collections.abc import Iterable

from smpc.protocol.ledger import Ledger
from smpc.protocol.records import KaonBlock


class TrialLedger(Ledger):
    """The state at the highest final block, which knows whether blocks upon it are valid without taking them."""

    def check_blocks(self, blocks: Iterable[KaonBlock]) -> None:
        """Raise what is wrong with the first block that is not valid upon this state; nothing changes.

        Refused, InvalidInput or Conflict for a bad header or record; Halted when the money identity breaks.
        """
        self._tables.mark()
        try:
            for block in blocks:
                self.apply_block(block)
        finally:
            self._tables.roll_back()
