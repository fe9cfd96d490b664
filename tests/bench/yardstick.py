"""How benchmarks measure: the best of several runs, and one raw multiplication k*P as the unit.

CPU time counts, not time on the clock: what else the machine does is no cost of the work.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import sha256

from smpc.curve import Point, multiply_generator


def measure_us(work: Callable[[], object], *, calls: int = 200, runs: int = 7) -> float:
    """Return the microseconds of one call: the least average over several runs."""
    best = float("inf")
    for _ in range(runs):
        started = time.process_time()
        for _ in range(calls):
            work()
        best = min(best, time.process_time() - started)
    return best / calls * 1e6


def measure_multiplication_us() -> float:
    """Return the microseconds of one multiplication of a point by a full-size scalar."""
    point: Point = multiply_generator(7)
    scalar = int.from_bytes(sha256(b"a full-size scalar").digest(), "big")
    return measure_us(lambda: point.multiply(scalar))
