"""A small world in which epochs turn: a real ledger with a retiring epoch, and what a member's own node would say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pegin.holdings import list_free_coins
from pegin.model import BuiltTransaction
from smpc.params import REGTEST, Params
from smpc.protocol.intents import Commission, IntentChoice, IntentKind
from smpc.types import BtcHeight, BurnId, EpochNumber, FeeRate, IntentId, Outpoint, Sats, Script
from sweep.build import build_sweep
from tests.support.flow_world import RATE, FlowWorld
from tests.support.groups import EPOCH
from tests.support.turning_chain import TurningChain

RICH = 2_000_000_000
"""A deposit whose commission leaves the reserve more than two hundred sweeps cost."""


@dataclass(slots=True)
class SweepWorld(FlowWorld):
    """Epoch 0 holds value and, once `turn` was called, retires; epoch 1 is active then."""

    @classmethod
    def filled(cls, *values: int, params: Params = REGTEST) -> SweepWorld:
        """Return a world whose active epoch 0 holds one booked deposit per value."""
        world = cls(TurningChain.started(params), {}, {})
        world.fill_vault(*values)
        return world

    @classmethod
    def retiring(cls, *values: int, params: Params = REGTEST) -> SweepWorld:
        """Return a world whose epoch 0 holds value and retires."""
        world = cls.filled(*values, params=params)
        world.turn()
        return world

    @property
    def turning(self) -> TurningChain:
        """The chain."""
        assert isinstance(self.chain, TurningChain)
        return self.chain

    @property
    def target(self) -> EpochNumber:
        """The active epoch."""
        assert self.ledger.active_epoch is not None
        return self.ledger.active_epoch

    @property
    def tip(self) -> BtcHeight:
        """The height of the member's node: where everybody's is."""
        return self.turning.btc_height

    def turn(self) -> None:
        """Let the next epoch become active."""
        self.turning.turn()

    def choose(
        self,
        *,
        burns: Sequence[BurnId] = (),
        rate: FeeRate = RATE,
        replaces: tuple[IntentId, ...] = (),
        outpoints: Sequence[Outpoint] | None = None,
        commissions: tuple[Commission, ...] | None = None,
        op_return: Script | None = None,
    ) -> IntentChoice:
        """Return the choice an honest proposer makes; every part may be said otherwise."""
        ledger, target = self.ledger, self.target
        free = tuple(item.outpoint for item in list_free_coins(ledger, EPOCH))
        notarised = ledger.find_op_return(EPOCH, target)
        assert notarised is not None
        return IntentChoice(
            kind=IntentKind.SWEEP,
            epoch=EPOCH,
            target_epoch=target,
            outpoints=free if outpoints is None else tuple(sorted(outpoints)),
            burns=tuple(sorted(burns)),
            fee_rate=rate,
            replaces=replaces,
            commissions=ledger.find_due_commission(EPOCH, replaces) if commissions is None else commissions,
            op_return=notarised if op_return is None else op_return,
        )

    def build(self, choice: IntentChoice) -> BuiltTransaction:
        """Build a choice from what the node has."""
        return build_sweep(self.ledger, choice, [self.coin(outpoint) for outpoint in choice.outpoints])

    def sweep(self, *, burns: Sequence[BurnId] = (), rate: FeeRate = RATE) -> BuiltTransaction:
        """Build the sweep an honest proposer makes."""
        return self.build(self.choose(burns=burns, rate=rate))

    def set_confirmations(self, outpoint: Outpoint, confirmations: int) -> None:
        """Let the node have an output so deep."""
        self.outputs[outpoint] = replace(self.outputs[outpoint], confirmations=confirmations)


def sum_commission(built: BuiltTransaction) -> Sats:
    """Return what a sweep pays to members."""
    return Sats(sum(item.amount for item in built.intent.commissions))
