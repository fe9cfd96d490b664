"""What a member of V or E refuses before it endorses or signs a recovery, and every lie of a coordinator it answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pegin.model import BuiltTransaction
from pegin.versions import compute_intent_vbytes
from slashing.recovery.bump import RecoveryBumpRequest, build_recovery_bump
from slashing.recovery.review import review_recovery
from smpc.bitcoin.interpreter import verify_input_scripts
from smpc.bitcoin.script import build_op_return, build_p2tr
from smpc.bitcoin.transaction import Transaction, TxOut
from smpc.params import REGTEST
from smpc.protocol.facts import Facts, Proposal, StandingFacts
from smpc.protocol.intents import Intent, IntentInput, IntentKind
from smpc.protocol.ledger_state import EpochState
from smpc.protocol.review import Stage, find_rules
from smpc.threshold.child_keys import EMERGENCY_RANGE_START
from smpc.types import ChildIndex, EpochNumber, FeeRate, KaonHeight, Outpoint, Purpose, Role, Sats, Script, Txid
from tests.support.flow_world import find_rule
from tests.support.groups import EPOCH, make_xonly
from tests.support.recovery_world import RecoveryWorld
from tests.support.sweep_world import SweepWorld

FOREIGN = build_p2tr(make_xonly("the coordinator's own key"))
LOCK = REGTEST.recovery_csv


@pytest.fixture
def world() -> RecoveryWorld:
    """Give an epoch 0 with four outputs whose W is gone, and an active epoch 1."""
    return RecoveryWorld.judged(1_000_000, 300_000)


def judge(world: RecoveryWorld, built: BuiltTransaction, facts: Facts | None = None) -> tuple[str, str]:
    return find_rule(world.endorse(built, facts))


def list_rules(world: RecoveryWorld, built: BuiltTransaction, facts: Facts | None = None) -> set[str]:
    """Return every rule that refuses what was built."""
    refusal = world.endorse(built, facts).refusal()
    return set(refusal.rules) if refusal else set()


def propose(world: RecoveryWorld, intent: Intent, transaction: Transaction) -> set[str]:
    """Judge an intent with a transaction of the proposer's own making; every rule that refuses it."""
    refusal = world.review(Stage.ENDORSE, intent, transaction.to_bytes()).refusal()
    return set(refusal.rules) if refusal else set()


# ------------------------------------------------------------------ what is accepted


def test_accepts_what_was_built(world: RecoveryWorld) -> None:
    built = world.recover()
    assert judge(world, built) == ("", "")
    assert judge(world, built, world.facts(built.intent, Role.EMERGENCY)) == ("", "")


def test_v_signs_then_e_and_bitcoin_s_interpreter_accepts_it(world: RecoveryWorld) -> None:
    built = world.record(world.recover())
    raw = built.transaction.to_bytes()
    assert world.review(Stage.SIGN, built.intent, raw).is_accepted
    validators = world.as_epoch_zero().sign(built, Role.VALIDATOR)
    facts = world.facts(built.intent, Role.EMERGENCY)
    assert world.review(Stage.SIGN, built.intent, raw, facts, validators).is_accepted
    complete = built.complete(validators, world.sign(built, Role.EMERGENCY))
    verify_input_scripts(complete, built.prevouts)
    assert complete.vsize == built.vsize == compute_intent_vbytes(REGTEST, built.intent)
    assert {item.sequence for item in complete.inputs} == {LOCK}


def test_e_signs_only_what_v_signed_of_its_own_digests(world: RecoveryWorld) -> None:
    built = world.record(world.recover())
    raw = built.transaction.to_bytes()
    facts = world.facts(built.intent, Role.EMERGENCY)
    signatures = world.as_epoch_zero().sign(built, Role.VALIDATOR)
    refused = ("V11", "SIGHASH_MISMATCH")
    for shown in ((), signatures[:-1], signatures[::-1], world.sign(built, Role.EMERGENCY)):
        assert find_rule(world.review(Stage.SIGN, built.intent, raw, facts, shown)) == refused


def test_e_signs_with_the_child_that_its_own_range_gives(world: RecoveryWorld) -> None:
    built = world.recover()
    keys = world.vault_tree(EPOCH, 0).keys
    assert keys.e in {spend.cosigner_key for spend in built.spends}
    assert built.roles == (Role.VALIDATOR, Role.EMERGENCY)
    assert all(spend.item.child < EMERGENCY_RANGE_START for spend in built.spends)


def test_no_member_of_w_is_asked(world: RecoveryWorld) -> None:
    built = world.recover()
    assert judge(world, built, world.facts(built.intent, Role.WITNESS)) == ("V06", "WRONG_GROUP")


def test_no_member_of_e_endorses_a_sweep() -> None:
    world = RecoveryWorld.filled(1_000_000)
    world.turn()
    sweep = SweepWorld.sweep(world)
    assert find_rule(world.endorse(sweep, world.facts(sweep.intent, Role.EMERGENCY))) == ("V06", "WRONG_GROUP")


def test_which_rules_hold_when() -> None:
    first, second = (set(find_rules(stage, Purpose.RECOVERY)) for stage in (Stage.ENDORSE, Stage.SIGN))
    assert {"V02", "V07", "V10", "V11", "V14", "V15", "V17", "V18", "V19", "V20", "V22", "V23", "V77"} <= first
    assert {"V08", "V09", "V10", "V11", "V14", "V15", "V19", "V21", "V22", "V23", "V54", "V77"} <= second
    assert not {"V21", "V54"} & first
    assert not {"V18", "V20"} & second


# ------------------------------------------------------------------ V77: the verdict, the lock, the target


def test_refuses_while_w_serves() -> None:
    world = RecoveryWorld.filled(1_000_000)
    world.turn()
    world.age()
    built = world.recover()
    assert list_rules(world, built) == {"V06", "V77"}


def test_a_verdict_counts_from_the_block_that_is_final(world: RecoveryWorld) -> None:
    built = world.recover()
    judged = world.ledger.epochs[EPOCH].witness_lost
    assert judged is not None
    facts = world.facts(built.intent)
    assert judge(world, built, replace(facts, final_height=judged)) == ("", "")
    early = replace(facts, final_height=KaonHeight(judged - 1))
    assert judge(world, built, early) == ("V77", "W_CAN_SIGN")


@pytest.mark.parametrize("stage", Stage)
def test_the_lock_is_over_by_my_own_node_to_the_block(world: RecoveryWorld, stage: Stage) -> None:
    built = world.recover()
    if stage is Stage.SIGN:
        world.record(built)
    raw, young = built.transaction.to_bytes(), built.intent.inputs[-1].outpoint
    assert world.review(stage, built.intent, raw).is_accepted
    world.set_confirmations(young, LOCK - 1)
    assert find_rule(world.review(stage, built.intent, raw)) == ("V77", "LOCK_NOT_PASSED")


def test_a_consistent_plan_to_a_standby_epoch_is_refused(world: RecoveryWorld) -> None:
    """Every byte is right but the target: keyed and certified, and not its turn."""
    assert world.turning.state(2) is EpochState.STANDBY
    built = world.build_from(replace(world.decide(), target_epoch=EpochNumber(2)))
    assert list_rules(world, built) == {"V15", "V22", "V77"}


def test_once_recorded_a_recovery_is_signed_though_the_next_epoch_is_active(world: RecoveryWorld) -> None:
    built = world.record(world.recover())
    raw = built.transaction.to_bytes()
    world.turn()
    assert world.target == 2
    assert world.review(Stage.SIGN, built.intent, raw).is_accepted
    assert judge(world, built)[0] == "V15", "nobody endorses it any more"


# ------------------------------------------------------------------ a lie per field


def test_refuses_outputs_to_the_coordinators_key(world: RecoveryWorld) -> None:
    built = world.recover()
    for position in range(len(built.transaction.outputs)):
        outputs = list(built.transaction.outputs)
        outputs[position] = replace(outputs[position], script=FOREIGN)
        transaction = replace(built.transaction, outputs=tuple(outputs))
        intent = replace(built.intent, txid=transaction.txid)
        assert {"V10", "V15"} <= propose(world, intent, transaction)


def test_refuses_an_output_more_and_data(world: RecoveryWorld) -> None:
    built = world.recover()
    for extra in (TxOut(Sats(1_000), FOREIGN), TxOut(Sats(0), build_op_return(b"note"))):
        transaction = replace(built.transaction, outputs=(*built.transaction.outputs, extra))
        intent = replace(built.intent, txid=transaction.txid)
        assert "V10" in propose(world, intent, transaction)


def test_refuses_another_lock_version_or_locktime(world: RecoveryWorld) -> None:
    built = world.recover()
    inputs = built.transaction.inputs
    for transaction in (
        replace(built.transaction, inputs=tuple(replace(item, sequence=REGTEST.transfer_csv) for item in inputs)),
        replace(built.transaction, inputs=tuple(replace(item, sequence=LOCK - 1) for item in inputs)),
        replace(built.transaction, version=3),
        replace(built.transaction, locktime=1),
    ):
        intent = replace(built.intent, txid=transaction.txid)
        assert {"V10", "V12"} <= propose(world, intent, transaction)


def test_a_sweep_s_bytes_under_a_recovery_s_name_are_refused(world: RecoveryWorld) -> None:
    """The other leaf and the other lock: what W would have to sign."""
    sweep = SweepWorld.sweep(world)
    intent = replace(sweep.intent, kind=IntentKind.RECOVERY, op_return=Script(b""), commissions=())
    assert {"V10"} <= propose(world, intent, sweep.transaction)


def test_refuses_an_input_that_is_not_booked_under_the_epoch(world: RecoveryWorld) -> None:
    built = world.recover()
    first, *others = built.intent.inputs
    for wrong in (
        IntentInput(Outpoint(Txid(b"\x09" * 32), 0), first.value, first.child),
        replace(first, value=Sats(first.value + 1)),
        replace(first, child=ChildIndex(first.child + 1)),
        replace(first, child=ChildIndex(0)),
    ):
        intent = replace(built.intent, inputs=(wrong, *others))
        assert {"V10"} < propose(world, intent, built.transaction)


def test_an_input_named_twice_is_refused(world: RecoveryWorld) -> None:
    built = world.recover()
    intent = replace(built.intent, inputs=(*built.intent.inputs, built.intent.inputs[0]))
    assert "V13" in propose(world, intent, built.transaction)


def test_only_recoveries_are_reviewed_here(world: RecoveryWorld) -> None:
    built = world.recover()
    proposal = replace(built.intent, kind=IntentKind.SWEEP)
    facts = world.facts(built.intent)
    verdict = review_recovery(Stage.ENDORSE, world.ledger, facts, Proposal(proposal, built.transaction.to_bytes()))
    assert "V12" in {finding.rule for finding in verdict.failures}


# ------------------------------------------------------------------ inputs on my own chain


def test_an_output_that_a_stranger_spends_in_my_mempool_is_refused(world: RecoveryWorld) -> None:
    built = world.recover()
    outpoint = built.intent.inputs[0].outpoint
    world.outputs[outpoint] = replace(world.outputs[outpoint], spender=Txid(b"\x05" * 32))
    assert judge(world, built) == ("V14", "INPUT_SPENT")


def test_what_w_signed_before_it_was_lost_may_lie_in_a_mempool_for_ever_and_hinders_nothing() -> None:
    world = RecoveryWorld.filled(1_000_000)
    payout = world.record(world.payout(world.held[:1], (world.burn(100_000),)))
    world.lose_witnesses()
    world.age()
    outpoint = payout.intent.inputs[0].outpoint
    world.outputs[outpoint] = replace(world.outputs[outpoint], spender=payout.intent.txid)
    built = world.recover()
    assert outpoint in built.intent.outpoints
    assert judge(world, built) == ("", "")
    world.record(built)
    assert world.review(Stage.SIGN, built.intent, built.transaction.to_bytes()).is_accepted


def test_a_conflict_in_my_log_refuses_it(world: RecoveryWorld) -> None:
    built = world.recover()
    facts = replace(world.facts(built.intent), conflicts=("taken",))
    assert judge(world, built, facts) == ("V07", "CONFLICTING_SPEND")


# ------------------------------------------------------------------ the record, the fee, the versions


def test_no_share_before_the_window_is_over(world: RecoveryWorld) -> None:
    built = world.recover()
    raw = built.transaction.to_bytes()
    assert find_rule(world.review(Stage.SIGN, built.intent, raw)) == ("V21", "INTENT_NOT_FINAL")
    world.record(built)
    recorded = world.ledger.intents[built.intent.intent_id].recorded
    facts = world.facts(built.intent)
    over = KaonHeight(recorded + REGTEST.challenge_blocks)
    assert REGTEST.is_window_over(recorded, over)
    assert world.review(Stage.SIGN, built.intent, raw, replace(facts, final_height=over)).is_accepted
    early = replace(facts, final_height=KaonHeight(over - 1))
    assert find_rule(world.review(Stage.SIGN, built.intent, raw, early)) == ("V21", "WINDOW_NOT_OVER")


def test_the_fee_rate_is_bounded_by_my_own_node(world: RecoveryWorld) -> None:
    world.estimate = FeeRate(4_000)
    assert judge(world, world.recover(rate=FeeRate(8_000))) == ("", "")
    assert judge(world, world.recover(rate=FeeRate(8_001))) == ("V18", "FEE_CAP")
    assert judge(world, world.recover(rate=FeeRate(REGTEST.fee_floor - 1)))[0] == "V18"


def test_the_fee_is_bounded_by_the_reserve_that_nothing_else_takes() -> None:
    world = RecoveryWorld.judged(1_000_000)
    reserve = world.ledger.reserve
    world.estimate = FeeRate(REGTEST.fee_cap)
    vsize = world.recover().vsize
    dearest = FeeRate(reserve * 1000 // vsize)
    assert judge(world, world.recover(rate=dearest)) == ("", "")
    assert judge(world, world.recover(rate=FeeRate(dearest + 1_000 // vsize + 2)))[1] == "FEE_BUDGET"


def test_a_replacement_names_the_version_before_and_waits_for_it(world: RecoveryWorld) -> None:
    first = world.record(world.recover(rate=REGTEST.fee_floor))
    bumped = build_recovery_bump(world.ledger, RecoveryBumpRequest(first.intent.intent_id, FeeRate(20_000)))
    assert bumped.intent.outpoints == first.intent.outpoints
    waited = StandingFacts(first.intent.intent_id, REGTEST.bump_after, first.intent.fee, first.vsize)
    facts = world.facts(bumped.intent, standing=(waited,))
    assert judge(world, bumped, facts) == ("", "")
    early = replace(facts, standing=(replace(waited, waiting_blocks=REGTEST.bump_after - 1),))
    assert judge(world, bumped, early) == ("V18", "BUMP_TOO_EARLY")
    unnamed = world.build_from(replace(bumped.intent.choice, replaces=()))
    assert judge(world, unnamed)[0] == "V20"
