"""The last act: the money identity, the accounts, and a count of the vault from the Bitcoin node alone."""

from __future__ import annotations

from coordinator.demo.following import BOOKED
from coordinator.demo.stage import Stage
from coordinator.demo.story import Story
from coordinator.demo.turns import fetch_sweeps
from smpc.bitcoin.amount import parse_btc
from smpc.errors import CheckFailed


def close_books(stage: Stage, story: Story) -> None:
    """Compare ledger, accounts and chain; CheckFailed when they differ by a satoshi."""
    stage.title("The books")
    _note_sweeps(stage, story)
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


def _note_sweeps(stage: Stage, story: Story) -> None:
    """Note every booked sweep, also one that carried a peg-out."""
    for epoch in range(int(stage.peg("epoch", "show", quiet=True)["epoch"])):
        for sweep in fetch_sweeps(stage, epoch)["sweeps"]:
            if sweep["state"] == BOOKED:
                story.sweeps.append({"epoch": epoch, **sweep})
                story.transactions[sweep["txid"]] = f"sweep of epoch {epoch}: vault to vault"


def _count_vault(stage: Stage, story: Story) -> int:
    """Add up, from the node alone, what the bridge's own transactions left unspent and paid to nobody."""
    paid = {pegout["address"] for pegout in story.pegouts}
    members = {process["identity"] for process in stage.peg("devnet", "status", quiet=True)["processes"]}
    total = 0
    for txid, kind in story.transactions.items():
        if "vault" not in kind:
            continue
        for position, output in enumerate(stage.bitcoin("getrawtransaction", txid, 1)["vout"]):
            unspent, script = stage.bitcoin("gettxout", txid, position), output["scriptPubKey"]
            # A commission goes to its member's own key: a devnet registers the identity key itself.
            if unspent is None or script.get("address") in paid or script["hex"][4:] in members:
                continue
            total += parse_btc(unspent["value"])
    return total
