"""An epoch ends while money moves: a deposit that comes late, a peg-out on its way, and the sweep of what is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from coordinator.demo.first_epoch import bring_validator_back, follow_peg_in, order_payments
from coordinator.demo.following import BOOKED, PATIENCE_SECONDS, follow, have_heartbeats_followed
from coordinator.demo.people import Person
from coordinator.demo.stage import Stage
from coordinator.demo.story import Story
from smpc.errors import CheckFailed
from smpc.params import REGTEST

NEAR_END: Final = 8
"""The peg-out is asked for when so many blocks of the epoch are left."""

SWEPT: Final = "swept"
_OVER: Final = frozenset({"booked", "replaced", "ended"})
_ON_CHAIN: Final = frozenset({"broadcast", "confirmed"})
"""States of a sweep that Bitcoin blocks end."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """Who does what while an epoch ends."""

    late: Person
    """Asks for an address before the turn and pays after it."""
    late_amount: str
    leaver: Person
    """Pegs out right before the turn."""
    out_amount: str


def cross_turn(stage: Stage, story: Story, crossing: Crossing) -> None:
    """Let the active epoch end under traffic, and follow its sweep until nothing is left in it."""
    ending = int(stage.peg("epoch", "show", quiet=True)["epoch"])
    late, leaver = crossing.late, crossing.leaver
    stage.title(f"{late.name} takes an address of epoch {ending}; {leaver.name} pegs out as the epoch ends")
    order = late.order(stage, crossing.late_amount)
    _wait_near_end(stage, ending)
    address = str(stage.bitcoin("getnewaddress", "", "bech32", wallet=leaver.name, quiet=False))
    amount = ("--amount", crossing.out_amount)
    pegout = stage.peg("pegout", "request", "--from", leaver.name, "--to", address, *amount)
    if story.absent_pod:
        bring_validator_back(stage, story)
    _see_turn(stage, ending)
    stage.title(f"{late.name} pays the address of epoch {ending} now; {leaver.name} waits for BTC")
    story.transactions[late.pay(stage, order_payments(order))] = f"deposit of {late.name}"
    _follow_peg_out(stage, story, leaver, pegout)
    follow_peg_in(stage, story, order, late)
    _follow_sweep(stage, story, ending)


def _wait_near_end(stage: Stage, epoch: int) -> None:
    shown = stage.peg("epoch", "show", str(epoch), quiet=True)
    last = shown["activated_kaon_height"] + REGTEST.epoch_blocks

    def look() -> tuple[bool, str]:
        left = max(0, last - int(stage.peg("supply", quiet=True)["kaon_height"]))
        return left <= NEAR_END, f"{-(-left // 10) * 10} blocks left or less"

    stage.wait(f"epoch {epoch}", look, PATIENCE_SECONDS)


def _see_turn(stage: Stage, ending: int) -> None:
    stage.title(f"Epoch {ending} ends, epoch {ending + 1} takes over")

    def look() -> tuple[bool, str]:
        active = stage.peg("epoch", "show", quiet=True)["epoch"]
        return active > ending, f"epoch {active} is active"

    stage.wait("the turn", look, PATIENCE_SECONDS)
    before, after = (_show_members(stage, number) for number in (ending, ending + 1))
    stage.tell(f"Validator group: {before} -> {after}; no member of one sits in the next")


def _show_members(stage: Stage, epoch: int) -> str:
    groups = stage.peg("epoch", "show", str(epoch), quiet=True)["groups"]
    names = {item["identity"]: item["name"] for item in stage.peg("devnet", "status", quiet=True)["processes"]}
    members = next(group["members"] for group in groups if group["role"] == "validator")
    return " ".join(sorted(names[member] for member in members))


def _follow_peg_out(stage: Stage, story: Story, leaver: Person, pegout: dict[str, Any]) -> None:
    paid = follow(stage, ("pegout", "status", pegout["id"]), f"{leaver.name}'s peg-out", BOOKED)
    story.pegouts.append(paid)
    story.transactions.setdefault(paid["txids"][-1], "payout with change to the vault")
    received = stage.bitcoin("getreceivedbyaddress", paid["address"], 1, wallet=leaver.name, quiet=False)
    stage.tell(f"{leaver.name}'s wallet received {received} BTC")


def _follow_sweep(stage: Stage, story: Story, epoch: int) -> None:
    stage.title(f"The sweep: what epoch {epoch} holds goes to the groups that are active now")
    latest: dict[str, Any] = {}

    def look() -> tuple[bool, str]:
        latest.update(fetch_sweeps(stage, epoch))
        moving = [sweep for sweep in latest["sweeps"] if sweep["state"] not in _OVER]
        is_resting = not moving and latest["state"] == "waiting"
        is_sent = any(sweep["state"] in _ON_CHAIN for sweep in moving)
        if is_sent or (is_resting and have_heartbeats_followed(stage)):
            stage.peg("devnet", "mine", "1", quiet=True)
        waits = "; ".join(sorted({f"{sweep['state']}, waiting for {sweep['waiting_for']}" for sweep in moving}))
        return latest["state"] == SWEPT, waits or latest["state"]

    stage.wait(f"the sweep of epoch {epoch}", look, PATIENCE_SECONDS)
    _see_notarisation(stage, story, epoch + 1)


def fetch_sweeps(stage: Stage, epoch: int) -> dict[str, Any]:
    """Return what `peg sweep status` shows of an epoch."""
    epochs = stage.peg("sweep", "status", str(epoch), quiet=True)["epochs"]
    found: dict[str, Any] = next(item for item in epochs if item["epoch"] == epoch)
    return found


def _see_notarisation(stage: Stage, story: Story, epoch: int) -> None:
    """Ask which Bitcoin transaction buries the block that made `epoch` active."""
    height = stage.peg("epoch", "show", str(epoch), quiet=True)["activated_kaon_height"]
    found = stage.peg("notarised", str(height))
    if not found["is_notarised"]:
        raise CheckFailed(f"block {height} is not notarised though the sweep is booked")
    story.notarised.append(found)
    stage.tell(f"block {height} and all before it are buried by {found['txid']}")
