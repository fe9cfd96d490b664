"""Plans sweeps of retiring epochs from the board, the ledger and one look at Bitcoin; also the operator's dry run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import structlog

from coordinator.board import Board
from coordinator.chain_look import ChainLook, ask_all
from coordinator.fresh_rates import list_fresh_rates
from coordinator.promises import compute_promised_payouts
from coordinator.quarantine import Quarantine
from pegin.holdings import compute_payout_room, list_due_burns
from pegin.model import BuiltTransaction
from smpc.protocol.batch import UNRECORDED, Batch
from smpc.protocol.epoch import is_serving
from smpc.protocol.intents import Intent, IntentKind
from smpc.protocol.ledger import Ledger
from smpc.types import BurnId, EpochNumber, FeeRate, Outpoint, Purpose
from sweep.bump import SweepBumpRequest, build_sweep_bump
from sweep.plan import SweepPlan, is_due, plan_sweep

log = structlog.get_logger()


class SweepPlanner:
    """Builds at most one sweep per retiring epoch at a time: the next part is planned when this one is recorded."""

    def __init__(self, ledger: Ledger, board: Board, quarantine: Quarantine) -> None:
        self._ledger = ledger
        self._board = board
        self._quarantine = quarantine

    async def plan(self, look: ChainLook, rate: FeeRate, *, carries_burns: bool) -> list[BuiltTransaction]:
        """Return the sweeps to propose now, oldest epoch first; each burn goes with one of them."""
        found: list[BuiltTransaction] = []
        burns = self.list_burns() if carries_burns else []
        for epoch in list_retiring(self._ledger):
            if self.find_proposal(epoch) is not None:
                continue
            drafted = await self.draft(look, epoch, rate, burns)
            if drafted.built is None or not is_due(self._ledger, drafted) or self.is_held(drafted):
                continue
            intent = drafted.built.intent
            found.append(drafted.built)
            burns = [burn for burn in burns if burn not in intent.burns]
            log.info("sweep.planned", epoch=epoch, inputs=len(intent.inputs), left_out=len(drafted.exclusions))
        return found

    async def draft(self, look: ChainLook, epoch: EpochNumber, rate: FeeRate, burns: Sequence[BurnId]) -> SweepPlan:
        """Return the plan of the next sweep of any epoch, whether due or not; NotFound when there is no such epoch.

        An intent that was withdrawn or is void is not planned again: a slightly higher rate makes another one. It
        carries no burns once members refused it with some: what is wrong with a burn must not keep the vault unswept.
        """
        burns = () if self._quarantine.is_bare(epoch) else burns
        mature = await self._list_mature(look, epoch)
        plans = (plan_sweep(self._ledger, epoch, mature, fresh, burns=burns) for fresh in list_fresh_rates(rate))
        for drafted in plans:
            if drafted.built is None or drafted.built.intent.intent_id not in self._ledger.intents:
                return drafted
        return replace(drafted, built=None, waiting_for="the next epoch: every version of this sweep was withdrawn")

    async def plan_bump(self, look: ChainLook, stuck: Intent, limit: FeeRate, more: FeeRate) -> BuiltTransaction:
        """Return the replacement of a stuck sweep, `more` above the least rate; Refused when there is none now."""
        mature = await self._list_mature(look, stuck.epoch)
        return build_sweep_bump(self._ledger, SweepBumpRequest(stuck.intent_id, limit, mature, more))

    def find_proposal(self, epoch: EpochNumber) -> Batch | None:
        """Return the batch, not recorded yet, that spends the epoch's vault: members would miss its outputs."""
        for batch in self._board.open_batches():
            spends_vault = batch.intent.kind is not IntentKind.TRANSFER
            if batch.state in UNRECORDED and batch.intent.epoch == epoch and spends_vault:
                return batch
        return None

    def list_burns(self) -> list[BurnId]:
        """Return the due burns that nothing proposed pays, nobody suspects and the rolling cap has room for (V41)."""
        intents = [batch.intent for batch in self._board.open_batches() if batch.state in UNRECORDED]
        proposed = {burn for intent in intents for burn in intent.burns}
        due = [entry.burn_id for entry in list_due_burns(self._ledger, self._ledger.height)]
        free = [
            burn for burn in due if burn not in proposed and not self._quarantine.is_held(burn, self._ledger.height)
        ]
        room = compute_payout_room(self._ledger) - compute_promised_payouts(self._ledger, intents)
        return self._keep_within(room, next(iter(self._quarantine.split(free)), []))

    def is_held(self, drafted: SweepPlan) -> bool:
        """Tell whether the same sweep was refused lately (`coordinator.quarantine.list_items`); it has inputs."""
        first = min(item.outpoint for item in drafted.inputs)
        return self._quarantine.is_held(first, self._ledger.height)

    def _keep_within(self, room: int, burns: Iterable[BurnId]) -> list[BurnId]:
        """Return the burns, in order, that together pay at most `room` satoshi; one too large holds up no other."""
        kept: list[BurnId] = []
        for burn in burns:
            amount = self._ledger.burns[burn].request.payout
            if amount <= room:
                kept.append(burn)
                room -= amount
        return kept

    async def _list_mature(self, look: ChainLook, epoch: EpochNumber) -> frozenset[Outpoint]:
        held = [entry.outpoint for entry in self._ledger.vault.values() if entry.epoch == epoch]
        outputs = await ask_all(held, look.output)
        lock = self._ledger.params.transfer_csv
        return frozenset(
            point for point, output in outputs.items() if output is not None and output.confirmations >= lock
        )


def list_retiring(ledger: Ledger) -> list[EpochNumber]:
    """Return the epochs that are to be swept, oldest first: those that retire and of which nobody was judged."""
    return sorted(number for number, entry in ledger.epochs.items() if is_serving(entry, Purpose.SWEEP))
