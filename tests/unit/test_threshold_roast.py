"""ROAST as stories: silent, slow and hostile members, and the table that says what may happen when."""

from __future__ import annotations

import itertools

import pytest

from smpc.errors import InvalidInput
from smpc.threshold.readiness import compute_readiness_sets
from smpc.threshold.roast import (
    TERMINAL_PHASES,
    TRANSITIONS,
    AskNonces,
    AskShares,
    CheckSession,
    Conclude,
    DeadlinePassed,
    DropSession,
    Effect,
    Event,
    MemberCaught,
    MemberLost,
    NoncesArrived,
    PatienceEnded,
    Phase,
    RoastRecord,
    SessionRefuted,
    SessionVerified,
    SharesArrived,
    start,
    step,
)


def _run(record: RoastRecord, *events: Event) -> tuple[RoastRecord, list[Effect]]:
    effects: list[Effect] = []
    for event in events:
        transition = step(record, event)
        record = transition.record
        effects.extend(transition.effects)
    return record, effects


def _begin(threshold: int = 3, size: int = 4) -> RoastRecord:
    return start(threshold, size).record


def _nonces(*members: int, attempt: int = 0) -> list[Event]:
    return [NoncesArrived(member, attempt) for member in members]


def _shares(session: int, *members: int) -> list[Event]:
    return [SharesArrived(session, member) for member in members]


def test_everyone_is_asked_for_nonces_at_once() -> None:
    assert start(3, 4).effects == tuple(AskNonces(member, 0) for member in range(4))


def test_first_threshold_responders_sign_and_two_rounds_are_enough() -> None:
    record, effects = _run(_begin(), *_nonces(3, 0, 2))
    assert effects == [AskShares(0, ((0, 0), (2, 0), (3, 0)))]
    record, effects = _run(record, *_nonces(1), *_shares(0, 0, 2, 3))
    assert effects == [CheckSession(0)]
    record, effects = _run(record, SessionVerified(0))
    assert effects == [Conclude(Phase.SIGNED)]
    assert record.phase is Phase.SIGNED
    assert record.signed_in == 0
    assert len(record.sessions) == 1


def test_late_responders_start_another_session() -> None:
    record, effects = _run(_begin(2, 5), *_nonces(0, 1, 4, 2))
    assert effects == [AskShares(0, ((0, 0), (1, 0))), AskShares(1, ((2, 0), (4, 0)))]
    assert record.phase is Phase.SIGNING


def test_wrong_share_puts_its_author_out_and_the_others_go_on() -> None:
    record, _ = _run(_begin(), *_nonces(0, 1, 2, 3), *_shares(0, 0, 1, 2))
    record, effects = _run(record, SessionRefuted(0, (1,)))
    assert effects == [AskNonces(0, 1), AskNonces(2, 1)]
    record, effects = _run(record, *_nonces(0, 2, attempt=1))
    assert effects == [AskShares(1, ((0, 1), (2, 1), (3, 0)))]
    record, _ = _run(record, *_shares(1, 0, 2, 3), SessionVerified(1))
    assert record.phase is Phase.SIGNED
    assert record.culprits == {1}


def test_silent_signer_costs_one_session_and_proves_nothing() -> None:
    record, _ = _run(_begin(), *_nonces(0, 1, 2, 3), *_shares(0, 0, 1))
    record, effects = _run(record, PatienceEnded(0))
    assert effects == [AskNonces(0, 1), AskNonces(1, 1)]
    record, effects = _run(record, *_nonces(0, 1, attempt=1))
    assert effects == [AskShares(1, ((0, 1), (1, 1), (3, 0)))]
    record, effects = _run(record, *_shares(1, 0, 1, 3), SessionVerified(1))
    assert effects == [CheckSession(1), DropSession(0), Conclude(Phase.SIGNED)]
    assert record.culprits == frozenset()


def test_stalled_session_still_completes_when_the_slow_one_answers() -> None:
    record, _ = _run(_begin(), *_nonces(0, 1, 2), *_shares(0, 0, 1), PatienceEnded(0))
    record, effects = _run(record, SharesArrived(0, 2))
    assert effects == [CheckSession(0)]
    record, _ = _run(record, SessionVerified(0))
    assert record.phase is Phase.SIGNED


def test_refusal_frees_the_others_without_waiting() -> None:
    record, _ = _run(_begin(), *_nonces(0, 1, 2, 3), *_shares(0, 0, 1))
    record, effects = _run(record, MemberLost(2, "V21"))
    assert effects == [DropSession(0), AskNonces(0, 1), AskNonces(1, 1)]
    assert record.culprits == frozenset()
    assert (2, "V21") in record.reasons


def test_answer_to_a_closed_session_frees_its_sender() -> None:
    record, _ = _run(_begin(), *_nonces(0, 1, 2), MemberLost(2, "unreachable"))
    record, effects = _run(record, SharesArrived(0, 1))
    assert effects == [AskNonces(1, 1)]


def test_malformed_nonce_names_its_author() -> None:
    record, _ = _run(_begin(), MemberCaught(2, "INVALID_NONCE"), *_nonces(0, 1, 3))
    assert record.culprits == {2}
    assert record.phase is Phase.SIGNING


def test_too_few_members_left_fails_with_culprits_and_missing() -> None:
    record, effects = _run(_begin(), MemberLost(0, "V02"), MemberCaught(1, "INVALID_NONCE"))
    assert effects == [Conclude(Phase.FAILED)]
    assert record.failure is not None
    assert record.failure.reason == "TOO_FEW_MEMBERS"
    assert record.failure.culprits == (1,)
    assert record.failure.missing == (0, 2, 3)


def test_deadline_fails_and_names_the_silent_ones_as_missing_only() -> None:
    record, effects = _run(_begin(), *_nonces(0, 1), DeadlinePassed())
    assert effects == [Conclude(Phase.FAILED)]
    assert record.failure is not None
    assert (record.failure.reason, record.failure.culprits, record.failure.missing) == ("DEADLINE", (), (2, 3))


def test_failed_check_without_a_culprit_is_our_own_fault() -> None:
    record, _ = _run(_begin(), *_nonces(0, 1, 2), *_shares(0, 0, 1, 2), SessionRefuted(0, ()))
    assert record.failure is not None
    assert record.failure.reason == "INTERNAL"
    assert record.culprits == frozenset()


def test_exactly_threshold_members_left_still_sign() -> None:
    transition = start(3, 4, without=[1])
    assert transition.effects == (AskNonces(0, 0), AskNonces(2, 0), AskNonces(3, 0))
    record, _ = _run(transition.record, *_nonces(0, 2, 3), *_shares(0, 0, 2, 3), SessionVerified(0))
    assert record.phase is Phase.SIGNED


def test_starting_with_too_few_members_fails_at_once() -> None:
    transition = start(3, 4, without=[0, 1])
    assert transition.effects == (Conclude(Phase.FAILED),)
    assert transition.record.phase is Phase.FAILED


@pytest.mark.parametrize(
    "stale",
    [
        NoncesArrived(0, 0),
        NoncesArrived(1, 7),
        NoncesArrived(9, 0),
        NoncesArrived(-1, 0),
        SharesArrived(0, 3),
        SharesArrived(5, 0),
        SessionVerified(0),
        SessionVerified(4),
        SessionRefuted(0, (0,)),
        PatienceEnded(3),
    ],
)
def test_stale_and_foreign_events_change_nothing(stale: Event) -> None:
    record, _ = _run(_begin(), *_nonces(0, 1, 2), SharesArrived(0, 0))
    transition = step(record, stale)
    assert transition.record == record
    assert transition.effects == ()


def test_repeated_share_counts_once() -> None:
    record, effects = _run(_begin(), *_nonces(0, 1, 2), *_shares(0, 0, 0, 0))
    assert CheckSession(0) not in effects
    assert record.phase is Phase.SIGNING


@pytest.mark.parametrize(("threshold", "size"), [(0, 3), (4, 3), (1, 0)])
def test_impossible_group_is_refused(threshold: int, size: int) -> None:
    with pytest.raises(InvalidInput):
        start(threshold, size)
    with pytest.raises(InvalidInput):
        compute_readiness_sets(threshold, size)


def test_table_has_no_way_out_of_a_terminal_phase_and_an_exit_for_silence_elsewhere() -> None:
    sources = {phase for phase, _ in TRANSITIONS}
    assert sources == set(Phase) - TERMINAL_PHASES
    for phase in sources:
        assert (phase, DeadlinePassed) in TRANSITIONS
    for ended in (
        _run(_begin(), DeadlinePassed())[0],
        _run(_begin(), *_nonces(0, 1, 2), *_shares(0, 0, 1, 2), SessionVerified(0))[0],
    ):
        for event in (*_nonces(3), DeadlinePassed(), MemberCaught(0, "x"), SessionVerified(0)):
            assert step(ended, event).record == ended


@pytest.mark.parametrize(("threshold", "size"), [(1, 1), (1, 3), (2, 3), (3, 4), (2, 7), (67, 100), (100, 100)])
def test_readiness_sets_exercise_every_member_and_overlap(threshold: int, size: int) -> None:
    sets = compute_readiness_sets(threshold, size)
    assert {member for chosen in sets for member in chosen} == set(range(size))
    assert all(len(set(chosen)) == threshold for chosen in sets)
    assert sets == compute_readiness_sets(threshold, size)
    if threshold > 1:
        assert all(set(a) & set(b) for a, b in itertools.pairwise(sets))


def test_readiness_of_the_devnet_group_takes_two_sets() -> None:
    assert compute_readiness_sets(3, 4) == ((0, 1, 2), (1, 2, 3))
    assert compute_readiness_sets(4, 4) == ((0, 1, 2, 3),)
