"""What a pod tells its own operator of verdicts: each once, also what stood when it started, and nothing of others."""

from __future__ import annotations

from structlog.testing import capture_logs

from pegbridge.v1 import participant_pb2
from smpc.participant.status_client import to_plain
from smpc.participant.status_servicer import to_punishment_message
from smpc.participant.verdict_news import VerdictNews
from smpc.protocol.verdict_state import Cause
from smpc.types import EpochNumber, IdentityKey, Role
from tests.support.armed_world import ArmedWorld

ZERO = EpochNumber(0)


def tell(news: VerdictNews) -> list[tuple[str, str]]:
    """Return what is logged now, by event and level."""
    with capture_logs() as lines:
        news.tell()
    return [(line["event"], line["log_level"]) for line in lines]


def members(world: ArmedWorld, role: Role) -> tuple[IdentityKey, ...]:
    return tuple(world.ledger.epochs[ZERO].members[role])


def test_a_silent_member_is_told_of_its_jail_and_of_the_verdict_on_its_group_once() -> None:
    world = ArmedWorld.released()
    mine = VerdictNews(members(world, Role.VALIDATOR)[0], lambda: world.ledger)
    assert tell(mine) == [("validator.punished", "warning"), ("group.judged", "warning")]
    assert tell(mine) == []


def test_it_is_told_when_it_comes_and_others_are_told_nothing() -> None:
    world = ArmedWorld.filled()
    mine, others = (
        VerdictNews(members(world, role)[0], lambda: world.ledger) for role in (Role.VALIDATOR, Role.WITNESS)
    )
    assert tell(mine) == tell(others) == []
    world.release()
    assert world.ledger.judgements.verdicts[ZERO, Role.VALIDATOR].cause is Cause.CANNOT_SIGN
    assert len(tell(mine)) == 2
    assert tell(others) == []


def test_a_status_shows_every_punishment_with_its_end() -> None:
    world = ArmedWorld.released()
    (jailed,) = world.ledger.judgements.punishments[members(world, Role.VALIDATOR)[0]]
    answer = participant_pb2.StatusResponse(punishments=[to_punishment_message(jailed)])
    assert to_plain(answer)["punishments"] == [
        {
            "penalty": "jailed",
            "misdeed": str(jailed.misdeed),
            "kaon_height": jailed.recorded,
            "until_kaon_height": jailed.until,
            "detail": jailed.detail,
        }
    ]
