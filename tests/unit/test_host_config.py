"""The configuration loader: every wrong key is named, the environment wins, secrets come by path."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from smpc.errors import ConfigError
from smpc.host.config import SecretFile, load_config
from smpc.types import KaonHeight, Network

START = KaonHeight(0)


class Speed(enum.StrEnum):
    SLOW = "slow"
    FAST = "fast"


@dataclass(frozen=True, slots=True)
class Node:
    url: str
    password_file: SecretFile
    timeout_ms: int = 1000


@dataclass(frozen=True, slots=True)
class Config:
    network: Network
    data_dir: Path
    node: Node
    start: KaonHeight = START
    speed: Speed = Speed.SLOW
    verbose: bool = False
    note: str | None = None
    peers: tuple[Node, ...] = ()
    hosts: tuple[str, ...] = field(default=("localhost",))


GOOD = """
network = "regtest"
data_dir = "data"
start = 7
[node]
url = "http://127.0.0.1:1"
password_file = "pass"
"""


def load(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> Config:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return load_config(Config, path, "PEG_POD", environment or {})


def test_reads_nested_tables_into_one_frozen_object(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD)
    assert config == Config(
        network=Network.REGTEST,
        data_dir=tmp_path / "data",
        node=Node(url="http://127.0.0.1:1", password_file=SecretFile(tmp_path / "pass")),
        start=KaonHeight(7),
    )


def test_reads_a_list_of_tables(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD + '[[peers]]\nurl = "a"\npassword_file = "/b"\ntimeout_ms = 5\n')
    assert config.peers == (Node(url="a", password_file=SecretFile(Path("/b")), timeout_ms=5),)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (GOOD + "timeout = 3\n", "unknown key node.timeout"),
        (GOOD.replace("start", "strat"), "unknown key strat"),
        (GOOD.replace('data_dir = "data"\n', ""), "missing key data_dir"),
        (GOOD.replace('url = "http://127.0.0.1:1"\n', ""), "missing key node.url"),
        (GOOD.replace("start = 7", 'start = "7"'), "start must be an integer"),
        (GOOD.replace("start = 7", "start = true"), "start must be an integer"),
        (GOOD.replace("start = 7", "verbose = 1"), "verbose must be true or false"),
        (GOOD.replace("regtest", "testnet"), "network must be one of mainnet, signet, regtest"),
        (GOOD.replace("start = 7", 'hosts = "a"'), "hosts must be a list"),
        (GOOD.replace("start = 7", "hosts = [1]"), r"hosts\[0\] must be text"),
        (GOOD.replace("[node]", "[[node]]"), "node must be a table"),
        (GOOD.replace('"pass"', "3"), "node.password_file must be a path"),
        (GOOD.replace("http://", "http://user:word@"), "node.url contains a password"),
        ("network = ", "is not TOML"),
    ],
)
def test_names_what_is_wrong(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as refused:
        load(tmp_path, text)
    assert refused.value.remedy


def test_suggests_the_key_that_was_meant(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, GOOD.replace("start", "strat"))
    assert refused.value.remedy == "did you mean start?"


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    environment = {
        "PEG_POD_START": "9",
        "PEG_POD_VERBOSE": "true",
        "PEG_POD_SPEED": "fast",
        "PEG_POD_HOSTS": "a, b",
        "PEG_POD_NODE__TIMEOUT_MS": "20",
        "PEG_POD_NODE__PASSWORD_FILE": "/run/secret",
        "PEG_PODIUM": "another program's",
    }
    config = load(tmp_path, GOOD, environment)
    assert (config.start, config.verbose, config.speed, config.hosts) == (9, True, Speed.FAST, ("a", "b"))
    assert config.node == Node("http://127.0.0.1:1", SecretFile(Path("/run/secret")), 20)


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("PEG_POD_STRAT", "1", "unknown environment variable PEG_POD_STRAT"),
        ("PEG_POD_NODE__URI", "1", "unknown environment variable PEG_POD_NODE__URI"),
        ("PEG_POD_START__X", "1", "start is not a table"),
        ("PEG_POD_START", "\uff11", "PEG_POD_START must be a whole number"),
        ("PEG_POD_VERBOSE", "yes", "PEG_POD_VERBOSE must be true or false"),
    ],
)
def test_names_a_wrong_variable(tmp_path: Path, variable: str, value: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load(tmp_path, GOOD, {variable: value})


def test_a_configuration_class_cannot_hold_a_secret_itself(tmp_path: Path) -> None:
    @dataclass(frozen=True, slots=True)
    class Careless:
        rpc_password: str = ""

    (tmp_path / "config.toml").write_text("")
    with pytest.raises(TypeError, match="must be a SecretFile"):
        load_config(Careless, tmp_path / "config.toml", "X", {})


def test_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(Config, tmp_path / "absent.toml", "PEG_POD", {})
