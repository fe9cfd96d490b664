"""`peg-participant`: creates a pod's identity, runs the pod, asks it how it is. Needs no coordinator."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer

from smpc.curve import SecretKey
from smpc.errors import BridgeError, ExitCode
from smpc.host.config import load_config
from smpc.host.log import configure_logging
from smpc.host.private_file import Passphrase, write_private_file
from smpc.host.process import die_with_parent, harden_process
from smpc.participant.config import PodConfig
from smpc.participant.keystore import DEFAULT_KDF, DEVNET_KDF, create_keystore
from smpc.types import EpochNumber, Network

ENV_PREFIX = "PEG_POD"

app = typer.Typer(name="peg-participant", help="Run a participant's pod of the peg bridge.", no_args_is_help=True)


@app.command()
def init(
    keystore: Annotated[Path, typer.Option(help="Where the encrypted identity goes; must not exist yet.")],
    passphrase_file: Annotated[
        Path, typer.Option(help="File with the passphrase; created with a random one when it does not exist.")
    ],
    network: Annotated[Network, typer.Option(help="The network this identity is for.")] = Network.REGTEST,
    light: Annotated[bool, typer.Option(help="Argon2id with 32 MiB, for many pods on one machine.")] = False,
) -> None:
    """Create this participant's identity key.

    Example: peg-participant init --keystore keystore.json --passphrase-file passphrase
    """
    if not passphrase_file.exists():
        write_private_file(passphrase_file, secrets.token_hex(24).encode())
    secret = SecretKey.generate(os.urandom(32))
    kdf = DEVNET_KDF if light else DEFAULT_KDF
    identity = create_keystore(keystore, secret, Passphrase.from_file(passphrase_file), kdf, network=network)
    _print("peg-participant.init", network, {"identity_key": identity.hex(), "keystore": str(keystore)})


@app.command()
def run(
    config: Annotated[Path, typer.Option(help="The pod's config.toml.")],
    with_parent: Annotated[bool, typer.Option(help="End when the process that started this one ends.")] = False,
) -> None:
    """Run the pod until SIGTERM.

    Example: peg-participant run --config config.toml
    """
    from smpc.participant.app import run_pod

    if with_parent:
        die_with_parent(os.getppid())
    harden_process(secrets=True)
    loaded = load_config(PodConfig, config, ENV_PREFIX)
    configure_logging(loaded.log_level, pod=config.resolve().parent.name)
    asyncio.run(run_pod(loaded))


@app.command()
def status(config: Annotated[Path, typer.Option(help="The pod's config.toml.")]) -> None:
    """Ask a running pod how it is; prints one JSON object.

    Example: peg-participant status --config config.toml
    """
    from smpc.participant.status_client import fetch_status

    loaded = load_config(PodConfig, config, ENV_PREFIX)
    answer = asyncio.run(fetch_status(loaded))
    _print("peg-participant.status", loaded.network, answer)


@app.command()
def recover(
    config: Annotated[Path, typer.Option(help="The pod's config.toml.")],
    epoch: Annotated[list[int] | None, typer.Option(help="Only these epochs; retired ones too.")] = None,
) -> None:
    """Restore the shares from identity key and ledger, and show that each signs; prints one JSON object.

    A pod that lost everything but its keystore needs no more than this: it restores them itself when it starts.

    Example: peg-participant recover --config config.toml --epoch 7
    """
    from smpc.participant.recover_command import recover as recover_all

    harden_process(secrets=True)
    loaded = load_config(PodConfig, config, ENV_PREFIX)
    configure_logging(loaded.log_level, pod=config.resolve().parent.name)
    answer = asyncio.run(recover_all(loaded, [EpochNumber(number) for number in epoch or ()]))
    _print("peg-participant.recover", loaded.network, answer)


def _print(schema: str, network: Network, data: object) -> None:
    typer.echo(json.dumps({"schema": f"{schema}/1", "network": network, "data": data}))


def main() -> None:
    """Run the command line; a BridgeError becomes one JSON object on stdout and its exit code."""
    try:
        app(standalone_mode=False)
    except BridgeError as error:
        _print_error(error)
        sys.exit(error.exit_code)
    except typer.TyperException as error:  # what the command line itself did not understand
        typer.echo(error.format_message(), err=True)
        sys.exit(ExitCode.USAGE)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)


def _print_error(error: BridgeError) -> None:
    content = {"code": error.code, "message": error.message, "rule": error.rule, "remedy": error.remedy}
    typer.echo(json.dumps({"schema": "peg.error/1", "error": content}))
