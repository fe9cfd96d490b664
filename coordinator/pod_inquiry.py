"""Asks every pod how it is and why it refused; a pod that does not answer is a value, never an exception."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol, TypeVar

from pegbridge.v1 import participant_pb2 as pb
from pegbridge.v1.participant_pb2_grpc import ParticipantServiceStub
from smpc.errors import BridgeError
from smpc.host.grpc_channel import RpcChannel
from smpc.types import IdentityKey

T = TypeVar("T")

ASK_SECONDS: Final = 5.0


class PodChannels(Protocol):
    """Where each pod is reached."""

    def channel(self, pod: IdentityKey) -> RpcChannel:
        """Return a pod's channel; Unavailable when there is none."""
        ...


class PodInquiry:
    """The ParticipantService of every pod."""

    def __init__(self, channels: PodChannels, pods: Sequence[IdentityKey]) -> None:
        self._channels = channels
        self._pods = tuple(pods)

    async def fetch_statuses(self) -> Mapping[IdentityKey, pb.StatusResponse | BridgeError]:
        """Return every pod's own view of itself, or why there is none."""
        return await self._ask_all(self._fetch_status)

    async def fetch_checks(self, subjects: Sequence[bytes]) -> Mapping[IdentityKey, Sequence[pb.Check] | BridgeError]:
        """Return every pod's stored checks of these subjects, or why there are none."""

        async def fetch(pod: IdentityKey) -> Sequence[pb.Check]:
            return [check for subject in subjects for check in await self._fetch_checks(pod, subject)]

        return await self._ask_all(fetch)

    async def _ask_all(self, ask: Callable[[IdentityKey], Awaitable[T]]) -> Mapping[IdentityKey, T | BridgeError]:
        async def try_one(pod: IdentityKey) -> T | BridgeError:
            try:
                return await ask(pod)
            except BridgeError as error:
                return error

        async with asyncio.TaskGroup() as group:
            tasks = {pod: group.create_task(try_one(pod)) for pod in self._pods}
        return {pod: task.result() for pod, task in tasks.items()}

    async def _fetch_status(self, pod: IdentityKey) -> pb.StatusResponse:
        client = self._channels.channel(pod).client(ParticipantServiceStub)
        return await client.call(lambda stub: stub.Status, pb.StatusRequest(), seconds=ASK_SECONDS)

    async def _fetch_checks(self, pod: IdentityKey, subject: bytes) -> Sequence[pb.Check]:
        client = self._channels.channel(pod).client(ParticipantServiceStub)
        reply = await client.call(lambda stub: stub.Explain, pb.ExplainRequest(subject=subject), seconds=ASK_SECONDS)
        return reply.checks
