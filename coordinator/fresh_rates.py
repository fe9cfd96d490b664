"""Fee rates that make another intent of the same choice: one that was withdrawn or is void is never signed again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from smpc.types import FeeRate

RATE_STEP: Final = 20
"""Sat/kvB by which an intent differs from the same one that ended; a few satoshi of fee."""

MAX_RATE_STEPS: Final = 16


def list_fresh_rates(first: FeeRate) -> Iterator[FeeRate]:
    """Give the rate wanted, then slightly higher ones."""
    return (FeeRate(first + number * RATE_STEP) for number in range(MAX_RATE_STEPS))
