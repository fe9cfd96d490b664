"""The user's kBTC accounts: one key file each, mode 0600, plain or encrypted under a passphrase."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from smpc.bitcoin.base58 import decode_base58check
from smpc.curve import SecretKey, compute_xonly_key, is_valid_xonly
from smpc.errors import ConfigError, InvalidInput, NotFound
from smpc.host.keystore import DEFAULT_KDF, create_keystore, open_keystore, read_keystore_identity
from smpc.host.private_file import Passphrase, make_private_directory, read_private_file, write_private_file
from smpc.types import AccountKey, Network

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_HEX_KEY: Final = re.compile(r"[0-9a-fA-F]{64}")
_PLAIN: Final = ".account.json"
_SEALED: Final = ".keystore.json"
_WIF_PREFIXES: Final = {Network.MAINNET: 0x80, Network.SIGNET: 0xEF, Network.REGTEST: 0xEF}


@dataclass(frozen=True, slots=True)
class Account:
    """An account the user has a key file for."""

    name: str
    key: AccountKey
    is_encrypted: bool


class AccountBook:
    """The key files of one directory."""

    def __init__(self, directory: Path, network: Network) -> None:
        self._directory = directory
        self._network = network

    def create(self, name: str, passphrase: Passphrase | None) -> Account:
        """Make a new key; Conflict when the name is taken."""
        return self.add(name, SecretKey.generate(secrets.token_bytes(32)), passphrase)

    def add(self, name: str, secret: SecretKey, passphrase: Passphrase | None) -> Account:
        """Keep a key under a name; InvalidInput for a bad name, Conflict when it is taken."""
        if not _NAME.fullmatch(name):
            raise InvalidInput(f"{name[:40]!r} is no account name", remedy="use up to 32 of a-z, 0-9, - and _")
        make_private_directory(self._directory)
        self._refuse_taken(name)
        key = AccountKey(compute_xonly_key(secret))
        if passphrase is not None:
            create_keystore(self._sealed(name), secret, passphrase, DEFAULT_KDF, network=self._network)
        else:
            content = {"network": self._network, "account": key.hex(), "secret": secret.to_secret_bytes().hex()}
            write_private_file(self._plain(name), json.dumps(content, indent=2).encode() + b"\n")
        return Account(name, key, passphrase is not None)

    def list_accounts(self) -> tuple[Account, ...]:
        """Return the accounts by name."""
        if not self._directory.is_dir():
            return ()
        names = {
            path.name.removesuffix(ending)
            for ending in (_PLAIN, _SEALED)
            for path in self._directory.glob(f"*{ending}")
        }
        return tuple(self.get(name) for name in sorted(names))

    def get(self, name: str) -> Account:
        """Return an account by name; NotFound when there is none."""
        if _NAME.fullmatch(name) and self._sealed(name).exists():
            return Account(name, AccountKey(read_keystore_identity(self._sealed(name))), is_encrypted=True)
        if _NAME.fullmatch(name) and self._plain(name).exists():
            return Account(name, AccountKey(compute_xonly_key(self._read_plain(name))), is_encrypted=False)
        raise NotFound(f"there is no account {name[:80]!r}", remedy="make one: peg account new NAME")

    def resolve(self, text: str) -> AccountKey:
        """Return the key of an account given by name or as 64 hex digits; NotFound, or InvalidInput for a bad key."""
        if not _HEX_KEY.fullmatch(text):
            return self.get(text).key
        key = bytes.fromhex(text)
        if not is_valid_xonly(key):
            raise InvalidInput(f"{text} is no account: not a point of secp256k1", remedy="check every digit")
        return AccountKey(key)

    def open(self, name: str, passphrase: Passphrase | None) -> SecretKey:
        """Return an account's secret; ConfigError when it is encrypted and no passphrase is given."""
        account = self.get(name)
        if not account.is_encrypted:
            return self._read_plain(name)
        if passphrase is None:
            raise ConfigError(f"the account {name} is encrypted", remedy="name its --passphrase-file")
        return open_keystore(self._sealed(name), passphrase, network=self._network)

    def _read_plain(self, name: str) -> SecretKey:
        path = self._plain(name)
        data = read_private_file(path)
        try:
            content = json.loads(data)
            stated, secret = content["network"], SecretKey.from_bytes(bytes.fromhex(content["secret"]))
        except (ValueError, KeyError, TypeError, InvalidInput) as error:
            raise ConfigError(f"{path} is damaged", remedy="restore it from a backup") from error
        if stated != self._network:
            raise ConfigError(f"{path} belongs to {stated}, this is {self._network}", remedy="use its own profile")
        return secret

    def _refuse_taken(self, name: str) -> None:
        for path in (self._plain(name), self._sealed(name)):
            if path.exists():
                raise InvalidInput(f"the account {name} exists: {path}", remedy="choose another name")

    def _plain(self, name: str) -> Path:
        return self._directory / f"{name}{_PLAIN}"

    def _sealed(self, name: str) -> Path:
        return self._directory / f"{name}{_SEALED}"


def parse_secret(text: str, network: Network) -> SecretKey:
    """Read a private key, 64 hex digits or WIF of the network; InvalidInput never repeats what was given."""
    stripped = text.strip()
    if _HEX_KEY.fullmatch(stripped):
        return SecretKey.from_bytes(bytes.fromhex(stripped))
    payload = _decode_wif(stripped)
    if len(payload) == 34 and payload[0] == _WIF_PREFIXES[network] and payload[33] == 1:
        return SecretKey.from_bytes(payload[1:33])
    raise InvalidInput(
        f"this is no private key of {network}", remedy="give 64 hex digits, or the WIF of a compressed key"
    )


def _decode_wif(text: str) -> bytes:
    try:
        return decode_base58check(text)
    except InvalidInput:
        return b""
