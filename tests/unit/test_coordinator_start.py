"""What a coordinator refuses to start with: files that do not belong together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.config import CoordinatorConfig, StoreSettings
from coordinator.links import check_identity, open_links
from smpc.curve import SecretKey, compute_xonly_key
from smpc.errors import ConfigError, Refused
from smpc.host.config import SecretFile
from smpc.host.keystore import KdfParams, create_keystore
from smpc.host.peer import PeerIdentity, PeerRole
from smpc.host.pki import TlsFiles, init_ca, issue_certificate
from smpc.host.private_file import Passphrase, write_private_file
from smpc.node.genesis import build_genesis_file
from smpc.participant.config import BitcoindSettings
from smpc.types import IdentityKey, Network
from tests.support.groups import build_genesis, make_secret

CHEAP_KDF = KdfParams(memory_kib=8 * 1024, iterations=1, lanes=1)


def identity_of(secret: SecretKey) -> IdentityKey:
    return IdentityKey(compute_xonly_key(secret))


def make_config(root: Path, secret: SecretKey, role: PeerRole = PeerRole.COORDINATOR) -> CoordinatorConfig:
    """Write everything a coordinator needs under `root`; `secret` is in the keystore and in the certificate."""
    init_ca(root / "pki", Network.REGTEST)
    identity = PeerIdentity(Network.REGTEST, role, identity_of(secret))
    (root / "genesis.json").write_text(build_genesis_file(build_genesis()))
    write_private_file(root / "passphrase", b"open\n")
    create_keystore(root / "keystore.json", secret, Passphrase(b"open"), CHEAP_KDF, network=Network.REGTEST)
    return CoordinatorConfig(
        network=Network.REGTEST,
        data_dir=root / "data",
        genesis=root / "genesis.json",
        keystore=root / "keystore.json",
        passphrase=SecretFile(root / "passphrase"),
        listen_peg="127.0.0.1:0",
        listen_operator="127.0.0.1:0",
        consensus="127.0.0.1:1",
        tls=issue_certificate(root / "pki", identity, root / "tls"),
        bitcoind=BitcoindSettings("http://127.0.0.1:1", cookie=root / "cookie"),
        store=StoreSettings("redis://127.0.0.1:1/0"),
    )


async def test_opens_with_files_that_belong_together_while_every_peer_is_still_down(tmp_path: Path) -> None:
    secret = make_secret("coordinator")
    async with open_links(make_config(tmp_path, secret)) as links:
        assert links.identity == identity_of(secret)
        assert links.genesis == build_genesis()


async def test_refuses_a_key_that_the_genesis_does_not_list(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lists no coordinator"):
        async with open_links(make_config(tmp_path, make_secret("stranger"))):
            pass


async def test_refuses_another_passphrase(tmp_path: Path) -> None:
    config = make_config(tmp_path, make_secret("coordinator"))
    config.passphrase.path.write_text("wrong\n")
    with pytest.raises(Refused) as refused:
        async with open_links(config):
            pass
    assert refused.value.code == "KEYSTORE_LOCKED"


@pytest.mark.parametrize("role", [PeerRole.PARTICIPANT, PeerRole.OPERATOR])
async def test_refuses_a_certificate_of_another_role(tmp_path: Path, role: PeerRole) -> None:
    with pytest.raises(ConfigError, match=str(role)):
        async with open_links(make_config(tmp_path, make_secret("coordinator"), role)):
            pass


def test_refuses_a_certificate_of_another_coordinator(tmp_path: Path) -> None:
    config = make_config(tmp_path, make_secret("coordinator"))
    other = PeerIdentity(Network.REGTEST, PeerRole.COORDINATOR, identity_of(make_secret("other")))
    foreign = issue_certificate(tmp_path / "pki", other, tmp_path / "other")
    with pytest.raises(ConfigError, match=other.identity_key.hex()):
        check_identity(replace(config, tls=foreign), build_genesis(), identity_of(make_secret("coordinator")))


def test_refuses_another_networks_genesis(tmp_path: Path) -> None:
    config = make_config(tmp_path, make_secret("coordinator"))
    foreign = replace(build_genesis(), network=Network.MAINNET)
    with pytest.raises(ConfigError, match="mainnet"):
        check_identity(config, foreign, identity_of(make_secret("coordinator")))


def test_a_missing_certificate_is_named(tmp_path: Path) -> None:
    config = make_config(tmp_path, make_secret("coordinator"))
    missing = TlsFiles.in_directory(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="nowhere"):
        check_identity(replace(config, tls=missing), build_genesis(), identity_of(make_secret("coordinator")))
