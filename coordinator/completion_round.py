"""Hands both groups' final signatures to every pod, so that each can broadcast by itself (design.md section 4)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.attendance import Answered, Declined, Heard, Lost, Seat, seat_members
from coordinator.pods import Pods, Question
from pegin.model import BuiltTransaction
from smpc.protocol.pod_messages import CompleteReply, CompleteRequest
from smpc.protocol.records import GroupInfo
from smpc.types import IdentityKey, Purpose, Signature


@dataclass(frozen=True, slots=True)
class DeliveryOutcome:
    """Which pods hold the complete transaction now."""

    holders: tuple[IdentityKey, ...]
    declined: tuple[Declined, ...]
    lost: tuple[Lost, ...]


async def deliver_signatures(
    pods: Pods,
    groups: Sequence[GroupInfo],
    built: BuiltTransaction,
    *,
    validators: Sequence[Signature],
    cosigners: Sequence[Signature],
    seconds: float = 10.0,
) -> DeliveryOutcome:
    """Send Complete to every member of the groups in parallel; returns when all answered or `seconds` have passed."""
    slot, intent = pods.open_slot(), built.intent
    heard: list[Heard[CompleteReply]] = []

    async def send(seat: Seat, question: Question) -> None:
        answer = await pods.ask(seat, question, CompleteReply, seconds=seconds)
        if isinstance(answer, Answered) and answer.reply.txid != intent.txid:
            answer = Lost(seat, "WRONG_TXID", "the pod completed another transaction")
        heard.append(answer)

    async with asyncio.TaskGroup() as calls:
        for info in groups:
            header = slot.open_header(info.group, Purpose(intent.kind.value), intent.intent_id, 0)
            request = CompleteRequest(header, intent.intent_id, tuple(validators), tuple(cosigners))
            question = pods.seal(request)
            for seat in seat_members(info):
                calls.create_task(send(seat, question))
    return DeliveryOutcome(
        holders=tuple(each.seat.identity for each in heard if isinstance(each, Answered)),
        declined=tuple(each for each in heard if isinstance(each, Declined)),
        lost=tuple(each for each in heard if isinstance(each, Lost)),
    )
