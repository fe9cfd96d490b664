"""Invoices: the terms a user agrees to and their one committed hash (design.md sections 5 and 6)."""

from __future__ import annotations

from dataclasses import dataclass

from smpc.params import BASIS_POINTS, Params
from smpc.protocol.encoding import Field, hash_fields
from smpc.types import AccountKey, BtcHeight, ChildIndex, EpochNumber, FeeRate, Network, Sats, TermsHash, XOnlyKey


@dataclass(frozen=True, slots=True)
class InvoiceTerms:
    """Everything an invoice commits to. One invoice is one address."""

    network: Network
    epoch: EpochNumber
    index: ChildIndex
    recipient: AccountKey
    refund_key: XOnlyKey
    min_amount: Sats
    max_amount: Sats
    fee_base: Sats
    """The part of `fee_in` that does not depend on the amount: 1.5 x rate x 250 vB."""
    fee_bp: int
    """The part that does, in basis points, rounded up."""
    emergency_csv: int
    transfer_csv: int
    refund_csv: int
    expires: BtcHeight
    """The last Bitcoin height at which a deposit is on time."""

    @property
    def terms_hash(self) -> TermsHash:
        """Return the 32-byte tagged hash `KAON/peg-in` the marker leaf commits to."""
        return TermsHash(
            hash_fields(
                "peg-in",
                self.network,
                self.epoch,
                self.index,
                self.recipient,
                self.refund_key,
                self.min_amount,
                self.max_amount,
                self.fee_base,
                self.fee_bp,
                self.emergency_csv,
                self.transfer_csv,
                self.refund_csv,
                self.expires,
            )
        )

    def compute_fee_in(self, value: Sats) -> Sats:
        """Return the fee of a deposit of `value` sat: the basis points rounded up, plus the base."""
        return Sats(-(-value * self.fee_bp // BASIS_POINTS) + self.fee_base)


@dataclass(frozen=True, slots=True)
class RefundOrigin:
    """Where the refund key lives in the user's wallet: BIP 32 master fingerprint and path to the x-only key."""

    fingerprint: bytes
    """4 bytes."""
    path: tuple[int, ...]
    """Child numbers; hardened ones have bit 31 set."""

    def to_fields(self) -> Field:
        """Return the fields to hash."""
        return (self.fingerprint, list(self.path))


@dataclass(frozen=True, slots=True)
class InvoiceRequest:
    """One output a user asked for: its terms, the amount asked and the refund key's origin."""

    terms: InvoiceTerms
    amount: Sats
    """What the user said he would pay; any value inside the bounds is credited as it arrives."""
    origin: RefundOrigin

    def to_fields(self) -> Field:
        """Return the fields to hash."""
        return (self.terms.terms_hash, self.amount, self.origin.to_fields())


def compute_fee_base(vbytes: int, rate: FeeRate, margin_percent: int) -> Sats:
    """Return `margin x rate x vbytes` in satoshi, rounded up (money table, section 6)."""
    return Sats(-(-vbytes * rate * margin_percent // (1000 * 100)))


def compute_fee_out(params: Params, payout: Sats, rate: FeeRate) -> Sats:
    """Return the least fee of a payout: 10 basis points rounded up + 1.5 x rate x 150 vB."""
    base = compute_fee_base(params.fee_out_vbytes, rate, params.fee_margin_percent)
    return Sats(-(-payout * params.commission_bp // BASIS_POINTS) + base)


def compute_least_raise(params: Params, fee: Sats) -> Sats:
    """Return the least satoshi by which a burn's fee limit is raised: a bump's share of it, rounded up, and never 0."""
    return Sats(max(1, -(-fee * params.bump_percent // 100)))
