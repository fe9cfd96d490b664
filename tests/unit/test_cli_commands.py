"""What every command has: help with examples, one document under --json, an exit code that says what happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coordinator.cli.app import app
from coordinator.cli.command import run_app
from coordinator.cli.output import ERROR_SCHEMA
from smpc.errors import ExitCode

COMMANDS = [
    "account import",
    "account list",
    "account new",
    "balance",
    "coordinator run",
    "devnet down",
    "devnet faucet",
    "devnet kill",
    "devnet logs",
    "devnet mine",
    "devnet start",
    "devnet status",
    "devnet stop",
    "devnet up",
    "doctor",
    "emergency coverage",
    "emergency execute",
    "emergency show",
    "emergency status",
    "epoch ceremonies",
    "epoch show",
    "epoch verify",
    "explain",
    "incident list",
    "incident report",
    "incident show",
    "jail list",
    "metrics",
    "notarised",
    "pause",
    "pegin create",
    "pegin list",
    "pegin refund",
    "pegin status",
    "pegin watch",
    "pegout bump",
    "pegout cancel",
    "pegout list",
    "pegout request",
    "pegout status",
    "pegout watch",
    "pki init",
    "pki issue",
    "rebuild",
    "reserve pay-in",
    "reserve show",
    "resume",
    "send",
    "supply",
    "sweep plan",
    "sweep run",
    "sweep status",
    "sweep watch",
    "transfer",
    "verify-evidence",
]


class Terminal:
    """Runs `peg` in this process, in a directory of its own."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self._capsys = capsys

    def run(self, *words: str) -> tuple[ExitCode, str, str]:
        """Return exit code, stdout, stderr."""
        self._capsys.readouterr()
        code = run_app(app, words)
        heard = self._capsys.readouterr()
        return code, heard.out, heard.err

    def ask(self, *words: str) -> tuple[ExitCode, dict[str, Any]]:
        """Run with --json and return the exit code and the one document."""
        code, out, _ = self.run(*words, "--json", "--data-dir", str(self.directory))
        (line,) = out.splitlines()
        document: dict[str, Any] = json.loads(line)
        return code, document


@pytest.fixture
def terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name in ("PEG_DATA_DIR", "PEG_PROFILE", "PEG_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return Terminal(tmp_path, capsys)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(terminal: Terminal, command: str) -> None:
    code, out, _ = terminal.run(*command.split(), "--help")

    assert code is ExitCode.DONE
    assert f"peg {command}" in out.partition("Examples:")[2]
    assert "--json" in out
    assert "PEG_DATA_DIR" in out


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("devnet", "nonsense"),
        ("devnet", "mine", "many"),
        ("devnet", "up", "--mine-every", "0"),
        ("devnet", "up", "--pods", "3"),
        ("devnet", "faucet", "not-an-address"),
        ("devnet", "faucet", "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", "0"),
        ("devnet", "faucet", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "1"),
        ("pegin", "status", "12"),
        ("pegout", "status", "\uff11" * 64),
        ("pegin", "create"),
        ("epoch", "show", "-1"),
        ("epoch", "show", "18446744073709551616"),
        ("epoch", "verify", "4294967296"),
        ("sweep",),
        ("sweep", "run"),
        ("sweep", "run", "one"),
        ("sweep", "run", "--", "-1"),
        ("sweep", "run", "4294967296"),
        ("sweep", "run", "0", "--rate", "0"),
        ("sweep", "run", "0", "--rate", "-1"),
        ("sweep", "run", "0", "--rate", "2.0001"),
        ("sweep", "plan", "--rate", "nan"),
        ("sweep", "plan", "18446744073709551616"),
        ("sweep", "status", "--", "-1"),
        ("sweep", "watch"),
        ("sweep", "watch", "4294967296"),
        ("reserve", "pay-in", "--from", "alice"),
        ("reserve", "pay-in", "--from", "alice", "--amount", "0"),
        ("reserve", "pay-in", "--from", "alice", "--amount", "-1"),
        ("pause",),
        ("incident", "show", "12"),
        ("verify-evidence",),
        ("verify-evidence", "no-such-file"),
        ("resume", "sweep", "pegin"),
        ("pki", "issue", "--authority", "x", "--role", "participant", "--identity", "00", "--out", "y"),
    ],
)
def test_bad_usage_is_one_error_document_and_exit_code_two(terminal: Terminal, words: tuple[str, ...]) -> None:
    code, document = terminal.ask(*words)

    assert code is ExitCode.USAGE
    assert document["schema"] == ERROR_SCHEMA
    assert set(document["error"]) == {"code", "message", "rule", "remedy"}
    assert document["error"]["message"]


@pytest.mark.parametrize("amount", ["0", "-1", "1.5sat", "1e18", "NaN", "9223372036854775808", "\uff101"])
@pytest.mark.parametrize(
    "words",
    [
        ("pegin", "create", "--wallet", "nobody", "--amount"),
        ("pegout", "request", "--from", "x", "--to", "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", "--amount"),
        ("send", "--from", "x", "--to", "x", "--amount"),
    ],
)
def test_an_amount_that_is_none_is_refused_before_anything_else(
    terminal: Terminal, words: tuple[str, ...], amount: str
) -> None:
    code, document = terminal.ask(*words, amount)
    assert (code, document["error"]["code"]) == (ExitCode.USAGE, "INVALID_ARGUMENT")


def test_without_a_profile_every_command_says_how_to_get_one(terminal: Terminal) -> None:
    code, document = terminal.ask("supply")

    assert code is ExitCode.USAGE
    assert document["error"]["code"] == "CONFIG"
    assert "peg devnet up" in document["error"]["remedy"]


def test_a_devnet_that_does_not_exist_is_not_found(terminal: Terminal) -> None:
    code, document = terminal.ask("devnet", "status")

    assert code is ExitCode.NOT_FOUND
    assert document["error"]["code"] == "NOT_FOUND"


def test_a_devnet_that_does_not_run_is_down_already(terminal: Terminal) -> None:
    code, document = terminal.ask("devnet", "down")
    assert (code, document["schema"]) == (ExitCode.DONE, "peg.devnet.down/1")


def test_errors_for_a_person_go_to_stderr(terminal: Terminal) -> None:
    code, out, err = terminal.run("devnet", "status", "--data-dir", str(terminal.directory))

    assert (code, out) == (ExitCode.NOT_FOUND, "")
    assert "there is no devnet" in err
    assert "peg devnet up" in err


def test_common_options_may_stand_before_the_command(terminal: Terminal) -> None:
    code, out, _ = terminal.run("--json", "--data-dir", str(terminal.directory), "devnet", "status")
    assert code is ExitCode.NOT_FOUND
    assert json.loads(out)["schema"] == ERROR_SCHEMA


def test_the_version_is_that_of_the_package(terminal: Terminal) -> None:
    code, out, _ = terminal.run("--version")
    assert code is ExitCode.DONE
    assert out.startswith("peg 0.")


def test_a_certificate_authority_issues_what_its_network_needs(terminal: Terminal) -> None:
    pki, pod = str(terminal.directory / "pki"), str(terminal.directory / "pod")
    key = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"

    code, _ = terminal.ask("pki", "init", "--directory", pki)
    assert code is ExitCode.DONE
    code, document = terminal.ask(
        "pki", "issue", "--authority", pki, "--role", "participant", "--identity", key, "--out", pod
    )
    assert code is ExitCode.DONE
    assert document["data"]["uri"] == f"kaon://regtest/participant/{key}"
    code, document = terminal.ask("pki", "init", "--directory", pki)
    assert (code, document["error"]["code"]) == (ExitCode.REFUSED, "CONFLICT")
