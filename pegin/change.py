"""What goes to the vault, over how many outputs, and what the miners get (design.md section 5, vault outputs)."""

from __future__ import annotations

from dataclasses import dataclass

from pegin.model import compute_built_vbytes
from pegin.vault import split_value
from smpc.bitcoin.fees import VAULT_TRANSFER, InputKind, compute_fee
from smpc.params import Params
from smpc.types import FeeRate, Sats, Script


@dataclass(frozen=True, slots=True)
class Outlay:
    """What a transaction takes in and must pay; what is left belongs to the vault and the miners."""

    rate: FeeRate
    input_count: int
    total: Sats
    """Value of all inputs."""
    paid: Sats
    """Sum of the payments."""
    scripts: tuple[Script, ...]
    """Where the payments go."""
    most_outputs: int
    """Vault outputs, at most."""
    fee_target: Sats
    """More than one vault output only while the fee stays within this: what the deposits or burns themselves paid.

    Not the whole budget: the reserve moves while an intent is being signed, and everyone must build the same bytes.
    """
    input_kind: InputKind = VAULT_TRANSFER
    """The leaf that every input spends."""


@dataclass(frozen=True, slots=True)
class Change:
    """The vault outputs' values, in order of position, and the fee."""

    values: tuple[Sats, ...]
    fee: Sats


def find_change(params: Params, outlay: Outlay) -> Change | None:
    """Return the vault outputs and the fee: as many outputs as keep `split_vault_output`, else one, else none.

    One output keeps at least `min_vault_output`. Without any, everything left over is fee: only a payout may do that.
    None when the inputs do not suffice.
    """
    for count in range(outlay.most_outputs, 0, -1):
        fee = _compute_fee(params, outlay, count)
        rest = outlay.total - outlay.paid - fee
        least = params.split_vault_output if count > 1 else params.min_vault_output
        if rest >= least * count and (count == 1 or fee <= outlay.fee_target):
            return Change(split_value(Sats(rest), count), fee)
    left = outlay.total - outlay.paid
    if outlay.scripts and left >= _compute_fee(params, outlay, 0):
        return Change((), Sats(left))
    return None


def _compute_fee(params: Params, outlay: Outlay, vault_outputs: int) -> Sats:
    vbytes = compute_built_vbytes(params, outlay.input_count, vault_outputs, outlay.scripts, outlay.input_kind)
    return compute_fee(outlay.rate, vbytes)
