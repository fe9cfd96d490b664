"""Everything a coordinator is connected to, opened from its configuration and closed again at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from coordinator.config import CoordinatorConfig
from coordinator.pod_channels import GrpcPods
from smpc.curve import SecretKey, blind_context, compute_xonly_key
from smpc.errors import ConfigError
from smpc.host.grpc_channel import RpcChannel
from smpc.host.keystore import open_keystore
from smpc.host.peer import PeerIdentity, PeerRole
from smpc.host.pki import read_identity
from smpc.node.bitcoind import BitcoindNode
from smpc.node.consensus_client import ConsensusClient
from smpc.node.genesis import load_genesis
from smpc.node.replica import Replica
from smpc.params import find_preset
from smpc.protocol.records import Genesis
from smpc.types import IdentityKey


@dataclass(frozen=True, slots=True)
class Links:
    """One coordinator's identity and the peers it depends on."""

    secret: SecretKey
    """The envelope key."""
    identity: IdentityKey
    genesis: Genesis
    node: BitcoindNode
    consensus: ConsensusClient
    replica: Replica
    transport: GrpcPods


@asynccontextmanager
async def open_links(config: CoordinatorConfig) -> AsyncIterator[Links]:
    """Open keystore, genesis and connections; ConfigError or Refused when they do not belong together."""
    genesis = load_genesis(config.genesis)
    secret = open_keystore(config.keystore, config.passphrase.read_passphrase(), network=config.network)
    identity = IdentityKey(compute_xonly_key(secret))
    check_identity(config, genesis, identity)
    blind_context(secret.to_secret_bytes())
    channel = RpcChannel(config.consensus, config.tls)
    transport = GrpcPods(genesis.validators, config.network, config.tls)
    try:
        async with BitcoindNode(config.bitcoind.build_endpoint(), config.network) as node:
            consensus = ConsensusClient(channel)
            replica = Replica(consensus, genesis, find_preset(config.network))
            yield Links(secret, identity, genesis, node, consensus, replica, transport)
    finally:
        await transport.close()
        await channel.close()
        secret.wipe()


def check_identity(config: CoordinatorConfig, genesis: Genesis, identity: IdentityKey) -> None:
    """Refuse to start (ConfigError) with another network's genesis, an unlisted key or another's certificate."""
    if genesis.network is not config.network:
        raise ConfigError(
            f"the genesis file is for {genesis.network}, the configuration for {config.network}",
            remedy="use one network's files",
        )
    if identity not in genesis.coordinators:
        raise ConfigError(
            f"the genesis lists no coordinator {identity.hex()}", remedy="use the keystore that belongs to this network"
        )
    named = read_identity(config.tls.cert)
    if named != PeerIdentity(config.network, PeerRole.COORDINATOR, identity):
        raise ConfigError(
            f"{config.tls.cert} belongs to {named.uri}, not to this coordinator",
            remedy="issue a certificate of role coordinator for the keystore's key (peg pki issue)",
        )
