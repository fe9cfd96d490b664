"""The follower on the twin: reorganisations, outages, restarts, and a cursor that loses and repeats nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from smpc.errors import CheckFailed, Halted, InvalidInput, NotFound, Unavailable
from smpc.node.chain_cursor import (
    KEPT_HASHES,
    BlockConnected,
    BlockDisconnected,
    ChainCursor,
    ChainEvent,
    FetchBlock,
    InStep,
    UndoBlock,
)
from smpc.node.follower import BitcoinFollower, fetch_cursor
from smpc.node.memory_bitcoin import MemoryBitcoin
from smpc.node.ports import ChainTip, RawBlock
from smpc.types import BlockHash, BtcHeight, Network

FAR_AWAY = 3600.0


def block_hash(number: int) -> BlockHash:
    return BlockHash(number.to_bytes(32, "big"))


def block(height: int, number: int, previous: int) -> RawBlock:
    return RawBlock(BtcHeight(height), block_hash(number), block_hash(previous), b"")


def tip(height: int, number: int) -> ChainTip:
    return ChainTip(BtcHeight(height), block_hash(number), 0, True, Network.REGTEST, BtcHeight(height))


def cursor(height: int, *numbers: int) -> ChainCursor:
    return ChainCursor(BtcHeight(height), tuple(block_hash(number) for number in numbers))


class Chain:
    """What a consumer believes: built from events alone, and strict about their order."""

    def __init__(self, start: ChainCursor) -> None:
        self.hashes = list(start.hashes)
        self.height = start.height
        self.saved = start

    def apply(self, event: ChainEvent) -> None:
        match event:
            case BlockConnected(connected):
                assert connected.previous == self.hashes[-1]
                assert connected.height == self.height + 1
                self.hashes.append(connected.block_hash)
            case BlockDisconnected(height, gone):
                assert (height, gone) == (self.height, self.hashes.pop())
        self.saved = event.cursor
        self.height = event.cursor.height

    def apply_all(self, events: Iterable[ChainEvent]) -> None:
        for event in events:
            self.apply(event)


async def catch_up(node: MemoryBitcoin, start: ChainCursor) -> list[ChainEvent]:
    return [event async for event in BitcoinFollower(node, start).catch_up()]


async def find_first(follower: BitcoinFollower) -> ChainEvent:
    async with aclosing(follower.follow()) as events:
        return await anext(events)


class TestCursor:
    def test_stays_on_the_tip_it_knows(self) -> None:
        assert cursor(5, 1, 2).find_next_step(tip(5, 2)) == InStep()

    def test_asks_for_the_next_block_of_a_longer_chain(self) -> None:
        assert cursor(5, 1, 2).find_next_step(tip(9, 8)) == FetchBlock(BtcHeight(6))

    @pytest.mark.parametrize("height", [5, 4, 0])
    def test_undoes_its_block_when_the_chain_is_no_longer_than_ours_and_another(self, height: int) -> None:
        assert cursor(5, 1, 2).find_next_step(tip(height, 7)) == UndoBlock()

    def test_connects_only_what_follows_directly(self) -> None:
        here = cursor(5, 1, 2)
        assert here.connect(block(6, 3, 2)) == cursor(6, 1, 2, 3)
        for stranger in (block(6, 3, 1), block(7, 3, 2), block(5, 3, 2)):
            assert not here.is_continued_by(stranger)
            with pytest.raises(InvalidInput):
                here.connect(stranger)

    def test_disconnect_steps_back(self) -> None:
        assert cursor(5, 1, 2).disconnect() == cursor(4, 1)

    def test_disconnect_of_the_last_known_block_halts_and_names_it(self) -> None:
        with pytest.raises(Halted, match="below height 5") as halted:
            cursor(5, 2).disconnect()
        assert halted.value.code == "REORG_TOO_DEEP"

    def test_remembers_a_bounded_number_of_hashes(self) -> None:
        here = cursor(0, 1)
        for height in range(1, KEPT_HASHES + 5):
            here = here.connect(block(height, height + 1, height))
        assert len(here.hashes) == KEPT_HASHES
        assert here.block_hash == block_hash(KEPT_HASHES + 5)

    @pytest.mark.parametrize(("height", "numbers"), [(5, ()), (0, (1, 2))])
    def test_cannot_hold_nothing_or_more_than_the_chain_has(self, height: int, numbers: tuple[int, ...]) -> None:
        with pytest.raises(InvalidInput):
            cursor(height, *numbers)

    @given(st.integers(10, 2**40), st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=5))
    @settings(max_examples=30)
    def test_survives_being_stored(self, height: int, hashes: list[bytes]) -> None:
        here = ChainCursor(BtcHeight(height), tuple(map(BlockHash, hashes)))
        assert ChainCursor.from_bytes(here.to_bytes()) == here

    @pytest.mark.parametrize("raw", [b"", bytes(8), bytes(39), bytes(41)])
    def test_stored_form_of_another_length_is_refused(self, raw: bytes) -> None:
        with pytest.raises(InvalidInput):
            ChainCursor.from_bytes(raw)


class TestCatchUp:
    async def test_tells_every_block_since_the_cursor_once(self) -> None:
        node = MemoryBitcoin()
        mined = node.mine(5)
        events = await catch_up(node, await fetch_cursor(node, BtcHeight(2)))
        assert [event.block.block_hash for event in events if isinstance(event, BlockConnected)] == mined[2:]
        assert len(events) == 3

    async def test_nothing_new_is_no_event(self) -> None:
        node = MemoryBitcoin()
        node.mine(3)
        assert await catch_up(node, await fetch_cursor(node, BtcHeight(3))) == []

    @pytest.mark.parametrize("depth", range(1, 7))
    async def test_reorganisation_undoes_from_the_top_and_connects_from_the_fork(self, depth: int) -> None:
        node = MemoryBitcoin()
        old = node.mine(10)
        start = await fetch_cursor(node, BtcHeight(10))
        new = node.reorganise(depth)
        events = await catch_up(node, start)
        undone = [event.block_hash for event in events[:depth] if isinstance(event, BlockDisconnected)]
        done = [event.block.block_hash for event in events[depth:] if isinstance(event, BlockConnected)]
        assert (undone, done) == (old[-depth:][::-1], new)

    async def test_chain_that_became_shorter_is_followed_down(self) -> None:
        node = MemoryBitcoin()
        mined = node.mine(5)
        start = await fetch_cursor(node, BtcHeight(5))
        node.invalidate(mined[2])
        events = await catch_up(node, start)
        assert [type(event) for event in events] == [BlockDisconnected] * 3

    async def test_every_prefix_of_the_events_is_a_place_to_restart_from(self) -> None:
        node = MemoryBitcoin()
        node.mine(6)
        start = await fetch_cursor(node, BtcHeight(4))
        node.reorganise(4, extra=3)
        events = await catch_up(node, start)
        for cut in range(len(events) + 1):
            saved = events[cut - 1].cursor if cut else start
            assert await catch_up(node, saved) == events[cut:]

    async def test_reorganisation_deeper_than_remembered_halts(self) -> None:
        node = MemoryBitcoin()
        node.mine(10)
        start = await fetch_cursor(node, BtcHeight(10), depth=2)
        node.reorganise(2)
        assert len(await catch_up(node, start)) == 5
        node.reorganise(4)
        with pytest.raises(Halted, match="reorganised below height 8"):
            await catch_up(node, start)

    async def test_errors_of_the_node_pass_through(self) -> None:
        node = MemoryBitcoin()
        start = await fetch_cursor(node, BtcHeight(0))
        node.set_outage(CheckFailed("nonsense"))
        with pytest.raises(CheckFailed):
            await catch_up(node, start)

    async def test_cursor_above_the_tip_cannot_be_made(self) -> None:
        with pytest.raises(NotFound):
            await fetch_cursor(MemoryBitcoin(), BtcHeight(1))

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 3), st.booleans()), max_size=8))
    async def test_consumer_always_ends_on_the_nodes_chain(self, steps: list[tuple[int, int, bool]]) -> None:
        node = MemoryBitcoin()
        node.mine(8)
        chain = Chain(await fetch_cursor(node, BtcHeight(8)))
        for depth, extra, looks in steps:
            node.mine(extra) if depth == 0 else node.reorganise(depth, extra=extra)
            if looks:
                # Whatever was missed between two looks does not matter.
                chain.apply_all(await catch_up(node, chain.saved))
        chain.apply_all(await catch_up(node, chain.saved))
        assert chain.hashes[-1] == (await node.fetch_tip()).block_hash


class TestFollow:
    async def test_waits_through_an_outage_and_says_so_once(self) -> None:
        node = MemoryBitcoin()
        follower = BitcoinFollower(node, await fetch_cursor(node, BtcHeight(0)), interval_seconds=FAR_AWAY)
        node.set_outage(Unavailable("gone"))
        with capture_logs() as lines:
            waiting = asyncio.create_task(find_first(follower))
            for _ in range(3):
                follower.wake()
                # The twin never suspends: one turn is enough to look, fail and rest again.
                await asyncio.sleep(0)
            (mined,) = node.mine()
            node.set_outage(None)
            follower.wake()
            event = await waiting
        assert isinstance(event, BlockConnected)
        assert event.block.block_hash == mined
        assert [line["event"] for line in lines] == ["follower.node_lost", "follower.node_found"]

    async def test_wake_makes_it_look_at_once(self) -> None:
        node = MemoryBitcoin()
        follower = BitcoinFollower(node, await fetch_cursor(node, BtcHeight(0)), interval_seconds=FAR_AWAY)
        waiting = asyncio.create_task(find_first(follower))
        await asyncio.sleep(0)
        node.mine()
        follower.wake()
        async with asyncio.timeout(5):
            assert isinstance(await waiting, BlockConnected)

    async def test_lost_notifications_cost_one_interval_and_nothing_else(self) -> None:
        node = MemoryBitcoin()
        follower = BitcoinFollower(node, await fetch_cursor(node, BtcHeight(0)), interval_seconds=0.001)
        async with aclosing(follower.follow()) as events:
            for _ in range(3):
                (mined,) = node.mine()
                event = await anext(events)
                assert isinstance(event, BlockConnected)
                assert event.block.block_hash == mined

    async def test_reorganisation_too_deep_ends_it(self) -> None:
        node = MemoryBitcoin()
        node.mine(3)
        follower = BitcoinFollower(node, await fetch_cursor(node, BtcHeight(3), depth=0), interval_seconds=0.001)
        node.reorganise(1)
        with pytest.raises(Halted):
            await find_first(follower)

    async def test_cancelled_follower_goes_on_where_it_stood(self) -> None:
        node = MemoryBitcoin()
        follower = BitcoinFollower(node, await fetch_cursor(node, BtcHeight(0)), interval_seconds=FAR_AWAY)
        waiting = asyncio.create_task(find_first(follower))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        mined = node.mine(2)
        events = [event async for event in follower.catch_up()]
        assert [event.cursor.block_hash for event in events] == mined
        assert follower.cursor == events[-1].cursor
