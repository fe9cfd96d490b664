"""Both ways through the command line alone: peg in, send, peg out, cancel, refund, and everything that is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.devnet import RunningDevnet

PEGIN_FIELDS = {
    "id",
    "state",
    "epoch",
    "index",
    "recipient",
    "refund_key",
    "expires_btc_height",
    "bip21",
    "psbt",
    "waiting_for",
    "outputs",
}
OUTPUT_FIELDS = {
    "address",
    "descriptor",
    "amount_sats",
    "outpoint",
    "value_sats",
    "confirmations",
    "transfer_txid",
    "fee_sats",
    "credited_sats",
    "refund_btc_height",
}
PEGOUT_FIELDS = {
    "id",
    "state",
    "burn_sats",
    "payout_sats",
    "fee_sats",
    "address",
    "max_fee_sats",
    "txids",
    "confirmations",
    "waiting_for",
}
SUPPLY_FIELDS = {
    "supply_sats",
    "locked_sats",
    "pegin_in_flight_sats",
    "pegout_in_flight_sats",
    "reserve_sats",
    "difference_sats",
    "coverage",
    "kaon_height",
    "btc_height",
    "heartbeats_btc_height",
}


@pytest.fixture(scope="module")
def rich_user(devnet: RunningDevnet) -> str:
    """Give a user with 0.5 BTC pegged in."""
    user = devnet.enter_user()
    devnet.credit(user, "0.5")
    return user


def _balance(devnet: RunningDevnet, account: str) -> int:
    return int(devnet.peg("balance", account)["balance_sats"])


def test_a_peg_in_of_two_outputs_is_credited_less_its_fees(devnet: RunningDevnet) -> None:
    user = devnet.enter_user()
    order = devnet.order(user, "0.03", "2500000sat")
    assert set(order) >= PEGIN_FIELDS
    assert [output["amount_sats"] for output in order["outputs"]] == [3_000_000, 2_500_000]
    for output, amount in zip(order["outputs"], ("0.03", "0.025"), strict=True):
        assert set(output) >= OUTPUT_FIELDS
        devnet.pay(user, output["address"], amount)

    booked = devnet.wait_state(("pegin", "status", order["id"]), "booked", mine=True)

    for output in booked["outputs"]:
        assert output["credited_sats"] == output["value_sats"] - output["fee_sats"]
        assert output["outpoint"]
        assert len(output["transfer_txid"]) == 64
    assert _balance(devnet, user) == sum(output["credited_sats"] for output in booked["outputs"])


def test_every_invoice_is_a_descriptor_that_the_users_own_node_derives_to_the_same_address(
    devnet: RunningDevnet,
) -> None:
    user = devnet.enter_user("0.1")
    (output,) = devnet.order(user, "0.01")["outputs"]

    assert devnet.bitcoin("deriveaddresses", output["descriptor"]) == [output["address"]]
    assert output["bip21"] == f"bitcoin:{output['address']}?amount=0.01000000"


def test_the_funding_template_pays_every_output(devnet: RunningDevnet) -> None:
    user = devnet.enter_user("0.1")
    order = devnet.order(user, "0.01", "0.02")

    decoded = devnet.bitcoin("decodepsbt", order["psbt"])

    paid = [(out["scriptPubKey"]["address"], str(out["value"])) for out in decoded["tx"]["vout"]]
    assert paid == [(order["outputs"][0]["address"], "0.01000000"), (order["outputs"][1]["address"], "0.02000000")]


def test_the_same_request_id_gives_the_same_peg_in_and_never_another_one(devnet: RunningDevnet) -> None:
    user = devnet.enter_user("0.1")
    account = devnet.peg("account", "list")["accounts"][0]["account"]
    key = devnet.order(user, "0.01")["refund_key"]
    words = ["pegin", "create", "--refund-key", key, "--recipient", account, "--request-id", f"once-{user}"]

    first = devnet.peg(*words, "--amount", "0.02")
    again = devnet.peg(*words, "--amount", "0.02")
    other = devnet.try_peg(*words, "--amount", "0.03")

    assert again["id"] == first["id"]
    assert again["outputs"][0]["address"] == first["outputs"][0]["address"]
    assert other.code == 3


def test_kbtc_is_sent_and_paid_out(devnet: RunningDevnet, rich_user: str) -> None:
    friend = devnet.enter_user("0.1")
    before = _balance(devnet, rich_user)

    sent = devnet.peg("send", "--from", rich_user, "--to", friend, "--amount", "0.1")
    assert sent["amount_sats"] == 10_000_000
    shown = devnet.peg("transfer", sent["id"])
    assert (shown["amount_sats"], shown["kaon_height"]) == (10_000_000, sent["kaon_height"])
    assert shown["confirmations"] == shown["raw_confirmations"] >= sent["raw_confirmations"] >= 1
    assert (_balance(devnet, rich_user), _balance(devnet, friend)) == (before - 10_000_000, 10_000_000)

    address = str(devnet.bitcoin("getnewaddress", wallet=friend))
    requested = devnet.peg("pegout", "request", "--from", friend, "--to", address, "--amount", "0.05")
    assert set(requested) >= PEGOUT_FIELDS
    paid = devnet.wait_state(("pegout", "status", requested["id"]), "booked", mine=True)

    assert set(paid) >= PEGOUT_FIELDS
    assert (paid["confirmations"], paid["raw_confirmations"]) == (paid["payout_confirmations"], None)
    assert paid["burn_sats"] == paid["payout_sats"] + paid["fee_sats"]
    assert str(devnet.bitcoin("getreceivedbyaddress", address, 3, wallet=friend)) == "0.05000000"
    assert _balance(devnet, friend) == 10_000_000 - paid["burn_sats"]
    assert paid["id"] in [item["id"] for item in devnet.peg("pegout", "list", "--from", friend)["pegouts"]]


def test_a_watch_shows_every_state_on_a_line_and_ends_by_itself(devnet: RunningDevnet, rich_user: str) -> None:
    listed = devnet.peg("pegin", "list", "--recipient", rich_user)["pegins"]

    heard = devnet.try_peg("pegin", "watch", listed[0]["id"], "--timeout", "20")

    assert heard.code == 0
    assert heard.documents[-1]["schema"] == "peg.pegin.watch/1"
    assert heard.data["state"] == "booked"


def test_a_watch_gives_up_when_it_is_told_to(devnet: RunningDevnet) -> None:
    order = devnet.order(devnet.enter_user("0.1"), "0.01")

    heard = devnet.try_peg("pegin", "watch", order["id"], "--timeout", "1")

    assert heard.code == 6
    assert heard.documents[0]["data"]["state"] == "issued"
    assert heard.error["code"] == "TIMED_OUT"


def test_an_underpaid_deposit_is_taken_back_with_the_bitcoind_wallet_alone(devnet: RunningDevnet) -> None:
    user = devnet.enter_user()
    order = devnet.order(user, "0.01")
    devnet.pay(user, order["outputs"][0]["address"], "0.00015")
    devnet.wait_state(("pegin", "status", order["id"]), "out_of_bounds", mine=True)

    refund = devnet.peg("pegin", "refund", order["id"])
    devnet.mine(refund["blocks_left"])
    signed = devnet.bitcoin("walletprocesspsbt", refund["psbt"], wallet=user)
    assert signed["complete"]
    devnet.bitcoin("sendrawtransaction", signed["hex"])

    devnet.wait_state(("pegin", "status", order["id"]), "refunded", mine=True)
    assert _balance(devnet, user) == 0
    assert devnet.try_peg("pegin", "refund", order["id"]).code in {3, 4}


def test_the_books_balance_to_the_satoshi(devnet: RunningDevnet, rich_user: str) -> None:
    supply = devnet.peg("supply")

    assert set(supply) >= SUPPLY_FIELDS
    assert supply["difference_sats"] == 0
    assert supply["supply_sats"] >= _balance(devnet, rich_user) > 0
    total = supply["supply_sats"] + supply["pegout_in_flight_sats"] + supply["reserve_sats"]
    assert supply["locked_sats"] == total


def test_what_the_ledger_forbids_is_refused_with_its_rule(devnet: RunningDevnet, rich_user: str) -> None:
    own = devnet.order(rich_user, "0.01")["outputs"][0]["address"]
    plain = str(devnet.bitcoin("getnewaddress", wallet=rich_user))
    request = ("pegout", "request", "--from", rich_user, "--to")

    too_small = devnet.try_peg(*request, plain, "--amount", "9999sat")
    assert (too_small.code, too_small.error["rule"]) == (3, "V41")
    to_the_bridge = devnet.try_peg(*request, own, "--amount", "0.01")
    assert (to_the_bridge.code, to_the_bridge.error["rule"]) == (3, "V42")
    too_much = devnet.try_peg(*request, plain, "--amount", "90")
    assert (too_much.code, too_much.error["code"]) == (3, "INSUFFICIENT_BALANCE")
    foreign = devnet.try_peg(*request, "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "--amount", "0.01")
    assert foreign.code == 2


def test_the_reserve_is_topped_up_from_an_account_and_shows_before_and_after(
    devnet: RunningDevnet, rich_user: str
) -> None:
    before = devnet.peg("reserve", "show")
    dry = devnet.peg("reserve", "pay-in", "--from", rich_user, "--amount", "70000sat", "--dry-run")
    assert dry["reserve_after_sats"] == dry["reserve_before_sats"] + 70_000
    assert devnet.peg("reserve", "show")["reserve_sats"] == before["reserve_sats"]
    paid = devnet.peg("reserve", "pay-in", "--from", rich_user, "--amount", "70000sat")
    assert paid["account_after_sats"] == paid["account_before_sats"] - 70_000 == _balance(devnet, rich_user)
    assert paid["reserve_after_sats"] == paid["reserve_before_sats"] + 70_000
    devnet.wait(lambda: devnet.peg("reserve", "show")["reserve_sats"] == paid["reserve_after_sats"], "the pay-in")
    assert not devnet.peg("reserve", "show")["are_credits_halted"]
    assert devnet.peg("supply")["difference_sats"] == 0


def test_an_account_cannot_pay_more_in_than_it_holds(devnet: RunningDevnet, rich_user: str) -> None:
    one_more = f"{_balance(devnet, rich_user) + 1}sat"
    refused = devnet.try_peg("reserve", "pay-in", "--from", rich_user, "--amount", one_more)
    assert (refused.code, refused.error["code"]) == (3, "INSUFFICIENT_BALANCE")


def test_a_dry_run_changes_nothing(devnet: RunningDevnet, rich_user: str) -> None:
    address = str(devnet.bitcoin("getnewaddress", wallet=rich_user))

    burn = devnet.peg("pegout", "request", "--from", rich_user, "--to", address, "--amount", "0.01")["id"]
    devnet.wait_state(("pegout", "status", burn), "booked", mine=True)

    def look() -> list[Any]:
        entry = devnet.peg("balance", rich_user)["accounts"][0]
        pegins = [item["id"] for item in devnet.peg("pegin", "list", "--limit", "1000")["pegins"]]
        return [entry, pegins, devnet.peg("pegout", "list")["pegouts"], devnet.bitcoin("getrawmempool")]

    before = look()
    for words in (
        ("pegin", "create", "--wallet", rich_user, "--amount", "0.01"),
        ("pegout", "request", "--from", rich_user, "--to", address, "--amount", "0.01"),
        ("send", "--from", rich_user, "--to", rich_user, "--amount", "0.01"),
        ("pegout", "bump", burn, "--from", rich_user, "--extra", "1000sat"),
        ("pegout", "cancel", burn, "--from", rich_user),
    ):
        assert devnet.peg(*words, "--dry-run")["dry_run"] is True
    assert look() == before


def test_the_doctor_finds_nothing_wrong_and_names_what_is(devnet: RunningDevnet) -> None:
    healthy = devnet.peg("doctor")
    assert healthy["is_ok"]
    assert {"consensus.tip", "consensus.money", "coordinator.reachable"} <= {
        item["name"] for item in healthy["findings"]
    }

    devnet.peg("devnet", "stop", "pod-14")
    try:
        sick = devnet.try_peg("doctor")
    finally:
        devnet.peg("devnet", "up")
    assert sick.code == 7
    assert [item for item in sick.data["findings"] if not item["is_ok"] and item["remedy"]]


def test_every_check_of_every_pod_can_be_asked_for(devnet: RunningDevnet, rich_user: str) -> None:
    pegin = devnet.peg("pegin", "list", "--recipient", rich_user, "--state", "booked")["pegins"][0]

    explained = devnet.peg("explain", pegin["outputs"][0]["transfer_txid"])

    assert {check["rule"] for check in explained["checks"]} >= {"V10", "V14", "V21"}
    assert all(check["is_ok"] for check in explained["checks"])
    assert len({check["pod"] for check in explained["checks"]}) >= 6
    assert explained["silent"] == []


def test_a_pod_that_cannot_be_asked_is_named(devnet: RunningDevnet, rich_user: str) -> None:
    pegin = devnet.peg("pegin", "list", "--recipient", rich_user, "--state", "booked")["pegins"][0]
    processes = devnet.peg("devnet", "stop", "pod-13")["processes"]
    try:
        explained = devnet.peg("explain", pegin["id"])
    finally:
        devnet.peg("devnet", "up")
    gone = next(process["identity"] for process in processes if process["name"] == "pod-13")
    assert [item["pod"] for item in explained["silent"]] == [gone]
    assert all(item["reason"] for item in explained["silent"])
