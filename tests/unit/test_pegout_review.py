"""What a member refuses before it endorses or signs a payout, and every lie of a coordinator that it answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.invariants import find_imbalance
from pegin.deposits import compute_room
from pegin.invoice import build_invoice_tree
from pegin.model import BuiltTransaction
from pegin.versions import compute_least_fee
from smpc.bitcoin.script import build_op_return, build_p2tr
from smpc.bitcoin.transaction import Transaction, TxOut
from smpc.params import REGTEST
from smpc.participant.gather import WatchedScripts
from smpc.protocol.facts import Facts, InputFacts, StandingFacts
from smpc.protocol.intents import Intent, Payment
from smpc.protocol.ledger_state import BurnStatus
from smpc.protocol.review import Stage
from smpc.types import BurnId, ChildIndex, EpochNumber, FeeRate, IntentId, KaonHeight, Outpoint, Sats, Script, Txid
from tests.support.flow_world import FlowWorld, find_rule
from tests.support.groups import make_xonly

FOREIGN = build_p2tr(make_xonly("the coordinator's own key"))


@pytest.fixture
def world() -> FlowWorld:
    """Give a vault of two outputs of about half a million satoshi each."""
    world = FlowWorld.opened()
    world.fill_vault(1_000_000)
    return world


@pytest.fixture
def payout(world: FlowWorld) -> BuiltTransaction:
    """Build a payout of two burns from one vault output."""
    burns = (world.burn(100_000), world.burn(50_000))
    return world.payout(tuple(world.ledger.vault)[:1], burns)


def endorse(world: FlowWorld, built: BuiltTransaction, facts: Facts | None = None) -> tuple[str, str]:
    return find_rule(world.endorse(built, facts))


def propose(world: FlowWorld, intent: Intent, transaction: Transaction) -> tuple[str, str]:
    """Judge an intent with a transaction of the proposer's own making."""
    return find_rule(world.review(Stage.ENDORSE, intent, transaction.to_bytes()))


def lie(built: BuiltTransaction, position: int, **changes: object) -> tuple[Intent, Transaction]:
    """Change one output, and let the intent's txid agree with the lie."""
    outputs = list(built.transaction.outputs)
    outputs[position] = replace(outputs[position], **changes)  # type: ignore[arg-type]
    transaction = replace(built.transaction, outputs=tuple(outputs))
    return replace(built.intent, txid=transaction.txid), transaction


def test_accepts_what_was_built(world: FlowWorld, payout: BuiltTransaction) -> None:
    assert endorse(world, payout) == ("", "")


def test_signs_a_recorded_payout_once_its_window_is_over(world: FlowWorld, payout: BuiltTransaction) -> None:
    world.record(payout)
    assert world.review(Stage.SIGN, payout.intent, payout.transaction.to_bytes()).is_accepted


# ------------------------------------------------------------------ a coordinator that lies


def test_refuses_a_change_output_to_the_coordinators_key(world: FlowWorld, payout: BuiltTransaction) -> None:
    assert propose(world, *lie(payout, 0, script=FOREIGN)) == ("V15", "CHANGE_SCRIPT")


def test_refuses_to_sign_a_wrong_change_script_too(world: FlowWorld, payout: BuiltTransaction) -> None:
    world.record(payout)
    _, transaction = lie(payout, 0, script=FOREIGN)
    verdict = world.review(Stage.SIGN, payout.intent, transaction.to_bytes())
    assert find_rule(verdict) == ("V15", "CHANGE_SCRIPT")


def test_refuses_change_to_an_old_epochs_groups(world: FlowWorld, payout: BuiltTransaction) -> None:
    old = replace(payout.intent, target_epoch=EpochNumber(5))
    assert propose(world, old, payout.transaction) == ("V15", "CHANGE_SCRIPT")


@pytest.mark.parametrize(
    ("extra", "rule"),
    [
        (TxOut(Sats(1), FOREIGN), "V17"),
        (TxOut(Sats(0), build_op_return(b"KAON")), "V16"),
        (TxOut(Sats(10_000), FOREIGN), "V10"),
    ],
)
def test_refuses_an_extra_output(world: FlowWorld, payout: BuiltTransaction, extra: TxOut, rule: str) -> None:
    more = replace(payout.transaction, outputs=(*payout.transaction.outputs, extra))
    assert propose(world, replace(payout.intent, txid=more.txid), more)[0] == rule


def test_refuses_a_missing_payout(world: FlowWorld, payout: BuiltTransaction) -> None:
    fewer = replace(payout.transaction, outputs=payout.transaction.outputs[:-1])
    assert propose(world, replace(payout.intent, txid=fewer.txid), fewer) == ("V10", "NOT_REBUILT")


@pytest.mark.parametrize("change", [-1, 1])
def test_refuses_a_payout_altered_by_a_satoshi(world: FlowWorld, payout: BuiltTransaction, change: int) -> None:
    altered = payout.transaction.outputs[1].value + change
    assert propose(world, *lie(payout, 1, value=Sats(altered))) == ("V43", "AMOUNT_MISMATCH")


def test_refuses_an_altered_amount_in_the_intent(world: FlowWorld, payout: BuiltTransaction) -> None:
    first, *rest = payout.intent.payments
    less = replace(payout.intent, payments=(replace(first, amount=Sats(first.amount - 1)), *rest))
    assert propose(world, less, payout.transaction) == ("V43", "AMOUNT_MISMATCH")


def test_refuses_change_altered_by_a_satoshi(world: FlowWorld, payout: BuiltTransaction) -> None:
    altered = Sats(payout.transaction.outputs[0].value - 1)
    intent, transaction = lie(payout, 0, value=altered)
    intent = replace(intent, vault_outputs=(altered,), fee=Sats(payout.intent.fee + 1))
    assert propose(world, intent, transaction) == ("V10", "NOT_REBUILT")


def test_refuses_another_destination(world: FlowWorld, payout: BuiltTransaction) -> None:
    assert propose(world, *lie(payout, 1, script=FOREIGN)) == ("V42", "DESTINATION")


def test_refuses_an_unknown_burn(world: FlowWorld, payout: BuiltTransaction) -> None:
    unknown = Payment(BurnId(bytes(32)), Sats(30_000), FOREIGN)
    more = replace(payout.intent, payments=(unknown, *payout.intent.payments))
    assert propose(world, more, payout.transaction) == ("V40", "BURN_UNKNOWN")


def test_refuses_the_same_burn_twice_in_one_intent(world: FlowWorld, payout: BuiltTransaction) -> None:
    twice = replace(payout.intent, payments=(payout.intent.payments[0], *payout.intent.payments))
    assert propose(world, twice, payout.transaction) == ("V13", "DUPLICATE")


def test_refuses_a_second_intent_for_a_burn_with_other_inputs(world: FlowWorld) -> None:
    burn = world.burn(100_000)
    first, second = sorted(world.ledger.vault)
    world.record(world.payout((first,), (burn,)))
    assert endorse(world, world.payout((second,), (burn,))) == ("V20", "DOUBLE_PAY")


def test_a_withheld_transaction_forbids_a_second_payment_for_ever(world: FlowWorld) -> None:
    """Signed, never broadcast, and then another payment of the same burn is proposed a long time later."""
    burn = world.burn(100_000)
    first, second = sorted(world.ledger.vault)
    world.record(world.payout((first,), (burn,)))
    world.chain.skip(40)
    named = world.payout((second,), (burn,), rate=FeeRate(7_000))
    named = world.payout((second,), (burn,), rate=FeeRate(7_000), replaces=(named.intent.intent_id,))
    assert endorse(world, named) == ("V20", "DOUBLE_PAY")


def test_refuses_a_replayed_intent_after_its_booking(world: FlowWorld, payout: BuiltTransaction) -> None:
    facts = world.facts(payout.intent)
    world.record(payout)
    world.mine(payout)
    signing = world.review(Stage.SIGN, payout.intent, payout.transaction.to_bytes(), facts)
    assert {finding.rule for finding in signing.failures} >= {"V14", "V21"}
    endorsing = world.endorse(payout, facts)
    assert {finding.reason for finding in endorsing.failures} >= {"INPUT_NOT_BOOKED", "BURN_NOT_OPEN"}


def test_refuses_an_intent_that_names_burns_and_spends_nothing_real(world: FlowWorld, payout: BuiltTransaction) -> None:
    invented = replace(payout.intent.inputs[0], outpoint=Outpoint(Txid(b"\x07" * 32), 0))
    assert propose(world, replace(payout.intent, inputs=(invented,)), payout.transaction) == ("V14", "INPUT_NOT_BOOKED")


def test_refuses_an_intent_without_inputs(world: FlowWorld, payout: BuiltTransaction) -> None:
    assert propose(world, replace(payout.intent, inputs=()), payout.transaction)[0] == "V12"


def test_refuses_an_unbooked_output_even_on_a_vault_script(world: FlowWorld, payout: BuiltTransaction) -> None:
    """A gift to a vault script is not held by the ledger and pays no burns."""
    vault = world.outputs[payout.intent.inputs[0].outpoint]
    gift = replace(vault, outpoint=Outpoint(Txid(b"\x08" * 32), 0))
    world.outputs[gift.outpoint] = gift
    item = replace(payout.intent.inputs[0], outpoint=gift.outpoint)
    assert propose(world, replace(payout.intent, inputs=(item,)), payout.transaction) == ("V14", "INPUT_NOT_BOOKED")


def test_refuses_a_deposit_among_vault_inputs(world: FlowWorld, payout: BuiltTransaction) -> None:
    deposit = world.coin(world.deposit(9, 30_000))
    mixed = replace(payout.intent, inputs=(*payout.intent.inputs, deposit))
    verdict = world.review(Stage.ENDORSE, mixed, payout.transaction.to_bytes())
    assert "MIXED_INPUTS" in {finding.reason for finding in verdict.failures}


def test_refuses_to_sign_an_intent_that_is_not_recorded(world: FlowWorld, payout: BuiltTransaction) -> None:
    verdict = world.review(Stage.SIGN, payout.intent, payout.transaction.to_bytes())
    assert find_rule(verdict) == ("V21", "INTENT_NOT_FINAL")


def test_refuses_to_sign_while_the_window_runs(world: FlowWorld, payout: BuiltTransaction) -> None:
    world.chain.record(payout.intent)
    world.chain.skip(2)
    verdict = world.review(Stage.SIGN, payout.intent, payout.transaction.to_bytes())
    assert find_rule(verdict) == ("V21", "WINDOW_NOT_OVER")


def test_refuses_another_version_locktime_or_sequence(world: FlowWorld, payout: BuiltTransaction) -> None:
    honest = payout.transaction
    (txin,) = honest.inputs
    for other in (
        replace(honest, version=1),
        replace(honest, locktime=1),
        replace(honest, inputs=(replace(txin, sequence=0xFFFFFFFF),)),
    ):
        assert propose(world, replace(payout.intent, txid=other.txid), other) == ("V12", "TX_SHAPE")


def test_refuses_bytes_that_are_no_transaction(world: FlowWorld, payout: BuiltTransaction) -> None:
    verdict = world.review(Stage.ENDORSE, payout.intent, b"\xff" * 40)
    assert find_rule(verdict)[0] == "V12"
    assert not world.review(Stage.ENDORSE, payout.intent, b"").is_accepted


# ------------------------------------------------------------------ burns


def test_pays_no_burn_before_its_block_is_final(world: FlowWorld, payout: BuiltTransaction) -> None:
    facts = world.facts(payout.intent)
    newest = max(world.ledger.burns[burn].recorded for burn in payout.intent.burns)
    assert endorse(world, payout, replace(facts, final_height=newest)) == ("", "")
    early = replace(facts, final_height=KaonHeight(newest - 1))
    assert endorse(world, payout, early) == ("V40", "BURN_NOT_OPEN")


def test_pays_no_cancelled_burn(world: FlowWorld, payout: BuiltTransaction) -> None:
    world.chain.add(world.chain.make_cancel("alice", payout.intent.payments[0].burn))
    assert endorse(world, payout) == ("V40", "BURN_NOT_OPEN")


@pytest.mark.parametrize(("least", "rule"), [(50_000, ""), (50_001, "V41")])
def test_a_payout_has_a_least_amount(
    world: FlowWorld, payout: BuiltTransaction, monkeypatch: pytest.MonkeyPatch, least: int, rule: str
) -> None:
    monkeypatch.setattr(world.ledger, "params", replace(REGTEST, min_payout=Sats(least)))
    facts = world.facts(payout.intent)
    assert endorse(world, payout, facts)[0] == rule


@pytest.mark.parametrize(("most", "rule"), [(250_000, ""), (249_999, "V41")])
def test_payouts_of_one_window_stay_under_the_cap(most: int, rule: str) -> None:
    world = FlowWorld.opened(replace(REGTEST, max_window_payouts=Sats(most)))
    first, second = world.fill_vault(1_000_000)
    world.record(world.payout((first,), (world.burn(100_000),)))
    built = world.payout((second,), (world.burn(150_000),))
    assert endorse(world, built)[0] == rule


@pytest.mark.parametrize(("more", "rule"), [(0, ""), (10_000, "V41")])
def test_a_replacement_above_the_cap_passes_only_while_it_pays_nobody_new(more: int, rule: str) -> None:
    """Two payouts that were endorsed side by side may stand above the cap; each must still get its higher fee."""
    world = FlowWorld.opened(replace(REGTEST, max_window_payouts=Sats(250_000)))
    first, second = world.fill_vault(1_000_000)
    burn = world.burn(200_000)
    stuck, other = world.payout((first,), (burn,)), world.payout((second,), (world.burn(200_000),))
    assert endorse(world, stuck) == endorse(world, other) == ("", "")
    world.record(stuck)
    world.record(other)
    burns = (burn, world.burn(more)) if more else (burn,)
    bump = world.payout((first,), burns, rate=FeeRate(6_250), replaces=(stuck.intent.intent_id,))
    facts = world.facts(bump.intent, standing=standing(stuck))
    assert endorse(world, bump, facts)[0] == rule


@pytest.mark.parametrize(("blocks", "reason"), [(-1, "WINDOW_CAP"), (0, "")])
def test_payouts_leave_the_window_when_it_has_passed(blocks: int, reason: str) -> None:
    world = FlowWorld.opened(replace(REGTEST, max_window_payouts=Sats(200_000), cap_window=30))
    first, second = world.fill_vault(1_000_000)
    paid = world.record(world.payout((first,), (world.burn(100_000),)))
    burn = world.burn(150_000)
    recorded = world.ledger.intents[paid.intent.intent_id].recorded
    world.chain.skip(recorded + 30 + blocks - world.ledger.height)
    assert endorse(world, world.payout((second,), (burn,)))[1] == reason


def test_refuses_a_destination_that_is_one_of_ours(world: FlowWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger takes no such burn; a member judges it all the same."""
    burn = world.burn(100_000)
    entry = world.ledger.burns[burn]
    vault = world.outputs[min(world.ledger.vault)].script
    ours = replace(entry, request=replace(entry.request, script=vault))
    monkeypatch.setattr(world.ledger, "burns", {burn: ours})
    assert endorse(world, world.payout(tuple(world.ledger.vault)[:1], (burn,))) == ("V42", "DESTINATION")


@pytest.mark.parametrize(("blocks", "rule"), [(-1, "V42"), (0, ""), (1, "")])
def test_a_destination_is_judged_as_of_the_block_of_its_burn(
    world: FlowWorld, payout: BuiltTransaction, blocks: int, rule: str
) -> None:
    """Of one and the same block the ledger decided which came first: it takes no burn behind the invoice."""
    paid = payout.intent.payments[0]
    burnt = world.ledger.burns[paid.burn].recorded
    facts = replace(world.facts(payout.intent), own_scripts={paid.script: KaonHeight(burnt + blocks)})
    assert endorse(world, payout, facts)[0] == rule
    watched = {payment.script: KaonHeight(burnt - 1) for payment in payout.intent.payments}
    assert endorse(world, payout, replace(facts, own_scripts=watched)) == ("V42", "DESTINATION")


async def test_who_burns_to_an_invoice_it_orders_later_is_paid_with_the_others_and_has_paid_that_invoice() -> None:
    """One such burn would otherwise stop every payout and sweep that carries it; nothing is counted twice."""
    world = FlowWorld.opened()
    world.fill_vault(1_000_000)
    terms = world.chain.make_terms(500, user="bob")
    script = build_invoice_tree(world.keys, terms).script
    early, plain = world.burn(100_000, script=script), world.burn(50_000)
    world.chain.add(world.chain.make_invoices(terms, request_id=b"ordered after the burn"))
    assert world.chain.refusal(world.chain.make_burn("alice", 10_000, script=script)) == "OWN_DESTINATION"
    payout = world.payout(tuple(world.ledger.vault)[:1], (early, plain))
    facts = replace(world.facts(payout.intent), own_scripts=await WatchedScripts().refresh(world.ledger))
    assert script in facts.own_scripts
    assert endorse(world, payout, facts) == ("", "")
    room = compute_room(world.ledger)
    world.mine(world.record(payout))
    assert {world.ledger.burns[burn].status for burn in (early, plain)} == {BurnStatus.SETTLED}
    assert compute_room(world.ledger) >= room, "a payout takes nothing of what may be deposited"
    (place,) = [at for at, output in enumerate(payout.transaction.outputs) if output.script == script]
    deposit = Outpoint(payout.intent.txid, place)
    assert deposit not in world.ledger.vault
    world.outputs[deposit] = InputFacts(deposit, Sats(100_000), script, 3)
    world.children[deposit] = terms.index
    transfer = world.transfer(deposit)
    assert endorse(world, transfer) == ("", "")
    before, bob = world.ledger.supply, world.ledger.get_account(terms.recipient).balance
    world.mine(world.record(transfer))
    credited = world.ledger.get_account(terms.recipient).balance - bob
    assert credited == world.ledger.supply - before == 100_000 - terms.compute_fee_in(Sats(100_000))
    assert not find_imbalance(world.ledger)
    world.outputs[deposit] = InputFacts(deposit, Sats(100_000), script, 3)
    assert endorse(world, world.transfer(deposit, rate=FeeRate(6_000))) == ("V37", "ALREADY_CREDITED")


async def test_an_invoice_that_stood_before_the_burn_stays_refused_by_ledger_and_member(
    world: FlowWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger takes no such burn; a member judges it all the same."""
    terms = world.chain.make_terms(500, user="bob")
    script = build_invoice_tree(world.keys, terms).script
    world.chain.add(world.chain.make_invoices(terms, request_id=b"ordered before the burn"))
    assert world.chain.refusal(world.chain.make_burn("alice", 10_000, script=script)) == "OWN_DESTINATION"
    burn = world.burn(100_000)
    entry = world.ledger.burns[burn]
    ours = replace(entry, request=replace(entry.request, script=script))
    monkeypatch.setattr(world.ledger, "burns", {burn: ours})
    payout = world.payout(tuple(world.ledger.vault)[:1], (burn,))
    facts = replace(world.facts(payout.intent), own_scripts=await WatchedScripts().refresh(world.ledger))
    assert endorse(world, payout, facts) == ("V42", "DESTINATION")


def test_a_raised_fee_limit_changes_no_transaction(world: FlowWorld, payout: BuiltTransaction) -> None:
    world.chain.add(world.chain.make_raise("alice", payout.intent.payments[0].burn, 5_000))
    assert endorse(world, payout) == ("", "")


# ------------------------------------------------------------------ inputs


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"value": 1}, ("V14", "AMOUNT_MISMATCH")),
        ({"script": FOREIGN}, ("V14", "UNKNOWN_SCRIPT")),
        ({"spender": Txid(bytes(32))}, ("V14", "INPUT_SPENT")),
        ({"confirmations": 0}, ("V19", "UNCONFIRMED_INPUT")),
        ({"confirmations": 1}, ("", "")),
    ],
)
def test_a_vault_output_is_as_booked_on_the_members_own_chain(
    world: FlowWorld, payout: BuiltTransaction, changes: dict[str, object], expected: tuple[str, str]
) -> None:
    facts = world.facts(payout.intent)
    outpoint = payout.intent.inputs[0].outpoint
    other = replace(facts.inputs[outpoint], **changes)  # type: ignore[arg-type]
    assert endorse(world, payout, replace(facts, inputs={**facts.inputs, outpoint: other})) == expected


def test_refuses_a_vault_output_that_its_node_does_not_have(world: FlowWorld, payout: BuiltTransaction) -> None:
    assert endorse(world, payout, replace(world.facts(payout.intent), inputs={})) == ("V14", "INPUT_MISSING")


def test_refuses_another_child_index(world: FlowWorld, payout: BuiltTransaction) -> None:
    (item,) = payout.intent.inputs
    other = replace(payout.intent, inputs=(replace(item, child=ChildIndex(item.child + 1)),))
    assert propose(world, other, payout.transaction) == ("V14", "INPUT_NOT_BOOKED")


def test_refuses_an_input_value_off_by_a_satoshi(world: FlowWorld, payout: BuiltTransaction) -> None:
    (item,) = payout.intent.inputs
    other = replace(payout.intent, inputs=(replace(item, value=Sats(item.value + 1)),))
    assert propose(world, other, payout.transaction) == ("V14", "AMOUNT_MISMATCH")


# ------------------------------------------------------------------ fees and replacements


@pytest.mark.parametrize(
    ("rate", "reason"), [(0, "FEE_TOO_LOW"), (1_999, "FEE_TOO_LOW"), (2_000, ""), (10_000, ""), (10_001, "FEE_CAP")]
)
def test_the_fee_rate_has_a_floor_and_a_cap(world: FlowWorld, rate: int, reason: str) -> None:
    burns = (world.burn(100_000), world.burn(50_000))
    built = world.payout(tuple(world.ledger.vault)[:1], burns, rate=FeeRate(rate))
    assert endorse(world, built)[1] == reason


def test_the_fee_is_within_what_the_burns_paid(world: FlowWorld, payout: BuiltTransaction) -> None:
    world.estimate = FeeRate(150_000)
    burns = tuple(payout.intent.burns)
    budget = sum(world.ledger.burns[burn].fee for burn in burns) + world.ledger.reserve // 10
    rate = FeeRate(budget * 1_000 // payout.vsize)
    coins = tuple(item.outpoint for item in payout.intent.inputs)
    assert endorse(world, world.payout(coins, burns, rate=rate)) == ("", "")
    over = FeeRate((budget + 1) * 1_000 // payout.vsize + 1)
    assert endorse(world, world.payout(coins, burns, rate=over)) == ("V18", "FEE_BUDGET")


def standing(first: BuiltTransaction, waiting: int = 3) -> tuple[StandingFacts, ...]:
    return (StandingFacts(first.intent.intent_id, waiting, first.intent.fee, first.vsize),)


def test_a_replacement_may_add_a_payout(world: FlowWorld) -> None:
    coins = tuple(world.ledger.vault)[:1]
    one, two = world.burn(100_000), world.burn(50_000)
    first = world.record(world.payout(coins, (one,)))
    more = world.payout(coins, (one, two), rate=FeeRate(6_250), replaces=(first.intent.intent_id,))
    assert endorse(world, more, world.facts(more.intent, standing=standing(first))) == ("", "")


def test_a_replacement_never_drops_a_payout(world: FlowWorld) -> None:
    coins = tuple(world.ledger.vault)[:1]
    one, two = world.burn(100_000), world.burn(50_000)
    first = world.record(world.payout(coins, (one, two)))
    fewer = world.payout(coins, (one,), rate=FeeRate(9_000), replaces=(first.intent.intent_id,))
    assert endorse(world, fewer, world.facts(fewer.intent, standing=standing(first))) == ("V20", "PAYMENT_DROPPED")


def test_the_fee_of_a_replacement_follows_bip125(world: FlowWorld) -> None:
    coins, burns = tuple(world.ledger.vault)[:1], (world.burn(100_000),)
    first = world.record(world.payout(coins, burns))
    least = compute_least_fee(REGTEST, first.intent.fee, first.vsize)
    assert least == first.intent.fee + first.vsize
    enough = world.payout(coins, burns, rate=FeeRate(6_000), replaces=(first.intent.intent_id,))
    assert enough.intent.fee == least
    assert endorse(world, enough, world.facts(enough.intent, standing=standing(first))) == ("", "")
    short = world.payout(coins, burns, rate=FeeRate(5_990), replaces=(first.intent.intent_id,))
    facts = world.facts(short.intent, standing=standing(first))
    assert endorse(world, short, facts) == ("V20", "REPLACEMENT_FEE")


def test_versions_of_one_payout_are_bounded() -> None:
    world = FlowWorld.opened(replace(REGTEST, bump_max_count=1))
    world.fill_vault(1_000_000)
    coins, burns = tuple(world.ledger.vault)[:1], (world.burn(100_000),)
    first = world.record(world.payout(coins, burns))
    second = world.payout(coins, burns, rate=FeeRate(6_250), replaces=(first.intent.intent_id,))
    assert endorse(world, second, world.facts(second.intent, standing=standing(first))) == ("", "")
    world.record(second)
    names: tuple[IntentId, ...] = (first.intent.intent_id, second.intent.intent_id)
    third = world.payout(coins, burns, rate=FeeRate(8_000), replaces=names)
    facts = world.facts(third.intent, standing=(*standing(first), *standing(second)))
    assert endorse(world, third, facts) == ("V20", "TOO_MANY_REPLACEMENTS")


def test_a_long_hostile_script_is_refused_and_breaks_nothing(world: FlowWorld, payout: BuiltTransaction) -> None:
    first, *rest = payout.intent.payments
    long = replace(payout.intent, payments=(replace(first, script=Script(b"\x6a" * 9_000)), *rest))
    assert propose(world, long, payout.transaction)[0] == "V42"
