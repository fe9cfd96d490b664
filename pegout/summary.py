"""What a user sees of a peg-out: one state, what it waits for, and its numbers (design.md section 11)."""

from __future__ import annotations

from dataclasses import dataclass

from pegout.lifecycle import PegOut, PegOutState
from smpc.bitcoin.address import to_address
from smpc.params import Params
from smpc.protocol.depth import compute_depth
from smpc.protocol.ledger_state import BurnEntry
from smpc.types import BtcHeight, BurnId, Sats, Txid


@dataclass(frozen=True, slots=True)
class PegOutSummary:
    """A peg-out as the CLI shows it."""

    id: BurnId
    state: str
    burn: Sats
    """What was burnt: the payout and the fee limit with its raises."""
    payout: Sats
    fee: Sats
    """The fee as first burnt."""
    address: str
    max_fee: Sats
    """The fee limit with its raises."""
    txids: tuple[Txid, ...]
    confirmations: int
    waiting_for: str


def summarise(params: Params, entry: BurnEntry, pegout: PegOut, tip: BtcHeight) -> PegOutSummary:
    """Return a peg-out as its user sees it at the Bitcoin height `tip`."""
    confirmations = compute_depth(pegout.height, tip)
    return PegOutSummary(
        id=pegout.burn,
        state=str(pegout.state),
        burn=Sats(entry.request.payout + entry.fee),
        payout=entry.request.payout,
        fee=entry.request.fee,
        address=to_address(entry.request.script, params.network),
        max_fee=entry.fee,
        txids=pegout.txids,
        confirmations=confirmations,
        waiting_for=describe_wait(params, pegout, confirmations),
    )


def describe_wait(params: Params, pegout: PegOut, confirmations: int) -> str:
    """Return what a peg-out waits for, for people; empty when it waits for nothing."""
    match pegout.state:
        case PegOutState.REQUESTED:
            return "a batch: the burn must be final and the vault must have a free, mature output"
        case PegOutState.PLANNED:
            return "endorsements of both groups"
        case PegOutState.RECORDED:
            return "the challenge window"
        case PegOutState.SIGNING:
            return "the signatures of both groups"
        case PegOutState.BROADCAST:
            return f"confirmations 0/{params.confirmations}"
        case PegOutState.CONFIRMED:
            depth = min(confirmations, params.confirmations)
            return "the booking" if depth == params.confirmations else f"confirmations {depth}/{params.confirmations}"
        case PegOutState.BOOKED | PegOutState.CANCELLED | PegOutState.UNDONE:
            return ""
