"""Stories about validators that lead sessions: bounded in number and in nonces, each at its own expense."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from slashing.rejection import build_rejections
from smpc.curve import SecretKey, compute_xonly_key
from smpc.errors import Unavailable
from smpc.participant import signer
from smpc.participant.guest_sessions import MAX_NONCES, MAX_OPEN, MAX_REQUESTS, WINDOW_BLOCKS, GuestSessions
from smpc.participant.mailroom import Letter
from smpc.participant.nonce_vault import NonceVault
from smpc.participant.signer import OpenSession
from smpc.protocol.pod_messages import (
    AbortRequest,
    CommitRequest,
    Envelope,
    Refusal,
    RejectionSubject,
    SignRequest,
)
from smpc.protocol.verdict_records import compute_rejection_subject
from smpc.threshold.frost import SecretNonce
from smpc.types import Attempt, IdentityKey, KaonHeight, Purpose, Role, SessionId
from tests.support.armed_world import ArmedWorld
from tests.support.groups import EPOCH
from tests.support.pod_world import PodWorld
from tests.support.turning_chain import list_secrets

ALICE, BOB, CAROL = (IdentityKey(bytes([number]) * 32) for number in (1, 2, 3))


def session(number: int) -> SessionId:
    return SessionId(number.to_bytes(32, "big"))


def test_a_validator_asks_so_often_in_a_window_and_not_once_more() -> None:
    guests = GuestSessions()
    for _ in range(MAX_REQUESTS):
        guests.count_request(ALICE, KaonHeight(10))
    with pytest.raises(Unavailable):
        guests.count_request(ALICE, KaonHeight(10 + WINDOW_BLOCKS))
    guests.count_request(BOB, KaonHeight(10))
    guests.count_request(ALICE, KaonHeight(11 + WINDOW_BLOCKS))


def test_one_session_too_many_ends_the_validators_own_oldest() -> None:
    guests = GuestSessions()
    guests.admit(BOB, session(100), 1)
    for number in range(MAX_OPEN):
        assert guests.admit(ALICE, session(number), 1) == ()
    assert guests.admit(ALICE, session(MAX_OPEN), 1) == (session(0),)
    guests.forget(session(1))
    assert guests.admit(ALICE, session(MAX_OPEN + 1), 1) == ()


def test_each_kind_of_request_has_a_window_of_its_own() -> None:
    guests = GuestSessions()
    for kind in ("Commit", "Sign", "Abort"):
        for _ in range(MAX_REQUESTS):
            guests.count_request(ALICE, KaonHeight(10), kind)
        with pytest.raises(Unavailable):
            guests.count_request(ALICE, KaonHeight(10), kind)


def ask(guests: GuestSessions, leader: IdentityKey, number: int, count: int, height: int = 10) -> tuple[int, ...]:
    """Ask for a session as a pod counts it; the numbers of those that end for it."""
    guests.count_request(leader, KaonHeight(height))
    return tuple(int.from_bytes(each, "big") for each in guests.admit(leader, session(number), count))


def test_the_limit_itself_is_allowed_and_one_more_makes_the_oldest_of_equals_end() -> None:
    guests = GuestSessions()
    assert ask(guests, ALICE, 0, 4_000) == ()
    assert ask(guests, BOB, 1, MAX_NONCES - 4_000) == ()
    assert ask(guests, CAROL, 2, 1) == (0,)


def test_whoever_wants_more_gives_up_its_own_first() -> None:
    guests = GuestSessions()
    ask(guests, ALICE, 0, 4_000)
    ask(guests, BOB, 1, 3_000)
    ask(guests, BOB, 2, 3_000)
    assert ask(guests, BOB, 3, 1) == (1,)
    # Nobody but those that asked more often, or as often, makes room for the rest.
    with pytest.raises(Unavailable):
        ask(guests, BOB, 4, MAX_NONCES - 3_999)
    assert ask(guests, BOB, 5, MAX_NONCES - 4_000) == (2, 3)


def test_who_asked_more_often_ends_first_and_is_told_to_wait_when_the_others_asked_less() -> None:
    guests = GuestSessions()
    ask(guests, ALICE, 0, 4_000)
    ask(guests, BOB, 1, 1)
    ask(guests, BOB, 2, MAX_NONCES - 4_001)
    assert ask(guests, CAROL, 3, 2) == (1, 2), "he asked twice, and what he holds matters nothing"
    with pytest.raises(Unavailable):
        ask(guests, BOB, 4, MAX_NONCES - 4_001)
    assert ask(guests, ALICE, 5, MAX_NONCES - 2) == (0,), "nothing ended for who was refused"


def test_what_was_asked_before_the_window_counts_no_more() -> None:
    for blocks, is_admitted in ((WINDOW_BLOCKS, False), (WINDOW_BLOCKS + 1, True)):
        guests = GuestSessions()
        guests.count_request(BOB, KaonHeight(10))
        ask(guests, ALICE, 0, MAX_NONCES, 10 + blocks)
        if is_admitted:
            assert ask(guests, BOB, 1, 1, 10 + blocks) == (0,)
        else:
            with pytest.raises(Unavailable):
                ask(guests, BOB, 1, 1, 10 + blocks)


FULL_BATCH = 1_524
"""Nonces of a rejection of 508 outputs."""


@pytest.mark.parametrize("sizes", [(350, 350, 350, 350), (FULL_BATCH,), (3,) * 4, (FULL_BATCH, 3, 3, 3)])
def test_hostile_leaders_that_asked_before_end_no_fresh_session_of_a_full_batch(sizes: tuple[int, ...]) -> None:
    guests, honest = GuestSessions(), IdentityKey(b"\xaa" * 32)
    hostile = [IdentityKey(bytes([200, number]) * 16) for number in range(34)]
    numbers = iter(range(1, 10_000))
    for leader in hostile:
        for size in sizes:
            with contextlib.suppress(Unavailable):
                ask(guests, leader, next(numbers), size)
    assert 0 not in ask(guests, honest, 0, FULL_BATCH), "and it is let in, however full the pod is"
    for leader in hostile * 4:
        with contextlib.suppress(Unavailable):
            assert 0 not in ask(guests, leader, next(numbers), FULL_BATCH)


def test_to_end_a_fresh_full_batch_takes_six_leaders_that_never_asked() -> None:
    guests, honest = GuestSessions(), IdentityKey(b"\xaa" * 32)
    ask(guests, honest, 0, FULL_BATCH)
    fresh = [IdentityKey(bytes([200, number]) * 16) for number in range(6)]
    ended = [ask(guests, leader, number, FULL_BATCH) for number, leader in enumerate(fresh, 1)]
    assert ended == [(), (), (), (), (), (0,)]


async def test_a_validator_that_asks_for_shares_or_ends_sessions_too_often_has_to_wait(tmp_path: Path) -> None:
    world = ArmedWorld.released(500_000)
    pods = PodWorld(world, tmp_path, roles=(Role.WITNESS,))
    pod = pods.pods[Role.WITNESS, 0]
    stakes = world.ledger.stakes
    secret = next(item for item in list_secrets() if IdentityKey(compute_xonly_key(item)) in stakes)
    header = replace(
        pods.header(Role.WITNESS, Purpose.REJECTION, bytes(32)), leader=IdentityKey(compute_xonly_key(secret))
    )
    sign = pods.letter("Sign", SignRequest(header, (0, 1, 2), b""), secret)
    abort = pods.letter("Abort", AbortRequest(header, "over"), secret)
    for _ in range(MAX_REQUESTS):
        assert isinstance(await pod.signer.sign(sign), Refusal)
        assert isinstance(await pod.signer.abort(abort), Envelope)
    with pytest.raises(Unavailable):
        await pod.signer.sign(sign)
    with pytest.raises(Unavailable):
        await pod.signer.abort(abort)
    by_coordinator = replace(header, leader=IdentityKey(compute_xonly_key(pods.coordinator)))
    for _ in range(MAX_REQUESTS + 1):
        assert isinstance(await pod.signer.abort(pods.letter("Abort", AbortRequest(by_coordinator, "over"))), Envelope)


async def test_a_twin_of_a_request_gets_its_answer_and_a_session_that_is_over_ends_no_other(tmp_path: Path) -> None:
    world = ArmedWorld.released(500_000)
    pods = PodWorld(world, tmp_path, roles=(Role.WITNESS,))
    pod = pods.pods[Role.WITNESS, 0]
    stakes = world.ledger.stakes
    secret = next(item for item in list_secrets() if IdentityKey(compute_xonly_key(item)) in stakes)
    (built,) = build_rejections(world.ledger, EPOCH)
    header = replace(
        pods.header(Role.WITNESS, Purpose.REJECTION, compute_rejection_subject(built.arming)),
        leader=IdentityKey(compute_xonly_key(secret)),
    )

    def letter(attempt: int) -> Letter[CommitRequest]:
        request = CommitRequest(replace(header, attempt=Attempt(attempt)), RejectionSubject(built.arming))
        return pods.letter("Commit", request, secret)

    first, twin = await asyncio.gather(pod.signer.commit(letter(0), 10.0), pod.signer.commit(letter(0), 10.0))
    assert isinstance(first, Envelope)
    assert first == twin
    over = pods.letter("Abort", AbortRequest(replace(header, attempt=Attempt(0)), "over"), secret)
    assert isinstance(await pod.signer.abort(over), Envelope)
    for attempt in range(1, MAX_OPEN + 1):
        assert isinstance(await pod.signer.commit(letter(attempt), 10.0), Envelope)
    refused = await pod.signer.commit(letter(0), 10.0)
    assert isinstance(refused, Refusal)
    assert (refused.rule, refused.reason) == ("V09", "SESSION_SEEN")
    assert pod.signer.open_sessions == MAX_OPEN


async def test_a_pod_stays_open_to_coordinators_whatever_a_validator_asks(tmp_path: Path) -> None:
    world = ArmedWorld.released(500_000)
    pods = PodWorld(world, tmp_path, roles=(Role.WITNESS,))
    pod = pods.pods[Role.WITNESS, 0]
    stakes = world.ledger.stakes
    secret = next(item for item in list_secrets() if IdentityKey(compute_xonly_key(item)) in stakes)
    (built,) = build_rejections(world.ledger, EPOCH)
    header = pods.header(Role.WITNESS, Purpose.REJECTION, compute_rejection_subject(built.arming))
    led = replace(header, leader=IdentityKey(compute_xonly_key(secret)))

    async def commit(attempt: int) -> Envelope | Refusal:
        request = CommitRequest(replace(led, attempt=Attempt(attempt)), RejectionSubject(built.arming))
        return await pod.signer.commit(pods.letter("Commit", request, secret), 10.0)

    for attempt in range(MAX_REQUESTS):
        assert isinstance(await commit(attempt), Envelope)
        assert pod.signer.open_sessions <= MAX_OPEN
    # The identical request costs nothing; another one has to wait.
    assert isinstance(await commit(MAX_REQUESTS - 1), Envelope)
    with pytest.raises(Unavailable):
        await commit(MAX_REQUESTS)
    assert not built.find_bad_signatures(await pods.reject(built))


async def test_a_pod_stays_open_to_validators_whatever_coordinators_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = ArmedWorld.released(500_000)
    (built,) = build_rejections(world.ledger, EPOCH)
    count = len(built.list_tasks())
    monkeypatch.setattr(signer, "NonceVault", partial(NonceVault[SecretNonce, OpenSession], 2 * count))
    monkeypatch.setattr(signer, "MAX_NONCES", count)
    pods = PodWorld(world, tmp_path, roles=(Role.WITNESS,))
    pod = pods.pods[Role.WITNESS, 0]
    stakes = world.ledger.stakes
    validator = next(item for item in list_secrets() if IdentityKey(compute_xonly_key(item)) in stakes)
    header = pods.header(Role.WITNESS, Purpose.REJECTION, compute_rejection_subject(built.arming))

    async def commit(secret: SecretKey, attempt: int) -> Envelope | Refusal:
        led = replace(header, leader=IdentityKey(compute_xonly_key(secret)), attempt=Attempt(attempt))
        request = CommitRequest(led, RejectionSubject(built.arming))
        return await pod.signer.commit(pods.letter("Commit", request, secret), 10.0)

    assert isinstance(await commit(pods.coordinator, 0), Envelope)
    with pytest.raises(Unavailable) as full:
        await commit(pods.coordinator, 1)
    assert full.value.code == "VAULT_FULL"
    assert isinstance(await commit(validator, 0), Envelope)
    assert pod.signer.open_sessions == 2
