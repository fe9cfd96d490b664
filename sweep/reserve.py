"""What the reserve holds, what is spoken for, and when members are paid out of it: for `peg reserve show`."""

from __future__ import annotations

from dataclasses import dataclass

from pegin.commitments import compute_committed
from smpc.protocol.ledger_commission import KEPT_SWEEPS, compute_sweep_cost
from smpc.protocol.ledger_state import EpochState
from smpc.types import EpochNumber, FeeRate, Sats
from sweep.model import SweepView, compute_sweep_budget


@dataclass(frozen=True, slots=True)
class PromisedCommission:
    """What the sweep of a retiring epoch is to pay its members."""

    epoch: EpochNumber
    amount: Sats
    members: int


@dataclass(frozen=True, slots=True)
class ReserveSummary:
    """The reserve as an operator sees it; satoshi."""

    balance: int
    """May be negative: then no deposit is credited."""
    committed: Sats
    """What live sweeps on the ledger take of it beyond what their burns paid."""
    free: Sats
    """The most that the next sweep may cost without a commission or burns (V18)."""
    promised: tuple[PromisedCommission, ...]
    """Due to members of retiring epochs and not booked yet, oldest epoch first."""
    fee_rate: FeeRate
    """The ledger's own, at which the next line is counted."""
    sweep_cost: Sats
    kept: Sats
    """The cost of `KEPT_SWEEPS` sweeps, which is never paid out."""

    @property
    def excess(self) -> int:
        """What the next epoch that ends shares among its members where it is worth their outputs; negative: missing."""
        return self.balance - self.kept - sum(item.amount for item in self.promised)

    @property
    def are_credits_halted(self) -> bool:
        """Tell whether the ledger takes no deposit and no credit until the reserve is topped up."""
        return self.balance < 0


def summarise_reserve(ledger: SweepView, fee_rate: FeeRate) -> ReserveSummary:
    """Return the reserve as the ledger has it; `fee_rate` is the ledger's own."""
    cost = compute_sweep_cost(ledger.params, fee_rate)
    return ReserveSummary(
        balance=ledger.reserve,
        committed=compute_committed(ledger),
        free=compute_sweep_budget(ledger, (), ()),
        promised=_list_promised(ledger),
        fee_rate=fee_rate,
        sweep_cost=cost,
        kept=Sats(KEPT_SWEEPS * cost),
    )


def _list_promised(ledger: SweepView) -> tuple[PromisedCommission, ...]:
    entries = (ledger.epochs[number] for number in sorted(ledger.epochs))
    return tuple(
        PromisedCommission(entry.number, Sats(sum(item.amount for item in entry.commissions)), len(entry.commissions))
        for entry in entries
        if entry.state is EpochState.RETIRING and entry.commissions and not entry.is_commission_paid
    )
