"""Payments that look like deposits and are none: another tree of the same leaves, another way to push (case C1)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from smpc.bitcoin.script import Leaf, build_marker_leaf, build_refund_leaf
from smpc.bitcoin.taproot import InvoiceTree, TapTree, TreePlan, build_tap_tree
from smpc.types import Script
from tests.support.bridge_world import BridgeWorld, play


def plan_leaves(tree: InvoiceTree) -> tuple[TreePlan, TreePlan, TreePlan, TreePlan]:
    """Return an invoice's leaves, as its tree has them: marker, refund, rejection, transfer."""
    marker, refund, rejection, transfer = (
        (name, tree.leaf(name)) for name in (Leaf.MARKER, Leaf.REFUND, Leaf.REJECTION, Leaf.TRANSFER)
    )
    return marker, refund, rejection, transfer


def swap_transfer_and_refund(tree: InvoiceTree) -> TapTree:
    marker, refund, rejection, transfer = plan_leaves(tree)
    return build_tap_tree((((marker, transfer), rejection), refund))


def pad_the_lock(tree: InvoiceTree) -> TapTree:
    """Push the refund's lock with a leading zero byte: a spendable leaf for the user, and not the template's."""
    marker, refund, rejection, transfer = plan_leaves(tree)
    padded = Script(refund[1].replace(b"\x01\x24\xb2", b"\x02\x24\x00\xb2"))  # type: ignore[union-attr]
    assert padded != refund[1]
    return build_tap_tree((((marker, (Leaf.REFUND, padded)), rejection), transfer))


def shorten_the_lock(tree: InvoiceTree) -> TapTree:
    marker, _, rejection, transfer = plan_leaves(tree)
    early = (Leaf.REFUND, build_refund_leaf(tree.user_key, 2))
    return build_tap_tree((((marker, early), rejection), transfer))


def forget_the_marker(tree: InvoiceTree) -> TapTree:
    _, refund, rejection, transfer = plan_leaves(tree)
    return build_tap_tree(((refund, rejection), transfer))


def commit_to_other_terms(tree: InvoiceTree) -> TapTree:
    _, refund, rejection, transfer = plan_leaves(tree)
    other = (Leaf.MARKER, build_marker_leaf(type(tree.terms_hash)(bytes(32))))
    return build_tap_tree((((other, refund), rejection), transfer))


VARIANTS: Final[dict[str, Callable[[InvoiceTree], TapTree]]] = {
    "swapped leaves": swap_transfer_and_refund,
    "a lock pushed non-minimally": pad_the_lock,
    "an earlier refund": shorten_the_lock,
    "no marker": forget_the_marker,
    "other terms": commit_to_other_terms,
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_payment_to_a_variant_of_an_invoices_tree_is_no_deposit(tmp_path: Path, name: str) -> None:
    async def story(world: BridgeWorld) -> None:
        (invoice,) = await world.issue(50_000_000)
        same = build_tap_tree(
            ((plan_leaves(invoice.tree)[:2], plan_leaves(invoice.tree)[2]), plan_leaves(invoice.tree)[3])
        )
        assert same.script == invoice.script, "the template itself, built by hand, is the invoice"
        variant = VARIANTS[name](invoice.tree).script
        assert variant != invoice.script
        strange = world.bitcoin.fund(variant, 50_000_000, confirmations=3)  # type: ignore[arg-type]
        deposit = world.pay(invoice, 20_000_000, confirmations=3)
        await world.until(lambda: deposit in world.ledger.credited, mine_every=6)
        assert strange not in world.board.deposits
        assert strange not in world.ledger.credited
        assert len(world.ledger.credited) == 1

    play(story, tmp_path)
