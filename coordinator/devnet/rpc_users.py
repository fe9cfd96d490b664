"""bitcoind users for the processes of a devnet: a random password each, of which the node knows a salted hash only."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path

from smpc.host.private_file import read_private_file, write_private_file


@dataclass(frozen=True, slots=True)
class RpcUser:
    """A user of the node's RPC and the file with his password."""

    name: str
    password: Path

    def create(self) -> None:
        """Draw the password and write it, mode 0600."""
        write_private_file(self.password, f"{secrets.token_urlsafe(24)}\n".encode())

    def build_option(self) -> str:
        """Return the node's option that admits this user: `-rpcauth=name:salt$HMAC-SHA256(salt, password)`."""
        password = read_private_file(self.password).strip()
        salt = secrets.token_hex(16)
        return f"-rpcauth={self.name}:{salt}${hmac.digest(salt.encode(), password, 'sha256').hex()}"
