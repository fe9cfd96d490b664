"""A certificate authority, a running server and named clients, for the tests of gRPC servers and channels."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from smpc.errors import BridgeError
from smpc.host.counters import Counters
from smpc.host.gates import Gate
from smpc.host.grpc_channel import ChannelLimits, RpcChannel, RpcClient
from smpc.host.grpc_server import RpcServer, ServerLimits
from smpc.host.peer import PeerIdentity, PeerRole
from smpc.host.pki import TlsFiles, Validity, init_ca, issue_certificate
from smpc.types import IdentityKey, Network
from tests.integration.grpc_host_process import Echo, EchoStub, make_server

MIB = 1024 * 1024
LIMIT = 8 * MIB
UNBOUNDED = ChannelLimits(max_message_bytes=-1)


def identity(role: PeerRole, number: int, network: Network = Network.REGTEST) -> PeerIdentity:
    return PeerIdentity(network, role, IdentityKey(bytes([number]) * 32))


POD = identity(PeerRole.PARTICIPANT, 1)
OTHER_POD = identity(PeerRole.PARTICIPANT, 2)
COORDINATOR = identity(PeerRole.COORDINATOR, 3)
OPERATOR = identity(PeerRole.OPERATOR, 4)


@dataclass(frozen=True)
class Pki:
    root: Path

    def issue(self, who: PeerIdentity, validity: Validity | None = None, into: str = "") -> TlsFiles:
        name = into or f"{who.role}-{who.identity_key.hex()[:4]}"
        return issue_certificate(self.root / "ca", who, self.root / name, validity=validity)

    def issue_by_hand(self, name: str, names: list[x509.GeneralName]) -> TlsFiles:
        """Return a certificate of the right authority with whatever names, as `peg pki issue` never makes."""
        authority = x509.load_pem_x509_certificate((self.root / "ca" / "ca.crt").read_bytes())
        signer = serialization.load_pem_private_key((self.root / "ca" / "ca.key").read_bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        key, validity = ec.generate_private_key(ec.SECP256R1()), Validity.from_now()
        builder = x509.CertificateBuilder(
            authority.subject, x509.Name([]), key.public_key(), x509.random_serial_number()
        )
        builder = builder.not_valid_before(validity.not_before).not_valid_after(validity.not_after)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        files = self.issue(COORDINATOR, into=name)
        files.cert.write_bytes(builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files


def make_pki(root: Path) -> Pki:
    """Create an authority for REGTEST."""
    init_ca(root / "ca", Network.REGTEST)
    return Pki(root)


@dataclass
class Bench:
    """One running server and the channels opened to it."""

    pki: Pki
    server: RpcServer
    echo: Echo
    counters: Counters
    port: int
    channels: list[RpcChannel] = field(default_factory=list)

    def connect(
        self, files: TlsFiles | Path, *, expect: PeerIdentity | None = POD, limits: ChannelLimits | None = None
    ) -> RpcClient[EchoStub]:
        channel = RpcChannel(f"127.0.0.1:{self.port}", files, expect=expect, limits=limits)
        self.channels.append(channel)
        return channel.client(EchoStub)

    def connect_as(self, who: PeerIdentity, limits: ChannelLimits | None = None) -> RpcClient[EchoStub]:
        directory = self.pki.root / f"{who.role}-{who.identity_key.hex()[:4]}"
        files = TlsFiles.in_directory(directory) if directory.exists() else self.pki.issue(who)
        return self.connect(files, limits=limits)


@contextlib.asynccontextmanager
async def running(
    pki: Pki,
    *,
    mutual: bool = True,
    gates: tuple[Gate, ...] = (),
    is_admitted: Callable[[PeerIdentity], bool] = lambda _identity: True,
    limits: ServerLimits | None = None,
    max_call_seconds: float = 60.0,
) -> AsyncIterator[Bench]:
    echo, counters = Echo(), Counters()
    server = make_server(
        pki.issue(POD),
        echo,
        counters,
        mutual=mutual,
        gates=gates,
        is_admitted=is_admitted,
        limits=limits,
        max_call_seconds=max_call_seconds,
    )
    bench = Bench(pki, server, echo, counters, await server.start("127.0.0.1", 0))
    try:
        yield bench
    finally:
        for channel in bench.channels:
            await channel.close()
        await server.stop(0.1)


async def say(client: RpcClient[EchoStub], message: bytes = b"hello", seconds: float = 5) -> bytes:
    return await client.call(lambda stub: stub.Say, message, seconds=seconds)


async def failure(call: Awaitable[bytes]) -> BridgeError:
    with pytest.raises(BridgeError) as raised:
        await call
    return raised.value
