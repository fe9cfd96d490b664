"""Which signer sets prove that a new key can sign with every member (design.md section 4, key readiness ladder)."""

from __future__ import annotations

from smpc.errors import InvalidInput


def compute_readiness_sets(threshold: int, size: int) -> tuple[tuple[int, ...], ...]:
    """Return signer sets of `t` members that together contain every member, each overlapping the one before.

    Deterministic: windows over the positions, the last one flush with the end. A set that signs proves its members'
    shares; the overlap ties the sets to one key. InvalidInput unless 1 <= t <= n. With t = 1 sets cannot overlap.
    """
    if not 1 <= threshold <= size:
        raise InvalidInput(f"1 <= t <= n does not hold for t = {threshold}, n = {size}")
    stride = max(1, threshold - 1)
    last = size - threshold
    starts = [*range(0, last, stride), last]
    return tuple(tuple(range(start, start + threshold)) for start in starts)
