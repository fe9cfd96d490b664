"""Intents: who endorsed them, and that their money adds up and is the ledger's own [R2]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from smpc.params import REGTEST
from smpc.protocol.intents import Endorsement, Intent, IntentInput, IntentKind, Payment
from smpc.protocol.ledger_state import IntentStatus
from smpc.protocol.records import IntentRecorded
from smpc.types import (
    BurnId,
    ChildIndex,
    EpochNumber,
    KaonHeight,
    Network,
    Outpoint,
    Role,
    Sats,
    Script,
    Signature,
    Txid,
)
from tests.support.chain import LedgerChain, deposit_outpoint, make_intent, vault_child
from tests.support.groups import endorse, make_account


def with_invoices(count: int = 3) -> LedgerChain:
    chain = LedgerChain.activated()
    chain.add(chain.make_invoices(*(chain.make_terms(index) for index in range(count))))
    return chain


def with_burn(payout: int = 100_000) -> tuple[LedgerChain, Outpoint, BurnId]:
    chain = LedgerChain.activated()
    chain.fund("alice", 1_000_000, 1)
    burn = chain.burn("alice", payout)
    (outpoint,) = chain.ledger.vault
    return chain, outpoint, burn


def refusal(chain: LedgerChain, intent: Intent) -> str:
    return chain.refusal(endorse(chain.epoch, intent, chain.ledger.height))


# ------------------------------------------------------------------ endorsements


def test_a_recorded_intent_is_live_and_names_its_endorsers() -> None:
    chain = with_invoices()
    intent_id = chain.record(chain.make_transfer([(0, 1_000_000)]))
    entry = chain.ledger.intents[intent_id]
    assert entry.status is IntentStatus.LIVE
    assert entry.recorded == chain.ledger.height
    assert entry.endorsers == {Role.VALIDATOR: frozenset({0, 1, 2}), Role.WITNESS: frozenset({0, 1, 2})}


@pytest.mark.parametrize("role", [Role.VALIDATOR, Role.WITNESS])
def test_refuses_t_minus_one_endorsements_of_either_group(role: Role) -> None:
    chain = with_invoices()
    record = endorse(chain.epoch, chain.make_transfer([(0, 1_000_000)]), chain.ledger.height)
    short = tuple(item for item in record.endorsements if (item.role, item.position) != (role, 2))
    assert chain.refusal(replace(record, endorsements=short)) == "TOO_FEW_ENDORSEMENTS"
    chain.add(record)


def test_refuses_the_same_endorsement_twice_instead_of_a_third() -> None:
    chain = with_invoices()
    record = endorse(chain.epoch, chain.make_transfer([(0, 1_000_000)]), chain.ledger.height)
    padded = (*record.endorsements[:2], record.endorsements[0], *record.endorsements[3:])
    assert chain.refusal(replace(record, endorsements=padded)) == "INVALID_ARGUMENT"


def test_refuses_an_endorsement_of_the_emergency_group_or_of_nobody() -> None:
    chain = with_invoices()
    record = endorse(chain.epoch, chain.make_transfer([(0, 1_000_000)]), chain.ledger.height)
    emergency = replace(record.endorsements[0], role=Role.EMERGENCY)
    nobody = replace(record.endorsements[0], position=4)
    assert chain.refusal(replace(record, endorsements=(*record.endorsements, emergency))) == "INVALID_ARGUMENT"
    assert chain.refusal(replace(record, endorsements=(*record.endorsements, nobody))) == "INVALID_ARGUMENT"


@pytest.mark.parametrize("age", [0, 20, 21, -1])
def test_an_endorsement_is_valid_for_20_blocks(age: int) -> None:
    chain = with_invoices()
    chain.skip(25)
    block = chain.ledger.height + 1
    record = endorse(chain.epoch, chain.make_transfer([(0, 1_000_000)]), KaonHeight(block - age))
    if 0 <= age <= 20:
        chain.add(record)
    else:
        assert chain.refusal(record) == "STALE_ENDORSEMENT"


def test_refuses_an_endorsement_by_another_member_of_another_intent_or_height() -> None:
    chain = with_invoices()
    intent = chain.make_transfer([(0, 1_000_000)])
    record = endorse(chain.epoch, intent, chain.ledger.height)
    other = endorse(chain.epoch, chain.make_transfer([(1, 1_000_000)]), chain.ledger.height)

    def swapped(item: Endorsement) -> IntentRecorded:
        return replace(record, endorsements=(item, *record.endorsements[1:]))

    first = record.endorsements[0]
    assert chain.refusal(swapped(other.endorsements[0])) == "BAD_SIGNATURE"
    assert chain.refusal(swapped(replace(first, signature=record.endorsements[1].signature))) == "BAD_SIGNATURE"
    assert chain.refusal(swapped(replace(first, kaon_height=KaonHeight(first.kaon_height - 1)))) == "BAD_SIGNATURE"
    assert chain.refusal(swapped(replace(first, signature=Signature(bytes(64))))) == "BAD_SIGNATURE"


def test_an_endorsement_by_v_is_none_by_w() -> None:
    chain = with_invoices()
    record = endorse(chain.epoch, chain.make_transfer([(0, 1_000_000)]), chain.ledger.height)
    as_witness = tuple(replace(item, role=Role.WITNESS) for item in record.endorsements[:3])
    assert chain.refusal(replace(record, endorsements=record.endorsements[:3] + as_witness)) == "BAD_SIGNATURE"


# ------------------------------------------------------------------ epochs and shape


def test_refuses_an_unknown_epoch_and_a_target_that_is_not_active() -> None:
    chain = with_invoices()
    intent = chain.make_transfer([(0, 1_000_000)])
    assert refusal(chain, replace(intent, epoch=EpochNumber(1))) == "UNKNOWN_EPOCH"
    assert refusal(chain, replace(intent, target_epoch=EpochNumber(1))) == "TARGET_NOT_ACTIVE"
    assert refusal(chain, replace(intent, network=Network.MAINNET)) == "WRONG_NETWORK"


def test_refuses_an_intent_without_inputs_and_the_same_deposit_twice() -> None:
    chain = with_invoices()
    assert refusal(chain, replace(chain.make_transfer([(0, 1_000_000)]), inputs=())) == "COUNT"
    assert refusal(chain, chain.make_transfer([(0, 1_000_000), (0, 1_000_000)])) == "DUPLICATE"


def test_a_batch_has_at_most_500_inputs() -> None:
    chain = LedgerChain.activated(replace(REGTEST, max_batch_inputs=3))
    chain.add(chain.make_invoices(*(chain.make_terms(index) for index in range(4))))
    deposits = [(index, 1_000_000) for index in range(4)]
    assert refusal(chain, chain.make_transfer(deposits)) == "COUNT"
    chain.record(chain.make_transfer(deposits[:3]))


def test_a_transaction_has_at_most_k_vault_outputs() -> None:
    chain = with_invoices()
    assert refusal(chain, chain.make_transfer([(0, 1_000_000)], outputs=3)) == "COUNT"
    chain.record(chain.make_transfer([(0, 1_000_000)], outputs=2))


@pytest.mark.parametrize(("value", "is_taken"), [(10_000, True), (9_999, False)])
def test_a_vault_output_has_at_least_10_000_sat(value: int, is_taken: bool) -> None:
    chain = with_invoices()
    intent = chain.make_transfer([(0, 20_000)], fee=20_000 - value)
    if is_taken:
        chain.record(intent)
    else:
        assert refusal(chain, intent) == "VAULT_OUTPUT_TOO_SMALL"


def change_fee(intent: Intent, change: int) -> Intent:
    return replace(intent, fee=Sats(intent.fee + change))


def change_output(intent: Intent, change: int) -> Intent:
    return replace(intent, vault_outputs=(Sats(intent.vault_outputs[0] + change), *intent.vault_outputs[1:]))


def change_input(intent: Intent, change: int) -> Intent:
    changed = replace(intent.inputs[0], value=Sats(intent.inputs[0].value + change))
    return replace(intent, inputs=(changed, *intent.inputs[1:]))


@pytest.mark.parametrize("change", [-1, 1])
@pytest.mark.parametrize("alter", [change_fee, change_output, change_input])
def test_one_satoshi_too_much_or_too_little_is_refused(alter: Callable[[Intent, int], Intent], change: int) -> None:
    chain = with_invoices()
    assert refusal(chain, alter(chain.make_transfer([(0, 1_000_000)]), change)) == "NOT_CONSERVED"


def test_refuses_a_fee_of_zero() -> None:
    chain = with_invoices()
    assert refusal(chain, chain.make_transfer([(0, 1_000_000)], fee=0)) == "AMOUNT"
    chain.record(chain.make_transfer([(0, 1_000_000)], fee=1))


def test_refuses_amounts_above_all_bitcoin_even_when_they_add_up() -> None:
    chain = with_invoices()
    huge = 21_000_000 * 100_000_000
    inputs = tuple(IntentInput(deposit_outpoint(index), Sats(huge), ChildIndex(index)) for index in range(2))
    intent = make_intent(IntentKind.TRANSFER, inputs, (), fee=1_000, outputs=1)
    assert refusal(chain, intent) == "VAULT_OUTPUT_TOO_SMALL"


# ------------------------------------------------------------------ deposits


def test_refuses_a_deposit_to_an_invoice_that_was_never_recorded() -> None:
    chain = with_invoices(1)
    assert refusal(chain, chain.make_transfer([(1, 1_000_000)])) == "NO_INVOICE"


@pytest.mark.parametrize(
    ("value", "is_taken"),
    [(19_999, False), (20_000, True), (REGTEST.max_deposit, True), (REGTEST.max_deposit + 1, False)],
)
def test_refuses_a_deposit_outside_its_invoice_bounds(value: int, is_taken: bool) -> None:
    chain = with_invoices()
    intent = chain.make_transfer([(0, value)], fee=1_000)
    if is_taken:
        chain.record(intent)
    else:
        assert refusal(chain, intent) == "OUT_OF_BOUNDS"


def test_refuses_a_deposit_that_is_credited_already() -> None:
    chain = LedgerChain.activated()
    chain.fund("alice", 1_000_000, 1)
    assert refusal(chain, chain.make_transfer([(1, 1_000_000)], fee=2_500)) == "CREDITED"


def test_a_second_deposit_to_the_same_invoice_is_another_outpoint() -> None:
    chain = LedgerChain.activated()
    chain.fund("alice", 1_000_000, 1)
    again = IntentInput(Outpoint(Txid(b"\x07" * 32), 0), Sats(50_000), ChildIndex(1))
    chain.book(chain.record(make_intent(IntentKind.TRANSFER, (again,), (), fee=1_000, outputs=1)))
    assert chain.ledger.get_account(make_account("alice")[1]).balance == 995_250 + 50_000 - 50 - 3_750


def test_refuses_vault_outputs_dressed_up_as_deposits() -> None:
    chain = LedgerChain.activated()
    chain.fund("alice", 1_000_000, 1)
    (entry,) = chain.ledger.vault.values()
    dressed = IntentInput(entry.outpoint, entry.value, ChildIndex(1))
    assert refusal(chain, make_intent(IntentKind.TRANSFER, (dressed,), (), fee=1_000, outputs=1)) == "MIXED"


def test_refuses_a_transfer_that_pays_somebody() -> None:
    chain, _, burn = with_burn()
    chain.add(chain.make_invoices(chain.make_terms(2), request_id=b"second"))
    request = chain.ledger.burns[burn].request
    deposit = IntentInput(deposit_outpoint(2), Sats(1_000_000), ChildIndex(2))
    payment = Payment(burn, request.payout, request.script)
    intent = make_intent(IntentKind.TRANSFER, (deposit,), (payment,), fee=1_000, outputs=1)
    assert refusal(chain, intent) == "MIXED"


# ------------------------------------------------------------------ payouts


def test_records_a_payout_of_an_open_burn() -> None:
    chain, outpoint, burn = with_burn()
    intent = chain.make_payout([outpoint], [burn])
    intent_id = chain.record(intent)
    assert [entry.intent.intent_id for entry in chain.ledger.find_standing([], [burn])] == [intent_id]
    assert [entry.intent.intent_id for entry in chain.ledger.find_standing([outpoint], [])] == [intent_id]


def test_a_payout_may_leave_no_change_at_all() -> None:
    chain, outpoint, burn = with_burn(payout=980_000)
    value = chain.ledger.vault[outpoint].value
    intent = chain.make_payout([outpoint], [burn], fee=value - 980_000, outputs=0)
    chain.book(chain.record(intent))
    assert chain.ledger.vault_total == 0


def test_refuses_a_payout_that_names_burns_and_spends_nothing_real() -> None:
    chain, outpoint, burn = with_burn()
    intent = chain.make_payout([outpoint], [burn])
    (real,) = intent.inputs
    invented = replace(real, outpoint=Outpoint(Txid(b"\x09" * 32), 0))
    assert refusal(chain, replace(intent, inputs=(invented,))) == "NOT_BOOKED"


def test_refuses_a_payout_that_spends_a_deposit() -> None:
    chain, outpoint, burn = with_burn()
    chain.add(chain.make_invoices(chain.make_terms(2), request_id=b"second"))
    intent = chain.make_payout([outpoint], [burn])
    deposit = IntentInput(deposit_outpoint(2), intent.inputs[0].value, ChildIndex(2))
    assert refusal(chain, replace(intent, inputs=(deposit,))) == "NOT_BOOKED"


def test_refuses_a_payout_without_payments() -> None:
    chain, outpoint, _ = with_burn()
    assert refusal(chain, chain.make_payout([outpoint], [])) == "NO_PAYMENT"


def test_refuses_a_vault_input_whose_value_or_child_is_not_the_booked_one() -> None:
    chain, outpoint, burn = with_burn()
    intent = chain.make_payout([outpoint], [burn])
    (real,) = intent.inputs
    more = replace(intent, inputs=(replace(real, value=Sats(real.value + 1)),), fee=Sats(intent.fee + 1))
    other = replace(intent, inputs=(replace(real, child=vault_child(1)),))
    assert refusal(chain, more) == "WRONG_INPUT"
    assert refusal(chain, other) == "WRONG_INPUT"


def pay(intent: Intent, **changes: Any) -> Intent:  # noqa: ANN401 - any field may be changed
    (payment,) = intent.payments
    return replace(intent, payments=(replace(payment, **changes),))


def test_refuses_a_payment_that_is_not_exactly_the_burn() -> None:
    chain, outpoint, burn = with_burn()
    intent = chain.make_payout([outpoint], [burn])
    (payment,) = intent.payments
    assert refusal(chain, pay(intent, burn=BurnId(bytes(32)))) == "BURN_NOT_OPEN"
    assert refusal(chain, pay(intent, script=Script(payment.script[:-1] + b"\x00"))) == "WRONG_PAYMENT"
    less = replace(pay(intent, amount=Sats(payment.amount - 1)), fee=Sats(intent.fee + 1))
    more = replace(pay(intent, amount=Sats(payment.amount + 1)), fee=Sats(intent.fee - 1))
    assert refusal(chain, less) == "WRONG_PAYMENT"
    assert refusal(chain, more) == "WRONG_PAYMENT"


def test_refuses_the_same_burn_twice_in_one_payout() -> None:
    chain, outpoint, burn = with_burn()
    assert refusal(chain, chain.make_payout([outpoint], [burn, burn])) == "DUPLICATE"


def test_a_batch_has_at_most_100_payouts() -> None:
    chain = LedgerChain.activated(replace(REGTEST, max_batch_payouts=2))
    chain.fund("alice", 1_000_000, 1)
    burns = [chain.burn("alice", 10_000 + number) for number in range(3)]
    (outpoint,) = chain.ledger.vault
    assert refusal(chain, chain.make_payout([outpoint], burns)) == "COUNT"
    chain.record(chain.make_payout([outpoint], burns[:2]))


def test_refuses_a_cancelled_and_a_settled_burn() -> None:
    chain, outpoint, burn = with_burn()
    intent = chain.make_payout([outpoint], [burn])
    chain.add(chain.make_cancel("alice", burn))
    assert refusal(chain, intent) == "BURN_NOT_OPEN"
    second = chain.burn("alice", 50_000)
    chain.book(chain.record(chain.make_payout([outpoint], [second])))
    (change,) = chain.ledger.vault
    assert refusal(chain, chain.make_payout([change], [second])) == "BURN_NOT_OPEN"


def test_refuses_an_intent_recorded_before() -> None:
    chain = with_invoices()
    intent = chain.make_transfer([(0, 1_000_000)])
    chain.record(intent)
    assert refusal(chain, intent) == "ALREADY_RECORDED"
