"""Single-key stand-ins for the three groups and a user, so that scripts can be tested without any ceremony."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from smpc.bitcoin.fees import assemble_witness
from smpc.bitcoin.script import Leaf
from smpc.bitcoin.sighash import precompute_sighash
from smpc.bitcoin.taproot import (
    GroupKeys,
    InvoiceTree,
    Timelocks,
    VaultTree,
    build_invoice_tree,
    build_vault_tree,
)
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.curve import SecretKey, compute_xonly_key, sign_schnorr
from smpc.params import REGTEST
from smpc.types import Outpoint, Sats, Script, Signature, TermsHash, XOnlyKey

LOCKS = Timelocks.from_params(REGTEST)

SIGNERS_OF = {
    Leaf.REFUND: ("user",),
    Leaf.TRANSFER: ("v", "w"),
    Leaf.REJECTION: ("wr", "e"),
    Leaf.RECOVERY: ("v", "e"),
}
"""Who spends each leaf, in script order."""


@dataclass(frozen=True, slots=True)
class LeafSigners:
    """One secret per key of a tree, all derived from a seed."""

    seed: str

    def secret(self, name: str) -> SecretKey:
        """Give the secret of `v`, `w`, `wr`, `e` or `user`."""
        return SecretKey.from_bytes(sha256(f"{self.seed}/{name}".encode()).digest())

    def key(self, name: str) -> XOnlyKey:
        """Give the public key of a name."""
        return compute_xonly_key(self.secret(name))

    @property
    def preimage(self) -> bytes:
        """The release preimage of these signers' epoch."""
        return sha256(f"{self.seed}/preimage".encode()).digest()

    @property
    def group_keys(self) -> GroupKeys:
        """The groups' keys as trees take them."""
        v, w, wr, e = (self.key(name) for name in ("v", "w", "wr", "e"))
        return GroupKeys(v, w, wr, e, sha256(self.preimage).digest())

    def invoice(self, locks: Timelocks = LOCKS) -> InvoiceTree:
        """Build an invoice's tree for these keys."""
        terms = TermsHash(sha256(f"{self.seed}/terms".encode()).digest())
        return build_invoice_tree(self.group_keys, user_key=self.key("user"), terms_hash=terms, locks=locks)

    def vault(self, locks: Timelocks = LOCKS) -> VaultTree:
        """Build a vault output's tree for these keys."""
        return build_vault_tree(self.group_keys, locks)

    def sign(self, name: str, digest: bytes) -> Signature:
        """Sign a digest with the key of a name."""
        return sign_schnorr(self.secret(name), digest, bytes(32))


def build_spend(outpoint: Outpoint, value: Sats, destination: Script, sequence: int, version: int = 2) -> Transaction:
    """Build an unsigned transaction with one input and one output."""
    return Transaction(version, (TxIn(outpoint, sequence),), (TxOut(value, destination),), 0)


def sign_leaf(
    unsigned: Transaction,
    prevout: TxOut,
    tree: InvoiceTree | VaultTree,
    leaf: Leaf,
    signers: LeafSigners,
    names: Sequence[str] | None = None,
    preimage: bytes | None = None,
) -> Transaction:
    """Sign the one input through a leaf, by the leaf's own signers unless others are named, in script order."""
    digest = precompute_sighash(unsigned, [prevout]).compute(0, tree.leaf(leaf))
    signatures = [signers.sign(name, digest) for name in names or SIGNERS_OF[leaf]]
    if leaf is Leaf.REJECTION and preimage is None:
        preimage = signers.preimage
    return unsigned.with_witnesses([assemble_witness(tree.leaf(leaf), tree.control_block(leaf), signatures, preimage)])
