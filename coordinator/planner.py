"""Decides what to propose next: transfers of mature deposits, payouts of due burns, replacements of what is stuck.

Nothing here is trusted: pods rebuild and judge every proposal. What they refuse is proposed again in smaller batches
and ever later, so that one bad deposit or burn never holds up the others (case B24).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import structlog

from coordinator.board import Board
from coordinator.chain_look import ChainLook, ask_all
from pegin.deposits import select_deposits
from pegin.holdings import list_due_burns, list_free_coins
from pegin.lifecycle import Deposit, DepositState
from pegin.model import BuiltTransaction, compute_first_rate, compute_rate_limit
from pegout.build import rebuild
from pegout.bump import BumpRequest, build_bump
from pegout.coins import PayoutRequest, choose_payout
from smpc.errors import BridgeError
from smpc.node.ports import UnspentOutput
from smpc.protocol.batch import UNRECORDED, Batch
from smpc.protocol.facts import InputFacts
from smpc.protocol.intents import IntentChoice, IntentInput, IntentKind
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import EpochState, IntentStatus
from smpc.types import BurnId, EpochNumber, FeeRate, IntentId, KaonHeight, Outpoint, Txid

log = structlog.get_logger()

PEGIN_FLOW: Final = "pegin"
PEGOUT_FLOW: Final = "pegout"
"""Names of the flows an operator pauses."""

HOLD_BLOCKS: Final = 8
"""Final consensus-layer blocks a refused item waits; doubled each time it is refused alone."""

MAX_HOLD_DOUBLINGS: Final = 8

RATE_STEP: Final = 20
"""Sat/kvB by which an intent differs from the same one that ended; a few satoshi of fee."""

MAX_RATE_STEPS: Final = 16

_PAYING_STATES: Final = frozenset({EpochState.ACTIVE, EpochState.RETIRING})

Item = Outpoint | BurnId

ItemT = TypeVar("ItemT", Outpoint, BurnId)


@dataclass(frozen=True, slots=True)
class _Hold:
    """Why an item waits or stands apart: with which others it is suspected, and until which height it is held."""

    suspicion: int
    refusals: int
    until: KaonHeight


class Quarantine:
    """Halves what was refused together until the culprit stands alone; that one waits ever longer (case B24).

    A batch of 500 with one bad item costs some 18 more proposals, and the good halves go on at once. In memory: a
    restart only tries again.
    """

    def __init__(self) -> None:
        self._holds: dict[Item, _Hold] = {}
        self._suspicions = 0

    def note_refusal(self, items: Collection[Item], height: KaonHeight) -> None:
        """Remember that a proposal of these items was refused."""
        ordered = sorted(items)
        if len(ordered) == 1:
            self._hold_alone(ordered[0], height)
            return
        middle = (len(ordered) + 1) // 2
        for half in (ordered[:middle], ordered[middle:]):
            self._suspicions += 1
            for item in half:
                known = self._holds.get(item)
                self._holds[item] = _Hold(self._suspicions, known.refusals if known else 0, height)

    def forgive(self, items: Iterable[Item]) -> None:
        """Forget items whose proposal was endorsed."""
        for item in items:
            self._holds.pop(item, None)

    def is_held(self, item: Item, height: KaonHeight) -> bool:
        """Tell whether an item must wait."""
        hold = self._holds.get(item)
        return hold is not None and height < hold.until

    def split(self, items: Iterable[ItemT]) -> list[list[ItemT]]:
        """Return items that may be proposed together, in their order: all that nobody refused, and each suspicion."""
        groups: dict[int, list[ItemT]] = {}
        for item in items:
            hold = self._holds.get(item)
            groups.setdefault(0 if hold is None else hold.suspicion, []).append(item)
        return [groups[suspicion] for suspicion in sorted(groups)]

    def _hold_alone(self, item: Item, height: KaonHeight) -> None:
        known = self._holds.get(item)
        refusals = known.refusals if known else 0
        wait = HOLD_BLOCKS << min(refusals, MAX_HOLD_DOUBLINGS)
        self._suspicions += 1
        self._holds[item] = _Hold(self._suspicions, refusals + 1, KaonHeight(height + wait))


class Planner:
    """Builds the next proposals from the board, the ledger and one look at Bitcoin."""

    def __init__(self, ledger: Ledger, board: Board, quarantine: Quarantine, paused: Collection[str]) -> None:
        self._ledger = ledger
        self._board = board
        self._quarantine = quarantine
        self._paused = paused

    async def plan(self, look: ChainLook, estimate: FeeRate | None) -> tuple[BuiltTransaction, ...]:
        """Return the transactions to propose now, none of which meets another or a batch under way."""
        target = self._ledger.active_epoch
        if target is None:
            return ()
        rate = compute_first_rate(self._ledger.params, estimate)
        found: list[BuiltTransaction] = []
        if PEGIN_FLOW not in self._paused:
            found += await self._plan_transfers(look, target, rate)
        if PEGOUT_FLOW not in self._paused:
            found += await self._plan_payouts(look, target, rate)
        return tuple(found)

    async def plan_bump(self, look: ChainLook, intent: IntentId, estimate: FeeRate | None) -> BuiltTransaction | None:
        """Return the replacement of a stuck intent; None when there is none to be had now."""
        entry = self._ledger.intents.get(intent)
        if entry is None or entry.status is not IntentStatus.LIVE or self._has_successor(intent):
            return None
        spare = await self._list_coins(look, entry.intent.epoch)
        limit = compute_rate_limit(self._ledger.params, estimate)
        try:
            for number in range(MAX_RATE_STEPS):
                request = BumpRequest(intent, limit, spare, more_rate=FeeRate(number * RATE_STEP))
                built = build_bump(self._ledger, request)
                if built.intent.intent_id not in self._ledger.intents:
                    return built
        except BridgeError as impossible:
            log.info("bump.not_possible", intent=intent.hex(), reason=impossible.message)
        return None

    # -------------------------------------------------------------- transfers

    async def _plan_transfers(self, look: ChainLook, target: EpochNumber, rate: FeeRate) -> list[BuiltTransaction]:
        found: list[BuiltTransaction] = []
        mature = self._list_free_deposits()
        for epoch in sorted({deposit.epoch for deposit in mature}):
            own = [deposit for deposit in mature if deposit.epoch == epoch]
            facts = await self._gather(look, own)
            for group in self._quarantine.split([deposit.outpoint for deposit in own]):
                chosen = [(_to_input(self._board.deposits[point]), facts[point]) for point in group if point in facts]
                batch = select_deposits(self._ledger, epoch, chosen, rate)
                points = tuple(sorted(item.outpoint for item in batch))
                choice = IntentChoice(IntentKind.TRANSFER, epoch, target, points, (), rate, ())
                found += self._build_fresh(choice, batch) if batch else []
        return found

    def _list_free_deposits(self) -> list[Deposit]:
        taken = {outpoint for batch in self._list_proposed() for outpoint in batch.intent.outpoints}
        return [
            deposit
            for deposit in self._board.open_deposits()
            if deposit.state is DepositState.MATURE
            and deposit.outpoint not in taken
            and not self._quarantine.is_held(deposit.outpoint, self._ledger.height)
        ]

    async def _gather(self, look: ChainLook, deposits: Iterable[Deposit]) -> Mapping[Outpoint, InputFacts]:
        outputs = await ask_all([deposit.outpoint for deposit in deposits], look.output)
        spenders = await ask_all([point for point, output in outputs.items() if output], look.mempool_spender)
        return {
            point: _to_facts(point, output, spenders.get(point))
            for point, output in outputs.items()
            if output is not None
        }

    # -------------------------------------------------------------- payouts

    async def _plan_payouts(self, look: ChainLook, target: EpochNumber, rate: FeeRate) -> list[BuiltTransaction]:
        found: list[BuiltTransaction] = []
        taken: set[BurnId] = set()
        for epoch in self._list_paying_epochs():
            coins = await self._list_coins(look, epoch)
            waiting = [burn for burn in self._list_due_burns() if burn not in taken]
            request = PayoutRequest(epoch, target, rate, self._ledger.height)
            for group in self._quarantine.split(waiting):
                choice = choose_payout(self._ledger, request, coins, group)
                if choice is None:
                    continue
                found += self._build_fresh(choice, coins)
                coins = tuple(coin for coin in coins if coin.outpoint not in choice.outpoints)
                taken.update(choice.burns)
        return found

    def _list_due_burns(self) -> list[BurnId]:
        proposed = {burn for batch in self._list_proposed() for burn in batch.intent.burns}
        return [
            entry.burn_id
            for entry in list_due_burns(self._ledger, self._ledger.height)
            if entry.burn_id not in proposed and not self._quarantine.is_held(entry.burn_id, self._ledger.height)
        ]

    def _list_paying_epochs(self) -> list[EpochNumber]:
        """Return the epochs that pay out, oldest first: retiring ones do the work."""
        return sorted(number for number, entry in self._ledger.epochs.items() if entry.state in _PAYING_STATES)

    async def _list_coins(self, look: ChainLook, epoch: EpochNumber) -> tuple[IntentInput, ...]:
        """Return an epoch's free vault outputs that have passed the transfer lock on my own chain."""
        proposed = {outpoint for batch in self._list_proposed() for outpoint in batch.intent.outpoints}
        held = [entry.outpoint for entry in self._ledger.vault.values() if entry.epoch == epoch]
        outputs = await ask_all([point for point in held if point not in proposed], look.output)
        lock = self._ledger.params.transfer_csv
        mature = [point for point, output in outputs.items() if output is not None and output.confirmations >= lock]
        return list_free_coins(self._ledger, epoch, mature)

    # -------------------------------------------------------------- shared

    def _build_fresh(self, choice: IntentChoice, known: Sequence[IntentInput]) -> list[BuiltTransaction]:
        """Build what was chosen; what cannot be built stands aside.

        An intent that was withdrawn or is dead has an id that no pod signs any more, so the same choice gets another
        one: a slightly higher rate makes another transaction.
        """
        try:
            for number in range(MAX_RATE_STEPS):
                rate = FeeRate(choice.fee_rate + number * RATE_STEP)
                built = rebuild(self._ledger, replace(choice, fee_rate=rate), known)
                if built.intent.intent_id not in self._ledger.intents:
                    return [built]
        except BridgeError as impossible:
            log.warning("batch.not_built", kind=choice.kind, inputs=len(known), reason=impossible.message)
        self._quarantine.note_refusal(choice.burns or choice.outpoints, self._ledger.height)
        return []

    def _list_proposed(self) -> list[Batch]:
        """Return the batches that hold their items although the ledger does not know them yet."""
        return [batch for batch in self._board.open_batches() if batch.state in UNRECORDED]

    def _has_successor(self, intent: IntentId) -> bool:
        return any(intent in batch.intent.replaces for batch in self._list_proposed())


def list_items(batch: Batch) -> tuple[Item, ...]:
    """Return what a refusal of this batch is about: its burns, or its deposits."""
    intent = batch.intent
    return tuple(sorted(intent.burns)) if intent.kind is IntentKind.PAYOUT else tuple(sorted(intent.outpoints))


def _to_input(deposit: Deposit) -> IntentInput:
    return IntentInput(deposit.outpoint, deposit.value, deposit.child)


def _to_facts(outpoint: Outpoint, output: UnspentOutput, spender: Txid | None) -> InputFacts:
    return InputFacts(
        outpoint, output.value, output.script, output.confirmations, is_coinbase=output.is_coinbase, spender=spender
    )
