"""Taproot script trees (BIP 341): the invoice's and the vault's fixed trees, control blocks, output keys.

The internal key is always the NUMS point `H`: there is no key path, visibly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from smpc.bitcoin.reader import to_var_bytes
from smpc.bitcoin.script import (
    NUMS_KEY,
    Leaf,
    build_marker_leaf,
    build_p2tr,
    build_recovery_leaf,
    build_refund_leaf,
    build_rejection_leaf,
    build_transfer_leaf,
)
from smpc.curve import Point, parse_scalar, tagged_hash
from smpc.errors import NotFound
from smpc.params import Params
from smpc.types import Script, TermsHash, XOnlyKey

LEAF_VERSION: Final = 0xC0
"""The only defined tap leaf version (BIP 342)."""

_NUMS_POINT: Final = Point.from_bytes(b"\x02" + NUMS_KEY)


@dataclass(frozen=True, slots=True)
class Timelocks:
    """The relative locks of the leaves, in Bitcoin blocks (1..65535 each)."""

    emergency: int
    transfer: int
    refund: int
    recovery: int

    @classmethod
    def from_params(cls, params: Params) -> Timelocks:
        """Take the locks of a network's preset."""
        return cls(params.emergency_csv, params.transfer_csv, params.refund_csv, params.recovery_csv)


@dataclass(frozen=True, slots=True)
class GroupKeys:
    """One output's child keys of the three groups, and the epoch's release hash `h`."""

    v: XOnlyKey
    w: XOnlyKey
    wr: XOnlyKey
    """The Witness group's rejection key of this output."""
    e: XOnlyKey
    release_hash: bytes
    """SHA256 of the epoch's release preimage, 32 bytes."""


@dataclass(frozen=True, slots=True)
class TapLeaf:
    """A leaf at its place in a tree."""

    name: str
    script: Script
    leaf_hash: bytes
    """The BIP 341 leaf hash, 32 bytes: what a tap script signature is filed under."""
    path: bytes
    """The Merkle path, 32 bytes per level, nearest first."""


TreePlan: TypeAlias = "tuple[str, Script] | tuple[TreePlan, TreePlan]"
"""A named leaf script, or the two halves of a tree."""


@dataclass(frozen=True, slots=True)
class TapTree:
    """A script tree under the internal key `H`, with everything a spender or a wallet needs."""

    leaves: tuple[TapLeaf, ...]
    """In the order of the descriptor, left to right."""
    merkle_root: bytes
    output_key: XOnlyKey
    parity: int
    """1 when the output point's Y is odd, else 0."""

    @property
    def script(self) -> Script:
        """The scriptPubKey, 34 bytes."""
        return build_p2tr(self.output_key)

    def find_leaf(self, name: str) -> TapLeaf:
        """Return the leaf with its hash and path; NotFound when the tree has none of that name."""
        for leaf in self.leaves:
            if leaf.name == name:
                return leaf
        raise NotFound(f"this tree has no {name} leaf", remedy="use one of: " + ", ".join(x.name for x in self.leaves))

    def leaf(self, name: str) -> Script:
        """Return the leaf's script; NotFound as `find_leaf`."""
        return self.find_leaf(name).script

    def control_block(self, name: str) -> bytes:
        """Return the leaf's control block, 33 + 32 x depth bytes; NotFound as `find_leaf`."""
        return bytes((LEAF_VERSION | self.parity,)) + NUMS_KEY + self.find_leaf(name).path


@dataclass(frozen=True, slots=True)
class InvoiceTree:
    """A deposit address: `{{{marker,refund},rejection},transfer}` and the facts it was built from."""

    keys: GroupKeys
    user_key: XOnlyKey
    terms_hash: TermsHash
    locks: Timelocks
    tree: TapTree

    @property
    def script(self) -> Script:
        """The scriptPubKey, 34 bytes."""
        return self.tree.script

    @property
    def merkle_root(self) -> bytes:
        """The tree's Merkle root, 32 bytes."""
        return self.tree.merkle_root

    @property
    def output_key(self) -> XOnlyKey:
        """The Taproot output key."""
        return self.tree.output_key

    def leaf(self, name: Leaf) -> Script:
        """Return the leaf's script; NotFound when an invoice has no such leaf."""
        return self.tree.leaf(name)

    def control_block(self, name: Leaf) -> bytes:
        """Return the leaf's control block; NotFound when an invoice has no such leaf."""
        return self.tree.control_block(name)


@dataclass(frozen=True, slots=True)
class VaultTree:
    """A vault output: `{{recovery,rejection},transfer}` and the facts it was built from."""

    keys: GroupKeys
    locks: Timelocks
    tree: TapTree

    @property
    def script(self) -> Script:
        """The scriptPubKey, 34 bytes."""
        return self.tree.script

    @property
    def merkle_root(self) -> bytes:
        """The tree's Merkle root, 32 bytes."""
        return self.tree.merkle_root

    @property
    def output_key(self) -> XOnlyKey:
        """The Taproot output key."""
        return self.tree.output_key

    def leaf(self, name: Leaf) -> Script:
        """Return the leaf's script; NotFound when a vault output has no such leaf."""
        return self.tree.leaf(name)

    def control_block(self, name: Leaf) -> bytes:
        """Return the leaf's control block; NotFound when a vault output has no such leaf."""
        return self.tree.control_block(name)


def build_invoice_tree(keys: GroupKeys, *, user_key: XOnlyKey, terms_hash: TermsHash, locks: Timelocks) -> InvoiceTree:
    """Build an invoice's tree; InvalidInput when a key is no x-only point or a lock is out of range."""
    marker = (Leaf.MARKER, build_marker_leaf(terms_hash))
    refund = (Leaf.REFUND, build_refund_leaf(user_key, locks.refund))
    tree = build_tap_tree((((marker, refund), _plan_rejection(keys, locks)), _plan_transfer(keys, locks)))
    return InvoiceTree(keys, user_key, terms_hash, locks, tree)


def build_vault_tree(keys: GroupKeys, locks: Timelocks) -> VaultTree:
    """Build a vault output's tree; InvalidInput when a key is no x-only point or a lock is out of range."""
    recovery = (Leaf.RECOVERY, build_recovery_leaf(keys.v, keys.e, locks.recovery))
    tree = build_tap_tree(((recovery, _plan_rejection(keys, locks)), _plan_transfer(keys, locks)))
    return VaultTree(keys, locks, tree)


def build_tap_tree(plan: TreePlan) -> TapTree:
    """Build any tree of named leaves under `H`; names must differ, which is the caller's duty."""
    root, leaves = _place(plan)
    return _tweak(root, tuple(leaves))


def compute_leaf_hash(script: bytes) -> bytes:
    """Return the tagged hash `TapLeaf` of a script with leaf version 0xc0, 32 bytes."""
    return tagged_hash("TapLeaf", bytes((LEAF_VERSION,)), to_var_bytes(script))


def compute_branch_hash(left: bytes, right: bytes) -> bytes:
    """Return the tagged hash `TapBranch` of two nodes in lexicographic order, 32 bytes."""
    return tagged_hash("TapBranch", left, right) if left < right else tagged_hash("TapBranch", right, left)


def compute_root_from_path(leaf_script: bytes, control_block: bytes) -> bytes:
    """Return the Merkle root that a leaf script and its control block's path lead to, 32 bytes."""
    node = compute_leaf_hash(leaf_script)
    for start in range(33, len(control_block), 32):
        node = compute_branch_hash(node, control_block[start : start + 32])
    return node


def verify_leaf_proof(leaf_script: bytes, control_block: bytes, output_script: bytes) -> bool:
    """Tell whether the control block proves that the leaf, under `H`, is in the Taproot output (BIP 341)."""
    depth, rest = divmod(len(control_block) - 33, 32)
    if rest or not 0 <= depth <= 128 or control_block[1:33] != NUMS_KEY:
        return False
    tree = _tweak(compute_root_from_path(leaf_script, control_block), ())
    return output_script == tree.script and control_block[0] == LEAF_VERSION | tree.parity


def _tweak(root: bytes, leaves: tuple[TapLeaf, ...]) -> TapTree:
    tweak = parse_scalar(tagged_hash("TapTweak", NUMS_KEY, root))
    plain = _NUMS_POINT.add_generator(tweak).to_plain_key()
    return TapTree(leaves, root, XOnlyKey(plain[1:]), plain[0] & 1)


def _place(plan: TreePlan) -> tuple[bytes, list[TapLeaf]]:
    """Return a subtree's hash and its leaves, each with the path inside the subtree."""
    first, second = plan
    if isinstance(first, str):
        assert isinstance(second, bytes)  # a named leaf carries its script
        leaf_hash = compute_leaf_hash(second)
        return leaf_hash, [TapLeaf(first, Script(second), leaf_hash, b"")]
    assert isinstance(second, tuple)  # a branch has two branches or leaves
    left, left_leaves = _place(first)
    right, right_leaves = _place(second)
    leaves = [_lower(leaf, right) for leaf in left_leaves] + [_lower(leaf, left) for leaf in right_leaves]
    return compute_branch_hash(left, right), leaves


def _lower(leaf: TapLeaf, sibling: bytes) -> TapLeaf:
    return TapLeaf(leaf.name, leaf.script, leaf.leaf_hash, leaf.path + sibling)


def _plan_transfer(keys: GroupKeys, locks: Timelocks) -> tuple[str, Script]:
    return Leaf.TRANSFER, build_transfer_leaf(keys.v, keys.w, locks.transfer)


def _plan_rejection(keys: GroupKeys, locks: Timelocks) -> tuple[str, Script]:
    return Leaf.REJECTION, build_rejection_leaf(keys.release_hash, keys.wr, keys.e, locks.emergency)
