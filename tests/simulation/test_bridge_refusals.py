"""W refuses for good what V has signed: a replacement, a heal or the refund ends it, and W is asked ever later."""

from __future__ import annotations

from pegin.lifecycle import DepositState
from smpc.protocol.batch import BatchState
from smpc.protocol.batch_patience import LONGEST_RETRY_BLOCKS
from smpc.protocol.intents import Intent, IntentKind
from smpc.protocol.ledger_state import IntentStatus
from smpc.protocol.pod_messages import Refusal
from smpc.types import EpochNumber, IdentityKey, Role, Txid
from tests.support.bridge_world import BridgeWorld, simulated
from tests.support.chain import destination
from tests.support.turning_world import TurningWorld, turning
from tests.support.world_pods import Policy


def witnesses(world: BridgeWorld) -> set[IdentityKey]:
    return {world.member(Role.WITNESS, place) for place in range(4)}


def hold(world: BridgeWorld, policy: Policy, members: set[IdentityKey] | None = None) -> None:
    """Let every witness hold a policy."""
    world.network.faults.policies = dict.fromkeys(members or witnesses(world), policy)


def refuse_first(rule: str, reason: str, *, until: int = 1) -> tuple[Policy, set[Txid]]:
    """Return a policy against the first `until` transactions it sees, and the set of those."""
    seen: set[Txid] = set()

    def judge(intent: Intent) -> Refusal | None:
        if len(seen) < until:
            seen.add(intent.txid)
        return Refusal(rule, (rule,), reason, "not this one") if intent.txid in seen else None

    return judge, seen


# ------------------------------------------------------------------ transfers


async def age_behind_v(world: BridgeWorld, blocks: int) -> None:
    """Let V sign what is recorded while W is away, then Bitcoin blocks pass, then W is back."""
    await world.until(lambda: world.list_states() == [BatchState.RECORDED])
    world.network.faults.deaf = witnesses(world)
    await world.until(lambda: world.list_states() == [BatchState.VALIDATORS_SIGNED])
    world.mine_empty(blocks)
    world.network.faults.deaf = set()


@simulated
async def test_w_refuses_one_deposit_of_a_signed_transfer_and_a_replacement_moves_the_others(
    world: BridgeWorld,
) -> None:
    opening, patient = await world.issue(50_000_000, 20_000_000)
    old = world.pay(opening, 50_000_000, confirmations=26)
    young = world.pay(patient, 20_000_000, confirmations=3)
    await age_behind_v(world, 3)
    await world.until(lambda: young in world.ledger.credited, mine_every=12)
    assert old not in world.ledger.credited
    await world.until(lambda: world.list_statuses() == [IntentStatus.DEAD, IntentStatus.BOOKED])
    assert world.deposit(old).state is DepositState.EXPIRED
    world.mine_empty(10)
    await world.refund(opening, old, 50_000_000)
    world.mine(3)
    await world.until(lambda: world.deposit(old).state is DepositState.REFUNDED)
    await world.rest()
    await world.check_rebuild()


@simulated
async def test_w_refuses_the_only_deposit_of_a_signed_transfer_and_its_refund_ends_it(world: BridgeWorld) -> None:
    (invoice,) = await world.issue(50_000_000)
    deposit = world.pay(invoice, 50_000_000, confirmations=26)
    await age_behind_v(world, 4)
    (batch,) = world.board.open_batches()
    opens = world.deposit(deposit).refund_height
    assert opens is not None
    await world.until(lambda: f"open from Bitcoin block {opens} on" in world.board.batches[batch.intent_id].note)
    note = world.board.batches[batch.intent_id].note
    assert note.startswith("witness refuses: V34")
    asked = world.network.asked["Commit"]
    await world.advance(LONGEST_RETRY_BLOCKS)
    rounds = (world.network.asked["Commit"] - asked) / 4
    assert 4 <= rounds <= 7, "asked ever more seldom, and never forgotten"
    assert world.list_statuses() == [IntentStatus.LIVE]
    world.mine_empty(opens - world.bitcoin.height - 1)
    await world.refund(invoice, deposit, 50_000_000)
    world.mine()
    assert world.bitcoin.height == opens, "the refund is mined in the very block that was told"
    world.mine_empty(2)
    await world.until(lambda: world.list_statuses() == [IntentStatus.DEAD])
    await world.rest()
    assert (world.list_states(), world.deposit(deposit).state) == ([BatchState.DEAD], DepositState.REFUNDED)
    await world.check_rebuild()


@simulated
async def test_w_that_changes_its_mind_signs_what_it_refused(world: BridgeWorld) -> None:
    (invoice,) = await world.issue(50_000_000)
    deposit = world.pay(invoice, 50_000_000, confirmations=3)
    policy, _ = refuse_first("V34", "REFUND_TOO_CLOSE")
    hold(world, policy)
    await world.until(lambda: world.list_states() == [BatchState.VALIDATORS_SIGNED])
    await world.until(lambda: world.board.open_batches()[0].refusals == 5)
    hold(world, lambda _: None)
    await world.until(lambda: world.list_states() == [BatchState.BROADCAST], blocks=LONGEST_RETRY_BLOCKS)
    assert world.board.open_batches()[0].refusals == 0
    world.mine()
    await world.until(lambda: deposit in world.ledger.credited)
    assert len(world.ledger.intents) == 1
    await world.rest()
    await world.check_rebuild()


@turning
async def test_w_refuses_a_single_deposits_target_and_the_replacement_pays_the_epoch_active_by_then(
    world: TurningWorld,
) -> None:
    (invoice,) = await world.issue(50_000_000)
    deposit = world.pay(invoice, 50_000_000, confirmations=3)
    policy, refused = refuse_first("V22", "TARGET_NOT_ACTIVE")
    hold(world, policy, set(world.ledger.epochs[EpochNumber(0)].groups[Role.WITNESS].members))
    await world.until(lambda: refused)
    await world.until(lambda: world.active == 1)
    await world.until(lambda: deposit in world.ledger.credited, mine_every=12)
    moved = [entry.intent for entry in world.ledger.intents.values() if deposit in entry.intent.outpoints]
    assert moved[0].target_epoch == EpochNumber(0)
    assert moved[-1].target_epoch >= EpochNumber(1)
    assert world.ledger.credited[deposit] == moved[-1].txid
    assert moved[0].intent_id in moved[-1].replaces


# ------------------------------------------------------------------ payouts


@simulated
async def test_w_refuses_a_signed_payout_and_a_replacement_pays_its_burns_once(world: BridgeWorld) -> None:
    await world.peg_in(50_000_000)
    world.mine(3)
    policy, refused = refuse_first("V15", "CHANGE_SCRIPT")
    hold(world, policy)
    burn = await world.burn(4_000_000, script=destination("bob"))
    await world.until(lambda: refused)
    await world.until(lambda: world.is_settled(burn), mine_every=12)
    await world.rest()
    assert await world.list_payments(destination("bob")) == [4_000_000]
    first, second = list(world.ledger.intents.values())[1:]
    assert (first.status, second.status) == (IntentStatus.DEAD, IntentStatus.BOOKED)
    assert second.intent.replaces == (first.intent.intent_id,)
    assert first.intent.txid in refused
    await world.check_rebuild()


@simulated
async def test_versions_do_not_pile_up_while_w_refuses_every_one(world: BridgeWorld) -> None:
    """Each version is refused once more than the one before it until the next is planned."""
    await world.peg_in(50_000_000)
    world.mine(3)
    policy, refused = refuse_first("V15", "CHANGE_SCRIPT", until=3)
    hold(world, policy)
    burn = await world.burn(4_000_000, script=destination("bob"))
    await world.until(lambda: len(refused) == 3, mine_every=12)
    await world.until(lambda: world.is_settled(burn), mine_every=12)
    await world.rest()
    statuses = world.list_statuses()[1:]
    assert statuses == [IntentStatus.DEAD] * 3 + [IntentStatus.BOOKED]
    assert await world.list_payments(destination("bob")) == [4_000_000]


# ------------------------------------------------------------------ sweeps


@turning
async def test_w_refuses_a_signed_sweeps_target_and_the_replacement_pays_the_epoch_active_by_then(
    world: TurningWorld,
) -> None:
    await world.peg_in(50_000_000)
    policy, refused = refuse_first("V22", "TARGET_NOT_ACTIVE")

    def judge(intent: Intent) -> Refusal | None:
        return policy(intent) if intent.kind is IntentKind.SWEEP else None

    hold(world, judge, set(world.ledger.epochs[EpochNumber(0)].groups[Role.WITNESS].members))
    await world.reach(1)
    world.mine(3)
    await world.until(lambda: refused)
    await world.until(lambda: not world.find_value(0), mine_every=12)
    first, *_, last = world.list_sweeps()
    assert first.intent.txid in refused
    assert (first.status, last.status) == (IntentStatus.DEAD, IntentStatus.BOOKED)
    assert first.intent.intent_id in last.intent.replaces
    assert world.find_value(int(last.intent.target_epoch))
    await world.close_batches()
