"""Certificates and the identities they name."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from smpc.errors import ConfigError, Conflict, InvalidInput, Refused
from smpc.host.peer import PeerIdentity, PeerRole, find_peer, require_peer
from smpc.host.pki import TlsFiles, Validity, init_ca, is_pair, issue_certificate, read_expiry, read_identity
from smpc.types import IdentityKey, Network

POD = PeerIdentity(Network.REGTEST, PeerRole.PARTICIPANT, IdentityKey(b"\xab" * 32))


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    init_ca(tmp_path / "ca", Network.REGTEST)
    return tmp_path / "ca"


def read_certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_every_file_is_its_owners_alone(ca: Path, tmp_path: Path) -> None:
    issue_certificate(ca, POD, tmp_path / "pod")
    files = [*ca.iterdir(), *(tmp_path / "pod").iterdir()]
    assert {file.name: file.stat().st_mode & 0o777 for file in files} == dict.fromkeys(
        ["ca.key", "ca.crt", "tls.key", "tls.crt"], 0o600
    )


def test_a_certificate_names_its_holder_and_the_hosts_it_answers_for(ca: Path, tmp_path: Path) -> None:
    files = issue_certificate(ca, POD, tmp_path / "pod", hosts=["pod-1.example", "10.0.0.7", "::1"])
    certificate = read_certificate(files.cert)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["kaon://regtest/participant/" + "ab" * 32]
    assert names.get_values_for_type(x509.DNSName) == [POD.dns_name, "pod-1.example"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7", "::1"]
    assert read_identity(files.cert) == POD
    certificate.verify_directly_issued_by(read_certificate(files.ca))


def test_keys_are_p256_and_a_leaf_signs_no_certificates(ca: Path, tmp_path: Path) -> None:
    certificate = read_certificate(issue_certificate(ca, POD, tmp_path / "pod").cert)
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca) == (True, False)
    assert not certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def test_nothing_is_overwritten_unless_it_is_renewed(ca: Path, tmp_path: Path) -> None:
    first = issue_certificate(ca, POD, tmp_path / "pod").cert.read_bytes()
    with pytest.raises(Conflict):
        issue_certificate(ca, POD, tmp_path / "pod")
    with pytest.raises(Conflict):
        init_ca(ca, Network.REGTEST)
    assert (tmp_path / "pod" / "tls.crt").read_bytes() == first
    files = issue_certificate(ca, POD, tmp_path / "pod", renew=True)
    assert files.cert.read_bytes() != first
    assert is_pair(files.cert.read_bytes(), files.key.read_bytes())


def test_a_certificate_and_another_ones_key_are_no_pair(ca: Path, tmp_path: Path) -> None:
    one, two = (issue_certificate(ca, POD, tmp_path / name) for name in ("one", "two"))
    assert is_pair(one.cert.read_bytes(), one.key.read_bytes())
    assert not is_pair(one.cert.read_bytes(), two.key.read_bytes())
    assert not is_pair(b"garbage", one.key.read_bytes())


def test_an_authority_issues_for_its_own_network_only(ca: Path, tmp_path: Path) -> None:
    other = PeerIdentity(Network.MAINNET, PeerRole.PARTICIPANT, POD.identity_key)
    with pytest.raises(ConfigError, match="not the authority of mainnet"):
        issue_certificate(ca, other, tmp_path / "pod")


def test_names_a_missing_authority(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        issue_certificate(tmp_path / "absent", POD, tmp_path / "pod")


@pytest.mark.parametrize(
    "host", ["", "https://a", "a b", "-a", "a..b", "*.example", "x" * 64, POD.dns_name, "UPPER", "a/b", "1.2.3.4.5:1"]
)
def test_refuses_a_bad_host(ca: Path, tmp_path: Path, host: str) -> None:
    with pytest.raises(InvalidInput, match="not a host name or IP"):
        issue_certificate(ca, POD, tmp_path / "pod", hosts=[host])


def test_validity_is_what_was_asked(ca: Path, tmp_path: Path) -> None:
    now = dt.datetime.now(dt.UTC)
    files = issue_certificate(ca, POD, tmp_path / "pod", validity=Validity.from_now(dt.timedelta(days=7)))
    assert abs(read_expiry(files.cert) - now - dt.timedelta(days=7)) < dt.timedelta(minutes=1)
    assert read_certificate(files.cert).not_valid_before_utc < now - dt.timedelta(hours=3)


def test_files_have_fixed_names_in_their_directory() -> None:
    assert TlsFiles.in_directory(Path("d")) == TlsFiles(Path("d/ca.crt"), Path("d/tls.crt"), Path("d/tls.key"))


identities = st.builds(
    PeerIdentity,
    st.sampled_from(Network),
    st.sampled_from(PeerRole),
    st.binary(min_size=32, max_size=32).map(IdentityKey),
)


@given(identities)
def test_an_identity_reads_back_from_its_uri(identity: PeerIdentity) -> None:
    assert PeerIdentity.from_uri(identity.uri) == identity
    assert all(len(label) <= 63 for label in identity.dns_name.split("."))


@pytest.mark.parametrize("length", [31, 33])
def test_an_identity_key_has_32_bytes(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        PeerIdentity(Network.REGTEST, PeerRole.USER, IdentityKey(bytes(length)))


@pytest.mark.parametrize(
    "uri",
    ["", "kaon:", POD.uri + "0", POD.uri[:-1], POD.uri.replace("regtest", "testnet"), POD.uri + "\n", " " + POD.uri],
)
def test_refuses_what_is_not_exactly_an_identity(uri: str) -> None:
    with pytest.raises(ValueError, match=r"not an identity|not a valid"):
        PeerIdentity.from_uri(uri)


class Call:
    """What a transport says about a caller, without a transport."""

    def __init__(self, **claims: list[bytes]) -> None:
        self._claims = claims

    def auth_context(self) -> dict[str, list[bytes]]:
        return self._claims

    def peer(self) -> str:
        return "ipv4:127.0.0.1:5000"


def test_a_caller_is_who_the_certificate_says() -> None:
    assert find_peer(Call(peer_uri=[POD.uri.encode()], x509_pem_cert=[b"..."]), Network.REGTEST) == POD


def test_other_uris_beside_the_identity_do_not_matter() -> None:
    call = Call(peer_uri=[b"spiffe://elsewhere/x", POD.uri.encode()], x509_pem_cert=[b"..."])
    assert find_peer(call, Network.REGTEST) == POD


def test_a_caller_without_certificate_is_nobody() -> None:
    call = Call(transport_security_type=[b"ssl"])
    assert find_peer(call, Network.REGTEST) is None
    with pytest.raises(Refused) as refused:
        require_peer(call, Network.REGTEST)
    assert refused.value.code == "UNAUTHENTICATED"


@pytest.mark.parametrize("uris", [[], [POD.uri.encode()] * 2, [b"kaon://regtest/participant/\xff"]])
def test_a_certificate_without_exactly_one_identity_is_refused(uris: list[bytes]) -> None:
    with pytest.raises(Refused):
        find_peer(Call(peer_uri=uris, x509_pem_cert=[b"..."]), Network.REGTEST)


def test_another_networks_certificate_is_refused() -> None:
    with pytest.raises(Refused, match="belongs to regtest, this is mainnet"):
        find_peer(Call(peer_uri=[POD.uri.encode()], x509_pem_cert=[b"..."]), Network.MAINNET)
