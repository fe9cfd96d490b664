"""Descriptors, checksums and key origins: what is written, what is read back, and everything else refused."""

from __future__ import annotations

import pytest
from embit.descriptor import Descriptor
from embit.networks import NETWORKS

from smpc.bitcoin.address import to_address
from smpc.bitcoin.descriptor import (
    build_invoice_descriptor,
    build_vault_descriptor,
    parse_invoice_descriptor,
    parse_vault_descriptor,
)
from smpc.bitcoin.descriptor_checksum import add_checksum, compute_checksum, verify_checksum
from smpc.bitcoin.key_origin import KeyOrigin, UserKey, parse_key_origin, parse_user_key
from smpc.bitcoin.taproot import Timelocks
from smpc.errors import InvalidInput
from smpc.types import Network
from tests.support.leaf_signers import LeafSigners

SIGNERS = LeafSigners("descriptors")
KEY = SIGNERS.key("user")
HARDENED = 1 << 31
ORIGIN = KeyOrigin(bytes.fromhex("d34db33f"), (86 | HARDENED, 1 | HARDENED, HARDENED, 0, 5))
USER = UserKey(KEY, ORIGIN)
INVOICE = SIGNERS.invoice(Timelocks(1, 3, 36, 0xFFFF))
VAULT = SIGNERS.vault(Timelocks(1, 3, 0xFFFF, 144))
INVOICE_TEXT = build_invoice_descriptor(INVOICE, USER)
VAULT_TEXT = build_vault_descriptor(VAULT)


def test_the_checksum_is_the_one_of_bip_380() -> None:
    assert compute_checksum("raw(deadbeef)") == "89f8spxm"
    assert add_checksum("raw(deadbeef)") == "raw(deadbeef)#89f8spxm"
    assert verify_checksum("raw(deadbeef)#89f8spxm")


@pytest.mark.parametrize(
    "text",
    [
        "raw(deadbeef)",
        "raw(deadbeef)#",
        "raw(deadbeef)#89f8spxmx",
        "raw(deadbeef)#89f8spx",
        "raw(dedbeef)#89f8spxm",
        "raw(deadbeef)##9f8spxm",
        "raw(Ü)#00000000",
        "#",
        "",
    ],
)
def test_refuses_the_wrong_checksums_of_bip_380(text: str) -> None:
    assert not verify_checksum(text)


def test_a_descriptor_cannot_hold_foreign_characters() -> None:
    with pytest.raises(InvalidInput, match="cannot contain"):
        compute_checksum("raw(Ü)")


def test_an_invoice_and_a_vault_output_are_read_back_from_their_descriptors() -> None:
    invoice = parse_invoice_descriptor(INVOICE_TEXT)
    assert (invoice.tree, invoice.user) == (INVOICE, USER)
    assert parse_vault_descriptor(VAULT_TEXT) == VAULT


@pytest.mark.parametrize(
    ("text", "script"), [(INVOICE_TEXT, INVOICE.script), (VAULT_TEXT, VAULT.script)], ids=["invoice", "vault"]
)
def test_another_library_derives_the_same_output_from_the_descriptor(text: str, script: bytes) -> None:
    other = Descriptor.from_string(text)
    assert other.script_pubkey().data == script
    assert other.address(NETWORKS["regtest"]) == to_address(script, Network.REGTEST)


def test_a_wrong_character_anywhere_is_refused() -> None:
    for text, parse in ((INVOICE_TEXT, parse_invoice_descriptor), (VAULT_TEXT, parse_vault_descriptor)):
        for place in range(0, len(text), 7):
            wrong = "0" if text[place] != "0" else "1"
            with pytest.raises(InvalidInput):
                parse(text[:place] + wrong + text[place + 1 :])


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("older(36)", "older(0)", "relative lock"),
        ("older(36)", "older(4194304)", "relative lock"),
        ("older(36)", "older(65536)", "relative lock"),
        ("older(36)", "older(036)", "form"),
        ("older(36)", "older(-1)", "form"),
        ("older(36)", "after(36)", "form"),
        ("older(1)", "older(4194304)", "relative lock"),
        (f"[{ORIGIN}]", "", "no origin"),
        (f"[{ORIGIN}]", "[]", "form"),
        (f"[{ORIGIN}]", "[d34db33]", "fingerprint"),
        (f"[{ORIGIN}]", "[d34db33f/86x]", "step"),
        (KEY.hex(), "02" + KEY.hex(), "x-only"),
        (KEY.hex(), "00" * 31 + "05", "not a point"),
        (KEY.hex(), KEY.hex().upper(), "form"),
        ("tr(50", "tr(51", "form"),
        ("and_v", "and_b", "form"),
        ("4b414f4e00", "4b414f4e01", "form"),
        (",", ", ", "form"),
    ],
)
def test_refuses_a_descriptor_with_a_right_checksum_and_wrong_content(old: str, new: str, reason: str) -> None:
    body = INVOICE_TEXT[:-9]
    assert old in body
    with pytest.raises(InvalidInput, match=reason):
        parse_invoice_descriptor(add_checksum(body.replace(old, new, 1)))


def test_one_form_is_not_taken_for_the_other() -> None:
    with pytest.raises(InvalidInput, match="form"):
        parse_invoice_descriptor(VAULT_TEXT)
    with pytest.raises(InvalidInput, match="form"):
        parse_vault_descriptor(INVOICE_TEXT)


def test_a_vault_descriptor_must_repeat_its_keys_consistently() -> None:
    recovery_only = VAULT_TEXT[:-9].replace(SIGNERS.key("v").hex(), SIGNERS.key("user").hex(), 1)
    with pytest.raises(InvalidInput, match="repeats"):
        parse_vault_descriptor(add_checksum(recovery_only))


def test_the_origin_of_another_key_is_refused() -> None:
    with pytest.raises(InvalidInput, match="another key"):
        build_invoice_descriptor(INVOICE, UserKey(SIGNERS.key("v"), ORIGIN))


@pytest.mark.parametrize("hardened", ["h", "'", "H"])
def test_reads_every_way_of_writing_hardened_steps(hardened: str) -> None:
    path = f"86{hardened}/1{hardened}/0{hardened}/0/5"
    assert parse_key_origin(f"d34db33f/{path}") == ORIGIN
    assert parse_user_key(f"[D34DB33F/{path}]{KEY.hex()}") == USER


def test_reads_the_descriptor_that_the_node_shows_for_an_address() -> None:
    assert parse_user_key(add_checksum(f"tr({USER})")) == USER
    assert str(USER) == f"[d34db33f/86h/1h/0h/0/5]{KEY.hex()}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        KEY.hex(),
        f"[]{KEY.hex()}",
        f"[d34db33f/0/2147483648]{KEY.hex()}",
        f"[d34db33f/00]{KEY.hex()}",
        f"[d34db33f/]{KEY.hex()}",
        f"[d34db33f//1]{KEY.hex()}",
        f"[d34db33f/1]02{KEY.hex()}",
        f"[d34db33f/1]{KEY.hex()[2:]}",
        f"[d34db33f/1]{'00' * 32}",
        f"[d34db33f/1]{KEY.hex()} ",
        f"[d34db33f{'/0' * 33}]{KEY.hex()}",
        f"tr([d34db33f/1]{KEY.hex()})",
        f"tr([d34db33f/1]{KEY.hex()})#qqqqqqqq",
        add_checksum(f"tr([d34db33f/1]{KEY.hex()}"),
        add_checksum(f"tr([d34db33f/1]{KEY.hex()},pk({KEY.hex()}))"),
        add_checksum(f"wpkh([d34db33f/1]02{KEY.hex()})"),
        "[" * 100_000,
    ],
)
def test_refuses_a_refund_key_that_no_wallet_could_find_or_use(text: str) -> None:
    with pytest.raises(InvalidInput, match="key"):
        parse_user_key(text)


def test_an_origin_survives_its_form_in_a_psbt() -> None:
    value = ORIGIN.to_derivation([bytes(32), bytes(32)])
    assert KeyOrigin.from_derivation(value) == ORIGIN
    for cut in (1, 2, 3, 60):
        with pytest.raises(InvalidInput):
            KeyOrigin.from_derivation(value[:-cut])
