"""`peg sweep`, `peg reserve show`, `peg pause` against the operator's service over mutual TLS, in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from coordinator.servicers import operator
from pegbridge.v1 import operator_pb2 as pb
from pegbridge.v1.operator_pb2_grpc import OperatorServiceStub, add_OperatorServiceServicer_to_server
from smpc.errors import ExitCode, Halted, InvalidInput, NotFound, Refused
from smpc.host.counters import Counters
from smpc.host.gates import AccessGate
from smpc.host.grpc_channel import RpcChannel
from smpc.host.grpc_server import RpcServer
from smpc.host.interceptors import GuardedCalls
from smpc.host.peer import PeerRole
from smpc.host.pki import init_ca, issue_certificate
from smpc.params import REGTEST
from smpc.protocol.batch_events import EndorsementsRefused
from smpc.types import EpochNumber, Network
from tests.support.sweep_stand import SweepStand
from tests.support.sweep_terminal import Terminal, identity_of, write_profile


@pytest_asyncio.fixture
async def terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Terminal]:
    """Give a terminal before a coordinator whose epoch 0 retires with four mature outputs."""
    monkeypatch.setenv("COLUMNS", "200")
    stand = await SweepStand.open(tmp_path, 1_000_000, 300_000)
    init_ca(tmp_path / "ca", Network.REGTEST)
    coordinator = identity_of(PeerRole.COORDINATOR)
    server_files = issue_certificate(tmp_path / "ca", coordinator, tmp_path / "server")
    own_files = issue_certificate(tmp_path / "ca", identity_of(PeerRole.OPERATOR), tmp_path / "operator")
    gate = AccessGate(Network.REGTEST, {operator.SERVICE: frozenset({PeerRole.OPERATOR})})
    server = RpcServer(GuardedCalls([gate], Counters()), server_files)
    add_OperatorServiceServicer_to_server(stand.servicer, server.grpc)
    endpoint = f"127.0.0.1:{await server.start('127.0.0.1', 0)}"
    write_profile(tmp_path / "profile.toml", endpoint, coordinator, own_files)
    try:
        yield Terminal(stand, tmp_path, endpoint, own_files, capsys)
    finally:
        await server.stop(0)


# ------------------------------------------------------------------ what an operator sees and does


async def test_a_plan_is_one_document_with_everything_in_it(terminal: Terminal) -> None:
    burn = terminal.stand.world.burn(50_000)
    data = await terminal.data("sweep", "plan", "0", "--rate", "7.25")
    (plan,) = data["plans"]
    assert (plan["fee_rate_sat_per_kvb"], plan["asked_fee_rate_sat_per_kvb"]) == (7_250, 7_250)
    assert [item["is_asked"] for item in plan["fees"]] == [False, True, False]
    assert len(plan["inputs"]) == 4
    assert [item["purpose"] for item in plan["outputs"]] == ["vault", "vault", "payment", "notarisation"]
    assert plan["burns"] == [burn.hex()]
    assert plan["deadline_blocks_left"] == plan["deadline_kaon_height"] - data["kaon_height"] > 0
    assert plan["notarisation"]["kaon_height"] == terminal.stand.ledger.anchors[EpochNumber(1)].height
    assert not terminal.stand.list_sweeps()


async def test_a_plan_for_people_names_what_is_left_out_and_why(terminal: Terminal) -> None:
    young = terminal.stand.vault[0]
    terminal.stand.bitcoin.depths[young] = 1
    code, out = await terminal.run("sweep", "plan")
    assert code is ExitCode.DONE
    for words in (str(young)[:16], "immature", "notarisation", "asked for", "blocks from now", "1 outputs to mature"):
        assert words in out
    assert "nothing to sweep" not in out


async def test_a_run_is_proposed_once_and_shown_in_status(terminal: Terminal) -> None:
    dry = await terminal.data("sweep", "run", "0", "--dry-run")
    assert (dry["is_new"], dry["dry_run"], terminal.stand.list_sweeps()) == (True, True, [])
    first = await terminal.data("sweep", "run", "0")
    second = await terminal.data("sweep", "run", "0")
    assert (first["is_new"], second["is_new"]) == (True, False)
    assert dry["intent_id"] == first["intent_id"] == second["intent_id"]
    data = await terminal.data("sweep", "status")
    assert [(epoch["epoch"], epoch["state"]) for epoch in data["epochs"]] == [(0, "sweeping"), (1, "not_due")]
    (sweep,) = data["epochs"][0]["sweeps"]
    assert (sweep["txid"], sweep["state"], sweep["confirmations"]) == (first["txid"], "planned", 0)
    _, out = await terminal.run("sweep", "status", "0")
    assert first["txid"][:16] in out
    _, out = await terminal.run("sweep", "run", "0")
    assert "under way already" in out


async def test_a_watched_run_is_followed_until_it_is_booked(terminal: Terminal) -> None:
    stand = terminal.stand

    async def live_on() -> None:
        while not stand.list_sweeps():
            await stand.board.changed.wait_beyond(stand.board.changed.count)
        (batch,) = stand.list_sweeps()
        await stand.record(batch)
        stand.world.chain.skip(4)
        stand.world.turning.book(batch.intent_id)
        await stand.driver.tick()
        stand.outlook.changed.note()

    async with asyncio.TaskGroup() as group:
        group.create_task(live_on())
        running = group.create_task(terminal.run("sweep", "run", "0", "--watch", "--timeout", "30", "--json"))
    code, out = running.result()
    # The coordinator logs in this process too.
    documents = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    assert code is ExitCode.DONE
    assert {document["schema"] for document in documents} == {"peg.sweep.run/1"}
    assert documents[0]["data"]["is_new"]
    last = documents[-1]["data"]["epoch"]
    assert (last["state"], last["sweeps"][0]["state"], last["left_sats"]) == ("swept", "booked", 0)
    code, out = await terminal.run("sweep", "watch", "0")
    assert (code, out.count("\n")) == (ExitCode.DONE, 1), "an epoch that holds nothing is told once"


async def test_a_watch_gives_up_when_it_is_told_to(terminal: Terminal) -> None:
    code, error = await terminal.error("sweep", "watch", "1", "--timeout", "0.5")
    assert (code, error["code"]) == (ExitCode.TIMED_OUT, "TIMED_OUT")


async def test_a_watched_run_that_members_refuse_ends_as_refused(terminal: Terminal) -> None:
    stand = terminal.stand

    async def refuse() -> None:
        while not stand.list_sweeps():
            await stand.board.changed.wait_beyond(stand.board.changed.count)
        (batch,) = stand.list_sweeps()
        await stand.driver.answer(batch.intent_id, EndorsementsRefused("V53", "one is missing", stand.ledger.height))
        stand.outlook.changed.note()

    async with asyncio.TaskGroup() as group:
        group.create_task(refuse())
        running = group.create_task(terminal.error("sweep", "run", "0", "--watch", "--timeout", "30"))
    code, error = running.result()
    assert (code, error["code"]) == (ExitCode.REFUSED, "SWEEP_ENDED")
    assert "peg explain" in error["remedy"]


async def test_a_paused_flow_is_shown_refused_and_resumed(terminal: Terminal) -> None:
    assert await terminal.data("pause", "sweep", "--dry-run") == {
        "flow": "sweep",
        "is_paused": True,
        "paused": [],
        "dry_run": True,
    }
    assert (await terminal.data("pause", "sweep"))["paused"] == ["sweep"]
    assert "peg resume sweep" in (await terminal.data("sweep", "status"))["blocked_by"]
    _, out = await terminal.run("sweep", "plan")
    assert out.startswith("BLOCKED")
    code, error = await terminal.error("sweep", "run", "0")
    assert (code, error["rule"], error["remedy"]) == (ExitCode.REFUSED, "V05", "resume it: peg resume sweep")
    assert (await terminal.data("resume", "sweep"))["paused"] == []
    assert (await terminal.data("sweep", "run", "0"))["is_new"]


async def test_the_reserve_is_shown_with_what_is_spoken_for(terminal: Terminal) -> None:
    before = await terminal.data("reserve", "show")
    assert before["reserve_sats"] == terminal.stand.ledger.reserve == before["free_sats"]
    run = await terminal.stand.desk.run(EpochNumber(0), None)
    await terminal.stand.record(terminal.stand.list_sweeps()[0])
    after = await terminal.data("reserve", "show")
    assert (after["committed_sats"], after["free_sats"]) == (run.intent.fee, before["free_sats"] - run.intent.fee)
    _, out = await terminal.run("reserve", "show")
    assert "kept for 200 sweeps" in out
    assert "no commission" in out


# ------------------------------------------------------------------ what makes no sense


@pytest.mark.parametrize(
    ("words", "code", "name"),
    [
        (("run", "1"), ExitCode.REFUSED, "EPOCH_NOT_RETIRING"),
        (("run", "9"), ExitCode.NOT_FOUND, "NOT_FOUND"),
        (("plan", "4294967295"), ExitCode.NOT_FOUND, "NOT_FOUND"),
        (("status", "9"), ExitCode.NOT_FOUND, "NOT_FOUND"),
        (("watch", "9"), ExitCode.NOT_FOUND, "NOT_FOUND"),
        (("run", "4294967296"), ExitCode.USAGE, "INVALID_ARGUMENT"),
        (("run", "0", "--rate", "0"), ExitCode.USAGE, "INVALID_ARGUMENT"),
        (("plan", "0", "--rate", "1e3"), ExitCode.USAGE, "INVALID_ARGUMENT"),
        (("plan", "0", "--rate", "1.999"), ExitCode.REFUSED, "FEE_RATE_OUT_OF_BOUNDS"),
        (("run", "0", "--rate", "300.001"), ExitCode.REFUSED, "FEE_RATE_OUT_OF_BOUNDS"),
        (("run", "0", "--rate", "10.001"), ExitCode.REFUSED, "FEE_RATE_TOO_HIGH"),
    ],
)
async def test_what_cannot_be_is_one_error_with_a_remedy(
    terminal: Terminal, words: tuple[str, ...], code: ExitCode, name: str
) -> None:
    found, error = await terminal.error("sweep", *words)
    assert (found, error["code"]) == (code, name)
    assert not terminal.stand.list_sweeps()


async def test_a_halted_bridge_runs_no_sweep(terminal: Terminal) -> None:
    terminal.stand.closed.append(Halted("the books are off", remedy="see `peg doctor`"))
    code, error = await terminal.error("sweep", "run", "0")
    assert (code, error["code"]) == (ExitCode.CHECK_FAILED, "HALTED")


async def test_requests_that_no_command_line_sends_are_answered_like_any_other(terminal: Terminal) -> None:
    expect = identity_of(PeerRole.COORDINATOR)
    channel = RpcChannel(terminal.endpoint, terminal.operator, expect=expect)
    client = channel.client(OperatorServiceStub)
    most = 2**64 - 1
    try:
        for request in (
            pb.RunSweepRequest(),
            pb.RunSweepRequest(epoch=most),
            pb.RunSweepRequest(epoch=0, fee_rate_sat_per_kvb=0),
            pb.RunSweepRequest(epoch=0, fee_rate_sat_per_kvb=REGTEST.fee_cap + 1),
            pb.RunSweepRequest(epoch=0, fee_rate_sat_per_kvb=most),
        ):
            with pytest.raises((InvalidInput, NotFound, Refused)):
                await client.call(lambda stub: stub.RunSweep, request, seconds=5)
    finally:
        await channel.close()
    assert not terminal.stand.list_sweeps()


async def test_a_user_is_no_operator(terminal: Terminal) -> None:
    user = issue_certificate(terminal.directory / "ca", identity_of(PeerRole.USER), terminal.directory / "user")
    write_profile(terminal.directory / "user.toml", terminal.endpoint, identity_of(PeerRole.COORDINATOR), user)
    before = terminal.profile.read_bytes()
    terminal.profile.write_bytes((terminal.directory / "user.toml").read_bytes())
    code, error = await terminal.error("sweep", "run", "0")
    terminal.profile.write_bytes(before)
    assert (code, error["code"]) == (ExitCode.REFUSED, "PERMISSION_DENIED")
    assert not terminal.stand.list_sweeps()


async def test_ceremonies_and_the_next_turn_are_shown(terminal: Terminal) -> None:
    data = await terminal.data("epoch", "ceremonies")
    assert data["turn_waits_for"] == terminal.stand.ledger.find_turn_hindrance()
    waiting = {(item["epoch"], item["role"]) for item in data["ceremonies"]}
    code, out = await terminal.run("epoch", "ceremonies")
    assert code is ExitCode.DONE
    assert "the next turn:" in out
    assert all(role in out for _, role in waiting)
