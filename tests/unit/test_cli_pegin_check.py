"""A coordinator that answers another address, key, amount or account than recorded and ordered is found out (C18)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.cli.pegin_check import Order, verify_answer
from coordinator.cli.refund_key import RefundKey
from pegbridge.v1 import peg_pb2 as pb
from pegin.invoice import InvoiceView, TermsRequest, build_invoice, build_terms
from pegin.vault import EpochKeys
from smpc.bitcoin.key_origin import KeyOrigin
from smpc.curve import SecretKey, compute_xonly_key, lift_x
from smpc.errors import CheckFailed, ExitCode
from smpc.params import REGTEST
from smpc.protocol.invoices import InvoiceRequest, RefundOrigin
from smpc.types import AccountKey, BtcHeight, ChildIndex, EpochNumber, PlainKey, Sats, XOnlyKey


def _key(number: int) -> XOnlyKey:
    return compute_xonly_key(SecretKey.from_bytes(number.to_bytes(32, "big")))


def _plain(number: int) -> PlainKey:
    return lift_x(_key(number))


KEYS = EpochKeys(EpochNumber(0), _plain(11), _plain(12), _plain(13), b"\x11" * 32)
OTHER_KEYS = replace(KEYS, validator=_plain(99))
RECIPIENT = AccountKey(_key(21))
ORIGIN = KeyOrigin(bytes.fromhex("d34db33f"), (0, 1))
ORDER = Order((Sats(500_000), Sats(600_000)), RECIPIENT, RefundKey(_key(31), ORIGIN))


def _invoices(keys: EpochKeys = KEYS, order: Order = ORDER) -> tuple[InvoiceView, ...]:
    requests = []
    for index, amount in enumerate(order.amounts):
        asked = TermsRequest(keys.epoch, ChildIndex(index), order.recipient, order.refund.key)
        terms = build_terms(REGTEST, asked, REGTEST.fee_default, BtcHeight(100))
        requests.append(InvoiceRequest(terms, amount, RefundOrigin(ORIGIN.fingerprint, ORIGIN.path)))
    return tuple(build_invoice(keys, request) for request in requests)


def _answer(invoices: tuple[InvoiceView, ...]) -> pb.PegIn:
    return pb.PegIn(outputs=[pb.PegInOutput(address=invoice.address) for invoice in invoices])


def test_accepts_the_addresses_that_the_recorded_terms_give() -> None:
    verify_answer(ORDER, _invoices(), _answer(_invoices()))


def test_a_key_without_origin_takes_whatever_origin_is_recorded() -> None:
    order = replace(ORDER, refund=RefundKey(ORDER.refund.key, None))
    verify_answer(order, _invoices(), _answer(_invoices()))


def _refuse(order: Order, recorded: tuple[InvoiceView, ...], answer: pb.PegIn) -> CheckFailed:
    with pytest.raises(CheckFailed) as found:
        verify_answer(order, recorded, answer)
    assert found.value.code == "ADDRESS_MISMATCH"
    assert found.value.exit_code is ExitCode.CHECK_FAILED
    assert "pay nothing" in found.value.remedy
    return found.value


def test_refuses_an_address_of_other_group_keys() -> None:
    _refuse(ORDER, _invoices(), _answer(_invoices(OTHER_KEYS)))


def test_refuses_swapped_missing_and_added_addresses() -> None:
    honest = _invoices()
    for outputs in (honest[::-1], honest[:1], (*honest, honest[0]), ()):
        _refuse(ORDER, honest, _answer(outputs))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (replace(ORDER, amounts=(Sats(500_000), Sats(600_001))), "you asked for"),
        (replace(ORDER, amounts=(Sats(500_000),)), "number of outputs"),
        (replace(ORDER, recipient=AccountKey(_key(22))), "another account"),
        (replace(ORDER, refund=RefundKey(_key(32), ORIGIN)), "another refund key"),
        (replace(ORDER, refund=RefundKey(_key(31), KeyOrigin(ORIGIN.fingerprint, (0, 2)))), "origin"),
    ],
)
def test_refuses_a_record_that_is_not_what_was_ordered(change: Order, said: str) -> None:
    assert said in _refuse(change, _invoices(), _answer(_invoices())).message
