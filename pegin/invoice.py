"""An invoice as its user gets it: terms, address, descriptor, payment link, funding template, refund (section 6)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from pegin.vault import EpochKeys
from smpc.bitcoin import taproot
from smpc.bitcoin.address import to_address
from smpc.bitcoin.amount import to_btc
from smpc.bitcoin.descriptor import build_invoice_descriptor
from smpc.bitcoin.key_origin import KeyOrigin, UserKey
from smpc.bitcoin.psbt import Psbt
from smpc.bitcoin.script import build_p2tr
from smpc.bitcoin.taproot import InvoiceTree, Timelocks
from smpc.bitcoin.user_psbt import RefundableDeposit, build_funding_template, build_refund_psbt
from smpc.curve import lift_x, tagged_hash, tweak_plain_key
from smpc.params import Params
from smpc.protocol.invoices import InvoiceRequest, InvoiceTerms, compute_fee_base
from smpc.types import AccountKey, BtcHeight, ChildIndex, EpochNumber, FeeRate, Outpoint, Sats, Script, XOnlyKey

LEAST_FEES: Final = 4
"""An invoice's lower bound is at least this many times its `fee_in` (money rules, section 6)."""


@dataclass(frozen=True, slots=True)
class TermsRequest:
    """What is asked of a new invoice; everything else of its terms is the network's and the ledger's."""

    epoch: EpochNumber
    index: ChildIndex
    recipient: AccountKey
    refund_key: XOnlyKey


def build_terms(params: Params, request: TermsRequest, rate: FeeRate, tip: BtcHeight) -> InvoiceTerms:
    """Return the terms of an invoice issued at the ledger's fee rate and the Bitcoin height `tip`."""
    terms = InvoiceTerms(
        network=params.network,
        epoch=request.epoch,
        index=request.index,
        recipient=request.recipient,
        refund_key=request.refund_key,
        min_amount=params.min_deposit,
        max_amount=params.max_deposit,
        fee_base=compute_fee_base(params.fee_in_vbytes, rate, params.fee_margin_percent),
        fee_bp=params.commission_bp,
        emergency_csv=params.emergency_csv,
        transfer_csv=params.transfer_csv,
        refund_csv=params.refund_csv,
        expires=params.compute_invoice_expiry(tip),
    )
    least = terms.min_amount
    while least < LEAST_FEES * terms.compute_fee_in(least):
        least = Sats(LEAST_FEES * terms.compute_fee_in(least))
    return replace(terms, min_amount=least)


@functools.lru_cache(maxsize=1024)
def build_invoice_tree(keys: EpochKeys, terms: InvoiceTerms) -> InvoiceTree:
    """Return the tree of an invoice: child keys of its index, the locks and the hash of its terms.

    The locks are those the terms commit to; rule V30 checks that they are the network's. InvalidInput for a bad key.
    """
    locks = Timelocks(terms.emergency_csv, terms.transfer_csv, terms.refund_csv, _NO_RECOVERY)
    return taproot.build_invoice_tree(
        keys.derive(terms.index), user_key=terms.refund_key, terms_hash=terms.terms_hash, locks=locks
    )


_NO_RECOVERY: Final = 0xFFFF
"""No invoice has a recovery leaf; this is what a descriptor read back says too."""


@dataclass(frozen=True, slots=True)
class InvoiceView:
    """One issued invoice with everything its user and any wallet needs."""

    request: InvoiceRequest
    tree: InvoiceTree

    @property
    def user(self) -> UserKey:
        """The refund key with its place in the user's wallet."""
        origin = self.request.origin
        return UserKey(self.request.terms.refund_key, KeyOrigin(origin.fingerprint, origin.path))

    @property
    def address(self) -> str:
        """The one-time Taproot address."""
        return to_address(self.tree.script, self.request.terms.network)

    @property
    def descriptor(self) -> str:
        """The whole invoice as one standard `tr()` descriptor with checksum."""
        return build_invoice_descriptor(self.tree, self.user)

    @property
    def bip21(self) -> str:
        """The payment link (BIP 21) with the amount asked, in BTC."""
        return f"bitcoin:{self.address}?amount={to_btc(self.request.amount)}"


def build_invoice(keys: EpochKeys, request: InvoiceRequest) -> InvoiceView:
    """Return the invoice as its user gets it; InvalidInput when its refund key is no point."""
    return InvoiceView(request, build_invoice_tree(keys, request.terms))


def build_template(invoices: Sequence[InvoiceView]) -> bytes:
    """Return the unsigned PSBT without inputs that pays every invoice the amount asked, for a wallet to fund."""
    return build_funding_template([(invoice.tree, invoice.request.amount) for invoice in invoices])


def build_refund(
    invoice: InvoiceView, outpoint: Outpoint, value: Sats, rate: FeeRate, destination: Script | None = None
) -> Psbt:
    """Return the PSBT with which the user alone takes a deposit back; InvalidInput when the fee leaves only dust.

    Pays `destination`, by default the refund key's own BIP 86 address, which the user's `tr()` account watches.
    """
    deposit = RefundableDeposit(outpoint, value, invoice.tree, invoice.user)
    return build_refund_psbt([deposit], destination or build_own_script(invoice.request.terms.refund_key), rate)


def build_own_script(key: XOnlyKey) -> Script:
    """Return the script of the key alone: Taproot without scripts, as a `tr()` account has it (BIP 86)."""
    plain = tweak_plain_key(lift_x(key), tagged_hash("TapTweak", key))
    return build_p2tr(XOnlyKey(plain[1:]))
