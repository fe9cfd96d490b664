"""What a consensus node answers about its state: plain values for callers without a replica of their own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from smpc.errors import NotFound
from smpc.protocol.election import ROLES
from smpc.protocol.end_records import ChallengeRaised
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import EpochState
from smpc.protocol.records import GroupInfo, Record
from smpc.types import (
    EpochNumber,
    FeeRate,
    IdentityKey,
    IntentId,
    KaonHash,
    KaonHeight,
    Role,
    Sats,
)


@dataclass(frozen=True, slots=True)
class KaonTip:
    """Where a consensus chain stands."""

    height: KaonHeight
    """The newest block's; 0 before the first."""
    block_hash: KaonHash
    final: KaonHeight
    """Blocks up to this height are final."""
    genesis_hash: KaonHash
    """Which chain this is."""
    time_millis: int


@dataclass(frozen=True, slots=True)
class GroupView:
    """A group of an epoch; `info` once its key is recorded."""

    role: Role
    members: tuple[IdentityKey, ...]
    threshold: int
    info: GroupInfo | None


@dataclass(frozen=True, slots=True)
class EpochView:
    """An epoch with its groups in the order V, W, E."""

    number: EpochNumber
    state: EpochState
    announced: KaonHeight
    activated: KaonHeight | None
    preimage_hash: bytes
    confirmed_preimages: int
    groups: tuple[GroupView, ...]


@dataclass(frozen=True, slots=True)
class SupplyView:
    """The money identity at a height: vault = supply + open burns + reserve."""

    vault: Sats
    supply: Sats
    open_burns: Sats
    reserve: int
    fee_rate: FeeRate
    height: KaonHeight


@dataclass(frozen=True, slots=True)
class RecordedEntry:
    """A record with the height of its block."""

    height: KaonHeight
    record: Record


@dataclass(frozen=True, slots=True)
class RecordsPage:
    """Records found, and the last height looked through: the cursor of the next question."""

    entries: tuple[RecordedEntry, ...]
    through: KaonHeight


@dataclass(frozen=True, slots=True)
class ChallengeVerdict:
    """One challenge and whether the ledger upheld it."""

    intent: IntentId
    challenger: IdentityKey
    rule: str
    note: str
    is_upheld: bool


def compute_final_height(height: KaonHeight, depth: int) -> KaonHeight:
    """Return the highest final height when `height` is the tip's and `depth` blocks on top make a block final."""
    return KaonHeight(max(0, height - depth))


def build_epoch_view(ledger: Ledger, number: EpochNumber | None) -> EpochView:
    """Return an epoch, the active one for None; NotFound when there is no such epoch."""
    wanted = ledger.active_epoch if number is None else number
    entry = None if wanted is None else ledger.epochs.get(wanted)
    if entry is None:
        what = "no epoch is active yet" if number is None else f"there is no epoch {number}"
        raise NotFound(what, remedy="wait until it is announced and its groups have their keys")
    groups = tuple(
        GroupView(role, entry.members[role], entry.thresholds[role], entry.groups.get(role)) for role in ROLES
    )
    return EpochView(
        number=entry.number,
        state=entry.state,
        announced=entry.announced,
        activated=entry.activated,
        preimage_hash=entry.preimage_hash,
        confirmed_preimages=len(entry.confirmed),
        groups=groups,
    )


def build_supply_view(ledger: Ledger) -> SupplyView:
    """Return the money identity as the ledger stands."""
    return SupplyView(
        vault=ledger.vault_total,
        supply=ledger.supply,
        open_burns=ledger.open_burns,
        reserve=ledger.reserve,
        fee_rate=ledger.fee_rate,
        height=ledger.height,
    )


def list_verdicts(ledger: Ledger, intent: IntentId | None) -> tuple[ChallengeVerdict, ...]:
    """Return the challenges of one intent, or of all, in the order of the intents' blocks."""
    wanted: Collection[IntentId] = ledger.challenges if intent is None else [intent]
    ordered = sorted(
        (key for key in wanted if key in ledger.challenges), key=lambda key: (ledger.intents[key].recorded, key)
    )
    return tuple(_judge(ledger, challenge) for key in ordered for challenge in ledger.challenges[key])


def _judge(ledger: Ledger, challenge: ChallengeRaised) -> ChallengeVerdict:
    entry = ledger.intents[challenge.intent]
    # The challenge that was upheld ended the intent, so it is the last one; those before it were notes.
    is_last = ledger.challenges[challenge.intent][-1] == challenge
    return ChallengeVerdict(
        intent=challenge.intent,
        challenger=challenge.challenger,
        rule=challenge.rule,
        note=challenge.note,
        is_upheld=bool(entry.challenge) and is_last,
    )
