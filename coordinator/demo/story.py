"""What happened in a run of the demonstration, for its report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from coordinator.demo.people import Person


@dataclass(slots=True)
class Story:
    """People, moves, sweeps and transactions, as the acts note them."""

    people: list[Person] = field(default_factory=list)
    pegins: list[dict[str, Any]] = field(default_factory=list)
    pegouts: list[dict[str, Any]] = field(default_factory=list)
    refunds: list[dict[str, Any]] = field(default_factory=list)
    sweeps: list[dict[str, Any]] = field(default_factory=list)
    """Every booked sweep as `peg sweep status` shows it."""
    notarised: list[dict[str, Any]] = field(default_factory=list)
    """What buries the first block of each epoch that a sweep reached, as `peg notarised` shows it."""
    transactions: dict[str, str] = field(default_factory=dict)
    """What each Bitcoin transaction is, by its txid."""
    absent_pod: str = ""
    supply: dict[str, Any] = field(default_factory=dict)
    balances: dict[str, int] = field(default_factory=dict)
