"""Ledger rules of kBTC: transfers, pay-ins, burns, raised limits and cancels, each under an account's signature."""

from __future__ import annotations

from dataclasses import replace

from smpc.curve import is_valid_xonly, verify_schnorr
from smpc.errors import Conflict, Refused
from smpc.protocol.invoices import compute_fee_out, compute_least_raise
from smpc.protocol.ledger_destinations import is_standard_destination
from smpc.protocol.ledger_events import BurnMoved, KbtcMoved
from smpc.protocol.ledger_intents import holds_burn
from smpc.protocol.ledger_invoices import list_recent_rates
from smpc.protocol.ledger_state import BurnEntry, BurnStatus
from smpc.protocol.ledger_tables import LedgerTables
from smpc.protocol.records import RESERVE_ACCOUNT, AccountTransfer, BurnCancelled, BurnRaised, BurnRequested
from smpc.types import AccountKey, BurnId, Sats

AccountRecord = AccountTransfer | BurnRequested | BurnCancelled | BurnRaised
"""Records that an account key signs and that use up a nonce."""


def apply_account_transfer(tables: LedgerTables, record: AccountTransfer) -> None:
    """Move kBTC; to `RESERVE_ACCOUNT` it leaves the supply and tops the reserve up."""
    _check_account(tables, record)
    if record.recipient != RESERVE_ACCOUNT and not is_valid_xonly(record.recipient):
        raise Refused("the recipient is not an x-only key", code="BAD_KEY")
    if record.amount < 1:
        raise Refused("a transfer moves at least 1 sat", code="AMOUNT")
    _spend(tables, record.sender, record.amount)
    if record.recipient == RESERVE_ACCOUNT:
        tables.move_reserve(record.amount)
    else:
        _receive(tables, record.recipient, record.amount)
    tables.events.append(KbtcMoved(record.sender, record.recipient, record.amount))


def apply_burn_requested(tables: LedgerTables, record: BurnRequested) -> None:
    """Open a burn: amount within bounds, fee at least today's price, destination standard."""
    _check_account(tables, record)
    params = tables.params
    if not params.min_payout <= record.payout <= params.max_payout:
        raise Refused(
            f"a payout is {params.min_payout} to {params.max_payout} sat, got {record.payout}",
            rule="V41",
            code="AMOUNT",
        )
    least = compute_fee_out(params, record.payout, min(list_recent_rates(tables)))
    if record.fee < least:
        raise Refused(
            f"the fee limit of {record.fee} sat is below the price of {least}",
            remedy=f"offer at least {least} sat",
            rule="V43",
            code="FEE_TOO_LOW",
        )
    _check_destination(tables, record)
    _spend(tables, record.sender, record.payout + record.fee)
    tables.put_burn(BurnEntry(record, record.burn_id, tables.head.height, record.fee, BurnStatus.OPEN))
    tables.events.append(BurnMoved(record.burn_id, BurnStatus.OPEN))


def apply_burn_cancelled(tables: LedgerTables, record: BurnCancelled) -> None:
    """Give a burn back, raises included, while no standing intent names it."""
    _check_account(tables, record)
    burn = _require_own_burn(tables, record.sender, record.burn)
    if holds_burn(tables, record.burn):
        raise Refused(
            "an intent that may still be mined pays this burn",
            remedy="wait for the payout, or until its intent ends",
            rule="V40",
            code="BURN_BUSY",
        )
    _spend(tables, record.sender, 0)
    tables.put_burn(replace(burn, status=BurnStatus.CANCELLED, ended=tables.head.height))
    _receive(tables, record.sender, burn.request.payout + burn.fee)
    tables.events.append(BurnMoved(record.burn, BurnStatus.CANCELLED))


def apply_burn_raised(tables: LedgerTables, record: BurnRaised) -> None:
    """Raise an open burn's fee limit by a bump's share at least, with more of the same account's kBTC."""
    _check_account(tables, record)
    burn = _require_own_burn(tables, record.sender, record.burn)
    most = tables.params.bump_max_count
    if burn.raises >= most:
        # Every raise changes what the burn's booking must say: without a bound its user could stall a whole batch, and
        # whoever owns all its burns could do so a hundred times as long, were a raise of a satoshi enough.
        raise Refused(f"a burn is raised at most {most} times", rule="V43", code="TOO_MANY_RAISES")
    least = compute_least_raise(tables.params, burn.fee)
    if record.extra < least:
        raise Refused(
            f"a raise of {record.extra} sat is below the least of {least}",
            remedy=f"raise it by {least} sat or more: {tables.params.bump_percent} % of its fee limit of {burn.fee}",
            rule="V43",
            code="AMOUNT",
        )
    _spend(tables, record.sender, record.extra)
    tables.put_burn(replace(burn, fee=Sats(burn.fee + record.extra), raises=burn.raises + 1))
    tables.events.append(BurnMoved(record.burn, BurnStatus.OPEN))


def _check_account(tables: LedgerTables, record: AccountRecord) -> None:
    if not verify_schnorr(record.sender, record.digest, record.signature):
        raise Refused("the signature is not the account's", code="BAD_SIGNATURE")
    nonce = tables.account(record.sender).nonce
    if record.nonce != nonce:
        raise Conflict(
            f"the account's next nonce is {nonce}, not {record.nonce}",
            remedy="sign again with the account's current nonce",
            code="WRONG_NONCE",
        )


def _check_destination(tables: LedgerTables, record: BurnRequested) -> None:
    if not is_standard_destination(record.script):
        raise Refused(
            "the destination is not a standard script",
            remedy="pay to an ordinary address",
            rule="V42",
            code="DESTINATION",
        )
    if record.script in tables.own_scripts:
        raise Refused(
            "the destination is an address of the bridge itself",
            remedy="pay to an address of your own wallet",
            rule="V42",
            code="OWN_DESTINATION",
        )


def _require_own_burn(tables: LedgerTables, sender: AccountKey, burn_id: BurnId) -> BurnEntry:
    burn = tables.burns.get(burn_id)
    if burn is None or burn.request.sender != sender:
        raise Refused("this account has no such burn", rule="V40", code="UNKNOWN_BURN")
    if burn.status is not BurnStatus.OPEN:
        raise Refused(f"the burn is {burn.status}", rule="V40", code="BURN_NOT_OPEN")
    return burn


def _spend(tables: LedgerTables, sender: AccountKey, amount: int) -> None:
    account = tables.account(sender)
    if amount > account.balance:
        raise Refused(
            f"the account holds {account.balance} sat of kBTC, {amount} are needed", code="INSUFFICIENT_BALANCE"
        )
    tables.put_account(sender, replace(account, balance=Sats(account.balance - amount), nonce=account.nonce + 1))


def _receive(tables: LedgerTables, recipient: AccountKey, amount: int) -> None:
    account = tables.account(recipient)
    tables.put_account(recipient, replace(account, balance=Sats(account.balance + amount)))
