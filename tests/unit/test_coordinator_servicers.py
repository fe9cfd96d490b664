"""The servicers without a network: what they answer, how a watch runs and ends, and that hanging up harms nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import pytest_asyncio

from coordinator.pod_inquiry import PodInquiry
from coordinator.servicers.peg import PegServicer
from pegbridge.v1 import peg_pb2 as pb
from pegin import events
from smpc.errors import BridgeError, InvalidInput, NotFound, Unavailable
from smpc.host.grpc_channel import RpcChannel
from smpc.params import REGTEST
from smpc.types import BtcHeight, IdentityKey, RecordId, Sats, Txid
from tests.support.desk_world import FIRST_HEIGHT, DeskWorld, open_desk_world
from tests.support.groups import build_genesis, make_account, make_xonly

CONTEXT = cast("Any", None)
"""No servicer looks at its call's context: identity and deadlines are the server's business."""


@pytest_asyncio.fixture
async def world() -> AsyncIterator[DeskWorld]:
    async with open_desk_world() as opened:
        yield opened


@pytest.fixture
def servicer(world: DeskWorld) -> PegServicer:
    return PegServicer(world.outlook, world.desk, world.replica)


def order(*, dry_run: bool = False) -> pb.CreateInvoicesRequest:
    return pb.CreateInvoicesRequest(
        request_id=b"id",
        recipient=make_account("alice")[1],
        refund_key=make_xonly("refund alice"),
        amounts_sats=[50_000, 60_000],
        dry_run=dry_run,
    )


async def test_an_invoice_comes_with_everything_a_wallet_needs(world: DeskWorld, servicer: PegServicer) -> None:
    async with world.running():
        pegin = (await servicer.CreateInvoices(order(), CONTEXT)).pegin
    assert (pegin.state, pegin.index, len(pegin.outputs)) == ("issued", 0, 2)
    assert pegin.expires_btc_height == FIRST_HEIGHT + REGTEST.invoice_blocks
    for place, output in enumerate(pegin.outputs):
        assert output.address == world.address(RecordId(pegin.id), place)
        assert output.descriptor.startswith("tr(50929b74")
        assert {leaf.name for leaf in output.leaves} == {"marker", "refund", "rejection", "transfer"}
        assert output.bip21.startswith(f"bitcoin:{output.address}?amount=0.000")


async def test_a_dry_run_is_the_same_answer_without_the_record(world: DeskWorld, servicer: PegServicer) -> None:
    planned = (await servicer.CreateInvoices(order(dry_run=True), CONTEXT)).pegin
    assert not world.consensus.ledger.pegins
    async with world.running():
        real = (await servicer.CreateInvoices(order(), CONTEXT)).pegin
    assert [output.address for output in planned.outputs] == [output.address for output in real.outputs]
    again = (await servicer.CreateInvoices(order(dry_run=True), CONTEXT)).pegin
    assert again.id == real.id


@pytest.mark.parametrize("length", [0, 31, 33])
async def test_an_id_has_32_bytes(servicer: PegServicer, length: int) -> None:
    with pytest.raises(InvalidInput):
        await servicer.GetPegIn(pb.GetPegInRequest(id=bytes(length)), CONTEXT)
    with pytest.raises(InvalidInput):
        await servicer.GetPegOut(pb.GetPegOutRequest(id=bytes(length)), CONTEXT)


async def test_what_is_final_for_the_caller_is_waited_for(world: DeskWorld, servicer: PegServicer) -> None:
    pegin = await world.issue(50_000)
    found = await servicer.GetPegIn(pb.GetPegInRequest(id=pegin), CONTEXT)
    assert found.pegin.id == pegin
    with pytest.raises(NotFound):
        await servicer.GetPegIn(pb.GetPegInRequest(id=bytes(32)), CONTEXT)


async def test_epochs_are_told_by_number_and_the_active_one_by_default(servicer: PegServicer) -> None:
    active = await servicer.GetEpoch(pb.PegServiceGetEpochRequest(), CONTEXT)
    zero = await servicer.GetEpoch(pb.PegServiceGetEpochRequest(epoch=0), CONTEXT)
    assert active == zero
    assert all(len(group.group_key) == 33 for group in active.groups)
    with pytest.raises(NotFound):
        await servicer.GetEpoch(pb.PegServiceGetEpochRequest(epoch=1), CONTEXT)


# ------------------------------------------------------------------ watching


class Watch:
    """Somebody who watches a peg-in."""

    def __init__(self, servicer: PegServicer, pegin: RecordId) -> None:
        self._told: asyncio.Queue[pb.PegIn] = asyncio.Queue()
        self.task = asyncio.get_running_loop().create_task(self._run(servicer, pegin))

    async def _run(self, servicer: PegServicer, pegin: RecordId) -> None:
        async for reply in servicer.WatchPegIn(pb.WatchPegInRequest(id=pegin), CONTEXT):
            self._told.put_nowait(reply.pegin)

    async def next(self) -> tuple[str, str]:
        """Return the next state told and what it waits for."""
        pegin = await asyncio.wait_for(self._told.get(), 5)
        return pegin.state, pegin.waiting_for

    @property
    def is_silent(self) -> bool:
        """Whether nothing was told that was not heard."""
        return self._told.empty()


async def test_a_watch_tells_each_change_once_and_ends_with_the_credit(world: DeskWorld, servicer: PegServicer) -> None:
    pegin = await world.issue(50_000)
    watch = Watch(servicer, pegin)
    assert await watch.next() == ("issued", "a deposit")
    for _ in range(3):
        world.outlook.changed.note()
        await asyncio.sleep(0.06)
    assert watch.is_silent
    deposit = await world.see_deposit(pegin, value=50_000)
    world.outlook.changed.note()
    assert await watch.next() == ("seen", "confirmations 0/3")
    height = BtcHeight(FIRST_HEIGHT - 4)
    await world.move(deposit.outpoint, events.DepositConfirmed(height, world.outlook.tip))
    await world.move(deposit.outpoint, events.Credited(Txid(bytes(32)), Sats(49_000), world.outlook.tip))
    world.outlook.changed.note()
    assert await watch.next() == ("booked", "")
    await asyncio.wait_for(watch.task, 5)


async def test_who_stops_watching_harms_nobody_else(world: DeskWorld, servicer: PegServicer) -> None:
    pegin = await world.issue(50_000)
    gone, stays = Watch(servicer, pegin), Watch(servicer, pegin)
    assert await gone.next() == await stays.next()
    gone.task.cancel()
    await asyncio.wait([gone.task])
    await world.see_deposit(pegin, value=50_000)
    world.outlook.changed.note()
    assert await stays.next() == ("seen", "confirmations 0/3")
    assert gone.is_silent
    stays.task.cancel()
    await asyncio.wait([stays.task])


async def test_a_watch_of_nothing_is_refused_at_once(servicer: PegServicer) -> None:
    stream = servicer.WatchPegOut(pb.WatchPegOutRequest(id=bytes(32)), CONTEXT)
    with pytest.raises(NotFound):
        await anext(aiter(stream))


# ------------------------------------------------------------------ asking pods


class NoChannels:
    """A network without pods."""

    def channel(self, pod: IdentityKey) -> RpcChannel:
        raise Unavailable(f"pod {pod.hex()[:8]} is not there")


async def test_pods_that_do_not_answer_are_answers_too() -> None:
    pods = [validator.identity for validator in build_genesis().validators]
    inquiry = PodInquiry(NoChannels(), pods)
    for answers in (await inquiry.fetch_statuses(), await inquiry.fetch_checks([bytes(32)])):
        assert list(answers) == pods
        assert all(isinstance(answer, BridgeError) for answer in answers.values())
