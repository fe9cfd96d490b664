"""Every parser of foreign bytes against seeded damage: our own error or a value, never slowly (I9)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pytest

from pegin.vault import build_vault_tree
from smpc.bitcoin.address import parse_destination
from smpc.bitcoin.block import parse_block
from smpc.bitcoin.descriptor import build_vault_descriptor, parse_vault_descriptor
from smpc.bitcoin.descriptor_checksum import add_checksum
from smpc.bitcoin.psbt_maps import parse_maps
from smpc.bitcoin.reader import to_compact_size
from smpc.bitcoin.transaction import parse_transaction
from smpc.errors import BridgeError
from smpc.node.bitcoind_json import parse_json
from smpc.protocol.codec import decode_variant, encode_variant
from smpc.protocol.records import Record
from smpc.types import Network, Role
from tests.support.flow_world import FlowWorld
from tests.support.fuzz import damage_bytes

SHORT: Final = 300
LONG: Final = 10_000_000
SLOW_SECONDS: Final = 0.25
"""Of our own work per input: five times what case G15 allows, for garbage collection."""


@dataclass(frozen=True, slots=True)
class Parser:
    """What is parsed, and a valid input to begin from."""

    seed: bytes
    parse: Callable[[bytes], object]


def build_parsers() -> dict[str, Parser]:
    world = FlowWorld.opened()
    built = world.transfer(world.deposit(1, 300_000), world.deposit(2, 50_000))
    raw = built.complete(world.sign(built, Role.VALIDATOR), world.sign(built, Role.WITNESS)).to_bytes()
    vault = build_vault_tree(world.ledger.params, world.keys, 0)
    block = bytes(80) + to_compact_size(2) + raw * 2
    unsigned = built.transaction.to_bytes()
    psbt = (
        b"psbt\xff\x01\x00" + to_compact_size(len(unsigned)) + unsigned + bytes(1 + 2 + len(built.intent.vault_outputs))
    )
    record = encode_variant(world.chain.make_burn("alice", 50_000))
    return {
        "transaction": Parser(raw, parse_transaction),
        "block": Parser(block, lambda data: list(parse_block(data).transactions())),
        "psbt": Parser(psbt, parse_maps),
        "record": Parser(record, lambda data: decode_variant(Record, data)),
        "json": Parser(b'{"result": {"a": [1, 0.10000000, "x", null]}, "error": null}', parse_json),
        "address": Parser(
            b"bcrt1q6rhpng9evdsfnn833a4f4vej0asu6dk5srld6x",
            lambda data: parse_destination(data.decode("latin-1"), Network.REGTEST),
        ),
        "descriptor": Parser(
            # Under a right checksum, or no damage would get beyond that.
            build_vault_descriptor(vault).partition("#")[0].encode(),
            lambda data: parse_vault_descriptor(add_checksum(data.decode("latin-1"))),
        ),
    }


def damage_again_and_again(parser: Parser, rounds: int, seed: int) -> None:
    """Damage the seed up to five times and parse it, for ever new damage."""
    rng = random.Random(seed)
    for number in range(rounds):
        data = parser.seed
        for _ in range(rng.randrange(1, 6)):
            data = damage_bytes(data or b"\x00", rng)
        began = time.thread_time()
        try:
            parser.parse(data)
        except BridgeError:
            pass
        except Exception as error:
            raise AssertionError(f"seed {seed}, input {number}: {data.hex()}") from error
        assert time.thread_time() - began < SLOW_SECONDS, f"seed {seed}, input {number}: {data.hex()}"


@pytest.mark.parametrize("name", build_parsers())
def test_what_is_damaged_was_whole(name: str) -> None:
    parser = build_parsers()[name]
    parser.parse(parser.seed)


@pytest.mark.parametrize("name", build_parsers())
def test_no_damage_breaks_a_parser(name: str) -> None:
    damage_again_and_again(build_parsers()[name], SHORT, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("name", build_parsers())
def test_ten_million_damaged_inputs_break_no_parser(name: str) -> None:
    damage_again_and_again(build_parsers()[name], LONG, seed=random.SystemRandom().randrange(2**32))
