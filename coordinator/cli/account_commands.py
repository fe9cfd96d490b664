"""`peg account`: the user's kBTC account keys."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli.account_book import Account, parse_secret
from coordinator.cli.command import command
from coordinator.cli.desk import Desk
from coordinator.cli.output import Answer, build_table
from smpc.host.private_file import Passphrase, read_private_file

app = typer.Typer(help="kBTC account keys, in files of mode 0600, encrypted where you give a passphrase.")

Name = Annotated[str, typer.Argument(help="The account's name on this machine.")]
PassphraseOption = Annotated[
    Path | None,
    typer.Option("--passphrase-file", envvar="PEG_PASSPHRASE_FILE", help="File with the account's passphrase."),
]


@command(
    app,
    "new",
    schema="account new",
    examples=("peg account new alice", "peg account new alice --passphrase-file secret.txt"),
)
async def create_account(desk: Desk, name: Name, passphrase_file: PassphraseOption = None) -> Answer:
    """Make a new account key."""
    return _answer(desk.accounts.create(name, read_passphrase(passphrase_file)))


@command(app, "import", schema="account import", examples=("peg account import alice --secret-file key.txt",))
async def import_account(
    desk: Desk,
    name: Name,
    secret_file: Annotated[
        Path | None, typer.Option(help="File with 64 hex digits or a WIF, mode 0600.", show_default="standard input")
    ] = None,
    passphrase_file: PassphraseOption = None,
) -> Answer:
    """Take over a private key that you have: the account's key is its x-only public key."""
    text = sys.stdin.readline() if secret_file is None else read_private_file(secret_file).decode("ascii", "replace")
    secret = parse_secret(text, desk.profile.network)
    return _answer(desk.accounts.add(name, secret, read_passphrase(passphrase_file)))


@command(app, "list", schema="account list", examples=("peg account list --json",))
async def list_accounts(desk: Desk) -> Answer:
    """List the accounts of this machine."""
    accounts = desk.accounts.list_accounts()
    table = build_table("name", "account", "encrypted")
    for account in accounts:
        table.add_row(account.name, account.key.hex(), "yes" if account.is_encrypted else "no")
    return Answer({"accounts": [_to_plain(account) for account in accounts]}, table)


def read_passphrase(path: Path | None) -> Passphrase | None:
    """Return the passphrase of a file, None where none is named."""
    return None if path is None else Passphrase.from_file(path)


def _answer(account: Account) -> Answer:
    return Answer(_to_plain(account), f"{account.name}  {account.key.hex()}")


def _to_plain(account: Account) -> dict[str, object]:
    return {"name": account.name, "account": account.key.hex(), "encrypted": account.is_encrypted}
