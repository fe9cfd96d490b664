"""What `peg emergency execute` can send by the ledger, and why each other output waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coordinator.emergency_executor import Order
from coordinator.spent_outputs import Spend, find_spends
from slashing.release import Release, list_releases
from smpc.errors import Refused, TimedOut, Unavailable
from smpc.node.ports import BitcoinNode
from smpc.protocol.ledger import Ledger
from smpc.types import EpochNumber, Outpoint, Role, to_display_hex


class NotRejected(Refused):
    """Something of a released epoch is not signed by W, or that is not final; all else was signed."""

    default_code = "NOT_REJECTED"

    def __init__(self, message: str, reasons: Mapping[Outpoint, str]) -> None:
        super().__init__(message, remedy="bring back who did not answer, then run this again")
        self.reasons = reasons
        """Of each output that is left."""


def find_epochs(ledger: Ledger, epoch: EpochNumber | None) -> tuple[EpochNumber, ...]:
    """Return the epochs to execute: every one under a final release, or the one named; Refused when there is none."""
    released = tuple(sorted(number for number, role in ledger.judgements.verdicts if role is Role.VALIDATOR))
    chosen = released if epoch is None else tuple(number for number in released if number == epoch)
    if not chosen:
        which = "no epoch" if epoch is None else f"epoch {epoch}: no"
        raise Refused(
            f"{which} release is final" if epoch is not None else "no release of any epoch is final",
            code="NOT_RELEASED",
            rule="V61",
            remedy="an emergency needs a final verdict on V: see peg emergency status",
        )
    return chosen


@dataclass(frozen=True, slots=True)
class Waiting:
    """An output that is not executed now."""

    release: Release
    reason: str
    """Why, for people."""
    is_spent: bool = False
    """A recorded transaction has it already, on one's own chain: nothing of it is left to execute."""


def collect_orders(ledger: Ledger, epochs: Sequence[EpochNumber]) -> tuple[tuple[Order, ...], tuple[Release, ...]]:
    """Return what can be sent, and the releases that cannot, by outpoint."""
    releases = [release for epoch in epochs for release in list_releases(ledger, epoch)]
    ready = [release for release in releases if release.fault is None]
    waiting = tuple(release for release in releases if release.fault is not None)
    orders = tuple(Order(release.outpoint, release.prevout, release.complete()) for release in ready)
    return orders, waiting


async def explain_waiting(
    ledger: Ledger, node: BitcoinNode, waiting: Sequence[Release], refused: NotRejected | None = None
) -> tuple[Waiting, ...]:
    """Say of each release why it waits: what took the output by one's own node, what W answered, what is missing."""
    try:
        spends = await find_spends(ledger, node, [release.outpoint for release in waiting])
    except (Unavailable, TimedOut):
        spends = {}  # what the ledger says is true as well, only less
    return tuple(_explain(release, spends.get(release.outpoint), refused) for release in waiting)


def _explain(release: Release, spend: Spend | None, refused: NotRejected | None) -> Waiting:
    if spend is not None:
        txid, depth = to_display_hex(spend.txid), spend.confirmations
        return Waiting(release, f"{txid} spent it, {depth} blocks deep: it waits for its booking", is_spent=True)
    answer = None if refused is None else refused.reasons.get(release.outpoint)
    return Waiting(release, answer or release.text)


def require_something(orders: Sequence[Order], waiting: Sequence[Waiting], refused: NotRejected | None = None) -> None:
    """Refuse when there is something to move and none of it can be: with W's answer, else the first fault as code."""
    held = [item.release for item in waiting if not item.is_spent]
    if orders or not held:
        return
    if refused is not None:
        raise refused
    held[0].complete()  # says why, and what to do
