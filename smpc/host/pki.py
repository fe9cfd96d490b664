"""Certificates: one authority per network, TLS keys on P-256, identities as SAN URIs (design.md section 11)."""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from smpc.errors import ConfigError, InvalidInput
from smpc.host.peer import PeerIdentity
from smpc.host.private_file import (
    make_private_directory,
    read_private_file,
    replace_private_file,
    write_private_file,
)
from smpc.types import Network

CA_VALIDITY: Final = dt.timedelta(days=3650)
LEAF_VALIDITY: Final = dt.timedelta(days=397)
"""The longest validity browsers accept; renew well before."""

CLOCK_SKEW: Final = dt.timedelta(hours=4)
"""A fresh certificate is already valid for machines whose clocks are this far behind."""

_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where a process finds its certificate, its key and the authority it trusts (PEM, mode 0600)."""

    ca: Path
    cert: Path
    key: Path

    @classmethod
    def in_directory(cls, directory: Path) -> TlsFiles:
        """Return the files `issue_certificate` leaves in a directory."""
        return cls(directory / "ca.crt", directory / "tls.crt", directory / "tls.key")


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when a certificate holds."""

    not_before: dt.datetime
    not_after: dt.datetime

    @classmethod
    def from_now(cls, length: dt.timedelta = LEAF_VALIDITY) -> Validity:
        """Return a validity of `length` from now, begun early enough for slow clocks."""
        now = dt.datetime.now(dt.UTC)
        return cls(now - CLOCK_SKEW, now + length)


def init_ca(directory: Path, network: Network) -> None:
    """Create a network's certificate authority: `ca.key` and `ca.crt`; Conflict when there is one already."""
    make_private_directory(directory)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _ca_name(network)
    validity = Validity.from_now(CA_VALIDITY)
    builder = _start(name, name, key.public_key(), validity)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(sign_certificates=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    write_private_file(directory / "ca.key", _key_pem(key))
    write_private_file(directory / "ca.crt", _pem(certificate))


def issue_certificate(
    ca_directory: Path,
    identity: PeerIdentity,
    into: Path,
    *,
    hosts: Sequence[str] = ("localhost", "127.0.0.1", "::1"),
    validity: Validity | None = None,
    renew: bool = False,
) -> TlsFiles:
    """Issue a server and client certificate for `identity` into a directory; it answers for `hosts` (names, IPs).

    Conflict when the directory holds one already and `renew` is false; ConfigError when the authority is missing or of
    another network; InvalidInput for a bad host.
    """
    authority, authority_key = _read_authority(ca_directory, identity.network)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{identity.role} {identity.identity_key.hex()[:16]}")])
    builder = _start(name, authority.subject, key.public_key(), validity or Validity.from_now())
    for extension, critical in _leaf_extensions(identity, hosts, authority_key.public_key()):
        builder = builder.add_extension(extension, critical=critical)
    certificate = builder.sign(authority_key, hashes.SHA256())
    files = TlsFiles.in_directory(into)
    make_private_directory(into)
    write = replace_private_file if renew else write_private_file
    write(files.key, _key_pem(key))
    write(files.cert, _pem(certificate))
    write(files.ca, _pem(authority))
    return files


def read_identity(cert: Path) -> PeerIdentity:
    """Return the identity a certificate file names; ConfigError when it does not name exactly one."""
    certificate = _parse_certificate(read_private_file(cert), cert)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = [uri for uri in names.get_values_for_type(x509.UniformResourceIdentifier) if uri.startswith("kaon:")]
        (uri,) = uris
        return PeerIdentity.from_uri(uri)
    except (x509.ExtensionNotFound, ValueError) as error:
        raise ConfigError(f"{cert} does not name one identity", remedy="issue it with `peg pki issue`") from error


def read_expiry(cert: Path) -> dt.datetime:
    """Return the UTC time at which a certificate file's certificate ends."""
    return _parse_certificate(read_private_file(cert), cert).not_valid_after_utc


def is_pair(cert_pem: bytes, key_pem: bytes) -> bool:
    """Tell whether a certificate and a private key belong together; False while one of them is half replaced."""
    try:
        certificate = x509.load_pem_x509_certificate(cert_pem)
        key = serialization.load_pem_private_key(key_pem, None)
    except ValueError:
        return False
    return certificate.public_key() == key.public_key()


def _read_authority(directory: Path, network: Network) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate = _parse_certificate(read_private_file(directory / "ca.crt"), directory / "ca.crt")
    if certificate.subject != _ca_name(network):
        raise ConfigError(f"{directory} is not the authority of {network}", remedy="name that network's directory")
    try:
        key = serialization.load_pem_private_key(read_private_file(directory / "ca.key"), None)
    except ValueError as error:
        raise ConfigError(f"{directory / 'ca.key'} is not a PEM key", remedy="restore it") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigError(f"{directory}: ca.key and ca.crt do not belong together", remedy="restore both")
    return certificate, key


def _leaf_extensions(
    identity: PeerIdentity, hosts: Iterable[str], authority: ec.EllipticCurvePublicKey
) -> list[tuple[x509.ExtensionType, bool]]:
    names = [x509.UniformResourceIdentifier(identity.uri), x509.DNSName(identity.dns_name)]
    names += [_host_name(host) for host in hosts]
    return [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(sign_certificates=False), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False),
        (x509.SubjectAlternativeName(names), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), False),
    ]


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if not _HOST.fullmatch(host) or len(host) > 253 or host.endswith(".kaon"):
            raise InvalidInput(f"{host[:80]!r} is not a host name or IP", remedy="give names without scheme") from None
        return x509.DNSName(host)


def _start(
    name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, validity: Validity
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(validity.not_before).not_valid_after(validity.not_after)


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _ca_name(network: Network) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"peg bridge {network} authority")])


def _parse_certificate(pem: bytes, path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise ConfigError(f"{path} is not a PEM certificate", remedy="restore or reissue it") from error


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
