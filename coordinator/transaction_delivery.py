"""Gives every pod of both groups the final signatures, so that each may broadcast by itself."""

from __future__ import annotations

from coordinator.attendance import seat_members
from coordinator.pods import Pods
from smpc.protocol.batch import Batch
from smpc.protocol.ledger import Ledger
from smpc.protocol.pod_messages import CompleteRequest
from smpc.types import Purpose, Role


def deliver_transaction(pods: Pods, ledger: Ledger, batch: Batch) -> None:
    """Send a signed batch's signatures to V and W; nobody waits for the answers."""
    slot = pods.open_slot()
    for role in (Role.VALIDATOR, Role.WITNESS):
        info = ledger.epochs[batch.intent.epoch].groups[role]
        header = slot.open_header(info.group, Purpose(batch.intent.kind.value), batch.intent_id, 0)
        request = CompleteRequest(header, batch.intent_id, batch.validator_signatures, batch.witness_signatures)
        pods.tell(seat_members(info), request)
