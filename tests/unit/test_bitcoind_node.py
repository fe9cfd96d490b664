"""The adapter and what a lying, lagging or misconfigured node may answer (cases C9, D14, H2, H5)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import pytest

from smpc.bitcoin.transaction import compute_double_sha256
from smpc.errors import BridgeError, CheckFailed, ConfigError, InvalidInput, NotFound, Unavailable
from smpc.node.bitcoind import BitcoindNode
from smpc.node.bitcoind_endpoint import RpcEndpoint, UserPassword
from smpc.node.bitcoind_refusal import build_refusal
from smpc.node.memory_bitcoin import MemoryBitcoin
from smpc.node.ports import BroadcastRefused, RefusalReason, Verdict
from smpc.types import MAX_MONEY, BlockHash, BtcHeight, FeeRate, Network, Outpoint, Txid, to_display_hex
from tests.contract.bitcoin_world import spend
from tests.support.scripted_bitcoind import Answer, Request, ScriptedBitcoind, failure, result, scripted_bitcoind

Reply = str | tuple[int, str] | Callable[[Request], "str | tuple[int, str]"]
"""A result as JSON text, or an error's code and message, or a function that chooses one."""

TXID = Txid(b"\x11" * 32)
OUTPOINT = Outpoint(TXID, 0)
HASH = "22" * 32


def play(replies: Mapping[str, Reply]) -> Callable[[Request], Answer]:
    """Answer each method as told; a method nobody told about does not exist."""

    def script(request: Request) -> Answer:
        reply = replies.get(request.method, (-32601, "Method not found"))
        reply = reply(request) if callable(reply) else reply
        return result(request, reply) if isinstance(reply, str) else failure(request, *reply)

    return script


@asynccontextmanager
async def told(**replies: Reply) -> AsyncIterator[tuple[BitcoindNode, ScriptedBitcoind]]:
    async with scripted_bitcoind(play(replies)) as server:
        endpoint = RpcEndpoint(server.url, UserPassword("peg", "x"), attempts=2)
        async with BitcoindNode(endpoint, Network.REGTEST) as node:
            yield node, server


def tip_reply(**changes: str) -> str:
    fields = {
        "chain": '"regtest"',
        "blocks": "100",
        "headers": "100",
        "bestblockhash": f'"{HASH}"',
        "time": "1700000000",
        "initialblockdownload": "false",
        "pruned": "false",
    } | changes
    return "{" + ",".join(f'"{name}":{value}' for name, value in fields.items()) + "}"


def output_reply(value: str) -> str:
    return f'{{"value":{value},"scriptPubKey":{{"hex":"51"}},"confirmations":3,"coinbase":false}}'


class TestTip:
    @pytest.mark.parametrize(("headers", "is_synced"), [(100, True), (102, True), (103, False)])
    async def test_node_is_synced_up_to_two_blocks_behind_its_headers(self, headers: int, is_synced: bool) -> None:
        async with told(getblockchaininfo=tip_reply(headers=str(headers))) as (node, _):
            tip = await node.fetch_tip()
        assert (tip.is_synced, tip.headers) == (is_synced, headers)

    async def test_node_in_initial_download_is_not_synced(self) -> None:
        async with told(getblockchaininfo=tip_reply(initialblockdownload="true")) as (node, _):
            assert not (await node.fetch_tip()).is_synced

    async def test_chain_of_another_network_is_reported_as_it_is(self) -> None:
        async with told(getblockchaininfo=tip_reply(chain='"main"')) as (node, _):
            assert (await node.fetch_tip()).chain is Network.MAINNET

    async def test_chain_that_no_deployment_uses_is_a_configuration_error(self) -> None:
        async with told(getblockchaininfo=tip_reply(chain='"testnet4"')) as (node, _):
            with pytest.raises(ConfigError, match="testnet4"):
                await node.fetch_tip()

    @pytest.mark.parametrize(
        "reply", ["null", "[]", tip_reply(blocks='"100"'), tip_reply(bestblockhash='"00"'), tip_reply(time="1.5")]
    )
    async def test_malformed_tip_is_not_believed(self, reply: str) -> None:
        async with told(getblockchaininfo=reply) as (node, _):
            with pytest.raises(CheckFailed):
                await node.fetch_tip()


class TestAmounts:
    @pytest.mark.parametrize(
        ("value", "sats"),
        [
            ("1e-8", 1),
            ("0.10000000", 10_000_000),
            ("20999999.9769", 2_099_999_997_690_000),
            ("0.00019999", 19_999),
            ("0.00020000", 20_000),
            ("100.00000001", 10_000_000_001),
            ("21000000.00000000", MAX_MONEY),
        ],
    )
    async def test_amount_is_exact_at_every_boundary(self, value: str, sats: int) -> None:
        async with told(gettxout=output_reply(value)) as (node, _):
            output = await node.fetch_output(OUTPOINT, include_mempool=False)
        assert output is not None
        assert output.value == sats

    @pytest.mark.parametrize("value", ["21000000.00000001", "21000001.0", "-0.00000001", "1e400", "1e-9", '"0.1"'])
    async def test_impossible_amount_makes_the_node_untrustworthy(self, value: str) -> None:
        async with told(gettxout=output_reply(value)) as (node, _):
            with pytest.raises(CheckFailed):
                await node.fetch_output(OUTPOINT, include_mempool=False)


class TestFeeEstimates:
    @pytest.mark.parametrize(
        "reply",
        [
            '{"errors":["Insufficient data or no feerate found"],"blocks":3}',
            '{"feerate":-1,"blocks":3}',
            '{"feerate":-1.0,"blocks":3}',
            '{"feerate":0,"blocks":3}',
            '{"feerate":0.10000001,"blocks":3}',
            '{"feerate":21000001,"blocks":3}',
            '{"feerate":1e400,"blocks":3}',
            '{"feerate":"high","blocks":3}',
            '{"feerate":null,"blocks":3}',
            (-32603, "Fee estimation disabled"),
        ],
        ids=repr,
    )
    async def test_unusable_estimate_is_none(self, reply: Reply) -> None:
        async with told(estimatesmartfee=reply) as (node, _):
            assert await node.estimate_fee_rate(3) is None

    @pytest.mark.parametrize(
        ("feerate", "rate"), [("0.00000001", 1), ("0.00001000", 1_000), ("1.234e-5", 1_234), ("0.1", 10_000_000)]
    )
    async def test_estimate_is_exact_in_sat_per_kvb(self, feerate: str, rate: int) -> None:
        async with told(estimatesmartfee=f'{{"feerate":{feerate},"blocks":3}}') as (node, server):
            assert await node.estimate_fee_rate(3) == FeeRate(rate)
        assert server.requests[0].call["params"] == [3]


class TestBlocks:
    async def test_bytes_that_do_not_hash_to_their_name_are_not_believed(self) -> None:
        block = await MemoryBitcoin().fetch_block(BtcHeight(0))
        name = f'"{to_display_hex(block.block_hash)}"'
        async with told(getblockhash=name, getblock=f'"{block.raw.hex()}"') as (node, _):
            assert await node.fetch_block(BtcHeight(0)) == block
        altered = bytes((block.raw[0] ^ 1,)) + block.raw[1:]
        for raw in (altered, block.raw[:80], b""):
            async with told(getblockhash=name, getblock=f'"{raw.hex()}"') as (node, _):
                with pytest.raises(CheckFailed, match="do not hash"):
                    await node.fetch_block(BtcHeight(0))

    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            ((-1, "Block not available (pruned data)"), ConfigError),
            ((-1, "Block not available (not fully downloaded)"), NotFound),
            ((-20, "Can't read block from disk"), Unavailable),
        ],
    )
    async def test_block_that_is_not_on_the_disk(self, error: tuple[int, str], kind: type[BridgeError]) -> None:
        async with told(getblockhash=f'"{HASH}"', getblock=error) as (node, _):
            with pytest.raises(kind):
                await node.fetch_block(BtcHeight(5))

    async def test_height_out_of_range_and_unknown_hash_are_not_found(self) -> None:
        async with told(getblockhash=(-8, "out of range"), getblockheader=(-5, "Block not found")) as (node, _):
            with pytest.raises(NotFound):
                await node.fetch_block(BtcHeight(5))
            with pytest.raises(NotFound):
                await node.fetch_block(BlockHash(b"\x33" * 32))


class TestTransactions:
    ABSENT = (-5, "No such mempool or blockchain transaction. Use gettransaction for wallet transactions.")
    NO_INDEX = (-5, "No such mempool transaction. Use -txindex or provide a block hash to enable queries.")
    INDEXING = (-5, "No such mempool transaction. Blockchain transactions are still in the process of being indexed.")

    async def test_unknown_to_an_indexed_node_is_none(self) -> None:
        async with told(getrawtransaction=self.ABSENT) as (node, _):
            assert await node.fetch_transaction(TXID) is None

    @pytest.mark.parametrize(("error", "kind"), [(NO_INDEX, ConfigError), (INDEXING, Unavailable)])
    async def test_node_that_could_not_look_everywhere_does_not_say_none(
        self, error: tuple[int, str], kind: type[BridgeError]
    ) -> None:
        async with told(getrawtransaction=error) as (node, _):
            with pytest.raises(kind):
                await node.fetch_transaction(TXID)

    async def test_answer_about_another_transaction_is_not_believed(self) -> None:
        async with told(getrawtransaction=f'{{"txid":"{HASH}","hex":"00"}}') as (node, _):
            with pytest.raises(CheckFailed, match="another transaction"):
                await node.fetch_transaction(TXID)

    async def test_transaction_mined_while_we_look_is_found_in_its_block(self) -> None:
        head = f'"txid":"{to_display_hex(TXID)}","hex":"00"'

        def answer(request: Request) -> str:
            return f"{{{head}}}" if request.number == 1 else f'{{{head},"blockhash":"{HASH}"}}'

        header = '{"confirmations":1,"height":7}'
        gone = (-5, "Transaction not in mempool")
        async with told(getrawtransaction=answer, getmempoolentry=gone, getblockheader=header) as (node, _):
            found = await node.fetch_transaction(TXID)
        assert found is not None
        assert (found.confirmations, found.height) == (1, 7)

    async def test_transaction_that_never_rests_is_unavailable(self) -> None:
        reply = f'{{"txid":"{to_display_hex(TXID)}","hex":"00"}}'
        gone = (-5, "Transaction not in mempool")
        async with told(getrawtransaction=reply, getmempoolentry=gone) as (node, _):
            with pytest.raises(Unavailable):
                await node.fetch_transaction(TXID)


class TestBroadcast:
    RAW = spend(OUTPOINT, pay=1_000).to_bytes()

    @pytest.mark.parametrize(
        ("code", "words", "reason"),
        [
            (-26, "txn-mempool-conflict", RefusalReason.CONFLICT),
            (-26, "insufficient fee, rejecting replacement 11; new feerate 1 <= 2", RefusalReason.CONFLICT),
            (-25, "bad-txns-inputs-missingorspent", RefusalReason.MISSING_INPUTS),
            (-26, "non-BIP68-final", RefusalReason.NOT_FINAL),
            (-26, "min relay fee not met, 0 < 110", RefusalReason.FEE_TOO_LOW),
            (-25, "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)", RefusalReason.FEE_TOO_HIGH),
            (-26, "mempool-script-verify-flag-failed (Invalid Schnorr signature)", RefusalReason.SCRIPT),
            (-26, "mandatory-script-verify-flag-failed (Locktime requirement)", RefusalReason.SCRIPT),
            (-26, "dust", RefusalReason.POLICY),
            (-26, "words of a future version", RefusalReason.POLICY),
        ],
    )
    async def test_reason_is_classified_and_kept(self, code: int, words: str, reason: RefusalReason) -> None:
        replies: dict[str, Reply] = {
            "sendrawtransaction": (code, words),
            "getrawtransaction": TestTransactions.ABSENT,
        }
        async with told(**replies) as (node, _):
            with pytest.raises(BroadcastRefused) as refused:
                await node.broadcast(self.RAW)
        assert (refused.value.reason, refused.value.node_reason) == (reason, words)
        assert refused.value.code == f"BROADCAST_{reason.name}"

    async def test_node_that_cannot_decode_blames_the_caller(self) -> None:
        async with told(sendrawtransaction=(-22, "TX decode failed")) as (node, _):
            with pytest.raises(InvalidInput):
                await node.broadcast(self.RAW)

    async def test_node_out_of_order_is_unavailable_and_refuses_nothing(self) -> None:
        async with told(sendrawtransaction=(-20, "database error")) as (node, _):
            with pytest.raises(Unavailable):
                await node.broadcast(self.RAW)

    async def test_node_that_takes_it_for_another_transaction_is_not_believed(self) -> None:
        async with told(sendrawtransaction=f'"{HASH}"') as (node, _):
            with pytest.raises(CheckFailed):
                await node.broadcast(self.RAW)

    def test_long_reason_is_cut(self) -> None:
        assert len(build_refusal("x" * 10_000).node_reason) == 500


class TestMempool:
    @pytest.mark.parametrize("reply", ["[]", "[1]", "null", '[{"spendingtxid":"zz"}]', "[{},{}]"])
    async def test_malformed_spender_is_not_believed(self, reply: str) -> None:
        async with told(gettxspendingprevout=reply) as (node, _):
            with pytest.raises(CheckFailed):
                await node.fetch_mempool_spender(OUTPOINT)

    async def test_mempool_ids_are_turned_to_internal_order(self) -> None:
        async with told(getrawmempool='["' + "00" * 31 + '01"]') as (node, _):
            assert await node.fetch_mempool_txids() == {b"\x01" + bytes(31)}


class TestDoctor:
    GENESIS = '"0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"'
    NETWORK = '{"version":290000,"subversion":"/Satoshi:29.0.0/","connections":0}'
    INDEX = '{"txindex":{"synced":true,"best_block_height":100}}'

    async def find_failed(self, **changes: Reply) -> dict[str, str]:
        replies: dict[str, Reply] = {
            "getblockchaininfo": tip_reply(),
            "getblockhash": self.GENESIS,
            "getnetworkinfo": self.NETWORK,
            "getindexinfo": self.INDEX,
        }
        async with told(**(replies | changes)) as (node, _):
            findings = await node.check_node()
        failed = [finding for finding in findings if finding.verdict is Verdict.FAILED]
        assert all(finding.remedy for finding in failed)
        return {finding.check.removeprefix("bitcoind."): finding.detail for finding in failed}

    async def test_healthy_node_has_no_failed_check(self) -> None:
        assert await self.find_failed() == {}

    async def test_other_chain_is_named(self) -> None:
        assert "'main'" in (await self.find_failed(getblockchaininfo=tip_reply(chain='"main"')))["chain"]

    async def test_chain_that_no_deployment_uses_is_named(self) -> None:
        assert "'testnet4'" in (await self.find_failed(getblockchaininfo=tip_reply(chain='"testnet4"')))["chain"]

    async def test_other_genesis_is_named(self) -> None:
        assert HASH in (await self.find_failed(getblockhash=f'"{HASH}"'))["genesis"]

    @pytest.mark.parametrize(("version", "failed"), [(279_999, {"version"}), (280_000, set())])
    async def test_version_before_28_is_too_old(self, version: int, failed: set[str]) -> None:
        assert set(await self.find_failed(getnetworkinfo=self.NETWORK.replace("290000", str(version)))) == failed

    async def test_pruned_node_is_named(self) -> None:
        assert set(await self.find_failed(getblockchaininfo=tip_reply(pruned="true"))) == {"pruning"}

    async def test_missing_index_is_named(self) -> None:
        assert set(await self.find_failed(getindexinfo="{}")) == {"txindex"}

    async def test_index_that_is_behind_is_named(self) -> None:
        reply = '{"txindex":{"synced":false,"best_block_height":40}}'
        assert "40 of 100" in (await self.find_failed(getindexinfo=reply))["txindex"]

    async def test_initial_download_is_named(self) -> None:
        assert "initial" in (await self.find_failed(getblockchaininfo=tip_reply(initialblockdownload="true")))["sync"]

    async def test_node_behind_its_headers_is_named(self) -> None:
        assert "100 of 103" in (await self.find_failed(getblockchaininfo=tip_reply(headers="103")))["sync"]

    @pytest.mark.parametrize("answer", [(-32601, "Method not found"), "null", '{"version":"new"}'])
    async def test_node_that_cannot_be_asked_is_one_finding(self, answer: Reply) -> None:
        assert set(await self.find_failed(getnetworkinfo=answer)) == {"connection"}


class TestMainnetDoctor:
    async def find(self, verdict: Verdict, *, age: int) -> list[str]:
        replies: dict[str, Reply] = {
            "getblockchaininfo": tip_reply(chain='"main"', time=str(int(time.time()) - age)),
            "getblockhash": '"000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"',
            "getnetworkinfo": TestDoctor.NETWORK,
            "getindexinfo": TestDoctor.INDEX,
        }
        async with scripted_bitcoind(play(replies)) as server:
            endpoint = RpcEndpoint(server.url, UserPassword("peg", "x"))
            async with BitcoindNode(endpoint, Network.MAINNET) as node:
                return [finding.check for finding in await node.check_node() if finding.verdict is verdict]

    async def test_node_without_peers_is_a_warning(self) -> None:
        assert await self.find(Verdict.WARNING, age=0) == ["bitcoind.peers"]

    @pytest.mark.parametrize(("age", "failed"), [(7_000, []), (7_300, ["bitcoind.tip_age"])])
    async def test_tip_older_than_two_hours_is_too_old(self, age: int, failed: list[str]) -> None:
        assert await self.find(Verdict.FAILED, age=age) == failed


@pytest.mark.parametrize("network", Network)
async def test_twin_begins_with_each_networks_own_genesis(network: Network) -> None:
    block = await MemoryBitcoin(network).fetch_block(BtcHeight(0))
    assert compute_double_sha256(block.raw[:80]) == block.block_hash
    assert block.previous == bytes(32)
