"""The invoice desk: what an order must be, and that every answer is one final record, whoever asks at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from coordinator.invoice_order import InvoiceOrder, parse_order
from smpc.bitcoin.key_origin import build_master_origin
from smpc.bitcoin.script import build_refund_leaf
from smpc.curve import compute_xonly_key
from smpc.errors import BridgeError, Conflict, Halted, InvalidInput, Refused, Unavailable
from smpc.params import REGTEST
from smpc.protocol.invoices import InvoiceRequest
from smpc.protocol.records import InvoicesRecorded
from smpc.types import ChildIndex, IdentityKey, RecordId
from tests.support.chain import UNSIGNED
from tests.support.desk_world import DeskWorld, make_order, open_desk_world
from tests.support.groups import make_account, make_xonly, sign

KEY = make_xonly("refund alice")


@pytest_asyncio.fixture
async def world() -> AsyncIterator[DeskWorld]:
    async with open_desk_world() as opened:
        yield opened


def order(**changes: object) -> InvoiceOrder:
    fields: dict[str, Any] = {
        "request_id": b"id",
        "recipient": make_account("alice")[1],
        "refund_key": KEY,
        "fingerprint": b"\x01\x02\x03\x04",
        "path": (0x80000056, 1),
        "amounts": (50_000,),
    }
    return parse_order(**{**fields, **changes})


# ------------------------------------------------------------------ what an order must be (C2, D12)


OFF_CURVE = bytes(31) + b"\x05"
"""No point of secp256k1 has x = 5."""


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("refund_key", b""),
        ("refund_key", b"\x02" + KEY),
        ("refund_key", KEY[:31]),
        ("refund_key", bytes(32)),
        ("refund_key", b"\xff" * 32),
        ("refund_key", OFF_CURVE),
        ("refund_key", bytes(build_refund_leaf(KEY, 36))),
        ("refund_key", b"\x50" + KEY + b"\x51"),
        ("recipient", b"\x03" + KEY),
        ("recipient", OFF_CURVE),
        ("request_id", b""),
        ("request_id", bytes(65)),
        ("fingerprint", b"\x01\x02\x03"),
        ("fingerprint", b"\x01\x02\x03\x04\x05"),
        ("path", (1,) * 17),
        ("amounts", ()),
        ("amounts", (50_000,) * 101),
        ("amounts", (0,)),
        ("amounts", (50_000, 2_100_000_000_000_001)),
        ("amounts", (2**63,)),
    ],
)
def test_refuses_an_order_that_is_not_well_formed(field: str, value: object) -> None:
    with pytest.raises(InvalidInput) as refused:
        order(**{field: value})
    assert refused.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("request_id", b"x"),
        ("request_id", bytes(64)),
        ("path", (1,) * 16),
        ("amounts", (1,)),
        ("amounts", (50_000,) * 100),
        ("amounts", (2_100_000_000_000_000,)),
    ],
)
def test_takes_an_order_at_its_limits(field: str, value: object) -> None:
    order(**{field: value})


def test_credits_the_refund_keys_own_account_when_nobody_is_named() -> None:
    assert bytes(order(recipient=b"").recipient) == bytes(KEY)


def test_a_key_without_an_origin_is_its_own_master() -> None:
    made = order(fingerprint=b"", path=())
    assert (made.origin.fingerprint, made.origin.path) == (build_master_origin(KEY).fingerprint, ())
    assert len(made.origin.fingerprint) == 4


def test_a_path_needs_the_fingerprint_it_starts_from() -> None:
    with pytest.raises(InvalidInput, match="refund_fingerprint"):
        order(fingerprint=b"", path=(1,))


# ------------------------------------------------------------------ recorded before it is shown


async def test_answers_only_when_the_record_is_final(world: DeskWorld) -> None:
    asked = asyncio.get_running_loop().create_task(world.desk.issue(make_order(50_000, 60_000)))
    while not world.consensus.ledger.pegins:
        await world.pass_blocks(1)
    for _ in range(REGTEST.finality_depth):
        await asyncio.sleep(0.01)
        assert not asked.done()
        await world.pass_blocks(1)
    pegin = await asyncio.wait_for(asked, 5)
    entries = [world.outlook.ledger.invoices[place] for place in world.outlook.ledger.pegins[pegin]]
    assert [entry.request.amount for entry in entries] == [50_000, 60_000]
    assert [entry.request.terms.index for entry in entries] == [0, 1]
    assert {entry.request.terms.expires for entry in entries} == {world.bitcoin.height + REGTEST.invoice_blocks}


async def test_the_same_request_gets_the_same_peg_in_at_once_and_for_ever(world: DeskWorld) -> None:
    async with world.running():
        first, second = make_order(50_000), make_order(50_000)
        together = await _ask_together(world, first, second)
        later = await world.desk.issue(make_order(50_000))
    assert {*together, later} == {together[0]}
    assert len(world.outlook.ledger.invoices) == 1


@pytest.mark.parametrize("changes", [{"amounts": (50_001,)}, {"user": "bob"}], ids=["amount", "user"])
async def test_the_same_request_id_with_another_body_is_a_conflict(world: DeskWorld, changes: dict[str, Any]) -> None:
    other = make_order(*changes.get("amounts", (50_000,)), user=changes.get("user", "alice"))
    async with world.running():
        asked = asyncio.get_running_loop().create_task(world.desk.issue(make_order(50_000)))
        await asyncio.sleep(0)
        with pytest.raises(Conflict) as meanwhile:
            await world.desk.issue(other)
        await asked
        with pytest.raises(Conflict) as afterwards:
            await world.desk.issue(other)
    assert {meanwhile.value.code, afterwards.value.code} == {"REQUEST_ID_USED"}


async def test_a_hundred_users_at_once_never_share_an_index(world: DeskWorld) -> None:
    orders = [make_order(50_000, 60_000, request_id=b"%d" % number) for number in range(100)]
    async with world.running():
        pegins = await _ask_together(world, *orders)
    assert len(set(pegins)) == 100
    places = [place for pegin in pegins for place in world.outlook.ledger.pegins[pegin]]
    assert sorted(places) == sorted(world.outlook.ledger.invoices)
    assert len(places) == 200


async def test_more_than_a_block_holds_waits_for_the_next(world: DeskWorld) -> None:
    orders = [make_order(*[50_000] * 100, request_id=b"%d" % number) for number in range(5)]
    async with world.running():
        pegins = await _ask_together(world, *orders)
    heights = {world.outlook.ledger.invoices[world.outlook.ledger.pegins[pegin][0]].recorded for pegin in pegins}
    assert len(heights) >= 3


async def test_a_crowd_is_told_to_wait_and_not_kept(world: DeskWorld) -> None:
    orders = [make_order(*[50_000] * 100, request_id=b"%d" % number) for number in range(12)]
    results = [asyncio.get_running_loop().create_task(world.desk.issue(each)) for each in orders]
    async with world.running():
        await asyncio.wait(results)
    codes = [error.code for task in results if isinstance(error := task.exception(), Refused)]
    assert codes == ["RESOURCE_EXHAUSTED"] * 4


async def test_another_coordinators_index_only_costs_a_try(world: DeskWorld) -> None:
    first = await world.issue(50_000, request_id=b"first")
    taken = world.outlook.ledger.invoices[world.outlook.ledger.pegins[first][0]].request
    terms = replace(taken.terms, index=ChildIndex(1))
    foreign = _sign(world, b"foreign", replace(taken, terms=terms))
    world.consensus.ledger.check_record(foreign)
    await world.consensus.submit(foreign)
    pegin = await world.issue(50_000, request_id=b"second")
    assert world.outlook.ledger.pegins[pegin] == ((0, 2),)


async def test_a_restarted_desk_finds_what_it_had_submitted(world: DeskWorld) -> None:
    asked = asyncio.get_running_loop().create_task(world.desk.issue(make_order(50_000)))
    await asyncio.sleep(0.01)
    asked.cancel()
    await world.desk.close()
    pegin = await world.issue(50_000)
    assert list(world.outlook.ledger.pegins) == [pegin]


async def test_who_hangs_up_finds_his_peg_in_by_its_request_id(world: DeskWorld) -> None:
    asked = asyncio.get_running_loop().create_task(world.desk.issue(make_order(50_000)))
    await asyncio.sleep(0)
    asked.cancel()
    async with world.running():
        pegin = await world.desk.issue(make_order(50_000))
    assert list(world.outlook.ledger.pegins) == [pegin]


async def test_a_reorg_of_the_consensus_layer_only_delays_the_answer(world: DeskWorld) -> None:
    asked = asyncio.get_running_loop().create_task(world.desk.issue(make_order(50_000)))
    await asyncio.sleep(0.01)
    await world.consensus.produce()
    await asyncio.sleep(0.01)
    await world.consensus.rewind(1)
    async with world.running():
        pegin = await asyncio.wait_for(asked, 5)
    assert world.outlook.ledger.find_record(pegin) is not None


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(("amount", "rule"), [(19_999, "V33"), (10_000_000_001, "V33")])
async def test_refuses_amounts_one_satoshi_outside_the_bounds(world: DeskWorld, amount: int, rule: str) -> None:
    with pytest.raises(Refused) as refused:
        await world.issue(amount)
    assert refused.value.rule == rule
    assert not world.outlook.ledger.invoices


@pytest.mark.parametrize("amount", [20_000, 10_000_000_000])
async def test_takes_amounts_at_the_bounds(world: DeskWorld, amount: int) -> None:
    assert await world.issue(amount)


async def test_refuses_while_no_epoch_is_active() -> None:
    async with open_desk_world(is_active=False) as young:
        with pytest.raises(Refused) as refused:
            await young.issue(50_000)
    assert refused.value.code == "NO_EPOCH"


@pytest.mark.parametrize(
    "reason", [Unavailable("no store"), Halted("money"), Refused("paused", code="PAUSED")], ids=lambda each: each.code
)
async def test_makes_no_promise_while_it_is_closed(world: DeskWorld, reason: BridgeError) -> None:
    known = await world.issue(50_000, request_id=b"before")
    world.closed.append(reason)
    with pytest.raises(type(reason)):
        await world.issue(50_000, request_id=b"after")
    assert await world.issue(50_000, request_id=b"before") == known
    assert len(world.outlook.ledger.pegins) == 1


async def test_makes_no_promise_while_its_bitcoin_node_is_behind(world: DeskWorld) -> None:
    world.bitcoin.set_sync(blocks_behind=3)
    with pytest.raises(Unavailable, match="of 12"):
        await world.issue(50_000)
    world.bitcoin.set_sync(blocks_behind=2)
    assert await world.issue(50_000)


async def test_a_draft_checks_everything_and_changes_nothing(world: DeskWorld) -> None:
    root = world.consensus.ledger.compute_state_root()
    draft = await world.desk.draft(make_order(50_000, 60_000))
    assert [invoice.terms.index for invoice in draft.invoices] == [0, 1]
    with pytest.raises(Refused):
        await world.desk.draft(make_order(19_999))
    assert world.consensus.ledger.compute_state_root() == root
    assert world.outlook.ledger.compute_state_root() != b""
    assert await world.issue(50_000) in world.outlook.ledger.pegins


async def _ask_together(world: DeskWorld, *orders: InvoiceOrder) -> list[RecordId]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(world.desk.issue(each)) for each in orders]
    return [task.result() for task in tasks]


def _sign(world: DeskWorld, request_id: bytes, *invoices: InvoiceRequest) -> InvoicesRecorded:
    coordinator = IdentityKey(compute_xonly_key(world.epoch.coordinator))
    unsigned = InvoicesRecorded(REGTEST.network, request_id, invoices, coordinator, UNSIGNED)
    return replace(unsigned, signature=sign(world.epoch.coordinator, unsigned.digest))
