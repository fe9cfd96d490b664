"""The story: three users, two peg-ins, one payment, one peg-out, one refund, and a participant away for a while."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from coordinator.demo.people import Person
from coordinator.demo.stage import Stage
from smpc.bitcoin.amount import parse_btc
from smpc.errors import CheckFailed, Unavailable
from smpc.types import Sats

BOOKED: Final = "booked"
REFUNDED: Final = "refunded"
OUT_OF_BOUNDS: Final = "out_of_bounds"

PATIENCE_SECONDS: Final = 90.0
"""How long any single thing may take before the demonstration gives up."""

TOO_LITTLE: Final = Sats(15_000)
"""What the third user pays: below the least deposit of 20,000 satoshi."""

_MINED_WHEN: Final = frozenset({"requested", "seen", "maturing", "transferring", "broadcast", "confirmed", "refunding"})
"""States that a Bitcoin block ends; a requested peg-out waits for a vault output to have rested."""


@dataclass(slots=True)
class Story:
    """What happened, for the report."""

    people: list[Person] = field(default_factory=list)
    pegins: list[dict[str, Any]] = field(default_factory=list)
    pegouts: list[dict[str, Any]] = field(default_factory=list)
    refunds: list[dict[str, Any]] = field(default_factory=list)
    transactions: dict[str, str] = field(default_factory=dict)
    """What each Bitcoin transaction is, by its txid."""
    absent_pod: str = ""
    supply: dict[str, Any] = field(default_factory=dict)
    balances: dict[str, int] = field(default_factory=dict)


def play(stage: Stage, story: Story) -> None:
    """Play every act in order."""
    anna, ben, carla = _enter_people(stage, story)
    stage.title("Three peg-ins: anna asks for two outputs, ben for one, carla for one that she will underpay")
    orders = [anna.order(stage, "0.5", "0.3"), ben.order(stage, "0.2"), carla.order(stage, "0.001")]
    _pay_deposits(stage, story, orders)
    _stop_a_validator(stage, story)
    _follow_peg_ins(stage, story, orders[:2])
    _see_underpayment(stage, orders[2])
    stage.title("anna sends kBTC to ben, who pegs out to a fresh address of his wallet")
    stage.peg("send", "--from", "anna", "--to", "ben", "--amount", "0.1")
    pegout = _request_payout(stage, ben)
    _bring_validator_back(stage, story)
    _follow_peg_out(stage, story, pegout)
    _take_refund(stage, story, carla, orders[2])
    _close_books(stage, story)


def _enter_people(stage: Stage, story: Story) -> list[Person]:
    stage.title("Three users: each with a wallet of his own in bitcoind and a kBTC account of his own")
    story.people = [Person.enter(stage, name, "2") for name in ("anna", "ben", "carla")]
    stage.mine(1)
    return story.people


def _pay_deposits(stage: Stage, story: Story, orders: list[dict[str, Any]]) -> None:
    stage.title("They pay: anna and ben as asked, carla 15,000 satoshi, which is too little")
    for person, order in zip(story.people, orders, strict=True):
        asked = {output["address"]: Sats(output["amount_sats"]) for output in order["outputs"]}
        payments = dict.fromkeys(asked, TOO_LITTLE) if person.name == "carla" else asked
        story.transactions[person.pay(stage, payments)] = f"deposit of {person.name}"


def _stop_a_validator(stage: Stage, story: Story) -> None:
    stage.title("A member of the Validator group goes away")
    groups = {group["role"]: group for group in stage.peg("epoch", "show")["groups"]}
    absent = groups["validator"]["members"][0]
    processes = stage.peg("devnet", "status", quiet=True)["processes"]
    story.absent_pod = next(process["name"] for process in processes if process["identity"] == absent)
    stage.peg("devnet", "stop", story.absent_pod)
    stage.tell(f"{story.absent_pod} is stopped: {groups['validator']['threshold']} of its group must do without it")


def _bring_validator_back(stage: Stage, story: Story) -> None:
    stage.title(f"{story.absent_pod} comes back, in the middle of the peg-out")
    stage.peg("devnet", "start", story.absent_pod)

    def look() -> tuple[bool, str]:
        waiting = stage.peg("devnet", "status", quiet=True)["waiting_for"]
        return not waiting, ", ".join(waiting) or "serves again"

    stage.wait(story.absent_pod, look, PATIENCE_SECONDS)


def _follow_peg_ins(stage: Stage, story: Story, orders: list[dict[str, Any]]) -> None:
    stage.title("The deposits mature, both groups sign their transfer, the ledger credits them")
    for order, person in zip(orders, story.people, strict=False):
        pegin = _follow(stage, ("pegin", "status", order["id"]), f"{person.name}'s peg-in", BOOKED)
        story.pegins.append(pegin)
        for txid in {output["transfer_txid"] for output in pegin["outputs"]}:
            story.transactions[txid] = "transfer into the vault"
    for person in story.people[:2]:
        stage.tell(f"{person.name} holds {person.balance(stage)} sat of kBTC")


def _see_underpayment(stage: Stage, order: dict[str, Any]) -> None:
    pegin = stage.peg("pegin", "status", order["id"], quiet=True)
    if pegin["state"] != OUT_OF_BOUNDS:
        raise CheckFailed(f"carla's deposit is {pegin['state']}, not {OUT_OF_BOUNDS}")
    stage.tell(f"carla's deposit is {OUT_OF_BOUNDS}: waiting for {pegin['waiting_for']}")


def _request_payout(stage: Stage, ben: Person) -> dict[str, Any]:
    address = str(stage.bitcoin("getnewaddress", "", "bech32", wallet=ben.name, quiet=False))
    return stage.peg("pegout", "request", "--from", ben.name, "--to", address, "--amount", "0.25")


def _follow_peg_out(stage: Stage, story: Story, pegout: dict[str, Any]) -> None:
    stage.title("The groups pay ben, the change goes back to the vault")
    paid = _follow(stage, ("pegout", "status", pegout["id"]), "ben's peg-out", BOOKED)
    story.pegouts.append(paid)
    story.transactions[paid["txids"][-1]] = "payout with change to the vault"
    received = stage.bitcoin("getreceivedbyaddress", paid["address"], 1, wallet="ben", quiet=False)
    stage.tell(f"ben's wallet received {received} BTC")


def _take_refund(stage: Stage, story: Story, carla: Person, order: dict[str, Any]) -> None:
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
    final = _follow(stage, ("pegin", "status", order["id"]), "carla's peg-in", REFUNDED)
    story.refunds.append({**refund, "txid": txid, "state": final["state"]})


def _close_books(stage: Stage, story: Story) -> None:
    stage.title("The books")
    story.supply = stage.peg("supply")
    story.balances = {person.name: person.balance(stage) for person in story.people}
    if story.supply["difference_sats"] != 0:
        raise CheckFailed(f"the money identity is off by {story.supply['difference_sats']} sat")
    if sum(story.balances.values()) != story.supply["supply_sats"]:
        raise CheckFailed("the accounts do not add up to the supply")
    counted = _count_vault(stage, story)
    if counted != story.supply["locked_sats"]:
        raise CheckFailed(f"the node counts {counted} sat in the vault, the ledger {story.supply['locked_sats']}")
    stage.tell(f"bitcoind counts {counted} unspent satoshi in the vault: what the ledger says is locked")


def _count_vault(stage: Stage, story: Story) -> int:
    """Add up, from the node alone, what the bridge's own transactions left unspent and did not pay to users."""
    paid = {pegout["address"] for pegout in story.pegouts}
    total = 0
    for txid, kind in story.transactions.items():
        if "vault" not in kind:
            continue
        for position, output in enumerate(stage.bitcoin("getrawtransaction", txid, 1)["vout"]):
            unspent = stage.bitcoin("gettxout", txid, position)
            if unspent is not None and output["scriptPubKey"]["address"] not in paid:
                total += parse_btc(unspent["value"])
    return total


def _follow(stage: Stage, words: tuple[str, ...], what: str, final: str) -> dict[str, Any]:
    """Follow a peg-in or peg-out to a final state, mining a block whenever only a block brings it on."""
    latest: dict[str, Any] = {}

    def look() -> tuple[bool, str]:
        latest.update(stage.peg(*words, quiet=True))
        state, waiting = latest["state"], latest["waiting_for"]
        if state in _MINED_WHEN and _is_in_a_block_or_mempool(stage, latest):
            stage.peg("devnet", "mine", "1", quiet=True)
        return state == final, f"{state}, waiting for {waiting}" if waiting else state

    stage.wait(what, look, PATIENCE_SECONDS)
    return latest


def _is_in_a_block_or_mempool(stage: Stage, item: dict[str, Any]) -> bool:
    """Tell whether the node has everything that the next block should hold."""
    txids = set(item.get("txids", [])[-1:]) | {output["transfer_txid"] for output in item.get("outputs", [])}
    try:
        for txid in txids - {None}:
            stage.bitcoin("getrawtransaction", txid)
    except Unavailable:
        return False
    return True
