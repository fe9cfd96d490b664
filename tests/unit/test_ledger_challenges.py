"""Challenges: a registered validator, within the window, judged by the ledger's own state [R23]."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smpc.errors import Refused
from smpc.protocol.end_records import ChallengeRaised
from smpc.protocol.intents import Intent
from smpc.protocol.ledger_challenges import MAX_NOTE, compute_intent_vbytes
from smpc.protocol.ledger_events import ChallengeJudged, IntentMoved
from smpc.protocol.ledger_state import IntentStatus
from smpc.protocol.ledger_views import list_verdicts
from smpc.types import BurnId, FeeRate, IdentityKey, IntentId, Network, Outpoint, Sats, Signature
from tests.support.chain import LedgerChain, with_own_txid
from tests.support.groups import make_secret, make_xonly, sign


def with_burn() -> tuple[LedgerChain, Outpoint, BurnId]:
    chain = LedgerChain.activated()
    chain.fund("alice", 1_000_000, 1)
    burn = chain.burn("alice", 100_000)
    (outpoint,) = chain.ledger.vault
    return chain, outpoint, burn


def challenge(
    chain: LedgerChain, intent: IntentId, *, by: int = 0, rule: str = "V18", note: str = ""
) -> ChallengeRaised:
    identity, secret = list(chain.epoch.identities.items())[by]
    record = ChallengeRaised(Network.REGTEST, intent, identity, rule, note, Signature(bytes(64)))
    return replace(record, signature=sign(secret, record.digest))


def over_cap(chain: LedgerChain, outpoint: Outpoint, burn: BurnId, over: int) -> Intent:
    """Return a payout whose fee is `over` sat above 300 sat/vB of its size."""
    size = compute_intent_vbytes(chain.ledger.params, chain.make_payout([outpoint], [burn]), vault_outputs=1)
    return chain.make_payout([outpoint], [burn], fee=300 * size + over)


def test_a_challenge_of_an_honest_intent_stays_as_a_note() -> None:
    chain, outpoint, burn = with_burn()
    intent = chain.record(chain.make_payout([outpoint], [burn]))
    record = challenge(chain, intent, rule="V43", note="the burn looks odd")
    events = chain.add(record)
    assert events == (ChallengeJudged(intent, record.challenger, "V43", is_upheld=False),)
    assert chain.ledger.intents[intent].status is IntentStatus.LIVE
    assert chain.ledger.challenges[intent] == (record,)
    (verdict,) = list_verdicts(chain.ledger, intent)
    assert (verdict.note, verdict.is_upheld) == ("the burn looks odd", False)


@pytest.mark.parametrize(("over", "is_void"), [(0, False), (1, True)])
def test_a_fee_above_the_cap_makes_the_intent_void(over: int, is_void: bool) -> None:
    chain, outpoint, burn = with_burn()
    intent = chain.record(over_cap(chain, outpoint, burn, over))
    events = chain.add(challenge(chain, intent))
    entry = chain.ledger.intents[intent]
    assert entry.status is (IntentStatus.VOID if is_void else IntentStatus.LIVE)
    assert entry.challenge == ("V18" if is_void else "")
    assert (IntentMoved(intent, IntentStatus.VOID) in events) is is_void
    assert [verdict.is_upheld for verdict in list_verdicts(chain.ledger, None)] == [is_void]


def test_a_stated_rate_above_the_cap_makes_the_intent_void() -> None:
    chain, outpoint, burn = with_burn()
    intent = with_own_txid(replace(chain.make_payout([outpoint], [burn]), fee_rate=FeeRate(300_001)))
    intent_id = chain.record(intent)
    chain.add(challenge(chain, intent_id))
    assert chain.ledger.intents[intent_id].status is IntentStatus.VOID


def test_a_payout_without_change_may_leave_less_than_a_vault_output_to_the_miners() -> None:
    chain, outpoint, burn = with_burn()
    plain = chain.make_payout([outpoint], [burn])
    size = compute_intent_vbytes(chain.ledger.params, plain, vault_outputs=1)
    value = chain.ledger.vault[outpoint].value
    payout = value - 300 * size - 10_000
    chain.add(chain.make_cancel("alice", burn))
    all_of_it = chain.burn("alice", payout)
    intent = chain.record(chain.make_payout([outpoint], [all_of_it], fee=value - payout, outputs=0))
    chain.add(challenge(chain, intent))
    assert chain.ledger.intents[intent].status is IntentStatus.LIVE


@pytest.mark.parametrize(("smaller", "is_void"), [(100_000, False), (99_999, True)])
def test_two_vault_outputs_of_which_one_is_small_make_the_intent_void(smaller: int, is_void: bool) -> None:
    chain, outpoint, burn = with_burn()
    intent = chain.make_payout([outpoint], [burn], outputs=2)
    rest = sum(intent.vault_outputs) - smaller
    intent_id = chain.record(with_own_txid(replace(intent, vault_outputs=(Sats(rest), Sats(smaller)))))
    chain.add(challenge(chain, intent_id, rule="V17"))
    assert (chain.ledger.intents[intent_id].status is IntentStatus.VOID) is is_void


def test_a_void_intent_frees_what_it_held_and_is_not_booked() -> None:
    chain, outpoint, burn = with_burn()
    intent = chain.record(over_cap(chain, outpoint, burn, 1))
    booking = chain.sign_booking(chain.ledger.compute_booking(intent))
    chain.add(challenge(chain, intent))
    assert chain.refusal(booking) == "NOT_STANDING"
    with pytest.raises(Refused):
        chain.ledger.compute_booking(intent)
    chain.book(chain.record(chain.make_payout([outpoint], [burn])))


@pytest.mark.parametrize(("after", "is_taken"), [(1, True), (2, True), (3, False)])
def test_the_window_closes_two_blocks_after_the_record(after: int, is_taken: bool) -> None:
    chain, outpoint, burn = with_burn()
    intent = chain.record(chain.make_payout([outpoint], [burn]))
    chain.skip(after - 1)
    record = challenge(chain, intent)
    if is_taken:
        chain.add(record)
    else:
        assert chain.refusal(record) == "WINDOW_OVER"


def test_refuses_a_challenge_by_a_stranger_or_with_a_forged_signature() -> None:
    chain, outpoint, burn = with_burn()
    intent = chain.record(chain.make_payout([outpoint], [burn]))
    record = challenge(chain, intent)
    stranger = replace(record, challenger=IdentityKey(make_xonly("mallory")))
    stranger = replace(stranger, signature=sign(make_secret("mallory"), stranger.digest))
    assert chain.refusal(stranger) == "NOT_A_VALIDATOR"
    assert chain.refusal(replace(record, signature=Signature(bytes(64)))) == "BAD_SIGNATURE"


def test_refuses_a_challenge_of_what_does_not_stand() -> None:
    chain, outpoint, burn = with_burn()
    intent = chain.record(chain.make_payout([outpoint], [burn]))
    chain.add(chain.make_withdrawal(intent))
    assert chain.refusal(challenge(chain, intent)) == "NOT_STANDING"
    assert chain.refusal(challenge(chain, IntentId(bytes(32)))) == "UNKNOWN_INTENT"


def test_a_validator_challenges_an_intent_once_and_several_may() -> None:
    chain, outpoint, burn = with_burn()
    intent = chain.record(chain.make_payout([outpoint], [burn]))
    chain.add(challenge(chain, intent, by=0), challenge(chain, intent, by=1))
    assert chain.refusal(challenge(chain, intent, by=0, note="again")) == "CHALLENGED"


@pytest.mark.parametrize("rule", ["", "V1", "V100", "X18", "Vxx", "V1²"])
def test_refuses_a_challenge_that_names_no_rule(rule: str) -> None:
    chain, outpoint, burn = with_burn()
    intent = chain.record(chain.make_payout([outpoint], [burn]))
    assert chain.refusal(challenge(chain, intent, rule=rule)) == "INVALID_ARGUMENT"


def test_a_note_has_at_most_500_characters() -> None:
    chain, outpoint, burn = with_burn()
    intent = chain.record(chain.make_payout([outpoint], [burn]))
    assert chain.refusal(challenge(chain, intent, note="x" * (MAX_NOTE + 1))) == "INVALID_ARGUMENT"
    chain.add(challenge(chain, intent, note="x" * MAX_NOTE))
