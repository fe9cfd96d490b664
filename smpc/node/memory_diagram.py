"""Fee diagrams as bitcoind compares them before a package replaces anything: what a miner earns by size taken."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate
from typing import TypeAlias

from smpc.types import Sats, Vbytes

Chunk: TypeAlias = tuple[Sats, Vbytes]
"""What a miner would take at once: its fee and its size."""


def build_chunks(parent: Chunk, child: Chunk) -> tuple[Chunk, ...]:
    """Return what a miner takes of two that depend on each other: both at once where the child pays the better rate."""
    if child[0] * parent[1] > parent[0] * child[1]:
        return ((Sats(parent[0] + child[0]), Vbytes(parent[1] + child[1])),)
    return (parent, child)


def is_improvement(old: Sequence[Chunk], new: Sequence[Chunk]) -> bool:
    """Tell whether the new diagram is nowhere below the old one and somewhere above it."""
    corners = {*_list_sizes(old), *_list_sizes(new)}
    gains = [_compute_fee(new, size) - _compute_fee(old, size) for size in sorted(corners)]
    return all(gain >= 0 for gain in gains) and any(gain > 0 for gain in gains)


def _list_sizes(chunks: Sequence[Chunk]) -> tuple[int, ...]:
    return tuple(accumulate(size for _, size in _sort(chunks)))


def _compute_fee(chunks: Sequence[Chunk], size: int) -> Fraction:
    """Return what the best `size` virtual bytes pay, the last chunk taken in part."""
    total, left = Fraction(0), size
    for fee, vsize in _sort(chunks):
        taken = min(left, vsize)
        total += Fraction(fee * taken, vsize)
        left -= taken
    return total


def _sort(chunks: Sequence[Chunk]) -> list[Chunk]:
    return sorted(chunks, key=lambda chunk: Fraction(chunk[0], chunk[1]), reverse=True)
