"""Groups dealt by one hand for tests: a real ceremony is tested elsewhere and takes longer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from smpc.curve import SecretKey, tagged_hash
from smpc.threshold.frost import (
    BatchOutcome,
    SecretNonce,
    SigningContext,
    SigningTask,
    aggregate_commitments,
    aggregate_signatures,
    generate_nonces,
    sign_messages,
)
from smpc.threshold.group_key import GroupKey, SecretShare
from smpc.threshold.vss import SecretPolynomial
from smpc.types import HostKey


def seed(*parts: object) -> bytes:
    """Return 32 bytes that depend on every part: a test's stand-in for fresh randomness."""
    return tagged_hash("KAON/test/v1", repr(parts).encode())


@dataclass(frozen=True)
class DealtGroup:
    """A group with all its secrets in one place."""

    key: GroupKey
    polynomial: SecretPolynomial
    shares: tuple[SecretShare, ...]

    def commit(
        self, signers: Iterable[int], count: int, label: object = 0
    ) -> tuple[dict[int, tuple[SecretNonce, ...]], dict[int, bytes]]:
        """Run round 1: every signer's secret nonces and joined public nonces."""
        secrets, publics = {}, {}
        for signer in signers:
            secrets[signer], publics[signer] = generate_nonces(
                seed(label, signer), count, share=self.shares[signer], group_key=self.key.threshold_pubkey
            )
        return secrets, publics

    def sign(self, signers: Sequence[int], tasks: Sequence[SigningTask], label: object = 0) -> BatchOutcome:
        """Run both rounds honestly."""
        context = SigningContext.build(self.key, signers)
        secrets, publics = self.commit(signers, len(tasks), label)
        aggregates = aggregate_commitments(publics, len(tasks))
        answers = {s: sign_messages(context, self.shares[s], secrets[s], aggregates, tasks) for s in signers}
        return aggregate_signatures(context, tasks, publics, aggregates, answers)


def deal_group(threshold: int, size: int, label: object = 0) -> DealtGroup:
    """Deal shares of a random key to `size` members."""
    return deal_polynomial(SecretPolynomial.generate(seed("group", threshold, size, label), threshold), size)


def deal_polynomial(polynomial: SecretPolynomial, size: int) -> DealtGroup:
    """Deal shares of a given polynomial."""
    host_keys = tuple(HostKey(b"\x02" + seed("host", position)) for position in range(size))
    key = GroupKey(host_keys, polynomial.compute_commitment())
    shares = tuple(SecretShare(position, polynomial.compute_share(position)) for position in range(size))
    return DealtGroup(key, polynomial, shares)


def deal_group_with_parity(threshold: int, size: int, *, even: bool) -> DealtGroup:
    """Deal a group whose key has an even (or odd) y."""
    for attempt in range(64):
        group = deal_group(threshold, size, ("parity", attempt))
        if (group.key.threshold_pubkey[0] == 2) is even:
            return group
    raise AssertionError("no group of that parity in 64 draws")


def flip_share(shares: Mapping[int, bytes], member: int, number: int = 0) -> dict[int, bytes]:
    """Return the shares with one bit of one member's `number`-th share flipped."""
    wrong = bytearray(shares[member])
    wrong[32 * number + 31] ^= 1
    return {**shares, member: bytes(wrong)}


def secret(value: int) -> SecretKey:
    """Return a small integer as a secret key."""
    return SecretKey.from_bytes(value.to_bytes(32, "big"))
