"""What a sweep pays the members of its epoch out of the reserve, and when it must carry that (section 6, Money)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from smpc.bitcoin.fees import VAULT_TRANSFER, compute_fee, compute_spend_vbytes
from smpc.bitcoin.taproot import Timelocks
from smpc.bitcoin.transaction import TxOut
from smpc.params import Params
from smpc.protocol.election import ROLES
from smpc.protocol.intents import Commission, Intent
from smpc.protocol.ledger_destinations import is_standard_destination
from smpc.protocol.ledger_heartbeats import is_jailed
from smpc.protocol.ledger_state import EpochState
from smpc.protocol.ledger_tables import LedgerTables
from smpc.protocol.notarisation import OP_RETURN_SHAPE
from smpc.protocol.records import ValidatorInfo
from smpc.types import EpochNumber, FeeRate, IntentId, Sats, Script, Vbytes

KEPT_SWEEPS: Final = 200
"""The reserve keeps the cost of so many sweeps; what exceeds it is commission."""

WORTHWHILE: Final = 20
"""A member is paid when its share is so many times what its output costs."""

_VAULT_SHAPE: Final = Script(b"\x51\x20" + bytes(32))


def compute_sweep_cost(params: Params, rate: FeeRate) -> Sats:
    """Return the fee of an ordinary sweep at `rate`: `k` vault outputs in, `k` out, and its notarisation."""
    outputs = [*([_VAULT_SHAPE] * params.vault_outputs), OP_RETURN_SHAPE]
    vbytes = compute_spend_vbytes([VAULT_TRANSFER] * params.vault_outputs, outputs, Timelocks.from_params(params))
    return compute_fee(rate, vbytes)


def compute_output_cost(rate: FeeRate, script: Script) -> Sats:
    """Return what one more output with this script costs at `rate`."""
    return compute_fee(rate, Vbytes(len(TxOut(Sats(0), script).to_bytes())))


def compute_commission(tables: LedgerTables, epoch: EpochNumber, rate: FeeRate) -> tuple[Commission, ...]:
    """Return what an epoch's members get: equal shares of what the reserve has over, in the order V, W, E.

    Over is what exceeds the cost of 200 sweeps and is not promised to an earlier epoch's members. Left out: who is
    jailed, who did not take part in the ceremony, and whose share is not worth its output; these shares stay.
    """
    members = _list_payable(tables, epoch)
    spare = tables.money.reserve - KEPT_SWEEPS * compute_sweep_cost(tables.params, rate) - _count_promised(tables)
    if not members or spare <= 0:
        return ()
    share = Sats(spare // len(members))
    return tuple(
        Commission(member.identity, share, member.payout_script)
        for member in members
        if share >= WORTHWHILE * compute_output_cost(rate, member.payout_script)
    )


def find_due_commission(
    tables: LedgerTables, epoch: EpochNumber, replaces: Iterable[IntentId] = ()
) -> tuple[Commission, ...]:
    """Return the commission that a sweep of the epoch carries if it can: once, and to nobody who is jailed by now.

    Nothing once it is paid, or while another standing sweep carries it that the sweep does not replace.
    """
    entry = tables.epochs[epoch]
    carriers = tables.commissioners.get(epoch, frozenset()) - set(replaces)
    if entry.is_commission_paid or carriers:
        return ()
    return tuple(item for item in entry.commissions if not is_jailed(tables, item.member))


def can_carry_commission(params: Params, intent: Intent, commissions: Iterable[Commission]) -> bool:
    """Tell whether a sweep that carries no commission had room for it: a whole vault output would be left."""
    due = tuple(commissions)
    cost = sum(item.amount + compute_output_cost(intent.fee_rate, item.script) for item in due)
    return sum(intent.vault_outputs) >= cost + params.min_vault_output


def _list_payable(tables: LedgerTables, epoch: EpochNumber) -> list[ValidatorInfo]:
    registered = {item.identity: item for item in tables.genesis.validators}
    groups = tables.epochs[epoch].groups
    members = [registered[identity] for role in ROLES if role in groups for identity in groups[role].members]
    return [
        item for item in members if not is_jailed(tables, item.identity) and is_standard_destination(item.payout_script)
    ]


def _count_promised(tables: LedgerTables) -> int:
    entries = (tables.epochs[number] for number in tables.unretired)
    return sum(
        item.amount
        for entry in entries
        if entry.state is EpochState.RETIRING and not entry.is_commission_paid
        for item in entry.commissions
    )
