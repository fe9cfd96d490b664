"""Both flows on a whole devnet while the coordinator is killed in every state, and while Bitcoin reorganises."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.support.devnet import RunningDevnet

pytestmark = pytest.mark.slow

PATIENCE = 180.0


def kill_coordinator(devnet: RunningDevnet) -> None:
    """Kill it without warning, and start it again."""
    devnet.peg("devnet", "kill", "coordinator")
    devnet.peg("devnet", "start", "coordinator")


def follow(devnet: RunningDevnet, words: tuple[str, ...], end: str) -> list[str]:
    """Kill the coordinator in every state that is seen, until the last; mine all the while. The states, in order."""
    states: list[str] = []

    def look() -> bool:
        heard = devnet.try_peg(*words)
        if heard.code == 0:
            state = str(heard.data["state"])
            if not states or states[-1] != state:
                states.append(state)
                if state != end:
                    kill_coordinator(devnet)
            elif state != end:
                devnet.mine()
        return states[-1:] == [end]

    devnet.wait(look, f"{' '.join(words)} {end}", PATIENCE)
    return states


def assert_balanced(devnet: RunningDevnet) -> None:
    supply = devnet.peg("supply")
    assert supply["difference_sats"] == 0
    assert supply["locked_sats"] == supply["supply_sats"] + supply["pegout_in_flight_sats"] + supply["reserve_sats"]


def test_a_coordinator_killed_in_every_state_credits_and_pays_once(devnet: RunningDevnet) -> None:
    user = devnet.enter_user()
    order = devnet.order(user, "0.5")
    devnet.pay(user, order["outputs"][0]["address"], "0.5")
    states = follow(devnet, ("pegin", "status", order["id"]), "booked")
    assert len(states) >= 3, states
    credited = devnet.peg("pegin", "status", order["id"])["outputs"][0]["credited_sats"]
    assert devnet.peg("balance", user)["accounts"][0]["balance_sats"] == credited

    devnet.mine(3)
    address = str(devnet.bitcoin("getnewaddress", wallet=user))
    burn = devnet.peg("pegout", "request", "--from", user, "--to", address, "--amount", "0.1")
    follow(devnet, ("pegout", "status", burn["id"]), "booked")
    devnet.mine(3)
    assert Decimal(str(devnet.bitcoin("getreceivedbyaddress", address, 1, wallet=user))) == Decimal("0.1")
    assert len(devnet.bitcoin("listreceivedbyaddress", 1, False, False, address, wallet=user)[0]["txids"]) == 1
    assert_balanced(devnet)


def disconnect(devnet: RunningDevnet, depth: int) -> None:
    """Take the newest blocks off the node's chain; their transactions wait in the mempool again."""
    height = int(devnet.bitcoin("getblockcount"))
    devnet.bitcoin("invalidateblock", devnet.bitcoin("getblockhash", height - depth + 1))


def test_a_reorg_of_depth_two_under_a_deposit_delays_its_credit_only(devnet: RunningDevnet) -> None:
    user = devnet.enter_user()
    devnet.mine(3)
    order = devnet.order(user, "0.2")
    status = ("pegin", "status", order["id"])
    devnet.pay(user, order["outputs"][0]["address"], "0.2")
    devnet.mine(2)
    assert devnet.wait_state(status, "maturing")["outputs"][0]["confirmations"] >= 1

    disconnect(devnet, 2)
    assert devnet.wait_state(status, "seen")["outputs"][0]["confirmations"] == 0
    done = devnet.wait_state(status, "booked", mine=True)

    assert devnet.peg("balance", user)["accounts"][0]["balance_sats"] == done["outputs"][0]["credited_sats"]
    assert_balanced(devnet)


def test_a_reorg_of_depth_two_under_a_payout_pays_it_once(devnet: RunningDevnet) -> None:
    user = devnet.enter_user()
    devnet.credit(user, "0.3")
    devnet.mine(3)
    address = str(devnet.bitcoin("getnewaddress", wallet=user))
    burn = devnet.peg("pegout", "request", "--from", user, "--to", address, "--amount", "0.1")
    status = ("pegout", "status", burn["id"])
    devnet.wait_state(status, "broadcast")
    devnet.mine(2)
    devnet.wait_state(status, "confirmed")

    disconnect(devnet, 2)
    devnet.wait_state(status, "broadcast")
    devnet.wait_state(status, "booked", mine=True)

    devnet.mine(3)
    assert Decimal(str(devnet.bitcoin("getreceivedbyaddress", address, 1, wallet=user))) == Decimal("0.1")
    assert_balanced(devnet)
