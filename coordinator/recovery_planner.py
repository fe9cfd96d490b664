"""Plans recoveries of epochs whose W was judged, from the board, the ledger and one look at Bitcoin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import structlog

from coordinator.board import Board
from coordinator.chain_look import ChainLook, ask_all
from coordinator.fresh_rates import list_fresh_rates
from coordinator.quarantine import Quarantine
from pegin.model import BuiltTransaction
from slashing.recovery.build import build_recovery
from slashing.recovery.bump import RecoveryBumpRequest, build_recovery_bump
from slashing.recovery.model import compute_recovery_budget, list_recovering
from slashing.recovery.plan import choose_recovery, list_recoverable
from smpc.errors import BridgeError
from smpc.protocol.batch import UNRECORDED
from smpc.protocol.intents import Intent, IntentInput
from smpc.protocol.ledger import Ledger
from smpc.types import BtcHeight, EpochNumber, FeeRate, Outpoint

log = structlog.get_logger()


class RecoveryPlanner:
    """Proposes what passed the long lock at once; outputs that pass it later move later."""

    def __init__(self, ledger: Ledger, board: Board, quarantine: Quarantine) -> None:
        self._ledger = ledger
        self._board = board
        self._quarantine = quarantine

    async def plan(self, look: ChainLook, rate: FeeRate) -> list[BuiltTransaction]:
        """Return the recoveries to propose now, oldest epoch first; each output goes with one of them."""
        found: list[BuiltTransaction] = []
        for epoch in self._list_epochs():
            opens = await find_openings(self._ledger, look, epoch)
            mature = [point for point, height in opens.items() if height <= look.tip.height + 1]
            free = [item for item in list_recoverable(self._ledger, epoch, mature) if not self._is_taken(item)]
            by_point = {item.outpoint: item for item in free}
            for group in self._quarantine.split(sorted(by_point)):
                built = self._build(epoch, [by_point[point] for point in group], rate)
                found += [built] if built is not None else []
        return found

    def plan_bump(self, stuck: Intent, limit: FeeRate, more: FeeRate) -> BuiltTransaction:
        """Return the replacement of a stuck recovery, `more` above the least rate; Refused when there is none now."""
        return build_recovery_bump(self._ledger, RecoveryBumpRequest(stuck.intent_id, limit, more))

    def _list_epochs(self) -> Sequence[EpochNumber]:
        """Return the epochs to empty; none while the active one is judged as well: it receives nothing."""
        active = self._ledger.active_epoch
        is_open = active is not None and not self._ledger.epochs[active].is_convicted
        return list_recovering(self._ledger) if is_open else ()

    def _is_taken(self, item: IntentInput) -> bool:
        proposed = (batch.intent for batch in self._board.open_batches() if batch.state in UNRECORDED)
        is_held = self._quarantine.is_held(item.outpoint, self._ledger.height)
        return is_held or any(item.outpoint in intent.outpoints for intent in proposed)

    def _build(self, epoch: EpochNumber, items: Sequence[IntentInput], rate: FeeRate) -> BuiltTransaction | None:
        """Build a recovery that the reserve can pay; one that is void or dead gets another id by a higher rate."""
        choice = choose_recovery(self._ledger, epoch, items, rate)
        try:
            for fresh in list_fresh_rates(rate):
                built = build_recovery(self._ledger, replace(choice, fee_rate=fresh), items)
                intent = built.intent
                if intent.intent_id in self._ledger.intents:
                    continue
                if intent.fee > compute_recovery_budget(self._ledger, intent, intent.intent_id):
                    log.info("recovery.waits", epoch=epoch, fee=intent.fee, reserve=self._ledger.reserve)
                    return None
                log.info("recovery.planned", epoch=epoch, inputs=len(intent.inputs))
                return built
        except BridgeError as impossible:
            log.info("recovery.waits", epoch=epoch, reason=impossible.message)
        return None


async def find_openings(ledger: Ledger, look: ChainLook, epoch: EpochNumber) -> Mapping[Outpoint, BtcHeight]:
    """Return the first Bitcoin block that may hold the recovery of each booked output that is unspent on my chain."""
    held = [entry.outpoint for entry in ledger.vault.values() if entry.epoch == epoch]
    outputs = await ask_all(held, look.output)
    # An output with n confirmations lies n - 1 blocks below the tip; BIP 68 counts from its own block.
    first = look.tip.height + 1 + ledger.params.recovery_csv
    return {point: BtcHeight(first - output.confirmations) for point, output in outputs.items() if output is not None}
