"""The keys and certificates of a new devnet: one authority, one encrypted keystore and certificate per process."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from coordinator.devnet.layout import DevnetLayout, ServiceFiles
from smpc.curve import SecretKey, compute_xonly_key
from smpc.host.keystore import DEVNET_KDF, create_keystore
from smpc.host.peer import PeerIdentity, PeerRole
from smpc.host.pki import init_ca, issue_certificate
from smpc.host.private_file import Passphrase, make_private_directory, write_private_file
from smpc.types import IdentityKey, Network

NETWORK: Final = Network.REGTEST

_THREADS: Final = 4
"""More would only multiply the memory of the key derivations."""


@dataclass(frozen=True, slots=True)
class DevnetIdentities:
    """Identity keys of a devnet's processes."""

    consensus: IdentityKey
    coordinator: IdentityKey
    pods: Mapping[str, IdentityKey]


def create_identities(layout: DevnetLayout, pods: tuple[str, ...]) -> DevnetIdentities:
    """Create every keystore, passphrase and certificate; takes about a tenth of a second per process."""
    init_ca(layout.authority, NETWORK)
    for role, into in ((PeerRole.OPERATOR, "operator"), (PeerRole.USER, "user")):
        identity = IdentityKey(compute_xonly_key(_draw_secret()))
        issue_certificate(layout.authority, PeerIdentity(NETWORK, role, identity), layout.authority / into)
    jobs = [
        (layout.consensus, PeerRole.CONSENSUS),
        (layout.coordinator, PeerRole.COORDINATOR),
        *((layout.pod(name), PeerRole.PARTICIPANT) for name in pods),
    ]
    with ThreadPoolExecutor(_THREADS) as pool:
        consensus, coordinator, *rest = pool.map(lambda job: _create(layout, *job), jobs)
    return DevnetIdentities(consensus, coordinator, dict(zip(pods, rest, strict=True)))


def _create(layout: DevnetLayout, files: ServiceFiles, role: PeerRole) -> IdentityKey:
    make_private_directory(files.directory)
    passphrase = secrets.token_urlsafe(32).encode()
    write_private_file(files.passphrase, passphrase + b"\n")
    identity = create_keystore(files.keystore, _draw_secret(), Passphrase(passphrase), DEVNET_KDF, network=NETWORK)
    issue_certificate(layout.authority, PeerIdentity(NETWORK, role, identity), files.tls.cert.parent)
    return identity


def _draw_secret() -> SecretKey:
    return SecretKey.generate(secrets.token_bytes(32))
