"""What must hold in a world at every moment, and which of two sets of records must be equal (cases.md, invariants).

Comparable with a rebuild at rest: every deposit that a block holds, every burn, every recorded intent, with state,
amounts, places and ends. Not comparable, because no chain tells it: when something was asked or entered, notes,
signatures in flight, proposals never recorded, versions that were never mined, deposits that no block holds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import combinations

from coordinator.board import Board
from pegin.lifecycle import Deposit, DepositState
from pegout.lifecycle import PegOut
from slashing.release import list_released_txids
from smpc.node.memory_bitcoin import MemoryBitcoin
from smpc.protocol.batch import BatchState
from smpc.protocol.intents import Intent
from smpc.protocol.ledger import Ledger
from smpc.types import IntentId, Outpoint, Txid

_UNSEEN = frozenset({DepositState.SEEN, DepositState.MISSING, DepositState.DEAD})


async def find_broken_invariants(
    bitcoin: MemoryBitcoin, ledger: Ledger, sent: Mapping[Txid, bytes], stolen: Collection[Outpoint] = ()
) -> list[str]:
    """Return every invariant that does not hold, by both chains and by what was ever broadcast.

    `stolen` vault outputs may be gone.
    """
    mined = {}
    for entry in ledger.intents.values():
        found = await bitcoin.fetch_transaction(entry.intent.txid)
        if found is not None and found.height is not None:
            mined[entry.intent.intent_id] = entry.intent
    return [
        *_check_money(ledger),
        *await _check_vault(bitcoin, ledger, mined, stolen),
        *_check_payments(ledger, mined),
        *_check_credits(ledger),
        *_check_versions(ledger, sent),
    ]


def _check_money(ledger: Ledger) -> list[str]:
    difference = ledger.vault_total - ledger.supply - ledger.open_burns - ledger.reserve
    return [f"invariant 1: the money identity is off by {difference} sat"] if difference else []


async def _check_vault(
    bitcoin: MemoryBitcoin, ledger: Ledger, mined: Mapping[IntentId, Intent], stolen: Collection[Outpoint]
) -> list[str]:
    found = []
    spent = {outpoint for intent in mined.values() for outpoint in intent.outpoints}
    for outpoint in ledger.vault:
        known = await bitcoin.fetch_transaction(outpoint.txid)
        is_unspent = await bitcoin.fetch_output(outpoint, include_mempool=False) is not None
        is_ours = outpoint in spent or outpoint in stolen or await _is_moved(bitcoin, ledger, outpoint)
        if known is not None and known.height is not None and not is_unspent and not is_ours:
            found.append(f"invariant 1: vault output {outpoint} was spent by nobody's intent")
    return found


async def _is_moved(bitcoin: MemoryBitcoin, ledger: Ledger, outpoint: Outpoint) -> bool:
    """Tell whether an armed emergency of a released epoch's output is mined."""
    spends = [await bitcoin.fetch_transaction(txid) for txid in list_released_txids(ledger, outpoint)]
    return any(spends)


def _check_payments(ledger: Ledger, mined: Mapping[IntentId, Intent]) -> list[str]:
    found = []
    for burn in ledger.burns:
        payers = [intent for intent in mined.values() if burn in intent.burns]
        if len(payers) > 1:
            found.append(f"invariant 2: burn {burn.hex()} is paid {len(payers)} times")
    return found


def _check_credits(ledger: Ledger) -> list[str]:
    credited = [credit.outpoint for booking in ledger.bookings.values() for credit in booking.credits]
    return ["invariant 2: a deposit is credited twice"] if len(set(credited)) != len(credited) else []


def _check_versions(ledger: Ledger, sent: Mapping[Txid, bytes]) -> list[str]:
    """Whatever was ever signed and sent for one burn conflicts pairwise, so that one version at most is mined."""
    found = []
    intents = [entry.intent for entry in ledger.intents.values() if entry.intent.txid in sent]
    for one, other in combinations(intents, 2):
        common = one.burns & other.burns
        if common and not one.outpoints & other.outpoints:
            found.append(f"invariant 4: two transactions pay {next(iter(common)).hex()} and may both be mined")
    return found


def summarise_board(board: Board, *, with_places: bool = True) -> dict[str, tuple[object, ...]]:
    """Return the comparable part of every comparable record, by kind and id; `with_places` adds block heights."""
    found: dict[str, tuple[object, ...]] = {}
    for deposit in board.deposits.values():
        if deposit.state not in _UNSEEN:
            place = (deposit.height, deposit.transfer_height) if with_places else ()
            found[f"deposit {deposit.outpoint}"] = (*_summarise_deposit(deposit), *place)
    for batch in board.batches.values():
        if batch.state is not BatchState.ABANDONED:
            mined = (batch.mined,) if with_places else ()
            found[f"batch {batch.intent_id.hex()}"] = (
                batch.state,
                batch.intent,
                batch.recorded,
                batch.replaced_by,
                *mined,
            )
    for pegout in board.pegouts.values():
        mined = (pegout.height,) if with_places else ()
        found[f"pegout {pegout.burn.hex()}"] = (*_summarise_pegout(pegout), *mined)
    return found


def _summarise_deposit(deposit: Deposit) -> tuple[object, ...]:
    ends = (deposit.credited, deposit.transfer, deposit.spender)
    return (deposit.state, deposit.value, deposit.epoch, deposit.child, deposit.pegin, *ends)


def _summarise_pegout(pegout: PegOut) -> tuple[object, ...]:
    return (pegout.state, pegout.payout, pegout.script, pegout.recorded, pegout.mined)
