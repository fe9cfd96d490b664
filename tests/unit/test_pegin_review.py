"""What a member refuses before it endorses or signs a transfer of deposits: every rule at its limit and one past it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pegin.deposits import compute_room
from pegin.model import BuiltTransaction
from smpc.params import REGTEST
from smpc.protocol.facts import Facts, StandingFacts
from smpc.protocol.intents import IntentInput
from smpc.protocol.pod_messages import SessionHeader
from smpc.protocol.review import Stage
from smpc.types import (
    Attempt,
    ChildIndex,
    EpochNumber,
    FeeRate,
    GroupId,
    IdentityKey,
    IntentId,
    KaonHeight,
    Network,
    Outpoint,
    Role,
    Sats,
    Script,
    SessionId,
    Signature,
    Txid,
)
from tests.support.flow_world import FlowWorld, find_rule, with_session
from tests.support.groups import EPOCH


@pytest.fixture
def world() -> FlowWorld:
    return FlowWorld.opened()


@pytest.fixture
def transfer(world: FlowWorld) -> BuiltTransaction:
    """Build a transfer of two deposits, which nobody has recorded."""
    return world.transfer(world.deposit(1, 300_000), world.deposit(2, 50_000, user="bob"))


def endorse(world: FlowWorld, built: BuiltTransaction, facts: Facts | None = None) -> tuple[str, str]:
    return find_rule(world.endorse(built, facts))


def with_input(facts: Facts, outpoint: Outpoint, **changes: object) -> Facts:
    found = replace(facts.inputs[outpoint], **changes)  # type: ignore[arg-type]
    return replace(facts, inputs={**facts.inputs, outpoint: found})


def endorse_with(world: FlowWorld, built: BuiltTransaction, **changes: object) -> tuple[str, str]:
    """Judge a transfer whose first deposit is another by the member's own node."""
    first = built.intent.inputs[0].outpoint
    return endorse(world, built, with_input(world.facts(built.intent), first, **changes))


def test_accepts_what_was_built(world: FlowWorld, transfer: BuiltTransaction) -> None:
    assert endorse(world, transfer) == ("", "")


def test_signs_a_recorded_transfer_once_its_window_is_over(world: FlowWorld, transfer: BuiltTransaction) -> None:
    world.record(transfer)
    verdict = world.review(Stage.SIGN, transfer.intent, transfer.transaction.to_bytes())
    assert verdict.is_accepted


# ------------------------------------------------------------------ session and node


def with_header(world: FlowWorld, built: BuiltTransaction, **changes: object) -> Facts:
    """Facts of a session whose header differs, its id computed honestly."""
    facts = world.facts(built.intent)
    header: SessionHeader = replace(facts.session.header, **changes)  # type: ignore[arg-type]
    return with_session(facts, header=header, claimed_id=header.session_id)


def test_refuses_another_protocol_hash(world: FlowWorld, transfer: BuiltTransaction) -> None:
    facts = with_header(world, transfer, protocol=bytes(32))
    assert endorse(world, transfer, facts) == ("V01", "PROTOCOL_MISMATCH")


def test_refuses_while_its_own_node_is_behind(world: FlowWorld, transfer: BuiltTransaction) -> None:
    facts = world.facts(transfer.intent)
    behind = replace(facts, node=replace(facts.node, is_synced=False))
    assert endorse(world, transfer, behind) == ("V02", "NODE_BEHIND")
    world.record(transfer)
    verdict = world.review(Stage.SIGN, transfer.intent, transfer.transaction.to_bytes(), behind)
    assert find_rule(verdict) == ("V02", "NODE_BEHIND")


def test_refuses_when_its_own_node_is_on_another_chain(world: FlowWorld, transfer: BuiltTransaction) -> None:
    facts = world.facts(transfer.intent)
    other = replace(facts, node=replace(facts.node, chain=Network.MAINNET))
    assert endorse(world, transfer, other) == ("V02", "WRONG_CHAIN")


@pytest.mark.parametrize(("age", "rule"), [(7_200, ""), (7_201, "V02")])
def test_a_tip_may_be_two_hours_old_and_no_second_more(age: int, rule: str) -> None:
    world = FlowWorld.opened(replace(REGTEST, max_tip_age_seconds=7_200))
    built = world.transfer(world.deposit(1, 300_000))
    facts = world.facts(built.intent)
    aged = replace(facts, node=replace(facts.node, now=facts.node.tip_time + age))
    assert endorse(world, built, aged)[0] == rule


def test_refuses_who_does_not_lead_the_slot(world: FlowWorld, transfer: BuiltTransaction) -> None:
    facts = with_session(world.facts(transfer.intent), leader=IdentityKey(bytes(32)))
    assert endorse(world, transfer, facts) == ("V03", "NOT_LEADER")
    unknown = with_session(world.facts(transfer.intent), leader=None)
    assert endorse(world, transfer, unknown) == ("V03", "NOT_LEADER")


def test_refuses_an_envelope_of_somebody_else(world: FlowWorld, transfer: BuiltTransaction) -> None:
    facts = with_session(world.facts(transfer.intent), sender=IdentityKey(bytes(32)))
    assert endorse(world, transfer, facts) == ("V03", "NOT_LEADER")


def test_refuses_a_session_id_it_does_not_compute_itself(world: FlowWorld, transfer: BuiltTransaction) -> None:
    facts = with_session(world.facts(transfer.intent), claimed_id=SessionId(bytes(32)))
    assert endorse(world, transfer, facts) == ("V04", "SESSION_ID_MISMATCH")


@pytest.mark.parametrize("changes", [{"subject": bytes(32)}, {"suite": "other"}, {"purpose": None}])
def test_refuses_a_session_about_something_else(
    world: FlowWorld, transfer: BuiltTransaction, changes: dict[str, object]
) -> None:
    assert endorse(world, transfer, with_header(world, transfer, **changes)) == ("V04", "SESSION_ID_MISMATCH")


def test_refuses_while_the_flow_is_paused(world: FlowWorld, transfer: BuiltTransaction) -> None:
    facts = with_session(world.facts(transfer.intent), is_paused=True)
    assert endorse(world, transfer, facts) == ("V05", "FLOW_PAUSED")


def test_refuses_a_session_of_the_other_group(world: FlowWorld, transfer: BuiltTransaction) -> None:
    facts = with_header(world, transfer, group=GroupId(EPOCH, Role.WITNESS))
    assert endorse(world, transfer, facts) == ("V06", "WRONG_GROUP")


def test_the_emergency_group_never_signs_a_transfer(world: FlowWorld, transfer: BuiltTransaction) -> None:
    group = GroupId(EPOCH, Role.EMERGENCY)
    facts = with_session(with_header(world, transfer, group=group), own_group=group)
    assert endorse(world, transfer, facts) == ("V06", "WRONG_GROUP")


def test_refuses_a_session_of_an_epoch_that_is_not_open(world: FlowWorld, transfer: BuiltTransaction) -> None:
    group = GroupId(EpochNumber(7), Role.VALIDATOR)
    facts = with_session(with_header(world, transfer, group=group), own_group=group)
    verdict = world.endorse(transfer, facts)
    assert {finding.reason for finding in verdict.failures} == {"WRONG_GROUP", "EPOCH_CLOSED"}


def test_refuses_before_its_own_key_is_ready(world: FlowWorld, transfer: BuiltTransaction) -> None:
    facts = with_session(world.facts(transfer.intent), is_key_ready=False)
    assert endorse(world, transfer, facts) == ("V06", "KEY_NOT_READY")


def test_refuses_what_its_signing_log_forbids(world: FlowWorld, transfer: BuiltTransaction) -> None:
    facts = replace(world.facts(transfer.intent), conflicts=("signed another spend of it",))
    assert endorse(world, transfer, facts) == ("V07", "CONFLICTING_SPEND")


@pytest.mark.parametrize(
    ("change", "rule", "reason"),
    [
        ({"has_time_left": False}, "V08", "DEADLINE_TOO_CLOSE"),
        ({"is_session_new": False}, "V09", "SESSION_SEEN"),
        ({"is_nonce_unused": False}, "V09", "NONCE_SPENT"),
    ],
)
def test_time_and_nonces_are_judged_when_signing(
    world: FlowWorld, transfer: BuiltTransaction, change: dict[str, object], rule: str, reason: str
) -> None:
    facts = with_session(world.facts(transfer.intent), **change)
    assert endorse(world, transfer, facts) == ("", "")
    world.record(transfer)
    facts = with_session(world.facts(transfer.intent), **change)
    verdict = world.review(Stage.SIGN, transfer.intent, transfer.transaction.to_bytes(), facts)
    assert find_rule(verdict) == (rule, reason)


# ------------------------------------------------------------------ deposits


@pytest.mark.parametrize("change", [-1, 1])
def test_refuses_an_amount_that_its_node_does_not_have(
    world: FlowWorld, transfer: BuiltTransaction, change: int
) -> None:
    value = transfer.intent.inputs[0].value + change
    assert endorse_with(world, transfer, value=value) == ("V14", "AMOUNT_MISMATCH")


def test_refuses_a_deposit_that_its_node_does_not_have(world: FlowWorld, transfer: BuiltTransaction) -> None:
    facts = world.facts(transfer.intent)
    inputs = {outpoint: found for outpoint, found in facts.inputs.items() if found.value != 50_000}
    assert endorse(world, transfer, replace(facts, inputs=inputs)) == ("V14", "INPUT_MISSING")


def test_refuses_an_output_on_another_script(world: FlowWorld, transfer: BuiltTransaction) -> None:
    foreign = Script(b"\x51\x20" + bytes(32))
    assert endorse_with(world, transfer, script=foreign) == ("V14", "UNKNOWN_SCRIPT")


def test_refuses_a_deposit_that_another_transaction_spends(world: FlowWorld, transfer: BuiltTransaction) -> None:
    assert endorse_with(world, transfer, spender=Txid(bytes(32))) == ("V14", "INPUT_SPENT")
    assert endorse_with(world, transfer, spender=transfer.intent.txid) == ("", "")


@pytest.mark.parametrize(("confirmations", "rule"), [(0, "V19"), (1, "V32"), (2, "V32"), (3, "")])
def test_a_deposit_needs_its_confirmations(
    world: FlowWorld, transfer: BuiltTransaction, confirmations: int, rule: str
) -> None:
    assert endorse_with(world, transfer, confirmations=confirmations)[0] == rule


@pytest.mark.parametrize(("confirmations", "rule"), [(99, "V32"), (100, "V34")])
def test_a_coinbase_is_never_early_enough(
    world: FlowWorld, transfer: BuiltTransaction, confirmations: int, rule: str
) -> None:
    """It may be spent only long after its refund opened."""
    assert endorse_with(world, transfer, confirmations=confirmations, is_coinbase=True)[0] == rule


@pytest.mark.parametrize(("left", "rule"), [(5, "V34"), (6, "V34"), (7, "")])
def test_a_refund_must_open_beyond_the_margin(
    world: FlowWorld, transfer: BuiltTransaction, left: int, rule: str
) -> None:
    confirmations = REGTEST.refund_csv - left
    assert endorse_with(world, transfer, confirmations=confirmations)[0] == rule


def test_the_refund_margin_is_judged_again_when_signing(world: FlowWorld, transfer: BuiltTransaction) -> None:
    world.record(transfer)
    late = with_input(world.facts(transfer.intent), transfer.intent.inputs[0].outpoint, confirmations=30)
    verdict = world.review(Stage.SIGN, transfer.intent, transfer.transaction.to_bytes(), late)
    assert find_rule(verdict) == ("V34", "REFUND_TOO_CLOSE")


def test_the_blocklist_is_asked(world: FlowWorld, transfer: BuiltTransaction) -> None:
    assert endorse_with(world, transfer, is_blocked=True) == ("V35", "BLOCKED")


@pytest.mark.parametrize(
    ("value", "rule"),
    [(19_999, "V33"), (20_000, ""), (REGTEST.max_deposit, ""), (REGTEST.max_deposit + 1, "V33")],
)
def test_a_deposit_stays_inside_its_bounds(world: FlowWorld, value: int, rule: str) -> None:
    built = world.transfer(world.deposit(1, value))
    assert endorse(world, built)[0] == rule


@pytest.mark.parametrize(("room", "rule"), [(350_000, ""), (349_999, "V33")])
def test_all_deposits_together_stay_under_the_cap(room: int, rule: str) -> None:
    world = FlowWorld.opened(replace(REGTEST, max_total_locked=Sats(room)))
    built = world.transfer(world.deposit(1, 300_000), world.deposit(2, 50_000))
    assert endorse(world, built)[0] == rule


@pytest.mark.parametrize(("room", "rule"), [(400_000, ""), (399_999, "V33")])
def test_deposits_of_one_window_stay_under_the_cap(room: int, rule: str) -> None:
    world = FlowWorld.opened(replace(REGTEST, max_window_deposits=Sats(room)))
    world.fill_vault(100_000)
    built = world.transfer(world.deposit(5, 300_000))
    assert endorse(world, built)[0] == rule


@pytest.mark.parametrize("cap", ["max_window_deposits", "max_total_locked"])
@pytest.mark.parametrize(("more", "rule"), [(0, ""), (20_000, "V33")])
def test_a_replacement_above_the_caps_passes_only_while_it_moves_nothing_new(cap: str, more: int, rule: str) -> None:
    """Two transfers that were endorsed side by side may stand above a cap; each must still get its higher fee."""
    world = FlowWorld.opened(replace(REGTEST, **{cap: Sats(450_000)}))  # type: ignore[arg-type]
    point = world.deposit(1, 300_000)
    stuck, other = world.transfer(point), world.transfer(world.deposit(2, 300_000))
    assert endorse(world, stuck) == endorse(world, other) == ("", "")
    world.record(stuck)
    world.record(other)
    assert compute_room(world.ledger) == -150_000
    points = (point, world.deposit(3, more)) if more else (point,)
    bump = world.transfer(*points, rate=FeeRate(6_250), replaces=(stuck.intent.intent_id,))
    standing = (StandingFacts(stuck.intent.intent_id, 3, stuck.intent.fee, stuck.vsize),)
    assert find_rule(world.endorse(bump, world.facts(bump.intent, standing=standing)))[0] == rule


@pytest.mark.parametrize(("more", "rule"), [(0, ""), (150_000, "V33")])
def test_a_deposit_that_the_live_version_dropped_is_new_to_the_caps_again(more: int, rule: str) -> None:
    """Its room went to another deposit meanwhile."""
    world = FlowWorld.opened(replace(REGTEST, max_window_deposits=Sats(450_000)))
    kept, dropped = world.deposit(1, 300_000), world.deposit(2, 150_000)
    first = world.record(world.transfer(kept, dropped))
    names = (first.intent.intent_id,)
    second = world.record(world.transfer(kept, rate=FeeRate(10_000), replaces=names))
    if more:
        world.record(world.transfer(world.deposit(3, more)))
    versions = tuple(sorted((*names, second.intent.intent_id)))
    third = world.transfer(kept, dropped, rate=FeeRate(13_000), replaces=versions)
    world.estimate = FeeRate(20_000)
    standing = tuple(StandingFacts(each.intent.intent_id, 3, each.intent.fee, each.vsize) for each in (first, second))
    assert find_rule(world.endorse(third, world.facts(third.intent, standing=standing)))[0] == rule


@pytest.mark.parametrize(("blocks", "rule"), [(-1, "V33"), (0, "")])
def test_deposits_leave_the_window_when_it_has_passed(blocks: int, rule: str) -> None:
    world = FlowWorld.opened(replace(REGTEST, max_window_deposits=Sats(350_000), cap_window=30))
    moved = world.record(world.transfer(world.deposit(1, 100_000)))
    outpoint = world.deposit(5, 300_000)
    recorded = world.ledger.intents[moved.intent.intent_id].recorded
    world.chain.skip(recorded + 30 + blocks - world.ledger.height)
    assert endorse(world, world.transfer(outpoint))[0] == rule


def test_refuses_what_is_credited_already(world: FlowWorld) -> None:
    outpoint = world.deposit(1, 300_000)
    first = world.record(world.transfer(outpoint))
    found = world.outputs[outpoint]
    world.mine(first)
    world.outputs[outpoint] = found
    again = world.transfer(outpoint, rate=FeeRate(6_000))
    assert endorse(world, again) == ("V37", "ALREADY_CREDITED")


def test_refuses_a_deposit_of_an_invoice_that_was_never_recorded(world: FlowWorld, transfer: BuiltTransaction) -> None:
    first = transfer.intent.inputs[0]
    unknown = replace(first, child=ChildIndex(99))
    lie = replace(transfer.intent, inputs=(unknown, *transfer.intent.inputs[1:]))
    verdict = world.review(Stage.ENDORSE, lie, transfer.transaction.to_bytes())
    assert find_rule(verdict) == ("V31", "INVOICE_UNKNOWN")


def test_refuses_a_vault_output_among_deposits(world: FlowWorld) -> None:
    (booked, *_) = world.fill_vault(300_000)
    built = world.transfer(world.deposit(5, 50_000))
    mixed = replace(built.intent, inputs=(*built.intent.inputs, world.coin(booked)))
    verdict = world.review(Stage.ENDORSE, mixed, built.transaction.to_bytes())
    assert find_rule(verdict) == ("V23", "MIXED_INPUTS")


# ------------------------------------------------------------------ the transaction


def test_refuses_the_same_deposit_twice(world: FlowWorld, transfer: BuiltTransaction) -> None:
    first = transfer.intent.inputs[0]
    lie = replace(transfer.intent, inputs=(first, *transfer.intent.inputs))
    verdict = world.review(Stage.ENDORSE, lie, transfer.transaction.to_bytes())
    assert find_rule(verdict) == ("V13", "DUPLICATE")


@pytest.mark.parametrize(("rate", "rule"), [(1_999, "V18"), (2_000, ""), (10_000, ""), (10_001, "V18")])
def test_the_fee_rate_is_between_the_floor_and_the_default_without_an_estimate(
    world: FlowWorld, rate: int, rule: str
) -> None:
    built = world.transfer(world.deposit(1, 300_000), rate=FeeRate(rate))
    assert endorse(world, built)[0] == rule


@pytest.mark.parametrize(("rate", "reason"), [(8_000, ""), (8_001, "FEE_CAP")])
def test_the_fee_rate_is_at_most_twice_the_own_estimate(world: FlowWorld, rate: int, reason: str) -> None:
    world.estimate = FeeRate(4_000)
    built = world.transfer(world.deposit(1, 300_000), rate=FeeRate(rate))
    assert endorse(world, built)[1] == reason


@pytest.mark.parametrize(("rate", "reason"), [(300_000, ""), (300_001, "FEE_CAP")])
def test_the_fee_rate_never_passes_the_cap(world: FlowWorld, rate: int, reason: str) -> None:
    world.estimate = FeeRate(10_000_000)
    built = world.transfer(world.deposit(1, REGTEST.max_deposit), rate=FeeRate(rate))
    assert endorse(world, built)[1] == reason


def test_the_fee_is_within_what_the_deposits_paid(world: FlowWorld) -> None:
    """fee_in of 50,000 sat is 3,800; one input and one output are 162 vB."""
    world.estimate = FeeRate(100_000)
    outpoint = world.deposit(1, 50_000)
    assert endorse(world, world.transfer(outpoint, rate=FeeRate(23_450))) == ("", "")
    assert endorse(world, world.transfer(outpoint, rate=FeeRate(23_460))) == ("V18", "FEE_BUDGET")


def test_a_tenth_of_the_reserve_adds_to_the_budget(world: FlowWorld) -> None:
    world.fill_vault(10_000_000)
    world.estimate = FeeRate(100_000)
    extra = world.ledger.reserve // 10
    assert extra > 1_000
    rate = FeeRate((3_800 + extra) * 1_000 // 162)
    outpoint = world.deposit(5, 50_000)
    assert endorse(world, world.transfer(outpoint, rate=rate)) == ("", "")
    over = FeeRate((3_801 + extra) * 1_000 // 162 + 7)
    assert endorse(world, world.transfer(outpoint, rate=over)) == ("V18", "FEE_BUDGET")


def test_refuses_to_pay_an_epoch_that_is_not_active(world: FlowWorld, transfer: BuiltTransaction) -> None:
    lie = replace(transfer.intent, target_epoch=EpochNumber(3))
    verdict = world.review(Stage.ENDORSE, lie, transfer.transaction.to_bytes())
    assert find_rule(verdict) == ("V15", "CHANGE_SCRIPT")
    assert "V22" in {finding.rule for finding in verdict.failures}


def test_refuses_to_sign_what_is_not_recorded(world: FlowWorld, transfer: BuiltTransaction) -> None:
    verdict = world.review(Stage.SIGN, transfer.intent, transfer.transaction.to_bytes())
    assert find_rule(verdict) == ("V21", "INTENT_NOT_FINAL")


def test_refuses_to_sign_before_the_record_is_final_and_its_window_over(
    world: FlowWorld, transfer: BuiltTransaction
) -> None:
    recorded = world.ledger.height + 1
    world.chain.record(transfer.intent)
    reasons = []
    for _ in range(5):
        facts = world.facts(transfer.intent)
        verdict = world.review(Stage.SIGN, transfer.intent, transfer.transaction.to_bytes(), facts)
        reasons.append((facts.final_height - recorded, find_rule(verdict)[1]))
        world.chain.skip(1)
    not_final, not_over = "INTENT_NOT_FINAL", "WINDOW_NOT_OVER"
    assert reasons == [(-2, not_final), (-1, not_final), (0, not_over), (1, not_over), (2, "")]


def test_refuses_to_sign_what_was_withdrawn(world: FlowWorld, transfer: BuiltTransaction) -> None:
    world.record(transfer)
    world.chain.add(world.chain.make_withdrawal(transfer.intent.intent_id))
    verdict = world.review(Stage.SIGN, transfer.intent, transfer.transaction.to_bytes())
    assert find_rule(verdict) == ("V21", "INTENT_NOT_LIVE")


def test_a_witness_verifies_the_validators_signatures_first(world: FlowWorld, transfer: BuiltTransaction) -> None:
    world.record(transfer)
    raw = transfer.transaction.to_bytes()
    facts = world.facts(transfer.intent, Role.WITNESS)
    good, other = world.sign(transfer, Role.VALIDATOR), world.sign(transfer, Role.WITNESS)
    assert world.review(Stage.SIGN, transfer.intent, raw, facts, good).is_accepted
    for bad in ((), good[:1], other, good[::-1]):
        verdict = world.review(Stage.SIGN, transfer.intent, raw, facts, bad)
        assert find_rule(verdict) == ("V11", "SIGHASH_MISMATCH")


def test_a_witness_takes_no_other_sighash_type(world: FlowWorld, transfer: BuiltTransaction) -> None:
    world.record(transfer)
    facts = world.facts(transfer.intent, Role.WITNESS)
    typed = tuple(Signature(item + b"\x83") for item in world.sign(transfer, Role.VALIDATOR))
    verdict = world.review(Stage.SIGN, transfer.intent, transfer.transaction.to_bytes(), facts, typed)
    assert {finding.reason for finding in verdict.failures} == {"SIGHASH_TYPE", "SIGHASH_MISMATCH"}


# ------------------------------------------------------------------ replacements


def bump_facts(world: FlowWorld, first: BuiltTransaction, second: BuiltTransaction, waiting: int) -> Facts:
    standing = StandingFacts(first.intent.intent_id, waiting, first.intent.fee, first.vsize)
    return world.facts(second.intent, standing=(standing,))


@pytest.mark.parametrize(("waiting", "reason"), [(2, "BUMP_TOO_EARLY"), (3, "")])
def test_a_replacement_waits_three_blocks(world: FlowWorld, waiting: int, reason: str) -> None:
    outpoint = world.deposit(1, 300_000)
    first = world.record(world.transfer(outpoint))
    second = world.transfer(outpoint, rate=FeeRate(6_250), replaces=(first.intent.intent_id,))
    assert endorse(world, second, bump_facts(world, first, second, waiting))[1] == reason


@pytest.mark.parametrize(("rate", "reason"), [(5_990, "REPLACEMENT_FEE"), (6_000, "")])
def test_a_replacement_pays_a_satoshi_per_vbyte_more(world: FlowWorld, rate: int, reason: str) -> None:
    outpoint = world.deposit(1, 300_000)
    first = world.record(world.transfer(outpoint))
    second = world.transfer(outpoint, rate=FeeRate(rate), replaces=(first.intent.intent_id,))
    assert endorse(world, second, bump_facts(world, first, second, 3))[1] == reason


def test_refuses_a_second_intent_that_does_not_say_what_it_replaces(world: FlowWorld) -> None:
    outpoint = world.deposit(1, 300_000)
    first = world.record(world.transfer(outpoint))
    second = world.transfer(outpoint, rate=FeeRate(6_250))
    assert endorse(world, second, bump_facts(world, first, second, 3)) == ("V20", "DOUBLE_PAY")


def test_refuses_a_replacement_of_what_is_not_in_its_way(world: FlowWorld, transfer: BuiltTransaction) -> None:
    stranger = world.transfer(*(item.outpoint for item in transfer.intent.inputs), replaces=(IntentId(bytes(32)),))
    assert endorse(world, stranger) == ("V20", "REPLACES_WRONG")


def test_a_replacement_counts_its_deposits_once_in_the_caps() -> None:
    world = FlowWorld.opened(replace(REGTEST, max_total_locked=Sats(300_000)))
    outpoint = world.deposit(1, 300_000)
    first = world.record(world.transfer(outpoint))
    second = world.transfer(outpoint, rate=FeeRate(6_250), replaces=(first.intent.intent_id,))
    assert endorse(world, second, bump_facts(world, first, second, 3)) == ("", "")


# ------------------------------------------------------------------ the small print


def test_an_intent_with_too_many_inputs_is_refused_without_work(world: FlowWorld, transfer: BuiltTransaction) -> None:
    many = tuple(
        IntentInput(Outpoint(Txid(number.to_bytes(32, "big")), 0), Sats(20_000), ChildIndex(1)) for number in range(501)
    )
    verdict = world.review(Stage.ENDORSE, replace(transfer.intent, inputs=many), b"")
    assert "TX_TOO_LARGE" in {finding.reason for finding in verdict.failures}


def test_hostile_numbers_are_refused_and_break_nothing(world: FlowWorld, transfer: BuiltTransaction) -> None:
    huge = 2**64 - 1
    first = transfer.intent.inputs[0]
    lies = (
        replace(transfer.intent, fee_rate=FeeRate(huge)),
        replace(transfer.intent, fee=Sats(huge)),
        replace(transfer.intent, vault_outputs=(Sats(huge),)),
        replace(transfer.intent, inputs=()),
        replace(transfer.intent, epoch=EpochNumber(huge)),
        replace(transfer.intent, inputs=(replace(first, child=ChildIndex(huge)),)),
        replace(transfer.intent, inputs=(replace(first, value=Sats(huge)),)),
    )
    for lie in lies:
        for stage in Stage:
            assert not world.review(stage, lie, transfer.transaction.to_bytes()).is_accepted


def test_the_header_attempt_does_not_change_the_verdict(world: FlowWorld, transfer: BuiltTransaction) -> None:
    facts = with_header(world, transfer, attempt=Attempt(1), slot=KaonHeight(9))
    assert endorse(world, transfer, facts) == ("", "")
