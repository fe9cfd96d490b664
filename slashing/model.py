"""Emergencies as everyone builds them, what their signatures are checked against, and what E and W judge by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pegin.model import BuiltTransaction
from smpc.curve import verify_schnorr
from smpc.protocol.arming_records import Arming, ArmingRecorded
from smpc.protocol.emergency import Emergency, Rung
from smpc.protocol.encoding import hash_fields
from smpc.protocol.facts import InputFacts, NodeFacts, SessionFacts, TransactionFacts
from smpc.protocol.verdict_records import RejectionSigned
from smpc.threshold.child_keys import compute_emergency_index, compute_rejection_index
from smpc.types import ChildIndex, KaonHeight, Outpoint, Signature, XOnlyKey


@dataclass(frozen=True, slots=True)
class BuiltEmergencies:
    """The emergency transactions of an arming's outputs, in its order; the same for whoever builds them.

    E signs every one of them when it arms, W again after a release: the same digests under other keys.
    """

    arming: Arming
    emergencies: tuple[Emergency, ...]

    @property
    def rungs(self) -> tuple[tuple[Emergency, Rung], ...]:
        """Every emergency transaction to sign, in the order of the signatures."""
        return tuple((emergency, rung) for emergency in self.emergencies for rung in emergency.rungs)

    def list_digests(self) -> tuple[bytes, ...]:
        """Return the 32-byte digest of every signature, in order."""
        return tuple(rung.digest for _, rung in self.rungs)

    def _list_keys(self, label: str) -> tuple[bytes, ...]:
        return tuple(
            hash_fields(
                label,
                emergency.output.outpoint.txid,
                emergency.output.outpoint.vout,
                emergency.target.script,
                rung.rate,
            )
            for emergency, rung in self.rungs
        )

    def _find_bad(self, signatures: Sequence[bytes], find_key: Callable[[Emergency], XOnlyKey]) -> tuple[int, ...]:
        rungs = self.rungs
        if len(signatures) != len(rungs):
            return tuple(range(len(rungs)))
        pairs = zip(rungs, signatures, strict=True)
        return tuple(
            place
            for place, ((emergency, rung), signature) in enumerate(pairs)
            if not verify_schnorr(find_key(emergency), rung.digest, signature)
        )


@dataclass(frozen=True, slots=True)
class BuiltArming(BuiltEmergencies):
    """An arming with the emergency transactions that E pre-signs."""

    def list_tasks(self) -> tuple[tuple[ChildIndex, bytes], ...]:
        """Return E's child index and the 32-byte digest of every signature, in order."""
        return tuple((compute_emergency_index(emergency.output.child), rung.digest) for emergency, rung in self.rungs)

    def list_keys(self) -> tuple[bytes, ...]:
        """Return what the signing log files every signature under, 32 bytes each, in order (V64)."""
        return self._list_keys("arming-subject")

    def find_bad_signatures(self, signatures: Sequence[bytes]) -> tuple[int, ...]:
        """Return the places whose signature by E does not verify; all of them when the count is wrong."""
        return self._find_bad(signatures, lambda emergency: emergency.emergency_key)

    def to_record(self, signatures: Sequence[Signature]) -> ArmingRecorded:
        """Return the record to submit; the ledger verifies every signature."""
        return ArmingRecorded(self.arming, tuple(signatures))


@dataclass(frozen=True, slots=True)
class BuiltRejection(BuiltEmergencies):
    """What W signs of outputs of a released epoch: the very transactions that E armed to one target."""

    def list_tasks(self) -> tuple[tuple[ChildIndex, bytes], ...]:
        """Return W's child index, in the range of rejections, and the 32-byte digest of every signature, in order."""
        return tuple((compute_rejection_index(emergency.output.child), rung.digest) for emergency, rung in self.rungs)

    def list_keys(self) -> tuple[bytes, ...]:
        """Return what the signing log files every signature under, 32 bytes each, in order (V64)."""
        return self._list_keys("rejection-subject")

    def find_bad_signatures(self, signatures: Sequence[bytes]) -> tuple[int, ...]:
        """Return the places whose signature by W does not verify; all of them when the count is wrong."""
        return self._find_bad(signatures, lambda emergency: emergency.witness_key)

    def to_record(self, signatures: Sequence[Signature]) -> RejectionSigned:
        """Return the record to submit; the ledger verifies every signature."""
        return RejectionSigned(self.arming, tuple(signatures))


@dataclass(frozen=True, slots=True)
class ArmingFacts:
    """Everything a member of E judges an arming by, beside its ledger replica."""

    session: SessionFacts
    node: NodeFacts
    parent: BuiltTransaction | None
    """What I rebuild from the choice of the intent named; None when that is impossible, or none was named."""
    why_not_built: str = ""
    inputs: Mapping[Outpoint, InputFacts] = field(default_factory=dict)
    """Deposits to be armed that my node has unspent, on its best chain or in its mempool."""
    signed: Mapping[bytes, bytes] = field(default_factory=dict)
    """What my signing log has under a rung's key, of those asked for: the digest signed."""


@dataclass(frozen=True, slots=True)
class RejectionFacts:
    """Everything a member of W judges a rejection by, beside its ledger replica; of its node, only what is buried."""

    session: SessionFacts
    final_height: KaonHeight
    """What my replica called final when I was asked; a verdict of a later block releases nothing yet."""
    spent: Mapping[Outpoint, TransactionFacts] = field(default_factory=dict)
    """Outputs that a transaction I know of took on my node's best chain, with that transaction."""
    signed: Mapping[bytes, bytes] = field(default_factory=dict)
    """What my signing log has under a rung's key, of those asked for: the digest signed."""
