"""What keeps a coordinator from promising: its standing, its lease, its operator, and the patience to wait."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from coordinator.bitcoin_pulse import BitcoinPulse
from coordinator.board import Changes
from coordinator.mempool.faults import StaleLease, StoreUnavailable
from coordinator.mempool.memory_store import MemoryTables
from coordinator.mempool.model import Lease
from coordinator.mempool.opening import open_memory_mempool
from coordinator.patience import LONGEST_PAUSE_SECONDS, compute_pause, run_beside, run_together, wait_for_dependency
from coordinator.pause import PauseSwitch
from coordinator.planner import PEGIN_FLOW, PEGOUT_FLOW
from coordinator.standing import Standing, StandingGate
from coordinator.tenure import Tenure
from smpc.errors import ConfigError, Halted, InvalidInput, Refused, TimedOut, Unavailable
from smpc.node.memory_bitcoin import MemoryBitcoin
from smpc.types import FeeRate

PEG_METHOD = "/pegbridge.v1.PegService/GetTerms"
HEALTH_METHOD = "/grpc.health.v1.Health/Check"


class Call:
    """A call as a gate sees it."""

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def time_remaining(self) -> float | None:
        return 1.0


# ------------------------------------------------------------------ standing


def test_answers_nobody_but_a_health_check_before_it_is_informed() -> None:
    standing = Standing()
    gate = StandingGate(standing)
    gate.admit(HEALTH_METHOD, Call())
    with pytest.raises(Unavailable, match="starting"):
        gate.admit(PEG_METHOD, Call())
    standing.begin()
    gate.admit(PEG_METHOD, Call())


def test_goes_on_answering_but_promises_nothing_while_a_dependency_is_away() -> None:
    standing = Standing()
    standing.begin()
    standing.require_promising()
    standing.note("bitcoind", "connection refused")
    standing.require_informed()
    assert not standing.is_promising
    with pytest.raises(Unavailable, match="connection refused"):
        standing.require_promising()
    standing.note("bitcoind", "")
    standing.require_promising()


async def test_halts_once_with_the_first_reason_and_tells_who_waits() -> None:
    standing = Standing()
    standing.begin()
    waiting = asyncio.get_running_loop().create_task(standing.wait_halted())
    await asyncio.sleep(0)
    standing.halt(Halted("the money identity is off by 1 sat"))
    standing.halt(Halted("something later"))
    with pytest.raises(Halted, match="off by 1 sat"):
        await waiting
    with pytest.raises(Halted, match="off by 1 sat"):
        standing.require_promising()
    assert standing.describe() == "the money identity is off by 1 sat"


# ------------------------------------------------------------------ the lease


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class FlakyLeases:
    """Leases of a store that can be cut off."""

    def __init__(self, tables: MemoryTables) -> None:
        self._inner = open_memory_mempool(tables).leases
        self.is_cut = False
        self.renewed = asyncio.Event()

    async def acquire_lease(self, holder: str, ttl_ms: int) -> Lease:
        return await self._inner.acquire_lease(holder, ttl_ms)

    async def renew_lease(self, lease: Lease) -> None:
        if self.is_cut:
            raise StoreUnavailable("cut")
        await self._inner.renew_lease(lease)
        self.renewed.set()

    async def release_lease(self, lease: Lease) -> None:
        if self.is_cut:
            raise StoreUnavailable("cut")
        await self._inner.release_lease(lease)


async def test_a_lease_is_held_for_its_time_after_the_last_renewal_and_no_longer() -> None:
    clock = Clock()
    tenure = Tenure(open_memory_mempool().leases, "one", 15.0, clock)
    assert not tenure.is_held
    async with tenure.hold():
        clock.now += 14.9
        tenure.require_held()
        clock.now += 0.2
        with pytest.raises(Unavailable):
            tenure.require_held()
    assert not tenure.is_held


async def test_a_lease_counts_from_when_it_was_asked_for() -> None:
    clock = Clock()

    class SlowLeases(FlakyLeases):
        async def acquire_lease(self, holder: str, ttl_ms: int) -> Lease:
            clock.now += 10.0
            return await super().acquire_lease(holder, ttl_ms)

    tenure = Tenure(SlowLeases(MemoryTables()), "one", 15.0, clock)
    async with tenure.hold():
        clock.now += 4.9
        tenure.require_held()
        clock.now += 0.2
        assert not tenure.is_held


async def test_a_lease_is_given_back_long_before_its_time_is_over() -> None:
    tables = MemoryTables()
    async with Tenure(FlakyLeases(tables), "one", 3_600.0).hold() as first:
        pass
    async with asyncio.timeout(5), Tenure(FlakyLeases(tables), "two", 3_600.0).hold() as second:
        assert second.token > first.token


async def test_a_lease_is_renewed_through_an_outage() -> None:
    tables = MemoryTables()
    leases = FlakyLeases(tables)
    tenure = Tenure(leases, "one", 0.06)
    async with tenure.hold() as lease:
        keeping = asyncio.get_running_loop().create_task(tenure.keep(lease))
        leases.is_cut = True
        await asyncio.sleep(0.05)
        assert not keeping.done()
        leases.is_cut = False
        async with asyncio.timeout(5):
            await leases.renewed.wait()
        keeping.cancel()


async def test_who_lost_the_lease_must_end() -> None:
    tables = MemoryTables()
    tenure = Tenure(open_memory_mempool(tables).leases, "one", 0.06)
    async with tenure.hold() as lease:
        keeping = asyncio.get_running_loop().create_task(tenure.keep(lease))
        await asyncio.sleep(0)
        await open_memory_mempool(tables).leases.acquire_lease("one", 60_000)
        with pytest.raises(StaleLease):
            await asyncio.wait_for(keeping, 5)


# ------------------------------------------------------------------ the operator's switch


def test_a_pause_outlives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "paused.json"
    switch = PauseSwitch(path)
    assert switch.paused == set()
    held_by_driver = switch.paused
    switch.turn(PEGIN_FLOW, is_paused=True)
    assert held_by_driver == {PEGIN_FLOW}
    with pytest.raises(Refused) as refused:
        PauseSwitch(path).require_running(PEGIN_FLOW)
    assert (refused.value.code, refused.value.rule) == ("PAUSED", "V05")
    PauseSwitch(path).require_running(PEGOUT_FLOW)
    switch.turn(PEGIN_FLOW, is_paused=False)
    assert PauseSwitch(path).paused == set()
    assert held_by_driver == set()


def test_only_known_flows_are_paused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no flow 'sweeps'"):
        PauseSwitch(tmp_path / "paused.json").turn("sweeps", is_paused=True)
    assert not (tmp_path / "paused.json").exists()


@pytest.mark.parametrize("content", ["", "{}", '["sweeps"]', "[1]", "not json"])
def test_a_damaged_switch_refuses_to_start(tmp_path: Path, content: str) -> None:
    path = tmp_path / "paused.json"
    path.touch(mode=0o600)
    path.write_text(content)
    with pytest.raises(ConfigError, match="paused flows"):
        PauseSwitch(path)


# ------------------------------------------------------------------ patience


async def test_waits_for_a_dependency_and_says_why_until_it_answers() -> None:
    notes: list[str] = []
    answers = [Unavailable("down"), TimedOut("slow"), None]

    async def ask() -> str:
        failure = answers.pop(0)
        if failure is not None:
            raise failure
        return "up"

    assert await wait_for_dependency("it", ask, notes.append) == "up"
    assert notes == ["down", "slow", ""]


async def test_what_waiting_cannot_cure_is_raised_at_once() -> None:
    async def ask() -> str:
        raise ConfigError("wrong chain")

    with pytest.raises(ConfigError):
        await wait_for_dependency("it", ask)


def test_a_healed_dependency_is_never_unnoticed_for_long() -> None:
    assert max(compute_pause(failures) for failures in range(1_000)) <= LONGEST_PAUSE_SECONDS


async def test_the_first_failure_ends_the_others_and_is_told_as_it_is() -> None:
    ended = asyncio.Event()

    async def stay() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fail() -> None:
        raise Halted("stop")

    with pytest.raises(Halted):
        await run_together(stay(), fail())
    assert ended.is_set()


async def test_a_companion_ends_with_the_work_and_its_failure_ends_the_work() -> None:
    async def stay() -> None:
        await asyncio.Event().wait()

    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    async def fail() -> None:
        raise Halted("stop")

    assert await run_beside(stay(), work()) == 7
    with pytest.raises(Halted):
        await run_beside(fail(), stay())


# ------------------------------------------------------------------ Bitcoin's pulse


async def test_the_pulse_tells_of_every_new_tip_and_keeps_the_last_one_through_an_outage() -> None:
    node, changed = MemoryBitcoin(), Changes()
    node.mine(3)
    node.set_fee_estimate(FeeRate(7_000))
    pulse = BitcoinPulse(node, changed)
    assert pulse.height == 0
    await pulse.refresh()
    await pulse.refresh()
    assert (pulse.height, pulse.estimate, changed.count) == (3, 7_000, 1)
    node.mine()
    node.set_outage(Unavailable("down"))
    running = asyncio.get_running_loop().create_task(pulse.run(0.005))
    await asyncio.sleep(0.02)
    assert (pulse.height, running.done()) == (3, False)
    node.set_outage(None)
    async with asyncio.timeout(5):
        await changed.wait_beyond(1)
    running.cancel()
    assert pulse.height == 4
