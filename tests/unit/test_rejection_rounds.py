"""A leader's rounds with W: what is spent for good holds up nothing else of its epoch."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import cast

import pytest

from coordinator.cli.emergency_orders import (
    NotRejected,
    collect_orders,
    explain_waiting,
    require_something,
)
from coordinator.cli.emergency_run import reject_all
from coordinator.rejection_rounds import MOST_ROUNDS, RejectionOutcome, RejectionRounds
from slashing.rejection import build_rejections
from smpc.errors import Refused
from smpc.node.consensus import ConsensusNode
from smpc.node.ports import TransactionStatus
from smpc.node.replica import Replica
from smpc.params import REGTEST
from smpc.protocol.pod_messages import Refusal
from smpc.protocol.records import Record
from smpc.protocol.verdict_records import PreimageRevealed, RejectionSigned
from smpc.types import BlockHash, BtcHeight, Network, Outpoint, Role, to_display_hex
from tests.support.armed_world import ArmedWorld
from tests.support.groups import EPOCH
from tests.support.pod_network import MemoryPods, StillLedger, open_pods, refusing
from tests.support.pod_world import PodWorld, WorldNode

W = Role.WITNESS


class Notary:
    """A consensus layer whose every record stands, and is final, at once."""

    def __init__(self, world: ArmedWorld) -> None:
        self._world = world
        self.taken: list[RejectionSigned] = []

    async def submit(self, record: Record) -> None:
        assert isinstance(record, RejectionSigned)
        self._world.chain.add(record)
        self.taken.append(record)


class Stage:
    """A released epoch, its W as pods, and a leader with a node of his own."""

    def __init__(self, directory: Path, values: Collection[int]) -> None:
        self.world = ArmedWorld.released(*values)
        self.outpoints = sorted(self.world.ledger.vault)
        self.pods = PodWorld(self.world, directory, roles=(W,))
        self.network = MemoryPods.of_world(self.pods)
        self.notary, self.node = Notary(self.world), WorldNode(self.world)

    def rounds(self, node: WorldNode | None = None) -> RejectionRounds:
        voice, consensus = open_pods(self.pods, self.network), cast("ConsensusNode", self.notary)
        return RejectionRounds(voice, consensus, lambda: self.world.ledger, node)

    def spend(self, outpoint: Outpoint, confirmations: int, *nodes: WorldNode) -> str:
        """Let these nodes have one of an output's emergencies in a block; its txid."""
        (built,) = build_rejections(self.world.ledger, EPOCH, [outpoint])
        transaction = built.rungs[0][1].transaction
        height = BtcHeight(200 - confirmations + 1)
        mined = TransactionStatus(transaction.to_bytes(), confirmations, BlockHash(bytes(32)), height, None)
        for node in nodes:
            node.gone.add(outpoint)
            node.transactions[transaction.txid] = mined
        return to_display_hex(transaction.txid)

    @property
    def everyone(self) -> list[WorldNode]:
        return [pod.node for pod in self.pods.group(W)]

    @property
    def rejected(self) -> set[Outpoint]:
        return set(self.world.ledger.judgements.rejections)

    async def lead(self, rounds: RejectionRounds) -> None:
        await reject_all(cast("Replica", StillLedger(lambda: self.world.ledger)), rounds, [EPOCH], lambda _: None)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path, (500_000, 600_000, 700_000))


@pytest.mark.parametrize("confirmations", [REGTEST.confirmations - 1, REGTEST.confirmations])
async def test_what_the_leaders_node_has_spent_for_good_is_left_out(stage: Stage, confirmations: int) -> None:
    first, *others = stage.outpoints
    is_deep = confirmations == REGTEST.confirmations
    stage.spend(first, confirmations, stage.node, *stage.everyone)
    outcome = await stage.rounds(stage.node).run(EPOCH)
    assert outcome == RejectionOutcome(frozenset(others if is_deep else stage.outpoints), {})
    assert stage.rejected == outcome.signed
    assert len(stage.notary.taken) == 1, "in one round, as if nothing were spent"


async def test_what_only_w_has_spent_for_good_is_found_by_halves(stage: Stage) -> None:
    spent, *others = stage.outpoints
    stage.spend(spent, REGTEST.confirmations, *stage.everyone)
    rounds = stage.rounds(stage.node)
    outcome = await rounds.run(EPOCH)
    assert stage.rejected == outcome.signed == set(others)
    assert set(outcome.failed) == {spent}
    assert "V63" in outcome.failed[spent]
    again = await rounds.run(EPOCH)
    assert (again.signed, set(again.failed)) == (frozenset(), {spent})


async def test_what_was_signed_and_is_not_final_costs_no_second_round(stage: Stage) -> None:
    spent, *others = stage.outpoints
    stage.spend(spent, REGTEST.confirmations, *stage.everyone)

    class Slow(Notary):
        async def submit(self, record: Record) -> None:
            assert isinstance(record, RejectionSigned)
            self.taken.append(record)

    stage.notary = Slow(stage.world)
    rounds = stage.rounds()
    first = await rounds.run(EPOCH)
    asked = stage.network.asked["Sign"]
    second = await rounds.run(EPOCH)
    assert first.signed == second.signed == set(others)
    assert stage.network.asked["Sign"] == asked
    assert not stage.rejected


async def test_a_witness_group_that_refuses_everything_is_asked_a_bounded_number_of_times(tmp_path: Path) -> None:
    stage = Stage(tmp_path, (150_000,) * (MOST_ROUNDS // 2 + 1))
    refusal = Refusal(rule="V63", rules=("V63",), reason="INPUT_SPENT", message="spent")
    for pod in stage.network.pods:
        stage.network.ways[pod] = refusing(refusal, "Commit")
    outcome = await stage.rounds(stage.node).run(EPOCH)
    assert outcome.signed == frozenset()
    assert set(outcome.failed) == set(stage.outpoints)
    assert stage.network.asked["Commit"] == MOST_ROUNDS * len(stage.network.pods)


async def test_one_member_that_says_spent_splits_nothing(stage: Stage) -> None:
    refusal = Refusal(rule="V63", rules=("V63",), reason="INPUT_SPENT", message="spent")
    stage.network.ways[next(iter(stage.network.pods))] = refusing(refusal, "Commit")
    outcome = await stage.rounds(stage.node).run(EPOCH)
    assert outcome.signed == set(stage.outpoints)
    assert len(stage.notary.taken) == 1


async def test_what_w_did_not_sign_stops_no_execution_of_the_rest_and_is_told_truly(stage: Stage) -> None:
    """As `peg emergency execute --lead-as` goes about it."""
    by_w_alone, mined, *ready = stage.outpoints
    stage.spend(by_w_alone, REGTEST.confirmations, *stage.everyone)
    txid = stage.spend(mined, REGTEST.confirmations, stage.node, *stage.everyone)
    preimage = stage.world.armed.keyed[EPOCH].preimage
    stage.world.chain.add(PreimageRevealed(Network.REGTEST, EPOCH, preimage))
    stage.world.chain.epoch = stage.world.turning.keyed[EPOCH]
    with pytest.raises(NotRejected) as caught:
        await stage.lead(stage.rounds(stage.node))
    refused = caught.value
    assert (refused.code, set(refused.reasons)) == ("NOT_REJECTED", {by_w_alone})

    ledger = stage.world.ledger
    orders, left = collect_orders(ledger, [EPOCH])
    assert [order.outpoint for order in orders] == ready
    waiting = await explain_waiting(ledger, stage.node, left, refused)
    reasons = {item.release.outpoint: item.reason for item in waiting}
    assert set(reasons) == {by_w_alone, mined}
    assert "did not sign" in reasons[by_w_alone]
    assert "V63" in reasons[by_w_alone]
    assert txid in reasons[mined]
    assert "waits for its booking" in reasons[mined]
    require_something(orders, waiting, refused)
    with pytest.raises(NotRejected):
        require_something((), waiting, refused)
    with pytest.raises(Refused) as unled:
        require_something((), waiting)
    assert unled.value.code == "NOT_REJECTED"
    require_something((), [item for item in waiting if item.is_spent])
