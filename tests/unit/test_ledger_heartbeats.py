"""Heartbeats: one in every few blocks, the validator's own, and their medians are what the ledger reckons with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from smpc.curve import compute_xonly_key
from smpc.params import REGTEST
from smpc.protocol.invoices import compute_fee_out
from smpc.types import BtcHeight, FeeRate, IdentityKey, Sats
from tests.support.chain import LedgerChain
from tests.support.groups import make_account, make_secret, sign
from tests.support.turning_chain import BTC_START, TurningChain

EVERY = REGTEST.heartbeat_blocks


def blank() -> TurningChain:
    """Return a chain at a height where a new span of heartbeats begins."""
    chain = TurningChain()
    chain.skip(EVERY)
    return chain


def test_there_is_no_median_before_the_first_heartbeat() -> None:
    ledger = blank().ledger
    assert ledger.median_btc_height is None
    assert ledger.fee_rate == REGTEST.fee_default


def beat(chain: TurningChain, heights: Sequence[int] = (), rates: Sequence[int] = ()) -> None:
    """Let the first validators say these heights, or these estimates; the block after takes the medians."""
    said = max(len(heights), len(rates))
    places = range(said)
    both = zip(heights or [300] * said, rates or [0] * said, strict=True)
    chain.add(*(chain.make_heartbeat(place, btc, rate) for place, (btc, rate) in zip(places, both, strict=True)))
    chain.add()


def test_the_median_counts_from_the_block_after() -> None:
    chain = blank()
    chain.add(*(chain.make_heartbeat(place, 300) for place in range(9)))
    assert chain.ledger.median_btc_height is None
    chain.add()
    assert chain.ledger.median_btc_height == 300


@pytest.mark.parametrize(("heard", "median"), [(8, None), (9, 300)])
def test_validators_with_half_of_the_stake_or_less_say_nothing(heard: int, median: int | None) -> None:
    chain = blank()
    beat(chain, [300] * heard, [5_000] * heard)
    assert chain.ledger.median_btc_height == median
    assert chain.ledger.fee_rate == (REGTEST.fee_default if median is None else 5_000)


def test_a_minority_of_liars_does_not_move_the_median_beyond_what_the_honest_say() -> None:
    chain = blank()
    beat(chain, [300, 301, 302, 303, 304, *[10_000_000] * 4])
    assert chain.ledger.median_btc_height == 304
    low = blank()
    beat(low, [0, 0, 0, 0, 300, 301, 302, 303, 304])
    assert low.ledger.median_btc_height == 300


def test_of_an_even_number_the_lower_middle_counts() -> None:
    chain = blank()
    beat(chain, [300] * 5 + [302] * 5)
    assert chain.ledger.median_btc_height == 300


def test_who_has_no_estimate_says_the_default() -> None:
    chain = blank()
    beat(chain, rates=[200_000] * 4 + [0] * 5)
    assert chain.ledger.fee_rate == REGTEST.fee_default


def test_the_median_estimate_is_the_price_of_the_next_blocks() -> None:
    chain = blank()
    beat(chain, rates=[3_000] * 4 + [5_000] + [90_000] * 4)
    assert chain.ledger.fee_rate == 5_000


def test_a_second_heartbeat_of_the_same_span_is_refused_and_one_of_the_next_is_taken() -> None:
    chain = blank()
    chain.add(chain.make_heartbeat(0))
    assert chain.ledger.height == EVERY + 1
    assert chain.refusal(chain.make_heartbeat(0, 301)) == "HEARTBEAT_KNOWN"
    chain.skip(EVERY - 2)
    assert chain.refusal(chain.make_heartbeat(0, 302)) == "HEARTBEAT_KNOWN"
    chain.add()
    chain.add(chain.make_heartbeat(0, 303))


def test_a_heartbeat_is_fresh_for_as_long_as_an_endorsement_and_never_from_the_future() -> None:
    chain = blank()
    chain.skip(40)
    height = chain.ledger.height + 1
    assert chain.refusal(chain.make_heartbeat(0, kaon_height=height)) == "STALE_HEARTBEAT"
    assert chain.refusal(chain.make_heartbeat(0, kaon_height=height - 21)) == "STALE_HEARTBEAT"
    chain.add(chain.make_heartbeat(0, kaon_height=height - 20))


@pytest.mark.parametrize(
    ("rate", "is_taken"), [(0, True), (1, False), (1_999, False), (2_000, True), (300_000, True), (300_001, False)]
)
def test_an_estimate_is_none_or_within_floor_and_cap(rate: int, is_taken: bool) -> None:
    chain = blank()
    record = chain.make_heartbeat(0, fee_rate=rate)
    if is_taken:
        chain.add(record)
    else:
        assert chain.refusal(record) == "WRONG_ESTIMATE"


def test_only_a_registered_validator_sends_one_and_signs_it_himself() -> None:
    chain = blank()
    record = chain.make_heartbeat(0)
    stranger = make_secret("stranger")
    foreign = replace(record, identity=IdentityKey(compute_xonly_key(stranger)))
    assert chain.refusal(replace(foreign, signature=sign(stranger, foreign.digest))) == "NOT_A_VALIDATOR"
    assert chain.refusal(replace(record, signature=sign(stranger, record.digest))) == "BAD_SIGNATURE"
    assert chain.refusal(replace(record, btc_height=BtcHeight(record.btc_height + 1))) == "BAD_SIGNATURE"
    assert chain.refusal(replace(record, btc_height=BtcHeight(500_000_000))) == "INVALID_ARGUMENT"


def test_who_falls_silent_does_not_count_any_more() -> None:
    chain = blank()
    beat(chain, [300] * 9)
    chain.skip(REGTEST.silence_blocks - 1)
    assert chain.ledger.median_btc_height == 300
    chain.add()
    assert chain.ledger.median_btc_height is None


def test_ids_of_heartbeats_are_forgotten_and_those_of_payments_are_not() -> None:
    chain = blank()
    record = chain.make_heartbeat(0)
    chain.add(record)
    kept = set(chain.ledger.records) - {record.record_id}
    chain.skip(REGTEST.silence_blocks - 1)
    assert chain.ledger.find_record(record.record_id) == EVERY + 1
    chain.add()
    assert chain.ledger.find_record(record.record_id) is None
    assert set(chain.ledger.records) == kept


def test_a_chain_without_checkpoints_takes_no_heartbeats() -> None:
    plain, turning = LedgerChain(), blank()
    assert plain.refusal(turning.make_heartbeat(0)) == "NO_CHECKPOINTS"


# ------------------------------------------------------------------ what is priced


def test_terms_of_the_price_before_are_taken_for_a_while_and_then_no_more() -> None:
    chain = TurningChain.started()
    old = chain.make_terms(1)
    late = chain.make_terms(2)
    chain.pulse(fee_rate=5_000)
    assert chain.ledger.fee_rate == 5_000
    chain.add(chain.make_invoices(old))
    chain.skip(REGTEST.endorsement_blocks)
    assert chain.refusal(chain.make_invoices(late, request_id=b"late")) == "WRONG_TERMS"
    chain.add(chain.make_invoices(chain.make_terms(2), request_id=b"now"))


def test_a_burn_pays_the_lowest_price_of_late() -> None:
    chain = TurningChain.started()
    chain.fund_active("alice", 1_000_000, 1)
    cheap = compute_fee_out(REGTEST, Sats(100_000), FeeRate(10_000))
    chain.pulse(fee_rate=20_000)
    assert chain.refusal(chain.make_burn("alice", 100_000, fee=cheap - 1)) == "FEE_TOO_LOW"
    chain.add(chain.make_burn("alice", 100_000, fee=cheap))
    chain.skip(REGTEST.endorsement_blocks)
    assert chain.refusal(chain.make_burn("alice", 100_000, fee=cheap)) == "FEE_TOO_LOW"
    dear = compute_fee_out(REGTEST, Sats(100_000), FeeRate(20_000))
    chain.add(chain.make_burn("alice", 100_000, fee=dear))
    assert chain.ledger.get_account(make_account("alice")[1]).nonce == 2


def test_a_started_chain_knows_bitcoins_height() -> None:
    assert TurningChain.started().ledger.median_btc_height == BTC_START
