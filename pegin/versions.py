"""What a later version of a transaction must pay so that nodes let it replace the earlier ones (BIP 125)."""

from __future__ import annotations

from smpc.bitcoin.fees import compute_fee
from smpc.params import Params
from smpc.types import FeeRate, Sats, Vbytes


def compute_bump_rate(params: Params, rate: FeeRate) -> FeeRate:
    """Return the least rate of the next version: a quarter more, and at least 1 sat/vB more."""
    return FeeRate(max(-(-rate * (100 + params.bump_percent) // 100), rate + params.bump_min))


def compute_least_fee(params: Params, earlier: Sats, vbytes: Vbytes) -> Sats:
    """Return the least fee with which nodes let a transaction of `vbytes` replace one that pays `earlier` (BIP 125)."""
    return Sats(earlier + compute_fee(params.bump_min, vbytes))
