"""Creates a devnet's files: keys, users of its node, the genesis and one configuration per process."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

from coordinator.devnet.chain import FirstBlock
from coordinator.devnet.identities import NETWORK, DevnetIdentities, create_identities
from coordinator.devnet.layout import DevnetLayout, ServiceFiles
from coordinator.devnet.rpc_users import RpcUser
from coordinator.devnet.settings import DevnetSettings, to_endpoint
from coordinator.devnet.toml_text import TomlValue, build_toml
from smpc.host.private_file import make_private_directory, write_private_file
from smpc.node.genesis import build_genesis_file
from smpc.protocol.records import Genesis, ValidatorInfo
from smpc.types import IdentityKey, Script

STAKE = 1_000_000
"""Every validator's: no draw is turned down because one of them holds too much."""

POLL_MILLIS = 200
"""A devnet's blocks come when somebody wants to see what they do."""


def list_rpc_users(layout: DevnetLayout, settings: DevnetSettings) -> tuple[RpcUser, ...]:
    """Return the node's users: the coordinator and every pod."""
    pods = [(name, layout.pod(name)) for name in settings.pod_endpoints]
    return tuple(RpcUser(name, files.rpc_password) for name, files in [("coordinator", layout.coordinator), *pods])


def create_keys(layout: DevnetLayout, settings: DevnetSettings) -> DevnetIdentities:
    """Create everything that does not depend on the Bitcoin chain. What an interrupted creation left is removed."""
    _remove_remains(layout, settings)
    make_private_directory(layout.data_dir)
    identities = create_identities(layout, tuple(settings.pod_endpoints))
    for user in list_rpc_users(layout, settings):
        user.create()
    return identities


def write_configurations(
    layout: DevnetLayout, settings: DevnetSettings, identities: DevnetIdentities, first: FirstBlock
) -> None:
    """Write the genesis and every process's configuration; the devnet then exists (its settings are saved last)."""
    genesis = build_genesis(settings, identities, first)
    write_private_file(layout.genesis, build_genesis_file(genesis).encode())
    _write(layout.consensus, _describe_consensus(layout, settings))
    _write(layout.coordinator, _describe_coordinator(layout, settings))
    for name, endpoint in settings.pod_endpoints.items():
        _write(layout.pod(name), _describe_pod(layout, settings, name, endpoint))
    make_private_directory(layout.accounts)
    write_private_file(layout.profile, build_toml(_describe_profile(layout, settings, identities)).encode())
    settings.save(layout.settings)


def build_genesis(settings: DevnetSettings, identities: DevnetIdentities, first: FirstBlock) -> Genesis:
    """Return the consensus layer's genesis: every pod a validator with the same stake."""
    validators = tuple(
        ValidatorInfo(identities.pods[name], endpoint, STAKE, _build_own_script(identities.pods[name]))
        for name, endpoint in settings.pod_endpoints.items()
    )
    return Genesis(
        network=NETWORK,
        validators=validators,
        coordinators=(identities.coordinator,),
        proposer=identities.consensus,
        btc_start=(first.height, first.block_hash),
        block_millis=settings.options.block_millis,
        finality=settings.options.finality,
        emergency=settings.options.emergency,
    )


def _build_own_script(identity: IdentityKey) -> Script:
    """Pay commissions to the identity key itself: a Taproot output that its owner can spend."""
    return Script(b"\x51\x20" + identity)


def _describe_common(layout: DevnetLayout, files: ServiceFiles) -> dict[str, TomlValue]:
    return {
        "network": str(NETWORK),
        "data_dir": files.directory,
        "genesis": layout.genesis,
        "keystore": files.keystore,
        "passphrase": files.passphrase,
        "tls": {"ca": files.tls.ca, "cert": files.tls.cert, "key": files.tls.key},
    }


def _describe_bitcoind(settings: DevnetSettings, user: str, files: ServiceFiles) -> Mapping[str, TomlValue]:
    return {
        "url": f"http://{to_endpoint(settings.ports.bitcoind)}",
        "user": user,
        "password": files.rpc_password,
    }


def _describe_pod(layout: DevnetLayout, settings: DevnetSettings, name: str, endpoint: str) -> dict[str, TomlValue]:
    files = layout.pod(name)
    return {
        **_describe_common(layout, files),
        "listen": endpoint,
        "consensus": to_endpoint(settings.ports.consensus),
        "bitcoind": _describe_bitcoind(settings, name, files),
    }


def _describe_consensus(layout: DevnetLayout, settings: DevnetSettings) -> dict[str, TomlValue]:
    return {**_describe_common(layout, layout.consensus), "listen": to_endpoint(settings.ports.consensus)}


def _describe_coordinator(layout: DevnetLayout, settings: DevnetSettings) -> dict[str, TomlValue]:
    ports, files = settings.ports, layout.coordinator
    return {
        **_describe_common(layout, files),
        "listen_peg": to_endpoint(ports.peg),
        "listen_operator": to_endpoint(ports.operator),
        "consensus": to_endpoint(ports.consensus),
        "poll_millis": POLL_MILLIS,
        "bitcoind": _describe_bitcoind(settings, "coordinator", files),
        "store": {"embedded": layout.store},
    }


def _describe_profile(
    layout: DevnetLayout, settings: DevnetSettings, identities: DevnetIdentities
) -> dict[str, TomlValue]:
    ports, user, operator = settings.ports, layout.user_tls, layout.operator_tls
    coordinator = identities.coordinator.hex()
    return {
        "network": str(NETWORK),
        "accounts": layout.accounts,
        "genesis": layout.genesis,
        "peg": {"endpoint": to_endpoint(ports.peg), "identity": coordinator},
        "operator": {"endpoint": to_endpoint(ports.operator), "identity": coordinator},
        "consensus": {"endpoint": to_endpoint(ports.consensus), "identity": identities.consensus.hex()},
        "tls": {"ca": user.ca, "cert": user.cert, "key": user.key},
        "operator_tls": {"ca": operator.ca, "cert": operator.cert, "key": operator.key},
        "bitcoind": {"url": f"http://{to_endpoint(ports.bitcoind)}", "cookie": layout.cookie},
    }


def _write(files: ServiceFiles, table: Mapping[str, TomlValue]) -> None:
    write_private_file(files.config, build_toml(table).encode())


def _remove_remains(layout: DevnetLayout, settings: DevnetSettings) -> None:
    services = [layout.consensus, layout.coordinator, *(layout.pod(name) for name in settings.pod_endpoints)]
    layout.profile.unlink(missing_ok=True)
    for directory in (layout.authority, layout.bitcoind, layout.store, *(files.directory for files in services)):
        shutil.rmtree(directory, ignore_errors=True)
