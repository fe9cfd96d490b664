"""What a devnet was created with: sizes, block times, ports and identities; kept so that it starts again as it was."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from coordinator.devnet.layout import name_pod
from coordinator.devnet.loopback_ports import choose_ports
from smpc.errors import ConfigError, InvalidInput
from smpc.host.private_file import replace_private_file
from smpc.types import EmergencyMode, Finality

FORMAT: Final = 1
MIN_PODS: Final = 13
"""Three disjoint groups of four (REGTEST preset), none with a third of the stake (design.md section 6)."""

MAX_PODS: Final = 40
DEFAULT_PODS: Final = 16
DEFAULT_BLOCK_MILLIS: Final = 500
DEFAULT_FINALITY: Final = Finality.CHECKPOINTS


@dataclass(frozen=True, slots=True)
class DevnetOptions:
    """What the user of a devnet chooses when he creates it."""

    pods: int = DEFAULT_PODS
    block_millis: int = DEFAULT_BLOCK_MILLIS
    """Time between consensus-layer blocks, milliseconds."""
    finality: Finality = DEFAULT_FINALITY
    """`checkpoints` makes epochs turn, and sweeps with them; `depth` keeps epoch 0 active."""
    emergency: EmergencyMode = EmergencyMode.OFF
    """`armed` lets nothing be recorded or credited before its emergencies are pre-signed; needs `checkpoints`."""

    @classmethod
    def choose(
        cls,
        pods: int | None = None,
        block_millis: int | None = None,
        finality: Finality | None = None,
        emergency: EmergencyMode | None = None,
    ) -> DevnetOptions:
        """Return what was chosen, with defaults for the rest: emergencies are armed wherever epochs turn."""
        chosen = finality or DEFAULT_FINALITY
        usual = EmergencyMode.ARMED if chosen is Finality.CHECKPOINTS else EmergencyMode.OFF
        return cls(pods or DEFAULT_PODS, block_millis or DEFAULT_BLOCK_MILLIS, chosen, emergency or usual)

    def __post_init__(self) -> None:
        if not MIN_PODS <= self.pods <= MAX_PODS:
            raise InvalidInput(
                f"a devnet has {MIN_PODS} to {MAX_PODS} pods, got {self.pods}",
                remedy="three groups of four, each with less than a third of the stake, need thirteen",
            )
        if not 50 <= self.block_millis <= 60_000:
            raise InvalidInput(f"the block time is 50 to 60000 ms, got {self.block_millis}")
        if self.emergency is EmergencyMode.ARMED and self.finality is not Finality.CHECKPOINTS:
            raise InvalidInput("only where epochs turn is there a group to arm to", remedy="take finality checkpoints")


@dataclass(frozen=True, slots=True)
class DevnetPorts:
    """Loopback TCP ports."""

    bitcoind: int
    consensus: int
    peg: int
    operator: int
    pods: tuple[int, ...]

    @classmethod
    def choose(cls, pods: int) -> DevnetPorts:
        """Return free ports for a devnet of `pods` pods."""
        bitcoind, consensus, peg, operator, *rest = choose_ports(4 + pods)
        return cls(bitcoind, consensus, peg, operator, tuple(rest))


@dataclass(frozen=True, slots=True)
class DevnetSettings:
    """A created devnet: its options and ports."""

    options: DevnetOptions
    ports: DevnetPorts

    @property
    def pod_endpoints(self) -> Mapping[str, str]:
        """The address of every pod by its name."""
        return {name_pod(number): to_endpoint(port) for number, port in enumerate(self.ports.pods, start=1)}

    def save(self, path: Path) -> None:
        """Write the settings."""
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        replace_private_file(path, json.dumps(content, indent=2).encode() + b"\n")


def find_settings(path: Path) -> DevnetSettings | None:
    """Read a created devnet's settings; None when there is no devnet, ConfigError when the file is damaged."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _damaged(path) from error
    return _parse(content, path)


def check_options(path: Path, options: DevnetOptions | None) -> None:
    """Raise ConfigError when `options` are given and an existing devnet was created with others."""
    found = find_settings(path)
    if found is not None and options is not None and found.options != options:
        raise ConfigError(
            f"the devnet in {path.parent} has {found.options.pods} pods and {found.options.block_millis} ms blocks",
            remedy="start it without options, or create another one in another directory",
        )


def to_endpoint(port: int) -> str:
    """Return the loopback address of a port as `host:port`."""
    return f"127.0.0.1:{port}"


def _parse(content: dict[str, Any], path: Path) -> DevnetSettings:
    try:
        if content["format"] != FORMAT:
            raise ConfigError(f"{path} is of another version", remedy="create a new devnet in another directory")
        ports = content["ports"]
        return DevnetSettings(
            _parse_options(content["options"]), DevnetPorts(**{**ports, "pods": tuple(ports["pods"])})
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path) from error


def _parse_options(options: dict[str, Any]) -> DevnetOptions:
    # Settings without them are of a devnet from before there were checkpoints, or armings.
    finality = Finality(options.pop("finality", Finality.DEPTH))
    emergency = EmergencyMode(options.pop("emergency", EmergencyMode.OFF))
    return DevnetOptions(**options, finality=finality, emergency=emergency)


def _damaged(path: Path) -> ConfigError:
    return ConfigError(f"{path} is damaged", remedy="remove the data directory and create the devnet anew")
