"""A coordinator whose active epoch was judged and has no successor yet: it issues no invoice and says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from coordinator.inspection import judge_verdicts
from coordinator.invoice_desk import IndexShelf
from coordinator.outlook import Outlook
from coordinator.views import find_halt
from smpc.errors import Refused
from smpc.node.memory_bitcoin import MemoryBitcoin
from smpc.node.ports import Verdict
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import EpochState
from smpc.types import EpochNumber, Role
from tests.support.armed_world import ArmedWorld
from tests.support.turning_chain import list_identities


@dataclass(frozen=True, slots=True)
class StillFeed:
    """A ledger that does not move."""

    ledger: Ledger

    async def wait_for(self, predicate: Callable[[Ledger], object]) -> None:
        assert predicate(self.ledger)


def judge_without_successor() -> ArmedWorld:
    """Return a world in which two members of V of epochs 0 and 1 each went silent: 0 is judged, 1 keyed anew."""
    world = ArmedWorld.filled(500_000)
    chain = world.armed
    quiet = {member for epoch in (0, 1) for member in chain.entry(epoch).members[Role.VALIDATOR][:2]}
    heard = [number for number, identity in enumerate(list_identities()) if identity not in quiet]
    for _ in range(2 * chain.ledger.params.silence_blocks):
        chain.pulse(validators=heard)
        chain.finalise_by(heard)
        if chain.ledger.judgements.verdicts:
            break
    assert chain.entry(0).is_convicted
    assert chain.state(0) is EpochState.ACTIVE
    assert chain.ledger.epochs[EpochNumber(1)].state is not EpochState.ACTIVE
    return world


@pytest.fixture(scope="module")
def world() -> ArmedWorld:
    return judge_without_successor()


def test_a_judged_active_epoch_gives_no_invoice_index(world: ArmedWorld) -> None:
    with pytest.raises(Refused) as refused, IndexShelf(StillFeed(world.ledger)).reserve(1):
        raise AssertionError("an index was given")
    assert refused.value.code == "EPOCH_JUDGED"
    assert "epoch 1" in refused.value.remedy


def test_the_ledger_refuses_its_invoices_alike(world: ArmedWorld) -> None:
    record = world.chain.make_invoices(world.chain.make_terms(7), request_id=b"too late")
    with pytest.raises(Refused) as refused:
        world.ledger.check_record(record)
    assert refused.value.code == "EPOCH_JUDGED"
    assert refused.value.remedy


def test_doctor_names_what_is_still_to_be_moved(world: ArmedWorld) -> None:
    (finding,) = judge_verdicts(world.ledger)
    assert (finding.check, finding.verdict) == ("verdict.0.validator", Verdict.WARNING)
    assert str(world.ledger.epoch_value[EpochNumber(0)]) in finding.detail
    assert finding.remedy


def test_supply_says_why_credits_halt(world: ArmedWorld) -> None:
    outlook = Outlook(world.ledger, MemoryBitcoin())
    assert "target_rekeyed" in find_halt(outlook)
    outlook.violation = "vault output x is not on the chain"
    assert find_halt(outlook).startswith("vault output x is not on the chain; ")
    calm = Outlook(ArmedWorld.filled(500_000).ledger, MemoryBitcoin())
    assert find_halt(calm) == ""
