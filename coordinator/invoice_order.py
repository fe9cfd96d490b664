"""What a user orders: amounts, the account to credit, the key that can take a deposit back; checked before anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from smpc.bitcoin.key_origin import build_master_origin
from smpc.curve import is_valid_xonly
from smpc.errors import InvalidInput
from smpc.protocol.invoices import InvoiceRequest, RefundOrigin
from smpc.protocol.ledger_invoices import MAX_INVOICES_PER_RECORD, MAX_ORIGIN_PATH, MAX_REQUEST_ID
from smpc.types import MAX_MONEY, AccountKey, Sats, XOnlyKey

FINGERPRINT_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class InvoiceOrder:
    """A request for invoices whose every field is well formed; the bounds of the amounts are the terms' business."""

    request_id: bytes
    """The user's idempotency key, 1..64 bytes."""
    recipient: AccountKey
    refund_key: XOnlyKey
    origin: RefundOrigin
    amounts: tuple[Sats, ...]
    """One invoice each."""

    def is_met_by(self, recorded: Sequence[InvoiceRequest]) -> bool:
        """Tell whether recorded invoices are what this order asks for (case C21)."""
        same = (self.recipient, self.refund_key, self.origin)
        return tuple(item.amount for item in recorded) == self.amounts and all(
            (item.terms.recipient, item.terms.refund_key, item.origin) == same for item in recorded
        )


def parse_order(
    *,
    request_id: bytes,
    recipient: bytes,
    refund_key: bytes,
    fingerprint: bytes,
    path: Sequence[int],
    amounts: Sequence[int],
) -> InvoiceOrder:
    """Check an order as it came in; InvalidInput names the field and what to do (cases C2, D12)."""
    if not 1 <= len(request_id) <= MAX_REQUEST_ID:
        raise InvalidInput(f"request_id has 1 to {MAX_REQUEST_ID} bytes, got {len(request_id)}", remedy=_ID_REMEDY)
    key = _parse_key("refund_key", refund_key)
    account = _parse_key("recipient", recipient) if recipient else key
    return InvoiceOrder(
        request_id, AccountKey(account), key, _parse_origin(key, fingerprint, path), _parse_amounts(amounts)
    )


_ID_REMEDY: Final = "choose a random one for every new peg-in, and repeat it only to ask for the same peg-in again"


def _parse_key(name: str, value: bytes) -> XOnlyKey:
    if len(value) != 32:
        raise InvalidInput(
            f"{name} has {len(value)} bytes, an x-only key has 32", remedy="give the key alone: no prefix, no script"
        )
    if not is_valid_xonly(value):
        raise InvalidInput(f"{name} is not the x coordinate of a point on the curve", remedy="take it from a wallet")
    return XOnlyKey(value)


def _parse_origin(key: XOnlyKey, fingerprint: bytes, path: Sequence[int]) -> RefundOrigin:
    if not fingerprint:
        if path:
            raise InvalidInput("refund_path needs refund_fingerprint", remedy="give both, or neither")
        own = build_master_origin(key)
        return RefundOrigin(own.fingerprint, own.path)
    if len(fingerprint) != FINGERPRINT_BYTES:
        raise InvalidInput(f"refund_fingerprint has {FINGERPRINT_BYTES} bytes, got {len(fingerprint)}")
    if len(path) > MAX_ORIGIN_PATH:
        raise InvalidInput(f"refund_path has at most {MAX_ORIGIN_PATH} steps, got {len(path)}")
    return RefundOrigin(fingerprint, tuple(path))


def _parse_amounts(amounts: Sequence[int]) -> tuple[Sats, ...]:
    if not 1 <= len(amounts) <= MAX_INVOICES_PER_RECORD:
        raise InvalidInput(f"a peg-in has 1 to {MAX_INVOICES_PER_RECORD} amounts, got {len(amounts)}")
    for amount in amounts:
        if not 1 <= amount <= MAX_MONEY:
            raise InvalidInput(f"{amount} sat is no amount of bitcoin", remedy=f"give 1 to {MAX_MONEY} sat")
    return tuple(Sats(amount) for amount in amounts)
