"""What a pod derives from its own ledger replica before it judges, and that a long history stops nothing else."""

from __future__ import annotations

import asyncio

from pegin.invoice import build_invoice_tree
from smpc.participant.gather import INVOICES_AT_ONCE, WatchedScripts
from tests.support.flow_world import FlowWorld

COUNT = INVOICES_AT_ONCE + 1


def new_world() -> FlowWorld:
    world = FlowWorld.opened()
    for index in range(COUNT):
        world.deposit(index, 500_000)
    return world


def list_scripts(world: FlowWorld) -> dict[bytes, int]:
    return {
        build_invoice_tree(world.keys, entry.request.terms).script: entry.recorded
        for entry in world.ledger.invoices.values()
    }


async def test_others_have_their_turn_while_the_invoices_of_a_long_history_are_read() -> None:
    world, watched, turns = new_world(), WatchedScripts(), list[str]()
    reading = asyncio.create_task(watched.refresh(world.ledger))
    reading.add_done_callback(lambda _: turns.append("read"))

    async def vote() -> None:
        for _ in range(2):
            turns.append("vote")
            await asyncio.sleep(0)

    await asyncio.gather(reading, vote())
    assert turns == ["vote", "vote", "read"]


async def test_reviews_at_the_same_time_each_know_every_invoice_and_later_ones() -> None:
    world, watched = new_world(), WatchedScripts()
    first = asyncio.create_task(watched.refresh(world.ledger))
    await asyncio.sleep(0)
    world.deposit(COUNT, 500_000)
    found = await asyncio.gather(first, watched.refresh(world.ledger))
    assert [dict(each) for each in found] == [list_scripts(world)] * 2
    world.deposit(COUNT + 1, 500_000)
    assert dict(await watched.refresh(world.ledger)) == list_scripts(world)


async def test_a_reading_that_is_given_up_loses_no_invoice() -> None:
    world, watched = new_world(), WatchedScripts()
    given_up = asyncio.create_task(watched.refresh(world.ledger))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.wait([given_up])
    assert dict(await watched.refresh(world.ledger)) == list_scripts(world)
