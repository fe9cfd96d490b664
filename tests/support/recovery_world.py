"""A small world in which all of W of epoch 0 stopped for good: judged, epoch 1 active, everything armed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pegin.model import BuiltTransaction
from slashing.recovery.build import build_recovery
from slashing.recovery.plan import choose_recovery, list_recoverable
from smpc.params import REGTEST, Params
from smpc.protocol.checkpoints import CHECKPOINT_BLOCKS
from smpc.protocol.intents import Intent, IntentChoice
from smpc.protocol.ledger_state import EpochState
from smpc.protocol.records import Genesis, IntentRecorded
from smpc.types import EpochNumber, FeeRate, IdentityKey, Outpoint, Role
from tests.support.armed_world import ArmedChain, ArmedWorld, build_armed_genesis
from tests.support.flow_world import RATE
from tests.support.groups import CROWD, EPOCH, endorse, make_validator
from tests.support.turning_chain import list_identities

VOTERS = 14
"""Of twenty: more than two thirds."""


def build_crowded_genesis() -> Genesis:
    """Return the genesis of `build_armed_genesis()` with twenty validators: it can spare four for good."""
    return replace(build_armed_genesis(), validators=tuple(map(make_validator, range(CROWD))))


@dataclass(slots=True)
class RecoveryWorld(ArmedWorld):
    """Epoch 0 holds value that its W cannot sign for any more; epoch 1 is active."""

    @classmethod
    def filled(cls, *values: int, params: Params = REGTEST) -> RecoveryWorld:
        """Return a world whose active epoch 0 holds one booked deposit per value, and whose W still serves."""
        world = cls(ArmedChain.started(params, build_crowded_genesis()), {}, {})
        world.fill_vault(*values)
        return world

    @classmethod
    def judged(cls, *values: int, params: Params = REGTEST) -> RecoveryWorld:
        """Return a world in which W of epoch 0 was judged and every output is deep enough for the recovery."""
        world = cls.filled(*values, params=params)
        world.lose_witnesses()
        world.age()
        return world

    def lose_witnesses(self) -> None:
        """Let all of W of epoch 0 stop for good, until that was judged and the next two epochs are ready."""
        gone = self.ledger.epochs[EPOCH].members[Role.WITNESS]
        while self.ledger.epochs[EPOCH].witness_lost is None:
            self.pass_block(gone)
        self.pass_block(gone)
        while self.turning.state(2) is not EpochState.STANDBY:
            self.pass_block(gone)
        assert self.ledger.active_epoch == 1

    def pass_block(self, gone: Sequence[IdentityKey] = ()) -> None:
        """Let one block pass, with what everybody but `gone` attests; epoch 2 gets its keys when it is due."""
        chain, tip = self.turning, self.ledger.height
        validators = enumerate(self.ledger.genesis.validators)
        present = [number for number, item in validators if item.identity not in gone]
        voters = [number for number in present if list_identities(CROWD)[number] in self.ledger.stakes][:VOTERS]
        votes = [chain.make_vote(number, tip) for number in voters] if tip % CHECKPOINT_BLOCKS == 0 else []
        beats = tip % self.ledger.params.heartbeat_blocks == 1
        chain.add(*votes, *(chain.make_heartbeat(number) for number in present if beats))
        if all(due.members for due in self.ledger.due.values()):
            chain.announce()
        if self.ledger.active_epoch == 1 and chain.state(2) is EpochState.ANNOUNCED:
            chain.key(2)

    def age(self, confirmations: int | None = None) -> None:
        """Let the node have every vault output so deep; as deep as the recovery lock asks when nothing is said."""
        depth = self.ledger.params.recovery_csv if confirmations is None else confirmations
        for outpoint in self.ledger.vault:
            self.set_confirmations(outpoint, depth)

    # -------------------------------------------------------------- building

    @property
    def held(self) -> tuple[Outpoint, ...]:
        """Epoch 0's vault outputs, in order."""
        return tuple(sorted(entry.outpoint for entry in self.ledger.vault.values() if entry.epoch == EPOCH))

    def decide(self, *, rate: FeeRate = RATE) -> IntentChoice:
        """Return the choice an honest proposer makes."""
        return choose_recovery(self.ledger, EPOCH, list_recoverable(self.ledger, EPOCH, self.held), rate)

    def build_from(self, choice: IntentChoice) -> BuiltTransaction:
        """Build a choice from what the node has."""
        return build_recovery(self.ledger, choice, [self.coin(outpoint) for outpoint in choice.outpoints])

    def recover(self, *, rate: FeeRate = RATE) -> BuiltTransaction:
        """Build the recovery an honest proposer makes."""
        return self.build_from(self.decide(rate=rate))

    def propose(self, intent: Intent) -> IntentRecorded:
        """Arm what an intent creates, and return its record as V and its second group endorse it."""
        known = self.ledger.records
        self.armed.add(*(item for item in self.armed.list_armings(intent) if item.record_id not in known))
        return endorse(self.turning.keyed[EpochNumber(intent.epoch)], intent, self.ledger.height)

    def as_epoch_zero(self) -> RecoveryWorld:
        """Let `sign` use epoch 0's groups."""
        self.chain.epoch = self.turning.keyed[EPOCH]
        return self
