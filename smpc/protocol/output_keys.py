"""The keys of one output, derived from the three group keys of its epoch (design.md section 4, Keys and purposes)."""

from __future__ import annotations

from smpc.bitcoin.taproot import GroupKeys
from smpc.threshold.child_keys import compute_emergency_index, compute_rejection_index, derive_child_xonly
from smpc.types import ChildIndex, PlainKey


def derive_child_keys(v: PlainKey, w: PlainKey, e: PlainKey, child: ChildIndex, release_hash: bytes) -> GroupKeys:
    """Return the child keys of the output whose own index is `child` from the three plain group keys."""
    return GroupKeys(
        v=derive_child_xonly(v, child),
        w=derive_child_xonly(w, child),
        wr=derive_child_xonly(w, compute_rejection_index(child)),
        e=derive_child_xonly(e, compute_emergency_index(child)),
        release_hash=release_hash,
    )
