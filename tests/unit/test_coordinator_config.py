"""A coordinator's configuration: the example file is true, the devnet's file is read, contradictions are named."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import coordinator
from coordinator.config import ENV_PREFIX, PORT_FILE, CoordinatorConfig, StoreSettings
from smpc.errors import ConfigError, Unavailable
from smpc.host.config import SecretFile, load_config
from smpc.types import Network

EXAMPLE = Path(coordinator.__file__).parent / "coordinator.example.toml"


def load(path: Path, **environment: str) -> CoordinatorConfig:
    return load_config(CoordinatorConfig, path, ENV_PREFIX, environment)


def test_the_example_file_is_a_configuration() -> None:
    config = load(EXAMPLE)
    assert config.network is Network.REGTEST
    assert config.store.find_url() == "redis://127.0.0.1:6379/0"
    assert config.keystore == EXAMPLE.parent / "keystore.json"


def test_the_example_file_names_every_key_and_its_default() -> None:
    table = tomllib.loads(EXAMPLE.read_text())
    assert set(table) == set(CoordinatorConfig.__dataclass_fields__)
    config = load(EXAMPLE)
    for name, field in CoordinatorConfig.__dataclass_fields__.items():
        if isinstance(field.default, int | str):
            assert getattr(config, name) == field.default, name


def test_the_environment_wins() -> None:
    changed = load(EXAMPLE, PEG_COORDINATOR_LISTEN_PEG="0.0.0.0:1", PEG_COORDINATOR_STORE__URL="redis://store:1/2")
    assert (changed.listen_peg, changed.store.url) == ("0.0.0.0:1", "redis://store:1/2")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('poll_milis = 5\nnetwork = "regtest"', "poll_milis"),
        ('network = "testnet"', "network"),
        ("poll_millis = 49", "poll_millis"),
        ("poll_millis = 60001", "poll_millis"),
        ("invoices_burst = 0", "invoices_burst"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path: Path, line: str, named: str) -> None:
    name = line.partition(" ")[0]
    lines = [each for each in EXAMPLE.read_text().splitlines() if not each.startswith(f"{name} ")]
    if line.count("\n"):
        lines = [each for each in lines if not each.startswith("network ")]
    path = tmp_path / "config.toml"
    path.write_text("\n".join([line, *lines]))
    with pytest.raises(ConfigError, match=named):
        load(path)


# ------------------------------------------------------------------ the store


@pytest.mark.parametrize(
    "settings",
    [{}, {"url": "redis://a", "embedded": Path("b")}, {"url": "redis://a", "lease_seconds": 2}],
    ids=["neither", "both", "short lease"],
)
def test_refuses_a_store_it_could_not_find_or_keep(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        StoreSettings(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [3, 600])
def test_takes_a_lease_at_its_limits(seconds: int) -> None:
    assert StoreSettings("redis://a", lease_seconds=seconds).lease_seconds == seconds


def test_an_embedded_store_is_found_where_it_listens_now(tmp_path: Path) -> None:
    settings = StoreSettings(embedded=tmp_path)
    with pytest.raises(Unavailable, match="port"):
        settings.find_url()
    for port in (7001, 7002):
        (tmp_path / PORT_FILE).write_text(f"{port}\n")
        assert settings.find_url() == f"redis://127.0.0.1:{port}/0"


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("redis://store:1/0", "redis://:p%40ss%2Fword@store:1/0"),
        ("rediss://peg@store:1", "rediss://peg:p%40ss%2Fword@store:1"),
    ],
)
def test_a_password_comes_from_its_own_file(tmp_path: Path, url: str, wanted: str) -> None:
    path = tmp_path / "password"
    path.touch(mode=0o600)
    path.write_text("p@ss/word\n")
    settings = StoreSettings(url, SecretFile(path))
    assert settings.find_url() == wanted
    assert "p@ss" not in repr(settings)


def test_a_password_in_the_address_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(EXAMPLE.read_text().replace("redis://127.0.0.1", "redis://:secret@127.0.0.1"))
    with pytest.raises(ConfigError, match="password"):
        load(path)
