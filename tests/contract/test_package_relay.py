"""The package port's contract, told once and held by the real node and by its twin, with TRUC enforced and accepted."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from smpc.bitcoin.mempool import MempoolPolicy, Rival, TrucPolicy
from smpc.bitcoin.transaction import Transaction
from smpc.errors import InvalidInput
from smpc.node.bitcoind import BitcoindNode
from smpc.node.bitcoind_endpoint import RpcEndpoint, UserPassword
from smpc.node.bitcoind_package import BitcoindPackageRelay
from smpc.node.memory_bitcoin import MemoryBitcoin
from smpc.node.package_relay import Admission, AlreadyKnown, Entered, NotTaken
from smpc.node.ports import BroadcastRefused, RefusalReason
from smpc.types import FeeRate, Network, Sats, Vbytes
from tests.contract.bitcoin_world import MemoryWorld, RegtestWorld, spend
from tests.contract.package_world import COIN, FLOOR, PackageWorld, child, compute_fee_at, emergency
from tests.support.regtest import MATURE_AFTER, RegtestNode

INCREMENT = FeeRate(1_000)


class Nodes:
    """One real node per TRUC policy, started when it is first asked for."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._nodes: dict[TrucPolicy, RegtestNode] = {}

    def get(self, truc: TrucPolicy) -> RegtestNode:
        if truc not in self._nodes:
            node = RegtestNode("-minrelaytxfee=0.00005", f"-mempooltruc={truc}")
            self._nodes[truc] = self._stack.enter_context(node)
            node.mine(MATURE_AFTER + 20)
        return self._nodes[truc]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with ExitStack() as stack:
        yield Nodes(stack)


@pytest.fixture
def truc() -> TrucPolicy:
    return TrucPolicy.ENFORCE


@pytest.fixture(params=["memory", "bitcoind"])
async def world(request: pytest.FixtureRequest, truc: TrucPolicy, nodes: Nodes) -> AsyncIterator[PackageWorld]:
    if request.param == "memory":
        memory = MemoryBitcoin(policy=MempoolPolicy(FLOOR, FLOOR, INCREMENT, truc))
        memory.mine(MATURE_AFTER + 20)
        yield PackageWorld(MemoryWorld(memory), memory)
        return
    bitcoind = nodes.get(truc)
    async with open_world(bitcoind) as real:
        yield real
        bitcoind.mine(1)


@asynccontextmanager
async def open_world(bitcoind: RegtestNode) -> AsyncIterator[PackageWorld]:
    endpoint = RpcEndpoint(bitcoind.rpc_url, UserPassword(bitcoind.user, bitcoind.password))
    async with BitcoindNode(endpoint, Network.REGTEST) as node, BitcoindPackageRelay(endpoint, node) as relay:
        yield PackageWorld(RegtestWorld(node, bitcoind), relay)


def entered(fee: int, transaction: Transaction) -> Entered:
    return Entered(Sats(fee), transaction.vsize)


def reason(admission: Admission) -> RefusalReason:
    assert isinstance(admission, NotTaken)
    assert admission.node_reason
    return admission.reason


def every_policy(*policies: TrucPolicy) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("truc", policies or (TrucPolicy.ENFORCE, TrucPolicy.ACCEPT))


class TestFloors:
    @every_policy(*TrucPolicy)
    async def test_node_says_its_floors_and_what_it_makes_of_version_three(
        self, world: PackageWorld, truc: TrucPolicy
    ) -> None:
        assert await world.relay.fetch_mempool_policy() == MempoolPolicy(FLOOR, FLOOR, INCREMENT, truc)


class TestAdmission:
    async def test_parent_below_the_floor_enters_with_its_child_where_truc_is_enforced(
        self, world: PackageWorld
    ) -> None:
        parent = emergency(world.coin(), 200)
        payer = child(parent, world.coin(), 5_000)
        outcome = await world.submit(parent, payer)
        assert (outcome.parent, outcome.child) == (entered(200, parent), entered(5_000, payer))
        assert outcome.is_in
        assert not outcome.replaced
        assert await world.is_pending(payer)

    @every_policy(TrucPolicy.ACCEPT)
    async def test_parent_below_the_floor_stays_out_where_truc_is_merely_accepted(self, world: PackageWorld) -> None:
        parent = emergency(world.coin(), 200)
        payer = child(parent, world.coin(), 50_000)
        outcome = await world.submit(parent, payer)
        assert reason(outcome.parent) is RefusalReason.FEE_TOO_LOW
        assert reason(outcome.child) is RefusalReason.MISSING_INPUTS
        assert not outcome.is_in
        assert not await world.is_pending(parent)

    @every_policy(TrucPolicy.REJECT)
    async def test_node_that_rejects_truc_takes_no_rung_at_all(self, world: PackageWorld) -> None:
        parent = emergency(world.coin(), 50_000)
        outcome = await world.submit(parent, child(parent, world.coin(), 50_000))
        assert reason(outcome.parent) is RefusalReason.POLICY
        assert not await world.is_pending(parent)

    async def test_version_two_parent_below_the_floor_is_never_lifted(self, world: PackageWorld) -> None:
        parent = emergency(world.coin(), 200, version=2)
        outcome = await world.submit(parent, child(parent, world.coin(), 5_000, version=2))
        assert reason(outcome.parent) is RefusalReason.FEE_TOO_LOW

    async def test_package_at_the_floor_enters_and_one_satoshi_below_does_not(self, world: PackageWorld) -> None:
        parent, coin = emergency(world.coin(), 200), world.coin()
        both = parent.vsize + child(parent, coin, 1_000).vsize
        needed = 5 * both - 200
        outcome = await world.submit(parent, child(parent, coin, needed - 1))
        assert reason(outcome.parent) is RefusalReason.FEE_TOO_LOW
        assert reason(outcome.child) is RefusalReason.FEE_TOO_LOW
        assert (await world.submit(parent, child(parent, coin, needed))).is_in

    @every_policy()
    async def test_parent_that_pays_enough_enters_though_its_child_is_refused(self, world: PackageWorld) -> None:
        draft = emergency(coin := world.coin(), 0)
        parent = emergency(coin, compute_fee_at(5, draft))
        outcome = await world.submit(parent, child(parent, world.coin(), 100))
        assert isinstance(outcome.parent, Entered)
        assert reason(outcome.child) is RefusalReason.FEE_TOO_LOW
        assert not outcome.is_in
        assert await world.is_pending(parent)

    @every_policy()
    async def test_what_is_there_already_is_known_and_a_child_may_follow_later(self, world: PackageWorld) -> None:
        parent = emergency(world.coin(), 5_000)
        payer = child(parent, world.coin(), 5_000)
        await world.broadcast(parent)
        outcome = await world.submit(parent, payer)
        assert (outcome.parent, outcome.child) == (AlreadyKnown(), entered(5_000, payer))
        again = await world.submit(parent, payer)
        assert (again.parent, again.child) == (AlreadyKnown(), AlreadyKnown())
        world.world.mine(1)
        mined = await world.submit(parent, payer)
        assert (mined.parent, mined.child) == (AlreadyKnown(), AlreadyKnown())
        assert mined.is_in

    @every_policy()
    async def test_child_of_an_unconfirmed_coin_makes_no_package(self, world: PackageWorld) -> None:
        parent = emergency(world.coin(), 5_000)
        outcome = await world.submit(parent, child(parent, world.coin(confirmations=0), 5_000))
        assert reason(outcome.parent) is reason(outcome.child) is RefusalReason.MISSING_INPUTS
        assert not await world.is_pending(parent)

    async def test_parent_whose_lock_runs_is_not_final_whatever_the_child_pays(self, world: PackageWorld) -> None:
        coin = world.coin(confirmations=2)
        early = emergency(coin, 5_000, sequence=4)
        outcome = await world.submit(early, child(early, world.coin(), 5_000))
        assert reason(outcome.parent) is RefusalReason.NOT_FINAL
        assert reason(outcome.child) is RefusalReason.MISSING_INPUTS
        assert (await world.submit(early, child(early, world.coin(), 5_000))).is_in, "the second coin took a block more"

    async def test_two_strangers_are_no_package(self, world: PackageWorld) -> None:
        first, second = emergency(world.coin(), 5_000), emergency(world.coin(), 5_000)
        with pytest.raises(InvalidInput, match="must spend"):
            await world.submit(first, second)
        with pytest.raises(InvalidInput):
            await world.relay.submit_package(first.to_bytes(), b"\x00")


class TestTruc:
    async def test_child_of_1000_vbytes_enters_and_one_more_does_not(self, world: PackageWorld) -> None:
        parent, coin = emergency(world.coin(), 2_000), world.coin()
        large, larger = (child(parent, coin, 50_000, vbytes=size) for size in (1_000, 1_001))
        assert (large.vsize, larger.vsize) == (1_000, 1_001)
        assert reason((await world.submit(parent, larger)).child) is RefusalReason.POLICY
        assert (await world.submit(parent, large)).is_in

    async def test_parent_of_10000_vbytes_enters_and_one_more_does_not(self, world: PackageWorld) -> None:
        coin, fees = world.coin(), world.coin()
        large, larger = (emergency(coin, 60_000, vbytes=size) for size in (10_000, 10_001))
        assert (large.vsize, larger.vsize) == (10_000, 10_001)
        assert reason((await world.submit(larger, child(larger, fees, 5_000))).parent) is RefusalReason.POLICY
        assert (await world.submit(large, child(large, fees, 5_000))).is_in

    @every_policy()
    async def test_child_of_version_two_is_refused_where_truc_is_enforced_only(
        self, world: PackageWorld, truc: TrucPolicy
    ) -> None:
        parent = emergency(world.coin(), 5_000)
        outcome = await world.submit(parent, child(parent, world.coin(), 5_000, version=2))
        assert isinstance(outcome.parent, Entered)
        if truc is TrucPolicy.ENFORCE:
            assert reason(outcome.child) is RefusalReason.POLICY
        else:
            assert outcome.is_in

    @every_policy()
    async def test_second_child_drives_the_first_out_where_truc_is_enforced_only(
        self, world: PackageWorld, truc: TrucPolicy
    ) -> None:
        parent = emergency(world.coin(), 5_000)
        first, second = child(parent, None, 2_000), child(parent, world.coin(), 50_000)
        await world.broadcast(parent, first)
        outcome = await world.submit(parent, second)
        assert outcome.is_in
        assert outcome.replaced == ({first.txid} if truc is TrucPolicy.ENFORCE else frozenset())
        assert await world.is_pending(first) is (truc is TrucPolicy.ACCEPT)

    @every_policy()
    async def test_grandchild_is_refused_where_truc_is_enforced_only(
        self, world: PackageWorld, truc: TrucPolicy
    ) -> None:
        parent = emergency(world.coin(), 5_000)
        payer = child(parent, world.coin(), 5_000)
        await world.submit(parent, payer)
        grandchild = child(payer, None, 5_000)
        if truc is TrucPolicy.ACCEPT:
            await world.broadcast(grandchild)
            return
        with pytest.raises(BroadcastRefused) as refused:
            await world.broadcast(grandchild)
        assert refused.value.reason is RefusalReason.POLICY


class TestRivals:
    async def test_output_that_nobody_spends_has_no_rival(self, world: PackageWorld) -> None:
        assert await world.relay.fetch_rival(world.coin()) is None

    @every_policy()
    async def test_rival_is_told_with_everything_that_falls_with_it(self, world: PackageWorld) -> None:
        coin = world.coin()
        theirs = spend(coin, pay=COIN - 2_000)
        heir = spend(theirs.outpoint(0), pay=COIN - 5_000)
        await world.broadcast(theirs, heir)
        both = Vbytes(theirs.vsize + heir.vsize)
        outer = Rival(theirs.txid, Sats(2_000), theirs.vsize, Sats(5_000), both, family_count=2, ancestors=0)
        assert await world.relay.fetch_rival(coin) == outer
        inner = Rival(heir.txid, Sats(3_000), heir.vsize, Sats(3_000), heir.vsize, family_count=1, ancestors=1)
        assert await world.relay.fetch_rival(theirs.outpoint(0)) == inner

    @every_policy()
    async def test_package_outbids_a_rival_with_one_child_by_the_price_of_its_own_relay(
        self, world: PackageWorld
    ) -> None:
        coin, fees = world.coin(), world.coin()
        theirs = spend(coin, pay=COIN - 2_000)
        heir = spend(theirs.outpoint(0), pay=COIN - 5_000)
        await world.broadcast(theirs, heir)
        parent = emergency(coin, 1_000)
        both = parent.vsize + child(parent, fees, 5_000).vsize
        # 1 sat/vB for its own relay, but also a rate above the rival's, which is the larger here.
        needed = max(5_000 + both, 3_000 * both // heir.vsize + 1) - 1_000
        outcome = await world.submit(parent, child(parent, fees, 5_000 + both - 1_001))
        assert reason(outcome.parent) is RefusalReason.CONFLICT
        assert reason(outcome.child) is RefusalReason.CONFLICT
        assert await world.is_pending(heir)
        outcome = await world.submit(parent, child(parent, fees, needed))
        assert outcome.is_in
        assert outcome.replaced == {theirs.txid, heir.txid}

    @every_policy()
    async def test_no_package_outbids_a_rival_with_two_heirs_but_a_higher_rung_alone_does(
        self, world: PackageWorld
    ) -> None:
        coin, fees = world.coin(), world.coin()
        theirs = spend(coin, pay=COIN - 2_000)
        heir = spend(theirs.outpoint(0), pay=COIN - 4_000)
        second = spend(heir.outpoint(0), pay=COIN - 6_000)
        await world.broadcast(theirs, heir, second)
        low, high = emergency(coin, 1_000), emergency(coin, 20_000)
        outcome = await world.submit(low, child(low, fees, 500_000))
        assert reason(outcome.parent) is reason(outcome.child) is RefusalReason.CONFLICT
        assert await world.is_pending(second)
        await world.broadcast(high)
        assert not await world.is_pending(theirs)

    @every_policy()
    async def test_package_that_replaces_must_pay_a_better_rate_than_its_parent(self, world: PackageWorld) -> None:
        coin, fees = world.coin(), world.coin()
        theirs = emergency(coin, 20_000, version=2, vbytes=2_000)
        await world.broadcast(theirs)
        parent = emergency(coin, 19_000)
        even = 19_000 * child(parent, fees, 0).vsize // parent.vsize
        assert reason((await world.submit(parent, child(parent, fees, even))).child) is RefusalReason.CONFLICT
        assert (await world.submit(parent, child(parent, fees, even + 1))).is_in

    @every_policy()
    async def test_stranger_on_the_anchor_is_outbid_by_what_its_child_paid_and_our_own_relay(
        self, world: PackageWorld
    ) -> None:
        parent = emergency(world.coin(), 5_000)
        stranger = child(parent, world.coin(), 6_000, vbytes=990)
        coin = world.coin()
        await world.submit(parent, stranger)
        needed = 6_000 + child(parent, coin, 0).vsize
        outcome = await world.submit(parent, child(parent, coin, needed - 1))
        assert reason(outcome.child) is RefusalReason.CONFLICT
        outcome = await world.submit(parent, child(parent, coin, needed))
        assert outcome.is_in
        assert outcome.replaced == {stranger.txid}


@dataclass(frozen=True, slots=True)
class Scene:
    """One package against whoever was there before, in numbers, so that both worlds can play it."""

    rival_fees: tuple[int, ...]
    """What a spender of the parent's input and its heirs pay, one after another; none without numbers."""
    parent_fee: int
    parent_version: int
    child_fee: int
    child_version: int
    child_vbytes: int
    stranger_fee: int
    """What a stranger's child on the anchor pays; none if 0."""


def draw_scene(rng: random.Random) -> Scene:
    versions = (3, 3, 3, 2)
    return Scene(
        rival_fees=tuple(rng.choice((700, 1_500, 4_000)) for _ in range(rng.choice((0, 0, 1, 2, 3)))),
        parent_fee=rng.choice((0, 200, 700, 2_000, 20_000)),
        parent_version=rng.choice(versions),
        child_fee=rng.choice((200, 900, 3_000, 9_000, 60_000)),
        child_version=rng.choice(versions),
        child_vbytes=rng.choice((0, 0, 0, 1_000, 1_001)),
        stranger_fee=rng.choice((0, 0, 1_000, 5_000)),
    )


async def play(world: PackageWorld, scene: Scene) -> list[object]:
    """Play a scene and tell how everybody fared, without any id."""
    coin, fees, other = world.coin(), world.coin(), world.coin()
    heirs = []
    last, left = coin, COIN
    for fee in scene.rival_fees:
        left -= fee
        heirs.append(spend(last, pay=left))
        last = heirs[-1].outpoint(0)
    parent = emergency(coin, scene.parent_fee, version=scene.parent_version)
    stranger = child(parent, other, scene.stranger_fee, version=scene.parent_version)
    crowd = [*heirs, *([parent, stranger] if scene.stranger_fee else [])]
    story: list[object] = []
    for transaction in crowd:
        try:
            await world.broadcast(transaction)
        except BroadcastRefused as refused:
            story.append(refused.reason)
    ours = child(parent, fees, scene.child_fee, version=scene.child_version, vbytes=scene.child_vbytes)
    outcome = await world.submit(parent, ours)
    story += [_tell(outcome.parent), _tell(outcome.child), len(outcome.replaced)]
    story += [await world.is_pending(transaction) for transaction in (*crowd, parent, ours)]
    rival = await world.relay.fetch_rival(coin)
    story.append(rival and (rival.fee, rival.vsize, rival.family_fee, rival.family_vsize, rival.family_count))
    world.world.mine(1)
    return story


def _tell(admission: Admission) -> object:
    return admission.reason if isinstance(admission, NotTaken) else admission


@every_policy(*TrucPolicy)
@pytest.mark.parametrize("seed", [*range(2), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(2, 40))])
async def test_twins_agree_on_packages_of_every_kind(nodes: Nodes, truc: TrucPolicy, seed: int) -> None:
    rng = random.Random(seed)
    memory = MemoryBitcoin(policy=MempoolPolicy(FLOOR, FLOOR, INCREMENT, truc))
    memory.mine(MATURE_AFTER + 20)
    async with open_world(nodes.get(truc)) as real:
        for number in range(12):
            scene = draw_scene(rng)
            stories = [await play(world, scene) for world in (PackageWorld(MemoryWorld(memory), memory), real)]
            assert stories[0] == stories[1], f"seed {seed}, scene {number}: {scene}"
