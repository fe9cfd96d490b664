"""The path from an intent's input to the ancestor that was robbed: checked by itself, at its bounds, lie by lie."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smpc.protocol.ancestry import MAX_PATH_BYTES, MAX_PATH_TRANSACTIONS, ForeignSpend, find_path_fault
from smpc.types import Outpoint, Txid
from tests.support.lineage import SPENDER, Lineage, build_lineage, build_transaction

OTHER = Outpoint(Txid(b"\x09" * 32), 0)


def judge(lineage: Lineage, **changes: object) -> str | None:
    spend = ForeignSpend(lineage.taken, SPENDER, lineage.path)
    return find_path_fault(replace(spend, **changes), {OTHER, lineage.created})  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [1, 2, 3, MAX_PATH_TRANSACTIONS])
def test_a_path_from_the_input_to_the_robbed_ancestor_stands(length: int) -> None:
    assert judge(build_lineage(length)) is None


def test_an_empty_path_means_the_input_itself() -> None:
    assert find_path_fault(ForeignSpend(OTHER, SPENDER), {OTHER}) is None
    assert find_path_fault(ForeignSpend(OTHER, SPENDER), {Outpoint(OTHER.txid, 1)}) is not None


def test_a_path_of_26_transactions_is_too_long() -> None:
    fault = judge(build_lineage(MAX_PATH_TRANSACTIONS + 1))
    assert fault is not None
    assert "at most 25" in fault


@pytest.mark.parametrize(("more", "stands"), [(0, True), (1, False)])
def test_a_path_has_100_000_bytes_and_not_one_more(more: int, stands: bool) -> None:
    plain = build_lineage(2, padding=1_000)
    room = MAX_PATH_BYTES - sum(map(len, plain.path))
    oldest = plain.transactions[1]
    padded = build_transaction(*(txin.outpoint for txin in oldest.inputs), padding=1_000 + room - 2 + more)
    youngest = build_transaction(OTHER, padded.outpoint(0), padding=1_000)
    lineage = Lineage((youngest, padded))
    assert sum(map(len, lineage.path)) == MAX_PATH_BYTES + more
    assert (judge(lineage) is None) is stands


def test_every_link_of_a_path_is_checked() -> None:
    lineage = build_lineage(3)
    first, second, third = lineage.path
    for path in (
        (second, third),
        (first, third),
        (third, second, first),
        (first, second, third, third),
        (first, first, second, third),
        (first, second, build_lineage(1, padding=1).path[0]),
    ):
        assert judge(lineage, path=path) is not None


def test_a_path_ends_where_the_ancestor_spends_what_was_taken() -> None:
    lineage = build_lineage(2)
    assert judge(lineage, outpoint=Outpoint(lineage.taken.txid, lineage.taken.vout + 1)) is not None
    assert judge(lineage, outpoint=lineage.created) is not None
    assert judge(lineage, outpoint=OTHER) is not None
    assert judge(lineage, path=lineage.path[:1]) is not None, "it stops before the ancestor"


def test_an_output_that_its_transaction_does_not_have_is_no_link() -> None:
    lineage = build_lineage(1)
    beyond = Outpoint(lineage.created.txid, 2)
    spend = ForeignSpend(lineage.taken, SPENDER, lineage.path)
    assert find_path_fault(spend, {lineage.created}) is None
    assert find_path_fault(spend, {beyond}) is not None


def test_the_spender_is_none_of_the_path() -> None:
    lineage = build_lineage(3)
    for transaction in lineage.transactions:
        assert judge(lineage, spender=transaction.txid) is not None


def test_the_bytes_of_a_path_are_transactions_without_witnesses_and_nothing_else() -> None:
    lineage = build_lineage(1)
    (raw,) = lineage.path
    signed = build_transaction(*(txin.outpoint for txin in lineage.transactions[0].inputs), witness=True)
    assert signed.txid == lineage.transactions[0].txid
    for lie in (b"", raw[:-1], raw + b"\x00", signed.to_bytes()):
        assert judge(lineage, path=(lie,)) is not None
