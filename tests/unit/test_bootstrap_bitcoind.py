"""Which bitcoind is taken, and what is said when there is none."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from coordinator.devnet.bitcoind_binary import find_bitcoind, parse_version, prefix_argv
from deploy.node.debian_bitcoind import read_manifest
from smpc.errors import ConfigError


def make_program(path: Path, answer: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return path


def make_prefix(root: Path, answer: str) -> Path:
    """Lay out an unpacked prefix whose loader is a script that skips its option and runs the program."""
    make_program(root / "usr" / "bin" / "bitcoind", answer)
    make_program(root / "usr" / "bin" / "bitcoin-cli", answer)
    loader = root / "usr" / "lib" / "x86_64-linux-gnu" / "ld-linux-x86-64.so.2"
    make_program(loader, "").write_text('#!/bin/sh\nshift 2\nexec "$@"\n')
    return root


def test_prefers_the_one_named_over_path_and_prefix(tmp_path: Path) -> None:
    named = make_program(tmp_path / "named" / "node", "Bitcoin Core daemon version v30.1.0")
    make_program(tmp_path / "path" / "bitcoind", "Bitcoin Core daemon version v29.0.0")
    prefix = make_prefix(tmp_path / "prefix", "Bitcoin Knots daemon version v28.1.0")

    found = find_bitcoind({"BITCOIND": str(named), "PATH": str(tmp_path / "path")}, prefix)

    assert (found.source, found.version, found.argv) == ("BITCOIND", 300100, (str(named),))
    assert found.sha256 == hashlib.sha256(named.read_bytes()).hexdigest()


def test_prefers_path_over_prefix(tmp_path: Path) -> None:
    on_path = make_program(tmp_path / "path" / "bitcoind", "Bitcoin Core daemon version v29.0.0")
    cli = make_program(tmp_path / "path" / "bitcoin-cli", "")
    prefix = make_prefix(tmp_path / "prefix", "Bitcoin Knots daemon version v28.1.0")

    found = find_bitcoind({"PATH": str(tmp_path / "path")}, prefix)

    assert (found.source, found.argv, found.cli_argv) == ("PATH", (str(on_path),), (str(cli),))


def test_runs_the_prefix_through_its_own_loader(tmp_path: Path) -> None:
    prefix = make_prefix(tmp_path / "prefix", "Bitcoin Knots daemon version v29.4.3.knots20260508")

    found = find_bitcoind({"PATH": ""}, prefix)

    assert found.source == "prefix"
    assert found.version == 290403
    assert found.argv == prefix_argv(prefix, "bitcoind")
    assert found.cli_argv == prefix_argv(prefix, "bitcoin-cli")


def test_passes_over_one_on_path_that_is_too_old(tmp_path: Path) -> None:
    make_program(tmp_path / "path" / "bitcoind", "Bitcoin Core daemon version v27.99.99")
    prefix = make_prefix(tmp_path / "prefix", "Bitcoin Core daemon version v28.0.0")

    assert find_bitcoind({"PATH": str(tmp_path / "path")}, prefix).source == "prefix"


def test_never_passes_over_one_that_was_named(tmp_path: Path) -> None:
    named = make_program(tmp_path / "node", "Bitcoin Core daemon version v27.99.99")
    prefix = make_prefix(tmp_path / "prefix", "Bitcoin Core daemon version v28.0.0")

    with pytest.raises(ConfigError, match="older than 280000"):
        find_bitcoind({"BITCOIND": str(named), "PATH": ""}, prefix)


@pytest.mark.parametrize("named", ["/nowhere/bitcoind", "no-such-program-here"])
def test_refuses_a_name_that_is_no_program(tmp_path: Path, named: str) -> None:
    with pytest.raises(ConfigError, match="no executable file"):
        find_bitcoind({"BITCOIND": named, "PATH": ""}, tmp_path)


def test_refuses_a_program_that_is_no_bitcoind(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a bitcoind"):
        find_bitcoind({"BITCOIND": str(make_program(tmp_path / "node", "hello"))}, tmp_path)


def test_says_what_to_do_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as missing:
        find_bitcoind({"PATH": ""}, tmp_path)

    assert "BITCOIND" in missing.value.remedy
    assert "install_bitcoind" in missing.value.remedy


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        ("Bitcoin Core daemon version v28.0.0", 280000),
        ("Bitcoin Core version v31.2.0-rc1", 310200),
        ("Bitcoin Knots daemon version v29.4", 290400),
        ("Bitcoin Knots daemon version v29.4.3.knots20260508", 290403),
    ],
)
def test_reads_the_version_of_every_flavour(answer: str, version: int) -> None:
    assert parse_version(answer) == version


def test_takes_no_prefix_for_whole_whose_binary_changed(tmp_path: Path) -> None:
    prefix = make_prefix(tmp_path, "Bitcoin Knots daemon version v29.4.0")
    binary = prefix / "usr" / "bin" / "bitcoind"
    manifest = prefix / "manifest.json"
    manifest.write_text(f'{{"sha256": "{hashlib.sha256(binary.read_bytes()).hexdigest()}"}}')
    assert read_manifest(prefix) is not None

    binary.write_bytes(binary.read_bytes() + b"\n")

    assert read_manifest(prefix) is None


def test_takes_no_prefix_for_whole_that_has_no_manifest(tmp_path: Path) -> None:
    assert read_manifest(make_prefix(tmp_path, "Bitcoin Knots daemon version v29.4.0")) is None
