"""A whole devnet at MAINNET's pace: 1.3 Bitcoin blocks an epoch, so that retiring epochs do all the work."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from smpc.params import REGTEST
from smpc.protocol.ledger_state import BurnStatus
from tests.support.turning_devnet import TurningDevnet, open_turning_devnet

BLOCKS_BETWEEN: Final = REGTEST.epoch_blocks * 10 // 13
"""Consensus-layer blocks of 10 s between Bitcoin blocks of 10 minutes, in epochs of 80 (design.md section 5)."""

EPOCHS: Final = 5


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_money_goes_both_ways_though_an_epoch_lasts_hardly_longer_than_a_bitcoin_block(tmp_path: Path) -> None:
    async with open_turning_devnet(tmp_path / "net") as net:
        await net.enter_user("20")
        net.miner.blocks_between = BLOCKS_BETWEEN
        for epoch in range(EPOCHS):
            await net.wait_active(epoch)
            await net.deposit(30_000_000 + epoch)
        await net.wait(lambda ledger: ledger.supply, "the first credit")
        await net.burn(1_000_000)
        await net.wait(lambda ledger: len(ledger.credited) == EPOCHS, "the last credit")
        await net.wait(lambda ledger: all(burn.status is BurnStatus.SETTLED for burn in ledger.burns.values()), "BTC")
        assert sum(net.find_value(number) for number in net.ledger.epochs) == net.ledger.vault_total
        await check_the_books(net)


async def check_the_books(net: TurningDevnet) -> None:
    """Count the vault on Bitcoin alone, and the supply from what the user was told."""
    await net.recount()
    (burned,) = net.books.burns
    assert net.difference == 0
    assert net.ledger.supply == await net.fetch_credits() - burned.burned
    assert await net.count_received(burned.address) == burned.wanted
