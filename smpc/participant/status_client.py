"""Asks a running pod how it is, over the same mutual TLS as everyone else."""

from __future__ import annotations

from typing import Final

from pegbridge.v1 import participant_pb2, participant_pb2_grpc
from smpc.host.grpc_channel import RpcChannel
from smpc.host.peer import PeerIdentity, PeerRole
from smpc.participant.config import PodConfig
from smpc.participant.keystore import read_keystore_identity

STATUS_SECONDS: Final = 10.0


async def fetch_status(config: PodConfig) -> dict[str, object]:
    """Return the pod's own view as plain values; Unavailable when it does not answer."""
    identity = PeerIdentity(config.network, PeerRole.PARTICIPANT, read_keystore_identity(config.keystore))
    channel = RpcChannel(config.listen, config.tls, expect=identity)
    try:
        client = channel.client(participant_pb2_grpc.ParticipantServiceStub)
        answer = await client.call(lambda stub: stub.Status, participant_pb2.StatusRequest(), seconds=STATUS_SECONDS)
    finally:
        await channel.close()
    return to_plain(answer)


def to_plain(answer: participant_pb2.StatusResponse) -> dict[str, object]:
    """Return a status as values that JSON can hold."""
    return {
        "identity_key": answer.identity_key.hex(),
        "protocol_version": answer.protocol_version,
        "kaon_height": answer.kaon_height,
        "btc_height": answer.btc_height,
        "bitcoin_ready": answer.bitcoin_ready,
        "shares": [
            {"epoch": item.epoch, "role": item.role, "position": item.position, "is_ready": item.is_ready}
            for item in answer.shares
        ],
        "open_sessions": answer.open_sessions,
        "shares_released": answer.shares_released,
        "refusals": answer.refusals,
        "paused": list(answer.paused),
        "not_ready_reason": answer.not_ready_reason,
        "punishments": [
            {
                "penalty": item.penalty,
                "misdeed": item.misdeed,
                "kaon_height": item.kaon_height,
                "until_kaon_height": item.until_kaon_height if item.HasField("until_kaon_height") else None,
                "detail": item.detail,
            }
            for item in answer.punishments
        ],
    }
