"""Random histories of a ledger that arms: nothing stands or is booked unarmed, no target goes while it is needed."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule, run_state_machine_as_test

from smpc.errors import BridgeError
from smpc.protocol.arming_records import list_armable
from smpc.protocol.arming_state import ArmingFault
from smpc.protocol.intents import Intent
from smpc.protocol.ledger_state import EpochState
from smpc.protocol.records import RESERVE_ACCOUNT, IntentRecorded, Record
from smpc.types import EpochNumber, Outpoint
from tests.property.test_turning_machine import TurningMachine
from tests.support.armed_world import ArmedChain
from tests.support.groups import endorse


class ArmedMachine(TurningMachine):
    """As `TurningMachine`; every intent is armed before it is offered, but where a rule leaves that out."""

    @initialize(reserve=st.sampled_from([20_000, 1_500_000]))
    def start(self, reserve: int) -> None:
        self.chain = self.armed = ArmedChain.started()
        self.index = 1
        self.paid_in = reserve
        self.chain.fund_active("alice", 4_000_000, 1)
        self.chain.add(self.chain.make_send("alice", RESERVE_ACCOUNT, reserve))

    def attempt(self, record: Record) -> bool:
        """Offer a record; an intent after whatever arms it."""
        if isinstance(record, IntentRecorded):
            self.arm(record.intent)
        return super().attempt(record)

    def arm(self, intent: Intent) -> None:
        """Record what arms an intent, as far as the ledger takes it."""
        with contextlib.suppress(BridgeError):
            for record in self.armed.list_armings(intent):
                with contextlib.suppress(BridgeError):
                    self.chain.add(record)

    @rule(value=st.integers(20_000, 900_000))
    def deposit_unarmed(self, value: int) -> None:
        """Offer a transfer of which nothing is armed: always refused."""
        self.index += 1
        terms = self.chain.make_terms(self.index)
        self.chain.add(self.chain.make_invoices(terms, request_id=b"%d" % self.index))
        intent = self.chain.make_transfer_of(self.chain.epoch.number, [(self.index, value)])
        assert not super().attempt(endorse(self.chain.epoch, intent, self.chain.ledger.height))

    @precondition(lambda self: self.sweepable())
    @rule(data=st.data())
    def sweep_unarmed(self, data: st.DataObject) -> None:
        """Offer a sweep whose outputs are not armed: always refused."""
        epoch = data.draw(st.sampled_from(self.sweepable()))
        intent = self.build_sweep(epoch, 700, 1, [])
        if intent is None or not self.chain.ledger.find_unarmed(intent):
            return
        assert not super().attempt(endorse(self.chain.keyed[epoch], intent, self.chain.ledger.height))

    @precondition(lambda self: self.chain.ledger.list_unarmed())
    @rule()
    def renew(self) -> None:
        """Arm again what is stale: then all is covered."""
        stale: dict[EpochNumber, list[Outpoint]] = {}
        for item in self.chain.ledger.list_unarmed():
            stale.setdefault(item.epoch, []).append(item.outpoint)
        for epoch, outpoints in stale.items():
            self.armed.renew(epoch, outpoints)
        assert self.chain.ledger.compute_coverage().is_full

    @invariant()
    def everything_booked_has_an_exit(self) -> None:
        # A parked target still takes what is sent to it.
        assert {item.fault for item in self.chain.ledger.list_unarmed()} <= {ArmingFault.TARGET_PARKED}

    @invariant()
    def everything_that_stands_was_armed(self) -> None:
        ledger = self.chain.ledger
        for entry in self.standing():
            for items in list_armable(entry.intent).values():
                for item in items:
                    assert any(known.output == item for known in ledger.armings[item.outpoint])

    @invariant()
    def no_target_is_retired_while_it_is_needed(self) -> None:
        ledger = self.chain.ledger
        for outpoint in ledger.vault:
            for item in ledger.armings[outpoint]:
                assert ledger.epochs[item.target].state not in {EpochState.RETIRED, EpochState.ABORTED}


def explore(examples: int, steps: int) -> None:
    bounds = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(ArmedMachine, settings=bounds)


def test_no_history_of_turns_leaves_anything_unarmed() -> None:
    explore(12, 25)


@pytest.mark.soak
def test_no_long_history_of_turns_leaves_anything_unarmed() -> None:
    explore(60, 60)
