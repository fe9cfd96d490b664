"""Views -> protobuf: the messages about key ceremonies."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.ceremony import CeremonyStatus
from coordinator.outlook import Outlook
from pegbridge.v1 import operator_pb2 as pb


def to_ceremonies_message(outlook: Outlook, ceremonies: Sequence[CeremonyStatus]) -> pb.ListCeremoniesResponse:
    """Return the protobuf form."""
    ledger = outlook.ledger
    waits_for = ledger.find_turn_hindrance() if ledger.genesis.has_checkpoints else "nothing: epoch 0 stays active"
    return pb.ListCeremoniesResponse(
        ceremonies=[_to_ceremony(outlook, status) for status in ceremonies],
        turn_waits_for=waits_for,
        kaon_height=ledger.height,
    )


def _to_ceremony(outlook: Outlook, status: CeremonyStatus) -> pb.Ceremony:
    rests = status.rests_until is not None and status.rests_until > outlook.ledger.height
    return pb.Ceremony(
        epoch=status.group.epoch,
        role=status.group.role,
        draw=status.draw,
        attempts_open=status.opened,
        attempts_max=status.attempts,
        missing_host_keys=status.missing,
        deadline_kaon_height=status.deadline,
        is_running=status.is_running,
        progress="" if status.progress is None else status.progress.describe(outlook.name_pod),
        failures=status.failures,
        left_out=status.left_out,
        reason=status.reason,
        rests_until_kaon_height=status.rests_until if rests else None,
    )
