"""Who is on the other end of a connection: the one identity its certificate names (design.md section 11)."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, Self

from smpc.errors import Refused
from smpc.types import IdentityKey, Network

_URI: Final = re.compile(r"kaon://([a-z]+)/([a-z]+)/([0-9a-f]{64})")

PEER_URI: Final = "peer_uri"
"""gRPC's name for the URI entries of the authenticated peer's subject alternative names."""


class PeerRole(enum.StrEnum):
    """What a certificate's holder is to the network."""

    PARTICIPANT = "participant"
    COORDINATOR = "coordinator"
    OPERATOR = "operator"
    CONSENSUS = "consensus"
    USER = "user"


class CallContext(Protocol):
    """The part of a gRPC call's context that says who calls."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Return what the transport authenticated about the peer."""

    def peer(self) -> str:
        """Return the peer's transport address."""


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """A certificate holder: the network, the role and the 32-byte identity key."""

    network: Network
    role: PeerRole
    identity_key: IdentityKey

    def __post_init__(self) -> None:
        if len(self.identity_key) != 32:
            raise ValueError(f"an identity key has 32 bytes, got {len(self.identity_key)}")

    @classmethod
    def from_uri(cls, uri: str) -> Self:
        """Read `kaon://<network>/<role>/<64 hex digits>`; ValueError for anything else."""
        match = _URI.fullmatch(uri)
        if match is None:
            raise ValueError(f"not an identity: {uri[:120]!r}")
        network, role, key = match.groups()
        return cls(Network(network), PeerRole(role), IdentityKey(bytes.fromhex(key)))

    @property
    def uri(self) -> str:
        """The identity as its certificate states it."""
        return f"kaon://{self.network}/{self.role}/{self.identity_key.hex()}"

    @property
    def dns_name(self) -> str:
        """The DNS name that a client demands of this server's certificate, so that an address proves nothing.

        The key is split because a DNS label has at most 63 characters.
        """
        key = self.identity_key.hex()
        return f"{key[:32]}.{key[32:]}.{self.role}.{self.network}.kaon"


def find_peer(context: CallContext, network: Network) -> PeerIdentity | None:
    """Return who calls, or None for a caller without a certificate.

    Refused (UNAUTHENTICATED) when the certificate does not name exactly one identity, or one of another network.
    """
    claims = context.auth_context()
    uris = [uri for uri in _texts(claims.get(PEER_URI, ())) if uri.startswith("kaon:")]
    if not uris and "x509_pem_cert" not in claims:
        return None
    if len(uris) != 1:
        raise _unauthenticated(f"the certificate names {len(uris)} identities instead of one")
    try:
        identity = PeerIdentity.from_uri(uris[0])
    except ValueError as error:
        raise _unauthenticated(f"the certificate names no valid identity: {error}") from error
    if identity.network is not network:
        raise _unauthenticated(f"the certificate belongs to {identity.network}, this is {network}")
    return identity


def require_peer(context: CallContext, network: Network) -> PeerIdentity:
    """Return who calls; Refused (UNAUTHENTICATED) for a caller without one valid identity."""
    identity = find_peer(context, network)
    if identity is None:
        raise _unauthenticated("this call needs a client certificate")
    return identity


def _texts(values: Iterable[bytes]) -> list[str]:
    return [value.decode("ascii", "replace") for value in values]


def _unauthenticated(message: str) -> Refused:
    return Refused(message, code="UNAUTHENTICATED", remedy="use a certificate issued by `peg pki issue`")
