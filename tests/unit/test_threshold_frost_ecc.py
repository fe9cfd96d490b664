"""Mixed groups: signers of the independent `ecc` package and ours sign together, and each checks the other."""

from __future__ import annotations

import itertools

import pytest
from ecc.ecc import frost as theirs

from smpc.curve import encode_scalar, verify_schnorr
from smpc.threshold.frost import (
    AggregateNonce,
    SigningContext,
    SigningTask,
    TweakContext,
    aggregate_nonces,
    aggregate_shares,
    compress_nonce,
    generate_nonce,
    open_session,
    sign_message,
    verify_share,
)
from tests.unit.threshold_groups import DealtGroup, deal_group, deal_group_with_parity, seed

Tweaks = tuple[tuple[bytes, bool], ...]

GROUPS = {True: deal_group_with_parity(3, 5, even=True), False: deal_group_with_parity(3, 5, even=False)}
SIGNERS = (0, 2, 4)
NO_TWEAK: Tweaks = ()
CHILD: Tweaks = ((seed("child"), False),)
TAPROOT: Tweaks = ((seed("taproot"), True),)
LONG: Tweaks = ((seed("a"), False), (seed("b"), True), (seed("c"), True), (seed("d"), False))


def _their_session(group: DealtGroup, aggregate: bytes, tweaks: Tweaks, message: bytes) -> theirs.SessionContext:
    shares = [group.key.public_shares[signer] for signer in SIGNERS]
    return theirs.SessionContext(
        n=5,
        t=3,
        ids=SIGNERS,
        pub_shares=shares,
        thresh_pk=group.key.threshold_pubkey,
        agg_nonce=aggregate,
        tweaks=[tweak for tweak, _ in tweaks],
        is_xonly=[is_xonly for _, is_xonly in tweaks],
        msg=message,
    )


def _our_key(group: DealtGroup, tweaks: Tweaks) -> TweakContext:
    key = TweakContext.from_group_key(group.key.threshold_pubkey)
    for tweak, is_xonly in tweaks:
        key = key.apply(tweak, is_xonly=is_xonly)
    return key


def _sign_mixed(group: DealtGroup, tweaks: Tweaks, message: bytes, our_signers: set[int]) -> tuple[int, int]:
    """Sign with both packages; return the parities of tweaked key and nonce point."""
    ours, their_nonces, publics = {}, {}, {}
    for signer in SIGNERS:
        if signer in our_signers:
            ours[signer], public = generate_nonce(seed(signer, message), share=group.shares[signer])
            publics[signer] = public
        else:
            share = group.shares[signer].secret.to_secret_bytes()
            their_nonces[signer], publics[signer] = theirs.nonce_gen(share, signer)
    aggregate = aggregate_nonces(publics)
    compressed = {signer: compress_nonce(public) for signer, public in publics.items()}
    assert theirs.nonce_agg_var([compressed[signer] for signer in SIGNERS]) == aggregate.compressed
    context = SigningContext.build(group.key, SIGNERS)
    session = open_session(context, SigningTask(message, _our_key(group, tweaks)), aggregate)
    their_session = _their_session(group, aggregate.compressed, tweaks, message)
    shares = {}
    for signer, nonce in ours.items():
        shares[signer] = sign_message(session, group.shares[signer], context.compute_coefficient(signer), nonce)
    for signer, nonce_bytes in their_nonces.items():
        share = group.shares[signer].secret.to_secret_bytes()
        shares[signer] = theirs.sign(nonce_bytes, share, signer, their_session)
    for signer, share in shares.items():
        assert verify_share(session, signer, publics[signer], share)
        public_share = group.key.public_shares[signer]
        assert theirs.partial_sig_verify_(share, signer, compressed[signer], public_share, their_session)
        wrong = encode_scalar(int.from_bytes(share, "big") + 1)
        assert not verify_share(session, signer, publics[signer], wrong)
    signature = aggregate_shares(session, shares)
    assert signature is not None
    assert theirs.partial_sig_agg([shares[signer] for signer in SIGNERS], their_session).serialize() == signature
    assert verify_schnorr(session.task.key.xonly_key, message, signature)
    return session.task.key.plain_key[0], session.nonce_key[0]


@pytest.mark.parametrize("group_even", [True, False], ids=["even-group", "odd-group"])
@pytest.mark.parametrize("tweaks", [NO_TWEAK, CHILD, TAPROOT, LONG], ids=["none", "child", "taproot", "long"])
@pytest.mark.parametrize("our_signers", [{0}, {2, 4}, {0, 2, 4}, set()], ids=["one", "two", "all", "none-of-us"])
def test_mixed_sessions_sign(group_even: bool, tweaks: Tweaks, our_signers: set[int]) -> None:
    _sign_mixed(GROUPS[group_even], tweaks, seed("message", group_even, tweaks), our_signers)


def test_mixed_sessions_meet_every_parity() -> None:
    seen = set()
    for group_even, number in itertools.product([True, False], range(24)):
        tweaks = ((seed("parity", number), False),)
        parities = _sign_mixed(GROUPS[group_even], tweaks, seed(number), {0, 2})
        seen.add((group_even, *parities))
        if len(seen) == 8:
            break
    assert len(seen) == 8


@pytest.mark.parametrize("message", [None, b"", b"message"])
@pytest.mark.parametrize("with_share", [True, False])
def test_nonces_are_the_ones_the_independent_package_makes(message: bytes | None, with_share: bool) -> None:
    group = GROUPS[False]
    share = group.shares[3]
    secret, public_share = share.secret.to_secret_bytes(), share.public_share
    expected, expected_public = theirs.nonce_gen_(
        seed("rand"),
        secret if with_share else None,
        3 if with_share else None,
        public_share if with_share else None,
        group.key.threshold_pubkey[1:],
        message,
        b"extra",
    )
    nonce, public = generate_nonce(
        seed("rand"),
        share=share if with_share else None,
        group_key=group.key.threshold_pubkey,
        message=message,
        extra=b"extra",
    )
    assert compress_nonce(public) == expected_public
    assert b"".join(scalar.to_secret_bytes() for scalar in nonce.take()) == bytes(expected)


def test_key_material_is_what_the_independent_package_accepts() -> None:
    group = deal_group(4, 7)
    info = theirs.ThresholdInfo(4, group.key.threshold_pubkey, list(group.key.public_shares))
    theirs.validate_threshold_info(info)


def test_aggregate_nonce_at_infinity_signs_like_theirs() -> None:
    group = GROUPS[True]
    aggregate = AggregateNonce.from_bytes(bytes(66))
    context = SigningContext.build(group.key, SIGNERS)
    session = open_session(context, SigningTask(b"m", _our_key(group, CHILD)), aggregate)
    nonce, _ = generate_nonce(seed("inf"), share=group.shares[0])
    copy_of_nonce, _ = generate_nonce(seed("inf"), share=group.shares[0])
    their_nonce = bytearray(b"".join(scalar.to_secret_bytes() for scalar in copy_of_nonce.take()))
    share = sign_message(session, group.shares[0], context.compute_coefficient(0), nonce)
    their_session = _their_session(group, bytes(66), CHILD, b"m")
    assert share == theirs.sign(their_nonce, group.shares[0].secret.to_secret_bytes(), 0, their_session)
