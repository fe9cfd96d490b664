"""What a later version of a transaction must pay so that nodes let it replace the earlier ones (BIP 125)."""

from __future__ import annotations

from collections.abc import Iterable

from pegin.model import compute_built_vbytes
from smpc.bitcoin.fees import VAULT_RECOVERY, VAULT_TRANSFER, compute_fee
from smpc.params import Params
from smpc.protocol.intents import Intent, IntentKind
from smpc.types import FeeRate, Sats, Vbytes


def compute_bump_rate(params: Params, rate: FeeRate) -> FeeRate:
    """Return the least rate of the next version: a quarter more, and at least 1 sat/vB more."""
    return FeeRate(max(-(-rate * (100 + params.bump_percent) // 100), rate + params.bump_min))


def compute_least_fee(params: Params, earlier: Sats, vbytes: Vbytes) -> Sats:
    """Return the least fee with which nodes let a transaction of `vbytes` replace one that pays `earlier` (BIP 125)."""
    return Sats(earlier + compute_fee(params.bump_min, vbytes))


def compute_intent_vbytes(params: Params, intent: Intent) -> Vbytes:
    """Return the exact size of an intent's signed transaction: its shape decides it, nothing has to be rebuilt."""
    paid = (*(due.script for due in intent.payments), *(due.script for due in intent.commissions))
    scripts = (*paid, intent.op_return) if intent.op_return else paid
    kind = VAULT_RECOVERY if intent.kind is IntentKind.RECOVERY else VAULT_TRANSFER
    return compute_built_vbytes(params, len(intent.inputs), len(intent.vault_outputs), scripts, kind)


def is_better_rate(fee: Sats, vbytes: Vbytes, earlier_fee: Sats, earlier_vbytes: Vbytes) -> bool:
    """Tell whether a transaction pays more per vbyte than an earlier one, as nodes ask of what replaces it.

    Not by the declared rates: a payout without change leaves all the rest as fee, far above its own.
    """
    return fee * earlier_vbytes > earlier_fee * vbytes


def compute_replacing_fee(params: Params, versions: Iterable[Intent], vbytes: Vbytes) -> Sats:
    """Return the least fee with which nodes let a transaction of `vbytes` replace each one of these versions.

    More than each by the relay fee of its own size, and a better rate than each: Bitcoin Core and Knots judge both.
    """
    least = 0
    for version in versions:
        better = version.fee * vbytes // compute_intent_vbytes(params, version) + 1
        least = max(least, compute_least_fee(params, version.fee, vbytes), better)
    return Sats(least)
