"""How deep a transaction stands, for status views."""

from __future__ import annotations

from smpc.types import BtcHeight


def compute_depth(height: BtcHeight | None, tip: BtcHeight) -> int:
    """Return the confirmations at `tip` of what block `height` holds: 0 in no block, never below 1 in one.

    A view puts records and tip together from two moments, so that a record may name a block newer than the tip beside
    it. It stands in that block all the same.
    """
    return 0 if height is None else max(tip - height + 1, 1)
