"""An identity secret at rest: JSON, Argon2id, AES-256-GCM. Pods, coordinator and consensus node keep theirs so.

Whatever is wrong with the passphrase or the file gives one error after the full key derivation, so that neither the
answer nor its time helps a guesser (case J1).
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from smpc.curve import SecretKey, compute_xonly_key
from smpc.errors import ConfigError, InvalidInput, Refused
from smpc.host.private_file import FilePolicy, Passphrase, read_private_file, write_private_file
from smpc.protocol.encoding import encode_fields
from smpc.types import IdentityKey, Network

FORMAT: Final = "kaon-keystore"
VERSION: Final = 1
KIND_IDENTITY: Final = "identity"


@dataclass(frozen=True, slots=True)
class KdfParams:
    """Argon2id's cost: memory in KiB, passes over it, lanes (RFC 9106)."""

    memory_kib: int
    iterations: int
    lanes: int

    def __post_init__(self) -> None:
        # From above so that a changed file cannot eat the memory, from below so that no file is cheap to guess.
        bounded = 8 * 1024 <= self.memory_kib <= 1024 * 1024
        if not (bounded and 1 <= self.iterations <= 16 and 1 <= self.lanes <= 16):
            raise InvalidInput(
                f"Argon2id cost out of bounds: {self}", remedy="use 8 MiB to 1 GiB, up to 16 passes and 16 lanes"
            )


DEFAULT_KDF: Final = KdfParams(memory_kib=256 * 1024, iterations=4, lanes=4)
DEVNET_KDF: Final = KdfParams(memory_kib=32 * 1024, iterations=4, lanes=1)
"""For many pods on one machine: lifts a pod's peak by 32 MiB (design.md section 10)."""


@dataclass(frozen=True, slots=True)
class _Sealed:
    """A keystore file's content, read but not trusted."""

    version: int
    kind: str
    network: str
    public_key: bytes
    kdf: KdfParams
    salt: bytes
    nonce: bytes
    ciphertext: bytes

    def compute_aad(self) -> bytes:
        """Return what the ciphertext is bound to: everything beside it."""
        cost = (self.kdf.memory_kib, self.kdf.iterations, self.kdf.lanes)
        return encode_fields(
            FORMAT, self.version, self.kind, self.network, self.public_key, "argon2id", *cost, self.salt
        )


def create_keystore(
    path: Path, secret: SecretKey, passphrase: Passphrase, kdf: KdfParams = DEFAULT_KDF, *, network: Network
) -> IdentityKey:
    """Encrypt the identity secret into a new file (mode 0600) and return its public key; Conflict when it exists."""
    identity = IdentityKey(compute_xonly_key(secret))
    salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
    sealed = _Sealed(VERSION, KIND_IDENTITY, network, identity, kdf, salt, nonce, b"")
    key = _derive_key(passphrase, kdf, salt)
    ciphertext = AESGCM(key).encrypt(nonce, secret.to_secret_bytes(), sealed.compute_aad())
    write_private_file(path, _to_json(sealed, ciphertext))
    return identity


def open_keystore(
    path: Path, passphrase: Passphrase, *, network: Network, policy: FilePolicy = FilePolicy.REFUSE
) -> SecretKey:
    """Decrypt a keystore. ConfigError when the file is not private or of another network.

    Refused (KEYSTORE_LOCKED) for a wrong passphrase, a changed field, a flipped bit or a file that is no keystore,
    always after the time of one key derivation. Refused (KEYSTORE_MISMATCH) when the secret is not the stated key's.
    """
    sealed = _parse(read_private_file(path, policy=policy))
    key = _derive_key(passphrase, sealed.kdf, sealed.salt)
    try:
        secret = SecretKey.from_bytes(AESGCM(key).decrypt(sealed.nonce, sealed.ciphertext, sealed.compute_aad()))
    except (InvalidTag, InvalidInput, ValueError) as error:
        raise Refused(
            f"the keystore {path} cannot be opened with this passphrase",
            code="KEYSTORE_LOCKED",
            remedy="check the passphrase; if it is right the file is damaged: restore it from a backup",
        ) from error
    if compute_xonly_key(secret) != sealed.public_key:
        raise Refused(
            f"the keystore {path} holds another secret than its public key's",
            code="KEYSTORE_MISMATCH",
            remedy="do not use it; restore the right keystore from a backup",
        )
    if sealed.network != network:
        raise ConfigError(f"the keystore {path} belongs to {sealed.network}, this is {network}", remedy="use its own")
    return secret


def read_keystore_identity(path: Path, policy: FilePolicy = FilePolicy.REFUSE) -> IdentityKey:
    """Return the public key a keystore states, without its passphrase: for display, not proven."""
    return IdentityKey(_parse(read_private_file(path, policy=policy)).public_key)


def _derive_key(passphrase: Passphrase, kdf: KdfParams, salt: bytes) -> bytes:
    function = Argon2id(salt=salt, length=32, iterations=kdf.iterations, lanes=kdf.lanes, memory_cost=kdf.memory_kib)
    return function.derive(passphrase.reveal())


def _to_json(sealed: _Sealed, ciphertext: bytes) -> bytes:
    content = {
        "format": FORMAT,
        "version": sealed.version,
        "kind": sealed.kind,
        "network": sealed.network,
        "public_key": sealed.public_key.hex(),
        "kdf": {
            "name": "argon2id",
            "memory_kib": sealed.kdf.memory_kib,
            "iterations": sealed.kdf.iterations,
            "lanes": sealed.kdf.lanes,
            "salt": sealed.salt.hex(),
        },
        "cipher": {"name": "aes-256-gcm", "nonce": sealed.nonce.hex(), "ciphertext": ciphertext.hex()},
    }
    return json.dumps(content, indent=2).encode() + b"\n"


def _parse(data: bytes) -> _Sealed:
    """Read a keystore file; one that cannot be read becomes one that cannot be opened, at the same cost."""
    try:
        return _parse_strictly(json.loads(data))
    except (ValueError, KeyError, TypeError, InvalidInput, RecursionError):
        return _Sealed(VERSION, "", "", bytes(32), DEFAULT_KDF, bytes(16), bytes(12), bytes(48))


def _parse_strictly(content: dict[str, Any]) -> _Sealed:
    kdf, cipher = content["kdf"], content["cipher"]
    names = (content["format"], content["version"], content["kind"], kdf["name"], cipher["name"])
    if names != (FORMAT, VERSION, KIND_IDENTITY, "argon2id", "aes-256-gcm"):
        raise ValueError("not a keystore of this version")
    cost = [kdf["memory_kib"], kdf["iterations"], kdf["lanes"]]
    if any(type(value) is not int for value in cost):
        raise ValueError("the cost must be whole numbers")
    return _Sealed(
        version=VERSION,
        kind=KIND_IDENTITY,
        network=str(content["network"]),
        public_key=_parse_hex(content["public_key"], 32),
        kdf=KdfParams(*cost),
        salt=_parse_hex(kdf["salt"], 16),
        nonce=_parse_hex(cipher["nonce"], 12),
        ciphertext=_parse_hex(cipher["ciphertext"], 48),
    )


def _parse_hex(text: str, length: int) -> bytes:
    value = bytes.fromhex(text)
    if len(value) != length:
        raise ValueError(f"expected {length} bytes, got {len(value)}")
    return value
