"""What payouts and sweeps are built from alike: the burns they pay and the vault outputs they spend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from pegin.build import InvoiceBook
from pegin.model import Spend
from pegin.vault import build_vault_tree, find_epoch_keys, is_vault_child
from smpc.bitcoin.taproot import VaultTree
from smpc.errors import InvalidInput, NotFound
from smpc.protocol.intents import IntentInput, Payment
from smpc.protocol.ledger_state import BurnEntry
from smpc.threshold.child_keys import VAULT_RANGE_START
from smpc.types import BurnId, EpochNumber


class PayoutBook(InvoiceBook, Protocol):
    """What a payout is built from beside the choice: epochs and what burns asked for, which never change."""

    @property
    def burns(self) -> Mapping[BurnId, BurnEntry]:
        """Return every burn."""
        ...


def list_spends(ledger: InvoiceBook, epoch: EpochNumber, items: Sequence[IntentInput]) -> tuple[Spend, ...]:
    """Return vault outputs of an epoch with all a signer needs; InvalidInput when one is named as a deposit."""
    return tuple(Spend.from_tree(item, tree) for item, tree in list_trees(ledger, epoch, items))


def list_recovered(ledger: InvoiceBook, epoch: EpochNumber, items: Sequence[IntentInput]) -> tuple[Spend, ...]:
    """As `list_spends`, by the recovery leaf."""
    return tuple(Spend.by_recovery(item, tree) for item, tree in list_trees(ledger, epoch, items))


def list_trees(
    ledger: InvoiceBook, epoch: EpochNumber, items: Sequence[IntentInput]
) -> tuple[tuple[IntentInput, VaultTree], ...]:
    """Return vault outputs of an epoch with their trees; InvalidInput when one is named as a deposit."""
    source = find_epoch_keys(ledger.epochs, epoch)
    return tuple((item, build_vault_tree(ledger.params, source, _find_position(item))) for item in items)


def list_payments(ledger: PayoutBook, burns: Sequence[BurnId]) -> tuple[Payment, ...]:
    """Return what burns are to be paid, by burn id; InvalidInput for none, too many or a repeated one."""
    if not 1 <= len(burns) <= ledger.params.max_batch_payouts:
        raise InvalidInput(f"a payout pays 1 to {ledger.params.max_batch_payouts} burns, got {len(burns)}")
    if len(set(burns)) != len(burns):
        raise InvalidInput("the same burn stands twice among the payments")
    return tuple(_find_payment(ledger, burn) for burn in sorted(burns))


def _find_payment(ledger: PayoutBook, burn: BurnId) -> Payment:
    entry = ledger.burns.get(burn)
    if entry is None:
        raise NotFound(f"there is no burn {burn.hex()} on the ledger")
    return Payment(burn, entry.request.payout, entry.request.script)


def _find_position(item: IntentInput) -> int:
    if not is_vault_child(item.child):
        raise InvalidInput(f"{item.outpoint} is named as a deposit, not as a vault output")
    return item.child - VAULT_RANGE_START
