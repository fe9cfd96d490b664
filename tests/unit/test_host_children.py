"""A process with open gRPC channels starts children that live (a devnet's supervisor does so all the time)."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections import Counter

import grpc.aio
import pytest

from coordinator.devnet.parent_death import end_with_parent

CHILDREN = 40


async def test_no_child_crashes_while_grpc_calls_are_under_way() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ended: Counter[int] = Counter()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for _ in range(CHILDREN):
            running = asyncio.ensure_future(_call(channel))
            await asyncio.sleep(0)
            ended[_run_child()] += 1
            await running
    await server.stop(None)
    assert ended == {0: CHILDREN}


def _run_child() -> int:
    return subprocess.run(["/bin/true"], preexec_fn=end_with_parent(signal.SIGKILL), check=False).returncode


async def _call(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await channel.unary_unary("/nobody/answers")(b"", timeout=2)  # type: ignore[arg-type]  # the stub knows no request
