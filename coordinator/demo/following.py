"""Follows a peg-in, a peg-out or a sweep to its end, mining a Bitcoin block whenever only a block brings it on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from coordinator.demo.stage import Stage
from smpc.errors import Unavailable

BOOKED: Final = "booked"
REFUNDED: Final = "refunded"
OUT_OF_BOUNDS: Final = "out_of_bounds"

PATIENCE_SECONDS: Final = 90.0
"""How long any single thing may take before the demonstration gives up."""

_MINED_WHEN: Final = frozenset({"requested", "seen", "maturing", "transferring", "broadcast", "confirmed", "refunding"})
"""States that a Bitcoin block ends; a requested peg-out waits for a vault output to have rested."""

_PACED: Final = "requested"
"""The state in which members must endorse first: they do while their nodes' tips are near the heartbeats' median."""

Look = Callable[[], dict[str, Any]]


def follow(stage: Stage, words: tuple[str, ...], what: str, final: str) -> dict[str, Any]:
    """Follow what a status command shows until its state is `final`; the last answer."""
    return follow_state(stage, lambda: stage.peg(*words, quiet=True), what, final)


def follow_state(stage: Stage, look: Look, what: str, final: str) -> dict[str, Any]:
    """Follow whatever `look` returns, with `state`, `waiting_for` and its transactions, until its state is `final`."""
    latest: dict[str, Any] = {}

    def see() -> tuple[bool, str]:
        latest.update(look())
        state, waiting = latest["state"], latest["waiting_for"]
        is_due = state in _MINED_WHEN and _is_in_a_block_or_mempool(stage, latest)
        if is_due and (state != _PACED or have_heartbeats_followed(stage)):
            stage.peg("devnet", "mine", "1", quiet=True)
        return state == final, f"{state}, waiting for {waiting}" if waiting else state

    stage.wait(what, see, PATIENCE_SECONDS)
    return latest


def have_heartbeats_followed(stage: Stage) -> bool:
    """Tell whether one more block keeps the tip near what the validators' heartbeats say, as ten minutes would."""
    supply = stage.peg("supply", quiet=True)
    median = supply["heartbeats_btc_height"]
    return median is None or supply["btc_height"] <= median + 1


def _is_in_a_block_or_mempool(stage: Stage, item: dict[str, Any]) -> bool:
    """Tell whether the node has everything that the next block should hold."""
    txids = set(item.get("txids", [])[-1:]) | {output["transfer_txid"] for output in item.get("outputs", [])}
    try:
        for txid in txids - {None}:
            stage.bitcoin("getrawtransaction", txid)
    except Unavailable:
        return False
    return True
