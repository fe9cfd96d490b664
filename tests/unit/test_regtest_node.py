"""The node that integration tests stand on does what they rely on."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.support.regtest import RegtestNode, RpcError, to_btc, to_sats


def test_pays_an_address_the_exact_amount(regtest: RegtestNode) -> None:
    address = str(regtest.rpc("getnewaddress", wallet="miner"))

    txid, vout = regtest.fund(address, 12_345_679)

    output = regtest.rpc("gettxout", txid, vout)
    assert output["value"] == Decimal("0.12345679")
    assert output["confirmations"] == 1


def test_leaves_a_payment_unconfirmed_when_asked(regtest: RegtestNode) -> None:
    address = str(regtest.rpc("getnewaddress", wallet="miner"))

    txid, _ = regtest.fund(address, 100_000, confirmations=0)

    assert txid in regtest.rpc("getrawmempool")


def test_funds_an_output_script(regtest: RegtestNode) -> None:
    script = bytes.fromhex("5120" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")

    txid, vout = regtest.fund_script(script, 50_000)

    assert regtest.rpc("gettxout", txid, vout)["scriptPubKey"]["hex"] == script.hex()


def test_mines_the_number_of_blocks_asked_for(regtest: RegtestNode) -> None:
    before = regtest.height()

    hashes = regtest.mine(3)

    assert len(hashes) == 3
    assert regtest.height() == before + 3


def test_reports_a_refused_call_with_the_nodes_code(regtest: RegtestNode) -> None:
    with pytest.raises(RpcError) as refused:
        regtest.rpc("getblockhash", 10_000_000)

    assert refused.value.code == -8


def test_keeps_its_chain_over_a_kill_and_a_start() -> None:
    with RegtestNode() as node:
        node.mine(2)
        node.rpc("gettxoutsetinfo")  # flushes the chain state
        node.halt(kill=True)
        node.start()

        assert node.height() == 2


@pytest.mark.parametrize("sats", [0, 1, 99_999_999, 100_000_001, 2_100_000_000_000_000])
def test_converts_amounts_without_loss(sats: int) -> None:
    assert to_sats(to_btc(sats)) == sats


def test_refuses_a_fraction_of_a_satoshi() -> None:
    with pytest.raises(ValueError, match="whole number"):
        to_sats(Decimal("0.000000001"))
