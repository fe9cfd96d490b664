"""Groups that sign or endorse what they must not: seen at once, and what it costs them (cases J6, E16)."""

from __future__ import annotations

from dataclasses import replace

from pegin.build import build_transfer
from slashing.build import build_armings
from smpc.params import REGTEST
from smpc.protocol.intents import Intent, IntentChoice, IntentInput, IntentKind
from smpc.protocol.ledger_state import IntentStatus
from smpc.protocol.records import IntentRecorded, Record
from smpc.protocol.verdict_state import Cause, Penalty
from smpc.types import ChildIndex, EpochNumber, IntentId, Outpoint, Role, Sats, Txid
from tests.simulation.test_armings import armed
from tests.support.flow_world import RATE
from tests.support.groups import EPOCH, endorse, sign_with_child
from tests.support.guards import on_guard
from tests.support.thefts import steal_vault
from tests.support.turning_world import TurningWorld

V, W, E = Role.VALIDATOR, Role.WITNESS, Role.EMERGENCY


@armed
async def test_v_and_w_that_steal_are_judged_while_the_theft_waits_in_the_mempool(world: TurningWorld) -> None:
    async with on_guard(world):
        await world.peg_in(50_000_000)
        world.mine(REGTEST.transfer_csv)
        stolen = steal_vault(world.ledger, world.find_secrets(0))
        await world.bitcoin.broadcast(stolen.complete().to_bytes())
        await world.until(lambda: (EPOCH, V) in world.ledger.judgements.verdicts)
        ledger = world.ledger
        assert ledger.judgements.verdicts[EPOCH, V].cause is Cause.UNAUTHORISED_SPEND
        assert set(ledger.judgements.unauthorised.values()) == {stolen.transaction.txid}
        guilty = {member for role in (V, W) for member in ledger.epochs[EPOCH].groups[role].members}
        assert set(ledger.judgements.punishments) == guilty
        assert all(item[0].penalty is Penalty.JAILED for item in ledger.judgements.punishments.values())
        assert ledger.epochs[EPOCH].released is not None
        assert await world.bitcoin.fetch_mempool_spender(stolen.outpoint) == stolen.transaction.txid
        await world.until(lambda: world.active == 1)


@armed
async def test_honest_traffic_is_never_challenged_nor_accused(world: TurningWorld) -> None:
    async with on_guard(world):
        await world.peg_in(50_000_000, 30_000_000)
        world.mine(REGTEST.transfer_csv)
        burn = await world.burn(4_000_000)
        await world.until(lambda: world.is_settled(burn), mine_every=3)
        await world.reach(1)
        await world.until(lambda: not world.find_value(0), mine_every=12)
        assert len(world.ledger.intents) >= 3
        assert not world.ledger.challenges
        assert not world.ledger.judgements.punishments


def forge(world: TurningWorld, intent: Intent) -> tuple[Record, IntentRecorded]:
    """Return the records of a rogue intent: armed by a deceived E, endorsed by `t` of V and of W."""
    keyed, armings = world.find_secrets(0), build_armings(world.consensus.ledger, intent)
    (arming,) = armings
    group = keyed.groups[E]
    record = arming.to_record([sign_with_child(group, child, digest) for child, digest in arming.list_tasks()])
    return record, endorse(keyed, intent, world.consensus.ledger.height)


async def plan_rogue(world: TurningWorld) -> Intent:
    """Return the transfer of a deposit that no Bitcoin chain has, to a real invoice."""
    (issued,) = await world.issue(40_000_000)
    outpoint = Outpoint(Txid(bytes(31) + b"\x07"), 0)
    choice = IntentChoice(IntentKind.TRANSFER, EPOCH, EPOCH, (outpoint,), (), RATE, ())
    item = IntentInput(outpoint, Sats(40_000_000), ChildIndex(issued.terms.index))
    return build_transfer(world.ledger, choice, [item]).intent


def has_left(world: TurningWorld, intent: IntentId) -> bool:
    return any(pod.log.has_released(intent) for pod in world.pods.values())


@armed
async def test_a_rogue_intent_is_challenged_in_its_window_and_never_signed(world: TurningWorld) -> None:
    async with on_guard(world):
        await world.peg_in(50_000_000)
        intent = await plan_rogue(world)
        supply = world.ledger.supply
        await world.advance(1, *forge(world, intent))
        key = intent.intent_id
        await world.until(lambda: key in world.ledger.intents)
        await world.advance(20)
        assert world.ledger.intents[key].status in {IntentStatus.LIVE, IntentStatus.WITHDRAWN}, "nobody calls it void"
        notes = world.ledger.challenges[key]
        assert len({note.challenger for note in notes}) == len(notes) > 5
        assert {note.rule for note in notes} == {"V14"}
        assert world.ledger.is_contested(key)
        assert not has_left(world, key)
        assert world.ledger.supply == supply
        assert world.ledger.epochs[EpochNumber(0)].released is None


@armed
async def test_a_rogue_intent_with_another_transaction_than_it_says_is_void(world: TurningWorld) -> None:
    async with on_guard(world):
        await world.peg_in(50_000_000)
        intent = replace(await plan_rogue(world), txid=Txid(bytes(31) + b"\x08"))
        await world.advance(1, *forge(world, intent))
        await world.until(lambda: intent.intent_id in world.ledger.intents)
        await world.advance(8)
        entry = world.ledger.intents[intent.intent_id]
        assert (entry.status, entry.challenge) == (IntentStatus.VOID, "V10")
        assert not has_left(world, intent.intent_id)
