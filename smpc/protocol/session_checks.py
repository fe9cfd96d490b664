"""Rules of the session and of the participant itself, the same for every purpose (V01-V09)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from smpc.params import Params
from smpc.protocol.epoch import is_serving
from smpc.protocol.facts import LedgerView, NodeFacts, SessionFacts
from smpc.protocol.ledger_bookings import TIP_TOLERANCE
from smpc.protocol.pod_messages import SIGNING_SUITE, compute_protocol_hash
from smpc.protocol.review import Review, Stage
from smpc.types import BtcHeight, EpochNumber, Purpose, Role

SIGNING_ROLES: Final = (Role.VALIDATOR, Role.WITNESS)
"""Who endorses and signs transfers, payouts, sweeps and bookings."""

_ROLES: Final[Mapping[Purpose, tuple[Role, ...]]] = {
    Purpose.READY: tuple(Role),
    Purpose.ARMING: (Role.EMERGENCY,),
    Purpose.RECOVERY: (Role.VALIDATOR, Role.EMERGENCY),
    Purpose.REJECTION: (Role.WITNESS,),
}
"""Who signs what V and W alone do not."""


def judge_session(review: Review, facts: SessionFacts, ledger: LedgerView, subject: bytes, epoch: EpochNumber) -> None:
    """Judge V01, V03-V06, V08, V09 and V24 of a session about `subject` (32 bytes) that groups of `epoch` serve."""
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
    review.require("V24", not facts.doubt, facts.doubt_detail, reason=facts.doubt)


def judge_node(review: Review, node: NodeFacts, params: Params) -> None:
    """Judge V02 but for the median: my own bitcoind is on this network's chain, synced, its tip young enough."""
    review.require("V02", node.chain is params.network, f"my node is on {node.chain}", reason="WRONG_CHAIN")
    review.require("V02", node.is_synced, f"my node is behind at height {node.height}", reason="NODE_BEHIND")
    age = node.now - node.tip_time
    is_young = params.max_tip_age_seconds == 0 or age <= params.max_tip_age_seconds
    review.require("V02", is_young, f"my node's tip is {age} seconds old", reason="NODE_BEHIND")


def judge_tip(review: Review, node: NodeFacts, ledger: LedgerView) -> None:
    """Judge the rest of V02, before endorsing only: my tip is near the validators' median; the median moves.

    Silent without a median: where genesis knows no heartbeats, and while those heard hold half of the stake or less.
    """
    median = ledger.median_btc_height
    if review.stage is not Stage.ENDORSE or median is None or is_near_median(ledger, node.height):
        return
    reason = "NODE_BEHIND" if node.height < median else "NODE_AHEAD"
    text = f"my node's tip is {node.height}, the heartbeats' median {median}: more than {TIP_TOLERANCE} blocks apart"
    review.require("V02", False, text, reason=reason)


def is_near_median(ledger: LedgerView, height: BtcHeight) -> bool:
    """Tell whether a Bitcoin tip is within `TIP_TOLERANCE` blocks of the heartbeats' median; True without one."""
    median = ledger.median_btc_height
    return median is None or abs(height - median) <= TIP_TOLERANCE


def _judge_group(review: Review, facts: SessionFacts, ledger: LedgerView, epoch: EpochNumber) -> None:
    group = facts.header.group
    roles = _ROLES.get(review.purpose, SIGNING_ROLES)
    is_mine = group == facts.own_group and group.role in roles and group.epoch == epoch
    review.require("V06", is_mine, f"{group.role} of epoch {group.epoch} is not my group here", reason="WRONG_GROUP")
    entry = ledger.epochs.get(group.epoch)
    serves = entry is not None and is_serving(entry, review.purpose)
    state = entry.state if entry else "unknown"
    text = f"epoch {group.epoch} is {state}: it serves no {review.purpose}"
    review.require("V06", serves, text, reason="EPOCH_CLOSED")
    is_ready = facts.is_key_ready or review.purpose is Purpose.READY
    review.require("V06", is_ready, "my share of this group's key is not ready", reason="KEY_NOT_READY")
