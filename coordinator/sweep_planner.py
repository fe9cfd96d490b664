"""Plans sweeps of retiring epochs from the board, the ledger and one look at Bitcoin; also the operator's dry run."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from coordinator.board import Board
from coordinator.chain_look import ChainLook, ask_all
from coordinator.quarantine import Quarantine
from pegin.holdings import list_due_burns
from pegin.model import BuiltTransaction
from smpc.protocol.batch import UNRECORDED
from smpc.protocol.intents import Intent, IntentKind
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import EpochState
from smpc.types import BurnId, EpochNumber, FeeRate, Outpoint
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
        burns = self._list_burns() if carries_burns else []
        for epoch in self._list_epochs():
            if self._has_proposal(epoch):
                continue
            drafted = await self.draft(look, epoch, rate, burns)
            if drafted.built is None or not is_due(self._ledger, drafted) or self._is_held(drafted):
                continue
            intent = drafted.built.intent
            found.append(drafted.built)
            burns = [burn for burn in burns if burn not in intent.burns]
            log.info("sweep.planned", epoch=epoch, inputs=len(intent.inputs), left_out=len(drafted.exclusions))
        return found

    async def draft(
        self, look: ChainLook, epoch: EpochNumber, rate: FeeRate, burns: Sequence[BurnId] | None = None
    ) -> SweepPlan:
        """Return the plan of the next sweep of any epoch, whether due or not; NotFound when there is no such epoch."""
        carried = self._list_burns() if burns is None else burns
        return plan_sweep(self._ledger, epoch, await self._list_mature(look, epoch), rate, burns=carried)

    async def plan_bump(self, look: ChainLook, stuck: Intent, limit: FeeRate) -> BuiltTransaction:
        """Return the replacement of a stuck sweep; Refused when there is none to be had now."""
        mature = await self._list_mature(look, stuck.epoch)
        return build_sweep_bump(self._ledger, SweepBumpRequest(stuck.intent_id, limit, mature))

    def _list_epochs(self) -> list[EpochNumber]:
        entries = self._ledger.epochs.items()
        return sorted(number for number, entry in entries if entry.state is EpochState.RETIRING)

    def _has_proposal(self, epoch: EpochNumber) -> bool:
        """Tell whether a batch that is not recorded yet spends the epoch's vault: members would miss its outputs."""
        return any(
            batch.state in UNRECORDED and batch.intent.epoch == epoch and batch.intent.kind is not IntentKind.TRANSFER
            for batch in self._board.open_batches()
        )

    def _list_burns(self) -> list[BurnId]:
        """Return the due burns that nothing proposed pays and nobody suspects."""
        proposed = {
            burn for batch in self._board.open_batches() if batch.state in UNRECORDED for burn in batch.intent.burns
        }
        due = [entry.burn_id for entry in list_due_burns(self._ledger, self._ledger.height)]
        free = [
            burn for burn in due if burn not in proposed and not self._quarantine.is_held(burn, self._ledger.height)
        ]
        return next(iter(self._quarantine.split(free)), [])

    def _is_held(self, drafted: SweepPlan) -> bool:
        """Tell whether the same sweep was refused lately (`coordinator.quarantine.list_items`)."""
        first = min(item.outpoint for item in drafted.inputs)
        return self._quarantine.is_held(first, self._ledger.height)

    async def _list_mature(self, look: ChainLook, epoch: EpochNumber) -> frozenset[Outpoint]:
        held = [entry.outpoint for entry in self._ledger.vault.values() if entry.epoch == epoch]
        outputs = await ask_all(held, look.output)
        lock = self._ledger.params.transfer_csv
        return frozenset(
            point for point, output in outputs.items() if output is not None and output.confirmations >= lock
        )
