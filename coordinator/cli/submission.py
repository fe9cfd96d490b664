"""Sends a signed record of the user and sees it through: a node that goes away costs time, never a second record.

A record has one id, and the ledger takes it once: the same bytes may be offered again and again. What must never happen
is that a user, told of a lost connection, signs another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from smpc.errors import BridgeError, TimedOut, Unavailable
from smpc.node.consensus import ConsensusNode
from smpc.protocol.records import Record
from smpc.types import KaonHeight

FINAL_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.1
_RETRY_SECONDS: Final = 1.0

ErrorT = TypeVar("ErrorT", bound=BridgeError)
Note = Callable[[str], None]


async def submit_until_final(
    consensus: ConsensusNode, record: Record, note: Note, *, seconds: float = FINAL_SECONDS
) -> KaonHeight:
    """Send a signed record, again while the node is away, until its block is final; a final height at which it stands.

    The ledger's Refused, InvalidInput or Conflict come as they are. Unavailable or TimedOut after `seconds`, naming the
    record: it may stand all the same.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    note("waiting for a block of the consensus layer")
    while True:
        try:
            await consensus.submit(record, wait=True)
            recorded = (await consensus.fetch_tip()).height
            return await _wait_final(consensus, recorded, deadline, note)
        except (Unavailable, TimedOut) as away:
            if asyncio.get_running_loop().time() + _RETRY_SECONDS > deadline:
                raise _may_stand(away, record) from away
            note(f"{away.message}; the same record is sent again")
            await asyncio.sleep(_RETRY_SECONDS)


async def _wait_final(consensus: ConsensusNode, height: KaonHeight, deadline: float, note: Note) -> KaonHeight:
    while True:
        tip = await consensus.fetch_tip()
        if tip.final >= height:
            return tip.final
        note(f"waiting for finality: {max(0, height - tip.final)} more block(s)")
        if asyncio.get_running_loop().time() > deadline:
            raise TimedOut(f"block {height} is not final yet")
        await asyncio.sleep(_POLL_SECONDS)


def _may_stand(away: Unavailable | TimedOut, record: Record) -> BridgeError:
    return type(away)(
        f"{away.message}; record {record.record_id.hex()} was sent and may stand",
        remedy="do not make another one before your consensus node answers: peg transfer ID, or peg pegout status ID",
        code=away.code,
    )
