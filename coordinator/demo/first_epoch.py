"""The first acts: peg-ins with a participant away, a payment that is too little, and its refund by a wallet alone."""

from __future__ import annotations

from typing import Any, Final

from coordinator.demo.following import BOOKED, OUT_OF_BOUNDS, PATIENCE_SECONDS, REFUNDED, follow
from coordinator.demo.people import Person
from coordinator.demo.stage import Stage
from coordinator.demo.story import Story
from smpc.errors import CheckFailed, Unavailable
from smpc.types import Sats

TOO_LITTLE: Final = Sats(15_000)
"""What the third user pays: below the least deposit of 20,000 satoshi."""


def play_first_epoch(stage: Stage, story: Story) -> dict[str, Any]:
    """Peg in with one participant of the Validator group away; the order of the user who pays too little."""
    _enter_people(stage, story)
    anna, ben, carla = story.people
    stage.title("Three peg-ins: anna asks for two outputs, ben for one, carla for one that she will underpay")
    orders = [anna.order(stage, "6", "3"), ben.order(stage, "0.2"), carla.order(stage, "0.001")]
    _pay_deposits(stage, story, orders)
    _stop_a_validator(stage, story)
    stage.title("The deposits mature, both groups sign their transfer, the ledger credits them")
    for order, person in zip(orders[:2], story.people[:2], strict=True):
        follow_peg_in(stage, story, order, person)
    for person in story.people[:2]:
        stage.tell(f"{person.name} holds {person.balance(stage)} sat of kBTC")
    _see_underpayment(stage, orders[2])
    return orders[2]


def follow_peg_in(stage: Stage, story: Story, order: dict[str, Any], person: Person) -> None:
    """Follow a peg-in until it is credited, and note its transfers."""
    pegin = follow(stage, ("pegin", "status", order["id"]), f"{person.name}'s peg-in", BOOKED)
    story.pegins.append(pegin)
    for txid in {output["transfer_txid"] for output in pegin["outputs"]}:
        story.transactions[txid] = "transfer into the vault"


def bring_validator_back(stage: Stage, story: Story) -> None:
    """Start the participant that was stopped and wait until it serves."""
    stage.title(f"{story.absent_pod} comes back, in the middle of a peg-out")
    stage.peg("devnet", "start", story.absent_pod)

    def look() -> tuple[bool, str]:
        waiting = stage.peg("devnet", "status", quiet=True)["waiting_for"]
        return not waiting, ", ".join(waiting) or "serves again"

    stage.wait(story.absent_pod, look, PATIENCE_SECONDS)


def take_refund(stage: Stage, story: Story, carla: Person, order: dict[str, Any]) -> None:
    """Take an underpaid deposit back with the user's own wallet: too early first, then when its lock is over."""
    stage.title("carla takes her deposit back, with her bitcoind wallet alone")
    refund = stage.peg("pegin", "refund", order["id"])
    stage.tell(f"the chain keeps her waiting {refund['blocks_left']} blocks more; trying too early:")
    try:
        carla.sign_and_send(stage, refund["psbt"])
    except Unavailable as refused:
        stage.tell(refused.message)
    else:
        raise CheckFailed("the node took a refund before its time")
    stage.mine(refund["blocks_left"])
    txid = carla.sign_and_send(stage, refund["psbt"])
    story.transactions[txid] = "refund by carla alone"
    final = follow(stage, ("pegin", "status", order["id"]), "carla's peg-in", REFUNDED)
    story.refunds.append({**refund, "txid": txid, "state": final["state"]})


def _enter_people(stage: Stage, story: Story) -> None:
    stage.title("Three users: each with a wallet of his own in bitcoind and a kBTC account of his own")
    coins = {"anna": "10", "ben": "2", "carla": "2"}
    story.people = [Person.enter(stage, name, amount) for name, amount in coins.items()]
    stage.mine(1)


def _pay_deposits(stage: Stage, story: Story, orders: list[dict[str, Any]]) -> None:
    stage.title("They pay: anna and ben as asked, carla 15,000 satoshi, which is too little")
    for person, order in zip(story.people, orders, strict=True):
        payments = order_payments(order)
        if person.name == "carla":
            payments = dict.fromkeys(payments, TOO_LITTLE)
        story.transactions[person.pay(stage, payments)] = f"deposit of {person.name}"


def order_payments(order: dict[str, Any]) -> dict[str, Sats]:
    """Return what an order asks to be paid, by address."""
    return {output["address"]: Sats(output["amount_sats"]) for output in order["outputs"]}


def _stop_a_validator(stage: Stage, story: Story) -> None:
    stage.title("A member of the Validator group goes away")
    groups = {group["role"]: group for group in stage.peg("epoch", "show")["groups"]}
    absent = groups["validator"]["members"][0]
    processes = stage.peg("devnet", "status", quiet=True)["processes"]
    story.absent_pod = next(process["name"] for process in processes if process["identity"] == absent)
    stage.peg("devnet", "stop", story.absent_pod)
    stage.tell(f"{story.absent_pod} is stopped: {groups['validator']['threshold']} of its group must do without it")


def _see_underpayment(stage: Stage, order: dict[str, Any]) -> None:
    pegin = stage.peg("pegin", "status", order["id"], quiet=True)
    if pegin["state"] != OUT_OF_BOUNDS:
        raise CheckFailed(f"carla's deposit is {pegin['state']}, not {OUT_OF_BOUNDS}")
    stage.tell(f"carla's deposit is {OUT_OF_BOUNDS}: waiting for {pegin['waiting_for']}")
