"""No relay convicts an honest member, however it mixes, replays, forges or reorders what was signed (section 4)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smpc.errors import InvalidInput, Refused
from smpc.protocol.evidence import (
    Evidence,
    InvalidNonce,
    InvalidShare,
    Membership,
    ShareAnswer,
    SignedTask,
    TwoAnswers,
    parse_bundle,
)
from smpc.protocol.evidence_proof import prove_evidence, prove_offence
from smpc.protocol.offences import Offence
from smpc.protocol.pod_messages import Envelope, SessionHeader
from smpc.types import Role
from tests.support.evidence_world import EvidenceWorld, report

SIGNERS: Final = (0, 1, 2)
MIXES = settings(max_examples=400, deadline=None)


@dataclass(frozen=True, slots=True)
class Pool:
    """Everything that honest members and the relay signed, and what the relay may put beside it."""

    members: tuple[Membership, ...]
    headers: tuple[SessionHeader, ...]
    requests: tuple[Envelope, ...]
    commitments: tuple[Envelope, ...]
    answers: tuple[Envelope, ...]
    tasks: tuple[tuple[SignedTask, ...], ...]
    honest: tuple[ShareAnswer, ...]
    true: Evidence


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return asyncio.run(_fill(EvidenceWorld(tmp_path_factory.mktemp("pods"))))


async def _fill(world: EvidenceWorld) -> Pool:
    """Run sessions of two transfers, several attempts, other signers; ask one member another thing than the rest."""
    runs = [
        await world.run(world.first, 1, SIGNERS),
        await world.run(world.first, 2, (1, 2, 3)),
        await world.run(world.second, 1, (0, 1, 2, 3)),
        await _split(world, 5),
    ]
    honest = [part for run in runs for part in run.values()]
    headers = [world.header(world.first, 1), world.header(world.first, 2), world.header(world.second, 1)]
    lies = [
        world.seal_request(world.round_two(header, [each.commitment for each in run.values()][:3]))
        for header in headers
        for run in runs[:2]
    ]
    witness = world.epoch.groups[Role.WITNESS]
    foreign = replace(world.member(1), recovery_data=witness.info.recovery_data)
    first, second = world.tasks(world.first), world.tasks(world.second)
    return Pool(
        members=(*(world.member(at) for at in range(4)), foreign, world.member(1, witness)),
        headers=tuple(headers),
        requests=(*dict.fromkeys(each.request for each in honest), *lies),
        commitments=tuple(each.commitment for each in honest),
        answers=tuple(each.answer for each in honest),
        tasks=(first, first[::-1], first[:1], second, (*first, *second), ()),
        honest=tuple(honest),
        true=world.wrong_share(1, runs[0][1]),
    )


async def _split(world: EvidenceWorld, attempt: int) -> dict[int, ShareAnswer]:
    """Ask two members of one session for shares of two different sums: a relay that signs both."""
    header, subject = world.header(world.first, attempt), world.pods.subject(world.first)
    sealed = [await world.commit(at, subject, header) for at in range(4)]
    tasks, parts = world.tasks(world.first), {}
    for at, chosen in ((0, (0, 1, 2)), (1, (0, 1, 3)), (2, (0, 1, 2, 3))):
        request = world.round_two(header, [sealed[each] for each in chosen])
        parts[at] = ShareAnswer(world.seal_request(request), sealed[at], await world.share(at, request), tasks)
    return parts


def draw_part(pool: Pool, data: st.DataObject) -> ShareAnswer:
    """Return one member's part of a session with up to four pieces exchanged."""
    part = data.draw(st.sampled_from(pool.honest))
    for piece in data.draw(st.lists(st.sampled_from(("request", "commitment", "answer", "tasks")), max_size=4)):
        match piece:
            case "request":
                part = replace(part, request=data.draw(st.sampled_from(pool.requests)))
            case "commitment":
                part = replace(part, commitment=data.draw(st.sampled_from(pool.commitments)))
            case "answer":
                part = replace(part, answer=data.draw(st.sampled_from(pool.answers)))
            case _:
                part = replace(part, tasks=data.draw(st.sampled_from(pool.tasks)))
    return part


def draw_evidence(pool: Pool, data: st.DataObject) -> Evidence:
    """Return an accusation made of honest messages and the relay's lies."""
    member = data.draw(st.sampled_from(pool.members))
    match data.draw(st.sampled_from((Offence.INVALID_SHARE, Offence.TWO_ANSWERS, Offence.INVALID_NONCE))):
        case Offence.INVALID_SHARE:
            return InvalidShare(member, draw_part(pool, data))
        case Offence.TWO_ANSWERS:
            return TwoAnswers(member, draw_part(pool, data), draw_part(pool, data))
        case _:
            header = data.draw(st.sampled_from(pool.headers))
            return InvalidNonce(member, header, data.draw(st.sampled_from(pool.commitments)))


@given(data=st.data())
@MIXES
def test_no_mix_of_honest_messages_convicts_anybody(pool: Pool, data: st.DataObject) -> None:
    with pytest.raises(Refused):
        pytest.fail(str(prove_evidence(draw_evidence(pool, data))))


def test_no_pair_of_a_request_and_an_answer_convicts_anybody(pool: Pool) -> None:
    """Every request, lies included, beside every answer with its own nonces, and every two answers, of every member."""
    count = 0
    for evidence in _list_pairs(pool):
        with pytest.raises(Refused):
            pytest.fail(str(prove_evidence(evidence)))
        count += 1
    assert count > 500


def _list_pairs(pool: Pool) -> Iterator[Evidence]:
    for member in pool.members:
        for part in pool.honest:
            for request in pool.requests:
                yield InvalidShare(member, replace(part, request=request))
            for other in pool.honest:
                yield TwoAnswers(member, part, other)


@given(data=st.data())
@MIXES
def test_no_changed_byte_of_a_file_leaves_a_verdict(pool: Pool, data: st.DataObject) -> None:
    """And whatever is read or judged ends with our own errors only."""
    content = bytearray(report(pool.true).serialise())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
    if bytes(content) == report(pool.true).serialise():
        return
    with pytest.raises((Refused, InvalidInput)):
        pytest.fail(str(prove_offence(parse_bundle(bytes(content)))))


def test_the_pool_would_convict_a_liar(pool: Pool) -> None:
    assert prove_evidence(pool.true).offence is Offence.INVALID_SHARE
