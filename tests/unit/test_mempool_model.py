"""What may be asked of the store: names, sizes and steps at their bounds."""

from __future__ import annotations

import pytest

from coordinator.mempool.model import (
    ABSENT,
    MAX_BODY_BYTES,
    MAX_EFFECTS,
    MAX_WRITES,
    EffectRequest,
    FencingToken,
    RecordKey,
    RecordWrite,
    StoreEvent,
    StoreTransition,
    Version,
)
from smpc.errors import InvalidInput

KEY = RecordKey("deposit", "a:0")
EVENT = StoreEvent("DepositSeen")


def step_with(effects: int = 0, also: int = 0, request: str = "r1") -> StoreTransition:
    requested = tuple(EffectRequest(f"e{number}", "broadcast") for number in range(effects))
    more = tuple(RecordWrite(RecordKey("deposit", f"x:{number}"), ABSENT, b"", EVENT) for number in range(also))
    return StoreTransition(request, KEY, ABSENT, b"", EVENT, requested, fencing_token=FencingToken(1), also=more)


@pytest.mark.parametrize("kind", ["d", "pegout", "key_share-2", "a" * 32])
def test_takes_a_kind(kind: str) -> None:
    assert str(RecordKey(kind, "1")) == f"{kind}/1"


@pytest.mark.parametrize("kind", ["", "Deposit", "1st", "a" * 33, "a b", "a/b", "a\n"])
def test_refuses_what_is_no_kind(kind: str) -> None:
    with pytest.raises(InvalidInput, match="record kind"):
        RecordKey(kind, "1")


@pytest.mark.parametrize("name", ["1", "a" * 200, f"{'ab' * 32}:4294967295", "3/validator", "x@y#z_.-"])
def test_takes_an_id(name: str) -> None:
    assert RecordKey("deposit", name).id == name


@pytest.mark.parametrize("name", ["", "a" * 201, "a b", "a{b}", "a*", "ä", "a\n", "a\x00"])
def test_refuses_what_is_no_id(name: str) -> None:
    with pytest.raises(InvalidInput, match="record id"):
        RecordKey("deposit", name)


@pytest.mark.parametrize("name", ["", "1st", "two words", "a" * 65])
def test_refuses_what_is_no_event(name: str) -> None:
    with pytest.raises(InvalidInput, match="event name"):
        StoreEvent(name)


def test_takes_bodies_up_to_the_limit() -> None:
    body = bytes(MAX_BODY_BYTES)
    assert StoreEvent("DepositSeen", body).body == EffectRequest("e1", "broadcast", body).body
    assert RecordWrite(KEY, ABSENT, body, EVENT).body == body


def test_refuses_bodies_above_the_limit() -> None:
    body = bytes(MAX_BODY_BYTES + 1)
    with pytest.raises(InvalidInput, match="event body"):
        StoreEvent("DepositSeen", body)
    with pytest.raises(InvalidInput, match="effect body"):
        EffectRequest("e1", "broadcast", body)
    with pytest.raises(InvalidInput, match="deposit/a:0 body"):
        RecordWrite(KEY, ABSENT, body, EVENT)


def test_refuses_a_negative_version() -> None:
    with pytest.raises(InvalidInput, match="version"):
        RecordWrite(KEY, Version(-1), b"", EVENT)


def test_takes_steps_up_to_the_limits() -> None:
    step = step_with(effects=MAX_EFFECTS, also=MAX_WRITES - 1)
    assert (len(step.effects), len(step.writes)) == (MAX_EFFECTS, MAX_WRITES)


@pytest.mark.parametrize(("effects", "also"), [(MAX_EFFECTS + 1, 0), (0, MAX_WRITES)])
def test_refuses_steps_above_the_limits(effects: int, also: int) -> None:
    with pytest.raises(InvalidInput, match="at most"):
        step_with(effects, also)


def test_refuses_a_step_that_writes_a_record_twice() -> None:
    with pytest.raises(InvalidInput, match="each record once"):
        StoreTransition(
            "r1",
            KEY,
            ABSENT,
            b"",
            EVENT,
            fencing_token=FencingToken(1),
            also=(RecordWrite(KEY, ABSENT, b"", EVENT),),
        )


@pytest.mark.parametrize("request_id", ["", "a" * 201, "a b"])
def test_refuses_what_is_no_request_id(request_id: str) -> None:
    with pytest.raises(InvalidInput, match="request id"):
        step_with(request=request_id)
