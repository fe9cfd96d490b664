"""Stories about threads that read a ledger while its loop tries blocks out and applies them."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from smpc.node.ledger_gate import MAX_READINGS, LedgerGate
from smpc.node.trial_ledger import TrialLedger, change_unread, read_in_thread
from smpc.protocol.ledger import Ledger
from smpc.protocol.records import KaonBlock
from smpc.protocol.verdict_records import EvidenceRecorded
from smpc.types import Role
from tests.support.armed_world import ArmedWorld
from tests.support.groups import EPOCH
from tests.support.thefts import steal_vault


@dataclass(slots=True)
class Readers:
    """Readings that last until they are told to end, and what happened in which order."""

    gate: LedgerGate
    order: list[str] = field(default_factory=list)
    ends: dict[str, threading.Event] = field(default_factory=dict)
    begun: dict[str, asyncio.Event] = field(default_factory=dict)

    def start(self, name: str) -> asyncio.Task[None]:
        """Ask for a reading."""
        loop, end, begun = asyncio.get_running_loop(), threading.Event(), asyncio.Event()
        self.ends[name], self.begun[name] = end, begun

        def read() -> None:
            self.order.append(name)
            loop.call_soon_threadsafe(begun.set)
            assert end.wait(10)

        return loop.create_task(self.gate.read_in_thread(read))

    def change(self, name: str) -> asyncio.Task[None]:
        """Ask for a change."""
        return asyncio.get_running_loop().create_task(self.gate.change(lambda: self.order.append(name)))

    async def end(self, *names: str) -> None:
        """Let readings end once they have begun."""
        for name in names:
            await self.begun[name].wait()
            self.ends[name].set()


@pytest.fixture
def readers() -> Readers:
    return Readers(LedgerGate())


async def let_all_run() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_change_waits_for_the_readings_that_run_and_the_next_readings_for_the_change(readers: Readers) -> None:
    first = readers.start("first")
    await readers.begun["first"].wait()
    change = readers.change("change")
    await let_all_run()
    second = readers.start("second")
    await let_all_run()
    assert readers.order == ["first"]
    await readers.end("first", "second")
    await asyncio.gather(first, change, second)
    assert readers.order == ["first", "change", "second"]


async def test_so_many_read_at_once_and_one_more_waits(readers: Readers) -> None:
    names = [str(number) for number in range(MAX_READINGS + 1)]
    tasks = [readers.start(name) for name in names]
    for name in names[:-1]:
        await readers.begun[name].wait()
    await let_all_run()
    assert sorted(readers.order) == names[:-1]
    await readers.end(*names)
    await asyncio.gather(*tasks)
    assert readers.gate.is_unread


async def test_of_many_readers_and_many_changes_neither_starves(readers: Readers) -> None:
    early = [readers.start(f"early {number}") for number in range(MAX_READINGS)]
    await let_all_run()
    changes = [readers.change(f"change {number}") for number in range(2)]
    late = [readers.start(f"late {number}") for number in range(2 * MAX_READINGS)]
    await let_all_run()
    await readers.end(*readers.ends)
    await asyncio.gather(*early, *changes, *late)
    kinds = [name.split()[0] for name in readers.order]
    assert kinds == ["early"] * MAX_READINGS + (["change"] + ["late"] * MAX_READINGS) * 2


async def test_a_reading_that_nobody_awaits_any_more_holds_changes_back_until_its_thread_ends(readers: Readers) -> None:
    reading = readers.start("reading")
    await readers.begun["reading"].wait()
    reading.cancel()
    await asyncio.wait([reading])
    assert reading.cancelled()
    change = readers.change("change")
    await let_all_run()
    assert not change.done()
    await readers.end("reading")
    await change


@pytest.mark.parametrize("is_let_in", [False, True])
async def test_a_change_that_is_given_up_holds_nobody_back(readers: Readers, is_let_in: bool) -> None:
    first = readers.start("first")
    await readers.begun["first"].wait()
    change = readers.change("change")
    await let_all_run()
    after = [readers.start("after"), readers.change("another change")]
    await let_all_run()
    if is_let_in:
        await readers.end("first")
        while not readers.gate.is_unread:  # noqa: ASYNC110 - the very step in which the change is let in
            await asyncio.sleep(0)
    change.cancel()
    await readers.end("first", "after")
    await asyncio.gather(first, *after)
    assert "change" not in readers.order or is_let_in
    assert readers.gate.is_unread
    assert await readers.gate.change(lambda: True)


@pytest.mark.parametrize("is_let_in", [False, True])
async def test_a_reader_that_is_given_up_holds_nobody_back(readers: Readers, is_let_in: bool) -> None:
    first = [readers.start(f"first {number}") for number in range(MAX_READINGS)]
    await let_all_run()
    waiting, last = readers.start("waiting"), readers.start("last")
    await let_all_run()
    if is_let_in:
        await readers.end(*(f"first {number}" for number in range(MAX_READINGS)))
        await asyncio.wait(first)
    waiting.cancel()
    readers.ends["waiting"].set()
    await readers.end(*(f"first {number}" for number in range(MAX_READINGS)), "last")
    await asyncio.gather(*first, last)
    await asyncio.wait([waiting])
    assert await readers.gate.change(lambda: True)


async def test_what_a_reading_or_a_change_raises_reaches_who_asked_and_closes_nothing(readers: Readers) -> None:
    def fail() -> None:
        raise KeyError("mine")

    for _ in range(MAX_READINGS + 1):
        with pytest.raises(KeyError):
            await readers.gate.read_in_thread(fail)
        with pytest.raises(KeyError):
            await readers.gate.change(fail)
    assert await readers.gate.read_in_thread(lambda: 7) == 7


# -------------------------------------------------------------- a replica's ledger


def build_unfinal_verdict() -> tuple[TrialLedger, tuple[KaonBlock, ...]]:
    """Return a ledger of final blocks, and blocks upon it that judge V of the epoch."""
    world = ArmedWorld.filled(500_000)
    chain = world.chain
    known = len(chain.blocks)
    final = TrialLedger(chain.ledger.genesis, chain.ledger.params)
    for block in chain.blocks:
        final.apply_block(block)
    theft = steal_vault(chain.ledger, world.armed.keyed[EPOCH])
    chain.add(EvidenceRecorded(theft.accuse(Role.VALIDATOR)))
    chain.skip(2)
    return final, tuple(chain.blocks[known:])


def look(ledger: Ledger) -> tuple[int, int, bool, int]:
    """Read what a review reads, entry by entry; a table that is written meanwhile raises RuntimeError."""
    verdicts = sum(1 for _ in ledger.judgements.verdicts)
    intents = sum(1 for entry in ledger.intents.values() if entry.status.is_standing)
    is_convicted = ledger.epochs[EPOCH].is_convicted
    return (
        verdicts,
        intents + sum(1 for _ in ledger.records),
        is_convicted,
        len(ledger.judgements.list_rejectable(EPOCH)),
    )


async def test_no_thread_ever_sees_a_verdict_that_is_tried_out() -> None:
    final, unfinal = build_unfinal_verdict()
    before, dice = look(final), random.Random(7)

    async def read() -> None:
        for _ in range(60):
            assert await read_in_thread(final, look) == before
            await asyncio.sleep(dice.random() / 1_000)

    async def try_out() -> None:
        for _ in range(40):
            await change_unread(final, final.check_blocks, unfinal)
            await asyncio.sleep(dice.random() / 1_000)

    async with asyncio.TaskGroup() as group:
        for story in (read(), read(), read(), try_out(), try_out()):
            group.create_task(story)
    for block in unfinal:
        await change_unread(final, final.apply_block, block)
    assert look(final) != before


async def test_a_reading_sees_one_state_from_its_begin_to_its_end_though_blocks_become_final() -> None:
    final, unfinal = build_unfinal_verdict()
    loop = asyncio.get_running_loop()

    def look_twice(ledger: Ledger, begun: asyncio.Event) -> bool:
        first = (ledger.height, look(ledger))
        loop.call_soon_threadsafe(begun.set)
        threading.Event().wait(0.02)  # the loop would apply a block now, if it could
        return first == (ledger.height, look(ledger))

    for block in unfinal:
        begun = asyncio.Event()
        reading = asyncio.create_task(read_in_thread(final, look_twice, begun))
        await begun.wait()
        await change_unread(final, final.apply_block, block)
        assert await reading
    assert final.height == unfinal[-1].height
    assert final.epochs[EPOCH].is_convicted


def write_to(final: TrialLedger, unfinal: tuple[KaonBlock, ...]) -> list[Callable[[], object]]:
    record = unfinal[0].records[0]
    return [
        lambda: final.apply_block(unfinal[0]),
        lambda: final.check_blocks(unfinal),
        lambda: final.check_record(record),
    ]


async def test_nothing_writes_a_ledger_that_a_thread_reads() -> None:
    final, unfinal = build_unfinal_verdict()
    readers = Readers(final.gate)
    reading = readers.start("reading")
    await readers.begun["reading"].wait()
    root = final.compute_state_root()
    for write in write_to(final, unfinal):
        with pytest.raises(RuntimeError, match="gate"):
            write()
    assert final.compute_state_root() == root
    await readers.end("reading")
    await reading
    for write in reversed(write_to(final, unfinal)):
        write()
    assert final.height == unfinal[0].height
