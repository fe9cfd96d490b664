"""How effects are carried out: once where once is enough, again where it failed, and never for what moved on."""

from __future__ import annotations

from coordinator.refusals import TRANSIENT_RULES
from pegin.lifecycle import DepositState
from smpc.protocol.batch import BatchState
from smpc.protocol.batch_events import AskCosigners, AskEndorsements, AskValidators, BroadcastTransaction, PlanBump
from smpc.protocol.ledger_state import IntentStatus
from smpc.protocol.pod_messages import Envelope, Refusal
from smpc.protocol.review import RULES
from smpc.types import IntentId, Role
from tests.support.bridge_world import BridgeWorld, simulated


def refuse_by(rule: str) -> Refusal:
    """Return a refusal by one rule."""
    return Refusal(rule=rule, rules=(rule,), reason=RULES[rule].reasons[0], message="no")


@simulated
async def test_what_a_batch_has_already_is_not_asked_for_again(world: BridgeWorld) -> None:
    (invoice,) = await world.issue(50_000_000)
    world.pay(invoice, 50_000_000, confirmations=3)
    await world.until(lambda: world.list_states() == [BatchState.BROADCAST])
    (batch,) = world.board.open_batches()
    asked = dict(world.network.asked)
    for effect in (AskEndorsements, AskValidators, AskCosigners):
        await world.coordinator.effects.perform(effect(batch.intent_id))
    assert world.network.asked == asked
    await world.coordinator.effects.perform(BroadcastTransaction(batch.intent_id))
    assert world.bitcoin.pending == {batch.intent.txid}, "sending it again is harmless"


@simulated
async def test_an_effect_of_an_unknown_intent_does_nothing(world: BridgeWorld) -> None:
    unknown = IntentId(bytes(32))
    for effect in (AskEndorsements, BroadcastTransaction, PlanBump):
        await world.coordinator.effects.perform(effect(unknown))
    assert not world.network.asked


@simulated
async def test_refusals_for_now_are_asked_again_and_refusals_for_good_end_the_proposal(world: BridgeWorld) -> None:
    def refuse_for_now(_rpc: str, _answer: Envelope | Refusal) -> Envelope | Refusal:
        return refuse_by("V02")

    def refuse_for_good(_rpc: str, _answer: Envelope | Refusal) -> Envelope | Refusal:
        return refuse_by("V33")

    assert {"V02"} <= TRANSIENT_RULES
    (invoice,) = await world.issue(50_000_000)
    two = [world.member(Role.WITNESS, position) for position in (1, 3)]
    world.network.faults.bent.update(dict.fromkeys(two, refuse_for_now))
    deposit = world.pay(invoice, 50_000_000, confirmations=3)
    await world.advance(10)
    assert world.list_states() == [BatchState.PLANNED]
    asked = world.network.asked["Endorse"]
    assert asked >= 3 * 8, "every few blocks"
    world.network.faults.bent.update(dict.fromkeys(two, refuse_for_good))
    await world.until(lambda: world.list_states() == [BatchState.ABANDONED])
    (batch,) = world.board.batches.values()
    assert batch.note.startswith("V33")
    world.network.faults.bent.clear()
    await world.until(lambda: deposit in world.ledger.credited, mine_every=6)


@simulated
async def test_a_transfer_that_can_be_signed_no_more_is_withdrawn_and_left_to_the_refund(world: BridgeWorld) -> None:
    (invoice,) = await world.issue(50_000_000)
    params = world.ledger.params
    deposit = world.pay(invoice, 50_000_000, confirmations=params.confirmations)
    await world.until(lambda: world.list_states() == [BatchState.RECORDED])
    absent = [world.member(Role.VALIDATOR, position) for position in range(4)]
    world.network.faults.deaf.update(absent)
    world.mine(params.refund_csv - params.refund_stop - params.confirmations)
    await world.advance(4)
    world.network.faults.deaf.clear()
    await world.until(lambda: world.list_statuses() == [IntentStatus.WITHDRAWN])
    assert not world.bitcoin.pending
    await world.until(lambda: world.deposit(deposit).state is DepositState.EXPIRED)
    assert world.list_states() == [BatchState.WITHDRAWN]
    await world.rest()
    await world.check_rebuild()


@simulated
async def test_every_pod_gets_the_final_signatures_and_can_send_them_alone(world: BridgeWorld) -> None:
    (invoice,) = await world.issue(50_000_000)
    deposit = world.pay(invoice, 50_000_000, confirmations=3)
    await world.until(lambda: world.list_states() == [BatchState.BROADCAST])
    assert world.network.asked["Complete"] == 8
    await world.kill()
    world.mine()
    assert await world.bitcoin.fetch_output(deposit, include_mempool=False) is None


@simulated
async def test_progress_names_the_group_and_who_is_missing(world: BridgeWorld) -> None:
    missing = world.member(Role.VALIDATOR, 2)
    world.network.faults.silent.add(missing)
    (invoice,) = await world.issue(50_000_000)
    world.pay(invoice, 50_000_000, confirmations=3)
    seen: set[str] = set()
    for _ in range(40):
        await world.advance()
        for progress in world.coordinator.effects.progress.values():
            seen.add(progress.describe())
    assert any("endorsing" in line for line in seen), seen
    assert any("signing" in line for line in seen), seen


@simulated
async def test_a_fault_of_our_own_in_one_effect_is_survived_and_asked_again(world: BridgeWorld) -> None:
    broken = 0

    def break_first(_rpc: str, answer: Envelope | Refusal) -> Envelope | Refusal:
        nonlocal broken
        broken += 1
        if broken == 1:
            raise RuntimeError("a fault that nobody thought of")
        return answer

    (invoice,) = await world.issue(50_000_000)
    world.network.faults.bent[world.member(Role.VALIDATOR, 0)] = break_first
    world.pay(invoice, 50_000_000, confirmations=3)
    await world.until(lambda: world.list_states() == [BatchState.BROADCAST])
    assert broken > 1
