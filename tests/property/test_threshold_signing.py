"""Properties of threshold signing: any t of n sign, t - 1 never do, and every wrong bit has one author."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from smpc.curve import ORDER, verify_schnorr
from smpc.errors import InvalidInput
from smpc.threshold.dkg import coordinator_step1
from smpc.threshold.frost import (
    AggregateNonce,
    SigningContext,
    SigningTask,
    TweakContext,
    aggregate_commitments,
    aggregate_nonces,
    aggregate_shares,
    aggregate_signatures,
    compress_nonce,
    open_session,
    sign_messages,
)
from smpc.threshold.lagrange import compute_coefficients
from smpc.threshold.messages import CoordinatorMessage1, ParticipantMessage1, RecoveryData
from smpc.threshold.vss import SecretPolynomial
from tests.unit.threshold_ceremony import Ceremony
from tests.unit.threshold_groups import DealtGroup, deal_group, seed

SCALARS = st.integers(min_value=1, max_value=ORDER - 1)
LABELS = st.integers(min_value=0, max_value=2**32)


@st.composite
def _groups(draw: st.DrawFn, *, min_threshold: int = 1) -> tuple[DealtGroup, tuple[int, ...]]:
    """Draw a group and a set of at least `t` signers in any order."""
    size = draw(st.integers(min_value=min_threshold, max_value=7))
    threshold = draw(st.integers(min_value=min_threshold, max_value=size))
    members = draw(st.permutations(range(size)))
    count = draw(st.integers(min_value=threshold, max_value=size))
    return deal_group(threshold, size, draw(LABELS)), tuple(members[:count])


@st.composite
def _tasks(draw: st.DrawFn, group: DealtGroup) -> list[SigningTask]:
    """Draw up to three messages, each under a chain of up to three tweaks."""
    tasks = []
    for _ in range(draw(st.integers(min_value=1, max_value=3))):
        key = TweakContext.from_group_key(group.key.threshold_pubkey)
        for scalar, is_xonly in draw(st.lists(st.tuples(SCALARS, st.booleans()), max_size=3)):
            key = key.apply(scalar.to_bytes(32, "big"), is_xonly=is_xonly)
        tasks.append(SigningTask(draw(st.binary(max_size=64)), key))
    return tasks


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_threshold_of_members_signs_anything(data: st.DataObject) -> None:
    group, signers = data.draw(_groups())
    tasks = data.draw(_tasks(group))
    outcome = group.sign(signers, tasks, data.draw(LABELS))
    assert outcome.is_complete
    for task, signature in zip(tasks, outcome.signatures, strict=True):
        assert signature is not None
        assert verify_schnorr(task.key.xonly_key, task.message, signature)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_one_member_less_never_signs(data: st.DataObject) -> None:
    group, signers = data.draw(_groups(min_threshold=2))
    few = tuple(sorted(signers[: group.key.threshold - 1]))
    task = SigningTask(b"m", TweakContext.from_group_key(group.key.threshold_pubkey))
    try:
        SigningContext.build(group.key, few)
    except InvalidInput:
        pass
    else:
        raise AssertionError("a signer set below the threshold was accepted")
    # Members who leave the check out of their software do not get further.
    honest = SigningContext.build(group.key, range(group.key.size))
    context = replace(honest, signers=few)
    secrets, publics = group.commit(few, 1, "few")
    aggregates = aggregate_commitments(publics, 1)
    shares = {s: sign_messages(context, group.shares[s], secrets[s], aggregates, [task]) for s in few}
    assert aggregate_shares(open_session(context, task, aggregates[0]), shares) is None


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_flipped_bit_in_a_share_names_exactly_its_author(data: st.DataObject) -> None:
    group, signers = data.draw(_groups())
    tasks = data.draw(_tasks(group))
    context = SigningContext.build(group.key, signers)
    secrets, publics = group.commit(signers, len(tasks), "flip")
    aggregates = aggregate_commitments(publics, len(tasks))
    shares = {s: sign_messages(context, group.shares[s], secrets[s], aggregates, tasks) for s in signers}
    culprit = data.draw(st.sampled_from(signers))
    bit = data.draw(st.integers(min_value=0, max_value=256 * len(tasks) - 1))
    wrong = bytearray(shares[culprit])
    wrong[bit // 8] ^= 1 << (bit % 8)
    outcome = aggregate_signatures(context, tasks, publics, aggregates, {**shares, culprit: bytes(wrong)})
    assert outcome.culprits == (culprit,)
    assert [signature is None for signature in outcome.signatures].count(True) == 1
    assert outcome.signatures[bit // 256] is None


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_nonces_survive_the_wire_in_both_forms(data: st.DataObject) -> None:
    group, signers = data.draw(_groups())
    _, publics = group.commit(signers, 1, data.draw(LABELS))
    short = {signer: compress_nonce(public) for signer, public in publics.items()}
    aggregate = aggregate_nonces(publics)
    assert aggregate_nonces(short) == aggregate
    assert AggregateNonce.from_bytes(aggregate.to_bytes()) == aggregate
    assert AggregateNonce.from_bytes(aggregate.compressed) == aggregate


@settings(max_examples=60, deadline=None)
@given(LABELS, st.integers(min_value=1, max_value=6), st.integers(min_value=0, max_value=127))
def test_coefficients_interpolate_the_secret(label: int, threshold: int, shift: int) -> None:
    polynomial = SecretPolynomial.generate(seed("polynomial", label), threshold)
    positions = tuple((place * 3 + shift) % 128 for place in range(threshold))
    shares = [int.from_bytes(polynomial.compute_share(p).to_secret_bytes(), "big") for p in positions]
    total = sum(c * share for c, share in zip(compute_coefficients(positions), shares, strict=True))
    assert total % ORDER == int.from_bytes(polynomial.secret.to_secret_bytes(), "big")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_parsers_refuse_changed_bytes_or_give_them_back(data: st.DataObject) -> None:
    original = data.draw(st.sampled_from(_MESSAGES))
    start = data.draw(st.integers(min_value=0, max_value=len(original)))
    patch = data.draw(st.binary(max_size=40))
    removed = data.draw(st.one_of(st.just(len(patch)), st.integers(min_value=0, max_value=40)))
    changed = original[:start] + patch + original[start + removed :]
    with contextlib.suppress(InvalidInput):
        assert RecoveryData.from_bytes(changed).to_bytes() == changed
    with contextlib.suppress(InvalidInput):
        assert ParticipantMessage1.from_bytes(changed, threshold=2, size=3).to_bytes() == changed
    with contextlib.suppress(InvalidInput):
        assert CoordinatorMessage1.from_bytes(changed, threshold=2, size=3).to_bytes() == changed


def _build_messages() -> tuple[bytes, ...]:
    ceremony = Ceremony(2, 3)
    answer = coordinator_step1(ceremony.messages, ceremony.params)[1]
    return ceremony.messages[0], answer, ceremony.finish()[0].recovery_data


_MESSAGES = _build_messages()
