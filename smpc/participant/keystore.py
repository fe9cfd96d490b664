"""The ceremony keys derived from a participant's identity secret, and the keystore that secret lives in.

The identity secret and public recovery data are all a member needs to restore every share it ever had.
"""

from __future__ import annotations

from smpc.curve import SecretKey
from smpc.host.keystore import (
    DEFAULT_KDF,
    DEVNET_KDF,
    KdfParams,
    create_keystore,
    open_keystore,
    read_keystore_identity,
)
from smpc.protocol.encoding import hash_fields
from smpc.types import Attempt, EpochNumber, Network, Role

__all__ = [
    "DEFAULT_KDF",
    "DEVNET_KDF",
    "KdfParams",
    "create_keystore",
    "derive_host_secret",
    "open_keystore",
    "read_keystore_identity",
]


def derive_host_secret(
    identity_secret: SecretKey, network: Network, epoch: EpochNumber, role: Role, attempt: Attempt
) -> SecretKey:
    """Return the host secret key of one ceremony, so that no transcript of another can be replayed [R22]."""
    return SecretKey.from_bytes(
        hash_fields("host-key", identity_secret.to_secret_bytes(), network.value, epoch, role.value, attempt)
    )
