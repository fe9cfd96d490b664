"""Asks every member of V and W to endorse an intent, and keeps what the ledger will accept (design.md 3.8)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from coordinator.attendance import (
    Answered,
    Declined,
    Heard,
    Lost,
    Progress,
    Seat,
    Watcher,
    ignore_progress,
    seat_members,
)
from coordinator.pods import Pods, Question, Slot
from pegin.model import BuiltTransaction
from smpc.curve import verify_schnorr
from smpc.protocol.checkpoints import CHECKPOINT_BLOCKS
from smpc.protocol.intents import Endorsement, Intent, compute_endorsement_digest
from smpc.protocol.pod_messages import EndorseReply, EndorseRequest
from smpc.protocol.records import GroupInfo, IntentRecorded
from smpc.types import GroupId, KaonHeight, Purpose, Role


@dataclass(frozen=True, slots=True)
class EndorsementPolicy:
    """How long to wait, in seconds."""

    deadline: float = 15.0
    grace: float = 0.3
    """For the rest, once every group has enough or cannot have it any more."""


DEFAULT_POLICY: Final = EndorsementPolicy()


@dataclass(frozen=True, slots=True)
class EndorsementOutcome:
    """Who endorsed an intent, who refused by which rule, who is missing."""

    intent: Intent
    endorsements: tuple[Endorsement, ...]
    """Verified; by role as asked, then by position."""
    needed: tuple[tuple[Role, int], ...]
    """The threshold of every group asked."""
    declined: tuple[Declined, ...]
    lost: tuple[Lost, ...]
    """Also who sent an endorsement that does not hold (`BAD_ENDORSEMENT`)."""
    millis: int

    @property
    def is_enough(self) -> bool:
        """Tell whether every group asked has endorsed by its threshold."""
        return all(sum(item.role is role for item in self.endorsements) >= count for role, count in self.needed)

    def to_record(self) -> IntentRecorded:
        """Return the record to submit; the ledger refuses it unless `is_enough`."""
        return IntentRecorded(self.intent, self.endorsements)

    def find_rules(self) -> tuple[str, ...]:
        """Return every rule that a refusal names, ascending."""
        return tuple(sorted({rule for each in self.declined for rule in each.refusal.rules}))

    def describe(self) -> str:
        """Say in a line how it ended."""
        counts = [f"{role} {sum(e.role is role for e in self.endorsements)}/{count}" for role, count in self.needed]
        refused = [
            f"pod {each.seat.identity.hex()[:8]} refused ({each.refusal.rule} {each.refusal.reason})"
            for each in self.declined
        ]
        lost = [f"pod {each.seat.identity.hex()[:8]} missing ({each.code})" for each in self.lost]
        return "; ".join(["endorsed " + ", ".join(counts), *refused, *lost])


async def collect_endorsements(
    pods: Pods,
    groups: Sequence[GroupInfo],
    built: BuiltTransaction,
    *,
    policy: EndorsementPolicy = DEFAULT_POLICY,
    watch: Watcher = ignore_progress,
) -> EndorsementOutcome:
    """Ask all members of the groups (V and W) in parallel; returns within the deadline, and never raises for a pod."""
    return await _Collection(pods, groups, built, watch).run(policy)


class _Collection:
    """One run: what every seat has answered so far."""

    def __init__(self, pods: Pods, groups: Sequence[GroupInfo], built: BuiltTransaction, watch: Watcher) -> None:
        self._pods = pods
        self._groups = groups
        self._built = built
        self._watch = watch
        self._slot: Slot = pods.open_slot()
        self._heard: dict[tuple[GroupId, int], Heard[EndorseReply]] = {}
        self._settled = asyncio.Event()

    async def run(self, policy: EndorsementPolicy) -> EndorsementOutcome:
        """Ask, wait and verify."""
        clock = asyncio.get_running_loop().time
        began = clock()
        self._report()
        async with asyncio.TaskGroup() as calls:
            running = [
                calls.create_task(self._ask(seat, question, policy.deadline))
                for group in self._groups
                for question in [self._seal(group)]
                for seat in seat_members(group)
            ]
            await _wait_until(self._settled, policy.deadline)
            await asyncio.wait(running, timeout=min(policy.grace, max(0.0, began + policy.deadline - clock())))
            for task in running:
                task.cancel()
        return self._conclude(round(1000 * (clock() - began)))

    def _seal(self, info: GroupInfo) -> Question:
        intent = self._built.intent
        header = self._slot.open_header(info.group, Purpose(intent.kind.value), intent.intent_id, 0)
        return self._pods.seal(EndorseRequest(header, intent, self._built.transaction.to_bytes()))

    async def _ask(self, seat: Seat, question: Question, seconds: float) -> None:
        heard = await self._pods.ask(seat, question, EndorseReply, seconds=seconds)
        if isinstance(heard, Answered) and not self._is_sound(seat, heard.reply.endorsement):
            heard = Lost(seat, "BAD_ENDORSEMENT", "the endorsement does not verify, or is of another height or member")
        self._heard[seat.group, seat.position] = heard
        self._report()
        if all(self._is_settled(group) for group in self._groups):
            self._settled.set()

    def _is_sound(self, seat: Seat, endorsement: Endorsement) -> bool:
        """Tell whether the ledger will accept it: one bad or misdated endorsement refuses the whole record."""
        intent, ledger = self._built.intent, self._pods.ledger
        # What is final here may be a block, or a few checkpoints, behind what is final there; the record's
        # block comes after both.
        lead = 2 * CHECKPOINT_BLOCKS if ledger.genesis.has_checkpoints else ledger.params.finality_depth
        newest = KaonHeight(ledger.height + lead)
        if (endorsement.role, endorsement.position) != (seat.group.role, seat.position):
            return False
        if not self._slot.height <= endorsement.kaon_height <= newest:
            return False
        digest = compute_endorsement_digest(intent.network, intent.intent_id, endorsement.role, endorsement.kaon_height)
        return verify_schnorr(seat.sender, digest, endorsement.signature)

    def _is_settled(self, info: GroupInfo) -> bool:
        heard = [each for (group, _), each in self._heard.items() if group == info.group]
        endorsed = sum(isinstance(each, Answered) for each in heard)
        return endorsed >= info.threshold or len(heard) - endorsed > len(info.members) - info.threshold

    def _report(self) -> None:
        """Tell how far every group is, the ones that still lack members last: that is what a watcher waits for."""
        for info in sorted(self._groups, key=self._is_settled, reverse=True):
            heard = [(seat, self._heard.get((info.group, seat.position))) for seat in seat_members(info)]
            done = sum(isinstance(each, Answered) for _, each in heard)
            missing = tuple(seat.identity for seat, each in heard if not isinstance(each, Answered | Declined))
            size = len(info.members)
            self._watch(Progress(info.group, "endorsing", "endorsed", done, info.threshold, size, missing))

    def _conclude(self, millis: int) -> EndorsementOutcome:
        heard = [
            self._heard.get((seat.group, seat.position), Lost(seat, "SILENT", "asked for an endorsement, no answer"))
            for info in self._groups
            for seat in seat_members(info)
        ]
        return EndorsementOutcome(
            intent=self._built.intent,
            endorsements=tuple(each.reply.endorsement for each in heard if isinstance(each, Answered)),
            needed=tuple((info.group.role, info.threshold) for info in self._groups),
            declined=tuple(each for each in heard if isinstance(each, Declined)),
            lost=tuple(each for each in heard if isinstance(each, Lost)),
            millis=millis,
        )


async def _wait_until(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
