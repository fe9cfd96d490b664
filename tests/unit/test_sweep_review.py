"""What a member refuses before it endorses or signs a sweep, and every lie of a coordinator that it answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pegin.model import BuiltTransaction
from pegin.versions import compute_intent_vbytes
from smpc.bitcoin.script import build_op_return, build_p2tr
from smpc.bitcoin.transaction import Transaction, TxOut
from smpc.params import REGTEST
from smpc.protocol.facts import Facts, StandingFacts
from smpc.protocol.intents import Intent, IntentInput
from smpc.protocol.ledger_state import EpochState
from smpc.protocol.notarisation import build_op_return as notarise
from smpc.protocol.notarisation import find_notarisation
from smpc.protocol.review import Stage, find_rules
from smpc.types import ChildIndex, EpochNumber, FeeRate, KaonHash, Outpoint, Purpose, Role, Sats, Script, Txid
from sweep.bump import SweepBumpRequest, build_sweep_bump
from tests.support.flow_world import find_rule
from tests.support.groups import EPOCH, endorse, make_xonly
from tests.support.sweep_world import RICH, SweepWorld

FOREIGN = build_p2tr(make_xonly("the coordinator's own key"))


@pytest.fixture
def world() -> SweepWorld:
    """Give a retiring epoch 0 with four outputs and an active epoch 1."""
    return SweepWorld.retiring(1_000_000, 300_000)


@pytest.fixture
def rich() -> SweepWorld:
    """Give a retiring epoch whose members are due a commission."""
    return SweepWorld.retiring(RICH)


def judge(world: SweepWorld, built: BuiltTransaction, facts: Facts | None = None) -> tuple[str, str]:
    return find_rule(world.endorse(built, facts))


def list_rules(world: SweepWorld, built: BuiltTransaction) -> set[str]:
    """Return every rule that refuses what was built."""
    refusal = world.endorse(built).refusal()
    return set(refusal.rules) if refusal else set()


def propose(world: SweepWorld, intent: Intent, transaction: Transaction, stage: Stage = Stage.ENDORSE) -> set[str]:
    """Judge an intent with a transaction of the proposer's own making; every rule that refuses it."""
    refusal = world.review(stage, intent, transaction.to_bytes()).refusal()
    return set(refusal.rules) if refusal else set()


def lie(built: BuiltTransaction, position: int, **changes: object) -> tuple[Intent, Transaction]:
    """Change one output, and let the intent's txid agree with the lie."""
    outputs = list(built.transaction.outputs)
    outputs[position] = replace(outputs[position], **changes)  # type: ignore[arg-type]
    transaction = replace(built.transaction, outputs=tuple(outputs))
    return replace(built.intent, txid=transaction.txid), transaction


def rebuilt(world: SweepWorld, built: BuiltTransaction, **changes: object) -> BuiltTransaction:
    """Build the sweep with another choice, as a coordinator that is consistent in its lie does."""
    return world.build(replace(built.intent.choice, **changes))  # type: ignore[arg-type]


def test_accepts_what_was_built(world: SweepWorld, rich: SweepWorld) -> None:
    assert judge(world, world.sweep()) == ("", "")
    assert judge(rich, rich.sweep(burns=(rich.burn(100_000),))) == ("", "")


def test_signs_a_recorded_sweep_once_its_window_is_over(rich: SweepWorld) -> None:
    built = rich.record(rich.sweep())
    raw = built.transaction.to_bytes()
    assert rich.review(Stage.SIGN, built.intent, raw).is_accepted
    facts = rich.facts(built.intent, Role.WITNESS)
    rich.chain.epoch = rich.turning.keyed[EPOCH]
    signatures = rich.sign(built, Role.VALIDATOR)
    assert rich.review(Stage.SIGN, built.intent, raw, facts, signatures).is_accepted
    assert find_rule(rich.review(Stage.SIGN, built.intent, raw, facts, signatures[:-1])) == ("V11", "SIGHASH_MISMATCH")


def test_what_a_sweep_creates_is_armed_before_it_is_signed() -> None:
    assert "V54" not in find_rules(Stage.ENDORSE, Purpose.SWEEP)
    assert "V54" in find_rules(Stage.SIGN, Purpose.SWEEP)


def test_facts_that_move_are_judged_at_the_endorsement_only() -> None:
    assert {"V16", "V50", "V52", "V53"} <= set(find_rules(Stage.ENDORSE, Purpose.SWEEP))
    assert not {"V18", "V50", "V52", "V53"} & set(find_rules(Stage.SIGN, Purpose.SWEEP))
    assert {"V16", "V21"} <= set(find_rules(Stage.SIGN, Purpose.SWEEP))


# ------------------------------------------------------------------ whose turn it is: V06 and V50


def test_only_a_retiring_epoch_is_swept(world: SweepWorld) -> None:
    built, facts = world.sweep(), world.facts(world.sweep().intent)
    assert judge(world, built, facts) == ("", "")
    world.mine(world.record(built))
    world.turning.pulse(world.turning.btc_height + 20)
    assert world.turning.state(0) is EpochState.PARKED
    assert judge(world, built, replace(facts, node=world.node))[0] == "V06"


def test_refuses_a_sweep_of_the_active_epoch() -> None:
    world = SweepWorld.filled(1_000_000)
    late = SweepWorld.retiring(1_000_000)
    built = late.sweep()
    assert judge(world, built)[0] == "V06"


def test_refuses_a_target_that_is_standby_or_uncertified(world: SweepWorld) -> None:
    built = world.sweep()
    for number, reason in ((2, "V15"), (3, "V15"), (7, "V15")):
        target = EpochNumber(number)
        other = replace(built.intent, target_epoch=target)
        verdict = world.review(Stage.ENDORSE, other, built.transaction.to_bytes())
        assert find_rule(verdict)[0] == reason
        assert {"V15", "V16", "V22", "V50"} <= {finding.rule for finding in verdict.failures}


def test_a_consistent_plan_to_a_standby_epoch_is_refused(world: SweepWorld) -> None:
    """Every byte is right but the target: keyed and certified, and not its turn."""
    assert world.turning.state(2) is EpochState.STANDBY
    built = rebuilt(world, world.sweep(), target_epoch=EpochNumber(2))
    assert list_rules(world, built) == {"V15", "V16", "V22", "V50"}


def test_a_sweep_built_before_the_turn_is_refused_after_it(world: SweepWorld) -> None:
    built = world.sweep()
    world.turn()
    assert judge(world, built)[0] == "V15"
    assert judge(world, world.sweep()) == ("", "")


def test_refuses_vault_outputs_to_the_coordinators_key(world: SweepWorld) -> None:
    built = world.sweep()
    assert "V15" in propose(world, *lie(built, 0, script=FOREIGN))
    world.record(built)
    _, transaction = lie(built, 0, script=FOREIGN)
    assert "V15" in propose(world, built.intent, transaction, Stage.SIGN)


# ------------------------------------------------------------------ the notarisation: V16


def test_refuses_a_stale_notarisation(world: SweepWorld) -> None:
    stale = world.choose().op_return
    world.turn()
    built = world.build(world.choose(op_return=stale))
    assert judge(world, built) == ("V16", "WRONG_NOTARISATION")


def test_refuses_a_notarisation_of_anything_else(world: SweepWorld) -> None:
    found = find_notarisation(world.choose().op_return)
    assert found is not None
    for other in (
        replace(found, epoch=EpochNumber(1)),
        replace(found, block_hash=KaonHash(bytes(32))),
        replace(found, state_root=bytes(32)),
    ):
        built = world.build(world.choose(op_return=notarise(other)))
        assert judge(world, built) == ("V16", "WRONG_NOTARISATION")


def test_refuses_another_tag_a_second_op_return_and_none(world: SweepWorld) -> None:
    built = world.sweep()
    last = len(built.transaction.outputs) - 1
    assert "V16" in propose(world, *lie(built, last, script=build_op_return(b"LIAR" + bytes(69))))
    more = replace(built.transaction, outputs=(*built.transaction.outputs, TxOut(Sats(0), build_op_return(b"KAON"))))
    assert "V16" in propose(world, replace(built.intent, txid=more.txid), more)
    none = replace(built.transaction, outputs=built.transaction.outputs[:-1])
    assert "V16" in propose(world, replace(built.intent, txid=none.txid, op_return=Script(b"")), none)
    assert "V16" in propose(world, built.intent, none)


def test_refuses_to_sign_a_notarisation_that_its_ledger_does_not_have(world: SweepWorld) -> None:
    built = world.sweep()
    other = replace(built.intent, op_return=Script(built.intent.op_return[:-1] + b"\x00"))
    assert "V16" in propose(world, other, built.transaction, Stage.SIGN)


# ------------------------------------------------------------------ money: V52 and V18


@pytest.mark.parametrize("change", [-1, 1])
def test_refuses_a_commission_altered_by_a_satoshi(rich: SweepWorld, change: int) -> None:
    first, *rest = rich.choose().commissions
    altered = (replace(first, amount=Sats(first.amount + change)), *rest)
    assert judge(rich, rich.build(rich.choose(commissions=altered))) == ("V52", "COMMISSION")


def test_refuses_a_commission_to_another_script_member_or_order(rich: SweepWorld) -> None:
    first, second, *rest = rich.choose().commissions
    for altered in (
        (replace(first, script=FOREIGN), second, *rest),
        (replace(first, member=second.member), second, *rest),
        (second, first, *rest),
        (second, *rest),
        (first, first, second, *rest),
        (),
    ):
        assert "V52" in list_rules(rich, rich.build(rich.choose(commissions=altered)))


def test_refuses_a_commission_where_none_is_due(world: SweepWorld, rich: SweepWorld) -> None:
    commission = rich.choose().commissions[:1]
    built = world.build(world.choose(commissions=(replace(commission[0], amount=Sats(20_000)),)))
    assert {"V18", "V52"} <= list_rules(world, built)


def test_commission_is_paid_once(rich: SweepWorld) -> None:
    first, second = sorted(rich.ledger.vault)
    commissions = rich.choose().commissions
    rich.outputs[second] = replace(rich.outputs[second], confirmations=2)
    rich.record(rich.build(rich.choose(outpoints=(first,))))
    rich.set_confirmations(second, 3)
    assert "V52" in list_rules(rich, rich.build(rich.choose(commissions=commissions)))
    assert rich.choose().commissions == ()
    assert judge(rich, rich.sweep()) == ("", "")


def test_refuses_value_that_is_not_conserved(world: SweepWorld) -> None:
    built = world.sweep()
    first, *rest = built.intent.vault_outputs
    for change in (-1, 1):
        other = replace(built.intent, vault_outputs=(Sats(first + change), *rest))
        assert {"V10", "V52"} <= propose(world, other, built.transaction)
    altered = replace(built.intent, fee=Sats(built.intent.fee + 1))
    assert {"V10", "V52"} <= propose(world, altered, built.transaction)


def test_the_reserve_pays_a_sweep_to_its_last_satoshi_and_no_more() -> None:
    """A tenth of the reserve is for other flows: a young bridge could not sweep with that."""
    world = SweepWorld.retiring(1_000_000)
    world.estimate = FeeRate(100_000)
    reserve, vsize = world.ledger.reserve, world.sweep().vsize
    most = FeeRate(reserve * 1000 // vsize)
    assert judge(world, world.sweep(rate=most)) == ("", "")
    over = FeeRate(-(-(reserve + 1) * 1000 // vsize))
    assert judge(world, world.sweep(rate=over)) == ("V18", "FEE_BUDGET")


def test_what_other_sweeps_take_of_the_reserve_is_spoken_for() -> None:
    world = SweepWorld.retiring(1_000_000)
    world.estimate = FeeRate(100_000)
    first, second = sorted(world.ledger.vault)
    world.set_confirmations(second, 2)
    before = world.build(world.choose(outpoints=(first,), rate=FeeRate(8_000)))
    world.record(before)
    world.set_confirmations(second, 3)
    left = world.ledger.reserve - before.intent.fee
    vsize = world.sweep().vsize
    assert judge(world, world.sweep(rate=FeeRate(left * 1000 // vsize))) == ("", "")
    over = FeeRate(-(-(left + 1) * 1000 // vsize))
    assert judge(world, world.sweep(rate=over)) == ("V18", "FEE_BUDGET")


@pytest.mark.parametrize(("rate", "reason"), [(1_999, "FEE_TOO_LOW"), (2_000, ""), (10_000, ""), (10_001, "FEE_CAP")])
def test_the_fee_rate_has_a_floor_and_a_cap(world: SweepWorld, rate: int, reason: str) -> None:
    assert judge(world, world.sweep(rate=FeeRate(rate)))[1] == reason


# ------------------------------------------------------------------ completeness: V53


def test_refuses_a_sweep_that_leaves_an_output_out(world: SweepWorld) -> None:
    for outpoint in world.ledger.vault:
        kept = tuple(point for point in world.ledger.vault if point != outpoint)
        assert judge(world, world.build(world.choose(outpoints=kept))) == ("V53", "OUTPUT_LEFT_OUT")


@pytest.mark.parametrize(("confirmations", "with_it", "without"), [(2, "NOT_MATURE", ""), (3, "", "OUTPUT_LEFT_OUT")])
def test_an_output_belongs_to_the_sweep_from_its_transfer_lock_on(
    world: SweepWorld, confirmations: int, with_it: str, without: str
) -> None:
    young, *old = sorted(world.ledger.vault)
    world.set_confirmations(young, confirmations)
    assert judge(world, world.sweep())[1] == with_it
    assert judge(world, world.build(world.choose(outpoints=old)))[1] == without


def test_outputs_that_a_recorded_payout_spends_are_not_left_out(world: SweepWorld) -> None:
    taken, *rest = sorted(world.ledger.vault)
    payout = world.payout((taken,), (world.burn(50_000),)).intent
    paying = replace(payout.choice, target_epoch=world.target)
    world.record(world.rebuild(replace(payout, target_epoch=paying.target_epoch)))
    assert judge(world, world.build(world.choose(outpoints=rest))) == ("", "")
    assert judge(world, world.build(world.choose(outpoints=(taken, *rest))))[0] == "V20"


def test_another_epochs_output_is_not_swept_with_it(world: SweepWorld) -> None:
    built = world.sweep()
    (position, own), *_ = enumerate(built.intent.inputs)
    stranger = replace(own, outpoint=Outpoint(Txid(b"\x07" * 32), 0))
    inputs = list(built.intent.inputs)
    inputs[position] = stranger
    assert "V14" in propose(world, replace(built.intent, inputs=tuple(inputs)), built.transaction)


@pytest.mark.parametrize(("most", "rule"), [(3, ""), (4, "V53")])
def test_what_one_transaction_cannot_spend_waits_for_the_next(most: int, rule: str) -> None:
    world = SweepWorld.retiring(1_000_000, 300_000, params=replace(REGTEST, max_batch_inputs=most))
    part = world.build(world.choose(outpoints=sorted(world.ledger.vault)[:3]))
    assert judge(world, part)[0] == rule


def test_parts_of_a_sweep_are_recorded_one_after_the_other_and_meet_nowhere() -> None:
    world = SweepWorld.retiring(1_000_000, 300_000, params=replace(REGTEST, max_batch_inputs=3))
    first = world.build(world.choose(outpoints=sorted(world.ledger.vault)[:3]))
    assert judge(world, first) == ("", "")
    world.record(first)
    second = world.sweep()
    assert judge(world, second) == ("", "")
    assert not first.intent.outpoints & second.intent.outpoints
    world.mine(world.record(second))
    world.mine(first)
    assert all(entry.epoch == world.target for entry in world.ledger.vault.values())


def test_refuses_a_deposit_among_vault_outputs(world: SweepWorld) -> None:
    built = world.sweep()
    deposit = IntentInput(Outpoint(Txid(b"\x09" * 32), 0), Sats(50_000), ChildIndex(0))
    mixed = replace(built.intent, inputs=(*built.intent.inputs, deposit))
    assert "V23" in propose(world, mixed, built.transaction)


# ------------------------------------------------------------------ burns carried along, replacements, signing


def test_burns_carried_along_obey_the_rules_of_payouts(world: SweepWorld) -> None:
    burn = world.burn(50_000)
    built = world.sweep(burns=(burn,))
    position = len(built.intent.vault_outputs)
    assert judge(world, built) == ("", "")
    assert "V42" in propose(world, *lie(built, position, script=FOREIGN))
    assert "V43" in propose(world, *lie(built, position, value=Sats(50_001)))
    world.chain.add(world.chain.make_cancel("alice", burn))
    assert judge(world, built) == ("V40", "BURN_NOT_OPEN")


def test_refuses_a_burn_that_another_intent_pays(world: SweepWorld) -> None:
    taken, *rest = sorted(world.ledger.vault)
    burn = world.burn(50_000)
    payout = world.payout((taken,), (burn,)).intent
    world.record(world.rebuild(replace(payout, target_epoch=world.target)))
    built = world.build(world.choose(outpoints=rest, burns=(burn,)))
    assert judge(world, built) == ("V20", "DOUBLE_PAY")


def standing(built: BuiltTransaction) -> tuple[StandingFacts, ...]:
    return (StandingFacts(built.intent.intent_id, 3, built.intent.fee, built.vsize),)


def test_a_replacement_spends_what_matured_since_and_pays_the_epoch_active_now(world: SweepWorld) -> None:
    young, *old = sorted(world.ledger.vault)
    burn = world.burn(50_000)
    world.set_confirmations(young, 2)
    first = world.record(world.build(world.choose(outpoints=old, burns=(burn,))))
    world.set_confirmations(young, 3)
    world.turn()
    request = SweepBumpRequest(first.intent.intent_id, FeeRate(10_000), frozenset(world.outputs))
    bumped = build_sweep_bump(world.ledger, request)
    assert bumped.intent.outpoints == frozenset(world.ledger.vault)
    assert bumped.intent.target_epoch == EpochNumber(2)
    assert bumped.intent.payments == first.intent.payments
    assert judge(world, bumped, world.facts(bumped.intent, standing=standing(first))) == ("", "")
    held_back = replace(request, mature=frozenset(old))
    lacking = build_sweep_bump(world.ledger, held_back)
    facts = world.facts(lacking.intent, standing=standing(first))
    assert judge(world, lacking, facts) == ("V53", "OUTPUT_LEFT_OUT")
    world.mine(world.record(bumped))
    assert world.turning.state(0) in {EpochState.RETIRING, EpochState.PARKED}
    assert not world.ledger.list_free_outputs(EPOCH)


def test_an_intent_tells_the_size_of_its_transaction(rich: SweepWorld) -> None:
    built = rich.sweep(burns=(rich.burn(50_000),))
    assert built.intent.commissions
    assert built.intent.op_return
    assert compute_intent_vbytes(REGTEST, built.intent) == built.vsize


def test_a_replacement_never_drops_the_burn_nor_pays_commission_twice(rich: SweepWorld) -> None:
    burn = rich.burn(50_000)
    first = rich.record(rich.sweep(burns=(burn,)))
    names = (first.intent.intent_id,)
    points = tuple(first.intent.outpoints)
    fewer = rich.build(rich.choose(outpoints=points, rate=FeeRate(9_000), replaces=names))
    facts = rich.facts(fewer.intent, standing=standing(first))
    assert judge(rich, fewer, facts) == ("V20", "PAYMENT_DROPPED")
    again = rich.build(rich.choose(outpoints=points, burns=(burn,), rate=FeeRate(9_000), replaces=names))
    assert again.intent.commissions == first.intent.commissions
    assert judge(rich, again, rich.facts(again.intent, standing=standing(first))) == ("", "")


def test_signs_nothing_before_record_and_window(world: SweepWorld) -> None:
    built = world.sweep()
    raw = built.transaction.to_bytes()
    assert find_rule(world.review(Stage.SIGN, built.intent, raw)) == ("V21", "INTENT_NOT_FINAL")
    world.turning.add(endorse(world.turning.keyed[EPOCH], built.intent, world.ledger.height))
    world.chain.skip(2)
    assert find_rule(world.review(Stage.SIGN, built.intent, raw)) == ("V21", "WINDOW_NOT_OVER")
    world.chain.skip(2)
    assert find_rule(world.review(Stage.SIGN, built.intent, raw)) == ("", "")
