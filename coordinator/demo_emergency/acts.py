"""The acts: two deposits, a Validator group that turns, the way out of it, and life in the next epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from coordinator.demo.first_epoch import order_payments
from coordinator.demo.following import BOOKED, PATIENCE_SECONDS, follow
from coordinator.demo.people import Person
from coordinator.demo.stage import Stage
from coordinator.demo_emergency.timeline import Timeline
from coordinator.demo_emergency.turncoats import Turncoats
from smpc.bitcoin.amount import parse_btc
from smpc.errors import CheckFailed
from smpc.params import REGTEST

DEPOSITS: Final = {"anna": "3", "ben": "0.5"}
BURNT: Final = "0.2"
"""BTC that ben asks back, and that the hostile group would have to sign."""

EMERGENCY_SECONDS: Final = 120.0
"""How long everything from the first lie to the last booking may take before the demonstration gives up."""


@dataclass(slots=True)
class Record:
    """What the acts leave for the report."""

    timeline: Timeline | None = None
    turned: list[str] = field(default_factory=list)
    """Pods that turned."""
    before: dict[str, Any] = field(default_factory=dict)
    """Supply, accounts and coverage before the group turned."""
    after: dict[str, Any] = field(default_factory=dict)
    """The same at the end."""
    lost_sats: int = 0
    """What the emergencies cost the reserve."""


def play(stage: Stage, record: Record) -> None:
    """Play every act in order."""
    people = _peg_in(stage)
    record.before = _count(stage, people)
    turncoats = Turncoats()
    try:
        epoch, members = _find_vault_group(stage)
        _turn_group(stage, record, turncoats, epoch, members)
        pegout = _ask_back(stage, people["ben"])
        _see_emergency(stage, record, epoch, turncoats)
        _check_blame(stage, record, members)
        _check_books(stage, record, people)
        _go_on(stage, people, pegout)
    finally:
        turncoats.end()
    record.after = _count(stage, people)


def _peg_in(stage: Stage) -> dict[str, Person]:
    stage.title("Two users peg in; nothing is credited before its way out is signed")
    people = {name: Person.enter(stage, name, "10") for name in (*DEPOSITS, "carla")}
    stage.mine(1)
    orders = {name: people[name].order(stage, amount) for name, amount in DEPOSITS.items()}
    for name, order in orders.items():
        people[name].pay(stage, order_payments(order))
    for name, order in orders.items():
        follow(stage, ("pegin", "status", order["id"]), f"{name}'s peg-in", BOOKED)
    coverage = stage.peg("emergency", "coverage")
    stage.tell(f"{coverage['armed_sats']} of {coverage['total_sats']} sat in the vault have pre-signed emergencies")
    return people


def _find_vault_group(stage: Stage) -> tuple[int, list[dict[str, Any]]]:
    """Return the epoch that holds the vault, and its Validator group's processes."""
    held = stage.peg("emergency", "coverage", quiet=True)["epochs"]
    epoch = int(max(held, key=lambda item: item["total_sats"])["epoch"])
    groups = {group["role"]: group for group in stage.peg("epoch", "show", str(epoch), quiet=True)["groups"]}
    processes = stage.peg("devnet", "status", quiet=True)["processes"]
    members = groups["validator"]["members"]
    return epoch, [process for process in processes if process["identity"] in members]


def _turn_group(stage: Stage, record: Record, turncoats: Turncoats, epoch: int, members: list[dict[str, Any]]) -> None:
    record.turned = [pod["name"] for pod in members]
    stage.title(f"The whole Validator group of epoch {epoch} turns malicious: {', '.join(record.turned)}")
    turncoats.turn(stage, members)
    record.timeline = Timeline(epoch)
    record.timeline.note(stage, f"{len(members)} of {len(members)} members hold real keys and sign wrongly from now on")


def _ask_back(stage: Stage, ben: Person) -> dict[str, Any]:
    stage.title(f"ben asks for {BURNT} BTC: the group would have to sign it")
    address = str(stage.bitcoin("getnewaddress", "", "bech32", wallet=ben.name, quiet=False))
    stage.mine(REGTEST.transfer_csv)  # the vault outputs have rested then, and can be spent
    return stage.peg("pegout", "request", "--from", ben.name, "--to", address, "--amount", BURNT)


def _see_emergency(stage: Stage, record: Record, epoch: int, turncoats: Turncoats) -> None:
    stage.title("Detection, verdict, release, rejection, confirmation, as the command line shows them")
    timeline = record.timeline
    assert timeline is not None  # the group turned before

    def look() -> tuple[bool, str]:
        if not turncoats.are_running:
            raise CheckFailed("a hostile pod ended by itself", remedy="see its hostile.log")
        is_done = timeline.look(stage)
        return is_done, "all outputs are booked" if is_done else ""

    stage.wait(f"the emergency of epoch {epoch}", look, EMERGENCY_SECONDS)


def _check_blame(stage: Stage, record: Record, members: list[dict[str, Any]]) -> None:
    """Say who was slashed; CheckFailed when one of them was not of the group that lied."""
    assert record.timeline is not None
    liars = {pod["identity"]: pod["name"] for pod in members}
    slashed = [item["identity"] for item in record.timeline.slashed]
    honest = [identity for identity in slashed if identity not in liars]
    if honest or not slashed:
        raise CheckFailed(f"{honest or 'nobody'} was slashed", remedy="see peg jail list")
    stage.tell(f"slashed: {', '.join(sorted(liars[identity] for identity in slashed))}, and nobody else")


def _check_books(stage: Stage, record: Record, people: dict[str, Person]) -> None:
    """Compare ledger, accounts and chain after the emergency; CheckFailed when they differ by a satoshi."""
    assert record.timeline is not None
    now = _count(stage, people)
    record.lost_sats = record.before["supply"]["locked_sats"] - now["supply"]["locked_sats"]
    if now["supply"]["difference_sats"] != 0:
        raise CheckFailed(f"the money identity is off by {now['supply']['difference_sats']} sat")
    if now["balances"]["anna"] != record.before["balances"]["anna"]:
        raise CheckFailed("anna's balance changed")
    counted = sum(_count_output(stage, item["txid"]) for item in record.timeline.outputs)
    stage.tell(f"anna still holds {now['balances']['anna']} sat of kBTC; ben waits for his payout")
    stage.tell(f"bitcoind counts {counted} sat in the emergencies' outputs, under the next Validator group")
    stage.tell(f"it cost the reserve {record.lost_sats} sat of miner fees and anchors, and the users nothing")


def _count_output(stage: Stage, txid: str) -> int:
    mined = stage.bitcoin("getrawtransaction", txid, 1)
    return int(parse_btc(mined["vout"][0]["value"]))


def _go_on(stage: Stage, people: dict[str, Person], pegout: dict[str, Any]) -> None:
    stage.title("Life goes on in the next epoch: ben is paid, and carla pegs in")
    order = _order_again(stage, people["carla"])
    people["carla"].pay(stage, order_payments(order))
    follow(stage, ("pegin", "status", order["id"]), "carla's peg-in", BOOKED)
    follow(stage, ("pegout", "status", pegout["id"]), "ben's peg-out", BOOKED)


def _order_again(stage: Stage, carla: Person) -> dict[str, Any]:
    """Ask for an address once credits go on: what arrived by emergencies is armed again first."""

    def look() -> tuple[bool, str]:
        coverage = stage.peg("supply", quiet=True)["coverage"]
        return coverage == "1.0000", f"coverage {coverage}"

    stage.wait("the way out of what arrived", look, PATIENCE_SECONDS)
    return carla.order(stage, "1")


def _count(stage: Stage, people: dict[str, Person]) -> dict[str, Any]:
    return {
        "supply": stage.peg("supply", quiet=True),
        "balances": {name: person.balance(stage) for name, person in people.items()},
    }
