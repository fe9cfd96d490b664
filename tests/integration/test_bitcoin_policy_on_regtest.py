"""Dust, sizes and batches: what we call relayable, a node with default policy relays, and nothing beyond."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smpc.bitcoin.fees import (
    VAULT_TRANSFER,
    assemble_witness,
    compute_dust_limit,
    compute_fee,
    compute_spend_vbytes,
    find_nonstandard_reason,
)
from smpc.bitcoin.script import PAY_TO_ANCHOR, Leaf, build_op_return
from smpc.bitcoin.sighash import precompute_sighash
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.types import FeeRate, Outpoint, Sats, Script, txid_from_hex
from tests.support.leaf_signers import LOCKS, LeafSigners, build_spend, sign_leaf
from tests.support.regtest import RegtestNode

VALUE = Sats(100_000)
SIGNERS = LeafSigners("policy")
TREE = SIGNERS.vault()
P2WPKH = Script(b"\x00\x14" + bytes(20))
SCRIPTS = {
    "p2pkh": Script(b"\x76\xa9\x14" + bytes(20) + b"\x88\xac"),
    "p2sh": Script(b"\xa9\x14" + bytes(20) + b"\x87"),
    "p2wpkh": P2WPKH,
    "p2wsh": Script(b"\x00\x20" + bytes(32)),
    "p2tr": TREE.script,
    "anchor": PAY_TO_ANCHOR,
}


def _fund(node: RegtestNode) -> tuple[Outpoint, TxOut]:
    txid, vout = node.fund_script(TREE.script, VALUE)
    return Outpoint(txid_from_hex(txid), vout), TxOut(VALUE, TREE.script)


def _refusal(node: RegtestNode, transaction: Transaction) -> str | None:
    answer = node.rpc("testmempoolaccept", [transaction.to_bytes().hex()])[0]
    return None if answer["allowed"] else str(answer["reject-reason"])


def _paying(coin: tuple[Outpoint, TxOut], *outputs: TxOut, version: int = 2) -> Transaction:
    unsigned = replace(build_spend(coin[0], VALUE, P2WPKH, LOCKS.emergency, version), outputs=outputs)
    return sign_leaf(unsigned, coin[1], TREE, Leaf.REJECTION, SIGNERS)


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_an_output_at_the_dust_limit_is_relayed_and_one_satoshi_less_is_not(
    regtest: RegtestNode, script: Script
) -> None:
    coin = _fund(regtest)
    rest = TxOut(Sats(90_000), P2WPKH)
    limit = compute_dust_limit(script)
    enough = _paying(coin, rest, TxOut(limit, script))
    short = _paying(coin, rest, TxOut(Sats(limit - 1), script))
    assert (_refusal(regtest, enough), find_nonstandard_reason(enough)) == (None, None)
    assert "dust" in str(_refusal(regtest, short))
    assert "dust" in str(find_nonstandard_reason(short))


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_versions_we_call_standard_are_those_the_node_relays(regtest: RegtestNode, version: int) -> None:
    transaction = _paying(_fund(regtest), TxOut(Sats(90_000), P2WPKH), version=version)
    reason = _refusal(regtest, transaction)
    if version == 1:
        assert "script" in str(reason), "version 1 is relayed, but no relative lock can pass in it"
        assert find_nonstandard_reason(transaction) is None
    else:
        assert (reason is None) is (find_nonstandard_reason(transaction) is None)


def test_one_op_return_is_relayed(regtest: RegtestNode) -> None:
    note = TxOut(Sats(0), build_op_return(b"KAON" + bytes(70)))
    transaction = _paying(_fund(regtest), TxOut(Sats(90_000), P2WPKH), note)
    assert (_refusal(regtest, transaction), find_nonstandard_reason(transaction)) == (None, None)


def test_a_batch_of_500_inputs_has_the_size_and_fee_computed_before_signing_and_is_mined(
    regtest: RegtestNode,
) -> None:
    many = tuple(TxOut(Sats(10_000), TREE.script) for _ in range(500))
    txid, vout = regtest.fund_script(TREE.script, 5_100_000)
    coin = (Outpoint(txid_from_hex(txid), vout), TxOut(Sats(5_100_000), TREE.script))
    parent = _paying(coin, *many)
    regtest.rpc("sendrawtransaction", parent.to_bytes().hex())
    regtest.mine(LOCKS.transfer)

    outputs = [P2WPKH] * 100
    vbytes = compute_spend_vbytes([VAULT_TRANSFER] * 500, outputs, LOCKS)
    fee = compute_fee(FeeRate(2_000), vbytes)
    each, rest = divmod(500 * 10_000 - fee, 100)
    txouts = (TxOut(Sats(each + rest), P2WPKH), *(TxOut(Sats(each), P2WPKH) for _ in range(99)))
    unsigned = Transaction(2, tuple(TxIn(parent.outpoint(place), LOCKS.transfer) for place in range(500)), txouts, 0)
    context = precompute_sighash(unsigned, many)
    leaf, block = TREE.leaf(Leaf.TRANSFER), TREE.control_block(Leaf.TRANSFER)
    digests = (context.compute(index, leaf) for index in range(500))
    stacks = [[SIGNERS.sign("v", digest), SIGNERS.sign("w", digest)] for digest in digests]
    signed = unsigned.with_witnesses([assemble_witness(leaf, block, stack) for stack in stacks])

    assert find_nonstandard_reason(signed) is None
    assert signed.vsize == vbytes
    answer = regtest.rpc("testmempoolaccept", [signed.to_bytes().hex()])[0]
    assert answer["allowed"]
    assert (answer["vsize"], int(answer["fees"]["base"].scaleb(8))) == (vbytes, fee)
    regtest.rpc("sendrawtransaction", signed.to_bytes().hex())
    regtest.mine(1)
    assert regtest.rpc("getrawtransaction", signed.txid[::-1].hex(), 1)["confirmations"] == 1
