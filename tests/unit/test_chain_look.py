"""How records are looked at while blocks come: each from one chain, all of them in the end, and never for ever."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from coordinator.chain_look import MAX_REOPENED, PIECE, ChainLook, ChainMoved, Lookout, conclude, open_look
from smpc.node.memory_bitcoin import MemoryBitcoin
from smpc.types import BlockHash, BtcHeight


class Scanner:
    """Knows a node's newest block once it was told to scan."""

    def __init__(self, node: MemoryBitcoin) -> None:
        self._node = node
        self._known: BlockHash | None = None

    async def scan(self) -> None:
        self._known = (await self._node.fetch_tip()).block_hash

    def knows(self, block_hash: BlockHash) -> bool:
        return block_hash == self._known


class Stand:
    """A chain that gets a block after every so many views."""

    def __init__(self, views_between: int = 0) -> None:
        self.bitcoin = MemoryBitcoin()
        self.bitcoin.mine(10)
        self.views_between = views_between
        self.views = 0
        scanner = Scanner(self.bitcoin)
        self.lookout = Lookout(self.bitcoin, scanner.scan, scanner.knows)

    def see_from(self, look: ChainLook) -> Callable[[int], Awaitable[tuple[int, BtcHeight]]]:
        """View a key as itself, with the height of the look."""

        async def see(key: int) -> tuple[int, BtcHeight]:
            self.views += 1
            if self.views_between and self.views % self.views_between == 0:
                self.bitcoin.mine()
            return key, look.tip.height

        return see

    async def view(self, keys: int) -> list[dict[int, tuple[int, BtcHeight]]]:
        return [dict(piece) async for piece in self.lookout.view_all(range(keys), self.see_from)]


async def test_without_blocks_everything_is_seen_once_in_pieces_of_one_look() -> None:
    stand = Stand()
    pieces = await stand.view(2 * PIECE + 1)
    assert [len(piece) for piece in pieces] == [PIECE, PIECE, 1]
    assert {key: value for piece in pieces for key, value in piece.items()} == {
        key: (key, BtcHeight(10)) for key in range(2 * PIECE + 1)
    }
    assert stand.views == 2 * PIECE + 1


@pytest.mark.parametrize("between", [2, 3, 10, 50])
async def test_blocks_that_keep_coming_delay_the_looking_and_never_stop_it(between: int) -> None:
    stand = Stand(between)
    pieces = await stand.view(100)
    assert sorted(key for piece in pieces for key in piece) == list(range(100))
    for piece in pieces:
        assert len({height for _, height in piece.values()}) == 1, "a piece is of one tip"
    assert stand.bitcoin.height > 10


async def test_a_block_at_every_view_ends_it_in_a_bounded_number_of_tries() -> None:
    stand = Stand(1)
    with pytest.raises(ChainMoved):
        await stand.view(40)
    assert stand.views <= 40 * 2 + MAX_REOPENED


async def test_a_tip_that_was_never_scanned_is_not_looked_at() -> None:
    stand = Stand()

    async def scan_nothing() -> None:
        return None

    lookout = Lookout(stand.bitcoin, scan_nothing, lambda _: False)
    with pytest.raises(ChainMoved):
        await lookout.open()


async def test_a_look_is_kept_while_its_tip_stays_and_forgotten_at_the_next_beginning() -> None:
    stand = Stand()
    first = await stand.lookout.begin()
    assert await stand.lookout.open() is first
    assert await stand.lookout.begin() is not first
    stand.bitcoin.mine()
    assert (await stand.lookout.open()).tip.height == first.tip.height + 1


async def test_a_conclusion_is_of_one_tip_or_of_none() -> None:
    stand = Stand(2)

    async def ask(look: ChainLook) -> BtcHeight:
        _, height = await stand.see_from(look)(0)
        return height

    stand.views = 1
    found = await conclude(lambda: open_look(stand.bitcoin), ask)
    assert found == stand.bitcoin.height == 11
    stand.views_between = 1
    with pytest.raises(ChainMoved):
        await conclude(lambda: open_look(stand.bitcoin), ask)
