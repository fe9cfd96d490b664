"""The digest by which a rebuilt store is compared with another: over what the two chains tell of every record.

Left out, because no chain tells it: when something was asked or entered, notes, signatures in flight, proposals never
recorded, versions never mined, deposits that no block holds (cases F3, invariant 10).
"""

from __future__ import annotations

from typing import Final

from coordinator.board import Board
from pegin.lifecycle import Deposit, DepositState
from pegout.lifecycle import PegOut
from smpc.protocol.batch import Batch, BatchState
from smpc.protocol.encoding import Field, hash_fields

_UNSEEN: Final = frozenset({DepositState.SEEN, DepositState.MISSING, DepositState.DEAD})


def compute_chain_root(board: Board) -> bytes:
    """Return the 32-byte digest of every comparable record, by kind and id; equal for equal chains at rest."""
    deposits = (item for item in board.deposits.values() if item.state not in _UNSEEN)
    batches = (item for item in board.batches.values() if item.state is not BatchState.ABANDONED)
    return hash_fields(
        "chain-root",
        sorted(hash_fields("chain-deposit", *_list_deposit_facts(deposit)) for deposit in deposits),
        sorted(hash_fields("chain-batch", *_list_batch_facts(batch)) for batch in batches),
        sorted(hash_fields("chain-pegout", *_list_pegout_facts(pegout)) for pegout in board.pegouts.values()),
    )


def _list_deposit_facts(deposit: Deposit) -> tuple[Field, ...]:
    return (
        str(deposit.outpoint),
        deposit.state,
        deposit.value,
        deposit.epoch,
        deposit.child,
        deposit.pegin,
        _maybe(deposit.credited),
        _maybe(deposit.transfer),
        _maybe(deposit.spender),
        _maybe(deposit.height),
        _maybe(deposit.transfer_height),
    )


def _list_batch_facts(batch: Batch) -> tuple[Field, ...]:
    return (batch.intent_id, batch.state, _maybe(batch.recorded), _maybe(batch.replaced_by), _maybe(batch.mined))


def _list_pegout_facts(pegout: PegOut) -> tuple[Field, ...]:
    return (
        pegout.burn,
        pegout.state,
        pegout.payout,
        pegout.script,
        pegout.recorded,
        _maybe(pegout.mined),
        _maybe(pegout.height),
    )


def _maybe(value: int | bytes | None) -> tuple[Field, ...]:
    return () if value is None else (value,)
