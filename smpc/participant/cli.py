"""`peg-participant`: creates a pod's identity, runs the pod, asks it how it is. Needs no coordinator.

peg-participant init --keystore keystore.json --passphrase-file passphrase [--network regtest] [--light]
peg-participant init --new-signing-log --config config.toml
peg-participant run --config config.toml [--with-parent]
peg-participant status --config config.toml
peg-participant recover --config config.toml [--epoch 7]

Written with argparse: a terminal toolkit would stay in the memory of every pod, some 15 MB.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from smpc.curve import SecretKey
from smpc.errors import BridgeError, ExitCode, InvalidInput
from smpc.host.config import load_config
from smpc.host.log import configure_logging
from smpc.host.private_file import Passphrase, write_private_file
from smpc.host.process import die_with_parent, harden_process
from smpc.participant.config import PodConfig
from smpc.participant.keystore import DEFAULT_KDF, DEVNET_KDF, create_keystore
from smpc.types import EpochNumber, Network

ENV_PREFIX: Final = "PEG_POD"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a BridgeError becomes one JSON object on stdout and its exit code."""
    given = _build_parser().parse_args(arguments)
    try:
        given.command(given)
    except BridgeError as error:
        _print_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)


def _build_parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="peg-participant",
        description="Run a participant's pod of the peg bridge.",
        epilog="examples:\n" + "\n".join(f"  {line}" for line in __doc__.splitlines() if line.startswith("peg-")),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="{init,run,status,recover}")
    _add_init(commands.add_parser("init", help="create this participant's identity key, or begin a new signing log"))
    run = commands.add_parser("run", help="run the pod until SIGTERM")
    run.add_argument("--config", type=Path, required=True, help="the pod's config.toml")
    run.add_argument("--with-parent", action="store_true", help="end when the process that started this one ends")
    run.set_defaults(command=_run)
    status = commands.add_parser("status", help="ask a running pod how it is; prints one JSON object")
    status.add_argument("--config", type=Path, required=True, help="the pod's config.toml")
    status.set_defaults(command=_show_status)
    recover = commands.add_parser("recover", help="restore the shares from the ledger; show that each signs")
    recover.add_argument("--config", type=Path, required=True, help="the pod's config.toml")
    recover.add_argument(
        "--epoch", type=int, action="append", default=[], help="only this epoch, retired ones too; repeat for more"
    )
    recover.set_defaults(command=_recover)
    return parser


def _add_init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keystore", type=Path, help="where the encrypted identity goes; must not exist yet")
    parser.add_argument(
        "--passphrase-file",
        type=Path,
        help="file with the passphrase; created with a random one when it does not exist",
    )
    parser.add_argument(
        "--network",
        type=Network,
        choices=list(Network),
        default=Network.REGTEST,
        help="the network this identity is for (%(default)s)",
    )
    parser.add_argument("--light", action="store_true", help="Argon2id with 32 MiB, for many pods on one machine")
    parser.add_argument(
        "--new-signing-log",
        action="store_true",
        help="begin an empty signing log where the old one is lost; needs --config and nothing else",
    )
    parser.add_argument("--config", type=Path, help="the pod's config.toml, for --new-signing-log")
    parser.set_defaults(command=_init)


def _init(given: argparse.Namespace) -> None:
    if given.new_signing_log:
        _begin_new_signing_log(given.config)
        return
    if given.keystore is None or given.passphrase_file is None:
        raise InvalidInput(
            "a new identity needs a keystore and a passphrase file", remedy="give --keystore and --passphrase-file"
        )
    if not given.passphrase_file.exists():
        write_private_file(given.passphrase_file, secrets.token_hex(24).encode())
    secret = SecretKey.generate(os.urandom(32))
    kdf = DEVNET_KDF if given.light else DEFAULT_KDF
    passphrase = Passphrase.from_file(given.passphrase_file)
    identity = create_keystore(given.keystore, secret, passphrase, kdf, network=given.network)
    _print("peg-participant.init", given.network, {"identity_key": identity.hex(), "keystore": str(given.keystore)})


def _begin_new_signing_log(config: Path | None) -> None:
    from smpc.participant.log_file import LOG_NAME, begin_new_signing_log

    if config is None:
        raise InvalidInput("a new signing log needs the pod's configuration", remedy="give --config")
    loaded = load_config(PodConfig, config, ENV_PREFIX)
    identity = begin_new_signing_log(loaded)
    content = {"identity_key": identity.hex(), "signing_log": str(loaded.data_dir / LOG_NAME)}
    _print("peg-participant.init", loaded.network, content)


def _run(given: argparse.Namespace) -> None:
    from smpc.participant.app import run_pod

    if given.with_parent:
        die_with_parent(os.getppid())
    harden_process(secrets=True)
    loaded = load_config(PodConfig, given.config, ENV_PREFIX)
    configure_logging(loaded.log_level, pod=given.config.resolve().parent.name)
    asyncio.run(run_pod(loaded))


def _show_status(given: argparse.Namespace) -> None:
    from smpc.participant.status_client import fetch_status

    loaded = load_config(PodConfig, given.config, ENV_PREFIX)
    _print("peg-participant.status", loaded.network, asyncio.run(fetch_status(loaded)))


def _recover(given: argparse.Namespace) -> None:
    """Show that nothing but the keystore is needed: a pod restores its shares itself when it starts."""
    from smpc.participant.recover_command import recover

    harden_process(secrets=True)
    loaded = load_config(PodConfig, given.config, ENV_PREFIX)
    configure_logging(loaded.log_level, pod=given.config.resolve().parent.name)
    answer = asyncio.run(recover(loaded, [EpochNumber(number) for number in given.epoch]))
    _print("peg-participant.recover", loaded.network, answer)


def _print(schema: str, network: Network, data: object) -> None:
    _write({"schema": f"{schema}/1", "network": network, "data": data})


def _print_error(error: BridgeError) -> None:
    content = {"code": error.code, "message": error.message, "rule": error.rule, "remedy": error.remedy}
    _write({"schema": "peg.error/1", "error": content})


def _write(content: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
