"""Emergency transactions: their shape, their rungs, who receives, and that Bitcoin's own interpreter takes them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slashing.build import build_arming, build_renewal, find_target
from slashing.bundle import list_bundles
from slashing.model import BuiltArming
from slashing.review import judge_emergencies
from smpc.bitcoin.fees import find_nonstandard_reason
from smpc.bitcoin.interpreter import verify_input_scripts
from smpc.bitcoin.script import Leaf
from smpc.bitcoin.taproot import verify_leaf_proof
from smpc.errors import CheckFailed, InvalidInput, NotFound, Refused
from smpc.params import MAINNET, REGTEST, Params
from smpc.protocol.emergency import (
    ANCHOR_VALUE,
    RUNGS,
    Emergency,
    build_emergency,
    build_target,
    find_rung_fee,
    find_target_epoch,
)
from smpc.protocol.intents import IntentInput
from smpc.protocol.pod_messages import ArmingSubject
from smpc.protocol.review import Review, Stage
from smpc.threshold.child_keys import compute_rejection_index, compute_vault_index
from smpc.types import ChildIndex, EpochNumber, FeeRate, Outpoint, Purpose, Role, Sats, Txid
from tests.support.armed_world import ArmedWorld, arm_deposit
from tests.support.groups import EPOCH, make_secret, sign, sign_with_child

ONE = EpochNumber(1)
SOME = Outpoint(Txid(b"\x07" * 32), 3)


def complete(world: ArmedWorld, emergency: Emergency, rung: int, preimage: bytes | None = None) -> None:
    """Let Bitcoin's interpreter run a rung with E's, W's and the preimage's part."""
    keyed, child, chosen = world.turning.keyed[emergency.epoch], emergency.output.child, emergency.rungs[rung]
    witness = sign_with_child(keyed.groups[Role.WITNESS], compute_rejection_index(child), chosen.digest)
    task = ChildIndex(0x30000000 + child)
    signature = sign_with_child(keyed.groups[Role.EMERGENCY], task, chosen.digest)
    signed = emergency.complete(chosen, witness, signature, preimage or keyed.preimage)
    assert find_nonstandard_reason(signed) is None
    paid = emergency.output.value - sum(out.value for out in signed.outputs)
    assert paid == chosen.fee == -(-chosen.rate * signed.vsize // 1000)
    verify_input_scripts(signed, [emergency.prevout])


def test_a_deposit_and_a_vault_output_are_spent_by_every_rung_of_theirs() -> None:
    world = ArmedWorld.filled()
    _, armings = arm_deposit(world, 3_000_000)
    (built,) = armings
    children = [emergency.output.child for emergency in built.emergencies]
    assert {child >= 0x10000000 for child in children} == {True, False}
    for emergency in built.emergencies:
        assert [rung.rate for rung in emergency.rungs] == list(RUNGS)
        for rung in range(len(emergency.rungs)):
            complete(world, emergency, rung)


def test_the_shape_is_fixed() -> None:
    world = ArmedWorld.filled()
    _, (built,) = arm_deposit(world, 3_000_000)
    target = build_target(REGTEST, world.ledger.epochs[ONE])
    for emergency, rung in built.rungs:
        transaction = rung.transaction
        assert (transaction.version, transaction.locktime, len(transaction.inputs)) == (3, 0, 1)
        assert transaction.inputs[0].sequence == REGTEST.emergency_csv
        left, anchor = transaction.outputs
        assert left.script == target.script == world.vault_tree(ONE, 0).script
        assert left.value == emergency.output.value - rung.fee - 240
        assert (anchor.value, anchor.script.hex()) == (240, "51024e73")
        assert verify_leaf_proof(emergency.leaf, emergency.control_block, emergency.script)


def test_no_group_alone_and_no_wrong_preimage_satisfies_the_leaf() -> None:
    world = ArmedWorld.filled()
    _, (built,) = arm_deposit(world, 3_000_000)
    with pytest.raises(CheckFailed):
        complete(world, built.emergencies[0], 0, bytes(32))
    emergency = built.emergencies[0]
    rung, keyed = emergency.rungs[0], world.turning.keyed[EPOCH]
    e_index = ChildIndex(0x30000000 + emergency.output.child)
    signature = sign_with_child(keyed.groups[Role.EMERGENCY], e_index, rung.digest)
    forged = sign(make_secret("stranger"), rung.digest)
    signed = emergency.complete(rung, forged, signature, keyed.preimage)
    with pytest.raises(CheckFailed):
        verify_input_scripts(signed, [emergency.prevout])


@pytest.mark.parametrize("params", [REGTEST, MAINNET], ids=["regtest", "mainnet"])
@pytest.mark.parametrize("rate", RUNGS)
def test_a_rung_of_exactly_five_percent_stays_and_one_satoshi_less_leaves_it_out(params: Params, rate: FeeRate) -> None:
    fee = find_rung_fee(params, Sats(10_000_000), rate)
    assert fee is not None
    assert find_rung_fee(params, Sats(20 * fee), rate) == fee
    assert find_rung_fee(params, Sats(20 * fee - 1), rate) is None


def test_the_least_vault_output_bears_the_first_rung_alone() -> None:
    fees = [find_rung_fee(REGTEST, REGTEST.min_vault_output, rate) for rate in RUNGS]
    assert fees[0] is not None
    assert fees[1:] == [None, None]
    assert REGTEST.min_vault_output - fees[0] - ANCHOR_VALUE > 330


def test_the_active_epoch_goes_to_the_standby_and_a_retiring_one_to_the_active() -> None:
    world = ArmedWorld.filled(500_000)
    assert find_target(world.ledger, EPOCH) is world.ledger.epochs[ONE]
    assert find_target(world.ledger, ONE) is None  # a standby holds nothing
    world.turn()
    assert find_target(world.ledger, EPOCH) is world.ledger.epochs[ONE]
    assert find_target(world.ledger, ONE) is world.ledger.epochs[EpochNumber(2)]
    assert find_target(world.ledger, EpochNumber(9)) is None
    assert find_target_epoch(world.ledger.epochs, None, EPOCH) is None


def test_without_a_standby_nothing_new_is_armed() -> None:
    world = ArmedWorld.filled(500_000)
    epochs = {number: entry for number, entry in world.ledger.epochs.items() if number == EPOCH}
    assert find_target_epoch(epochs, EPOCH, EPOCH) is None
    with pytest.raises(Refused, match="no parallel group") as caught:
        build_arming(world.ledger, ONE, [])
    assert caught.value.code == "NO_TARGET"


def test_what_the_ledger_does_not_know_is_not_built() -> None:
    world = ArmedWorld.filled()
    target = build_target(REGTEST, world.ledger.epochs[ONE])
    with pytest.raises(NotFound, match="invoice"):
        build_emergency(world.ledger, EPOCH, IntentInput(SOME, Sats(50_000), ChildIndex(5)), target)
    past = compute_vault_index(REGTEST.vault_outputs)
    with pytest.raises(InvalidInput, match="position"):
        build_emergency(world.ledger, EPOCH, IntentInput(SOME, Sats(50_000), past), target)
    last = compute_vault_index(REGTEST.vault_outputs - 1)
    assert build_emergency(world.ledger, EPOCH, IntentInput(SOME, Sats(50_000), last), target).rungs
    with pytest.raises(NotFound, match="epoch 9"):
        build_emergency(world.ledger, EpochNumber(9), IntentInput(SOME, Sats(50_000), last), target)
    with pytest.raises(NotFound, match="no output"):
        build_renewal(world.ledger, EPOCH, [SOME])


def test_the_leaf_is_the_outputs_own_rejection() -> None:
    world = ArmedWorld.filled(500_000)
    outpoint, entry = next(iter(world.ledger.vault.items()))
    built = build_renewal(world.ledger, EPOCH, [outpoint])
    tree = world.vault_tree(EPOCH, entry.child - 0x10000000)
    (emergency,) = built.emergencies
    assert emergency.leaf == tree.leaf(Leaf.REJECTION)
    assert emergency.control_block == tree.control_block(Leaf.REJECTION)
    assert (emergency.script, emergency.witness_key, emergency.emergency_key) == (
        tree.script,
        tree.keys.wr,
        tree.keys.e,
    )


def judge(world: ArmedWorld, built: BuiltArming) -> set[str]:
    """Return the rules that a member of E finds broken in what its own builder made."""
    review = Review(Stage.SIGN, Purpose.ARMING)
    facts = world.arming_facts(ArmingSubject(built.arming, None), None)
    judge_emergencies(review, world.ledger, facts, built)
    return {finding.rule for finding in review.to_verdict().failures}


def with_rung(built: BuiltArming, **fields: object) -> BuiltArming:
    """Change the first rung of the first output."""
    first, *others = built.emergencies
    rung = replace(first.rungs[0], **fields)  # type: ignore[arg-type]
    return replace(built, emergencies=(replace(first, rungs=(rung, *first.rungs[1:])), *others))


def test_a_builder_gone_wrong_is_caught_before_anything_is_signed() -> None:
    world = ArmedWorld.filled()
    _, (built,) = arm_deposit(world, 3_000_000)
    assert judge(world, built) == set()
    rung = built.emergencies[0].rungs[0]
    transaction, (left, anchor) = rung.transaction, rung.transaction.outputs

    def change(**fields: object) -> set[str]:
        return judge(world, with_rung(built, transaction=replace(transaction, **fields)))  # type: ignore[arg-type]

    assert change(version=2) == change(locktime=1) == {"V12"}
    assert change(inputs=(replace(transaction.inputs[0], sequence=REGTEST.transfer_csv),)) == {"V12"}
    assert change(outputs=(replace(left, value=Sats(left.value + 1)), anchor)) == {"V60"}
    assert change(outputs=(replace(left, script=built.emergencies[0].script), anchor)) == {"V60"}
    assert change(outputs=(replace(left, value=Sats(329)), anchor)) == {"V12", "V17", "V60"}
    assert change(outputs=(replace(left, value=Sats(330)), anchor)) == {"V60"}
    assert judge(world, with_rung(built, rate=FeeRate(2_001))) == {"V60"}
    first, *others = built.emergencies
    deposit = world.vault_tree(EPOCH, 0)
    transfer = replace(first, leaf=deposit.leaf(Leaf.TRANSFER))
    assert judge(world, replace(built, emergencies=(transfer, *others))) == {"V62"}
    recovery = replace(first, leaf=deposit.leaf(Leaf.RECOVERY))
    assert judge(world, replace(built, emergencies=(recovery, *others))) == {"V62"}
    assert judge(world, replace(built, emergencies=(replace(first, rungs=()), *others))) == {"V65"}


def test_what_the_ledger_holds_is_all_that_a_witness_group_must_sign_and_an_executor_send() -> None:
    world = ArmedWorld.filled(3_000_000)
    keyed = world.turning.keyed[EPOCH]
    for outpoint in world.ledger.vault:
        (bundle,) = list_bundles(world.ledger, outpoint)
        emergency = bundle.emergency
        index = compute_rejection_index(emergency.output.child)
        for rung in emergency.rungs:
            witness = sign_with_child(keyed.groups[Role.WITNESS], index, rung.digest)
            signed = bundle.complete(rung, witness, keyed.preimage)
            verify_input_scripts(signed, [emergency.prevout])
            with pytest.raises(CheckFailed):
                verify_input_scripts(bundle.complete(rung, witness, bytes(32)), [emergency.prevout])
    assert list_bundles(world.ledger, SOME) == ()


def test_the_newest_bundle_comes_first() -> None:
    world = ArmedWorld.filled(3_000_000)
    (outpoint, *_) = world.ledger.vault
    world.turn()
    world.turn()
    world.armed.renew(EPOCH, [outpoint])
    assert [bundle.emergency.target.epoch for bundle in list_bundles(world.ledger, outpoint)] == [2, 1]
