"""What a deep reorg took off the chain after its batch was over: nobody but us would send it again."""

from __future__ import annotations

from coordinator.board import Board
from coordinator.chain_look import ChainLook
from smpc.protocol.batch import Batch
from smpc.protocol.ledger import Ledger
from smpc.types import Txid


async def list_lost_transactions(ledger: Ledger, board: Board, look: ChainLook) -> tuple[bytes, ...]:
    """Return the signed transactions under booked vault outputs that neither chain nor mempool has, parents first.

    A transfer waits for its relative lock, so a node drops it when a reorg unconfirms its deposits; the same bytes
    are valid again once those are deep enough. Nothing is signed or promised for it.
    """
    batches = {batch.intent.txid: batch for batch in board.batches.values() if batch.signed_tx}
    lost: dict[Txid, Batch] = {}
    pending = [outpoint.txid for outpoint in sorted(ledger.vault)]
    while pending:
        txid = pending.pop()
        batch = batches.get(txid)
        if batch is None or txid in lost or await look.transaction(txid) is not None:
            continue
        lost[txid] = batch
        pending += [item.outpoint.txid for item in batch.intent.inputs]
    return tuple(batch.signed_tx for batch in sorted(lost.values(), key=lambda batch: batch.recorded or 0))
