"""Stories about validators that lead sessions: bounded in number and in nonces, each at its own expense."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from slashing.rejection import build_rejections
from smpc.curve import compute_xonly_key
from smpc.errors import Unavailable
from smpc.participant.guest_sessions import MAX_NONCES, MAX_OPEN, MAX_REQUESTS, WINDOW_BLOCKS, GuestSessions
from smpc.protocol.pod_messages import CommitRequest, Envelope, Refusal, RejectionSubject
from smpc.protocol.verdict_records import compute_rejection_subject
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


def test_who_holds_most_makes_room_and_the_limit_itself_is_allowed() -> None:
    guests = GuestSessions()
    guests.admit(ALICE, session(0), 1_000)
    guests.admit(ALICE, session(1), MAX_NONCES - 3_000)
    guests.admit(BOB, session(2), 1_000)
    assert guests.admit(CAROL, session(3), 1_000) == ()
    assert guests.admit(CAROL, session(4), 1) == (session(0),)
    # Her own first: with the new one it is she who holds most.
    assert guests.admit(CAROL, session(5), MAX_NONCES) == (session(3), session(4), session(1), session(2))


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
