"""A package travels: from the executor's node to a peer whose own floor is above the rung."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

from tests.support.executor import Executor, build_rung, open_executor
from tests.support.regtest import MATURE_AFTER, RegtestNode

PATIENCE_SECONDS = 120.0
"""A node asks for the parent of what it cannot place, and may ask a second time, with its own random delays."""

TRUSTED = "-whitelist=noban@127.0.0.1"


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def pair() -> Iterator[tuple[RegtestNode, RegtestNode]]:
    """Start an executor's node, and a peer that asks for 5 sat/vB and enforces TRUC."""
    port = find_free_port()
    with ExitStack() as stack:
        near = stack.enter_context(RegtestNode("-listen=1", f"-bind=127.0.0.1:{port}", TRUSTED))
        far = stack.enter_context(RegtestNode("-mempooltruc=enforce", "-minrelaytxfee=0.00005", TRUSTED))
        far.rpc("addnode", f"127.0.0.1:{port}", "add")
        near.mine(MATURE_AFTER + 20)
        yield near, far


@pytest.fixture
async def executor(pair: tuple[RegtestNode, RegtestNode]) -> AsyncIterator[Executor]:
    async with open_executor(pair[0]) as opened:
        yield opened


async def until_same_tip(near: RegtestNode, far: RegtestNode) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while near.height() != far.height():
            await asyncio.to_thread(far.rpc, "waitforblockheight", near.height(), 1_000)


@pytest.mark.slow
async def test_a_package_reaches_a_peer_whose_floor_is_above_the_rung(
    pair: tuple[RegtestNode, RegtestNode], executor: Executor
) -> None:
    near, far = pair
    vault = executor.fund_vault()
    executor.fund_wallet()
    await until_same_tip(near, far)
    rung = build_rung(vault, 2)
    child = await executor.build_child(rung, await executor.look(vault, 30))
    outcome = await executor.relay.submit_package(rung.transaction.to_bytes(), child.to_bytes())
    assert outcome.is_in
    wanted = {rung.transaction.txid[::-1].hex(), child.txid[::-1].hex()}
    async with asyncio.timeout(PATIENCE_SECONDS):
        # There is no call that waits for a transaction; each answer is asked for, not slept for.
        while not wanted <= set(await asyncio.to_thread(far.rpc, "getrawmempool")):
            await asyncio.to_thread(far.rpc, "waitfornewblock", 200)
    far.mine(1)
    assert far.rpc("getrawtransaction", rung.transaction.txid[::-1].hex(), 1)["confirmations"] == 1
