"""The user's refund key: x-only, on the curve, with its place in his wallet where there is one (case C2)."""

from __future__ import annotations

import pytest

from coordinator.cli.refund_key import parse_refund_key
from smpc.bitcoin.key_origin import KeyOrigin
from smpc.curve import SecretKey, compute_xonly_key
from smpc.errors import InvalidInput

KEY = compute_xonly_key(SecretKey.from_bytes(bytes(31) + b"\x03")).hex()
ORIGIN = KeyOrigin(bytes.fromhex("d34db33f"), (0x8000_0056, 5))


def test_a_bare_key_is_its_own_master() -> None:
    found = parse_refund_key(KEY)
    assert (found.key.hex(), found.origin) == (KEY, None)


@pytest.mark.parametrize("origin", ["d34db33f/86h/5", "[d34db33f/86h/5]", "d34db33f/86'/5"])
def test_the_origin_stands_beside_the_key(origin: str) -> None:
    assert parse_refund_key(KEY, origin).origin == ORIGIN


def test_the_origin_stands_inside_the_key() -> None:
    assert parse_refund_key(f"[d34db33f/86h/5]{KEY}").origin == ORIGIN


@pytest.mark.parametrize(
    "text",
    [
        "",
        "02" + KEY,
        KEY[:-2],
        "ff" * 32,
        "51",
        "50" * 32 + "50",
        f"tr([d34db33f/86h/5]{KEY})",
        f"[d34db33f/86h/5]02{KEY}",
        f"[d34db33f/2147483648]{KEY}",
    ],
)
def test_refuses_scripts_plain_keys_and_points_off_the_curve(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_refund_key(text)


@pytest.mark.parametrize("origin", ["d34db33", "d34db33f/x", "d34db33f/-1", "d34db33f/4294967296h"])
def test_refuses_a_bad_origin(origin: str) -> None:
    with pytest.raises(InvalidInput):
        parse_refund_key(KEY, origin)


def test_refuses_two_origins() -> None:
    with pytest.raises(InvalidInput, match="inside already"):
        parse_refund_key(f"[d34db33f/86h/5]{KEY}", "d34db33f/86h/5")
