"""`peg-participant`: identities are created once, a lost signing log begins anew by the operator's word alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from smpc.errors import ExitCode
from smpc.participant.cli import main

CONFIG = """
network = "regtest"
data_dir = "data"
genesis = "genesis.json"
keystore = "keystore.json"
passphrase = "passphrase"
listen = "127.0.0.1:1"
consensus = "127.0.0.1:2"
[tls]
ca = "ca.crt"
cert = "tls.crt"
key = "tls.key"
[bitcoind]
url = "http://127.0.0.1:3"
cookie = "cookie"
"""


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Give a directory with a configuration and a new identity."""
    (tmp_path / "config.toml").write_text(CONFIG)
    main(["init", "--keystore", str(tmp_path / "keystore.json"), *passphrase(tmp_path), "--light"])
    assert len(json.loads(capsys.readouterr().out)["data"]["identity_key"]) == 64
    return tmp_path


def passphrase(home: Path) -> list[str]:
    return ["--passphrase-file", str(home / "passphrase")]


def begin_new_log(home: Path) -> None:
    main(["init", "--new-signing-log", "--config", str(home / "config.toml")])


def test_an_identity_is_never_written_over(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (home / "keystore.json").read_bytes()
    with pytest.raises(SystemExit) as ended:
        main(["init", "--keystore", str(home / "keystore.json"), *passphrase(home), "--light"])
    assert ended.value.code != ExitCode.DONE
    assert json.loads(capsys.readouterr().out)["schema"] == "peg.error/1"
    assert (home / "keystore.json").read_bytes() == before


def test_a_new_log_begins_where_there_is_none_and_never_in_the_place_of_one(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin_new_log(home)
    assert json.loads(capsys.readouterr().out)["data"]["signing_log"] == str(home / "data" / "log.sqlite")
    with pytest.raises(SystemExit) as ended:
        begin_new_log(home)
    assert ended.value.code == ExitCode.REFUSED
    assert "move it away" in json.loads(capsys.readouterr().out)["error"]["remedy"]


def test_what_an_identity_needs_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["init"])
    assert ended.value.code == ExitCode.USAGE
    assert "--keystore" in json.loads(capsys.readouterr().out)["error"]["remedy"]


@pytest.mark.parametrize("arguments", [["--help"], ["init", "--help"], ["run", "--help"], ["status", "--help"]])
def test_every_command_explains_itself(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert "usage: peg-participant" in capsys.readouterr().out


def test_a_pod_carries_no_terminal_toolkit() -> None:
    code = "import sys, smpc.participant.cli, smpc.participant.app; print('typer' in sys.modules)"
    root = Path(__file__).parents[2]
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={"PYTHONPATH": f"{root}:{root / 'proto'}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "False\n"
