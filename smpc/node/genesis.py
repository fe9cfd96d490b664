"""The genesis file: JSON, read strictly, the same for every process of a network (case I8)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from smpc.curve import is_valid_xonly
from smpc.errors import ConfigError
from smpc.protocol.records import Genesis, ValidatorInfo
from smpc.types import EmergencyMode, Finality, IdentityKey, Network, Script, block_hash_from_hex

MAX_GENESIS_BYTES: Final = 4 * 1024 * 1024
"""Room for some ten thousand validators."""

_REMEDY: Final = "get the network's genesis file unchanged"
_KEYS: Final = frozenset({"network", "validators", "coordinators", "proposer", "btc_start", "block_millis"})
_OPTIONAL_KEYS: Final = frozenset({"finality", "emergency"})
"""What a file may leave out: the genesis files of the first networks do not have them."""

_VALIDATOR_KEYS: Final = frozenset({"identity", "endpoint", "stake", "payout_script"})
_START_KEYS: Final = frozenset({"height", "hash"})


def build_genesis_file(genesis: Genesis) -> str:
    """Return the file's text; keys and scripts in hex, the Bitcoin block hash as explorers show it."""
    height, block_hash = genesis.btc_start
    content = {
        "network": str(genesis.network),
        "validators": [
            {
                "identity": item.identity.hex(),
                "endpoint": item.endpoint,
                "stake": item.stake,
                "payout_script": item.payout_script.hex(),
            }
            for item in genesis.validators
        ],
        "coordinators": [key.hex() for key in genesis.coordinators],
        "proposer": genesis.proposer.hex(),
        "btc_start": {"height": height, "hash": block_hash[::-1].hex()},
        "block_millis": genesis.block_millis,
    }
    if genesis.finality is not Finality.DEPTH:
        content["finality"] = str(genesis.finality)
    if genesis.emergency is not EmergencyMode.OFF:
        content["emergency"] = str(genesis.emergency)
    return json.dumps(content, indent=2) + "\n"


def load_genesis(path: Path) -> Genesis:
    """Read a genesis file; ConfigError names what is wrong with it."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_GENESIS_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the genesis file {path}: {error.strerror}", remedy="check the path") from error
    return parse_genesis(data)


def parse_genesis(data: bytes) -> Genesis:
    """Read a genesis file's bytes; ConfigError for anything but exactly the keys above with values in range."""
    if len(data) > MAX_GENESIS_BYTES:
        raise _fault(f"it is larger than {MAX_GENESIS_BYTES} bytes")
    try:
        content = json.loads(data, object_pairs_hook=_read_object, parse_constant=_refuse, parse_float=_refuse)
    except (ValueError, RecursionError) as error:
        raise _fault(f"it is not JSON: {error}") from error
    table = _read_table(content, _KEYS, "the file", _OPTIONAL_KEYS)
    start = _read_table(table["btc_start"], _START_KEYS, "btc_start")
    finality = _read_finality(table.get("finality", Finality.DEPTH))
    return Genesis(
        network=_read_network(table["network"]),
        validators=_read_validators(table["validators"]),
        coordinators=tuple(
            _read_key(item, "coordinators") for item in _read_list(table["coordinators"], "coordinators")
        ),
        proposer=_read_key(table["proposer"], "proposer"),
        btc_start=(_read_number(start["height"], "btc_start.height", 0), _read_block_hash(start["hash"])),
        block_millis=_read_number(table["block_millis"], "block_millis", 1),
        finality=finality,
        emergency=_read_emergency(table.get("emergency", EmergencyMode.OFF), finality),
    )


def _read_validators(value: object) -> tuple[ValidatorInfo, ...]:
    validators = tuple(_read_validator(item) for item in _read_list(value, "validators"))
    if len({item.identity for item in validators}) != len(validators):
        raise _fault("a validator is listed twice")
    return validators


def _read_validator(value: object) -> ValidatorInfo:
    table = _read_table(value, _VALIDATOR_KEYS, "a validator")
    endpoint = table["endpoint"]
    if not isinstance(endpoint, str) or not endpoint:
        raise _fault("an endpoint must be host:port")
    return ValidatorInfo(
        identity=_read_key(table["identity"], "identity"),
        endpoint=endpoint,
        stake=_read_number(table["stake"], "stake", 0),
        payout_script=Script(_read_hex(table["payout_script"], "payout_script")),
    )


def _read_network(value: object) -> Network:
    if not isinstance(value, str) or value not in list(Network):
        raise _fault(f"network must be one of {', '.join(Network)}")
    return Network(value)


def _read_finality(value: object) -> Finality:
    if not isinstance(value, str) or value not in list(Finality):
        raise _fault(f"finality must be one of {', '.join(Finality)}")
    return Finality(value)


def _read_emergency(value: object, finality: Finality) -> EmergencyMode:
    if not isinstance(value, str) or value not in list(EmergencyMode):
        raise _fault(f"emergency must be one of {', '.join(EmergencyMode)}")
    mode = EmergencyMode(value)
    if mode is EmergencyMode.ARMED and finality is not Finality.CHECKPOINTS:
        raise _fault("emergency armed needs finality checkpoints: without turns there is no parallel group")
    return mode


def _read_key(value: object, what: str) -> IdentityKey:
    key = _read_hex(value, what)
    if not is_valid_xonly(key):
        raise _fault(f"{what} must be an x-only key of 64 hex digits")
    return IdentityKey(key)


def _read_hex(value: object, what: str) -> bytes:
    if not isinstance(value, str) or not value.isascii() or not (value == "" or value.isalnum()):
        raise _fault(f"{what} must be hex digits")
    try:
        return bytes.fromhex(value)
    except ValueError as error:
        raise _fault(f"{what} must be hex digits") from error


def _read_block_hash(value: object) -> bytes:
    try:
        return block_hash_from_hex(value if isinstance(value, str) else "")
    except ValueError as error:
        raise _fault(f"btc_start.hash: {error}") from error


def _read_number(value: object, what: str, least: int) -> int:
    if type(value) is not int or not least <= value < 2**63:
        raise _fault(f"{what} must be a whole number from {least}")
    return value


def _read_list(value: object, what: str) -> Sequence[object]:
    if not isinstance(value, list):
        raise _fault(f"{what} must be a list")
    return value


def _read_table(
    value: object, keys: frozenset[str], what: str, optional: frozenset[str] = frozenset()
) -> Mapping[str, Any]:
    if not isinstance(value, dict) or set(value) - optional != keys:
        raise _fault(f"{what} must have exactly the keys {', '.join(sorted(keys))}")
    return value


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key stands twice")
    return table


def _refuse(text: str) -> object:
    raise ValueError(f"{text[:40]} is not allowed")


def _fault(what: str) -> ConfigError:
    return ConfigError(f"the genesis file is not valid: {what}", remedy=_REMEDY)
