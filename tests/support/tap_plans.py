"""Random script trees as three libraries take them, for differential tests."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bitcoinutils.script import Script as OtherScript

from smpc.bitcoin.script import (
    build_marker_leaf,
    build_refund_leaf,
    build_rejection_leaf,
    build_transfer_leaf,
)
from smpc.bitcoin.taproot import TreePlan
from smpc.types import Script, TermsHash
from tests.support.leaf_signers import LeafSigners

_TAG = "4b414f4e" + "00" * 28
_NUMS = "50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0"


@dataclass(frozen=True, slots=True)
class RandomTree:
    """One tree: our plan, its descriptor text, the nested lists of bitcoin-utils, and the leaves in order."""

    plan: TreePlan
    miniscript: str
    nested: Any
    scripts: tuple[Script, ...]

    @property
    def descriptor(self) -> str:
        """The whole output without checksum."""
        return f"tr({_NUMS},{self.miniscript})"


def build_random_tree(seed: int, leaves: int) -> RandomTree:
    """Build a tree of random shape with `leaves` leaves of random kinds and locks."""
    source = random.Random(seed)
    numbers = iter(range(leaves))
    return _build(source, leaves, seed, numbers)


def _build(source: random.Random, leaves: int, seed: int, numbers: Iterator[int]) -> RandomTree:
    if leaves == 1:
        return _build_leaf(source, seed, next(numbers))
    split = source.randint(1, leaves - 1)
    left = _build(source, split, seed, numbers)
    right = _build(source, leaves - split, seed, numbers)
    return RandomTree(
        (left.plan, right.plan),
        f"{{{left.miniscript},{right.miniscript}}}",
        [left.nested, right.nested],
        left.scripts + right.scripts,
    )


def _build_leaf(source: random.Random, seed: int, number: int) -> RandomTree:
    signers = LeafSigners(f"random/{seed}/{number}")
    first, second, digest = signers.key("v"), signers.key("w"), signers.group_keys.release_hash
    lock = source.choice([1, 16, 17, 127, 128, 255, 256, 32_767, 32_768, 65_535, source.randint(1, 65_535)])
    pair = f"and_v(v:pk({first.hex()}),and_v(v:pk({second.hex()}),older({lock})))"
    one, two = [first.hex(), "OP_CHECKSIGVERIFY"], [second.hex(), "OP_CHECKSIGVERIFY"]
    older = [lock, "OP_CHECKSEQUENCEVERIFY"]
    opening = ["OP_SIZE", 32, "OP_EQUALVERIFY", "OP_SHA256"]
    kinds = [
        (build_refund_leaf(first, lock), f"and_v(v:pk({first.hex()}),older({lock}))", [*one, *older]),
        (build_transfer_leaf(first, second, lock), pair, [*one, *two, *older]),
        (
            build_rejection_leaf(digest, first, second, lock),
            f"and_v(v:sha256({digest.hex()}),{pair})",
            [*opening, digest.hex(), "OP_EQUALVERIFY", *one, *two, *older],
        ),
        (
            build_marker_leaf(TermsHash(digest)),
            f"and_v(v:pk({_NUMS}),and_v(v:sha256({_TAG}),sha256({digest.hex()})))",
            [_NUMS, "OP_CHECKSIGVERIFY", *opening, _TAG, "OP_EQUALVERIFY", *opening, digest.hex(), "OP_EQUAL"],
        ),
    ]
    script, miniscript, tokens = source.choice(kinds)
    return RandomTree((str(number), script), miniscript, OtherScript(tokens), (script,))
