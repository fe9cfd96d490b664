"""Leaf scripts byte for byte, lock and key bounds, output types."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from smpc.bitcoin.script import (
    MARKER_TAG,
    NUMS_KEY,
    PAY_TO_ANCHOR,
    LeafParts,
    OutputType,
    build_marker_leaf,
    build_op_return,
    build_recovery_leaf,
    build_refund_leaf,
    build_rejection_leaf,
    build_transfer_leaf,
    find_output_type,
    parse_leaf,
    to_lock_push,
)
from smpc.errors import InvalidInput
from smpc.types import TermsHash, XOnlyKey
from tests.support.leaf_signers import LOCKS, LeafSigners

SIGNERS = LeafSigners("scripts")
V, W, WR, E, USER = (SIGNERS.key(name) for name in ("v", "w", "wr", "e", "user"))
HASH = SIGNERS.group_keys.release_hash
TERMS = TermsHash(bytes(range(32)))

OFF_CURVE = XOnlyKey((5).to_bytes(32, "big"))
"""x = 5: x**3 + 7 is no square modulo p."""

LEAVES = {
    "marker": (112, build_marker_leaf(TERMS)),
    "refund": (37, build_refund_leaf(USER, LOCKS.refund)),
    "transfer": (70, build_transfer_leaf(V, W, LOCKS.transfer)),
    "rejection": (109, build_rejection_leaf(HASH, WR, E, LOCKS.emergency)),
    "recovery": (72, build_recovery_leaf(V, E, LOCKS.recovery)),
}


@pytest.mark.parametrize(("size", "script"), LEAVES.values(), ids=LEAVES.keys())
def test_each_leaf_has_the_size_the_design_states(size: int, script: bytes) -> None:
    assert len(script) == size


def test_the_leaves_are_the_compiled_miniscript() -> None:
    size_32_sha256 = bytes.fromhex("82012088a820")
    assert LEAVES["refund"][1] == b"\x20" + USER + bytes.fromhex("ad0124b2")
    assert LEAVES["transfer"][1] == b"\x20" + V + b"\xad\x20" + W + bytes.fromhex("ad53b2")
    assert LEAVES["recovery"][1] == b"\x20" + V + b"\xad\x20" + E + bytes.fromhex("ad029000b2")
    assert LEAVES["rejection"][1] == (
        size_32_sha256 + HASH + b"\x88\x20" + WR + b"\xad\x20" + E + bytes.fromhex("ad51b2")
    )
    assert LEAVES["marker"][1] == (
        b"\x20" + NUMS_KEY + b"\xad" + size_32_sha256 + MARKER_TAG + b"\x88" + size_32_sha256 + TERMS + b"\x87"
    )


@pytest.mark.parametrize(
    ("blocks", "push"),
    [
        (1, "51"),
        (16, "60"),
        (17, "0111"),
        (127, "017f"),
        (128, "028000"),
        (256, "020001"),
        (32767, "02ff7f"),
        (32768, "03008000"),
        (65535, "03ffff00"),
    ],
)
def test_a_lock_is_pushed_in_its_shortest_form(blocks: int, push: str) -> None:
    assert to_lock_push(blocks).hex() == push


@pytest.mark.parametrize("blocks", [0, 65536, -1, 0x400000, 0x400001, 1 << 31, (1 << 31) | 36, True])
def test_never_builds_a_leaf_that_locks_nothing(blocks: int) -> None:
    builders: tuple[Callable[[], object], ...] = (
        lambda: build_refund_leaf(USER, blocks),
        lambda: build_transfer_leaf(V, W, blocks),
        lambda: build_rejection_leaf(HASH, WR, E, blocks),
        lambda: build_recovery_leaf(V, E, blocks),
    )
    for build in builders:
        with pytest.raises(InvalidInput, match="relative lock"):
            build()


@pytest.mark.parametrize("blocks", [1, 65535])
def test_accepts_the_shortest_and_the_longest_lock(blocks: int) -> None:
    parts = parse_leaf(build_refund_leaf(USER, blocks))
    assert parts == LeafParts((USER,), None, blocks)


@pytest.mark.parametrize(
    "key",
    [b"", b"\x02" + USER, USER[:31], OFF_CURVE, bytes(32), b"\xff" * 32, b"\x50" + USER],
    ids=["empty", "33 bytes", "31 bytes", "off the curve", "zero", "not below p", "an OP_SUCCESS script"],
)
def test_refuses_anything_that_is_no_x_only_key(key: bytes) -> None:
    bad = XOnlyKey(key)
    builders: tuple[Callable[[], object], ...] = (
        lambda: build_refund_leaf(bad, 36),
        lambda: build_transfer_leaf(bad, W, 3),
        lambda: build_transfer_leaf(V, bad, 3),
        lambda: build_rejection_leaf(HASH, bad, E, 1),
        lambda: build_rejection_leaf(HASH, WR, bad, 1),
        lambda: build_recovery_leaf(bad, E, 144),
        lambda: build_recovery_leaf(V, bad, 144),
    )
    for build in builders:
        with pytest.raises(InvalidInput, match="x-only"):
            build()


def test_refuses_hashes_of_the_wrong_length() -> None:
    with pytest.raises(InvalidInput, match="terms hash"):
        build_marker_leaf(TermsHash(bytes(31)))
    with pytest.raises(InvalidInput, match="release hash"):
        build_rejection_leaf(bytes(33), WR, E, 1)


def test_reads_back_what_satisfies_a_spendable_leaf() -> None:
    assert parse_leaf(LEAVES["transfer"][1]) == LeafParts((V, W), None, LOCKS.transfer)
    assert parse_leaf(LEAVES["recovery"][1]) == LeafParts((V, E), None, LOCKS.recovery)
    assert parse_leaf(LEAVES["rejection"][1]) == LeafParts((WR, E), HASH, LOCKS.emergency)
    assert parse_leaf(LEAVES["marker"][1]) is None


@pytest.mark.parametrize(
    "script",
    [
        b"",
        b"\x20" + USER + bytes.fromhex("ac0124b2"),
        b"\x20" + USER + bytes.fromhex("ad0101b2"),
        b"\x20" + USER + bytes.fromhex("ad022400b2"),
        b"\x20" + USER + bytes.fromhex("ad0181b2"),
        b"\x20" + OFF_CURVE + bytes.fromhex("ad0124b2"),
        b"\x20" + USER + bytes.fromhex("ad0124b275"),
        b"\x82\x01\x20\x88\xa8\x20" + HASH + b"\x88\x20" + USER + bytes.fromhex("ad51b2"),
    ],
    ids=["empty", "no verify", "push of 1", "padded lock", "negative lock", "bad key", "tail", "one key rejection"],
)
def test_recognises_no_other_script_as_a_leaf(script: bytes) -> None:
    assert parse_leaf(script) is None


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ("76a914" + "00" * 20 + "88ac", OutputType.P2PKH),
        ("a914" + "00" * 20 + "87", OutputType.P2SH),
        ("0014" + "00" * 20, OutputType.P2WPKH),
        ("0020" + "0a" * 32, OutputType.P2WSH),
        ("5120" + "0a" * 32, OutputType.P2TR),
        ("51024e73", OutputType.ANCHOR),
        ("6a02abcd", OutputType.OP_RETURN),
        ("6a4c50" + "00" * 80, OutputType.OP_RETURN),
        ("6a4c51" + "00" * 81, None),
        ("6a05abcd", None),
        ("6a4c02abcd", None),
        ("6a", None),
        ("5220" + "0a" * 32, None),
        ("5114" + "00" * 20, None),
        ("51024e74", None),
        ("", None),
        ("0014" + "00" * 21, None),
        ("76a914" + "00" * 20 + "88ac00", None),
    ],
)
def test_knows_the_standard_output_types_and_nothing_else(script: str, kind: OutputType | None) -> None:
    assert find_output_type(bytes.fromhex(script)) is kind
    assert find_output_type(PAY_TO_ANCHOR) is OutputType.ANCHOR


@pytest.mark.parametrize("size", [2, 75, 76, 80])
def test_an_op_return_carries_2_to_80_bytes(size: int) -> None:
    assert find_output_type(build_op_return(bytes(size))) is OutputType.OP_RETURN


@pytest.mark.parametrize("size", [0, 1, 81])
def test_an_op_return_carries_nothing_longer_or_shorter(size: int) -> None:
    with pytest.raises(InvalidInput, match="2 to 80"):
        build_op_return(bytes(size))
