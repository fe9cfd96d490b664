"""FROST signing: whole batches, every parity, wrong shares and who sent them, and nonces that sign once."""

from __future__ import annotations

import copy
import itertools
import pickle
from dataclasses import replace

import pytest

from smpc.curve import INFINITY_BYTES, ORDER, Point, encode_scalar, multiply_generator, verify_schnorr
from smpc.errors import Conflict, InvalidInput, MemberFault
from smpc.threshold.child_keys import derive_child_xonly
from smpc.threshold.frost import (
    AggregateNonce,
    SecretNonce,
    SigningContext,
    SigningTask,
    TweakContext,
    aggregate_commitments,
    aggregate_nonces,
    aggregate_shares,
    aggregate_signatures,
    compress_nonce,
    generate_nonce,
    open_session,
    parse_aggregates,
    sign_message,
    sign_messages,
    verify_share,
)
from smpc.threshold.lagrange import compute_point_at_zero
from smpc.types import ChildIndex, PlainKey
from tests.unit.threshold_groups import deal_group, deal_group_with_parity, flip_share, secret, seed

GROUP = deal_group(3, 5)
KEY = GROUP.key.threshold_pubkey


def _task(label: object, index: int | None = None) -> SigningTask:
    context = TweakContext.from_group_key(KEY) if index is None else TweakContext.from_child(KEY, ChildIndex(index))
    return SigningTask(seed("message", label), context)


@pytest.mark.parametrize("signers", [*itertools.combinations(range(5), 3), (0, 1, 2, 3), (0, 1, 2, 3, 4)])
def test_any_threshold_of_members_signs(signers: tuple[int, ...]) -> None:
    outcome = GROUP.sign(signers, [_task("plain")])
    assert outcome.is_complete
    assert verify_schnorr(KEY[1:], seed("message", "plain"), outcome.signatures[0] or b"")


def test_a_batch_signs_every_message_under_its_own_child_key() -> None:
    tasks = [_task(index, index) for index in (0, 1, 0x10000000, 0x20000003)]
    outcome = GROUP.sign((4, 0, 2), tasks)
    assert outcome.culprits == ()
    for task, signature, index in zip(tasks, outcome.signatures, (0, 1, 0x10000000, 0x20000003), strict=True):
        assert verify_schnorr(derive_child_xonly(KEY, ChildIndex(index)), task.message, signature or b"")


@pytest.mark.parametrize("group_even", [True, False])
@pytest.mark.parametrize("is_xonly", [True, False])
def test_every_combination_of_parities_signs(group_even: bool, is_xonly: bool) -> None:
    # Case B18: group key, tweaked key and nonce point, each with even and odd y.
    group = deal_group_with_parity(2, 3, even=group_even)
    seen = set()
    for number in range(40):
        start = TweakContext.from_group_key(group.key.threshold_pubkey)
        task = SigningTask(seed("m", number), start.apply(seed("tweak", number), is_xonly=is_xonly))
        context = SigningContext.build(group.key, (0, 2))
        secrets, publics = group.commit((0, 2), 1, number)
        aggregates = aggregate_commitments(publics, 1)
        session = open_session(context, task, aggregates[0])
        answers = {s: sign_messages(context, group.shares[s], secrets[s], aggregates, [task]) for s in (0, 2)}
        signature = aggregate_shares(session, answers)
        assert signature is not None
        assert verify_schnorr(task.key.xonly_key, task.message, signature)
        assert all(verify_share(session, s, publics[s], answers[s]) for s in (0, 2))
        seen.add((task.key.has_even_y, session.nonce_sign))
    assert len(seen) == 4


@pytest.mark.parametrize("kinds", list(itertools.product([True, False], repeat=3)))
def test_chains_of_plain_and_xonly_tweaks_sign(kinds: tuple[bool, ...]) -> None:
    key = TweakContext.from_group_key(KEY)
    for number, is_xonly in enumerate(kinds):
        key = key.apply(seed("chain", number, kinds), is_xonly=is_xonly)
    assert GROUP.sign((1, 2, 3), [SigningTask(seed("m"), key)]).is_complete


def test_messages_of_any_length_sign() -> None:
    tasks = [SigningTask(message, TweakContext.from_group_key(KEY)) for message in (b"", b"a", bytes(1000))]
    assert GROUP.sign((0, 1, 2), tasks).is_complete


def test_one_of_one_signs() -> None:
    group = deal_group(1, 1)
    task = SigningTask(seed("m"), TweakContext.from_group_key(group.key.threshold_pubkey))
    assert group.sign((0,), [task]).is_complete


def test_a_share_belongs_to_one_group_and_one_position() -> None:
    other = deal_group(3, 5, "other")
    assert all(GROUP.key.is_share(share) for share in GROUP.shares)
    assert not GROUP.key.is_share(other.shares[0])
    assert not GROUP.key.is_share(replace(GROUP.shares[0], position=1))
    assert not GROUP.key.is_share(replace(GROUP.shares[0], position=5))


def test_public_shares_interpolate_to_the_group_key() -> None:
    points = [GROUP.key.public_points[position] for position in (0, 3, 4)]
    assert compute_point_at_zero((0, 3, 4), points).to_bytes() == KEY
    assert [share.public_share for share in GROUP.shares] == list(GROUP.key.public_shares)


@pytest.mark.parametrize(
    "signers", [(0, 1), (0, 1, 1), (0, 1, 5), (-1, 0, 1), (0, 1, 2, 3, 4, 5), ()], ids=lambda s: f"signers{s}"
)
def test_refuses_a_signer_set_that_cannot_sign(signers: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput):
        SigningContext.build(GROUP.key, signers)


def test_group_of_128_is_accepted_and_of_129_refused() -> None:
    SigningContext.build(deal_group(2, 128).key, (0, 127))
    with pytest.raises(InvalidInput, match="128"):
        SigningContext.build(deal_group(2, 129).key, (0, 128))


class TestWrongShares:
    """Round 2 with one dishonest member: the outcome names him and nobody else."""

    signers = (0, 2, 3)

    def _round(self, count: int = 3) -> tuple[SigningContext, list[SigningTask], dict[int, bytes], dict[int, bytes]]:
        tasks = [_task(("w", number), number) for number in range(count)]
        context = SigningContext.build(GROUP.key, self.signers)
        secrets, publics = GROUP.commit(self.signers, count, "wrong")
        aggregates = aggregate_commitments(publics, count)
        answers = {s: sign_messages(context, GROUP.shares[s], secrets[s], aggregates, tasks) for s in self.signers}
        return context, tasks, publics, answers

    @pytest.mark.parametrize("member", [0, 2, 3])
    def test_share_plus_one_names_its_author_and_keeps_the_other_messages(self, member: int) -> None:
        context, tasks, publics, answers = self._round()
        z = int.from_bytes(answers[member][32:64], "big")
        answers[member] = answers[member][:32] + encode_scalar(z + 1) + answers[member][64:]
        outcome = aggregate_signatures(context, tasks, publics, aggregate_commitments(publics, 3), answers)
        assert outcome.culprits == (member,)
        assert [signature is None for signature in outcome.signatures] == [False, True, False]
        assert not outcome.is_complete

    def test_share_not_below_the_order_names_its_author(self) -> None:
        context, tasks, publics, answers = self._round()
        answers[2] = b"\xff" * 32 + answers[2][32:]
        outcome = aggregate_signatures(context, tasks, publics, aggregate_commitments(publics, 3), answers)
        assert outcome.culprits == (2,)

    def test_share_for_another_message_names_its_author(self) -> None:
        context, tasks, publics, answers = self._round()
        answers[3] = answers[3][32:64] + answers[3][:32] + answers[3][64:]
        outcome = aggregate_signatures(context, tasks, publics, aggregate_commitments(publics, 3), answers)
        assert outcome.culprits == (3,)
        assert outcome.signatures[2] is not None

    def test_two_members_wrong_in_different_messages_are_both_named(self) -> None:
        context, tasks, publics, answers = self._round()
        answers = flip_share(flip_share(answers, 0, 0), 3, 2)
        outcome = aggregate_signatures(context, tasks, publics, aggregate_commitments(publics, 3), answers)
        assert outcome.culprits == (0, 3)
        assert outcome.signatures[1] is not None

    @pytest.mark.parametrize("size", [0, 31, 95, 97, 128])
    def test_shares_of_wrong_length_name_their_author(self, size: int) -> None:
        context, tasks, publics, answers = self._round()
        answers[2] = (answers[2] * 2)[:size]
        with pytest.raises(MemberFault) as caught:
            aggregate_signatures(context, tasks, publics, aggregate_commitments(publics, 3), answers)
        assert caught.value.culprits() == (2,)
        assert caught.value.code == "INVALID_SHARE"

    def test_missing_share_is_the_callers_mistake(self) -> None:
        context, tasks, publics, answers = self._round()
        del answers[2]
        with pytest.raises(InvalidInput):
            aggregate_signatures(context, tasks, publics, aggregate_commitments(publics, 3), answers)

    def test_cancelling_errors_still_give_a_valid_signature_and_blame_nobody(self) -> None:
        context, tasks, publics, answers = self._round(1)
        for member, delta in ((0, 1), (2, -1)):
            answers[member] = encode_scalar(int.from_bytes(answers[member], "big") + delta)
        outcome = aggregate_signatures(context, tasks, publics, aggregate_commitments(publics, 1), answers)
        assert outcome.is_complete
        assert outcome.culprits == ()


class TestMalformedNonces:
    """Round 1 with one dishonest member."""

    @pytest.mark.parametrize(
        "bad",
        [
            b"",
            bytes(65),
            bytes(131),
            bytes(130),
            INFINITY_BYTES * 2,
            b"\x04" + b"\xff" * 129,
            b"\x00" * 33 + multiply_generator(5).to_bytes(),
            multiply_generator(5).to_bytes() + b"\x04" + bytes(32),
            multiply_generator(5).to_bytes_uncompressed() + b"\x06" + multiply_generator(5).to_bytes_uncompressed()[1:],
        ],
    )
    def test_malformed_nonce_names_its_author(self, bad: bytes) -> None:
        _, publics = GROUP.commit((0, 1, 3), 1)
        publics[1] = bad
        with pytest.raises(MemberFault) as caught:
            aggregate_nonces(publics)
        assert caught.value.culprits() == (1,)
        assert caught.value.code == "INVALID_NONCE"

    def test_second_of_two_nonces_malformed_names_its_author(self) -> None:
        _, publics = GROUP.commit((0, 1, 3), 2)
        publics[3] = publics[3][:195] + b"\x04" + b"\x01" * 64
        with pytest.raises(MemberFault) as caught:
            aggregate_commitments(publics, 2)
        assert caught.value.culprits() == (3,)

    def test_compressed_and_uncompressed_nonces_sum_alike(self) -> None:
        _, publics = GROUP.commit((0, 1, 3), 1)
        mixed = {**publics, 1: compress_nonce(publics[1])}
        assert aggregate_nonces(mixed) == aggregate_nonces(publics)

    def test_nonces_that_sum_to_infinity_do_not_stop_the_session(self) -> None:
        # A member who sends the negated sum of the others' nonces must be caught by his share, not crash anyone.
        context = SigningContext.build(GROUP.key, (0, 1, 2))
        secrets, publics = GROUP.commit((0, 1), 1, "inf")
        halves = [publics[s] for s in (0, 1)]
        negated = [
            -(Point.from_bytes(halves[0][i : i + 65]) + Point.from_bytes(halves[1][i : i + 65])) for i in (0, 65)
        ]
        publics[2] = b"".join(point.to_bytes_uncompressed() for point in negated)
        aggregates = aggregate_commitments(publics, 1)
        assert aggregates[0].first.is_infinity
        assert AggregateNonce.from_bytes(aggregates[0].to_bytes()) == aggregates[0]
        tasks = [_task("inf")]
        answers = {s: sign_messages(context, GROUP.shares[s], secrets[s], aggregates, tasks) for s in (0, 1)}
        outcome = aggregate_signatures(context, tasks, publics, aggregates, {**answers, 2: bytes(32)})
        assert outcome.culprits == (2,)

    def test_aggregates_of_wrong_length_are_refused(self) -> None:
        _, publics = GROUP.commit((0, 1, 3), 2)
        joined = b"".join(nonce.to_bytes() for nonce in aggregate_commitments(publics, 2))
        assert parse_aggregates(joined, 2) == aggregate_commitments(publics, 2)
        with pytest.raises(InvalidInput):
            parse_aggregates(joined[:-1], 2)
        with pytest.raises(InvalidInput):
            parse_aggregates(b"\x05" + joined[1:], 2)


class TestSecretNonce:
    """A nonce signs once, and shows itself to nobody."""

    def test_second_use_is_refused_whatever_the_message(self) -> None:
        context = SigningContext.build(GROUP.key, (0, 1, 2))
        secrets, publics = GROUP.commit((0, 1, 2), 1, "once")
        aggregates = aggregate_commitments(publics, 1)
        sign_messages(context, GROUP.shares[0], secrets[0], aggregates, [_task("one")])
        for label in ("one", "two"):
            with pytest.raises(Conflict) as caught:
                sign_messages(context, GROUP.shares[0], secrets[0], aggregates, [_task(label)])
            assert caught.value.code == "NONCE_SPENT"

    def test_signing_zeroes_the_scalars(self) -> None:
        first, second = secret(3), secret(5)
        public = multiply_generator(3).to_bytes() + multiply_generator(5).to_bytes()
        context = SigningContext.build(GROUP.key, (0, 1, 2))
        session = open_session(context, _task("z"), aggregate_nonces({0: public}))
        nonce = SecretNonce(first, second)
        sign_message(session, GROUP.shares[0], context.compute_coefficient(0), nonce)
        assert nonce.is_spent
        assert first.to_secret_bytes() == second.to_secret_bytes() == bytes(32)

    def test_refused_request_leaves_the_nonces_unspent(self) -> None:
        context = SigningContext.build(GROUP.key, (0, 1, 2))
        secrets, publics = GROUP.commit((0, 1, 2, 3), 1, "left")
        aggregates = aggregate_commitments(publics, 1)
        with pytest.raises(InvalidInput):
            sign_messages(context, GROUP.shares[0], secrets[0], aggregates, [_task(1), _task(2)])
        with pytest.raises(InvalidInput):
            sign_messages(context, GROUP.shares[3], secrets[3], aggregates, [_task(1)])
        assert not secrets[0][0].is_spent
        assert not secrets[3][0].is_spent

    def test_batch_that_fails_half_way_spends_all_its_nonces(self) -> None:
        context = SigningContext.build(GROUP.key, (0, 1, 2))
        secrets, publics = GROUP.commit((0, 1, 2), 3, "half")
        aggregates = aggregate_commitments(publics, 3)
        secrets[0][1].wipe()
        with pytest.raises(Conflict):
            sign_messages(context, GROUP.shares[0], secrets[0], aggregates, [_task(i) for i in range(3)])
        assert all(nonce.is_spent for nonce in secrets[0])

    def test_wiped_nonce_does_not_sign(self) -> None:
        nonce, _ = generate_nonce(seed("wipe"))
        nonce.wipe()
        with pytest.raises(Conflict):
            nonce.take()

    def test_nonce_and_share_print_nothing_and_do_not_serialise(self) -> None:
        nonce, _ = generate_nonce(seed("print"), share=GROUP.shares[0])
        assert repr(nonce) == str(nonce) == repr(GROUP.shares[0]) == "<redacted>"
        for action in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError):
                action(nonce)
            with pytest.raises(TypeError):
                action(GROUP.shares[0].secret)

    def test_every_input_of_the_nonce_changes_it(self) -> None:
        variants = [
            generate_nonce(seed("a"))[1],
            generate_nonce(seed("b"))[1],
            generate_nonce(seed("a"), share=GROUP.shares[0])[1],
            generate_nonce(seed("a"), share=GROUP.shares[1])[1],
            generate_nonce(seed("a"), group_key=KEY)[1],
            generate_nonce(seed("a"), message=b"")[1],
            generate_nonce(seed("a"), message=b"x")[1],
            generate_nonce(seed("a"), extra=b"x")[1],
        ]
        assert len(set(variants)) == len(variants)

    @pytest.mark.parametrize("randomness", [b"", bytes(31), bytes(32), bytes(33)])
    def test_bad_randomness_is_refused(self, randomness: bytes) -> None:
        with pytest.raises(InvalidInput):
            generate_nonce(randomness)


def test_tweak_boundaries() -> None:
    context = TweakContext.from_group_key(KEY)
    assert context.apply(bytes(32), is_xonly=False).plain_key == KEY
    with pytest.raises(InvalidInput):
        context.apply(ORDER.to_bytes(32, "big"), is_xonly=False)
    with pytest.raises(InvalidInput):
        context.apply(b"\x01", is_xonly=True)
    with pytest.raises(InvalidInput):
        TweakContext.from_group_key(PlainKey(INFINITY_BYTES))


def test_tweak_to_infinity_is_refused() -> None:
    generator = TweakContext.from_group_key(multiply_generator(1).to_plain_key())
    with pytest.raises(InvalidInput, match="infinity"):
        generator.apply((ORDER - 1).to_bytes(32, "big"), is_xonly=False)
