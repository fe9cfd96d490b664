"""Packages, floors and rivals over a real bitcoind (Core or Knots 28 and later): `submitpackage` and its answers."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from smpc.bitcoin.mempool import MempoolPolicy, Rival, TrucPolicy
from smpc.bitcoin.transaction import Transaction
from smpc.errors import CheckFailed, InvalidInput, Unavailable
from smpc.node.bitcoind_endpoint import RpcEndpoint
from smpc.node.bitcoind_json import Fields, JsonValue, parse_list, parse_txid
from smpc.node.bitcoind_refusal import build_refusal
from smpc.node.bitcoind_rpc import BitcoindRpc, RpcError
from smpc.node.package_relay import Admission, AlreadyKnown, Entered, NotTaken, PackageOutcome, parse_package
from smpc.node.ports import BitcoinNode
from smpc.types import FeeRate, Outpoint, Vbytes, to_display_hex

_UNDECODABLE: Final = frozenset({-22, -25})
"""The node cannot decode a transaction, or will not call these two a package (bitcoind's rpc/protocol.h)."""

_GONE: Final = -5

_PER_TRANSACTION: Final = frozenset({"success", "transaction failed"})
"""`package_msg` of a package whose transactions say themselves how they came out; any other is a reason of its own."""

_RACES: Final = 3
"""A rival may leave between two questions; after so many we call the node unavailable."""


class BitcoindPackageRelay:
    """Implements `PackageRelay` beside a `BitcoinNode` of the same bitcoind. An async context manager, or `aclose`."""

    def __init__(self, endpoint: RpcEndpoint, node: BitcoinNode) -> None:
        self._rpc = BitcoindRpc(endpoint)
        self._node = node

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections to the node."""
        await self._rpc.aclose()

    async def fetch_mempool_policy(self) -> MempoolPolicy:
        """Return the floors that hold right now; see `PackageRelay`."""
        info = Fields.from_reply("getmempoolinfo", await self._rpc.call("getmempoolinfo"))
        relay_minimum = FeeRate(info.read_amount("minrelaytxfee"))
        return MempoolPolicy(
            minimum=max(relay_minimum, FeeRate(info.read_amount("mempoolminfee"))),
            relay_minimum=relay_minimum,
            increment=FeeRate(info.read_amount("incrementalrelayfee")),
            truc=_read_truc_policy(info),
        )

    async def submit_package(self, parent: bytes, child: bytes) -> PackageOutcome:
        """Hand over a parent and its child; see `PackageRelay`."""
        transactions = parse_package(parent, child)
        try:
            reply = await self._rpc.call("submitpackage", [parent.hex(), child.hex()])
        except RpcError as error:
            if error.rpc_code in _UNDECODABLE:
                raise InvalidInput(f"the Bitcoin node takes this for no package: {error.rpc_message}") from None
            raise
        fields = Fields.from_reply("submitpackage", reply)
        read = [_read_admission(fields, transaction) for transaction in transactions]
        admissions = [await self._settle(*pair) for pair in zip(transactions, read, strict=True)]
        named = parse_list("submitpackage", fields.values.get("replaced-transactions", []))
        replaced = frozenset(parse_txid("submitpackage", txid) for txid in named)
        return PackageOutcome(admissions[0], admissions[1], replaced)

    async def fetch_rival(self, outpoint: Outpoint) -> Rival | None:
        """Return who holds an output in the mempool; see `PackageRelay`."""
        for _ in range(_RACES):
            txid = await self._node.fetch_mempool_spender(outpoint)
            if txid is None:
                return None
            try:
                reply = await self._rpc.call("getmempoolentry", to_display_hex(txid))
            except RpcError as error:
                if error.rpc_code != _GONE:
                    raise
                continue
            entry = Fields.from_reply("getmempoolentry", reply)
            fees = entry.read_object("fees")
            return Rival(
                txid=txid,
                fee=fees.read_amount("base"),
                vsize=Vbytes(entry.read_count("vsize")),
                family_fee=fees.read_amount("descendant"),
                family_vsize=Vbytes(entry.read_count("descendantsize")),
                family_count=entry.read_count("descendantcount"),
                ancestors=entry.read_count("ancestorcount") - 1,
            )
        raise Unavailable(f"the spender of {outpoint} changes while we look at it", remedy="ask again")

    async def _settle(self, transaction: Transaction, admission: Admission) -> Admission:
        """Take for known what the node refuses because it has it: a mined one looks like one with missing inputs."""
        if isinstance(admission, NotTaken) and await self._node.fetch_transaction(transaction.txid) is not None:
            return AlreadyKnown()
        return admission


def _read_truc_policy(info: Fields) -> TrucPolicy:
    """Read Knots' own field; Core has none and always enforces."""
    if not info.has("truc_policy"):
        return TrucPolicy.ENFORCE
    try:
        return TrucPolicy(info.read_text("truc_policy"))
    except ValueError:
        raise CheckFailed(f"the Bitcoin node has an unknown TRUC policy {info.read_text('truc_policy')!r}") from None


def _read_admission(reply: Fields, transaction: Transaction) -> Admission:
    message, name = reply.read_text("package_msg"), to_display_hex(transaction.wtxid)
    results = reply.read_object("tx-results")
    result = results.read_object(name) if results.has(name) else Fields("submitpackage", {"error": message})
    if result.has("txid") and result.read_txid("txid") != transaction.txid:
        raise CheckFailed("the Bitcoin node took our transaction for another one")
    if result.has("error"):
        # A package's own reason is said once; its child's "missing inputs" only means that the parent is not in.
        reason = message if _hides_reason(message, result) else result.read_text("error")
        refused = build_refusal(reason)
        return NotTaken(refused.reason, refused.node_reason)
    if result.has("other-wtxid") or not _is_fresh(result):
        return AlreadyKnown()
    return Entered(result.read_object("fees").read_amount("base"), Vbytes(result.read_count("vsize")))


def _hides_reason(message: str, result: Fields) -> bool:
    return message not in _PER_TRANSACTION and result.read_text("error") == "bad-txns-inputs-missingorspent"


def _is_fresh(result: Fields) -> bool:
    """Tell whether the node took it now: of what it had already it says no effective rate."""
    fees: JsonValue = result.values.get("fees")
    return Fields.from_reply("submitpackage", fees).has("effective-feerate")
