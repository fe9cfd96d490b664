"""Recorded emergencies on a real node: every rung enters, each replaces the one below, nobody spends them alone."""

from __future__ import annotations

import pytest

from slashing.build import build_arming
from slashing.bundle import Bundle, list_bundles
from smpc.bitcoin.transaction import Transaction
from smpc.params import REGTEST
from smpc.protocol.intents import IntentInput
from smpc.threshold.child_keys import compute_rejection_index, compute_vault_index
from smpc.types import ChildIndex, Outpoint, Role, Sats, Script, Signature, txid_from_hex
from tests.support.armed_world import ArmedWorld
from tests.support.groups import EPOCH, sign_with_child
from tests.support.regtest import RegtestNode

VALUE = Sats(3_000_000)


def arm(world: ArmedWorld, node: RegtestNode, script: Script, child: ChildIndex) -> Bundle:
    """Pay a script on the node, arm the output, and rebuild its bundle from the ledger."""
    txid, vout = node.fund_script(script, VALUE, confirmations=REGTEST.emergency_csv - 1)
    outpoint = Outpoint(txid_from_hex(txid), vout)
    built = build_arming(world.ledger, EPOCH, [IntentInput(outpoint, VALUE, child)])
    world.chain.add(world.armed.pre_sign(built))
    (bundle,) = list_bundles(world.ledger, outpoint)
    return bundle


def arm_either(world: ArmedWorld, node: RegtestNode, kind: str) -> Bundle:
    """Arm a deposit or a vault output."""
    if kind == "vault":
        return arm(world, node, world.vault_tree(EPOCH, 1).script, compute_vault_index(1))
    deposit = world.deposit(0, VALUE)
    return arm(world, node, world.outputs[deposit].script, ChildIndex(0))


def complete(world: ArmedWorld, bundle: Bundle) -> list[Transaction]:
    """Complete every rung as after a release."""
    keyed = world.turning.keyed[EPOCH]
    index = compute_rejection_index(bundle.emergency.output.child)
    group = keyed.groups[Role.WITNESS]
    return [
        bundle.complete(rung, sign_with_child(group, index, rung.digest), keyed.preimage)
        for rung in bundle.emergency.rungs
    ]


def find_refusal(node: RegtestNode, transaction: Transaction) -> str | None:
    """Return why the node's mempool refuses a transaction, or None when it would take it."""
    answer = node.rpc("testmempoolaccept", [transaction.to_bytes().hex()])[0]
    return None if answer["allowed"] else str(answer["reject-reason"])


@pytest.mark.parametrize("kind", ["deposit", "vault"])
def test_every_rung_enters_and_replaces_the_one_below_until_the_highest_is_mined(
    regtest: RegtestNode, kind: str
) -> None:
    world = ArmedWorld.filled()
    bundle = arm_either(world, regtest, kind)
    rungs = complete(world, bundle)
    assert len(rungs) == 3
    assert find_refusal(regtest, rungs[0]) == "non-BIP68-final"
    regtest.mine(1)
    for rung in rungs:
        txid = regtest.rpc("sendrawtransaction", rung.to_bytes().hex())
        assert regtest.rpc("getrawmempool") == [txid]
        assert regtest.rpc("getmempoolentry", txid)["vsize"] == rung.vsize
    regtest.mine(1)
    target = world.vault_tree(bundle.emergency.target.epoch, 0).script
    left = regtest.rpc("gettxout", rungs[2].txid[::-1].hex(), 0)
    assert left["scriptPubKey"]["hex"] == target.hex()
    assert round(left["value"] * 100_000_000) == VALUE - bundle.emergency.rungs[2].fee - 240


@pytest.mark.parametrize("kind", ["deposit", "vault"])
def test_neither_e_nor_w_alone_nor_both_without_the_preimage_spend_anything(regtest: RegtestNode, kind: str) -> None:
    world = ArmedWorld.filled()
    bundle = arm_either(world, regtest, kind)
    regtest.mine(1)
    keyed, rung = world.turning.keyed[EPOCH], bundle.emergency.rungs[0]
    index = compute_rejection_index(bundle.emergency.output.child)
    witness = sign_with_child(keyed.groups[Role.WITNESS], index, rung.digest)
    own, none = bundle.signatures[0], Signature(bytes(64))
    tries = {
        "E alone": bundle.emergency.complete(rung, own, own, keyed.preimage),
        "W alone": bundle.emergency.complete(rung, witness, witness, keyed.preimage),
        "W and nobody": bundle.emergency.complete(rung, witness, none, keyed.preimage),
        "no preimage": bundle.emergency.complete(rung, witness, own, bytes(32)),
    }
    for who, transaction in tries.items():
        assert "script-verify-flag-failed" in str(find_refusal(regtest, transaction)), who
    assert find_refusal(regtest, bundle.complete(rung, witness, keyed.preimage)) is None
