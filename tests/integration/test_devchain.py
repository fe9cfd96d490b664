"""`peg-devchain` as a process of its own: it serves, it loses nothing when killed, and it stops when told."""

from __future__ import annotations

import signal
from pathlib import Path

from smpc.host.peer import PeerRole
from smpc.types import KaonHeight
from tests.support.devchain import DevchainFiles, DevchainProcess
from tests.support.groups import make_secret


async def test_a_killed_devchain_goes_on_where_it_was(tmp_path: Path) -> None:
    files = DevchainFiles.create(tmp_path)
    async with DevchainProcess(files) as devchain:
        client = devchain.connect(PeerRole.USER, make_secret("user"))
        blocks = client.watch_blocks(KaonHeight(1))
        seen = [await anext(blocks) for _ in range(5)]
        await blocks.aclose()
        assert await devchain.stop(signal.SIGKILL) == -signal.SIGKILL
        await devchain.start()
        client = devchain.connect(PeerRole.USER, make_secret("user"))
        again = [await client.fetch_block(block.height) for block in seen]
        assert again == seen
        assert (await client.fetch_tip()).height >= 5
        assert await devchain.stop() == 0
