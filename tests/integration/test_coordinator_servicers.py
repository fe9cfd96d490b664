"""A running coordinator from outside: what users and its operator are told, and what outages and floods change."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest

from coordinator.cli.desk import Desk
from coordinator.cli.output import Output
from coordinator.cli.profile import find_profile
from pegbridge.v1 import operator_pb2, peg_pb2
from pegbridge.v1.operator_pb2_grpc import OperatorServiceStub
from smpc.errors import BridgeError, Conflict, InvalidInput, NotFound, Refused, Unavailable
from smpc.host.grpc_channel import RpcChannel
from smpc.host.peer import PeerRole
from smpc.types import Network
from tests.support.devnet import RunningDevnet
from tests.support.groups import make_account, make_xonly

T = TypeVar("T")

SECONDS = 20.0
ORDER_BURST, ORDERS_PER_SECOND = 50, 10
"""What one caller may order where the configuration says nothing else."""

HEALED_WITHIN = 10.0
"""After a dependency is back (case G9), on a machine that has nothing else to do."""


def allow(seconds: float) -> float:
    """Return the time that this takes on a machine as busy as this one."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def ask(devnet: RunningDevnet, work: Callable[[Desk], Awaitable[T]]) -> T:
    """Run some calls with the devnet's own profile."""

    async def run() -> T:
        async with Desk(devnet.data_dir, find_profile(devnet.data_dir), Output("test", "", as_json=True)) as desk:
            return await work(desk)

    return asyncio.run(run())


def fail(devnet: RunningDevnet, work: Callable[[Desk], Awaitable[object]]) -> BridgeError:
    """Run some calls that must fail, and return how."""
    with pytest.raises(BridgeError) as caught:
        ask(devnet, work)
    return caught.value


def order(name: bytes, *amounts: int, **changes: object) -> peg_pb2.CreateInvoicesRequest:
    request = peg_pb2.CreateInvoicesRequest(
        request_id=name,
        recipient=make_account("alice")[1],
        refund_key=make_xonly("refund alice"),
        amounts_sats=amounts or (50_000,),
    )
    for field, value in changes.items():
        setattr(request, field, value)
    return request


async def create(desk: Desk, request: peg_pb2.CreateInvoicesRequest) -> peg_pb2.PegIn:
    reply = await desk.peg.call(lambda stub: stub.CreateInvoices, request, seconds=SECONDS)
    return reply.pegin


async def doctor(desk: Desk) -> dict[str, operator_pb2.DoctorFinding]:
    reply = await desk.operator.call(lambda stub: stub.Doctor, operator_pb2.DoctorRequest(), seconds=SECONDS)
    return {finding.name: finding for finding in reply.findings}


async def pause(desk: Desk, flow: str, *, is_paused: bool, dry_run: bool = False) -> list[str]:
    request = operator_pb2.PauseRequest(flow=flow, is_paused=is_paused, dry_run=dry_run)
    return list((await desk.operator.call(lambda stub: stub.Pause, request, seconds=SECONDS)).paused)


async def run_sweep(desk: Desk, request: operator_pb2.RunSweepRequest) -> operator_pb2.RunSweepResponse:
    return await desk.operator.call(lambda stub: stub.RunSweep, request, seconds=SECONDS)


async def plan_sweep(desk: Desk, rate: int) -> operator_pb2.PlanSweepResponse:
    request = operator_pb2.PlanSweepRequest(fee_rate_sat_per_kvb=rate)
    return await desk.operator.call(lambda stub: stub.PlanSweep, request, seconds=SECONDS)


async def supply(desk: Desk) -> peg_pb2.PegServiceGetSupplyResponse:
    return await desk.peg.call(lambda stub: stub.GetSupply, peg_pb2.PegServiceGetSupplyRequest(), seconds=SECONDS)


# ------------------------------------------------------------------ users


def test_a_nameless_user_learns_terms_epoch_and_supply(devnet: RunningDevnet) -> None:
    async def look(desk: Desk) -> None:
        terms = await desk.peg.call(lambda stub: stub.GetTerms, peg_pb2.GetTermsRequest(), seconds=SECONDS)
        assert (terms.network, terms.min_amount_sats, terms.refund_csv_blocks) == ("regtest", 20_000, 36)
        epoch = await desk.peg.call(lambda stub: stub.GetEpoch, peg_pb2.PegServiceGetEpochRequest(), seconds=SECONDS)
        assert (epoch.epoch, epoch.state) == (0, "active")
        assert [(group.role, group.threshold, len(group.members)) for group in epoch.groups] == [
            ("validator", 3, 4),
            ("witness", 3, 4),
            ("emergency", 3, 4),
        ]
        money = await supply(desk)
        assert money.difference_sats == 0
        assert money.locked_sats == money.supply_sats + money.pegout_in_flight_sats + money.reserve_sats

    ask(devnet, look)


@pytest.mark.parametrize(
    "changes",
    [
        {"refund_key": b"\x02" + make_xonly("refund alice")},
        {"refund_key": bytes(31) + b"\x05"},
        {"refund_key": b"\x50" * 33},
        {"recipient": bytes(32)},
        {"refund_fingerprint": b"\x01"},
        {"request_id": b""},
    ],
    ids=["33 bytes", "off the curve", "OP_SUCCESS", "no account", "short fingerprint", "no request id"],
)
def test_an_order_not_well_formed_is_the_callers_fault(devnet: RunningDevnet, changes: dict[str, bytes]) -> None:
    error = fail(devnet, lambda desk: create(desk, order(b"malformed", **changes)))
    assert (type(error), error.code) == (InvalidInput, "INVALID_ARGUMENT")


@pytest.mark.parametrize("amount", [19_999, 10_000_000_001])
def test_an_amount_out_of_bounds_names_the_rule(devnet: RunningDevnet, amount: int) -> None:
    error = fail(devnet, lambda desk: create(desk, order(b"bounds", amount)))
    assert (type(error), error.rule) == (Refused, "V33")


def test_the_same_request_id_gives_the_same_addresses_or_a_conflict(devnet: RunningDevnet) -> None:
    async def twice(desk: Desk) -> None:
        first = await create(desk, order(b"twice", 50_000, 60_000))
        second = await create(desk, order(b"twice", 50_000, 60_000))
        assert [output.address for output in first.outputs] == [output.address for output in second.outputs]
        assert first.id == second.id
        with pytest.raises(Conflict) as conflict:
            await create(desk, order(b"twice", 50_000, 60_001))
        assert conflict.value.code == "REQUEST_ID_USED"

    ask(devnet, twice)


def test_many_users_at_once_get_addresses_of_their_own(devnet: RunningDevnet) -> None:
    async def crowd(desk: Desk) -> list[peg_pb2.PegIn]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(create(desk, order(b"crowd %d" % number, 50_000))) for number in range(30)]
        return [task.result() for task in tasks]

    pegins = ask(devnet, crowd)
    assert len({pegin.outputs[0].address for pegin in pegins}) == 30
    assert len({pegin.index for pegin in pegins}) == 30


def test_a_dry_run_shows_everything_and_records_nothing(devnet: RunningDevnet) -> None:
    async def dry(desk: Desk) -> None:
        before = await desk.peg.call(lambda stub: stub.ListPegIns, peg_pb2.ListPegInsRequest(limit=1), seconds=SECONDS)
        shown = await create(desk, order(b"dry", 50_000, dry_run=True))
        assert shown.outputs[0].address.startswith("bcrt1p")
        request = peg_pb2.GetPegInRequest(id=shown.id)
        with pytest.raises(NotFound):
            await desk.peg.call(lambda stub: stub.GetPegIn, request, seconds=SECONDS)
        after = await desk.peg.call(lambda stub: stub.ListPegIns, peg_pb2.ListPegInsRequest(limit=1), seconds=SECONDS)
        assert [pegin.id for pegin in before.pegins] == [pegin.id for pegin in after.pegins]

    ask(devnet, dry)


def test_a_watch_tells_every_state_from_the_invoice_to_the_credit(devnet: RunningDevnet) -> None:
    user = devnet.enter_user()
    ordered = devnet.order(user, "0.02")

    async def watch(desk: Desk) -> list[str]:
        states: list[str] = []
        request = peg_pb2.WatchPegInRequest(id=bytes.fromhex(ordered["id"]))
        async for reply in desk.peg.stream(lambda stub: stub.WatchPegIn, request, seconds=90):
            state = reply.pegin.state
            if not states or states[-1] != state:
                states.append(state)
                if state == "issued":
                    await asyncio.to_thread(devnet.pay, user, ordered["outputs"][0]["address"], "0.02")
            if state in {"seen", "maturing", "transferring"}:
                await asyncio.to_thread(devnet.mine)
        return states

    states = ask(devnet, watch)
    wanted = ["issued", "seen", "maturing", "mature", "recorded", "transferring", "locked", "booked"]
    assert [state for state in wanted if state in states] == states
    assert (states[0], states[-1]) == ("issued", "booked")


def test_a_flood_of_one_caller_is_limited_and_questions_stay_quick(devnet: RunningDevnet) -> None:
    async def flood(desk: Desk) -> tuple[list[str], list[float]]:
        room = asyncio.Semaphore(64)

        async def one(number: int) -> str:
            try:
                async with room:
                    await create(desk, order(b"flood %d" % number, dry_run=True))
            except Refused as refused:
                return refused.code
            return "ok"

        async def measure() -> list[float]:
            took = []
            for _ in range(40):
                began = time.monotonic()
                await supply(desk)
                took.append(time.monotonic() - began)
            return took

        async with asyncio.TaskGroup() as group:
            codes = [group.create_task(one(number)) for number in range(300)]
            times = group.create_task(measure())
        return [task.result() for task in codes], times.result()

    began = time.monotonic()
    codes, times = ask(devnet, flood)
    elapsed = time.monotonic() - began
    assert set(codes) == {"ok", "RESOURCE_EXHAUSTED"}
    assert codes.count("ok") <= ORDER_BURST + ORDERS_PER_SECOND * elapsed + 1
    assert statistics.quantiles(times, n=100)[98] < allow(1.0)
    time.sleep(2)  # the bucket of this machine's address fills again: ten a second


# ------------------------------------------------------------------ the operator


def test_only_the_operator_asks_the_operators_service(devnet: RunningDevnet) -> None:
    async def as_user(desk: Desk) -> None:
        profile = desk.profile
        assert profile.operator is not None
        expect = profile.operator.expect(Network.REGTEST, PeerRole.COORDINATOR)
        channel = RpcChannel(profile.operator.endpoint, profile.tls, expect=expect)
        try:
            client = channel.client(OperatorServiceStub)
            await client.call(lambda stub: stub.Doctor, operator_pb2.DoctorRequest(), seconds=SECONDS)
        finally:
            await channel.close()

    assert fail(devnet, as_user).code == "PERMISSION_DENIED"


def test_the_doctor_finds_a_healthy_bridge_well(devnet: RunningDevnet) -> None:
    findings = ask(devnet, doctor)
    assert [name for name, finding in findings.items() if not finding.is_ok] == []
    assert {
        "coordinator.working",
        "bitcoind.txindex",
        "store.reachable",
        "store.lease",
        "consensus.replica",
        "epoch.active",
        "money.identity",
        "tls.certificate",
        "pod-16.reachable",
        "group.witness",
    } <= set(findings)


def test_the_doctor_names_a_pod_that_is_down_and_what_to_do(devnet: RunningDevnet) -> None:
    devnet.peg("devnet", "stop", "pod-03")
    try:
        findings = ask(devnet, doctor)
        assert not findings["pod-03.reachable"].is_ok
        assert findings["pod-03.reachable"].remedy
        assert findings["pod-04.reachable"].is_ok
    finally:
        devnet.peg("devnet", "start", "pod-03")
    devnet.wait(lambda: ask(devnet, doctor)["pod-03.reachable"].is_ok, "pod-03")


def test_a_pause_stops_new_promises_and_outlives_a_restart(devnet: RunningDevnet) -> None:
    assert ask(devnet, lambda desk: pause(desk, "pegin", is_paused=True, dry_run=True)) == []
    assert ask(devnet, lambda desk: pause(desk, "pegin", is_paused=True)) == ["pegin"]
    try:
        assert fail(devnet, lambda desk: create(desk, order(b"paused"))).code == "PAUSED"
        devnet.peg("devnet", "stop", "coordinator")
        devnet.peg("devnet", "start", "coordinator")
        devnet.wait(lambda: fail(devnet, lambda desk: create(desk, order(b"paused"))).code == "PAUSED", "the pause")
        assert "paused" in ask(devnet, doctor)["flow.pegin"].detail
    finally:
        assert ask(devnet, lambda desk: pause(desk, "pegin", is_paused=False)) == []
    assert ask(devnet, lambda desk: create(desk, order(b"paused"))).state == "issued"


@pytest.mark.parametrize(
    ("asked", "kind", "rule"),
    [
        (operator_pb2.RunSweepRequest(), InvalidInput, ""),
        (operator_pb2.RunSweepRequest(epoch=0), Refused, "V06"),
        (operator_pb2.RunSweepRequest(epoch=0, dry_run=True), Refused, "V06"),
        (operator_pb2.RunSweepRequest(epoch=2**64 - 1), NotFound, ""),
    ],
    ids=["no epoch", "active", "active, dry", "never was"],
)
def test_only_a_retiring_epoch_is_swept(
    devnet: RunningDevnet, asked: operator_pb2.RunSweepRequest, kind: type[BridgeError], rule: str
) -> None:
    error = fail(devnet, lambda desk: run_sweep(desk, asked))
    assert (type(error), error.rule) == (kind, rule)


@pytest.mark.parametrize(
    ("rate", "kind"), [(0, InvalidInput), (1_999, Refused), (300_001, Refused), (2**64 - 1, Refused)]
)
def test_a_sweep_is_planned_at_rates_that_the_network_knows(
    devnet: RunningDevnet, rate: int, kind: type[BridgeError]
) -> None:
    assert type(fail(devnet, lambda desk: plan_sweep(desk, rate))) is kind


def test_an_epoch_that_stays_active_has_nothing_to_sweep(devnet: RunningDevnet) -> None:
    status = devnet.peg("sweep", "status")
    assert [(epoch["epoch"], epoch["state"], epoch["sweeps"]) for epoch in status["epochs"]] == [(0, "not_due", [])]
    assert devnet.peg("sweep", "plan")["plans"] == []


def test_every_check_of_every_member_is_told_for_a_credited_peg_in(devnet: RunningDevnet) -> None:
    user = devnet.enter_user()
    pegin = devnet.credit(user, "0.01")

    async def explain(desk: Desk) -> list[operator_pb2.PodCheck]:
        request = operator_pb2.OperatorServiceExplainRequest(subject=bytes.fromhex(pegin["id"]))
        return list((await desk.operator.call(lambda stub: stub.Explain, request, seconds=SECONDS)).checks)

    checks = ask(devnet, explain)
    assert len({check.pod for check in checks}) >= 6
    assert {check.stage for check in checks} == {"endorse", "sign"}
    assert {"V01", "V14", "V21", "V33", "V70"} <= {check.rule for check in checks if check.is_ok}


# ------------------------------------------------------------------ outages (case G9)


@pytest.fixture(params=["store", "consensus", "bitcoind"])
def cut(request: pytest.FixtureRequest, devnet: RunningDevnet) -> Iterator[str]:
    """Give a dependency that is killed, and bring it back at the end."""
    name = str(request.param)
    devnet.peg("devnet", "kill", name)
    try:
        yield name
    finally:
        devnet.peg("devnet", "start", name)
        devnet.wait(lambda: bool(devnet.peg("devnet", "status")["ready"]), "a ready devnet")


def test_while_a_dependency_is_away_nothing_is_promised_and_it_goes_on_within_ten_seconds(
    devnet: RunningDevnet, cut: str
) -> None:
    request = order(b"while %s is away" % cut.encode())
    assert isinstance(fail(devnet, lambda desk: create(desk, request)), Unavailable)
    assert ask(devnet, supply).difference_sats == 0
    findings = ask(devnet, doctor)
    assert any(not finding.is_ok and name.startswith(cut) for name, finding in findings.items())
    devnet.peg("devnet", "start", cut)

    def is_promising() -> bool:
        try:
            return ask(devnet, lambda desk: create(desk, request)).state == "issued"
        except Unavailable:
            return False

    devnet.wait(is_promising, "a promise", allow(HEALED_WITHIN))
