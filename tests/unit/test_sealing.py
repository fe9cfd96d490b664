"""Sealing a secret to an identity key: its holder opens it, nobody else, and nothing changed opens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smpc.curve import compute_plain_key, compute_xonly_key
from smpc.errors import CheckFailed, InvalidInput
from smpc.host.sealing import OVERHEAD, build_preimage_context, open_sealed, seal
from smpc.types import EpochNumber, IdentityKey, Network
from tests.support.groups import make_secret

CONTEXT = build_preimage_context(Network.REGTEST, EpochNumber(0))
SECRET = bytes(range(32))


def sealed_to(name: str) -> bytes:
    return seal(SECRET, IdentityKey(compute_xonly_key(make_secret(name))), CONTEXT, make_secret(f"ephemeral {name}"))


def test_identities_of_both_parities_open_what_was_sealed_to_them() -> None:
    names = [f"member {number}" for number in range(16)]
    parities = {compute_plain_key(make_secret(name))[0] for name in names}
    assert parities == {2, 3}
    for name in names:
        assert open_sealed(sealed_to(name), make_secret(name), CONTEXT) == SECRET


def test_nobody_else_opens_it() -> None:
    with pytest.raises(CheckFailed):
        open_sealed(sealed_to("alice"), make_secret("bob"), CONTEXT)


def test_it_does_not_open_for_another_epoch_or_network() -> None:
    for context in (
        build_preimage_context(Network.REGTEST, EpochNumber(1)),
        build_preimage_context(Network.MAINNET, EpochNumber(0)),
    ):
        with pytest.raises(CheckFailed):
            open_sealed(sealed_to("alice"), make_secret("alice"), context)


def test_a_sealed_secret_is_49_bytes_longer() -> None:
    assert len(sealed_to("alice")) == 32 + OVERHEAD == 81


def test_two_sealings_of_one_secret_differ() -> None:
    recipient = IdentityKey(compute_xonly_key(make_secret("alice")))
    first, second = (seal(SECRET, recipient, CONTEXT, make_secret("once", number)) for number in (1, 2))
    assert first[33:] != second[33:]


@given(place=st.integers(0, 80), flip=st.integers(1, 255))
def test_no_changed_byte_opens(place: int, flip: int) -> None:
    changed = bytearray(sealed_to("alice"))
    changed[place] ^= flip
    with pytest.raises(CheckFailed):
        open_sealed(bytes(changed), make_secret("alice"), CONTEXT)


@given(data=st.binary(max_size=100))
def test_other_bytes_do_not_open(data: bytes) -> None:
    with pytest.raises(CheckFailed):
        open_sealed(data, make_secret("alice"), CONTEXT)


def test_refuses_a_recipient_that_is_no_key() -> None:
    with pytest.raises(InvalidInput):
        seal(SECRET, IdentityKey(b"\xff" * 32), CONTEXT, make_secret("ephemeral"))
