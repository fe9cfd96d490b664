"""The genesis file: the same for everyone, and anything odd about it is named (case I8)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smpc.errors import ConfigError
from smpc.node.genesis import MAX_GENESIS_BYTES, build_genesis_file, load_genesis, parse_genesis
from smpc.types import EmergencyMode, Finality
from tests.support.groups import build_genesis

TEXT = build_genesis_file(build_genesis())


def changed(**changes: Any) -> bytes:  # noqa: ANN401 - any JSON value may be tried
    return json.dumps({**json.loads(TEXT), **changes}).encode()


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "genesis.json"
    path.write_text(TEXT)
    genesis = load_genesis(path)
    assert genesis == build_genesis()
    assert genesis.genesis_hash == build_genesis().genesis_hash
    assert build_genesis_file(genesis) == TEXT


def test_the_bitcoin_block_is_written_as_explorers_show_it() -> None:
    genesis = replace(build_genesis(), btc_start=(7, bytes(range(32))))
    content = json.loads(build_genesis_file(genesis))
    assert content["btc_start"] == {"height": 7, "hash": bytes(range(32))[::-1].hex()}


def test_the_finality_is_written_only_where_checkpoints_make_blocks_final() -> None:
    genesis = replace(build_genesis(), finality=Finality.CHECKPOINTS)
    assert "finality" not in json.loads(TEXT)
    assert parse_genesis(build_genesis_file(genesis).encode()) == genesis
    assert genesis.genesis_hash != build_genesis().genesis_hash


def test_arming_is_written_only_where_outputs_are_armed_and_makes_another_chain() -> None:
    turning = replace(build_genesis(), finality=Finality.CHECKPOINTS)
    armed = replace(turning, emergency=EmergencyMode.ARMED)
    assert "emergency" not in json.loads(build_genesis_file(turning))
    assert parse_genesis(build_genesis_file(armed).encode()) == armed
    assert armed.genesis_hash != turning.genesis_hash


def test_arming_without_turns_is_refused() -> None:
    with pytest.raises(ConfigError, match="parallel group"):
        parse_genesis(changed(emergency="armed"))
    assert parse_genesis(changed(emergency="armed", finality="checkpoints")).needs_arming
    assert not parse_genesis(changed(emergency="off")).needs_arming


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        load_genesis(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"network": "testnet"},
        {"network": 1},
        {"finality": "soon"},
        {"finality": 2},
        {"emergency": "on"},
        {"emergency": 1},
        {"validators": {}},
        {"validators": [1]},
        {"validators": [{"identity": "00"}]},
        {"coordinators": ["zz"]},
        {"coordinators": ["00" * 31]},
        {"coordinators": ["ff" * 32]},
        {"coordinators": ["\uff10" * 64]},
        {"proposer": None},
        {"btc_start": {"height": -1, "hash": "00" * 32}},
        {"btc_start": {"height": True, "hash": "00" * 32}},
        {"btc_start": {"height": 1, "hash": "00"}},
        {"btc_start": {"height": 1, "hash": 5}},
        {"block_millis": 0},
        {"block_millis": 2**63},
        {"block_millis": "250"},
        {"extra": 1},
    ],
)
def test_refuses_values_out_of_place(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="genesis file"):
        parse_genesis(changed(**changes))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b"{",
        b"[" * 100_000,
        b"1e400",
        b"NaN",
        b'{"network": "regtest", "network": "regtest"}',
        TEXT.replace('"block_millis": 250', '"block_millis": 250.0').encode(),
        TEXT.replace('"block_millis": 250', '"block_millis": 1e3').encode(),
        TEXT.replace('"block_millis": 250', '"block_millis": 250, "block_millis": 251').encode(),
        TEXT.encode() + b"{}",
        b" " * (MAX_GENESIS_BYTES + 1),
    ],
    ids=[
        "empty",
        "list",
        "no text",
        "cut",
        "deep",
        "huge",
        "nan",
        "twice",
        "float",
        "exponent",
        "key twice",
        "two",
        "big",
    ],
)
def test_refuses_what_is_not_strict_json(data: bytes) -> None:
    with pytest.raises(ConfigError, match="genesis file"):
        parse_genesis(data)


def test_refuses_a_validator_listed_twice() -> None:
    validators = json.loads(TEXT)["validators"]
    with pytest.raises(ConfigError, match="twice"):
        parse_genesis(changed(validators=[*validators, validators[0]]))


@settings(max_examples=200)
@given(place=st.integers(0, len(TEXT) - 1), letter=st.characters(codec="utf-8"))
def test_one_changed_letter_is_refused_or_another_genesis(place: int, letter: str) -> None:
    text = TEXT[:place] + letter + TEXT[place + 1 :]
    try:
        genesis = parse_genesis(text.encode())
    except ConfigError:
        return
    same = genesis == build_genesis()
    assert same == (json.loads(text) == json.loads(TEXT) or text.lower() == TEXT.lower())
