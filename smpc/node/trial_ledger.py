"""A replica's ledger: can try blocks out, and is read in threads by whoever judges.

It is what a node asks before it signs a checkpoint that is not final yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Concatenate, Final, ParamSpec, TypeVar

from smpc.node.ledger_gate import LedgerGate
from smpc.params import Params
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_events import LedgerEvent
from smpc.protocol.records import Genesis, KaonBlock

P = ParamSpec("P")
T = TypeVar("T")


class TrialLedger(Ledger):
    """The state at the highest final block, which knows whether blocks upon it are valid without taking them.

    Write it through its gate; to write while a thread reads is a RuntimeError.
    """

    def __init__(self, genesis: Genesis, params: Params) -> None:
        super().__init__(genesis, params)
        self.gate: Final = LedgerGate()
        """Who reads in a thread goes through it (`read_in_thread`), and so does who writes."""

    def apply_block(self, block: KaonBlock) -> tuple[LedgerEvent, ...]:
        """Apply the next block whole; errors as `Ledger.apply_block`."""
        self._require_unread()
        return super().apply_block(block)

    def open_draft(self) -> None:
        """Begin a trial of the next block, as `Ledger.open_draft`; `check_record` is one too."""
        self._require_unread()
        super().open_draft()

    def check_blocks(self, blocks: Iterable[KaonBlock]) -> None:
        """Raise what is wrong with the first block that is not valid upon this state; nothing changes.

        Until this returns every query answers as if the blocks stood. Refused, InvalidInput or Conflict for a bad
        header or record; Halted when the money identity breaks.
        """
        self._require_unread()
        self._tables.mark()
        try:
            for block in blocks:
                self.apply_block(block)
        finally:
            self._tables.roll_back()

    def _require_unread(self) -> None:
        if not self.gate.is_unread:
            raise RuntimeError("a ledger that threads read is changed through its gate only")


async def read_in_thread(
    ledger: Ledger, function: Callable[Concatenate[Ledger, P], T], /, *args: P.args, **kwargs: P.kwargs
) -> T:
    """Return `function(ledger, ...)`, run in a thread: the only way in which a thread may read a ledger.

    For as long as it runs, the ledger stays as it is; a replica's tries out and applies no block. Never hand anything
    live of a ledger (its views, its mappings) to a thread in another way.
    """
    return await _find_gate(ledger).read_in_thread(partial(function, ledger, *args, **kwargs))


async def change_unread(ledger: Ledger, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call, on the loop and while no thread reads the ledger, what writes it, for good or to take it back."""
    return await _find_gate(ledger).change(partial(function, *args, **kwargs))


def _find_gate(ledger: Ledger) -> LedgerGate:
    """Return the gate of a replica's ledger; any other ledger has no process that writes it, so nobody to wait for."""
    return ledger.gate if isinstance(ledger, TrialLedger) else LedgerGate()
