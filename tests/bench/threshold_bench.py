"""What threshold signing and a key ceremony cost, next to `ecc`'s FROST where it does the same work."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from ecc.ecc import frost as theirs

from smpc.curve import SecretKey, encode_scalar
from smpc.threshold.child_keys import derive_child
from smpc.threshold.dkg import (
    SessionParams,
    coordinator_finalize,
    coordinator_step1,
    hostpubkey_gen,
    participant_finalize,
    participant_step1,
    participant_step2,
    verify_recovery_data,
)
from smpc.threshold.frost import (
    AggregateNonce,
    SecretNonce,
    SigningContext,
    SigningTask,
    TweakContext,
    aggregate_commitments,
    aggregate_shares,
    aggregate_signatures,
    compress_nonce,
    generate_nonces,
    open_session,
    parse_aggregates,
    sign_message,
    sign_messages,
    verify_share,
)
from smpc.types import ChildIndex
from tests.bench.rows import BenchRow
from tests.bench.yardstick import measure_multiplication_us, measure_us
from tests.unit.threshold_groups import DealtGroup, deal_group

INPUTS = 500
PEER = "ecc"

Timer = Callable[[Callable[[], object]], float]


def run() -> list[BenchRow]:
    """Measure everything and return the table's rows."""
    unit = measure_multiplication_us()
    large, small = _Stage.build(67, 100), _Stage.build(2, 3)
    rows = [BenchRow("one multiplication k*P (the unit)", unit, 1.0, None)]
    rows += _bench_partial_signatures(unit, large, small)
    rows.append(_bench_nonce_pair(unit, large))
    rows.append(_bench_share_check(unit, large))
    rows.append(_bench_coordinator(unit, large))
    rows += _bench_transaction(unit)
    rows += _bench_ceremony(unit)
    return rows


@dataclass(frozen=True)
class _Stage:
    """A group in the middle of signing one message: everything each step needs."""

    group: DealtGroup
    context: SigningContext
    task: SigningTask
    nonces: Mapping[int, bytes]
    aggregate: AggregateNonce
    shares: Mapping[int, bytes]

    @classmethod
    def build(cls, threshold: int, size: int) -> _Stage:
        group = deal_group(threshold, size, "bench")
        signers = tuple(range(size - threshold, size))
        context = SigningContext.build(group.key, signers)
        task = SigningTask(_draw("message"), TweakContext.from_child(group.key.threshold_pubkey, ChildIndex(7)))
        secrets, nonces = group.commit(signers, 1, "bench")
        aggregates = aggregate_commitments(nonces, 1)
        shares = {s: sign_messages(context, group.shares[s], secrets[s], aggregates, [task]) for s in signers}
        return cls(group, context, task, nonces, aggregates[0], shares)

    @property
    def signer(self) -> int:
        return self.context.signers[0]

    def sign_once(self) -> Callable[[], object]:
        """Return the work of one partial signature, with nonces made beforehand."""
        share = self.group.shares[self.signer]
        coefficient = self.context.compute_coefficient(self.signer)
        wire = self.aggregate.to_bytes()
        fresh = _stock_nonces(_SIGN_CALLS * _SIGN_RUNS)

        def work() -> object:
            session = open_session(self.context, self.task, AggregateNonce.from_bytes(wire))
            return sign_message(session, share, coefficient, next(fresh))

        return work

    def build_their_session(self) -> theirs.SessionContext:
        """Return the same session for the peer, with public shares left out as it allows."""
        tweak = encode_scalar(self.task.key.tweak)
        key = self.group.key
        return theirs.SessionContext(
            n=key.size,
            t=key.threshold,
            ids=self.context.signers,
            pub_shares=None,
            thresh_pk=key.threshold_pubkey,
            agg_nonce=self.aggregate.compressed,
            tweaks=[tweak],
            is_xonly=[False],
            msg=self.task.message,
        )


_SIGN_CALLS, _SIGN_RUNS = 300, 9


def _draw(*parts: object) -> bytes:
    return sha256(repr(parts).encode()).digest()


def _stock_nonces(count: int) -> itertools.chain[SecretNonce]:
    # Their points are never needed here, so the scalars alone are made, and far more cheaply.
    return itertools.chain(
        SecretNonce(SecretKey.from_bytes(_draw(i, 1)), SecretKey.from_bytes(_draw(i, 2))) for i in range(count)
    )


def _bench_partial_signatures(unit: float, large: _Stage, small: _Stage) -> list[BenchRow]:
    # Runs of the two alternate, so that a busy machine slows both.
    work = {stage.group.key.size: stage.sign_once() for stage in (large, small)}
    best = dict.fromkeys(work, float("inf"))
    for _ in range(_SIGN_RUNS):
        for size, sign in work.items():
            best[size] = min(best[size], measure_us(sign, calls=_SIGN_CALLS, runs=1))
    share = large.group.shares[large.signer].secret.to_secret_bytes()

    def sign_theirs() -> object:
        nonce = bytearray(_draw(1) + _draw(2))
        return theirs.sign(nonce, share, large.signer, large.build_their_session())

    peer = measure_us(sign_theirs, calls=3, runs=2)
    spread = best[100] / best[3]
    return [
        BenchRow("partial signature, 67 of 100", best[100], best[100] / unit, 2.0, PEER, peer),
        BenchRow("partial signature, 2 of 3", best[3], best[3] / unit, 2.0),
        BenchRow("the same, 67 of 100 : 2 of 3", best[100], max(spread, 1 / spread), 1.1),
    ]


def _bench_nonce_pair(unit: float, stage: _Stage) -> BenchRow:
    share, key = stage.group.shares[stage.signer], stage.group.key
    public_share = key.public_shares[stage.signer]
    batch = 50

    def make() -> object:
        return generate_nonces(
            _draw("n"), batch, share=share, group_key=key.threshold_pubkey, public_share=public_share
        )

    measured = measure_us(make, calls=4) / batch
    secret = share.secret.to_secret_bytes()
    peer = measure_us(
        lambda: theirs.nonce_gen(secret, stage.signer, public_share, key.threshold_pubkey[1:]), calls=3, runs=2
    )
    return BenchRow("nonce pair", measured, measured / unit, 1.6, PEER, peer)


def _bench_share_check(unit: float, stage: _Stage) -> BenchRow:
    session = open_session(stage.context, stage.task, stage.aggregate)
    signer = stage.signer
    nonce, share = stage.nonces[signer], stage.shares[signer]
    assert verify_share(session, signer, nonce, share)
    measured = measure_us(lambda: verify_share(session, signer, nonce, share))
    their_session, public_share = stage.build_their_session(), stage.group.key.public_shares[signer]
    short = compress_nonce(nonce)
    peer = measure_us(
        lambda: theirs.partial_sig_verify_(share, signer, short, public_share, their_session), calls=3, runs=2
    )
    return BenchRow("checking one share", measured, measured / unit, 4.0, PEER, peer)


def _bench_coordinator(unit: float, stage: _Stage) -> BenchRow:
    """Sum 67 nonces, derive the session, add 67 shares up and verify the signature."""

    def work() -> object:
        aggregate = aggregate_commitments(stage.nonces, 1)[0]
        return aggregate_shares(open_session(stage.context, stage.task, aggregate), stage.shares)

    assert work() is not None
    measured = measure_us(work)
    short = [compress_nonce(stage.nonces[signer]) for signer in stage.context.signers]
    shares = [stage.shares[signer] for signer in stage.context.signers]

    def work_theirs() -> object:
        theirs.nonce_agg_var(short)
        return theirs.partial_sig_agg(shares, stage.build_their_session())

    peer = measure_us(work_theirs, calls=2, runs=2)
    return BenchRow("coordinator per message, 67 signers", measured, measured / unit, 7.0, PEER, peer)


def _bench_transaction(unit: float) -> list[BenchRow]:
    """Sign a transaction of 500 inputs with two groups of 67 of 100, each input under its own child key."""
    signer_us, coordinator_us = [], 0.0
    for label in ("validators", "witnesses"):
        group = deal_group(67, 100, label)
        signers = tuple(range(67))
        single, rest = _time_signers(group, signers)
        signer_us.append(single)
        coordinator_us += rest
    signer = max(signer_us)
    return [
        BenchRow("500 inputs: one signer, child keys and nonces included", signer, signer / unit, 2_000.0),
        BenchRow(
            "500 inputs: coordinator, both groups, child keys included", coordinator_us, coordinator_us / unit, 10_000.0
        ),
    ]


def _time_signers(group: DealtGroup, signers: tuple[int, ...]) -> tuple[float, float]:
    """Return the microseconds of one signer and of the coordinator for one group's 500 signatures."""
    key = group.key.threshold_pubkey
    messages = [_draw("input", number) for number in range(INPUTS)]

    def derive() -> list[SigningTask]:
        derive_child.cache_clear()  # a pod has its children at hand when it signs; here they count
        return [SigningTask(m, TweakContext.from_child(key, ChildIndex(i))) for i, m in enumerate(messages)]

    context = SigningContext.build(group.key, signers)
    secrets, publics = group.commit(signers, INPUTS, "bench")
    aggregates = aggregate_commitments(publics, INPUTS)
    wire = b"".join(aggregate.to_bytes() for aggregate in aggregates)
    tasks = derive()
    shares = {s: sign_messages(context, group.shares[s], secrets[s], aggregates, tasks) for s in signers}

    def be_signer() -> object:
        own = group.shares[0]
        nonces, _ = generate_nonces(_draw("again"), INPUTS, share=own, group_key=key)
        return sign_messages(
            SigningContext.build(group.key, signers), own, nonces, parse_aggregates(wire, INPUTS), derive()
        )

    def be_coordinator() -> object:
        sums = aggregate_commitments(publics, INPUTS)
        assert b"".join(total.to_bytes() for total in sums) == wire
        outcome = aggregate_signatures(SigningContext.build(group.key, signers), derive(), publics, sums, shares)
        assert outcome.is_complete
        return outcome

    return measure_us(be_signer, calls=1, runs=8), measure_us(be_coordinator, calls=1, runs=4)


def _bench_ceremony(unit: float) -> list[BenchRow]:
    """Run a ceremony of 100 with threshold 67; one member's three steps are timed."""
    size, threshold = 100, 67
    secrets = [SecretKey.generate(_draw("host", member)) for member in range(size)]
    params = SessionParams(tuple(hostpubkey_gen(secret) for secret in secrets), threshold)
    firsts = [participant_step1(secret, params, _draw("r", i)) for i, secret in enumerate(secrets)]
    state, answer = coordinator_step1([message for _, message in firsts], params)
    seconds = [
        participant_step2(secret, first, answer, _draw("aux"))
        for secret, (first, _) in zip(secrets, firsts, strict=True)
    ]
    certificate, output = coordinator_finalize(state, [signature for _, signature in seconds])

    def take_part() -> object:
        own_params = SessionParams(params.host_keys, threshold)
        own, _ = participant_step1(secrets[99], own_params, _draw("r", 99))
        second, _ = participant_step2(secrets[99], own, answer, _draw("aux"))
        return participant_finalize(second, certificate)

    def verify() -> object:
        key = verify_recovery_data(output.recovery_data, host_keys=params.host_keys, threshold=threshold)
        return key.public_shares

    member = measure_us(take_part, calls=1)
    ledger = measure_us(verify, calls=1, runs=3)
    return [
        BenchRow("key ceremony, one of 100, threshold 67", member, member / unit, 1_000.0),
        BenchRow("verifying a ceremony's record, all 100 public shares", ledger, ledger / unit, None),
    ]
