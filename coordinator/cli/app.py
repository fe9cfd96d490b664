"""`peg`: every command, joined."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated, Final

import typer

from coordinator.cli import (
    account_commands,
    ceremony_commands,
    devnet_commands,
    emergency_commands,
    epoch_commands,
    evidence_commands,
    incident_commands,
    jail_commands,
    metrics_command,
    money_commands,
    operator_commands,
    pause_commands,
    pegin_commands,
    pegout_commands,
    pki_commands,
    rebuild_command,
    refund_commands,
    reserve_commands,
    sweep_commands,
    transfer_commands,
)
from coordinator.cli.command import CommonOptions, DataDirOption, JsonOption, ProfileOption, run_app
from coordinator.cli.output import print_json
from smpc.host.log import LogLevel, configure_logging

app: Final = typer.Typer(
    name="peg",
    help="Peg BTC in, move kBTC, peg BTC out; and run the bridge.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(devnet_commands.app, name="devnet", no_args_is_help=True)
app.add_typer(account_commands.app, name="account", no_args_is_help=True)
app.add_typer(pegin_commands.app, name="pegin", no_args_is_help=True)
refund_commands.add_commands(pegin_commands.app)
app.add_typer(pegout_commands.app, name="pegout", no_args_is_help=True)
money_commands.add_commands(app)
metrics_command.add_commands(app)
transfer_commands.add_commands(app)
app.add_typer(money_commands.epoch_app, name="epoch", no_args_is_help=True)
epoch_commands.add_commands(app, money_commands.epoch_app)
ceremony_commands.add_commands(money_commands.epoch_app)
app.add_typer(sweep_commands.app, name="sweep", no_args_is_help=True)
app.add_typer(reserve_commands.app, name="reserve", no_args_is_help=True)
operator_commands.add_commands(app)
pause_commands.add_commands(app)
rebuild_command.add_commands(app)
evidence_commands.add_commands(app)
app.add_typer(incident_commands.app, name="incident", no_args_is_help=True)
app.add_typer(emergency_commands.app, name="emergency", no_args_is_help=True)
app.add_typer(jail_commands.app, name="jail", no_args_is_help=True)
app.add_typer(operator_commands.coordinator_app, name="coordinator", no_args_is_help=True)
app.add_typer(pki_commands.app, name="pki", no_args_is_help=True)


@app.callback(invoke_without_command=True)
def begin(
    ctx: typer.Context,
    *,
    show_version: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False,
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
    profile: ProfileOption = None,
) -> None:
    """Peg BTC in, move kBTC, peg BTC out; and run the bridge."""
    ctx.obj = CommonOptions(as_json, data_dir, profile)
    if show_version:
        _print_version(as_json=as_json)
        raise typer.Exit


def _print_version(*, as_json: bool) -> None:
    number = version("peg-bridge")
    if as_json:
        print_json({"schema": "peg.version/1", "network": "", "data": {"version": number}})
    else:
        typer.echo(f"peg {number}")


def main() -> None:
    """Run the command line of this process."""
    # What libraries report goes to stderr, and only when it is an error: stdout is the answer's alone.
    configure_logging(LogLevel.ERROR)
    sys.exit(run_app(app, sys.argv[1:]))
