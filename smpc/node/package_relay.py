"""What an executor of emergencies asks of a Bitcoin node beyond `BitcoinNode`: packages, floors and rivals.

Implementations: `smpc.node.bitcoind_package.BitcoindPackageRelay` and `smpc.node.memory_bitcoin.MemoryBitcoin`. One
contract suite runs against both, with TRUC enforced and merely accepted. Errors are those of `smpc.node.ports`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

from smpc.bitcoin.mempool import MempoolPolicy, Rival
from smpc.bitcoin.transaction import Transaction, parse_transaction
from smpc.errors import InvalidInput
from smpc.node.ports import RefusalReason
from smpc.types import Outpoint, Sats, Txid, Vbytes


@dataclass(frozen=True, slots=True)
class Entered:
    """The node took it now; `fee` is its own."""

    fee: Sats
    vsize: Vbytes


@dataclass(frozen=True, slots=True)
class AlreadyKnown:
    """It was in the mempool or on the best chain before."""


@dataclass(frozen=True, slots=True)
class NotTaken:
    """The node would not take it. `reason` classifies, `node_reason` is the node's own short text."""

    reason: RefusalReason
    node_reason: str


Admission: TypeAlias = Entered | AlreadyKnown | NotTaken
"""How one transaction of a package came out."""


@dataclass(frozen=True, slots=True)
class PackageOutcome:
    """How a package came out, transaction by transaction: a parent may enter while its child does not."""

    parent: Admission
    child: Admission
    replaced: frozenset[Txid]
    """What left the mempool for it; empty when the package was known."""

    @property
    def is_in(self) -> bool:
        """Whether both are in the mempool or on the chain now."""
        return not isinstance(self.parent, NotTaken) and not isinstance(self.child, NotTaken)


class PackageRelay(Protocol):
    """Three questions of whoever must get a transaction into a block against a crowded or hostile mempool."""

    async def fetch_mempool_policy(self) -> MempoolPolicy:
        """Return the floors that hold right now."""
        ...

    async def submit_package(self, parent: bytes, child: bytes) -> PackageOutcome:
        """Hand over a parent and the child that pays for it.

        Idempotent: what is in already is `AlreadyKnown`. The node tries each alone first, so a parent that pays
        enough enters though its child is refused. InvalidInput when the bytes are no transactions or the second does
        not spend the first.
        """
        ...

    async def fetch_rival(self, outpoint: Outpoint) -> Rival | None:
        """Return the mempool transaction that spends the output, with what depends on it; None when there is none."""
        ...


def parse_package(parent: bytes, child: bytes) -> tuple[Transaction, Transaction]:
    """Parse a package's two transactions; InvalidInput when either is none, or the child does not spend the parent."""
    first, second = parse_transaction(parent), parse_transaction(child)
    if all(txin.outpoint.txid != first.txid for txin in second.inputs):
        raise InvalidInput("the second transaction of a package must spend an output of the first")
    return first, second
