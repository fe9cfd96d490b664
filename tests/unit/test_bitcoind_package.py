"""What a lying or older node may answer about packages, floors and rivals, and what the adapter makes of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import pytest

from smpc.bitcoin.mempool import TrucPolicy
from smpc.bitcoin.transaction import Transaction
from smpc.errors import CheckFailed, InvalidInput, Unavailable
from smpc.node.bitcoind import BitcoindNode
from smpc.node.bitcoind_endpoint import RpcEndpoint, UserPassword
from smpc.node.bitcoind_package import BitcoindPackageRelay
from smpc.node.package_relay import AlreadyKnown, Entered, NotTaken, PackageOutcome
from smpc.node.ports import RefusalReason
from smpc.types import Network, Outpoint, Sats, Txid, to_display_hex
from tests.contract.package_world import child, emergency
from tests.support.scripted_bitcoind import (
    Answer,
    Request,
    ScriptedBitcoind,
    failure,
    http_answer,
    result,
    scripted_bitcoind,
)

PARENT = emergency(Outpoint(Txid(b"\x11" * 32), 0), 200)
CHILD = child(PARENT, Outpoint(Txid(b"\x22" * 32), 0), 5_000)
SPENT = Outpoint(Txid(b"\x33" * 32), 0)
UNKNOWN = (-5, "No such mempool or blockchain transaction")
FLOORS = {"mempoolminfee": 0.00005, "minrelaytxfee": 0.00001, "incrementalrelayfee": 0.00001}

Entry = tuple[str, Mapping[str, object]]
Reply = str | tuple[int, str] | Callable[[Request], Answer]


@asynccontextmanager
async def told(**replies: Reply) -> AsyncIterator[tuple[BitcoindPackageRelay, ScriptedBitcoind]]:
    def script(request: Request) -> Answer:
        reply = replies.get(request.method, (-32601, "Method not found"))
        if callable(reply):
            return reply(request)
        return result(request, reply) if isinstance(reply, str) else failure(request, *reply)

    async with scripted_bitcoind(script) as server:
        endpoint = RpcEndpoint(server.url, UserPassword("peg", "x"), attempts=2)
        async with BitcoindNode(endpoint, Network.REGTEST) as node, BitcoindPackageRelay(endpoint, node) as relay:
            yield relay, server


def entry(transaction: Transaction, **fields: object) -> Entry:
    return to_display_hex(transaction.wtxid), {"txid": to_display_hex(transaction.txid), **fields}


def package(message: str, *entries: Entry, **more: object) -> str:
    return json.dumps({"package_msg": message, "tx-results": dict(entries), "replaced-transactions": [], **more})


def taken(transaction: Transaction) -> Entry:
    return entry(transaction, vsize=transaction.vsize, fees={"base": 0.000002, "effective-feerate": 0.0001})


async def submit(relay: BitcoindPackageRelay) -> PackageOutcome:
    return await relay.submit_package(PARENT.to_bytes(), CHILD.to_bytes())


class TestAnswers:
    async def test_both_taken(self) -> None:
        async with told(submitpackage=package("success", taken(PARENT), taken(CHILD))) as (relay, _):
            outcome = await submit(relay)
        assert (outcome.parent, outcome.child) == (Entered(Sats(200), PARENT.vsize), Entered(Sats(200), CHILD.vsize))

    async def test_what_has_no_effective_rate_or_another_witness_was_there_before(self) -> None:
        old = entry(PARENT, vsize=PARENT.vsize, fees={"base": 0.000002})
        twin = entry(CHILD, **{"other-wtxid": "44" * 32})
        async with told(submitpackage=package("success", old, twin)) as (relay, _):
            outcome = await submit(relay)
        assert (outcome.parent, outcome.child) == (AlreadyKnown(), AlreadyKnown())

    async def test_reason_of_the_whole_package_is_not_hidden_behind_the_childs_missing_inputs(self) -> None:
        message = "package RBF failed: 11 has 5 descendants, max 1 allowed"
        parent = entry(PARENT, error="insufficient fee, rejecting replacement")
        orphan = entry(CHILD, error="bad-txns-inputs-missingorspent")
        async with told(submitpackage=package(message, parent, orphan), getrawtransaction=UNKNOWN) as (relay, _):
            outcome = await submit(relay)
        assert outcome.parent == NotTaken(RefusalReason.CONFLICT, "insufficient fee, rejecting replacement")
        assert outcome.child == NotTaken(RefusalReason.CONFLICT, message)

    async def test_package_without_results_is_refused_for_its_own_reason(self) -> None:
        message = "package-not-child-with-unconfirmed-parents"
        async with told(submitpackage=package(message), getrawtransaction=UNKNOWN) as (relay, _):
            outcome = await submit(relay)
        assert outcome.parent == outcome.child == NotTaken(RefusalReason.MISSING_INPUTS, message)

    async def test_replaced_transactions_are_named(self) -> None:
        reply = package("success", taken(PARENT), taken(CHILD), **{"replaced-transactions": ["ab" * 32]})
        async with told(submitpackage=reply) as (relay, _):
            assert (await submit(relay)).replaced == {Txid(b"\xab" * 32)}

    @pytest.mark.parametrize("code", [-22, -25])
    async def test_what_the_node_takes_for_no_package_is_the_callers_fault(self, code: int) -> None:
        async with told(submitpackage=(code, "package topology disallowed")) as (relay, _):
            with pytest.raises(InvalidInput, match="topology"):
                await submit(relay)

    async def test_node_without_the_call_is_unavailable(self) -> None:
        async with told() as (relay, _):
            with pytest.raises(Unavailable):
                await submit(relay)


class TestLies:
    @pytest.mark.parametrize(
        "reply",
        [
            "null",
            "[]",
            '{"package_msg":"success"}',
            '{"package_msg":"success","tx-results":[]}',
            package("success", entry(PARENT, vsize=1), taken(CHILD)),
            package("success", entry(PARENT, vsize="1", fees={"base": 0.1, "effective-feerate": 1}), taken(CHILD)),
            package("success", entry(PARENT, vsize=1, fees={"base": -0.1, "effective-feerate": 1}), taken(CHILD)),
            package("success", (entry(PARENT)[0], taken(CHILD)[1]), taken(CHILD)),
            package("success", taken(PARENT), taken(CHILD), **{"replaced-transactions": ["no txid"]}),
            package("success", taken(PARENT), taken(CHILD), **{"replaced-transactions": "ab"}),
        ],
    )
    async def test_malformed_answer_is_not_believed(self, reply: str) -> None:
        async with told(submitpackage=reply, getrawtransaction=UNKNOWN) as (relay, _):
            with pytest.raises(CheckFailed):
                await submit(relay)

    async def test_success_that_names_only_one_of_the_two_is_no_success_of_the_other(self) -> None:
        async with told(submitpackage=package("success", taken(PARENT)), getrawtransaction=UNKNOWN) as (relay, _):
            outcome = await submit(relay)
        assert isinstance(outcome.parent, Entered)
        assert outcome.child == NotTaken(RefusalReason.POLICY, "success")
        assert not outcome.is_in


class TestRetries:
    async def test_package_whose_answer_got_lost_is_handed_over_again(self) -> None:
        def script(request: Request) -> Answer:
            if request.number == 1:
                return http_answer(503, b"busy", "text/plain")
            return result(request, package("success", taken(PARENT), taken(CHILD)))

        async with told(submitpackage=script) as (relay, server):
            assert (await submit(relay)).is_in
            assert server.count("submitpackage") == 2


class TestFloors:
    @pytest.mark.parametrize(
        ("more", "truc"),
        [({}, TrucPolicy.ENFORCE), *(({"truc_policy": policy.value}, policy) for policy in TrucPolicy)],
    )
    async def test_core_has_no_word_for_truc_and_enforces_it(self, more: dict[str, str], truc: TrucPolicy) -> None:
        async with told(getmempoolinfo=json.dumps({**FLOORS, **more})) as (relay, _):
            policy = await relay.fetch_mempool_policy()
        assert (policy.minimum, policy.relay_minimum, policy.increment, policy.truc) == (5_000, 1_000, 1_000, truc)

    async def test_minimum_is_never_below_the_relay_minimum(self) -> None:
        async with told(getmempoolinfo=json.dumps({**FLOORS, "mempoolminfee": 0})) as (relay, _):
            assert (await relay.fetch_mempool_policy()).minimum == 1_000

    @pytest.mark.parametrize("more", [{"truc_policy": "sometimes"}, {"truc_policy": 1}, {"mempoolminfee": -1}])
    async def test_floors_that_cannot_be_are_not_believed(self, more: dict[str, object]) -> None:
        async with told(getmempoolinfo=json.dumps({**FLOORS, **more})) as (relay, _):
            with pytest.raises(CheckFailed):
                await relay.fetch_mempool_policy()


class TestRivals:
    async def test_rival_that_leaves_while_we_ask_is_asked_for_again_a_few_times_only(self) -> None:
        spender = json.dumps([{"txid": "33" * 32, "vout": 0, "spendingtxid": "ab" * 32}])
        async with told(gettxspendingprevout=spender, getmempoolentry=(-5, "not in mempool")) as (relay, server):
            with pytest.raises(Unavailable, match="changes while we look"):
                await relay.fetch_rival(SPENT)
            assert server.count("getmempoolentry") == 3

    async def test_other_refusals_of_the_node_are_passed_on_at_once(self) -> None:
        spender = json.dumps([{"txid": "33" * 32, "vout": 0, "spendingtxid": "ab" * 32}])
        async with told(gettxspendingprevout=spender, getmempoolentry=(-1, "misc")) as (relay, server):
            with pytest.raises(Unavailable, match="misc"):
                await relay.fetch_rival(SPENT)
            assert server.count("getmempoolentry") == 1
