"""Account keys: one private file each, plain or encrypted, and never shown."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from coordinator.cli.account_book import AccountBook, parse_secret
from smpc.curve import SecretKey, compute_xonly_key
from smpc.errors import ConfigError, InvalidInput, NotFound, Refused
from smpc.host.private_file import Passphrase
from smpc.types import AccountKey, Network

SECRET = SecretKey.from_bytes(bytes(31) + b"\x07")
WIF_OF_SEVEN_ON_REGTEST = "cMahea7zqjxrtgAbB7LSGbcQUr1uX1ojuat9jZodMN87MbvFSpLf"


@pytest.fixture
def book(tmp_path: Path) -> AccountBook:
    return AccountBook(tmp_path / "accounts", Network.REGTEST)


def test_a_new_account_is_kept_in_a_file_that_only_its_owner_reads(book: AccountBook, tmp_path: Path) -> None:
    account = book.create("anna", None)

    (file,) = (tmp_path / "accounts").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert book.get("anna") == account
    assert AccountKey(compute_xonly_key(book.open("anna", None))) == account.key


def test_an_encrypted_account_opens_with_its_passphrase_alone(book: AccountBook) -> None:
    account = book.add("anna", SECRET, Passphrase(b"correct"))

    assert account.is_encrypted
    assert book.open("anna", Passphrase(b"correct")) == SECRET
    with pytest.raises(Refused, match="cannot be opened"):
        book.open("anna", Passphrase(b"wrong"))
    with pytest.raises(ConfigError, match="encrypted"):
        book.open("anna", None)


def test_no_key_is_ever_overwritten(book: AccountBook) -> None:
    first = book.create("anna", None)

    with pytest.raises(InvalidInput, match="exists"):
        book.add("anna", SECRET, None)
    assert book.get("anna") == first


@pytest.mark.parametrize("name", ["", "../anna", "Anna", "a b", "a" * 33, "anna.account", "-anna"])
def test_refuses_names_that_are_no_plain_file_names(book: AccountBook, name: str) -> None:
    with pytest.raises(InvalidInput, match="account name"):
        book.create(name, None)
    with pytest.raises(NotFound):
        book.get(name)


def test_lists_accounts_by_name(book: AccountBook) -> None:
    assert book.list_accounts() == ()
    for name in ("carla", "anna", "ben"):
        book.create(name, None)
    assert [account.name for account in book.list_accounts()] == ["anna", "ben", "carla"]


def test_an_account_is_named_or_given_as_a_key_on_the_curve(book: AccountBook) -> None:
    account = book.add("anna", SECRET, None)

    assert book.resolve("anna") == account.key
    assert book.resolve(account.key.hex().upper()) == account.key
    with pytest.raises(InvalidInput, match="not a point"):
        book.resolve("ff" * 32)
    with pytest.raises(NotFound):
        book.resolve("nobody")


def test_a_file_of_another_network_or_with_other_readers_is_refused(book: AccountBook, tmp_path: Path) -> None:
    book.create("anna", None)
    with pytest.raises(ConfigError, match="belongs to regtest"):
        AccountBook(tmp_path / "accounts", Network.MAINNET).get("anna")

    (tmp_path / "accounts" / "anna.account.json").chmod(0o644)
    with pytest.raises(ConfigError, match="others can touch it"):
        book.get("anna")


def test_a_damaged_file_is_named(book: AccountBook, tmp_path: Path) -> None:
    book.create("anna", None)
    path = tmp_path / "accounts" / "anna.account.json"
    path.write_text("{}")
    with pytest.raises(ConfigError, match="damaged"):
        book.get("anna")


def test_imports_hex_and_wif(book: AccountBook) -> None:
    assert parse_secret("00" * 31 + "07\n", Network.REGTEST) == SECRET
    assert parse_secret(WIF_OF_SEVEN_ON_REGTEST, Network.REGTEST) == SECRET
    assert book.add("anna", SECRET, None).key == AccountKey(compute_xonly_key(SECRET))


@pytest.mark.parametrize("text", ["", "07", "zz" * 32, WIF_OF_SEVEN_ON_REGTEST[:-1] + "B", "hello"])
def test_a_bad_private_key_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_secret(text, Network.REGTEST)
    assert not text or text not in refused.value.message


def test_a_private_key_of_another_network_is_refused() -> None:
    with pytest.raises(InvalidInput, match="mainnet"):
        parse_secret(WIF_OF_SEVEN_ON_REGTEST, Network.MAINNET)
