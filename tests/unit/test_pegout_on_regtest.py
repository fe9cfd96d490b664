"""A real node judges what the flows build: deposits move, burns are paid, and a bump replaces by the fee rules say."""

from __future__ import annotations

from pathlib import Path

import pytest

from pegin.holdings import list_free_coins
from pegin.invoice import build_invoice_tree
from pegin.model import BuiltTransaction, compute_rate_limit
from pegin.versions import compute_least_fee
from pegout.bump import BumpRequest, build_bump
from smpc.params import REGTEST
from smpc.protocol.facts import InputFacts, StandingFacts
from smpc.threshold.frost import TweakContext
from smpc.types import ChildIndex, FeeRate, Outpoint, Role, Sats, txid_from_hex
from tests.support.flow_world import FlowWorld
from tests.support.groups import EPOCH
from tests.support.pod_world import PodWorld
from tests.support.regtest import RegtestNode, RpcError


def pay_invoice(node: RegtestNode, world: FlowWorld, index: int, value: int) -> Outpoint:
    """Record an invoice and pay it on the node's chain, three blocks deep."""
    terms = world.chain.make_terms(index)
    world.chain.add(world.chain.make_invoices(terms, request_id=b"regtest %d" % index))
    script = build_invoice_tree(world.keys, world.ledger.invoices[EPOCH, ChildIndex(index)].request.terms).script
    txid, vout = node.fund_script(script, value, confirmations=REGTEST.confirmations)
    outpoint = Outpoint(txid_from_hex(txid), vout)
    world.outputs[outpoint] = InputFacts(outpoint, Sats(value), script, REGTEST.confirmations)
    world.children[outpoint] = ChildIndex(index)
    return outpoint


def send(node: RegtestNode, world: FlowWorld, built: BuiltTransaction) -> str:
    """Sign with both groups and hand the transaction to the node; its displayed txid."""
    done = built.complete(world.sign(built, Role.VALIDATOR), world.sign(built, Role.WITNESS))
    return str(node.rpc("sendrawtransaction", done.to_bytes().hex()))


def test_deposits_and_burns_move_by_what_review_accepts(regtest: RegtestNode) -> None:
    world = FlowWorld.opened()
    deposits = [pay_invoice(regtest, world, index, 300_000 + index) for index in range(2)]
    transfer = world.transfer(*deposits)
    assert world.endorse(transfer).is_accepted
    world.record(transfer)
    txid = send(regtest, world, transfer)
    regtest.mine(REGTEST.confirmations)
    entry = regtest.rpc("getrawtransaction", txid, True)
    assert entry["vsize"] == transfer.vsize
    world.mine(transfer)

    burns = (world.burn(100_000), world.burn(30_000))
    payout = world.payout(tuple(sorted(world.ledger.vault)), burns)
    assert world.endorse(payout).is_accepted
    world.record(payout)
    txid = send(regtest, world, payout)
    regtest.mine(1)
    mined = regtest.rpc("getrawtransaction", txid, True)
    assert mined["confirmations"] == 1
    assert mined["vsize"] == payout.vsize


async def test_the_node_takes_threshold_signatures_under_child_keys_of_every_parity(
    regtest: RegtestNode, tmp_path: Path
) -> None:
    """Case B18: leaves carry x(Q) only, so a child key of odd y must sign as well as one of even y."""
    world = FlowWorld.opened()
    deposits = [pay_invoice(regtest, world, index, 100_000) for index in range(10)]
    built = world.record(world.transfer(*deposits))
    pods = PodWorld(world, tmp_path)
    validators = await pods.sign_with(Role.VALIDATOR, built)
    witnesses = await pods.sign_with(Role.WITNESS, built, validators=validators)
    for role in (Role.VALIDATOR, Role.WITNESS):
        group = world.ledger.epochs[EPOCH].groups[role].group_key
        parities = {TweakContext.from_child(group, spend.item.child).has_even_y for spend in built.spends}
        assert parities == {True, False}
    regtest.rpc("sendrawtransaction", built.complete(validators, witnesses).to_bytes().hex())


def test_the_node_waits_for_the_transfer_lock_to_the_block(regtest: RegtestNode) -> None:
    world = FlowWorld.opened()
    transfer = world.record(world.transfer(pay_invoice(regtest, world, 1, 300_000)))
    send(regtest, world, transfer)
    regtest.mine(REGTEST.transfer_csv - 1)
    world.mine(transfer)
    payout = world.record(world.payout(tuple(sorted(world.ledger.vault))[:1], (world.burn(50_000),)))
    with pytest.raises(RpcError, match="non-BIP68-final"):
        send(regtest, world, payout)
    regtest.mine(1)
    send(regtest, world, payout)
    regtest.mine(1)


def test_the_node_replaces_by_the_fee_that_the_rule_asks_for_and_not_by_less(regtest: RegtestNode) -> None:
    world = FlowWorld.opened()
    transfer = world.record(world.transfer(pay_invoice(regtest, world, 1, 600_000)))
    send(regtest, world, transfer)
    regtest.mine(REGTEST.confirmations)
    world.mine(transfer)
    coins, burns = tuple(sorted(world.ledger.vault))[:1], (world.burn(100_000),)
    first = world.record(world.payout(coins, burns))
    send(regtest, world, first)

    short = world.payout(coins, burns, rate=FeeRate(5_990), replaces=(first.intent.intent_id,))
    assert short.intent.fee == compute_least_fee(REGTEST, first.intent.fee, first.vsize) - 1
    with pytest.raises(RpcError, match="insufficient fee"):
        send(regtest, world, short)

    bumped = build_bump(world.ledger, BumpRequest(first.intent.intent_id, compute_rate_limit(REGTEST, None)))
    standing = (StandingFacts(first.intent.intent_id, REGTEST.bump_after, first.intent.fee, first.vsize),)
    assert world.endorse(bumped, world.facts(bumped.intent, standing=standing)).is_accepted
    world.record(bumped)
    txid = send(regtest, world, bumped)
    assert txid in regtest.rpc("getrawmempool")
    exact = world.payout(coins, burns, rate=FeeRate(6_000), replaces=(first.intent.intent_id,))
    assert exact.intent.fee == compute_least_fee(REGTEST, first.intent.fee, first.vsize)
    regtest.mine(1)
    assert regtest.rpc("getrawtransaction", txid, True)["confirmations"] == 1


def test_the_node_replaces_a_payout_without_change_by_a_better_rate_and_not_by_more_satoshi_alone(
    regtest: RegtestNode,
) -> None:
    world = FlowWorld.opened()
    for index, value in enumerate((200_000_000, 300_000)):
        transfer = world.record(world.transfer(pay_invoice(regtest, world, index, value)))
        send(regtest, world, transfer)
        regtest.mine(REGTEST.transfer_csv)
        world.mine(transfer)
    small, *_, large = sorted(list_free_coins(world.ledger, EPOCH), key=lambda coin: coin.value)
    burns = (world.burn(small.value - 9_150),)
    first = world.record(world.payout((small.outpoint,), burns))
    assert not first.intent.vault_outputs
    send(regtest, world, first)
    world.estimate = FeeRate(75_000)

    coins, names = (small.outpoint, large.outpoint), (first.intent.intent_id,)
    vsize = world.payout(coins, burns, rate=FeeRate(20_000), replaces=names).vsize
    least = compute_least_fee(REGTEST, first.intent.fee, vsize)
    poor = world.payout(coins, burns, rate=FeeRate(least * 1_000 // vsize), replaces=names)
    assert poor.intent.fee == least
    with pytest.raises(RpcError, match="insufficient fee"):
        send(regtest, world, poor)

    request = BumpRequest(first.intent.intent_id, compute_rate_limit(REGTEST, world.estimate), (large,))
    bumped = world.record(build_bump(world.ledger, request))
    txid = send(regtest, world, bumped)
    assert regtest.rpc("getrawmempool") == [txid]
    regtest.mine(1)
