"""One live intent per outpoint and per burn; a second only as a replacement that never pays twice [R2, R3]."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smpc.params import REGTEST
from smpc.protocol.intents import Intent
from smpc.protocol.ledger_events import IntentMoved
from smpc.protocol.ledger_state import IntentStatus
from smpc.types import BurnId, IntentId, Outpoint, Sats
from tests.support.chain import LedgerChain, with_own_txid
from tests.support.groups import endorse


def with_two_outputs() -> tuple[LedgerChain, list[Outpoint], list[BurnId]]:
    chain = LedgerChain.activated()
    chain.add(chain.make_invoices(chain.make_terms(1)))
    chain.book(chain.record(chain.make_transfer([(1, 2_000_000)], outputs=2)))
    burns = [chain.burn("alice", 100_000 + number) for number in range(3)]
    return chain, sorted(chain.ledger.vault), burns


def refusal(chain: LedgerChain, intent: Intent) -> str:
    return chain.refusal(endorse(chain.epoch, intent, chain.ledger.height))


def status(chain: LedgerChain, intent_id: IntentId) -> IntentStatus:
    return chain.ledger.intents[intent_id].status


def test_refuses_a_second_intent_for_an_outpoint_that_does_not_name_the_first() -> None:
    chain, (first, _), (a, b, _) = with_two_outputs()
    chain.record(chain.make_payout([first], [a]))
    assert refusal(chain, chain.make_payout([first], [b], fee=3_000)) == "OUTPOINT_BUSY"


def test_refuses_to_pay_a_burn_from_disjoint_inputs() -> None:
    chain, (first, second), (a, _, _) = with_two_outputs()
    standing = chain.record(chain.make_payout([first], [a]))
    assert refusal(chain, chain.make_payout([second], [a], fee=3_000)) == "DOUBLE_PAY"
    assert refusal(chain, chain.make_payout([second], [a], fee=3_000, replaces=(standing,))) == "DOUBLE_PAY"


def test_refuses_to_pay_a_burn_again_from_the_same_input_without_naming_the_first() -> None:
    chain, (first, _), (a, _, _) = with_two_outputs()
    chain.record(chain.make_payout([first], [a]))
    assert refusal(chain, chain.make_payout([first], [a], fee=3_000)) == "DOUBLE_PAY"


def test_a_replacement_shares_an_input_carries_every_payment_and_pays_more() -> None:
    chain, (first, second), (a, b, _) = with_two_outputs()
    older = chain.record(chain.make_payout([first], [a]))
    newer = chain.record(chain.make_payout([first, second], [a, b], fee=2_001, replaces=(older,)))
    assert status(chain, older) is IntentStatus.REPLACED
    assert chain.ledger.intents[older].replaced_by == newer
    assert status(chain, newer) is IntentStatus.LIVE
    standing = [entry.intent.intent_id for entry in chain.ledger.find_standing([first], [])]
    assert standing == [older, newer]


def test_refuses_a_replacement_that_drops_a_payment() -> None:
    chain, (first, _), (a, b, _) = with_two_outputs()
    older = chain.record(chain.make_payout([first], [a, b]))
    assert refusal(chain, chain.make_payout([first], [a], fee=3_000, replaces=(older,))) == "DOUBLE_PAY"


@pytest.mark.parametrize(("fee", "is_taken"), [(2_000, False), (2_001, True)])
def test_a_replacement_pays_a_strictly_higher_fee(fee: int, is_taken: bool) -> None:
    chain, (first, _), (a, b, _) = with_two_outputs()
    older = chain.record(chain.make_payout([first], [a], fee=2_000))
    newer = chain.make_payout([first], [a, b], fee=fee, replaces=(older,))
    if is_taken:
        chain.record(newer)
    else:
        assert refusal(chain, newer) == "FEE_NOT_HIGHER"


def test_refuses_the_same_transaction_as_its_own_replacement() -> None:
    chain, (first, _), (a, _, _) = with_two_outputs()
    intent = chain.make_payout([first], [a])
    older = chain.record(intent)
    again = replace(chain.make_payout([first], [a], fee=2_500, replaces=(older,)), txid=intent.txid)
    assert refusal(chain, again) == "TRANSACTION_RECORDED"


def test_a_bump_of_a_bump_names_both_versions() -> None:
    chain, (first, _), (a, _, _) = with_two_outputs()
    one = chain.record(chain.make_payout([first], [a], fee=2_000))
    two = chain.record(chain.make_payout([first], [a], fee=3_000, replaces=(one,)))
    assert refusal(chain, chain.make_payout([first], [a], fee=4_000, replaces=(two,))) == "DOUBLE_PAY"
    three = chain.record(chain.make_payout([first], [a], fee=4_000, replaces=(one, two)))
    assert [status(chain, key) for key in (one, two, three)] == ["replaced", "replaced", "live"]


def test_refuses_to_name_what_does_not_stand_in_the_way() -> None:
    chain, (first, second), (a, b, _) = with_two_outputs()
    unrelated = chain.record(chain.make_payout([second], [b]))
    assert refusal(chain, chain.make_payout([first], [a], replaces=(unrelated,))) == "REPLACES_TOO_MUCH"
    assert refusal(chain, chain.make_payout([first], [a], replaces=(IntentId(bytes(32)),))) == "REPLACES_TOO_MUCH"


def test_refuses_to_name_the_same_version_twice() -> None:
    chain, (first, _), (a, _, _) = with_two_outputs()
    older = chain.record(chain.make_payout([first], [a]))
    assert refusal(chain, chain.make_payout([first], [a], fee=3_000, replaces=(older, older))) == "DUPLICATE"


@pytest.mark.parametrize("most", [2])
def test_a_payout_is_bumped_a_bounded_number_of_times(most: int) -> None:
    chain = LedgerChain.activated(replace(REGTEST, bump_max_count=most))
    chain.fund("alice", 1_000_000, 1)
    burn = chain.burn("alice", 100_000)
    (outpoint,) = chain.ledger.vault
    versions: tuple[IntentId, ...] = ()
    for bump in range(most + 1):
        versions += (chain.record(chain.make_payout([outpoint], [burn], fee=2_000 + bump, replaces=versions)),)
    assert refusal(chain, chain.make_payout([outpoint], [burn], fee=9_000, replaces=versions)) == "COUNT"


def test_a_transfer_is_replaced_like_a_payout() -> None:
    chain = LedgerChain.activated()
    chain.add(chain.make_invoices(*(chain.make_terms(index) for index in range(3))))
    older = chain.record(chain.make_transfer([(0, 100_000), (1, 100_000)]))
    assert refusal(chain, chain.make_transfer([(1, 100_000)], fee=3_000)) == "OUTPOINT_BUSY"
    newer = chain.record(chain.make_transfer([(1, 100_000), (2, 100_000)], fee=3_000, replaces=(older,)))
    # The deposit that was left behind is still held by the older version: it may yet be mined.
    assert refusal(chain, chain.make_transfer([(0, 100_000)])) == "OUTPOINT_BUSY"
    chain.book(newer)
    assert status(chain, older) is IntentStatus.DEAD
    chain.record(chain.make_transfer([(0, 100_000)]))


def test_when_the_newest_version_is_withdrawn_the_one_before_is_live_again() -> None:
    chain, (first, _), (a, _, _) = with_two_outputs()
    one = chain.record(chain.make_payout([first], [a], fee=2_000))
    two = chain.record(chain.make_payout([first], [a], fee=3_000, replaces=(one,)))
    three = chain.record(chain.make_payout([first], [a], fee=4_000, replaces=(one, two)))
    events = chain.add(chain.make_withdrawal(three))
    assert IntentMoved(two, IntentStatus.LIVE) in events
    assert [status(chain, key) for key in (one, two, three)] == ["replaced", "live", "withdrawn"]
    assert chain.ledger.intents[one].replaced_by == two


def test_two_intents_on_different_outpoints_and_burns_stand_side_by_side() -> None:
    chain, (first, second), (a, b, _) = with_two_outputs()
    chain.record(chain.make_payout([first], [a]))
    chain.record(chain.make_payout([second], [b]))
    assert len(chain.ledger.find_standing([first, second], [a, b])) == 2


def test_both_intents_in_one_block_obey_the_rule_too() -> None:
    chain, (first, second), (a, _, _) = with_two_outputs()
    records = [endorse(chain.epoch, chain.make_payout([item], [a]), chain.ledger.height) for item in (first, second)]
    assert chain.refusal(*records) == "DOUBLE_PAY"


def test_a_withdrawn_intent_is_recorded_again_only_as_another_one() -> None:
    chain, (first, _), (a, _, _) = with_two_outputs()
    intent = chain.make_payout([first], [a])
    chain.add(chain.make_withdrawal(chain.record(intent)))
    assert refusal(chain, intent) == "ALREADY_RECORDED"
    chain.record(with_own_txid(replace(chain.make_payout([first], [a], fee=intent.fee + 1), fee=Sats(intent.fee + 1))))
