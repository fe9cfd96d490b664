"""The signing log: on disk before a share leaves; one answer per session; no second, conflicting signature."""

from __future__ import annotations

import hashlib
import itertools
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smpc.errors import CheckFailed, ConfigError, Conflict, NotFound, Refused, Unavailable
from smpc.host.sqlite import open_database
from smpc.participant import review_log
from smpc.participant.log_mark import LogMark
from smpc.participant.review_log import MAX_EVIDENCE_PER_SESSION, StoredReview
from smpc.participant.signing_claims import MessageClaim, SpendClaim
from smpc.participant.signing_log import Asked, SigningLog
from smpc.participant.signing_tables import SCHEMA
from smpc.protocol.review import Finding, Stage
from smpc.types import (
    BurnId,
    EpochNumber,
    GroupId,
    IdentityKey,
    IntentId,
    KaonHeight,
    Network,
    Outpoint,
    Purpose,
    Role,
    SessionId,
    Txid,
)

ME = IdentityKey(b"\x01" * 32)
GROUP = GroupId(EpochNumber(3), Role.VALIDATOR)
X, Y, Z = (Outpoint(Txid(bytes([number]) * 32), 0) for number in (0xA1, 0xA2, 0xA3))
P, Q = (BurnId(bytes([number]) * 32) for number in (0xB1, 0xB2))


def intent(number: int) -> IntentId:
    return IntentId(bytes([number]) * 32)


def session(number: int) -> SessionId:
    return SessionId(number.to_bytes(32, "big"))


def asked(number: int, request: bytes = b"request") -> Asked:
    return Asked(session(number), GROUP, hashlib.sha256(request).digest(), request, KaonHeight(50))


def claim(
    number: int, *outpoints: Outpoint, burns: tuple[BurnId, ...] = (), purpose: Purpose = Purpose.PAYOUT
) -> SpendClaim:
    txid = Txid(hashlib.sha256(b"tx%d" % number).digest())
    return SpendClaim(intent(number), txid, purpose, frozenset(outpoints), frozenset(burns))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


@pytest.fixture
def log(path: Path) -> Iterator[SigningLog]:
    log = SigningLog.create(path, network=Network.REGTEST, identity=ME)
    yield log
    log.close()


def reopen(path: Path) -> SigningLog:
    return SigningLog.open(path, network=Network.REGTEST, identity=ME)


def test_a_repeated_request_gets_the_identical_answer_from_one_row(log: SigningLog) -> None:
    assert log.find_answer(asked(1)) is None
    assert log.record_share(asked(1), b"share", claim(1, X)) == b"share"
    for _ in range(100):
        assert log.find_answer(asked(1)) == b"share"
    assert log.record_share(asked(1), b"a share made anew", claim(1, X)) == b"share"
    assert log.count_sessions() == 1


def test_another_request_in_a_session_is_refused_and_kept_as_evidence(log: SigningLog) -> None:
    log.record_share(asked(1, b"first"), b"share", claim(1, X))
    with pytest.raises(Refused) as refused:
        log.find_answer(asked(1, b"second"))
    assert (refused.value.code, refused.value.rule) == ("NONCE_SPENT", "V09")
    with pytest.raises(Refused):
        log.record_share(asked(1, b"third"), b"other share", claim(1, X))
    assert [evidence.request for evidence in log.find_evidence(session(1))] == [b"second", b"third"]
    assert log.find_answer(asked(1, b"first")) == b"share"


def test_evidence_is_bounded_and_the_same_request_counts_once(log: SigningLog) -> None:
    log.record_share(asked(1), b"share", claim(1, X))
    for number in [0, 0, *range(20)]:
        with pytest.raises(Refused):
            log.find_answer(asked(1, b"other %d" % number))
    assert len(log.find_evidence(session(1))) == MAX_EVIDENCE_PER_SESSION


def test_an_answer_outlives_the_process(path: Path, log: SigningLog) -> None:
    log.record_share(asked(1), b"share", claim(1, X))
    log.close()
    again = reopen(path)
    assert again.find_answer(asked(1)) == b"share"
    assert again.find_conflicts(claim(2, X)) != ()
    again.close()


def test_another_attempt_at_the_same_transaction_is_no_conflict(log: SigningLog) -> None:
    log.record_share(asked(1), b"first", claim(1, X, Y, burns=(P,)))
    assert log.record_share(asked(2), b"second", claim(1, X, Y, burns=(P,))) == b"second"


def test_a_second_intent_for_an_outpoint_is_refused(log: SigningLog) -> None:
    log.record_share(asked(1), b"first", claim(1, X))
    with pytest.raises(Refused) as refused:
        log.record_share(asked(2), b"second", claim(2, X, Y))
    assert (refused.value.code, refused.value.rule) == ("CONFLICTING_SPEND", "V07")
    assert log.find_answer(asked(2)) is None
    assert log.find_conflicts(claim(3, Y)) == ()  # nothing of a refused claim was written


def test_a_burn_is_not_paid_twice_from_other_inputs(log: SigningLog) -> None:
    log.record_share(asked(1), b"first", claim(1, X, burns=(P,)))
    with pytest.raises(Refused) as refused:
        log.record_share(asked(2), b"second", claim(2, Y, burns=(P, Q)))
    assert (refused.value.code, refused.value.rule) == ("DOUBLE_PAY", "V20")


def test_a_replacement_may_take_what_it_replaces(log: SigningLog) -> None:
    log.record_share(asked(1), b"first", claim(1, X, burns=(P,)))
    log.record_share(asked(2), b"second", claim(2, X, Y, burns=(P,)), replaces=frozenset({intent(1)}))
    assert [conflict.intent for conflict in log.find_conflicts(claim(3, X), replaces=frozenset({intent(1)}))] == [
        intent(2)
    ]
    assert log.find_conflicts(claim(3, X), replaces=frozenset({intent(1), intent(2)})) == ()
    assert [conflict.intent for conflict in log.find_conflicts(claim(1, X, burns=(P,)))] == [intent(2), intent(2)]


def test_what_a_dead_intent_took_is_free_again(log: SigningLog) -> None:
    log.record_share(asked(1), b"first", claim(1, X, Y, burns=(P,)))
    log.record_share(asked(2), b"second", claim(2, Y, burns=(P,)), freed=frozenset({intent(1)}))
    assert log.find_conflicts(claim(3, Z, burns=(P,)), freed=frozenset({intent(1)})) != ()


def test_one_intent_has_one_transaction_whatever_is_freed(log: SigningLog) -> None:
    log.record_share(asked(1), b"first", claim(1, X))
    other = SpendClaim(intent(1), Txid(b"\xee" * 32), Purpose.PAYOUT, frozenset({X}))
    with pytest.raises(Refused):
        log.record_share(asked(2), b"second", other, freed=frozenset({intent(1)}), replaces=frozenset({intent(1)}))


@pytest.mark.parametrize(
    ("first", "second", "allowed"),
    [
        (Purpose.TRANSFER, Purpose.PAYOUT, False),
        (Purpose.TRANSFER, Purpose.SWEEP, False),
        (Purpose.TRANSFER, Purpose.REJECTION, True),
        (Purpose.TRANSFER, Purpose.RECOVERY, True),
        (Purpose.REJECTION, Purpose.TRANSFER, False),
        (Purpose.RECOVERY, Purpose.PAYOUT, False),
        (Purpose.RECOVERY, Purpose.RECOVERY, False),
        (Purpose.ARMING, Purpose.TRANSFER, True),
        (Purpose.ARMING, Purpose.ARMING, True),
        (Purpose.REJECTION, Purpose.REJECTION, True),
    ],
)
def test_which_leaf_forbids_which(log: SigningLog, first: Purpose, second: Purpose, allowed: bool) -> None:
    log.record_share(asked(1), b"first", claim(1, X, purpose=first))
    assert (log.find_conflicts(claim(2, X, purpose=second)) == ()) is allowed


@pytest.mark.parametrize("first", [Purpose.REJECTION, Purpose.RECOVERY])
def test_after_a_rejection_or_recovery_no_transfer_is_signed_even_if_freed(log: SigningLog, first: Purpose) -> None:
    log.record_share(asked(1), b"first", claim(1, X, purpose=first))
    with pytest.raises(Refused):
        log.record_share(asked(2), b"second", claim(2, X), freed=frozenset({intent(1)}))


def rejection(number: int, digest: int) -> MessageClaim:
    return MessageClaim(Purpose.REJECTION, bytes([number]) * 32, bytes([digest]) * 32)


def test_a_rejection_is_written_with_its_rungs_and_what_it_takes(log: SigningLog) -> None:
    log.record_share(asked(1), b"transfer", claim(1, X))
    spends = (claim(2, X, purpose=Purpose.REJECTION), claim(3, X, purpose=Purpose.REJECTION))
    claims = (rejection(1, 1), rejection(2, 2))
    assert log.record_rejection(asked(2), b"shares", bytes(32), claims, spends) == b"shares"
    assert log.record_rejection(asked(2), b"others", bytes(32), claims, spends) == b"shares"
    assert log.find_message(Purpose.REJECTION, GROUP, bytes([2]) * 32) == bytes([2]) * 32
    assert log.record_rejection(asked(3), b"again", bytes(32), claims, spends) == b"again"
    with pytest.raises(Refused) as refused:
        log.record_share(asked(4), b"more", claim(1, X))
    assert refused.value.rule == "V07"
    log.record_share(asked(5), b"elsewhere", claim(1, Y))


def test_a_rung_is_rejected_to_one_target_with_one_digest_and_a_refusal_writes_nothing(log: SigningLog) -> None:
    spends = (claim(2, X, purpose=Purpose.REJECTION),)
    log.record_rejection(asked(1), b"first", bytes(32), (rejection(1, 1),), spends)
    other = (claim(3, Y, purpose=Purpose.REJECTION),)
    with pytest.raises(Refused) as refused:
        log.record_rejection(asked(2), b"second", bytes(32), (rejection(2, 2), rejection(1, 3)), other)
    assert (refused.value.code, refused.value.rule) == ("RUNG_SIGNED", "V64")
    assert log.find_answer(asked(2)) is None
    assert log.find_message(Purpose.REJECTION, GROUP, bytes([2]) * 32) is None
    assert log.find_conflicts(claim(4, Y)) == ()


def test_recorded_intents_are_merged_as_if_signed(log: SigningLog) -> None:
    log.record_share(asked(1), b"own", claim(1, X))
    claims = [claim(1, X), claim(2, Y, burns=(P,)), claim(3, Z)]
    assert log.merge_recorded_intents(claims, height=KaonHeight(60)) == 3
    assert log.merge_recorded_intents(claims, height=KaonHeight(61)) == 0
    with pytest.raises(Refused):
        log.record_share(asked(2), b"other", claim(4, Y))
    assert log.record_share(asked(3), b"it", claim(2, Y, burns=(P,))) == b"it"
    assert [log.has_released(intent(number)) for number in (1, 2, 3)] == [True, True, False]


def test_merging_does_not_forget_an_own_share(log: SigningLog) -> None:
    log.record_share(asked(1), b"own", claim(1, X))
    log.merge_recorded_intents([claim(1, X)], height=KaonHeight(60))
    assert log.has_released(intent(1))


def test_a_subject_has_one_digest_per_group(log: SigningLog) -> None:
    booking = MessageClaim(Purpose.BOOKING, b"\x05" * 32, b"\x06" * 32)
    log.record_message(asked(1), b"first", booking)
    assert log.record_message(asked(2), b"again", booking) == b"again"
    with pytest.raises(Refused) as refused:
        log.record_message(asked(3), b"other", MessageClaim(Purpose.BOOKING, b"\x05" * 32, b"\x07" * 32))
    assert (refused.value.code, refused.value.rule) == ("MESSAGE_CONFLICT", "V07")
    assert log.find_answer(asked(3)) is None
    assert log.find_message(Purpose.BOOKING, GROUP, b"\x05" * 32) == b"\x06" * 32
    assert log.find_message(Purpose.BOOKING, GroupId(EpochNumber(4), Role.VALIDATOR), b"\x05" * 32) is None


def test_an_intent_with_a_share_out_is_not_withdrawn(log: SigningLog) -> None:
    log.record_share(asked(1), b"share", claim(1, X))
    with pytest.raises(Refused) as refused:
        log.record_message(asked(2), b"w", MessageClaim(Purpose.WITHDRAWAL, intent(1), b"\x06" * 32))
    assert (refused.value.code, refused.value.rule) == ("SHARE_RELEASED", "V73")


def test_no_share_follows_a_signed_withdrawal(log: SigningLog) -> None:
    log.record_message(asked(1), b"w", MessageClaim(Purpose.WITHDRAWAL, intent(1), b"\x06" * 32))
    with pytest.raises(Refused) as refused:
        log.record_share(asked(2), b"share", claim(1, X))
    assert refused.value.rule == "V73"


def test_refusals_are_kept_with_every_finding(log: SigningLog) -> None:
    findings = (Finding("V10", ok=True), Finding("V15", ok=False, reason="CHANGE_SCRIPT", detail="output 1"))
    review = StoredReview(session(1), intent(1), Stage.SIGN, Purpose.PAYOUT, findings, KaonHeight(9))
    log.record_review(review)
    assert log.find_reviews(session(1)) == (review,)
    assert log.find_reviews(intent(1)) == (review,)
    assert log.find_reviews(intent(2)) == ()


def store_review(log: SigningLog, number: int, *, refuses: bool) -> None:
    findings = (Finding("V10", ok=True), Finding("V15", ok=not refuses))
    log.record_review(
        StoredReview(session(number), intent(1), Stage.SIGN, Purpose.PAYOUT, findings, KaonHeight(number))
    )


def test_refusals_are_counted_among_the_kept_reviews_and_again_at_the_next_start(
    path: Path, log: SigningLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review_log, "MAX_REVIEWS", 3)
    for number, (refuses, count) in enumerate([(True, 1), (False, 1), (True, 2), (False, 1), (True, 2), (True, 2)]):
        store_review(log, number, refuses=refuses)
        assert log.count_refusals() == count
    log.close()
    reopened = reopen(path)
    assert reopened.count_refusals() == 2
    store_review(reopened, 7, refuses=False)
    assert reopened.count_refusals() == 2
    reopened.close()


def test_a_review_that_does_not_reach_the_disk_is_not_counted(path: Path, log: SigningLog) -> None:
    log.close()
    connection = open_database(path, SCHEMA)
    reopened = SigningLog(connection, LogMark(connection, path))
    connection.execute("PRAGMA query_only=ON")
    with pytest.raises(Unavailable):
        store_review(reopened, 1, refuses=True)
    assert reopened.count_refusals() == 0
    reopened.close()


def test_who_asks_for_the_number_of_refusals_reads_nothing(path: Path, log: SigningLog) -> None:
    store_review(log, 1, refuses=True)
    log.close()
    connection = open_database(path, SCHEMA)
    reopened, statements = SigningLog(connection, LogMark(connection, path)), list[str]()
    connection.set_trace_callback(statements.append)
    assert (reopened.count_refusals(), statements) == (1, [])
    reopened.close()


def test_sessions_are_counted(path: Path, log: SigningLog) -> None:
    assert log.count_sessions() == 0
    for number in (5, 3, 4):
        log.record_share(asked(number), b"share", claim(number))
    with pytest.raises(Refused):
        log.record_share(asked(4, b"other"), b"share", claim(4))
    assert log.count_sessions() == 3
    log.close()
    reopened = reopen(path)
    assert reopened.count_sessions() == 3
    reopened.close()


def test_of_many_reviews_of_one_subject_and_session_the_newest_are_found(log: SigningLog) -> None:
    for number in range(10):
        store_review(log, number % 2, refuses=False)
    assert [int(review.session[-1]) for review in log.find_reviews(intent(1), 3)] == [1, 0, 1]
    assert len(log.find_reviews(session(1), 4)) == 4
    assert len(log.find_reviews(session(1), 9)) == 5


def test_is_bound_to_its_network_and_participant(path: Path, log: SigningLog) -> None:
    log.close()
    with pytest.raises(ConfigError, match="another participant"):
        SigningLog.open(path, network=Network.MAINNET, identity=ME)
    with pytest.raises(ConfigError, match="another participant"):
        SigningLog.open(path, network=Network.REGTEST, identity=IdentityKey(b"\x02" * 32))
    reopen(path).close()


def test_refuses_to_start_without_its_file(path: Path) -> None:
    with pytest.raises(NotFound) as refused:
        reopen(path)
    assert "merges the recorded intents" in refused.value.remedy


def test_refuses_a_log_in_which_one_stored_byte_changed(path: Path, log: SigningLog) -> None:
    share = hashlib.sha256(b"share").digest()
    log.record_share(asked(1), share, claim(1, X))
    log.close()
    content = path.read_bytes()
    assert content.count(share) == 1
    path.write_bytes(content.replace(share, share[:-1] + bytes([share[-1] ^ 1])))
    with pytest.raises(CheckFailed, match="a row of sessions changed") as refused:
        reopen(path)
    assert refused.value.remedy


def test_two_processes_cannot_share_a_log(path: Path, log: SigningLog) -> None:
    log.record_share(asked(1), b"share", claim(1, X))
    script = f"from tests.unit.test_participant_signing_log import *; reopen(Path({str(path)!r}))"
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "Conflict" in other.stderr


def test_creating_does_not_replace_a_log(path: Path, log: SigningLog) -> None:
    with pytest.raises(Conflict):
        SigningLog.create(path, network=Network.REGTEST, identity=ME)
    assert log.count_sessions() == 0


def test_of_many_threads_with_different_requests_one_is_answered(log: SigningLog) -> None:
    start, answers = threading.Barrier(8), []

    def sign(number: int) -> None:
        start.wait()
        try:
            answers.append(log.record_share(asked(1, b"request %d" % number), b"share %d" % number, claim(1, X)))
        except Refused:
            return

    threads = [threading.Thread(target=sign, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tries=st.lists(
        st.tuples(st.integers(1, 5), st.sets(st.sampled_from((X, Y, Z)), min_size=1), st.sets(st.sampled_from((P, Q)))),
        max_size=12,
    )
)
def test_two_signed_transactions_never_meet_without_a_reason(
    tmp_path_factory: pytest.TempPathFactory, tries: list[tuple[int, set[Outpoint], set[BurnId]]]
) -> None:
    log = SigningLog.create(tmp_path_factory.mktemp("log") / "log.sqlite", network=Network.REGTEST, identity=ME)
    signed: dict[IntentId, SpendClaim] = {}
    for number, (each, outpoints, burns) in enumerate(tries):
        wanted = claim(each, *outpoints, burns=tuple(burns))
        try:
            log.record_share(asked(number), b"share", wanted)
        except Refused:
            continue
        earlier = [other for known, other in signed.items() if known != wanted.intent]
        assert not any(other.outpoints & wanted.outpoints or other.burns & wanted.burns for other in earlier)
        known = signed.get(wanted.intent, wanted)
        signed[wanted.intent] = claim(each, *(known.outpoints | outpoints), burns=tuple(known.burns | burns))
    log.close()


def answer_forever(path: Path, seed: int) -> None:
    """Sign random requests of random sessions, printing each answer only when the log gave it back."""
    log, chance = reopen(path), random.Random(seed)
    say("ready")
    for number in itertools.count():
        which = chance.randrange(3)
        outpoint = Outpoint(Txid(number.to_bytes(32, "big")), 0)
        response = f"{number}:{which}:{chance.random()}".encode()
        answer = log.record_share(asked(number, b"%d" % which), response, claim(which, outpoint))
        say(f"{number} {which} {answer.decode()}")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@pytest.mark.parametrize("seed", range(6))
def test_a_killed_process_never_gives_a_second_answer(path: Path, log: SigningLog, seed: int) -> None:
    log.close()
    script = f"from tests.unit.test_participant_signing_log import *; answer_forever(Path({str(path)!r}), {seed})"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    lines = [process.stdout.readline() for _ in range(random.Random(seed).randrange(1, 60))]
    process.send_signal(signal.SIGKILL)
    lines += process.communicate()[0].splitlines(keepends=True)
    again = reopen(path)
    complete = [line for line in lines if line.endswith("\n")]
    for line in complete:
        number, which, answer = line.split()
        assert again.find_answer(asked(int(number), which.encode())) == answer.encode()
        with pytest.raises(Refused):
            again.find_answer(asked(int(number), b"another"))
    assert again.count_sessions() - len(complete) in {0, 1}  # the last may be on disk without having been sent
    again.close()
