"""Depth of transactions in status views."""

from __future__ import annotations

import pytest

from smpc.protocol.depth import compute_depth
from smpc.types import BtcHeight


@pytest.mark.parametrize(
    ("height", "tip", "depth"),
    [(None, 100, 0), (100, 100, 1), (99, 100, 2), (101, 100, 1), (102, 100, 1)],
    ids=["in no block", "in the newest", "one below it", "the tip is older by one", "the tip is older by two"],
)
def test_what_a_block_holds_has_a_confirmation_even_when_the_tip_beside_it_is_older(
    height: int | None, tip: int, depth: int
) -> None:
    assert compute_depth(None if height is None else BtcHeight(height), BtcHeight(tip)) == depth
