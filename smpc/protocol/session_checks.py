"""Rules of the session and of the participant itself, the same for every purpose (V01-V09)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from smpc.params import Params
from smpc.protocol.facts import LedgerView, NodeFacts, SessionFacts
from smpc.protocol.ledger_state import EpochState
from smpc.protocol.pod_messages import SIGNING_SUITE, compute_protocol_hash
from smpc.protocol.review import Review
from smpc.types import EpochNumber, Purpose, Role

SIGNING_ROLES: Final = (Role.VALIDATOR, Role.WITNESS)
"""Who endorses and signs transfers, payouts and bookings."""

_ANY_SERVING: Final = frozenset({EpochState.ACTIVE, EpochState.RETIRING, EpochState.PARKED})
_PURPOSES: Final[Mapping[Purpose, frozenset[EpochState]]] = {
    Purpose.TRANSFER: _ANY_SERVING,
    Purpose.PAYOUT: frozenset({EpochState.ACTIVE, EpochState.RETIRING}),
    Purpose.SWEEP: frozenset({EpochState.RETIRING}),
    Purpose.WITHDRAWAL: _ANY_SERVING,
    Purpose.BOOKING: frozenset({EpochState.ACTIVE, EpochState.RETIRING}),
    Purpose.DEAD: frozenset({EpochState.ACTIVE}),
    Purpose.READY: frozenset({EpochState.ANNOUNCED, EpochState.KEYGEN, EpochState.STANDBY}),
}
"""In which states of its epoch a group serves a purpose (design.md section 5, "Bitcoin is slower than epochs")."""


def judge_session(review: Review, facts: SessionFacts, ledger: LedgerView, subject: bytes, epoch: EpochNumber) -> None:
    """Judge V01, V03-V06, V08 and V09 of a session about `subject` (32 bytes) that `epoch`'s groups should serve."""
    header = facts.header
    is_same = header.protocol == compute_protocol_hash(ledger.params)
    review.require("V01", is_same, "the request is of another protocol version or parameter set")
    is_leader = facts.leader is not None and facts.leader == header.leader == facts.sender
    review.require("V03", is_leader, f"slot {header.slot} is not led by {facts.sender.hex()}")
    names = (header.suite, header.network, header.purpose, header.subject)
    expected = (SIGNING_SUITE, ledger.params.network, review.purpose, subject)
    is_computed = facts.claimed_id == header.session_id and names == expected
    review.require("V04", is_computed, "the session id or what it names is not what I compute")
    review.require("V05", not facts.is_paused, f"{review.purpose} is paused here")
    _judge_group(review, facts, ledger, epoch)
    review.require("V08", facts.has_time_left, "too little of the deadline is left to finish")
    review.require("V09", facts.is_session_new, "this session was used for something else", reason="SESSION_SEEN")
    review.require("V09", facts.is_nonce_unused, "the nonce of this session is spent", reason="NONCE_SPENT")


def judge_node(review: Review, node: NodeFacts, params: Params) -> None:
    """Judge V02: my own bitcoind is on this network's chain, synced, and its tip is young enough."""
    review.require("V02", node.chain is params.network, f"my node is on {node.chain}", reason="WRONG_CHAIN")
    review.require("V02", node.is_synced, f"my node is behind at height {node.height}", reason="NODE_BEHIND")
    age = node.now - node.tip_time
    is_young = params.max_tip_age_seconds == 0 or age <= params.max_tip_age_seconds
    review.require("V02", is_young, f"my node's tip is {age} seconds old", reason="NODE_BEHIND")


def _judge_group(review: Review, facts: SessionFacts, ledger: LedgerView, epoch: EpochNumber) -> None:
    group = facts.header.group
    roles = tuple(Role) if review.purpose is Purpose.READY else SIGNING_ROLES
    is_mine = group == facts.own_group and group.role in roles and group.epoch == epoch
    review.require("V06", is_mine, f"{group.role} of epoch {group.epoch} is not my group here", reason="WRONG_GROUP")
    entry = ledger.epochs.get(group.epoch)
    serves = entry is not None and entry.state in _PURPOSES.get(review.purpose, frozenset())
    state = entry.state if entry else "unknown"
    text = f"epoch {group.epoch} is {state}: it serves no {review.purpose}"
    review.require("V06", serves, text, reason="EPOCH_CLOSED")
    is_ready = facts.is_key_ready or review.purpose is Purpose.READY
    review.require("V06", is_ready, "my share of this group's key is not ready", reason="KEY_NOT_READY")
