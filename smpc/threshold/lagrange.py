"""Lagrange coefficients: how the shares of a signer set add up to the group's secret."""

from __future__ import annotations

from collections.abc import Sequence

from smpc.curve import ORDER, Point, sum_points
from smpc.errors import InvalidInput


def compute_coefficients(positions: tuple[int, ...]) -> tuple[int, ...]:
    """Return the coefficient of each member's share, in the order given (BIP 445 DeriveInterpolatingValue).

    Positions are 0-based; the member at position i holds the polynomial's value at i + 1. InvalidInput for
    duplicates.
    """
    if len(set(positions)) != len(positions):
        raise InvalidInput("a signer occurs twice")
    return tuple(compute_coefficient(positions, position) for position in positions)


def compute_coefficient(positions: tuple[int, ...], own: int) -> int:
    """Return the coefficient of the member at `own`, one of the distinct `positions`."""
    numerator = denominator = 1
    for position in positions:
        if position != own:
            numerator *= position + 1
            denominator *= position - own
    return numerator * pow(denominator, -1, ORDER) % ORDER


def compute_point_at_zero(positions: tuple[int, ...], public_shares: Sequence[Point]) -> Point:
    """Interpolate the group key from public shares of at least `t` members, to cross-check key material."""
    coefficients = compute_coefficients(positions)
    return sum_points(
        point.multiply(coefficient) for coefficient, point in zip(coefficients, public_shares, strict=True)
    )
