"""A pod's eye on the bridge's outputs: what it accuses, what it lets pass, and what it needs to remember: nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from slashing.build import build_arming, build_armings
from slashing.rejection import build_rejections
from smpc.bitcoin.script import Leaf
from smpc.bitcoin.transaction import TxOut
from smpc.errors import TimedOut, Unavailable
from smpc.node.memory_bitcoin import MemoryBitcoin
from smpc.node.spend_search import MAX_BLOCKS
from smpc.params import REGTEST
from smpc.participant.watcher import SpendWatcher
from smpc.protocol.arming_records import list_created
from smpc.protocol.emergency import Target, build_emergency, build_target
from smpc.protocol.intents import IntentInput
from smpc.protocol.ledger import replay
from smpc.protocol.spend_sighting import find_shown_evidence
from smpc.protocol.verdict_records import EvidenceRecorded
from smpc.protocol.watched_outputs import WatchedOutput, list_watched
from smpc.threshold.child_keys import compute_vault_index
from smpc.types import ChildIndex, EpochNumber, Outpoint, Role, Sats, Script, Txid
from tests.support.groups import EPOCH
from tests.support.sweep_world import SweepWorld
from tests.support.thefts import Theft, steal, steal_vault
from tests.support.watch_stand import WatchStand

V, W = Role.VALIDATOR, Role.WITNESS
ONE = EpochNumber(1)


def theft(stand: WatchStand, leaf: Leaf = Leaf.TRANSFER) -> Theft:
    return steal_vault(stand.ledger, stand.world.armed.keyed[EPOCH], leaf)


def judged(stand: WatchStand) -> set[Role]:
    return {role for epoch, role in stand.ledger.judgements.unauthorised if epoch == EPOCH}


async def test_a_theft_is_accused_while_it_waits_in_the_mempool() -> None:
    stand = await WatchStand.holding()
    await stand.watcher.look()
    assert not stand.accused
    await stand.bitcoin.broadcast(theft(stand).complete().to_bytes())
    with capture_logs() as logs:
        await stand.watcher.look()
    assert judged(stand) == {V, W}
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["spend.accused"]


async def test_a_theft_that_no_mempool_had_is_found_in_its_block() -> None:
    stand = await WatchStand.holding()
    await stand.bitcoin.broadcast(theft(stand).complete().to_bytes())
    stand.bitcoin.mine(1)
    await stand.watcher.look()
    assert judged(stand) == {V, W}


async def test_a_theft_long_ago_is_found_a_few_blocks_at_a_look() -> None:
    stand = await WatchStand.holding()
    stand.bitcoin.mine(2 * MAX_BLOCKS)
    await stand.bitcoin.broadcast(theft(stand).complete().to_bytes())
    stand.bitcoin.mine(MAX_BLOCKS)
    await stand.watcher.look()
    assert not stand.accused
    for _ in range(4):
        await stand.watcher.look()
    assert judged(stand) == {V, W}


async def test_after_a_restart_the_same_spend_is_found_again_and_the_verdict_stands_once() -> None:
    stand = await WatchStand.holding()
    await stand.bitcoin.broadcast(theft(stand).complete().to_bytes())
    stand.bitcoin.mine(1)
    await stand.watcher.look()
    stand.restart()
    await stand.watcher.look()
    assert len(stand.accused) == 1, "the ledger shows it already"


async def test_what_is_recorded_is_let_pass_in_the_mempool_in_its_block_and_booked() -> None:
    stand = WatchStand.open()
    built = stand.world.record(stand.transfer(stand.deposit(500_000)))
    await stand.watcher.look()
    await stand.send(built)
    await stand.watcher.look()
    stand.bitcoin.mine(REGTEST.transfer_csv + 1)
    await stand.watcher.look()
    stand.world.mine(built)
    stand.bitcoin.mine(1)
    await stand.watcher.look()
    stand.restart()
    await stand.watcher.look()
    assert not stand.node.offered


async def test_an_output_that_is_not_booked_yet_is_watched_too() -> None:
    stand = WatchStand.open()
    built = stand.world.record(stand.transfer(stand.deposit(500_000)))
    await stand.mine(built)
    created = IntentInput(built.transaction.outpoint(0), built.intent.vault_outputs[0], compute_vault_index(0))
    stolen = steal(stand.ledger, stand.world.armed.keyed[EPOCH], created.outpoint, created.value, created.child)
    await stand.bitcoin.broadcast(stolen.complete().to_bytes())
    await stand.watcher.look()
    assert judged(stand) == {V, W}


async def test_an_armed_deposit_is_watched_and_its_user_s_refund_accuses_nobody() -> None:
    for leaf in (Leaf.TRANSFER, Leaf.REFUND):
        stand = WatchStand.open()
        deposit = stand.deposit(500_000)
        stand.world.record(stand.transfer(deposit))
        stolen = steal(
            stand.ledger, stand.world.armed.keyed[EPOCH], deposit, Sats(500_000), stand.world.children[deposit]
        )
        transaction = stolen.complete()
        if leaf is Leaf.REFUND:
            stack = (bytes(64), stolen.tree.leaf(leaf), stolen.tree.control_block(leaf))
            transaction = transaction.with_witnesses([stack])
        await stand.bitcoin.broadcast(transaction.to_bytes())
        await stand.watcher.look()
        stand.bitcoin.mine(1)
        await stand.watcher.look()
        assert judged(stand) == ({V, W} if leaf is Leaf.TRANSFER else set())


async def hold_armed_deposit(stand: WatchStand) -> Outpoint:
    """Return an armed deposit of epoch 0, which retires, and nobody transfers."""
    deposit = stand.deposit(500_000)
    armings = build_armings(stand.ledger, stand.transfer(deposit).intent)
    stand.world.chain.add(*(stand.world.armed.pre_sign(item) for item in armings))
    stand.world.turn()
    return deposit


def claim(stand: WatchStand, *outputs: IntentInput) -> None:
    """Let epoch 1's E record outputs as if they were its own."""
    stand.world.chain.add(stand.world.armed.pre_sign(build_arming(stand.ledger, ONE, outputs)))


@pytest.mark.parametrize("is_mined", [False, True])
@pytest.mark.parametrize("is_claimed", [False, True])
async def test_another_epochs_e_that_records_a_deposit_as_its_own_blinds_nobody(
    is_claimed: bool, is_mined: bool
) -> None:
    stand = WatchStand.open()
    deposit = await hold_armed_deposit(stand)
    if is_claimed:
        claim(stand, IntentInput(deposit, Sats(500_000), compute_vault_index(0)))
    stolen = steal(stand.ledger, stand.world.armed.keyed[EPOCH], deposit, Sats(500_000), stand.world.children[deposit])
    await stand.bitcoin.broadcast(stolen.complete().to_bytes())
    stand.bitcoin.mine(1 if is_mined else 0)
    await stand.watcher.look()
    await stand.watcher.look()
    assert set(stand.ledger.judgements.unauthorised) == {(EPOCH, V), (EPOCH, W)}
    assert len(stand.accused) == 1


async def test_what_another_epochs_e_claims_of_an_output_to_be_is_watched_beside_what_it_is() -> None:
    stand = WatchStand.open()
    built = stand.transfer(stand.deposit(500_000))
    created, *_ = list_created(built.intent)
    stand.world.record(built)
    stand.world.turn()
    claim(stand, created)
    own = WatchedOutput(EPOCH, created.child)
    assert list_watched(stand.ledger)[created.outpoint] == (own, replace(own, epoch=ONE))


@pytest.mark.parametrize("is_mined", [False, True])
async def test_a_spend_that_proves_nothing_hides_no_theft_behind_it(is_mined: bool) -> None:
    """E can arm any output of Bitcoin as an invoice's; its owner spends it as if it were one."""
    stand = WatchStand.open()
    deposit, child = stand.deposit(500_000), ChildIndex(0)
    bait = deposit
    while bait >= deposit:
        bait = stand.bitcoin.fund(Script(b"\x51\x20" + bytes(32)), Sats(500_000), confirmations=3)
    both = [IntentInput(outpoint, Sats(500_000), child) for outpoint in (bait, deposit)]
    stand.world.chain.add(stand.world.armed.pre_sign(build_arming(stand.ledger, EPOCH, both)))
    for outpoint in (bait, deposit):
        stolen = steal(stand.ledger, stand.world.armed.keyed[EPOCH], outpoint, Sats(500_000), child)
        await stand.bitcoin.broadcast(stolen.complete().to_bytes())
    stand.bitcoin.mine(1 if is_mined else 0)
    await stand.watcher.look()
    assert judged(stand) == {V, W}


async def test_an_emergency_before_its_release_accuses_w_and_after_it_nobody() -> None:
    for is_released in (False, True):
        stand = await WatchStand.holding()
        plain = theft(stand, Leaf.REJECTION)
        output = IntentInput(plain.outpoint, plain.value, plain.child)
        target = build_target(stand.ledger.params, stand.ledger.epochs[ONE])
        rung = build_emergency(stand.ledger, EPOCH, output, target).rungs[0]
        if is_released:
            stand.world.chain.add(EvidenceRecorded(theft(stand).accuse(V)))
        await stand.bitcoin.broadcast(replace(plain, unsigned=rung.transaction).complete().to_bytes())
        await stand.watcher.look()
        stand.bitcoin.mine(1)
        await stand.watcher.look()
        assert (W in judged(stand)) is not is_released


async def test_a_node_that_is_away_only_postpones() -> None:
    stand = await WatchStand.holding()
    await stand.bitcoin.broadcast(theft(stand).complete().to_bytes())
    stand.bitcoin.set_outage(TimedOut("bitcoind is busy"))
    await stand.watcher.look()
    stand.bitcoin.set_outage(None)
    stand.node.outage = Unavailable("the consensus node is away")
    await stand.watcher.look()
    assert not stand.accused
    stand.node.outage = None
    await stand.watcher.look()
    assert judged(stand) == {V, W}


async def test_a_pod_that_lags_accuses_nobody_for_good() -> None:
    """Its own ledger does not know the intent yet; its consensus node does, and says so."""
    stand = WatchStand.open()
    deposit = stand.deposit(500_000)
    stand.world.chain.add(*stand.world.armed.list_armings(stand.transfer(deposit).intent))
    behind = replay(stand.ledger.genesis, REGTEST, stand.world.chain.blocks)
    built = stand.world.record(stand.transfer(deposit))
    await stand.send(built)
    watcher = SpendWatcher(stand.bitcoin, stand.node, lambda: behind)  # type: ignore[arg-type]
    await watcher.look()
    assert stand.accused
    assert not judged(stand)
    assert not stand.ledger.judgements.punishments


async def test_what_a_member_of_w_was_shown_is_reported_like_what_is_mined() -> None:
    stand = await WatchStand.holding()
    built = stand.transfer(stand.deposit(200_000))
    raw = built.transaction.to_bytes()
    shown = find_shown_evidence(stand.ledger, built.intent, raw, stand.world.sign(built, V))
    assert shown is not None
    stand.watcher.take(shown)
    stand.watcher.take(shown)
    await stand.watcher.report()
    assert judged(stand) == {V}
    await stand.watcher.report()
    assert len(stand.accused) == 1


async def test_a_reorganisation_that_takes_the_theft_away_leaves_the_verdict_and_no_error() -> None:
    stand = await WatchStand.holding()
    await stand.bitcoin.broadcast(theft(stand).complete().to_bytes())
    stand.bitcoin.mine(1)
    await stand.watcher.look()
    stand.bitcoin.reorganise(2, keep_mempool=False)
    await stand.watcher.look()
    assert judged(stand) == {V, W}


async def test_what_w_s_rejections_create_is_watched_before_it_is_booked() -> None:
    stand = await WatchStand.holding()
    outpoint = stand.vault
    item = stand.ledger.armings[outpoint][-1]
    emergency = build_emergency(stand.ledger, EPOCH, item.output, Target(item.target, item.target_script))
    created = {rung.transaction.outpoint(0) for rung in emergency.rungs}
    assert created.isdisjoint(list_watched(stand.ledger))
    stand.world.release()
    (built,) = build_rejections(stand.ledger, EPOCH, [outpoint])
    stand.world.chain.add(stand.world.armed.reject(built))
    watched = list_watched(stand.ledger)
    assert created <= watched.keys()
    assert {item.epoch for key in created for item in watched[key]} == {ONE}
    rung = emergency.rungs[1]
    await stand.bitcoin.broadcast(
        replace(theft(stand, Leaf.REJECTION), unsigned=rung.transaction).complete().to_bytes()
    )
    stand.bitcoin.mine(REGTEST.transfer_csv + 1)
    output = rung.transaction.outputs[0]
    stolen = steal(
        stand.ledger, stand.world.armed.keyed[ONE], rung.transaction.outpoint(0), output.value, compute_vault_index(0)
    )
    await stand.bitcoin.broadcast(stolen.complete().to_bytes())
    await stand.watcher.look()
    assert set(stand.ledger.judgements.unauthorised) == {(ONE, V), (ONE, W)}


def test_a_chain_that_arms_nothing_has_nothing_to_watch_for() -> None:
    world = SweepWorld.filled(500_000)
    assert not world.ledger.needs_arming


@pytest.mark.parametrize("paid", [1, 2])
async def test_one_spend_of_many_outputs_is_one_case(paid: int) -> None:
    stand = await WatchStand.holding()
    stolen = theft(stand).pay(*(TxOut(Sats(1_000 * at), Script(b"\x51\x20" + bytes(32))) for at in range(1, 1 + paid)))
    await stand.bitcoin.broadcast(stolen.complete().to_bytes())
    await stand.watcher.look()
    await stand.watcher.look()
    assert len(stand.accused) == 1


class LyingNode(MemoryBitcoin):
    """A node whose answers cannot be true: it names a transaction that spends something else."""

    told: Txid | None = None

    async def fetch_mempool_spender(self, outpoint: Outpoint) -> Txid | None:  # noqa: ARG002 - it always says the same
        return self.told


async def test_a_node_that_names_a_wrong_spender_accuses_nobody_and_stops_nothing() -> None:
    stand = WatchStand.open(LyingNode())
    assert isinstance(stand.bitcoin, LyingNode)
    built = stand.world.record(stand.transfer(stand.deposit(500_000)))
    await stand.mine(built)
    stand.world.mine(built)
    other = stand.bitcoin.fund(Script(b"\x51"), Sats(10_000))
    stand.bitcoin.told = other.txid
    with capture_logs() as logs:
        await stand.watcher.look()
    assert not stand.node.offered
    assert [entry["code"] for entry in logs if entry["event"] == "outputs.not_seen"] == ["CHECK_FAILED"]
