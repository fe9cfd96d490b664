"""What the ledger remembers of verdicts and punishments (design.md section 6, Emergency)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from smpc.protocol.intents import IntentInput
from smpc.types import EpochNumber, IdentityKey, KaonHeight, RecordId, Role, Script, Signature


class Cause(enum.StrEnum):
    """Why a group was judged."""

    CANNOT_SIGN = "cannot_sign"
    """Fewer than `t` of its members are neither convicted nor jailed nor silent."""
    DOES_NOT_SERVE = "does_not_serve"
    """`t` members of the other group recorded that it leaves a final intent, or a due sweep, undone."""
    UNAUTHORISED_SPEND = "unauthorised_spend"
    """Its group signature stands under a transaction that no record allows."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A group of an epoch was judged, for ever: V's verdict releases its outputs, W's opens their recovery."""

    epoch: EpochNumber
    role: Role
    """V or W."""
    cause: Cause
    recorded: KaonHeight
    """The block in which it was reached."""
    detail: str
    """For people: who is missing, which intent is undone, which transaction was not allowed."""


@dataclass(frozen=True, slots=True)
class PreimageEntry:
    """A published preimage."""

    preimage: bytes
    recorded: KaonHeight


@dataclass(frozen=True, slots=True)
class RejectionEntry:
    """W's signatures of one output's emergencies to one target; with E's the witnesses are whole."""

    output: IntentInput
    epoch: EpochNumber
    target: EpochNumber
    target_script: Script
    signatures: tuple[Signature, ...]
    """W's, one per rung that the value bears, ascending."""
    recorded: KaonHeight


class Penalty(enum.StrEnum):
    """What a punishment does."""

    SLASHED = "slashed"
    """The whole stake is lost and the validator is out for ever: only for what its own signatures prove."""
    JAILED = "jailed"
    """Out until a block, longer each time; for ever after `MAX_TERMS`."""


class Misdeed(enum.StrEnum):
    """What a punishment is for."""

    OFFENCE = "offence"
    """Proven by the member's own signatures (`smpc.protocol.evidence`)."""
    GROUP_SIGNATURE = "group_signature"
    """It is a member of a group that signed what no record allows; that names nobody, so it only jails [R10]."""
    SILENCE = "silence"
    """No heartbeat for `silence_blocks` final blocks."""
    ABSENCE = "absence"
    """Its peers, drawn at random, found it not answering."""
    MISSED_CEREMONY = "missed_ceremony"
    """It announced no host key for a ceremony that it was drawn into."""


@dataclass(frozen=True, slots=True)
class Punishment:
    """What one validator was punished with, and for what."""

    identity: IdentityKey
    penalty: Penalty
    misdeed: Misdeed
    recorded: KaonHeight
    until: KaonHeight | None
    """The last block of a jail term; None for ever."""
    stake: int
    """What was slashed, in the consensus layer's unit; 0 when only jailed."""
    evidence: RecordId | None
    """The evidence's record, where there is one."""
    detail: str
    """The fault's stable name, as `INVALID_SHARE`, or what was missed."""
