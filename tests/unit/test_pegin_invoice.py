"""What a user gets: terms, an address any wallet can watch, a link, a template, and a refund that needs nobody."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pegin.invoice import TermsRequest, build_invoice, build_own_script, build_refund, build_template, build_terms
from pegin.invoice_life import open_invoice
from pegin.lifecycle import Deposit, DepositState, compute_limits
from pegin.summary import describe_wait, summarise
from smpc.bitcoin.descriptor import parse_invoice_descriptor
from smpc.bitcoin.script import Leaf
from smpc.curve import sign_schnorr, verify_schnorr
from smpc.errors import InvalidInput
from smpc.params import REGTEST
from smpc.protocol.invoices import InvoiceRequest
from smpc.protocol.ledger_state import InvoiceEntry
from smpc.types import BtcHeight, ChildIndex, FeeRate, KaonHeight, Outpoint, RecordId, Sats, Txid
from tests.support.chain import ORIGIN, LedgerChain
from tests.support.flow_world import FlowWorld
from tests.support.groups import EPOCH, make_account, make_secret, make_xonly

OUTPOINT = Outpoint(Txid(b"\x01" * 32), 0)
PEGIN = RecordId(b"\x06" * 32)


@pytest.fixture
def world() -> FlowWorld:
    return FlowWorld.opened()


def make_request(world: FlowWorld, index: int = 1, amount: int = 50_000) -> InvoiceRequest:
    asked = TermsRequest(EPOCH, ChildIndex(index), make_account("alice")[1], make_xonly("refund alice"))
    terms = build_terms(REGTEST, asked, world.ledger.fee_rate, BtcHeight(200))
    return InvoiceRequest(terms, Sats(amount), ORIGIN)


def test_the_ledger_takes_the_terms_that_are_built(world: FlowWorld) -> None:
    request = make_request(world)
    world.chain.add(world.chain.sign_invoices((request,), b"request"))
    assert world.ledger.invoices[EPOCH, ChildIndex(1)].request == request
    assert request.terms.expires == 200 + REGTEST.invoice_blocks


@pytest.mark.parametrize(("rate", "least"), [(10_000, 20_000), (13_000, 20_000), (20_000, 30_122)])
def test_the_lower_bound_is_at_least_four_fees(rate: int, least: int) -> None:
    asked = TermsRequest(EPOCH, ChildIndex(1), make_account("alice")[1], make_xonly("refund alice"))
    terms = build_terms(REGTEST, asked, FeeRate(rate), BtcHeight(200))
    assert terms.min_amount >= 4 * terms.compute_fee_in(terms.min_amount)
    assert abs(terms.min_amount - least) <= 4


def test_an_invoice_is_one_standard_descriptor(world: FlowWorld) -> None:
    invoice = build_invoice(world.keys, make_request(world))
    parsed = parse_invoice_descriptor(invoice.descriptor)
    assert parsed.tree.script == invoice.tree.script
    assert parsed.tree.terms_hash == invoice.request.terms.terms_hash
    assert invoice.address.startswith("bcrt1p")
    assert invoice.bip21 == f"bitcoin:{invoice.address}?amount=0.00050000"


def test_every_field_of_the_terms_has_an_address_of_its_own(world: FlowWorld) -> None:
    request = make_request(world)
    terms = request.terms
    others = (
        replace(terms, index=ChildIndex(2)),
        replace(terms, recipient=make_account("bob")[1]),
        replace(terms, refund_key=make_xonly("refund bob")),
        replace(terms, min_amount=Sats(terms.min_amount + 1)),
        replace(terms, max_amount=Sats(terms.max_amount - 1)),
        replace(terms, fee_base=Sats(terms.fee_base + 1)),
        replace(terms, fee_bp=11),
        replace(terms, refund_csv=37),
        replace(terms, expires=BtcHeight(terms.expires + 1)),
    )
    addresses = {build_invoice(world.keys, replace(request, terms=item)).address for item in (terms, *others)}
    assert len(addresses) == len(others) + 1


def test_a_refund_key_that_is_no_point_is_refused(world: FlowWorld) -> None:
    request = make_request(world)
    off_curve = replace(request.terms, refund_key=type(request.terms.refund_key)(b"\xff" * 32))
    with pytest.raises(InvalidInput, match="x-only point"):
        build_invoice(world.keys, replace(request, terms=off_curve))


def test_the_template_pays_every_invoice_its_amount(world: FlowWorld) -> None:
    invoices = [build_invoice(world.keys, make_request(world, index, 50_000 + index)) for index in (1, 2)]
    raw = build_template(invoices)
    for invoice in invoices:
        assert invoice.request.amount.to_bytes(8, "little") + b"\x22" + invoice.tree.script in raw


def test_the_refund_needs_the_user_alone(world: FlowWorld) -> None:
    invoice = build_invoice(world.keys, make_request(world))
    psbt = build_refund(invoice, OUTPOINT, Sats(50_000), FeeRate(2_000))
    (txin,) = psbt.transaction.inputs
    (txout,) = psbt.transaction.outputs
    assert txin.sequence == REGTEST.refund_csv
    assert txout.script == build_own_script(make_xonly("refund alice"))
    assert psbt.inputs[0].spend is not None
    assert psbt.inputs[0].spend.script == invoice.tree.leaf(Leaf.REFUND)
    digest = psbt.compute_digest(0)
    signature = sign_schnorr(make_secret("refund alice"), digest, bytes(32))
    assert verify_schnorr(make_xonly("refund alice"), digest, signature)


def test_a_refund_that_would_be_dust_is_refused(world: FlowWorld) -> None:
    invoice = build_invoice(world.keys, make_request(world))
    with pytest.raises(InvalidInput, match="below the dust limit"):
        build_refund(invoice, OUTPOINT, Sats(600), FeeRate(2_000))


# ------------------------------------------------------------------ what the user is shown


def show(world: FlowWorld, *states: tuple[int, DepositState], tip: int = 210) -> tuple[str, str]:
    """Summarise a peg-in of invoices 1 and 2 with deposits in these states."""
    chain = LedgerChain.activated()
    invoices, deposits = [], []
    for index in (1, 2):
        request = make_request(world, index)
        invoice = open_invoice(REGTEST, InvoiceEntry(request, PEGIN, KaonHeight(3))).record
        mine = [state for number, state in states if number == index]
        paid = tuple(replace(OUTPOINT, vout=10 * index + vout) for vout in range(len(mine)))
        invoices.append((build_invoice(world.keys, request), replace(invoice, deposits=paid)))
        limits = compute_limits(chain.ledger.params, request.terms)
        for outpoint, state in zip(paid, mine, strict=True):
            height = None if state in {DepositState.SEEN, DepositState.MISSING} else BtcHeight(209)
            base = Deposit(
                outpoint, EPOCH, ChildIndex(index), PEGIN, Sats(50_000), limits, state, BtcHeight(210), height=height
            )
            deposits.append(base)
    shown = summarise(REGTEST, PEGIN, invoices, deposits, BtcHeight(tip))
    assert len(shown.outputs) == max(len(states), 2)
    return shown.state, shown.waiting_for


def test_a_peg_in_is_as_far_as_its_least_advanced_output(world: FlowWorld) -> None:
    assert show(world) == ("issued", "a deposit to 2 of 2 addresses")
    assert show(world, (1, DepositState.SEEN)) == ("seen", "confirmations 0/3")
    assert show(world, (1, DepositState.MATURING), (2, DepositState.BOOKED)) == ("maturing", "confirmations 2/3")
    assert show(world, (1, DepositState.BOOKED)) == ("issued", "a deposit to 1 of 2 addresses")
    assert show(world, (1, DepositState.BOOKED), (2, DepositState.BOOKED)) == ("booked", "")


def test_a_user_is_told_when_his_refund_opens(world: FlowWorld) -> None:
    """Mined in block 209, it may be refunded in block 245: after block 244."""
    out = DepositState.OUT_OF_BOUNDS
    assert show(world, (1, out), (2, DepositState.BOOKED), tip=242) == (
        "out_of_bounds",
        "your refund, open in 2 blocks",
    )
    assert show(world, (1, out), (2, DepositState.BOOKED), tip=244)[1] == "your refund, which is open"


def test_every_open_state_of_a_deposit_waits_for_something(world: FlowWorld) -> None:
    limits = compute_limits(REGTEST, make_request(world).terms)
    done = {DepositState.BOOKED, DepositState.REFUNDED, DepositState.DEAD}
    for state in DepositState:
        deposit = Deposit(OUTPOINT, EPOCH, ChildIndex(1), PEGIN, Sats(50_000), limits, state, BtcHeight(210))
        assert bool(describe_wait(REGTEST, deposit, BtcHeight(210))) == (state not in done)
