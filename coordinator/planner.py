"""Decides what to propose next: transfers of mature deposits, payouts of due burns, replacements of what is stuck.

Nothing here is trusted: pods rebuild and judge every proposal. What they refuse is proposed again in smaller batches
and ever later, so that one bad deposit or burn never holds up the others (case B24).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import structlog

from coordinator.board import Board
from coordinator.chain_look import ChainLook, ask_all
from coordinator.fresh_rates import list_fresh_rates
from coordinator.promises import compute_promised_deposits, compute_promised_payouts
from coordinator.quarantine import Quarantine
from coordinator.recovery_planner import RecoveryPlanner
from coordinator.sweep_planner import SweepPlanner
from pegin.deposits import find_untransferable, select_deposits
from pegin.holdings import list_due_burns, list_free_coins
from pegin.lifecycle import Deposit, DepositState
from pegin.model import BuiltTransaction, compute_first_rate, compute_rate_limit
from pegout.build import rebuild
from pegout.bump import BumpRequest, build_bump
from pegout.coins import PayoutRequest, choose_payout
from smpc.errors import BridgeError
from smpc.node.ports import UnspentOutput
from smpc.protocol.batch import UNRECORDED, Batch
from smpc.protocol.epoch import is_serving
from smpc.protocol.facts import InputFacts
from smpc.protocol.intents import Intent, IntentChoice, IntentInput, IntentKind
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import IntentStatus
from smpc.types import BurnId, EpochNumber, FeeRate, IntentId, Outpoint, Purpose, Sats, Txid

log = structlog.get_logger()

PEGIN_FLOW: Final = "pegin"
PEGOUT_FLOW: Final = "pegout"
SWEEP_FLOW: Final = "sweep"
RECOVERY_FLOW: Final = "recovery"
"""Names of the flows an operator pauses."""


class Planner:
    """Builds the next proposals from the board, the ledger and one look at Bitcoin."""

    def __init__(self, ledger: Ledger, board: Board, quarantine: Quarantine, paused: Collection[str]) -> None:
        self._ledger = ledger
        self._board = board
        self._quarantine = quarantine
        self._paused = paused
        self._sweeps = SweepPlanner(ledger, board, quarantine)
        self._recoveries = RecoveryPlanner(ledger, board, quarantine)

    async def plan(self, look: ChainLook, estimate: FeeRate | None) -> tuple[BuiltTransaction, ...]:
        """Return the transactions to propose now, none of which meets another or a batch under way."""
        target = self._ledger.active_epoch
        if target is None or self._ledger.epochs[target].is_convicted:
            return ()
        rate = compute_first_rate(self._ledger.params, estimate)
        found: list[BuiltTransaction] = []
        if PEGIN_FLOW not in self._paused:
            found += await self._plan_transfers(look, target, rate)
        if RECOVERY_FLOW not in self._paused:
            found += await self._recoveries.plan(look, rate)
        if SWEEP_FLOW not in self._paused:
            found += await self._sweeps.plan(look, rate, carries_burns=PEGOUT_FLOW not in self._paused)
        if PEGOUT_FLOW not in self._paused:
            found += await self._plan_payouts(look, target, rate, found)
        return tuple(found)

    async def plan_bump(self, look: ChainLook, intent: IntentId, estimate: FeeRate | None) -> BuiltTransaction | None:
        """Return the replacement of a stuck intent; None when there is none to be had now."""
        entry = self._ledger.intents.get(intent)
        if entry is None or entry.status is not IntentStatus.LIVE or self._has_successor(intent):
            return None
        if not self._is_serving(entry.intent.epoch, Purpose(entry.intent.kind.value)):
            return None
        limit = compute_rate_limit(self._ledger.params, estimate)
        try:
            for more in list_fresh_rates(FeeRate(0)):
                built = await self._build_bump(look, entry.intent, limit, more)
                if built.intent.intent_id not in self._ledger.intents:
                    return built
        except BridgeError as impossible:
            log.info("bump.not_possible", intent=intent.hex(), reason=impossible.message)
        return None

    async def _build_bump(self, look: ChainLook, stuck: Intent, limit: FeeRate, more: FeeRate) -> BuiltTransaction:
        """Build one replacement, `more` above the least rate; the look answers what was asked before by itself."""
        if stuck.kind is IntentKind.SWEEP:
            return await self._sweeps.plan_bump(look, stuck, limit, more)
        if stuck.kind is IntentKind.RECOVERY:
            return self._recoveries.plan_bump(stuck, limit, more)
        spare = await self._list_coins(look, stuck.epoch)
        dropped = await self._find_dropped(look, stuck)
        return build_bump(self._ledger, BumpRequest(stuck.intent_id, limit, spare, more_rate=more, dropped=dropped))

    async def _find_dropped(self, look: ChainLook, intent: Intent) -> frozenset[Outpoint]:
        """Return the deposits of a transfer that nobody signs for any more; a version of ours is no other spender."""
        if intent.kind is not IntentKind.TRANSFER:
            return frozenset()
        own = {entry.intent.txid for entry in self._ledger.find_standing(intent.outpoints, ())}
        facts = await self._gather(look, intent.outpoints)
        known = {point: replace(item, spender=None) if item.spender in own else item for point, item in facts.items()}
        return find_untransferable(self._ledger, intent, known)

    # -------------------------------------------------------------- transfers

    async def _plan_transfers(self, look: ChainLook, target: EpochNumber, rate: FeeRate) -> list[BuiltTransaction]:
        found: list[BuiltTransaction] = []
        mature = self._list_free_deposits()
        for epoch in sorted({deposit.epoch for deposit in mature}):
            own = [deposit for deposit in mature if deposit.epoch == epoch]
            facts = await self._gather(look, [deposit.outpoint for deposit in own])
            for group in self._quarantine.split([deposit.outpoint for deposit in own]):
                chosen = [(_to_input(self._board.deposits[point]), facts[point]) for point in group if point in facts]
                batch = select_deposits(self._ledger, epoch, chosen, rate, self._promise_deposits(found))
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
            and is_serving(self._ledger.epochs[deposit.epoch], Purpose.TRANSFER)
            and deposit.outpoint not in taken
            and not self._quarantine.is_held(deposit.outpoint, self._ledger.height)
        ]

    async def _gather(self, look: ChainLook, points: Iterable[Outpoint]) -> Mapping[Outpoint, InputFacts]:
        outputs = await ask_all(points, look.output)
        spenders = await ask_all([point for point, output in outputs.items() if output], look.mempool_spender)
        return {
            point: _to_facts(point, output, spenders.get(point))
            for point, output in outputs.items()
            if output is not None
        }

    # -------------------------------------------------------------- payouts

    async def _plan_payouts(
        self, look: ChainLook, target: EpochNumber, rate: FeeRate, planned: Sequence[BuiltTransaction]
    ) -> list[BuiltTransaction]:
        """Plan payouts of what the sweeps `planned` at the same time leave."""
        found: list[BuiltTransaction] = []
        swept = {point for built in planned for point in built.intent.outpoints}
        taken: set[BurnId] = {burn for built in planned for burn in built.intent.burns}
        for epoch in self._list_paying_epochs():
            coins = tuple(coin for coin in await self._list_coins(look, epoch) if coin.outpoint not in swept)
            waiting = [burn for burn in self._list_due_burns() if burn not in taken]
            for group in self._quarantine.split(waiting):
                promised = self._promise_payouts((*planned, *found))
                request = PayoutRequest(epoch, target, rate, self._ledger.height, promised)
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
        entries = self._ledger.epochs.items()
        return sorted(number for number, entry in entries if is_serving(entry, Purpose.PAYOUT))

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
            for rate in list_fresh_rates(choice.fee_rate):
                built = rebuild(self._ledger, replace(choice, fee_rate=rate), known)
                if built.intent.intent_id not in self._ledger.intents:
                    return [built]
        except BridgeError as impossible:
            log.warning("batch.not_built", kind=choice.kind, inputs=len(known), reason=impossible.message)
        self._quarantine.note_refusal(choice.burns or choice.outpoints, self._ledger.height)
        return []

    def _promise_deposits(self, planned: Iterable[BuiltTransaction]) -> Sats:
        """Return what of the caps is taken by what is proposed and by what this tick `planned` (V33)."""
        intents = [*(batch.intent for batch in self._list_proposed()), *(built.intent for built in planned)]
        return compute_promised_deposits(self._ledger, intents)

    def _promise_payouts(self, planned: Iterable[BuiltTransaction]) -> Sats:
        """As `_promise_deposits`, of the cap on payouts (V41)."""
        intents = [*(batch.intent for batch in self._list_proposed()), *(built.intent for built in planned)]
        return compute_promised_payouts(self._ledger, intents)

    def _list_proposed(self) -> list[Batch]:
        """Return the batches that hold their items although the ledger does not know them yet."""
        return [batch for batch in self._board.open_batches() if batch.state in UNRECORDED]

    def _is_serving(self, epoch: EpochNumber, purpose: Purpose) -> bool:
        """Tell whether the groups of an epoch still sign for a purpose: not in each state, and not under a verdict."""
        entry = self._ledger.epochs.get(epoch)
        return entry is not None and is_serving(entry, purpose)

    def _has_successor(self, intent: IntentId) -> bool:
        return any(intent in batch.intent.replaces for batch in self._list_proposed())


def _to_input(deposit: Deposit) -> IntentInput:
    return IntentInput(deposit.outpoint, deposit.value, deposit.child)


def _to_facts(outpoint: Outpoint, output: UnspentOutput, spender: Txid | None) -> InputFacts:
    return InputFacts(
        outpoint, output.value, output.script, output.confirmations, is_coinbase=output.is_coinbase, spender=spender
    )
