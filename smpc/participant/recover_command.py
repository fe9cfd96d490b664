"""What `peg-participant recover` does: follow the own consensus node to its final state, restore, prove, report."""

from __future__ import annotations

from collections.abc import Collection

from smpc.host.grpc_channel import RpcChannel
from smpc.node.consensus_client import ConsensusClient
from smpc.node.final_chain import replay_chain
from smpc.node.genesis import load_genesis
from smpc.params import find_preset
from smpc.participant.config import PodConfig
from smpc.participant.keystore import open_keystore
from smpc.participant.recovery import RecoveredShare, recover_shares
from smpc.types import EpochNumber


async def recover(config: PodConfig, epochs: Collection[EpochNumber]) -> dict[str, object]:
    """Return what was restored as plain values. Changes nothing: a pod that starts restores its shares the same way."""
    genesis = load_genesis(config.genesis)
    secret = open_keystore(config.keystore, config.passphrase.read_passphrase(), network=config.network)
    channel = RpcChannel(config.consensus, config.tls)
    try:
        chain = await replay_chain(ConsensusClient(channel), genesis, find_preset(config.network))
        shares = recover_shares(secret, chain.ledger, epochs)
    finally:
        secret.wipe()
        await channel.close()
    return {"kaon_height": chain.ledger.height, "shares": [_to_plain(item) for item in shares]}


def _to_plain(share: RecoveredShare) -> dict[str, object]:
    info = share.info
    return {
        "epoch": info.group.epoch,
        "role": str(info.group.role),
        "attempt": info.attempt,
        "position": share.position,
        "threshold": info.threshold,
        "members": len(info.members),
        "group_key": info.group_key.hex(),
        "public_share": share.public_share.hex(),
        "is_proven": True,
    }
