"""Addresses: published vectors, every single typo, other networks, and the types a payout may pay."""

from __future__ import annotations

import pytest

from smpc.bitcoin.address import is_standard_destination, parse_destination, to_address
from smpc.bitcoin.base58 import decode_base58check, encode_base58check
from smpc.bitcoin.bech32 import decode_segwit_address, encode_segwit_address
from smpc.bitcoin.network import get_constants
from smpc.bitcoin.script import PAY_TO_ANCHOR, build_p2tr
from smpc.errors import InvalidInput
from smpc.types import Network
from tests.support.leaf_signers import LeafSigners

KEY = LeafSigners("addresses").key("v")

BIP_350_VALID = {
    "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4": "0014751e76e8199196d454941c45d1b3a323f1433bd6",
    "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7": "00201863143c14c5166804bd19203356da136c985678cd4d"
    "27a1b8c6329604903262",
    "bc1pw508d6qejxtdg4y5r3zarvary0c5xw7kw508d6qejxtdg4y5r3zarvary0c5xw7kt5nd6y": "5128751e76e8199196d454941c45d1b3a"
    "323f1433bd6751e76e8199196d454941c45d1b3a323f1433bd6",
    "BC1SW50QGDZ25J": "6002751e",
    "bc1zw508d6qejxtdg4y5r3zarvaryvaxxpcs": "5210751e76e8199196d454941c45d1b3a323",
    "tb1pqqqqp399et2xygdj5xreqhjjvcmzhxw4aywxecjdzew6hylgvsesf3hn0c": "5120000000c4a5cad46221b2a187905e5266362b99d5e91c"
    "6ce24d165dab93e86433",
    "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0": "512079be667ef9dcbbac55a06295ce870b07029bfcdb2dce"
    "28d959f2815b16f81798",
}
BIP_350_INVALID = [
    "tc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq5zuyut",
    "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqh2y7hd",
    "tb1z0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqglt7rf",
    "BC1S0XLXVLHEMJA6C4DQV22UAPCTQUPFHLXM9H8Z3K2E72Q4K9HCZ7VQ54WELL",
    "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kemeawh",
    "tb1q0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq24jc47",
    "bc1p38j9r5y49hruaue7wxjce0updqjuyyx0kh56v8s25huc6995vvpql3jow4",
    "BC130XLXVLHEMJA6C4DQV22UAPCTQUPFHLXM9H8Z3K2E72Q4K9HCZ7VQ7ZWS8R",
    "bc1pw5dgrnzv",
    "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7v8n0nx0muaewav253zgeav",
    "BC1QR508D6QEJXTDG4Y5R3ZARVARYV98GJ9P",
    "tb1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq47Zagq",
    "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7v07qwwzcrf",
    "tb1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vpggkg4j",
    "bc1gmk9yu",
]
DESTINATIONS = {
    "p2pkh": bytes.fromhex("76a914751e76e8199196d454941c45d1b3a323f1433bd688ac"),
    "p2sh": bytes.fromhex("a914751e76e8199196d454941c45d1b3a323f1433bd687"),
    "p2wpkh": bytes.fromhex("0014751e76e8199196d454941c45d1b3a323f1433bd6"),
    "p2wsh": bytes.fromhex("0020" + "0c" * 32),
    "p2tr": build_p2tr(KEY),
}
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


@pytest.mark.parametrize(("address", "script"), BIP_350_VALID.items())
def test_decodes_the_valid_addresses_of_bip_350(address: str, script: str) -> None:
    hrp = address[:2].lower()
    version, program = decode_segwit_address(address, hrp)
    opcode = version and 0x50 + version
    assert bytes((opcode, len(program))) + program == bytes.fromhex(script)
    assert encode_segwit_address(hrp, version, program) == address.lower()


@pytest.mark.parametrize("address", BIP_350_INVALID)
def test_refuses_the_invalid_addresses_of_bip_350(address: str) -> None:
    for hrp in ("bc", "tb"):
        with pytest.raises(InvalidInput, match="address"):
            decode_segwit_address(address, hrp)


@pytest.mark.parametrize("network", list(Network))
@pytest.mark.parametrize("script", DESTINATIONS.values(), ids=DESTINATIONS.keys())
def test_every_destination_type_round_trips_on_every_network(script: bytes, network: Network) -> None:
    address = to_address(script, network)
    assert parse_destination(address, network) == script
    assert is_standard_destination(script)


@pytest.mark.parametrize("script", DESTINATIONS.values(), ids=DESTINATIONS.keys())
def test_an_address_of_mainnet_is_refused_on_regtest_and_the_other_way_round(script: bytes) -> None:
    for mine, other in ((Network.MAINNET, Network.REGTEST), (Network.REGTEST, Network.MAINNET)):
        with pytest.raises(InvalidInput, match="address"):
            parse_destination(to_address(script, mine), other)


@pytest.mark.parametrize("name", ["p2wpkh", "p2tr"])
def test_every_single_substitution_in_a_segwit_address_is_refused(name: str) -> None:
    address = to_address(DESTINATIONS[name], Network.REGTEST)
    for place, right in enumerate(address):
        for wrong in set(_BECH32 + "1bio") - {right}:
            with pytest.raises(InvalidInput):
                parse_destination(address[:place] + wrong + address[place + 1 :], Network.REGTEST)


@pytest.mark.parametrize("name", ["p2pkh", "p2sh"])
def test_every_single_substitution_in_a_base58_address_is_refused(name: str) -> None:
    address = to_address(DESTINATIONS[name], Network.REGTEST)
    for place, right in enumerate(address):
        for wrong in set(_BASE58 + "0OIl") - {right}:
            with pytest.raises(InvalidInput):
                parse_destination(address[:place] + wrong + address[place + 1 :], Network.REGTEST)


def test_accepts_all_upper_case_and_refuses_mixed_case() -> None:
    address = to_address(DESTINATIONS["p2tr"], Network.REGTEST)
    assert parse_destination(address.upper(), Network.REGTEST) == DESTINATIONS["p2tr"]
    for mixed in (address[:10] + address[10:].upper(), address[:4].upper() + address[4:], address.title()):
        with pytest.raises(InvalidInput):
            parse_destination(mixed, Network.REGTEST)


@pytest.mark.parametrize("mangle", [" {}", "{} ", "{}\n", "\t{}", "{}\x00", "bitcoin:{}", "{}?amount=1", "{}1", "{}q"])
@pytest.mark.parametrize("name", ["p2pkh", "p2tr"])
def test_refuses_anything_around_an_address(mangle: str, name: str) -> None:
    address = to_address(DESTINATIONS[name], Network.REGTEST)
    with pytest.raises(InvalidInput):
        parse_destination(mangle.format(address), Network.REGTEST)


@pytest.mark.parametrize(
    "text", ["", "1", "bcrt1", "bcrt1q", "é" * 40, "\uff11" * 30, "1" * 100_000, "bcrt1" + "q" * 10_000]
)
def test_refuses_text_that_is_no_address(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_destination(text, Network.REGTEST)


@pytest.mark.parametrize(("version", "size"), [(1, 2), (1, 20), (1, 33), (2, 32), (16, 2), (16, 40)])
def test_refuses_witness_programs_that_nobody_can_spend_yet(version: int, size: int) -> None:
    hrp = get_constants(Network.REGTEST).hrp
    with pytest.raises(InvalidInput, match="witness version"):
        parse_destination(encode_segwit_address(hrp, version, bytes(size)), Network.REGTEST)


def test_refuses_a_taproot_key_that_is_no_point_because_the_coins_would_be_lost() -> None:
    lost = bytes.fromhex("5120") + (5).to_bytes(32, "big")
    with pytest.raises(InvalidInput, match="lost"):
        parse_destination(to_address(lost, Network.REGTEST), Network.REGTEST)
    assert not is_standard_destination(lost)


@pytest.mark.parametrize("script", [b"", PAY_TO_ANCHOR, b"\x6a\x02ab", b"\x51", b"\x52\x20" + bytes(32)])
def test_a_script_without_an_address_is_no_destination(script: bytes) -> None:
    assert not is_standard_destination(script)
    with pytest.raises(InvalidInput, match="no address"):
        to_address(script, Network.REGTEST)


def test_base58_keeps_leading_zeros_and_refuses_short_text() -> None:
    assert encode_base58check(bytes(21)) == "1111111111111111111114oLvT2"
    assert decode_base58check("1111111111111111111114oLvT2") == bytes(21)
    for text in ("", "1", "1111", "2" * 200):
        with pytest.raises(InvalidInput):
            decode_base58check(text)
