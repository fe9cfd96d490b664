"""Invoices that are asked for while an epoch turns: nobody is told of epochs, he gets an address of the next one."""

from __future__ import annotations

import asyncio
from pathlib import Path

from coordinator.invoice_desk import InvoiceDesk
from coordinator.outlook import Outlook
from smpc.protocol.ledger_state import EpochState
from smpc.types import EpochNumber
from tests.support.desk_world import make_order
from tests.support.turning_world import TurningWorld, play_turning


async def is_open() -> None:
    """Nothing is paused or halted."""


def test_an_order_whose_epoch_ends_before_its_record_is_in_a_block_gets_addresses_of_the_next(tmp_path: Path) -> None:
    async def story(world: TurningWorld) -> None:
        await world.until(lambda: world.active == 0 and world.ledger.epochs[EpochNumber(2)].state is EpochState.STANDBY)
        await world.until(lambda: world.consensus.ledger.active_epoch == 1)
        assert world.active == 0, "the turn is not final yet"
        outlook = Outlook(world.ledger, world.bitcoin)
        await outlook.pulse.refresh()
        desk = InvoiceDesk(
            secret=world.epoch.coordinator,
            consensus=world.consensus,
            feed=world.replica,
            bitcoin=outlook.pulse,
            require_open=is_open,
        )
        asked = asyncio.get_running_loop().create_task(desk.issue(make_order(50_000)))
        await world.until(asked.done)
        places = world.ledger.pegins[asked.result()]
        assert [epoch for epoch, _ in places] == [1]
        await desk.close()

    play_turning(story, tmp_path)
