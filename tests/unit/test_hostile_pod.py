"""The demonstration's liar: whatever company it lies in, no group signature comes of it."""

from __future__ import annotations

import pytest

from coordinator.demo_emergency.hostile_pod import SHARE_SIZE, spoil
from smpc.curve import ORDER, encode_scalar, reduce_scalar


@pytest.mark.parametrize("right", [0, 1, ORDER - 1])
def test_every_share_of_a_liar_is_wrong_and_still_a_scalar(right: int) -> None:
    wrong = spoil(encode_scalar(right) * 3)
    assert len(wrong) == 3 * SHARE_SIZE
    assert wrong == encode_scalar(right + 1) * 3


@pytest.mark.parametrize("liars", [1, 2, 3, 4, 100])
def test_what_liars_add_to_each_others_shares_never_cancels_out(liars: int) -> None:
    shares = [encode_scalar(7919 * number) for number in range(liars)]
    right, wrong = (sum(map(reduce_scalar, each)) % ORDER for each in (shares, [spoil(share) for share in shares]))
    assert right != wrong
