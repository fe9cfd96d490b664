"""The Bitcoin port over a real bitcoind (Core or Knots 28 and later, `-txindex=1`)."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final, NoReturn, Self

from smpc.bitcoin.network import get_constants
from smpc.bitcoin.transaction import compute_double_sha256, parse_transaction
from smpc.errors import CheckFailed, ConfigError, InvalidInput, NotFound, TimedOut, Unavailable
from smpc.node.bitcoind_check import NodeFacts, build_unreachable, judge_node
from smpc.node.bitcoind_endpoint import RpcEndpoint
from smpc.node.bitcoind_json import (
    Fields,
    JsonValue,
    parse_amount,
    parse_block_hash,
    parse_hex,
    parse_list,
    parse_txid,
)
from smpc.node.bitcoind_refusal import build_refusal
from smpc.node.bitcoind_rpc import BitcoindRpc, RpcError
from smpc.node.ports import (
    MAX_BLOCKS_BEHIND,
    ChainTip,
    Finding,
    MempoolEntry,
    RawBlock,
    TransactionStatus,
    UnspentOutput,
)
from smpc.types import BlockHash, BtcHeight, FeeRate, Network, Outpoint, Script, Txid, Vbytes, to_display_hex

ABSURD_FEE_RATE: Final = FeeRate(10_000_000)
"""10,000 sat/vB. No estimate above it is believed (case D14); presets cap far below."""

_HEADER_BYTES: Final = 80

_RPC_MISC_ERROR: Final = -1
_RPC_INVALID_ADDRESS_OR_KEY: Final = -5
_RPC_INVALID_PARAMETER: Final = -8
_RPC_DESERIALIZATION_ERROR: Final = -22
_RPC_VERIFY_ERRORS: Final = frozenset({-25, -26, -27})
"""Verification failed, rejected by rules, already in the chain (bitcoind's rpc/protocol.h)."""

_RACES: Final = 3
"""A transaction may be mined or evicted between two questions; after so many we call the node unavailable."""


class BitcoindNode:
    """Implements `BitcoinNode`, `MempoolFeed` and `NodeInspection`. Use as an async context manager, or `aclose`."""

    def __init__(self, endpoint: RpcEndpoint, network: Network) -> None:
        self._rpc = BitcoindRpc(endpoint)
        self._network = network

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections to the node."""
        await self._rpc.aclose()

    async def fetch_tip(self) -> ChainTip:
        """Return the best block; see `BitcoinNode`."""
        info = await self._ask("getblockchaininfo")
        height, headers = info.read_count("blocks"), info.read_count("headers")
        is_synced = not info.read_flag("initialblockdownload") and headers - height <= MAX_BLOCKS_BEHIND
        return ChainTip(
            height=BtcHeight(height),
            block_hash=info.read_block_hash("bestblockhash"),
            time=info.read_count("time"),
            is_synced=is_synced,
            chain=_find_network(info.read_text("chain")),
            headers=BtcHeight(headers),
        )

    async def fetch_block(self, at: BtcHeight | BlockHash) -> RawBlock:
        """Return a block by height or hash; see `BitcoinNode`."""
        if isinstance(at, bytes):
            header = await self._fetch_header(at)
            return await self._fetch_block_at(BtcHeight(header.read_count("height")), at)
        try:
            block_hash = parse_block_hash("getblockhash", await self._rpc.call("getblockhash", at))
        except RpcError as error:
            _raise_not_found(error, _RPC_INVALID_PARAMETER, f"the chain has no block {at} yet")
        return await self._fetch_block_at(at, block_hash)

    async def fetch_output(self, outpoint: Outpoint, *, include_mempool: bool) -> UnspentOutput | None:
        """Return an unspent output; see `BitcoinNode`."""
        txid = to_display_hex(outpoint.txid)
        reply = await self._rpc.call("gettxout", txid, outpoint.vout, include_mempool)
        if reply is None:
            return None
        output = Fields.from_reply("gettxout", reply)
        return UnspentOutput(
            value=output.read_amount("value"),
            script=Script(output.read_object("scriptPubKey").read_hex("hex")),
            confirmations=output.read_count("confirmations"),
            is_coinbase=output.read_flag("coinbase"),
        )

    async def fetch_transaction(self, txid: Txid) -> TransactionStatus | None:
        """Return a transaction's bytes and place; see `BitcoinNode`."""
        for _ in range(_RACES):
            found = await self._find_transaction(txid)
            if found is None:
                return None
            if found.has("blockhash"):
                return await self._place_in_chain(found)
            entry = await self._find_mempool_entry(txid)
            if entry is not None:
                return TransactionStatus(found.read_hex("hex"), 0, None, None, entry)
        raise Unavailable(f"transaction {to_display_hex(txid)} moves while we look at it", remedy="ask again")

    async def estimate_fee_rate(self, blocks: int) -> FeeRate | None:
        """Return a fee estimate in sat/kvB; see `BitcoinNode`."""
        try:
            answer = await self._ask("estimatesmartfee", blocks)
        except RpcError:
            return None
        return _read_fee_rate(answer.values.get("feerate"))

    async def broadcast(self, raw: bytes) -> Txid:
        """Hand over a transaction; see `BitcoinNode`."""
        txid = parse_transaction(raw).txid
        try:
            answer = await self._rpc.call("sendrawtransaction", raw.hex())
        except RpcError as error:
            await self._accept_if_known(txid, error)
            return txid
        if parse_txid("sendrawtransaction", answer) != txid:
            raise CheckFailed("the Bitcoin node took our transaction for another one")
        return txid

    async def fetch_mempool_spender(self, outpoint: Outpoint) -> Txid | None:
        """Return the unconfirmed spender of an output; see `BitcoinNode`."""
        asked: JsonValue = {"txid": to_display_hex(outpoint.txid), "vout": outpoint.vout}
        answers = parse_list("gettxspendingprevout", await self._rpc.call("gettxspendingprevout", [asked]))
        if len(answers) != 1:
            raise CheckFailed(f"gettxspendingprevout answered {len(answers)} outputs instead of one")
        spender = Fields.from_reply("gettxspendingprevout", answers[0])
        return spender.read_txid("spendingtxid") if spender.has("spendingtxid") else None

    async def fetch_mempool_txids(self) -> frozenset[Txid]:
        """Return all mempool transactions; see `MempoolFeed`."""
        reply = await self._rpc.call("getrawmempool")
        return frozenset(parse_txid("getrawmempool", txid) for txid in parse_list("getrawmempool", reply))

    async def fetch_remembered(self, txid: Txid) -> bytes | None:
        """Return the bytes of a transaction the index knows, wherever its block stands; see `MempoolFeed`."""
        found = await self._find_transaction(txid)
        return None if found is None else found.read_hex("hex")

    async def check_node(self) -> tuple[Finding, ...]:
        """Return one finding per check; see `NodeInspection`."""
        try:
            return judge_node(await self._gather_facts(), self._network, int(time.time()))
        except (Unavailable, TimedOut, ConfigError, CheckFailed) as error:
            return build_unreachable(error.message, error.remedy)

    async def _gather_facts(self) -> NodeFacts:
        chain, net = await self._ask("getblockchaininfo"), await self._ask("getnetworkinfo")
        indexes = await self._ask("getindexinfo")
        txindex = indexes.read_object("txindex") if indexes.has("txindex") else None
        return NodeFacts(
            chain=chain.read_text("chain"),
            genesis=parse_block_hash("getblockhash", await self._rpc.call("getblockhash", 0)),
            version=net.read_count("version"),
            user_agent=net.read_text("subversion"),
            height=chain.read_count("blocks"),
            headers=chain.read_count("headers"),
            tip_time=chain.read_count("time"),
            is_downloading=chain.read_flag("initialblockdownload"),
            is_pruned=chain.read_flag("pruned"),
            txindex_height=txindex.read_count("best_block_height") if txindex else None,
            is_txindex_synced=txindex.read_flag("synced") if txindex else False,
            connections=net.read_count("connections"),
        )

    async def _ask(self, method: str, *params: JsonValue) -> Fields:
        return Fields.from_reply(method, await self._rpc.call(method, *params))

    async def _fetch_header(self, block_hash: BlockHash) -> Fields:
        shown = to_display_hex(block_hash)
        try:
            return await self._ask("getblockheader", shown)
        except RpcError as error:
            _raise_not_found(error, _RPC_INVALID_ADDRESS_OR_KEY, f"the node knows no block {shown}")

    async def _fetch_block_at(self, height: BtcHeight, block_hash: BlockHash) -> RawBlock:
        try:
            reply = await self._rpc.call("getblock", to_display_hex(block_hash), 0)
        except RpcError as error:
            if error.rpc_code == _RPC_MISC_ERROR and "pruned" in error.rpc_message:
                raise ConfigError(
                    f"the node has pruned block {height}", remedy="remove prune= and download the chain again"
                ) from None
            _raise_not_found(error, _RPC_MISC_ERROR, f"the node does not have block {to_display_hex(block_hash)}")
        raw = parse_hex("getblock", reply)
        if len(raw) <= _HEADER_BYTES or compute_double_sha256(raw[:_HEADER_BYTES]) != block_hash:
            raise CheckFailed(
                f"the Bitcoin node's bytes of block {height} do not hash to {to_display_hex(block_hash)}",
                remedy="distrust this node: its disk or the path to it is broken",
            )
        return RawBlock(height, block_hash, BlockHash(raw[4:36]), raw)

    async def _find_transaction(self, txid: Txid) -> Fields | None:
        try:
            found = await self._ask("getrawtransaction", to_display_hex(txid), 1)
        except RpcError as error:
            _read_absence(error)
            return None
        if found.read_txid("txid") != txid:
            raise CheckFailed("the Bitcoin node answered with another transaction than asked for")
        return found

    async def _place_in_chain(self, found: Fields) -> TransactionStatus | None:
        header = await self._fetch_header(found.read_block_hash("blockhash"))
        confirmations = header.read_count("confirmations")
        if confirmations < 1:
            # The index remembers blocks that a reorganisation has left behind (bitcoind says -1 of them).
            return None
        return TransactionStatus(
            raw=found.read_hex("hex"),
            confirmations=confirmations,
            block_hash=found.read_block_hash("blockhash"),
            height=BtcHeight(header.read_count("height")),
            mempool=None,
        )

    async def _find_mempool_entry(self, txid: Txid) -> MempoolEntry | None:
        try:
            entry = await self._ask("getmempoolentry", to_display_hex(txid))
        except RpcError as error:
            if error.rpc_code == _RPC_INVALID_ADDRESS_OR_KEY:
                return None
            raise
        return MempoolEntry(
            fee=entry.read_object("fees").read_amount("base"),
            vsize=Vbytes(entry.read_count("vsize")),
            ancestors=entry.read_count("ancestorcount") - 1,
            entered=BtcHeight(entry.read_count("height")),
        )

    async def _accept_if_known(self, txid: Txid, error: RpcError) -> None:
        """Return when the refused transaction is there already; raise the node's refusal otherwise."""
        if error.rpc_code == _RPC_DESERIALIZATION_ERROR:
            raise InvalidInput("the Bitcoin node cannot decode the transaction") from None
        if error.rpc_code not in _RPC_VERIFY_ERRORS:
            raise error
        # A mined transaction whose outputs are spent looks like one with missing inputs: only the chain can tell.
        if await self.fetch_transaction(txid) is None:
            raise build_refusal(error.rpc_message) from None


def _find_network(chain_name: str) -> Network:
    for network in Network:
        if get_constants(network).chain_name == chain_name:
            return network
    raise ConfigError(f"the Bitcoin node is on chain {chain_name!r}, which no deployment uses")


def _read_fee_rate(btc_per_kvb: JsonValue) -> FeeRate | None:
    """Convert BTC/kvB to sat/kvB; None for what is missing, -1, zero or absurd (case D14)."""
    try:
        rate = parse_amount(btc_per_kvb)
    except CheckFailed:
        return None
    return FeeRate(rate) if 0 < rate <= ABSURD_FEE_RATE else None


def _read_absence(error: RpcError) -> None:
    """Return when bitcoind says that it knows no such transaction; raise when it could not look everywhere."""
    if error.rpc_code != _RPC_INVALID_ADDRESS_OR_KEY:
        raise error
    if "-txindex" in error.rpc_message:
        raise ConfigError("the Bitcoin node keeps no transaction index", remedy="start bitcoind with -txindex=1")
    if "being indexed" in error.rpc_message:
        raise Unavailable("the Bitcoin node is still building its transaction index", remedy="wait until it is done")


def _raise_not_found(error: RpcError, code: int, message: str) -> NoReturn:
    if error.rpc_code == code:
        raise NotFound(message) from None
    raise error
