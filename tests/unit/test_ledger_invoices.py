"""Invoices: recorded by a coordinator, once per request and index, with exactly the terms of the block [R19]."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from smpc.params import REGTEST
from smpc.protocol.invoices import InvoiceRequest, InvoiceTerms, RefundOrigin, compute_fee_base
from smpc.protocol.ledger_invoices import INVOICE_INDEX_END
from smpc.protocol.records import InvoicesRecorded
from smpc.types import AccountKey, BtcHeight, ChildIndex, EpochNumber, FeeRate, IdentityKey, Network, Sats, XOnlyKey
from tests.support.chain import ORIGIN, LedgerChain
from tests.support.groups import make_secret, make_xonly, sign


def one(chain: LedgerChain, **changes: Any) -> InvoicesRecorded:  # noqa: ANN401 - any field may be changed
    return chain.make_invoices(replace(chain.make_terms(1), **changes))


def asking(chain: LedgerChain, amount: int, terms: InvoiceTerms | None = None) -> InvoicesRecorded:
    request = InvoiceRequest(terms or chain.make_terms(1), Sats(amount), ORIGIN)
    return chain.sign_invoices((request,), b"request")


def test_a_recorded_invoice_is_found_by_epoch_and_index_and_by_its_request() -> None:
    chain = LedgerChain.activated()
    record = chain.make_invoices(chain.make_terms(5), chain.make_terms(6))
    chain.add(record)
    ledger = chain.ledger
    assert ledger.pegins[record.record_id] == ((EpochNumber(0), ChildIndex(5)), (EpochNumber(0), ChildIndex(6)))
    assert ledger.invoices[EpochNumber(0), ChildIndex(5)].pegin == record.record_id
    assert ledger.find_invoice_request(record.coordinator, b"request") == record.record_id
    assert ledger.find_invoice_request(record.coordinator, b"unknown") is None


def test_refuses_invoices_before_an_epoch_is_active() -> None:
    chain = LedgerChain()
    assert chain.refusal(chain.make_invoices(chain.make_terms(1))) == "NO_EPOCH"


def test_refuses_invoices_of_a_stranger_and_a_forged_signature() -> None:
    chain = LedgerChain.activated()
    record = chain.make_invoices(chain.make_terms(1))
    stranger = replace(record, coordinator=IdentityKey(make_xonly("mallory")))
    stranger = replace(stranger, signature=sign(make_secret("mallory"), stranger.digest))
    assert chain.refusal(stranger) == "NOT_A_COORDINATOR"
    forged = replace(record, signature=sign(make_secret("mallory"), record.digest))
    assert chain.refusal(forged) == "BAD_SIGNATURE"


@pytest.mark.parametrize(("length", "is_taken"), [(0, False), (1, True), (64, True), (65, False)])
def test_a_request_id_has_1_to_64_bytes(length: int, is_taken: bool) -> None:
    chain = LedgerChain.activated()
    record = chain.make_invoices(chain.make_terms(1), request_id=bytes(length))
    if is_taken:
        chain.add(record)
    else:
        assert chain.refusal(record) == "INVALID_ARGUMENT"


def test_the_same_request_id_with_other_invoices_is_a_conflict() -> None:
    chain = LedgerChain.activated()
    chain.add(chain.make_invoices(chain.make_terms(1)))
    assert chain.refusal(chain.make_invoices(chain.make_terms(2))) == "REQUEST_ID_USED"


def test_refuses_a_used_index_in_the_ledger_and_within_one_record() -> None:
    chain = LedgerChain.activated()
    chain.add(chain.make_invoices(chain.make_terms(1)))
    other = chain.make_invoices(chain.make_terms(1, user="bob"), request_id=b"other")
    assert chain.refusal(other) == "INDEX_USED"
    twice = chain.make_invoices(chain.make_terms(2), chain.make_terms(2, user="bob"), request_id=b"twice")
    assert chain.refusal(twice) == "INDEX_USED"


def test_the_last_index_is_one_below_the_vault_range() -> None:
    chain = LedgerChain.activated()
    assert chain.refusal(one(chain, index=ChildIndex(INVOICE_INDEX_END))) == "INDEX_OUT_OF_RANGE"
    chain.add(one(chain, index=ChildIndex(INVOICE_INDEX_END - 1)))


@pytest.mark.parametrize(
    "change",
    [
        {"network": Network.MAINNET},
        {"emergency_csv": 2},
        {"transfer_csv": 2},
        {"refund_csv": 37},
        {"fee_bp": 9},
        {"fee_bp": 11},
        {"fee_base": Sats(3_749)},
        {"fee_base": Sats(3_751)},
    ],
)
def test_refuses_terms_that_differ_from_the_parameters_and_the_rate(change: dict[str, Any]) -> None:
    chain = LedgerChain.activated()
    assert chain.refusal(one(chain, **change)) == "WRONG_TERMS"


def test_refuses_an_epoch_that_is_not_active() -> None:
    chain = LedgerChain.activated()
    assert chain.refusal(one(chain, epoch=EpochNumber(1))) == "NOT_ACTIVE"


@pytest.mark.parametrize(
    ("least", "most", "is_taken"),
    [
        (20_000, REGTEST.max_deposit, True),
        (19_999, REGTEST.max_deposit, False),
        (20_000, REGTEST.max_deposit + 1, False),
        (20_000, 20_000, True),
        (20_001, 20_000, False),
    ],
)
def test_bounds_lie_within_the_parameters(least: int, most: int, is_taken: bool) -> None:
    chain = LedgerChain.activated()
    terms = replace(chain.make_terms(1), min_amount=Sats(least), max_amount=Sats(most))
    if is_taken:
        chain.add(chain.make_invoices(terms))
    else:
        assert chain.refusal(chain.make_invoices(terms)) == "BOUNDS"


@pytest.mark.parametrize(("least", "is_taken"), [(60_244, True), (60_243, False)])
def test_the_lower_bound_is_at_least_four_fees(least: int, is_taken: bool) -> None:
    # At 40 sat/vB the base fee is 15,000 sat, so four fees are more than the smallest deposit.
    params = replace(REGTEST, fee_default=FeeRate(40_000))
    chain = LedgerChain.activated(params)
    terms = replace(chain.make_terms(1), min_amount=Sats(least))
    assert (4 * terms.compute_fee_in(terms.min_amount) <= terms.min_amount) is is_taken
    if is_taken:
        chain.add(chain.make_invoices(terms))
    else:
        assert chain.refusal(chain.make_invoices(terms)) == "BOUNDS"


def test_the_base_fee_is_rounded_up() -> None:
    assert compute_fee_base(250, FeeRate(10_000), 150) == 3_750
    assert compute_fee_base(250, FeeRate(10_001), 150) == 3_751


@pytest.mark.parametrize(
    ("amount", "is_taken"),
    [(19_999, False), (20_000, True), (REGTEST.max_deposit, True), (REGTEST.max_deposit + 1, False)],
)
def test_the_amount_asked_lies_within_the_bounds(amount: int, is_taken: bool) -> None:
    chain = LedgerChain.activated()
    if is_taken:
        chain.add(asking(chain, amount))
    else:
        assert chain.refusal(asking(chain, amount)) == "BOUNDS"


@pytest.mark.parametrize(("height", "is_taken"), [(0, False), (1, True), (499_999_999, True), (500_000_000, False)])
def test_an_invoice_expires_at_a_bitcoin_height(height: int, is_taken: bool) -> None:
    chain = LedgerChain.activated()
    record = one(chain, expires=BtcHeight(height))
    if is_taken:
        chain.add(record)
    else:
        assert chain.refusal(record) == "WRONG_EXPIRY"


@pytest.mark.parametrize("key", [bytes(32), b"\xff" * 32], ids=["zero", "not below p"])
def test_refuses_keys_that_are_no_points(key: bytes) -> None:
    chain = LedgerChain.activated()
    assert chain.refusal(one(chain, recipient=AccountKey(key))) == "BAD_KEY"
    assert chain.refusal(one(chain, refund_key=XOnlyKey(key))) == "BAD_KEY"


@pytest.mark.parametrize(
    "origin",
    [
        RefundOrigin(bytes(3), ()),
        RefundOrigin(bytes(5), ()),
        RefundOrigin(bytes(4), (1,) * 17),
        RefundOrigin(bytes(4), (2**32,)),
    ],
)
def test_refuses_a_malformed_refund_origin(origin: RefundOrigin) -> None:
    chain = LedgerChain.activated()
    terms = chain.make_terms(1)
    record = chain.sign_invoices((InvoiceRequest(terms, terms.min_amount, origin),), b"request")
    assert chain.refusal(record) == "INVALID_ARGUMENT"


def test_takes_the_longest_refund_origin() -> None:
    chain = LedgerChain.activated()
    terms = chain.make_terms(1)
    origin = RefundOrigin(bytes(4), (2**32 - 1,) * 16)
    chain.add(chain.sign_invoices((InvoiceRequest(terms, terms.min_amount, origin),), b"request"))


def test_a_record_holds_1_to_100_invoices() -> None:
    chain = LedgerChain.activated()
    assert chain.refusal(chain.make_invoices()) == "INVALID_ARGUMENT"
    terms = [chain.make_terms(index) for index in range(101)]
    assert chain.refusal(chain.make_invoices(*terms)) == "INVALID_ARGUMENT"
    chain.add(chain.make_invoices(*terms[:100]))


def test_a_block_holds_as_many_invoices_as_the_rate_limit_and_the_next_block_as_many_again() -> None:
    chain = LedgerChain.activated(replace(REGTEST, max_invoices_per_block=3))
    terms = [chain.make_terms(index) for index in range(7)]
    two = chain.make_invoices(*terms[:2], request_id=b"two")
    one_more = chain.make_invoices(terms[2], request_id=b"one more")
    two_more = chain.make_invoices(*terms[2:4], request_id=b"two more")
    assert chain.refusal(two, two_more) == "INVOICE_RATE_LIMIT"
    chain.add(two, one_more)
    chain.add(chain.make_invoices(*terms[3:6], request_id=b"next block"))
