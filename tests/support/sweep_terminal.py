"""An operator's command line before a coordinator in the same process: the real service over mutual TLS."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.core
from typer.main import get_command

from coordinator.cli import ceremony_commands, pause_commands, reserve_commands, sweep_commands
from coordinator.cli.app import app
from coordinator.cli.desk import Desk
from coordinator.cli.output import ERROR_SCHEMA, Output, report_error
from smpc.errors import BridgeError, ExitCode
from smpc.host.peer import PeerIdentity, PeerRole
from smpc.host.pki import TlsFiles
from smpc.host.private_file import write_private_file
from smpc.types import IdentityKey, Network
from tests.support.groups import make_xonly
from tests.support.sweep_stand import SweepStand

BODIES = {
    "epoch ceremonies": ceremony_commands.show_ceremonies,
    "sweep plan": sweep_commands.plan,
    "sweep run": sweep_commands.run,
    "sweep status": sweep_commands.show_status,
    "sweep watch": sweep_commands.watch,
    "reserve show": reserve_commands.show_reserve,
    "pause": pause_commands.pause,
    "resume": pause_commands.resume,
}


def parse_words(words: list[str]) -> tuple[str, dict[str, Any]]:
    """Return a command's name and its options, as `peg` itself parses them."""
    found, name = get_command(app), list[str]()
    while isinstance(found, typer.core.TyperGroup):
        name.append(words[len(name)])
        found = found.commands[name[-1]]
    parsed = found.make_context(name[-1], words[len(name) :]).params
    common = {"as_json", "data_dir", "profile"}
    return " ".join(name), {key: value for key, value in parsed.items() if key not in common}


def identity_of(role: PeerRole) -> PeerIdentity:
    """Return the only one of its role."""
    return PeerIdentity(Network.REGTEST, role, IdentityKey(make_xonly(f"tls {role}")))


@dataclass(slots=True)
class Terminal:
    """An operator at his command line, and the coordinator he talks to."""

    stand: SweepStand
    directory: Path
    endpoint: str
    operator: TlsFiles
    capsys: pytest.CaptureFixture[str]

    @property
    def profile(self) -> Path:
        """Whom the command line talks to."""
        return self.directory / "profile.toml"

    async def run(self, *words: str) -> tuple[ExitCode, str]:
        """Run a command as people do; return exit code and stdout.

        The console's own words are parsed, and its body runs here: gRPC serves one event loop of a process well.
        """
        as_json = "--json" in words
        self.capsys.readouterr()
        name, options = parse_words([word for word in words if word != "--json"])
        output = Output(name, "", as_json=as_json)
        try:
            async with Desk(self.directory, self.profile, output) as desk:
                answer = await BODIES[name](desk, **options)
        except BridgeError as error:
            report_error(error, as_json=as_json)
            return error.exit_code, self.capsys.readouterr().out
        if answer is not None:
            output.show(answer)
        return ExitCode.DONE if answer is None else answer.exit_code, self.capsys.readouterr().out

    async def ask(self, *words: str) -> tuple[ExitCode, dict[str, Any]]:
        """Run a command with --json; return exit code and the last document."""
        code, out = await self.run(*words, "--json")
        document: dict[str, Any] = json.loads(out.splitlines()[-1])
        return code, document

    async def data(self, *words: str) -> dict[str, Any]:
        """Run a command that must succeed; return its data."""
        code, document = await self.ask(*words)
        assert code is ExitCode.DONE, document
        assert document["network"] == "regtest"
        data: dict[str, Any] = document["data"]
        return data

    async def error(self, *words: str) -> tuple[ExitCode, dict[str, str]]:
        """Run a command that must fail; return exit code and the error, which always says what to do."""
        code, document = await self.ask(*words)
        assert document["schema"] == ERROR_SCHEMA
        error: dict[str, str] = document["error"]
        assert error["message"]
        assert error["remedy"]
        return code, error


def write_profile(path: Path, endpoint: str, coordinator: PeerIdentity, files: TlsFiles) -> None:
    """Write a profile in which the coordinator is everything there is."""
    key = coordinator.identity_key.hex()
    tls = f'ca = "{files.ca}"\ncert = "{files.cert}"\nkey = "{files.key}"\n'
    text = f'network = "regtest"\naccounts = "{path.parent}"\ngenesis = "{path.parent}/genesis.json"\n'
    for name in ("peg", "consensus", "operator"):
        text += f'[{name}]\nendpoint = "{endpoint}"\nidentity = "{key}"\n'
    write_private_file(path, f"{text}[tls]\n{tls}[operator_tls]\n{tls}".encode())
