"""Whatever is asked of them, the twin in memory and a real server answer alike, down to the chain hash."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.devnet.valkey_server import ValkeyServer
from coordinator.mempool.faults import LeaseHeld, RequestReused, StaleLease, StaleVersion
from coordinator.mempool.model import ClaimedEffect, FencingToken, Lease, StoreTransition
from coordinator.mempool.opening import Mempool, open_memory_mempool, open_redis_mempool
from coordinator.mempool.verification import verify_store
from tests.support.store_stand import IDENTITY, run_raw, running_server, step, write

_NAMES = st.sampled_from(["a:0", "b:0", "c:0"])
_VERSIONS = st.integers(0, 3)


@dataclass(frozen=True, slots=True)
class Apply:
    """Apply one step; the request ids are few, so that some come again."""

    request: int
    name: str
    version: int
    body: bytes
    effects: int
    is_terminal: bool
    also: str
    also_version: int
    lease: int


@dataclass(frozen=True, slots=True)
class Acquire:
    """Take the lease anew."""

    holder: str


@dataclass(frozen=True, slots=True)
class Claim:
    """Claim effects."""

    count: int
    lease: int


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Acknowledge one of the effects claimed so far."""

    which: int


@dataclass(frozen=True, slots=True)
class Wipe:
    """Forget everything."""


Operation = Apply | Acquire | Claim | Acknowledge | Wipe

_LEASES = st.sampled_from([0, 0, 0, 0, 1])
_APPLIES = st.builds(
    Apply,
    request=st.integers(0, 7),
    name=_NAMES,
    version=_VERSIONS,
    body=st.binary(max_size=4),
    effects=st.integers(0, 2),
    is_terminal=st.booleans(),
    also=st.sampled_from(["", "", "x:0", "y:0"]),
    also_version=_VERSIONS,
    lease=_LEASES,
)
_OPERATIONS = st.one_of(
    _APPLIES,
    _APPLIES,
    _APPLIES,
    st.builds(Acquire, holder=st.sampled_from(["one", "two"])),
    st.builds(Claim, count=st.integers(1, 3), lease=_LEASES),
    st.builds(Acknowledge, which=st.integers(0, 3)),
    st.builds(Wipe),
)


class Player:
    """Plays operations on one store and notes every answer, without the tokens, which are the server's time."""

    def __init__(self, mempool: Mempool) -> None:
        self._mempool = mempool
        self._leases = [Lease("nobody", FencingToken(1), 1)]
        self._claimed: list[ClaimedEffect] = []

    async def play(self, operation: Operation) -> object:
        """Return the answer or the name of the refusal."""
        try:
            return await self._answer(operation)
        except (LeaseHeld, RequestReused, StaleLease, StaleVersion) as refusal:
            return type(refusal).__name__

    async def finish(self) -> object:
        """Return everything that can be seen at the end."""
        records = [record async for record in self._mempool.store.scan()]
        return records, await self._mempool.store.read_head(), await verify_store(self._mempool.store)

    async def _answer(self, operation: Operation) -> object:
        store, outbox = self._mempool.store, self._mempool.outbox
        match operation:
            case Apply():
                return await store.apply(self._build(operation))
            case Acquire(holder):
                self._leases.append(await self._mempool.leases.acquire_lease(holder, 60_000))
                return len(self._leases)
            case Claim(count, lease):
                effects = await outbox.claim_effects(self._pick(lease).token, count=count)
                self._claimed += effects
                return effects
            case Acknowledge(which) if which < len(self._claimed):
                return await outbox.acknowledge(self._pick(0).token, self._claimed[which])
            case Acknowledge():
                return None
            case Wipe():
                await store.wipe(self._pick(0).token)
                return None

    def _pick(self, age: int) -> Lease:
        return self._leases[max(len(self._leases) - 1 - age, 0)]

    def _build(self, apply: Apply) -> StoreTransition:
        effects = tuple(f"e{apply.request}-{number}" for number in range(apply.effects))
        also = (write(apply.also, apply.also_version),) if apply.also else ()
        return step(
            self._pick(apply.lease),
            f"r{apply.request}",
            apply.name,
            apply.version,
            apply.body,
            effects=effects,
            is_terminal=apply.is_terminal,
            also=also,
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    with running_server(tmp_path_factory.mktemp("store")) as running:
        yield running


@settings(max_examples=120, deadline=None)
@given(operations=st.lists(_OPERATIONS, min_size=5, max_size=30))
def test_twin_and_server_give_the_same_answers(server: ValkeyServer, operations: list[Operation]) -> None:
    run_raw(server.url, "FLUSHALL")
    asyncio.run(compare(server.url, operations))


async def compare(url: str, operations: list[Operation]) -> None:
    """Play the operations on both and compare every answer and the end."""
    async with open_redis_mempool(url, IDENTITY) as real:
        players = (Player(open_memory_mempool()), Player(real))
        for operation in [Acquire("one"), *operations]:
            twin_says, server_says = [await player.play(operation) for player in players]
            assert twin_says == server_says, operation
        twin_ends, server_ends = [await player.finish() for player in players]
        assert twin_ends == server_ends
