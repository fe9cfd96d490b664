"""Intents, endorsements and bookings: what is proposed, who agreed to it, and what it did (design.md 3.8, 6)."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from smpc.protocol.codec import ADDED
from smpc.protocol.encoding import Field, hash_fields
from smpc.types import (
    AccountKey,
    BurnId,
    ChildIndex,
    EpochNumber,
    FeeRate,
    IdentityKey,
    IntentId,
    KaonHeight,
    Network,
    Outpoint,
    Role,
    Sats,
    Script,
    Signature,
    Txid,
)


class IntentKind(enum.StrEnum):
    """What an intent's transaction does."""

    TRANSFER = "transfer"
    """Moves mature deposits of one epoch to the active epoch's vault."""
    PAYOUT = "payout"
    """Spends booked vault outputs of one epoch to pay burns; the change goes to the active epoch's vault."""
    SWEEP = "sweep"
    """Moves the vault outputs of one retiring epoch to the active epoch's vault; carries burns and commission along."""
    RECOVERY = "recovery"
    """Moves vault outputs of an epoch whose W was judged to the active epoch's vault; V and E sign, after a lock."""


def list_signing_roles(kind: IntentKind) -> tuple[Role, Role]:
    """Return the two groups that endorse and sign an intent, in the order in which they sign: V, then W or E (3.8)."""
    return Role.VALIDATOR, Role.EMERGENCY if kind is IntentKind.RECOVERY else Role.WITNESS


def may_pass_over(kind: IntentKind, standing: IntentKind) -> bool:
    """Tell whether an intent may be recorded on an outpoint that a standing one spends, and not as its replacement.

    A recovery passes over whatever W was to sign: W cannot any more, and booking the recovery makes that dead [R3].
    """
    return kind is IntentKind.RECOVERY and standing is not IntentKind.RECOVERY


@dataclass(frozen=True, slots=True)
class IntentInput:
    """One output to spend: its outpoint, its value and the child index its leaf keys are derived from."""

    outpoint: Outpoint
    value: Sats
    child: ChildIndex
    """Invoice index for a deposit; 0x10000000 + position for a vault output."""

    def to_fields(self) -> Field:
        """Return the fields to hash."""
        return (self.outpoint.txid, self.outpoint.vout, self.value, self.child)


@dataclass(frozen=True, slots=True)
class Payment:
    """One burn's payout: pays `amount` to `script`."""

    burn: BurnId
    amount: Sats
    script: Script

    def to_fields(self) -> Field:
        """Return the fields to hash."""
        return (self.burn, self.amount, self.script)


@dataclass(frozen=True, slots=True)
class Commission:
    """What a sweep pays one member of the retiring epoch out of the reserve."""

    member: IdentityKey
    amount: Sats
    script: Script
    """The member's payout script in the validator registry."""

    def to_fields(self) -> Field:
        """Return the fields to hash."""
        return (self.member, self.amount, self.script)


@dataclass(frozen=True, slots=True)
class IntentChoice:
    """What a proposer chooses; everything else of an intent follows from it and the builder's own facts."""

    kind: IntentKind
    epoch: EpochNumber
    """The epoch whose V and W own the inputs and sign."""
    target_epoch: EpochNumber
    """The epoch whose vault receives; active in the block that records the intent."""
    outpoints: tuple[Outpoint, ...]
    burns: tuple[BurnId, ...]
    fee_rate: FeeRate
    replaces: tuple[IntentId, ...]
    commissions: tuple[Commission, ...] = field(default=(), metadata=ADDED)
    """Only in a sweep, and then exactly what the ledger says is due."""
    op_return: Script = field(default=Script(b""), metadata=ADDED)
    """Only in a sweep: the whole output script of its notarisation."""


class _Hashed:
    """Room for a hash beside the fields: neither compared nor encoded, and a changed copy starts without it."""

    __slots__ = ("_hash",)


@dataclass(frozen=True, slots=True)
class Intent(_Hashed):
    """A whole Bitcoin transaction to be, as recorded on the consensus layer.

    The transaction's outputs are `vault_outputs` at positions 0, 1, ..., then `payments`, then `commissions` in order,
    then a value of 0 to `op_return` where it is not empty; version 2, locktime 0; inputs in order, each with the
    relative lock of the leaf it spends as sequence: the recovery leaf's in a recovery, else the transfer leaf's.
    """

    network: Network
    kind: IntentKind
    epoch: EpochNumber
    target_epoch: EpochNumber
    inputs: tuple[IntentInput, ...]
    payments: tuple[Payment, ...]
    vault_outputs: tuple[Sats, ...]
    """Values of the new vault outputs; output i stands at position i and uses child index 0x10000000 + i."""
    fee: Sats
    fee_rate: FeeRate
    txid: Txid
    replaces: tuple[IntentId, ...]
    commissions: tuple[Commission, ...] = field(default=(), metadata=ADDED)
    op_return: Script = field(default=Script(b""), metadata=ADDED)

    @property
    def intent_id(self) -> IntentId:
        """Return the 32-byte id: the tagged hash `KAON/intent` of every field, computed once; a sweep has two more."""
        # 500 inputs take milliseconds, and everything about an intent is found by its id.
        known: IntentId | None = getattr(self, "_hash", None)
        if known is None:
            known = self._compute_id()
            object.__setattr__(self, "_hash", known)
        return known

    def _compute_id(self) -> IntentId:
        is_sweep = self.kind is IntentKind.SWEEP or bool(self.commissions or self.op_return)
        return IntentId(
            hash_fields(
                "intent",
                self.network,
                self.kind,
                self.epoch,
                self.target_epoch,
                [item.to_fields() for item in self.inputs],
                [item.to_fields() for item in self.payments],
                list(self.vault_outputs),
                self.fee,
                self.fee_rate,
                self.txid,
                list(self.replaces),
                *([[item.to_fields() for item in self.commissions], self.op_return] if is_sweep else []),
            )
        )

    @property
    def choice(self) -> IntentChoice:
        """Return the proposer's choice alone; a participant rebuilds all the rest from it (rule V10)."""
        return IntentChoice(
            kind=self.kind,
            epoch=self.epoch,
            target_epoch=self.target_epoch,
            outpoints=tuple(item.outpoint for item in self.inputs),
            burns=tuple(item.burn for item in self.payments),
            fee_rate=self.fee_rate,
            replaces=self.replaces,
            commissions=self.commissions,
            op_return=self.op_return,
        )

    @property
    def outpoints(self) -> frozenset[Outpoint]:
        """Return every outpoint the transaction spends."""
        return frozenset(item.outpoint for item in self.inputs)

    @property
    def burns(self) -> frozenset[BurnId]:
        """Return every burn the transaction pays."""
        return frozenset(item.burn for item in self.payments)


@dataclass(frozen=True, slots=True)
class Endorsement:
    """One member's host-key signature that the intent obeys every rule, as of a consensus-layer height."""

    role: Role
    position: int
    """The member's 0-based position in the group's order."""
    kaon_height: KaonHeight
    signature: Signature
    """BIP 340 by the member's ceremony host key over `compute_endorsement_digest`."""


def compute_endorsement_digest(network: Network, intent: IntentId, role: Role, kaon_height: KaonHeight) -> bytes:
    """Return the 32-byte digest an endorser signs."""
    return hash_fields("endorsement", network, intent, role, kaon_height)


@dataclass(frozen=True, slots=True)
class Credit:
    """One deposit's credit: `value` arrived, `fee_in` stays with the reserve, the rest becomes kBTC."""

    outpoint: Outpoint
    recipient: AccountKey
    value: Sats
    fee_in: Sats

    def to_fields(self) -> Field:
        """Return the fields to hash."""
        return (self.outpoint.txid, self.outpoint.vout, self.recipient, self.value, self.fee_in)


@dataclass(frozen=True, slots=True)
class VaultEntry:
    """One booked vault output: BTC under an epoch's groups."""

    outpoint: Outpoint
    value: Sats
    epoch: EpochNumber
    child: ChildIndex

    def to_fields(self) -> Field:
        """Return the fields to hash."""
        return (self.outpoint.txid, self.outpoint.vout, self.value, self.epoch, self.child)


@dataclass(frozen=True, slots=True)
class Booking:
    """The mirrored transaction: what one buried Bitcoin transaction did to the ledger (money table, section 6)."""

    network: Network
    epoch: EpochNumber
    """The epoch whose V and W group keys sign the booking."""
    intent: IntentId
    txid: Txid
    credits: tuple[Credit, ...]
    settled: tuple[BurnId, ...]
    vault_spent: tuple[Outpoint, ...]
    vault_created: tuple[VaultEntry, ...]
    reserve_gain: Sats
    """What the reserve gains (0 when it loses)."""
    reserve_loss: Sats
    """What the reserve loses (0 when it gains)."""

    @property
    def digest(self) -> bytes:
        """Return the 32-byte tagged hash `KAON/booking` that V's and W's group keys sign."""
        return hash_fields(
            "booking",
            self.network,
            self.epoch,
            self.intent,
            self.txid,
            [item.to_fields() for item in self.credits],
            list(self.settled),
            [(item.txid, item.vout) for item in self.vault_spent],
            [item.to_fields() for item in self.vault_created],
            self.reserve_gain,
            self.reserve_loss,
        )
