"""One line of the benchmark's table, shared by every benchmark."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BenchRow:
    """What one piece of work costs, next to its limit and to another library doing the same."""

    name: str
    measured_us: float
    """Microseconds, the best of several runs."""
    ratio: float | None
    """`measured_us` in multiples of one raw curve multiplication k*P; None where the limit is an absolute time."""
    limit: float | None
    """The most `ratio` may be, or the most `measured_us` may be where there is no ratio; None: only reported."""
    peer: str = ""
    peer_us: float | None = None

    @property
    def is_within_limit(self) -> bool:
        """Tell whether the work costs no more than it may."""
        value = self.measured_us if self.ratio is None else self.ratio
        return self.limit is None or value <= self.limit
