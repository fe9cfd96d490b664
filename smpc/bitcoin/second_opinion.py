"""The same trees and addresses from an independent library, for `verify-receipt` and tests; never in a pod's path.

bitcoin-utils is the only thing used here and this is the only place that uses it: its curve is pure Python, its
parser loses information and its network is a process-wide setting, so it sees public keys only and is set and put
back under a lock.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import bitcoinutils.setup as bitcoinutils_setup
from bitcoinutils.keys import PublicKey
from bitcoinutils.script import Script as OtherScript
from bitcoinutils.utils import ControlBlock

from smpc.bitcoin.script import MARKER_TAG, NUMS_KEY, Leaf
from smpc.bitcoin.taproot import GroupKeys, InvoiceTree, Timelocks, VaultTree
from smpc.errors import CheckFailed
from smpc.types import Network, Script

_NETWORK_LOCK: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class SecondOpinion:
    """What the other library computes from the same keys, hashes and locks."""

    script: Script
    address: str
    leaves: Mapping[Leaf, Script]
    control_blocks: Mapping[Leaf, bytes]


def compute_second_opinion(tree: InvoiceTree | VaultTree, network: Network) -> SecondOpinion:
    """Build the tree again from its facts; takes tens of milliseconds."""
    nested, order = _nest_invoice(tree) if isinstance(tree, InvoiceTree) else _nest_vault(tree)
    flat = list(_flatten(nested))
    with _network(network):
        internal = PublicKey("02" + NUMS_KEY.hex())
        address = internal.get_taproot_address(nested)
        blocks = [ControlBlock(internal, nested, place, is_odd=address.is_odd()) for place in range(len(flat))]
        return SecondOpinion(
            script=Script(bytes.fromhex(address.to_script_pub_key().to_hex())),
            address=address.to_string(),
            leaves={leaf: Script(bytes.fromhex(script.to_hex())) for leaf, script in zip(order, flat, strict=True)},
            control_blocks={leaf: block.to_bytes() for leaf, block in zip(order, blocks, strict=True)},
        )


def verify_with_second_opinion(tree: InvoiceTree | VaultTree, network: Network, address: str) -> None:
    """Compare our tree and the address shown with the other library's; CheckFailed names the first difference."""
    other = compute_second_opinion(tree, network)
    if other.script != tree.script or other.address != address:
        raise CheckFailed(f"another library derives the address {other.address}, not {address}")
    for leaf, script in other.leaves.items():
        if tree.leaf(leaf) != script or tree.control_block(leaf) != other.control_blocks[leaf]:
            raise CheckFailed(f"another library derives a different {leaf} leaf")


def _nest_invoice(tree: InvoiceTree) -> tuple[list[Any], tuple[Leaf, ...]]:
    marker = [*_key(NUMS_KEY), *_preimage(MARKER_TAG), *_preimage(tree.terms_hash)[:-1], "OP_EQUAL"]
    refund = [*_key(tree.user_key), *_lock(tree.locks.refund)]
    leaves = [[[OtherScript(marker), OtherScript(refund)], _rejection(tree.keys, tree.locks)], _transfer(tree)]
    return leaves, (Leaf.MARKER, Leaf.REFUND, Leaf.REJECTION, Leaf.TRANSFER)


def _nest_vault(tree: VaultTree) -> tuple[list[Any], tuple[Leaf, ...]]:
    recovery = OtherScript([*_key(tree.keys.v), *_key(tree.keys.e), *_lock(tree.locks.recovery)])
    leaves = [[recovery, _rejection(tree.keys, tree.locks)], _transfer(tree)]
    return leaves, (Leaf.RECOVERY, Leaf.REJECTION, Leaf.TRANSFER)


def _transfer(tree: InvoiceTree | VaultTree) -> Any:  # noqa: ANN401 - the library publishes no types
    return OtherScript([*_key(tree.keys.v), *_key(tree.keys.w), *_lock(tree.locks.transfer)])


def _rejection(keys: GroupKeys, locks: Timelocks) -> Any:  # noqa: ANN401 - the library publishes no types
    return OtherScript([*_preimage(keys.release_hash), *_key(keys.wr), *_key(keys.e), *_lock(locks.emergency)])


def _key(key: bytes) -> list[str | int]:
    return [key.hex(), "OP_CHECKSIGVERIFY"]


def _preimage(digest: bytes) -> list[str | int]:
    return ["OP_SIZE", 32, "OP_EQUALVERIFY", "OP_SHA256", digest.hex(), "OP_EQUALVERIFY"]


def _lock(blocks: int) -> list[str | int]:
    return [blocks, "OP_CHECKSEQUENCEVERIFY"]


def _flatten(nested: list[Any]) -> Iterator[Any]:
    for item in nested:
        if isinstance(item, list):
            yield from _flatten(item)
        else:
            yield item


@contextmanager
def _network(network: Network) -> Iterator[None]:
    with _NETWORK_LOCK:
        before = bitcoinutils_setup.get_network()
        bitcoinutils_setup.setup(network.value)
        try:
            yield
        finally:
            bitcoinutils_setup.setup(before)
