"""Random trees: ours, embit and bitcoin-utils must agree on scripts, outputs and control blocks."""

from __future__ import annotations

from bitcoinutils.keys import PublicKey
from bitcoinutils.setup import setup
from bitcoinutils.utils import ControlBlock
from embit.descriptor import Descriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from smpc.bitcoin.descriptor_checksum import add_checksum
from smpc.bitcoin.script import NUMS_KEY
from smpc.bitcoin.taproot import build_tap_tree, compute_root_from_path, verify_leaf_proof
from tests.support.tap_plans import build_random_tree


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 9))
def test_three_libraries_agree_on_random_trees(seed: int, leaves: int) -> None:
    random_tree = build_random_tree(seed, leaves)
    tree = build_tap_tree(random_tree.plan)
    assert tuple(leaf.script for leaf in tree.leaves) == random_tree.scripts

    assert Descriptor.from_string(add_checksum(random_tree.descriptor)).script_pubkey().data == tree.script

    setup("regtest")
    internal = PublicKey("02" + NUMS_KEY.hex())
    address = internal.get_taproot_address(random_tree.nested if leaves > 1 else [random_tree.nested])
    assert address.to_script_pub_key().to_hex() == tree.script.hex()
    for place, leaf in enumerate(tree.leaves):
        ours = tree.control_block(leaf.name)
        if leaves > 1:
            assert ControlBlock(internal, random_tree.nested, place, is_odd=address.is_odd()).to_bytes() == ours
        assert compute_root_from_path(leaf.script, ours) == tree.merkle_root
        assert verify_leaf_proof(leaf.script, ours, tree.script)
