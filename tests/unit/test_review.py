"""The rule catalogue: every purpose has rules, a refusal names one rule, and reasons have fixed names."""

from __future__ import annotations

import pytest

from smpc.protocol.review import MATRIX, RULES, Finding, Review, Stage, Verdict, find_rules
from smpc.types import Purpose

_SIGNED = [
    Purpose.TRANSFER,
    Purpose.PAYOUT,
    Purpose.SWEEP,
    Purpose.BOOKING,
    Purpose.WITHDRAWAL,
    Purpose.ARMING,
    Purpose.REJECTION,
]


def test_endorsing_runs_every_rule_but_time_nonce_and_record() -> None:
    rules = find_rules(Stage.ENDORSE, Purpose.TRANSFER)
    assert not {"V08", "V09", "V21"} & set(rules)
    assert {"V01", "V07", "V10", "V20", "V22", "V23", "V30", "V35", "V37"} <= set(rules)
    assert not {"V40", "V43"} & set(rules)


def test_signing_repeats_what_must_hold_then_and_adds_the_record() -> None:
    rules = set(find_rules(Stage.SIGN, Purpose.TRANSFER))
    expected = {"V01", *(f"V{number:02}" for number in range(3, 18)), "V19", "V21", "V22", "V23", "V24", "V34"}
    assert rules - {"V02"} == expected | {"V36", "V54"}
    assert "V18" not in rules
    assert "V33" not in rules


def test_facts_that_move_are_judged_at_the_endorsement_only() -> None:
    for rule in ("V18", "V33", "V35"):
        assert rule in find_rules(Stage.ENDORSE, Purpose.TRANSFER)
        assert rule not in find_rules(Stage.SIGN, Purpose.TRANSFER)


def test_what_is_armed_is_judged_when_its_record_is_final_and_not_before() -> None:
    assert not any({"V36", "V54"} & set(rules) for (stage, _), rules in MATRIX.items() if stage is Stage.ENDORSE)
    for purpose in (Purpose.TRANSFER, Purpose.PAYOUT, Purpose.SWEEP):
        assert "V54" in find_rules(Stage.SIGN, purpose)
    assert "V36" in find_rules(Stage.SIGN, Purpose.TRANSFER)


def test_arming_runs_the_rules_of_the_emergency() -> None:
    rules = set(find_rules(Stage.SIGN, Purpose.ARMING))
    assert {"V60", "V62", "V64", "V65"} <= rules
    assert {"V01", "V06", "V10", "V13", "V14", "V15", "V17", "V19"} <= rules
    assert not {"V07", "V16", "V18", "V21", "V36", "V54"} & rules


def test_rejecting_runs_the_rules_of_the_release_and_asks_no_bitcoin_node_for_its_tip() -> None:
    rules = set(find_rules(Stage.SIGN, Purpose.REJECTION))
    assert {"V60", "V61", "V62", "V63", "V64", "V76"} <= rules
    assert {"V01", "V03", "V04", "V05", "V06", "V08", "V09", "V10", "V24"} <= rules
    assert not {"V02", "V07", "V14", "V18", "V21", "V65"} & rules


@pytest.mark.parametrize("purpose", _SIGNED)
def test_no_purpose_that_is_signed_is_without_rules(purpose: Purpose) -> None:
    assert len(find_rules(Stage.SIGN, purpose)) >= 7


@pytest.mark.parametrize("purpose", [Purpose.SEED])
def test_a_purpose_without_rules_is_refused_whole(purpose: Purpose) -> None:
    verdict = Review(Stage.SIGN, purpose).to_verdict()
    assert not verdict.is_accepted
    refusal = verdict.refusal()
    assert refusal is not None
    assert refusal.rule == "V06"


def test_bookings_are_never_endorsed() -> None:
    assert Review(Stage.ENDORSE, Purpose.BOOKING).to_verdict().refusal() is not None


def test_every_rule_of_the_matrix_is_in_the_catalogue_with_a_sentence_and_a_reason() -> None:
    for rules in MATRIX.values():
        for rule in rules:
            assert RULES[rule].sentence
            assert all(name.isupper() for name in RULES[rule].reasons)


def test_a_refusal_names_the_lowest_rule_other_than_v10() -> None:
    review = Review(Stage.ENDORSE, Purpose.PAYOUT)
    review.require("V43", condition=False)
    review.require("V10", condition=False)
    review.require("V15", condition=False, detail="change goes elsewhere")
    refusal = review.to_verdict().refusal()
    assert refusal is not None
    assert (refusal.rule, refusal.reason, refusal.message) == ("V15", "CHANGE_SCRIPT", "change goes elsewhere")
    assert refusal.rules == ("V10", "V15", "V43")


def test_a_refusal_names_v10_when_nothing_else_failed() -> None:
    review = Review(Stage.ENDORSE, Purpose.PAYOUT)
    review.require("V10", condition=False)
    refusal = review.to_verdict().refusal()
    assert refusal is not None
    assert (refusal.rule, refusal.reason) == ("V10", "NOT_REBUILT")
    assert refusal.message == RULES["V10"].sentence


def test_a_rule_that_does_not_hold_at_a_stage_refuses_nothing() -> None:
    review = Review(Stage.SIGN, Purpose.PAYOUT)
    review.require("V18", condition=False)
    assert review.to_verdict().is_accepted


def test_every_failed_reason_of_a_rule_is_kept_once() -> None:
    review = Review(Stage.SIGN, Purpose.PAYOUT)
    for _ in range(2):
        review.require("V14", condition=False, reason="INPUT_SPENT", detail="the same")
    review.require("V14", condition=False, reason="INPUT_MISSING", detail="another")
    assert [finding.reason for finding in review.to_verdict().failures] == ["INPUT_SPENT", "INPUT_MISSING"]


def test_a_reason_must_be_one_of_the_rules_own() -> None:
    with pytest.raises(AssertionError, match="no reason of V15"):
        Review(Stage.SIGN, Purpose.PAYOUT).require("V15", condition=False, reason="WHATEVER")


def test_an_accepted_verdict_lists_every_rule_that_holds() -> None:
    verdict = Review(Stage.SIGN, Purpose.READY).to_verdict()
    assert verdict.is_accepted
    assert verdict.refusal() is None
    assert [finding.rule for finding in verdict.findings] == list(find_rules(Stage.SIGN, Purpose.READY))


def test_a_verdict_without_findings_accepts_nothing() -> None:
    assert not Verdict(Stage.SIGN, Purpose.READY, ()).is_accepted
    assert Verdict(Stage.SIGN, Purpose.READY, (Finding("V75", ok=True),)).is_accepted
