"""Child keys: BIP 32 as an independent implementation has it, and index ranges that never meet."""

from __future__ import annotations

import hashlib

import pytest
from embit import bip32, ec

from smpc.curve import ORDER, SecretKey, compute_plain_key, tweak_plain_key
from smpc.errors import InvalidInput
from smpc.threshold import child_keys
from smpc.threshold.child_keys import (
    compute_emergency_index,
    compute_invoice_index,
    compute_rejection_index,
    compute_vault_index,
    derive_child_key,
    derive_child_tweak,
    derive_child_xonly,
)
from smpc.types import ChildIndex, PlainKey

KEYS = [compute_plain_key(SecretKey.from_bytes(bytes([k]) * 32)) for k in (1, 2, 3, 4)]


@pytest.mark.parametrize("group_key", KEYS)
@pytest.mark.parametrize("index", [0, 1, 0x0FFFFFFF, 0x10000007, 0x20000000, 0x30000001, 0x7FFFFFFF])
def test_child_key_equals_an_independent_bip32(group_key: PlainKey, index: int) -> None:
    chain_code = hashlib.sha256(b"KAON/group-chain-code/v1").digest()
    theirs = bip32.HDKey(ec.PublicKey.parse(group_key), chain_code).child(index)
    assert derive_child_key(group_key, ChildIndex(index)) == theirs.key.sec()
    assert derive_child_xonly(group_key, ChildIndex(index)) == theirs.key.xonly()


def test_child_key_is_the_group_key_plus_its_tweak() -> None:
    tweak = derive_child_tweak(KEYS[0], ChildIndex(7))
    assert tweak_plain_key(KEYS[0], tweak) == derive_child_key(KEYS[0], ChildIndex(7))
    assert int.from_bytes(tweak, "big") < ORDER


def test_ranges_start_where_the_design_says() -> None:
    assert compute_invoice_index(0) == 0
    assert compute_vault_index(0) == 0x10000000
    assert compute_rejection_index(compute_invoice_index(5)) == 0x20000005
    assert compute_rejection_index(compute_vault_index(5)) == 0x30000005
    assert compute_emergency_index(compute_invoice_index(5)) == 0x30000005
    assert compute_emergency_index(compute_vault_index(5)) == 0x40000005


def test_no_group_uses_one_index_for_two_purposes() -> None:
    # Validators use the outputs own indices, witnesses the rejection range too, the emergency group its range alone.
    edges = [0, 1, child_keys.RANGE_SIZE - 1]
    own = [compute_invoice_index(i) for i in edges] + [compute_vault_index(i) for i in edges]
    rejections = [compute_rejection_index(i) for i in own]
    emergencies = [compute_emergency_index(i) for i in own]
    assert len({*own, *rejections}) == len(own) + len(rejections)
    assert len({*own, *emergencies}) == len(own) + len(emergencies)
    assert max(own + rejections + emergencies) < 2**31


@pytest.mark.parametrize("number", [-1, child_keys.RANGE_SIZE])
def test_refuses_a_number_outside_its_range(number: int) -> None:
    with pytest.raises(InvalidInput):
        compute_invoice_index(number)
    with pytest.raises(InvalidInput):
        compute_vault_index(number)


def test_refuses_a_rejection_of_a_rejection() -> None:
    with pytest.raises(InvalidInput):
        compute_rejection_index(ChildIndex(0x20000000))
    with pytest.raises(InvalidInput):
        compute_emergency_index(ChildIndex(0x20000000))


@pytest.mark.parametrize("index", [-1, 2**31, 2**32])
def test_refuses_hardened_and_negative_indices(index: int) -> None:
    with pytest.raises(InvalidInput):
        derive_child_tweak(KEYS[0], ChildIndex(index))


@pytest.mark.parametrize("key", [b"", bytes(33), b"\x04" + bytes(32), b"\x02" + b"\xff" * 32])
def test_refuses_a_malformed_group_key(key: bytes) -> None:
    with pytest.raises(InvalidInput):
        derive_child_key(PlainKey(key), ChildIndex(0))
