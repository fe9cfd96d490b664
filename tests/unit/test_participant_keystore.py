"""The identity keystore: opens for the right passphrase, and tells nothing to anyone else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smpc.curve import SecretKey, compute_plain_key, compute_xonly_key
from smpc.errors import ConfigError, Conflict, InvalidInput, Refused
from smpc.host.private_file import Passphrase, write_private_file
from smpc.participant.keystore import (
    DEFAULT_KDF,
    DEVNET_KDF,
    KdfParams,
    create_keystore,
    derive_host_secret,
    open_keystore,
    read_keystore_identity,
)
from smpc.protocol.encoding import encode_fields
from smpc.types import Attempt, EpochNumber, IdentityKey, Network, Role

SECRET = SecretKey.from_bytes(bytes(31) + b"\x07")
OTHER = SecretKey.from_bytes(bytes(31) + b"\x08")
CHEAP = KdfParams(memory_kib=8 * 1024, iterations=1, lanes=1)
RIGHT = Passphrase(b"correct horse")


def make(tmp_path: Path, kdf: KdfParams = CHEAP) -> Path:
    path = tmp_path / "keystore.json"
    create_keystore(path, SECRET, RIGHT, kdf, network=Network.REGTEST)
    return path


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def refuse(path: Path, passphrase: Passphrase = RIGHT) -> Refused:
    with pytest.raises(Refused) as refused:
        open_keystore(path, passphrase, network=Network.REGTEST)
    return refused.value


def test_opens_with_its_passphrase_and_shows_only_its_public_key(tmp_path: Path) -> None:
    path = make(tmp_path)
    assert open_keystore(path, RIGHT, network=Network.REGTEST) == SECRET
    assert read_keystore_identity(path) == IdentityKey(compute_xonly_key(SECRET))
    assert path.stat().st_mode & 0o777 == 0o600
    assert SECRET.to_secret_bytes().hex() not in path.read_text()
    assert SECRET.to_secret_bytes() not in path.read_bytes()


def test_the_devnets_key_derivation_works(tmp_path: Path) -> None:
    assert open_keystore(make(tmp_path, DEVNET_KDF), RIGHT, network=Network.REGTEST) == SECRET
    assert DEFAULT_KDF.memory_kib == 256 * 1024


def test_never_overwrites_a_keystore(tmp_path: Path) -> None:
    path = make(tmp_path)
    with pytest.raises(Conflict):
        create_keystore(path, OTHER, RIGHT, CHEAP, network=Network.REGTEST)
    assert open_keystore(path, RIGHT, network=Network.REGTEST) == SECRET


def flip_ciphertext(content: dict[str, Any]) -> None:
    data = bytearray.fromhex(content["cipher"]["ciphertext"])
    data[5] ^= 1
    content["cipher"]["ciphertext"] = data.hex()


TAMPERINGS: dict[str, Callable[[dict[str, Any]], object]] = {
    "one ciphertext bit": flip_ciphertext,
    "another public key": lambda c: c.update(public_key=compute_xonly_key(OTHER).hex()),
    "another network": lambda c: c.update(network="mainnet"),
    "another kind": lambda c: c.update(kind="share"),
    "another version": lambda c: c.update(version=2),
    "another salt": lambda c: c["kdf"].update(salt="00" * 16),
    "more iterations": lambda c: c["kdf"].update(iterations=2),
    "less memory than allowed": lambda c: c["kdf"].update(memory_kib=8),
    "all the machine's memory": lambda c: c["kdf"].update(memory_kib=2**40),
    "a short nonce": lambda c: c["cipher"].update(nonce="00"),
    "no cipher": lambda c: c.pop("cipher"),
    "a lone surrogate as network": lambda c: c.update(network="\ud800"),
    "text for a number": lambda c: c["kdf"].update(lanes="1"),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_every_change_and_a_wrong_passphrase_give_the_same_error(tmp_path: Path, name: str) -> None:
    path = make(tmp_path)
    wrong = refuse(path, Passphrase(b"wrong"))
    change(path, TAMPERINGS[name])
    tampered = refuse(path)
    assert (tampered.message, tampered.code, tampered.remedy) == (wrong.message, wrong.code, wrong.remedy)
    assert tampered.code == "KEYSTORE_LOCKED"


def outcome_of(path: Path) -> str:
    try:
        return "opened" if open_keystore(path, RIGHT, network=Network.REGTEST) == SECRET else "another secret"
    except Refused as refused:
        return refused.code


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_flipped_bit_opens_another_secret(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "keystore.json"
    path.unlink(missing_ok=True)
    make(tmp_path)
    content = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, len(content) * 8 - 1))
    content[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(content)
    assert outcome_of(path) in {"KEYSTORE_LOCKED", "opened"}  # opened: white space, or a hex digit's case


@pytest.mark.parametrize("content", [b"", b"[]", b"[" * 50_000, b"\xff\xfe"])
def test_a_file_that_is_no_keystore_gives_the_same_error(tmp_path: Path, content: bytes) -> None:
    path = make(tmp_path)
    path.write_bytes(content)
    assert refuse(path).code == "KEYSTORE_LOCKED"


def test_a_refusal_takes_as_long_as_an_opening(tmp_path: Path) -> None:
    slow = KdfParams(memory_kib=64 * 1024, iterations=3, lanes=1)
    path = make(tmp_path, slow)
    opening = min(_time(lambda: open_keystore(path, RIGHT, network=Network.REGTEST)) for _ in range(3))
    refusing = min(_time(lambda: refuse(path, Passphrase(b"wrong"))) for _ in range(3))
    change(path, flip_ciphertext)
    flipped = min(_time(lambda: refuse(path)) for _ in range(3))
    assert min(refusing, flipped) > opening / 2


def seal(secret: SecretKey, stated: SecretKey) -> bytes:
    """Build a keystore from the format's description alone, as whoever knows the passphrase could."""
    salt, nonce, identity = bytes(16), bytes(12), compute_xonly_key(stated)
    key = Argon2id(salt=salt, length=32, iterations=1, lanes=1, memory_cost=8192).derive(b"correct horse")
    aad = encode_fields("kaon-keystore", 1, "identity", "regtest", identity, "argon2id", 8192, 1, 1, salt)
    content = {
        "format": "kaon-keystore",
        "version": 1,
        "kind": "identity",
        "network": "regtest",
        "public_key": identity.hex(),
        "kdf": {"name": "argon2id", "memory_kib": 8192, "iterations": 1, "lanes": 1, "salt": salt.hex()},
        "cipher": {
            "name": "aes-256-gcm",
            "nonce": nonce.hex(),
            "ciphertext": AESGCM(key).encrypt(nonce, secret.to_secret_bytes(), aad).hex(),
        },
    }
    return json.dumps(content).encode()


def test_refuses_a_secret_that_is_not_the_stated_keys(tmp_path: Path) -> None:
    path = tmp_path / "keystore.json"
    write_private_file(path, seal(SECRET, stated=OTHER))
    assert refuse(path).code == "KEYSTORE_MISMATCH"


def test_opens_what_was_built_from_the_formats_description(tmp_path: Path) -> None:
    path = tmp_path / "keystore.json"
    write_private_file(path, seal(SECRET, stated=SECRET))
    assert open_keystore(path, RIGHT, network=Network.REGTEST) == SECRET


def test_refuses_another_networks_keystore(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="belongs to regtest, this is mainnet"):
        open_keystore(make(tmp_path), RIGHT, network=Network.MAINNET)


@pytest.mark.parametrize("mode", [0o644, 0o640])
def test_refuses_a_keystore_that_others_can_read(tmp_path: Path, mode: int) -> None:
    path = make(tmp_path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="others can touch it"):
        open_keystore(path, RIGHT, network=Network.REGTEST)


@pytest.mark.parametrize(
    ("memory", "iterations", "lanes"),
    [(8 * 1024 - 1, 1, 1), (2**20 + 1, 1, 1), (8192, 0, 1), (8192, 17, 1), (8192, 1, 0)],
)
def test_refuses_costs_out_of_bounds(memory: int, iterations: int, lanes: int) -> None:
    with pytest.raises(InvalidInput, match="out of bounds"):
        KdfParams(memory, iterations, lanes)


def test_each_ceremony_has_a_host_key_of_its_own() -> None:
    def derive(
        network: Network = Network.REGTEST, epoch: int = 1, role: Role = Role.VALIDATOR, attempt: int = 0
    ) -> bytes:
        return compute_plain_key(derive_host_secret(SECRET, network, EpochNumber(epoch), role, Attempt(attempt)))

    keys = {
        derive(),
        derive(network=Network.MAINNET),
        derive(epoch=2),
        derive(role=Role.WITNESS),
        derive(attempt=1),
        compute_plain_key(derive_host_secret(OTHER, Network.REGTEST, EpochNumber(1), Role.VALIDATOR, Attempt(0))),
    }
    assert len(keys) == 6
    assert derive() == derive()


def _time(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start
