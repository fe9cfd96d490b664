"""The node as judge of random trees, addresses, odd foreign transactions and whole blocks."""

from __future__ import annotations

import pytest

from smpc.bitcoin.address import parse_destination, to_address
from smpc.bitcoin.block import compute_merkle_root, find_outputs_paying, find_spends_of, parse_block
from smpc.bitcoin.descriptor_checksum import add_checksum
from smpc.bitcoin.network import get_constants
from smpc.bitcoin.script import Leaf
from smpc.bitcoin.taproot import build_tap_tree
from smpc.bitcoin.transaction import TxOut, parse_transaction
from smpc.types import Network, Outpoint, Sats, Script, block_hash_from_hex, txid_from_hex
from tests.support.leaf_signers import LOCKS, LeafSigners, build_spend, sign_leaf
from tests.support.regtest import RegtestNode
from tests.support.tap_plans import build_random_tree

ODD_SCRIPTS = [
    Script(b""),
    Script(b"\x4c\x01\x07"),
    Script(b"\x4d\x01\x00\x07\x75\x51"),
    Script(b"\xba\xbb\xfe\xff"),
    Script(b"\x4d\xff"),
    Script(b"\x6a" + bytes(300)),
    Script(b"\x52\x20" + bytes(32)),
    Script(b"\x51\x20" + (5).to_bytes(32, "big")),
]


def test_the_node_is_on_the_network_we_think_it_is(regtest: RegtestNode) -> None:
    constants = get_constants(Network.REGTEST)
    assert block_hash_from_hex(regtest.rpc("getblockhash", 0)) == constants.genesis_hash
    assert regtest.rpc("getblockchaininfo")["chain"] == constants.chain_name


@pytest.mark.parametrize("leaves", [1, 2, 3, 4, 5, 7, 8])
def test_the_node_derives_the_same_address_from_a_random_trees_descriptor(regtest: RegtestNode, leaves: int) -> None:
    for seed in range(4):
        random_tree = build_random_tree(seed, leaves)
        tree = build_tap_tree(random_tree.plan)
        descriptor = add_checksum(random_tree.descriptor)
        assert regtest.rpc("getdescriptorinfo", descriptor)["checksum"] == descriptor[-8:]
        address = to_address(tree.script, Network.REGTEST)
        assert regtest.rpc("deriveaddresses", descriptor) == [address]
        assert regtest.rpc("decodescript", tree.script.hex())["address"] == address


@pytest.mark.parametrize("kind", ["legacy", "p2sh-segwit", "bech32", "bech32m"])
def test_the_nodes_own_addresses_are_destinations(regtest: RegtestNode, kind: str) -> None:
    wallet = regtest.create_wallet(f"addresses-{kind}")
    for _ in range(5):
        address = regtest.rpc("getnewaddress", "", kind, wallet=wallet)
        script = parse_destination(address, Network.REGTEST)
        assert script.hex() == regtest.rpc("getaddressinfo", address, wallet=wallet)["scriptPubKey"]
        assert to_address(script, Network.REGTEST) == address


def test_a_deposit_beside_odd_foreign_outputs_is_found_with_the_right_txid(regtest: RegtestNode) -> None:
    signers = LeafSigners("odd")
    source, invoice = signers.vault(), LeafSigners("odd-deposit").invoice()
    txid, vout = regtest.fund_script(source.script, 1_000_000)
    coin = TxOut(Sats(1_000_000), source.script)
    spend = build_spend(Outpoint(txid_from_hex(txid), vout), Sats(50_000), invoice.script, LOCKS.emergency)
    odd = tuple(TxOut(Sats(1_000), script) for script in ODD_SCRIPTS)
    outputs = (*odd[:4], TxOut(Sats(50_000), invoice.script), *odd[4:], TxOut(Sats(60_000), invoice.script))
    unsigned = type(spend)(spend.version, spend.inputs, outputs, spend.locktime)
    signed = sign_leaf(unsigned, coin, source, Leaf.REJECTION, signers)

    # Policy refuses such outputs, a miner need not: put it into a block directly.
    block_hash = regtest.rpc("generateblock", regtest.rpc("getnewaddress", wallet="miner"), [signed.to_bytes().hex()])
    raw = bytes.fromhex(regtest.rpc("getblock", block_hash["hash"], 0))
    decoded = regtest.rpc("getblock", block_hash["hash"], 2)

    matches = find_outputs_paying(raw, {invoice.script: "deposit"})
    assert [(match.outpoint.vout, match.value) for match in matches] == [(4, 50_000), (9, 60_000)]
    assert {match.outpoint.txid[::-1].hex() for match in matches} == {decoded["tx"][1]["txid"]}
    assert find_spends_of(raw, {unsigned.inputs[0].outpoint})[0].txid == signed.txid
    assert parse_transaction(bytes.fromhex(decoded["tx"][1]["hex"])) == signed


def test_every_block_of_the_node_is_read_to_the_last_byte(regtest: RegtestNode) -> None:
    regtest.fund_script(LeafSigners("blocks").vault().script, 20_000)
    for height in range(max(0, regtest.height() - 30), regtest.height() + 1):
        name = regtest.rpc("getblockhash", height)
        block = parse_block(bytes.fromhex(regtest.rpc("getblock", name, 0)))
        decoded = regtest.rpc("getblock", name, 2)
        transactions = list(block.transactions())
        assert block.block_hash == block_hash_from_hex(name)
        assert [item.txid[::-1].hex() for item in transactions] == [entry["txid"] for entry in decoded["tx"]]
        assert [item.wtxid[::-1].hex() for item in transactions] == [entry["hash"] for entry in decoded["tx"]]
        assert [item.weight for item in transactions] == [entry["weight"] for entry in decoded["tx"]]
        assert compute_merkle_root([item.txid for item in transactions]) == block.merkle_root
