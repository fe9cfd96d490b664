"""The invoice's and the vault's trees: shape, control blocks, and agreement with a second library."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smpc.bitcoin.address import to_address
from smpc.bitcoin.script import Leaf
from smpc.bitcoin.second_opinion import compute_second_opinion, verify_with_second_opinion
from smpc.bitcoin.taproot import (
    GroupKeys,
    InvoiceTree,
    Timelocks,
    VaultTree,
    build_invoice_tree,
    compute_root_from_path,
    verify_leaf_proof,
)
from smpc.errors import CheckFailed, InvalidInput, NotFound
from smpc.params import MAINNET
from smpc.types import Network, XOnlyKey
from tests.support.leaf_signers import LeafSigners

SIGNERS = LeafSigners("trees")
INVOICE = SIGNERS.invoice()
VAULT = SIGNERS.vault()


@pytest.mark.parametrize(
    ("tree", "depths"),
    [
        (INVOICE, {Leaf.MARKER: 3, Leaf.REFUND: 3, Leaf.REJECTION: 2, Leaf.TRANSFER: 1}),
        (VAULT, {Leaf.RECOVERY: 2, Leaf.REJECTION: 2, Leaf.TRANSFER: 1}),
    ],
    ids=["invoice", "vault"],
)
def test_the_common_path_is_the_shortest(tree: InvoiceTree | VaultTree, depths: dict[Leaf, int]) -> None:
    assert [leaf.name for leaf in tree.tree.leaves] == list(depths)
    assert {leaf: (len(tree.control_block(leaf)) - 33) // 32 for leaf in depths} == depths


@pytest.mark.parametrize("tree", [INVOICE, VAULT], ids=["invoice", "vault"])
def test_every_control_block_proves_its_leaf_and_no_other(tree: InvoiceTree | VaultTree) -> None:
    for mine in tree.tree.leaves:
        block = tree.tree.control_block(mine.name)
        assert compute_root_from_path(mine.script, block) == tree.merkle_root
        for other in tree.tree.leaves:
            assert verify_leaf_proof(other.script, block, tree.script) is (mine is other)


def test_a_tampered_control_block_proves_nothing() -> None:
    script, block = VAULT.leaf(Leaf.TRANSFER), VAULT.control_block(Leaf.TRANSFER)
    assert verify_leaf_proof(script, block, VAULT.script)
    for tampered in (bytes((block[0] ^ 1,)) + block[1:], block[:-1], block + bytes(32), block[:33], b"", block[:1]):
        assert not verify_leaf_proof(script, tampered, VAULT.script)
    for place in range(1, len(block)):
        assert not verify_leaf_proof(
            script, block[:place] + bytes((block[place] ^ 1,)) + block[place + 1 :], VAULT.script
        )


def test_a_tree_has_only_its_own_leaves() -> None:
    with pytest.raises(NotFound, match="no recovery leaf"):
        INVOICE.leaf(Leaf.RECOVERY)
    with pytest.raises(NotFound, match="no refund leaf"):
        VAULT.control_block(Leaf.REFUND)


@pytest.mark.parametrize("network", list(Network))
@pytest.mark.parametrize("locks", [Timelocks(1, 3, 36, 144), Timelocks.from_params(MAINNET), Timelocks(*[65535] * 4)])
def test_another_library_derives_the_same_trees_and_addresses(network: Network, locks: Timelocks) -> None:
    for seed in ("even", "odd", "third"):
        for tree in (LeafSigners(seed).invoice(locks), LeafSigners(seed).vault(locks)):
            verify_with_second_opinion(tree, network, to_address(tree.script, network))


def test_the_second_opinion_sees_every_difference() -> None:
    address = to_address(VAULT.script, Network.REGTEST)
    verify_with_second_opinion(VAULT, Network.REGTEST, address)
    other = LeafSigners("someone else").vault()
    with pytest.raises(CheckFailed, match="another library"):
        verify_with_second_opinion(other, Network.REGTEST, address)
    with pytest.raises(CheckFailed, match="another library"):
        verify_with_second_opinion(VAULT, Network.MAINNET, address)
    forged = replace(VAULT, tree=replace(VAULT.tree, leaves=other.tree.leaves))
    with pytest.raises(CheckFailed, match="leaf"):
        verify_with_second_opinion(forged, Network.REGTEST, address)
    assert compute_second_opinion(other, Network.REGTEST).script == other.script


def test_every_fact_changes_the_address() -> None:
    keys, locks = SIGNERS.group_keys, INVOICE.locks
    stranger = LeafSigners("stranger")
    seen: set[bytes] = {INVOICE.script, VAULT.script}
    for name in ("v", "w", "wr", "e"):
        changed = replace(keys, **{name: stranger.key("v")})
        seen.add(_rekey(INVOICE, changed))
    for name in ("emergency", "transfer", "refund"):
        seen.add(SIGNERS.invoice(replace(locks, **{name: 99})).script)
    seen.add(SIGNERS.vault(replace(locks, recovery=99)).script)
    assert len(seen) == 2 + 4 + 3 + 1
    assert SIGNERS.invoice(replace(locks, recovery=99)).script == INVOICE.script


def _rekey(tree: InvoiceTree, keys: GroupKeys) -> bytes:
    return build_invoice_tree(keys, user_key=tree.user_key, terms_hash=tree.terms_hash, locks=tree.locks).script


def test_no_tree_is_built_from_a_bad_key_or_lock() -> None:
    with pytest.raises(InvalidInput, match="relative lock"):
        SIGNERS.invoice(Timelocks(0, 3, 36, 144))
    with pytest.raises(InvalidInput, match="relative lock"):
        SIGNERS.vault(Timelocks(1, 3, 36, 65536))
    with pytest.raises(InvalidInput, match="validator key"):
        _rekey(INVOICE, replace(SIGNERS.group_keys, v=XOnlyKey(bytes(32))))
