"""A gRPC server as every process of the bridge runs it: TLS, limits, health, reflection, a graceful end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from smpc.errors import BridgeError, ConfigError, Unavailable
from smpc.host.gates import EVERY_ROLE, PUBLIC, Access
from smpc.host.interceptors import HEALTH_SERVICE, REFLECTION_SERVICE, GuardedCalls
from smpc.host.pki import TlsFiles, is_pair
from smpc.host.private_file import FilePolicy, read_private_file

OWN_SERVICES: Final[dict[str, Access]] = {HEALTH_SERVICE: EVERY_ROLE, REFLECTION_SERVICE: EVERY_ROLE}
"""Access rules of what every mutual-TLS server offers."""

OWN_PUBLIC_SERVICES: Final[dict[str, Access]] = {HEALTH_SERVICE: PUBLIC, REFLECTION_SERVICE: PUBLIC}
"""Access rules of what a TLS-only server offers."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What one server bears. gRPC's own defaults are 4 MiB and otherwise nearly unlimited."""

    max_message_bytes: int = 8 * 1024 * 1024
    max_streams: int = 128
    """Concurrent calls per connection."""
    max_calls: int = 1_024
    """Concurrent calls in all; more are refused."""
    max_connections: int = 4_096
    handshake_ms: int = 10_000
    """A connection that has not finished TLS by then is closed (case G4)."""
    idle_ms: int = 600_000
    """A connection without calls is closed after this long; clients reconnect by themselves."""
    age_ms: int = 3_600_000
    """After this long a connection takes no new calls, so that a renewed or expired certificate shows; running calls
    have as long again."""
    keepalive_ms: int = 30_000
    keepalive_timeout_ms: int = 10_000


class RotatingCertificates:
    """The server's certificate as its files are now: a renewed one is used from the next handshake on."""

    def __init__(self, files: TlsFiles, policy: FilePolicy) -> None:
        self._files = files
        self._policy = policy
        self._seen = _stamp(files)
        self.current = self._read()

    def fetch_change(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the new configuration when the files changed to a matching pair, else None. Never raises."""
        try:
            stamp = _stamp(self._files)
            if stamp == self._seen:
                return None
            self.current = self._read()
            self._seen = stamp
        except (BridgeError, OSError) as error:
            structlog.get_logger().warning("certificate.unreadable", reason=str(error))
            return None
        structlog.get_logger().info("certificate.rotated", path=str(self._files.cert))
        return self.current

    def _read(self) -> grpc.ServerCertificateConfiguration:
        key, cert, ca = (
            read_private_file(path, policy=self._policy) for path in (self._files.key, self._files.cert, self._files.ca)
        )
        if not is_pair(cert, key):
            raise ConfigError(
                f"{self._files.key} is not the key of {self._files.cert}", remedy="reissue the certificate"
            )
        return grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=ca)


class RpcServer:
    """One listening server. Add servicers to `grpc`, name them with `announce`, then `start`; end with `stop`."""

    def __init__(
        self,
        calls: GuardedCalls,
        files: TlsFiles,
        *,
        mutual: bool = True,
        limits: ServerLimits | None = None,
        policy: FilePolicy = FilePolicy.REFUSE,
    ) -> None:
        limits = limits or ServerLimits()
        self._calls = calls
        self._certificates = RotatingCertificates(files, policy)
        self._mutual = mutual
        self._health = health.aio.HealthServicer()
        self._services: list[str] = []
        self.grpc = grpc.aio.server(
            interceptors=[calls], options=_options(limits), maximum_concurrent_rpcs=limits.max_calls
        )

    def announce(self, services: Iterable[str]) -> None:
        """Name the services (full names) for reflection and health; before `start`."""
        self._services.extend(services)

    async def start(self, host: str, port: int, *, serving: bool = True) -> int:
        """Listen and report SERVING; return the port (the system's choice for 0). Unavailable when it is taken.

        With `serving` false it answers, and reports NOT_SERVING until `set_serving` says otherwise.
        """
        credentials = grpc.dynamic_ssl_server_credentials(
            self._certificates.current,
            self._certificates.fetch_change,  # type: ignore[arg-type]  # the stub forgets that None means unchanged
            self._mutual,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        reflection.enable_server_reflection([*self._services, HEALTH_SERVICE, REFLECTION_SERVICE], self.grpc)
        try:
            bound = self.grpc.add_secure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", credentials)
        except RuntimeError as error:
            raise Unavailable(f"cannot listen on {host}:{port}", remedy="free the port or choose another") from error
        await self.set_every_service(serving=serving)
        await self.grpc.start()
        return bound

    async def set_every_service(self, *, serving: bool) -> None:
        """Report the health of the process and of every service announced."""
        for service in ("", *self._services):
            await self.set_serving(service, serving=serving)

    async def set_serving(self, service: str, *, serving: bool) -> None:
        """Report one service's health; "" is the whole process."""
        state = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        await self._health.set(service, state)

    async def stop(self, grace_seconds: float) -> bool:
        """Report NOT_SERVING, let running calls end within the grace, then close. False when one was cut off."""
        await self._health.enter_graceful_shutdown()
        drained = await self._calls.drain(grace_seconds)
        await self.grpc.stop(0.2)  # time for the last answers to leave
        return drained


def _options(limits: ServerLimits) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", limits.max_message_bytes),
        ("grpc.max_send_message_length", limits.max_message_bytes),
        ("grpc.max_concurrent_streams", limits.max_streams),
        ("grpc.max_allowed_incoming_connections", limits.max_connections),
        ("grpc.server_handshake_timeout_ms", limits.handshake_ms),
        ("grpc.max_connection_idle_ms", limits.idle_ms),
        ("grpc.max_connection_age_ms", limits.age_ms),
        ("grpc.max_connection_age_grace_ms", limits.age_ms),
        ("grpc.keepalive_time_ms", limits.keepalive_ms),
        ("grpc.keepalive_timeout_ms", limits.keepalive_timeout_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.so_reuseport", 0),  # by default a second process could listen on the same port unnoticed
    ]


def _stamp(files: TlsFiles) -> tuple[tuple[int, int, int], ...]:
    return tuple(_file_stamp(path) for path in (files.key, files.cert, files.ca))


def _file_stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return (status.st_mtime_ns, status.st_size, status.st_ino)
