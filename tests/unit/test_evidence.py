"""What an evidence bundle proves, to anyone, and what it never does: convict an honest member."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from smpc.errors import InvalidInput, Refused
from smpc.params import REGTEST
from smpc.protocol.codec import decode_variant, encode
from smpc.protocol.evidence import (
    MAGIC,
    MAX_BUNDLE_SIZE,
    CeremonyOffence,
    Evidence,
    InvalidNonce,
    InvalidShare,
    MemberEvidence,
    ShareAnswer,
    TwoAnswers,
    parse_bundle,
)
from smpc.protocol.evidence_anchor import Anchor, find_doubts
from smpc.protocol.evidence_proof import Conviction, prove_evidence, prove_offence
from smpc.protocol.offences import Offence
from smpc.protocol.pod_messages import Envelope, Reply, Request, SignReply, SignRequest, compute_protocol_hash
from smpc.types import IdentityKey, Purpose, Role
from tests.support.evidence_world import EvidenceWorld, read, report
from tests.support.faulty_ceremony import open_session
from tests.support.groups import make_secret

SIGNERS = (0, 1, 2)
MEMBER_OFFENCES = [offence for offence in Offence if offence is not Offence.UNAUTHORISED_SPEND]


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    world: EvidenceWorld
    honest: dict[int, ShareAnswer]
    again: dict[int, ShareAnswer]
    guilty: dict[Offence, MemberEvidence]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    world = EvidenceWorld(tmp_path_factory.mktemp("pods"))

    async def run() -> tuple[dict[int, ShareAnswer], dict[int, ShareAnswer]]:
        return await world.run(world.first, 1, SIGNERS), await world.run(world.first, 2, SIGNERS)

    honest, again = asyncio.run(run())
    header = world.header(world.first, 1)
    guilty: dict[Offence, MemberEvidence] = {
        Offence.INVALID_SHARE: world.wrong_share(1, honest[1]),
        Offence.INVALID_NONCE: world.lie_nonces(1, header, honest[1].commitment, bytes(260)),
        Offence.TWO_ANSWERS: world.two_answers(1, honest[1]),
        Offence.CEREMONY_FAULT: world.ceremony(open_session(world.epoch)),
    }
    return Sample(world, honest, again, guilty)


# ------------------------------------------------------------------------------------------ what it proves


@pytest.mark.parametrize("offence", MEMBER_OFFENCES)
def test_every_offence_is_proven_against_its_author_alone(sample: Sample, offence: Offence) -> None:
    conviction = prove_offence(report(sample.guilty[offence]))
    assert isinstance(conviction, Conviction)
    accused = 2 if offence is Offence.CEREMONY_FAULT else 1
    assert conviction.offence is offence
    assert conviction.accused == sample.world.group.info.members[accused]
    assert conviction.group == sample.world.group.info.group
    assert conviction.rule
    assert conviction.rests_on == ""


@pytest.mark.parametrize("offence", MEMBER_OFFENCES)
def test_judged_again_and_read_from_its_file_it_has_the_same_verdict_and_id(sample: Sample, offence: Offence) -> None:
    bundle = report(sample.guilty[offence])
    again = parse_bundle(bundle.serialise())
    assert again == bundle
    assert again.bundle_id == report(sample.guilty[offence], make_secret("another reporter")).bundle_id
    assert prove_offence(again) == prove_offence(bundle) == prove_offence(bundle)


@pytest.mark.parametrize("size", [63, 65, 0, 32])
def test_shares_of_a_wrong_number_are_an_invalid_share(sample: Sample, size: int) -> None:
    lie = sample.world.lie_share(1, sample.honest[1], bytes(size))
    assert prove_evidence(InvalidShare(sample.world.member(1), lie)).code == "INVALID_SHARE"


@pytest.mark.parametrize("nonces", [b"", bytes(259), bytes(261), b"\x04" + bytes(259)])
def test_nonces_that_are_none_are_invalid(sample: Sample, nonces: bytes) -> None:
    honest = sample.honest[1].commitment
    lie = sample.world.lie_nonces(1, sample.world.header(sample.world.first, 1), honest, nonces)
    assert prove_evidence(lie).offence is Offence.INVALID_NONCE


async def test_a_wrong_share_of_a_booking_is_proven_under_the_group_key_itself(tmp_path: Path) -> None:
    world = EvidenceWorld(tmp_path)
    honest = await world.run_booking(1, SIGNERS)
    assert find_refusal(InvalidShare(world.member(0), honest[0])) == "NOT_PROVEN"
    lie = world.lie_share(0, honest[0], bytes(32))
    assert prove_evidence(InvalidShare(world.member(0), lie)).offence is Offence.INVALID_SHARE


# ------------------------------------------------------------------------------------------ what it never proves


def test_an_honest_answer_is_no_offence(sample: Sample) -> None:
    for position, answer in (*sample.honest.items(), *sample.again.items()):
        assert find_refusal(InvalidShare(sample.world.member(position), answer)) == "NOT_PROVEN"


def test_an_honest_answer_beside_any_other_request_convicts_nobody(sample: Sample) -> None:
    """The relay signs whatever it likes: another sum of nonces, other signers, another session's request (J6)."""
    world, honest = sample.world, sample.honest[1]
    header = world.header(world.first, 1)
    commitments = [each.commitment for each in sample.honest.values()]
    fitting = world.round_two(header, commitments)
    swapped = fitting.aggregate_nonces[130:] + fitting.aggregate_nonces[:130]
    lies = [
        replace(fitting, aggregate_nonces=swapped),
        replace(fitting, signers=(0, 1, 3)),
        replace(fitting, signers=(0, 1, 2, 3)),
        world.round_two(header, [sample.again[0].commitment, *commitments[1:]]),
    ]
    for lie in lies:
        evidence = InvalidShare(world.member(1), replace(honest, request=world.seal_request(lie)))
        assert find_refusal(evidence) == "NOT_PROVEN"
    other = InvalidShare(world.member(1), replace(honest, request=sample.again[1].request))
    assert find_refusal(other) == "WRONG_SESSION"


def test_a_request_that_the_sessions_leader_did_not_sign_is_no_part_of_it(sample: Sample) -> None:
    guilty = sample.guilty[Offence.INVALID_SHARE]
    assert isinstance(guilty, InvalidShare)
    request = read_request(guilty.answer.request)
    stranger = sample.world.seal_request(request, make_secret("stranger"))
    assert find_refusal(replace(guilty, answer=replace(guilty.answer, request=stranger))) == "NOT_PROVEN"
    again = sample.world.seal_request(request)
    assert prove_evidence(replace(guilty, answer=replace(guilty.answer, request=again))) == prove_evidence(guilty)


def test_an_honest_answer_beside_other_digests_or_children_convicts_nobody(sample: Sample) -> None:
    first, second = sample.honest[1].tasks
    other = replace(first, message=bytes(32))
    key_itself, odd = replace(first, child=None), replace(first, child=2**31)  # type: ignore[arg-type]
    for tasks in ((second, first), (first,), (), (other, second), (key_itself, second), (odd, second)):
        evidence = InvalidShare(sample.world.member(1), replace(sample.honest[1], tasks=tasks))
        assert find_refusal(evidence) == "NOT_PROVEN"


def test_an_honest_answer_beside_another_groups_data_convicts_nobody(sample: Sample) -> None:
    """Not even where the relay has a second, certified group in which the same member sits."""
    world = sample.world
    witness = world.epoch.groups[Role.WITNESS]
    foreign = replace(world.member(1), recovery_data=witness.info.recovery_data)
    assert find_refusal(InvalidShare(foreign, sample.honest[1])) == "NOT_A_MEMBER"
    stranger = world.member(1, witness)
    assert find_refusal(InvalidShare(stranger, sample.honest[1])) == "WRONG_SESSION"
    other = replace(world.member(1), announced=world.member(2).announced)
    assert find_refusal(InvalidShare(other, sample.honest[1])) == "BAD_SIGNATURE"


def test_who_names_another_context_beside_a_wrong_share_is_not_convicted(sample: Sample) -> None:
    """It might be an honest answer to a request that the relay hides, and rather a liar goes free."""
    answer = sample.world.lie_share(1, sample.honest[1], bytes(64)).answer

    def alter(reply: Reply) -> Reply:
        assert isinstance(reply, SignReply)
        return replace(reply, answered=bytes(32))

    lie = sample.world.reseal(1, answer, "Sign/reply", alter)
    evidence = InvalidShare(sample.world.member(1), replace(sample.honest[1], answer=lie))
    assert find_refusal(evidence) == "NOT_PROVEN"


def test_one_answer_twice_or_two_attempts_are_no_equivocation(sample: Sample) -> None:
    member, first, second = sample.world.member(1), sample.honest[1], sample.again[1]
    assert find_refusal(TwoAnswers(member, first, first)) == "NOT_PROVEN"
    assert find_refusal(TwoAnswers(member, first, second)) == "NOT_PROVEN"
    mixed = replace(second, commitment=first.commitment)
    assert find_refusal(TwoAnswers(member, first, mixed)) == "WRONG_SESSION"


async def test_a_restarted_pod_commits_anew_in_a_session_and_is_no_equivocator(tmp_path: Path) -> None:
    """Which is why two commitments of one session are no evidence, and why an answer names its own."""
    world = EvidenceWorld(tmp_path)
    header, subject = world.header(world.first, 7), world.pods.subject(world.first)
    before = await world.commit(1, subject, header)
    world.pods.pods[Role.VALIDATOR, 1].log.close()
    world.pods.pods[Role.VALIDATOR, 1] = world.pods.start_pod(Role.VALIDATOR, 1)
    after = [await world.commit(at, subject, header) for at in SIGNERS]
    assert after[1].body != before.body
    request = world.round_two(header, after)
    honest = ShareAnswer(world.seal_request(request), after[1], await world.share(1, request), world.tasks(world.first))
    member = world.member(1)
    mixed = replace(honest, commitment=before)
    for evidence in (InvalidShare(member, honest), InvalidShare(member, mixed), TwoAnswers(member, honest, mixed)):
        assert find_refusal(evidence) == "NOT_PROVEN"
    assert find_refusal(InvalidNonce(member, header, before)) == "NOT_PROVEN"


async def test_an_honest_member_endorses_two_rivals_as_long_as_neither_is_recorded(tmp_path: Path) -> None:
    """Which is why two endorsements are no evidence: the ledger, not the endorsers, keeps one of them out."""
    world = EvidenceWorld(tmp_path)
    flow, pod = world.pods.world, world.pod(0)
    shared, other = flow.deposit(5, 100_000), flow.deposit(6, 60_000)
    for built in (flow.transfer(shared), flow.transfer(shared, other)):
        reply = await world.pods.endorse(pod, built)
        assert type(reply).__name__ == "EndorseReply", reply


@pytest.mark.parametrize("offence", MEMBER_OFFENCES)
def test_nothing_is_proven_with_any_single_field_changed(sample: Sample, offence: Offence) -> None:
    """Also where the reporter signs the changed evidence: it alone can never make a true accusation another."""
    true = sample.guilty[offence]
    changed = [each for each in mutate(true) if is_encodable(each[1])]
    assert len(changed) > 20
    for path, value in changed:
        with pytest.raises(Refused):
            pytest.fail(f"{path}: {prove_evidence(value)}")


@pytest.mark.parametrize("offence", MEMBER_OFFENCES)
def test_a_bundle_whose_reporter_or_evidence_was_changed_proves_nothing(sample: Sample, offence: Offence) -> None:
    bundle = report(sample.guilty[offence])
    changed = [each for each in mutate(bundle) if is_encodable(each[1])]
    for path, value in changed:
        with pytest.raises(Refused) as refused:
            prove_offence(value)
        assert refused.value.code == "BAD_SIGNATURE", path


# ------------------------------------------------------------------------------------------ the file


def test_every_file_but_exactly_its_own_bytes_is_refused(sample: Sample) -> None:
    data = report(sample.guilty[Offence.INVALID_SHARE]).serialise()
    wrong = {
        b"": "NOT_A_BUNDLE",
        MAGIC: "NOT_A_BUNDLE",
        b"X" + data[1:]: "NOT_A_BUNDLE",
        MAGIC + b"\x02" + data[8:]: "OTHER_VERSION",
        MAGIC + b"\x00" + data[8:]: "OTHER_VERSION",
        data + b"\x00": "DAMAGED",
        data[:-1]: "DAMAGED",
        data[:8]: "DAMAGED",
        data + bytes(MAX_BUNDLE_SIZE - len(data)): "DAMAGED",
        data + bytes(MAX_BUNDLE_SIZE - len(data) + 1): "TOO_LARGE",
    }
    for content, code in wrong.items():
        with pytest.raises(InvalidInput) as refused:
            parse_bundle(content)
        assert refused.value.code == code


def test_a_bundle_larger_than_any_that_is_read_is_not_written(sample: Sample) -> None:
    evidence = sample.guilty[Offence.INVALID_NONCE]
    assert isinstance(evidence, InvalidNonce)
    size = len(report(evidence).serialise())
    room = MAX_BUNDLE_SIZE - size + len(evidence.commitment.body)
    fits = replace(evidence, commitment=replace(evidence.commitment, body=bytes(room)))
    assert len(report(fits).serialise()) == MAX_BUNDLE_SIZE
    with pytest.raises(InvalidInput, match="more than"):
        report(replace(evidence, commitment=replace(evidence.commitment, body=bytes(room + 1)))).serialise()


# ------------------------------------------------------------------------------------------ what only the ledger says


def test_a_node_that_knows_the_group_verifies_and_another_says_what_it_misses(sample: Sample) -> None:
    world = sample.world
    info = world.group.info
    anchor = Anchor(
        protocol=compute_protocol_hash(REGTEST),
        coordinators=frozenset(world.epoch.genesis.coordinators),
        validators=frozenset(item.identity for item in world.epoch.genesis.validators),
        announced=frozenset(world.epoch.host_keys),
        threshold=info.threshold,
        info=info,
    )
    for evidence in sample.guilty.values():
        assert find_doubts(evidence, anchor) == ()
        for strange in (
            replace(anchor, protocol=bytes(32)),
            replace(anchor, coordinators=frozenset()),
            replace(anchor, announced=frozenset()),
        ):
            assert len(find_doubts(evidence, strange)) == 1
    share, fault = sample.guilty[Offence.INVALID_SHARE], sample.guilty[Offence.CEREMONY_FAULT]
    assert find_doubts(share, replace(anchor, info=None)) == ()
    assert find_doubts(share, replace(anchor, info=replace(info, recovery_data=b"")))
    assert find_doubts(share, replace(anchor, info=replace(info, members=info.members[::-1])))
    assert find_doubts(fault, replace(anchor, threshold=info.threshold + 1))
    assert find_doubts(fault, replace(anchor, threshold=None))


def test_a_validator_is_a_leader_of_rejections_and_of_nothing_else(sample: Sample) -> None:
    world = sample.world
    evidence = sample.guilty[Offence.INVALID_NONCE]
    assert isinstance(evidence, InvalidNonce)
    validator = world.epoch.genesis.validators[0].identity
    anchor = Anchor(
        protocol=compute_protocol_hash(REGTEST),
        coordinators=frozenset(world.epoch.genesis.coordinators),
        validators=frozenset({validator}),
        announced=frozenset(world.epoch.host_keys),
        threshold=world.group.info.threshold,
        info=world.group.info,
    )
    for purpose in Purpose:
        header = replace(evidence.header, purpose=purpose, leader=validator)
        doubts = find_doubts(replace(evidence, header=header), anchor)
        assert (doubts == ()) is (purpose is Purpose.REJECTION)
        stranger = replace(header, leader=IdentityKey(bytes(32)))
        assert find_doubts(replace(evidence, header=stranger), anchor)


def test_what_depends_on_the_threshold_says_so(sample: Sample) -> None:
    """A first message with one commitment too many is wrong for this `t`, and right for another."""
    world, session = sample.world, open_session(sample.world.epoch)
    announced = tuple(world.announced[key] for key in session.host_keys)
    fault = session.accuse_first(2, bytes)
    honest = CeremonyOffence(fault, announced, session.threshold)
    assert find_refusal(honest) == "NOT_PROVEN"
    assert prove_evidence(replace(honest, threshold=session.threshold - 1)).rests_on == "threshold"
    rubbish = CeremonyOffence(session.accuse_first(2, lambda data: data[:-1]), announced, session.threshold)
    assert prove_evidence(rubbish).rests_on == ""


# ------------------------------------------------------------------------------------------ tools


def find_refusal(evidence: Evidence) -> str:
    """Return the code by which evidence is refused."""
    with pytest.raises(Refused) as refused:
        prove_offence(report(evidence))
    return refused.value.code


def read_request(envelope: Envelope) -> SignRequest:
    """Return round two's request inside."""
    request = decode_variant(Request, envelope.body)
    assert isinstance(request, SignRequest)
    return request


def mutate(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - any protocol type
    """Yield a value with each of its leaves changed in one way or two, each with its place."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            where = f"{path}.{field.name}".lstrip(".")
            for place, changed in mutate(getattr(value, field.name), where):
                yield place, replace(value, **{field.name: changed})
    elif isinstance(value, tuple):
        for number, item in enumerate(value):
            for place, changed in mutate(item, path):
                yield place, (*value[:number], changed, *value[number + 1 :])
        if value:
            yield path, value[:-1]
    else:
        for changed in alter_leaf(value):
            yield path, changed


def alter_leaf(value: Any) -> list[Any]:  # noqa: ANN401 - any field
    """Return other values of a simple field; none for an absent one."""
    if isinstance(value, enum.Enum):
        return [next(other for other in type(value) if other is not value)]
    if isinstance(value, bytes) and value:
        return [value[:-1] + bytes([value[-1] ^ 1]), bytes([value[0] ^ 0x40]) + value[1:], value[:-1]]
    if isinstance(value, bytes):
        return [b"\x00"]
    return [] if value is None else [value + 1] if isinstance(value, int) else [value + "x"]


def is_encodable(value: Any) -> bool:  # noqa: ANN401 - any protocol type
    """Tell whether a changed value has canonical bytes at all."""
    try:
        encode(value)
    except (ValueError, TypeError):
        return False
    return True


def test_the_mutations_reach_every_kind_of_field(sample: Sample) -> None:
    bundle = report(sample.guilty[Offence.INVALID_SHARE])
    places = {path for path, _ in mutate(bundle)}
    assert {"reporter", "signature", "evidence.member.recovery_data", "evidence.answer.tasks.child"} <= places
    assert read(sample.honest[1].answer, SignReply).answered
