"""The parts of a world that users have to do with: what they sign, what they hold, and a chain that remembers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from smpc.bitcoin.fees import assemble_witness
from smpc.bitcoin.interpreter import verify_input_scripts
from smpc.bitcoin.script import Leaf
from smpc.bitcoin.sighash import precompute_sighash
from smpc.bitcoin.taproot import InvoiceTree
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.errors import BridgeError
from smpc.node.memory_bitcoin import MemoryBitcoin
from smpc.protocol.invoices import InvoiceTerms
from smpc.protocol.ledger import Ledger
from smpc.types import Outpoint, RecordId, Sats, Script, Txid
from tests.support.chain import LedgerChain, destination
from tests.support.groups import KeyedEpoch, make_secret, sign


class UserDesk(LedgerChain):
    """What users and the invoice desk sign, by the consensus layer's state at its tip."""

    def __init__(self, epoch: KeyedEpoch, ledger: Ledger) -> None:
        self.epoch = epoch
        self.ledger = ledger
        self.blocks = []


@dataclass(frozen=True, slots=True)
class Issued:
    """An invoice as a user holds it."""

    terms: InvoiceTerms
    tree: InvoiceTree
    pegin: RecordId
    user: str

    @property
    def script(self) -> Script:
        """Where to pay."""
        return self.tree.script


class TalkingBitcoin(MemoryBitcoin):
    """Bitcoin Core's interpreter judges what is sent, and what was taken is remembered."""

    def __init__(self) -> None:
        super().__init__(script_check=check_scripts)
        self.sent: dict[Txid, bytes] = {}
        """Every transaction that was ever taken from anybody."""

    @property
    def pending(self) -> frozenset[Txid]:
        """Return what the mempool holds."""
        return frozenset(self._mempool.pending)

    def list_pending(self) -> tuple[Transaction, ...]:
        """Return the transactions of the mempool, parents first."""
        return self._list_mempool()

    async def broadcast(self, raw: bytes) -> Txid:
        """Take a transaction in."""
        txid = await super().broadcast(raw)
        self.sent[txid] = raw
        return txid


def build_refund(invoice: Issued, deposit: Outpoint, value: int, fee: int) -> Transaction:
    """Return the transaction with which a user takes a deposit back alone."""
    unsigned = Transaction(
        2,
        (TxIn(deposit, invoice.terms.refund_csv),),
        (TxOut(Sats(value - fee), destination(invoice.user)),),
        0,
    )
    leaf = invoice.tree.leaf(Leaf.REFUND)
    digest = precompute_sighash(unsigned, [TxOut(Sats(value), invoice.script)]).compute(0, leaf)
    signature = sign(make_secret(f"refund {invoice.user}"), digest)
    witness = assemble_witness(leaf, invoice.tree.control_block(Leaf.REFUND), [signature], None)
    return unsigned.with_witnesses([witness])


def check_scripts(transaction: Transaction, prevouts: Sequence[TxOut]) -> str | None:
    """Judge a transaction's scripts with Bitcoin Core's interpreter, as a node does before it relays (invariant 5)."""
    try:
        verify_input_scripts(transaction, prevouts)
    except BridgeError as reason:
        return f"mandatory-script-verify-flag-failed ({reason.message})"
    return None
