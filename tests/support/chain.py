"""A consensus chain in a test's hands: it makes, signs and applies blocks, and builds the usual records.

The money flows are complete on the ledger's side: invoices, transfers, bookings, burns and payouts with valid
signatures. Bitcoin transactions are only named by ids here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import pytest

from smpc.curve import tagged_hash
from smpc.errors import Conflict, InvalidInput, Refused
from smpc.params import REGTEST, Params
from smpc.protocol.end_records import IntentDead, IntentWithdrawn
from smpc.protocol.intents import Booking, Commission, Intent, IntentInput, IntentKind, Payment
from smpc.protocol.invoices import InvoiceRequest, InvoiceTerms, RefundOrigin, compute_fee_base, compute_fee_out
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_bookings import VAULT_INDEX_START
from smpc.protocol.ledger_events import LedgerEvent
from smpc.protocol.records import (
    AccountTransfer,
    BookingRecorded,
    BurnCancelled,
    BurnRaised,
    BurnRequested,
    InvoicesRecorded,
    KaonBlock,
    Record,
)
from smpc.types import (
    AccountKey,
    BtcHeight,
    BurnId,
    ChildIndex,
    EpochNumber,
    FeeRate,
    IdentityKey,
    IntentId,
    KaonHeight,
    Network,
    Outpoint,
    Role,
    Sats,
    Script,
    Signature,
    Txid,
)
from tests.support.groups import (
    EPOCH,
    KeyedEpoch,
    build_keyed_epoch,
    endorse,
    make_account,
    make_xonly,
    sign,
    sign_with_group,
)

UNSIGNED: Final = Signature(bytes(64))
ORIGIN: Final = RefundOrigin(bytes(4), (0x80000056, 0x80000001, 0x80000000, 0, 0))
NO_SCRIPT: Final = Script(b"")
EXPIRES: Final = BtcHeight(400)


class LedgerChain:
    """A ledger and the proposer's pen."""

    def __init__(self, epoch: KeyedEpoch | None = None, params: Params = REGTEST) -> None:
        self.epoch = epoch or build_keyed_epoch()
        self.ledger = Ledger(self.epoch.genesis, params)
        self.blocks: list[KaonBlock] = []

    @classmethod
    def activated(cls, params: Params = REGTEST) -> LedgerChain:
        """Return a chain whose epoch 0 is active."""
        chain = cls(params=params)
        chain.add(*chain.epoch.records)
        chain.add()
        return chain

    def build_block(self, *records: Record) -> KaonBlock:
        """Return the signed next block."""
        ledger = self.ledger
        height = KaonHeight(ledger.height + 1)
        block = KaonBlock(height, ledger.block_hash, ledger.time_millis + 250, records, UNSIGNED)
        return replace(block, signature=sign(self.epoch.proposer, block.block_hash))

    def add(self, *records: Record) -> tuple[LedgerEvent, ...]:
        """Apply the next block with these records; the ledger's errors pass through."""
        block = self.build_block(*records)
        events = self.ledger.apply_block(block)
        self.blocks.append(block)
        return events

    def refusal(self, *records: Record) -> str:
        """Return the code with which the next block of these records is refused; nothing may have changed by it."""
        before = self.ledger.compute_state_root()
        with pytest.raises((Refused, InvalidInput, Conflict)) as caught:
            self.ledger.apply_block(self.build_block(*records))
        assert self.ledger.compute_state_root() == before
        return caught.value.code

    def skip(self, count: int) -> None:
        """Apply empty blocks."""
        for _ in range(count):
            self.add()

    # -------------------------------------------------------------- invoices and intents

    def make_terms(self, index: int, *, user: str = "alice") -> InvoiceTerms:
        """Return valid terms of invoice `index` for a user's account."""
        params = self.ledger.params
        return InvoiceTerms(
            network=Network.REGTEST,
            epoch=self.epoch.number,
            index=ChildIndex(index),
            recipient=make_account(user)[1],
            refund_key=make_xonly(f"refund {user}"),
            min_amount=params.min_deposit,
            max_amount=params.max_deposit,
            fee_base=compute_fee_base(params.fee_in_vbytes, self.ledger.fee_rate, params.fee_margin_percent),
            fee_bp=params.commission_bp,
            emergency_csv=params.emergency_csv,
            transfer_csv=params.transfer_csv,
            refund_csv=params.refund_csv,
            expires=EXPIRES,
        )

    def make_invoices(self, *terms: InvoiceTerms, request_id: bytes = b"request") -> InvoicesRecorded:
        """Return a signed peg-in of these terms."""
        invoices = tuple(InvoiceRequest(item, item.min_amount, ORIGIN) for item in terms)
        return self.sign_invoices(invoices, request_id)

    def sign_invoices(self, invoices: tuple[InvoiceRequest, ...], request_id: bytes) -> InvoicesRecorded:
        """Return a signed peg-in of these requests."""
        coordinator = self.epoch.genesis.coordinators[0]
        record = InvoicesRecorded(Network.REGTEST, request_id, invoices, IdentityKey(coordinator), UNSIGNED)
        return replace(record, signature=sign(self.epoch.coordinator, record.digest))

    def make_transfer(
        self,
        deposits: Sequence[tuple[int, int]],
        *,
        fee: int = 2_000,
        outputs: int = 1,
        replaces: tuple[IntentId, ...] = (),
    ) -> Intent:
        """Return a transfer of deposits given as (invoice index, value); deposit `i` is `deposit_outpoint(i)`."""
        inputs = tuple(
            IntentInput(deposit_outpoint(index), Sats(value), ChildIndex(index)) for index, value in deposits
        )
        return make_intent(IntentKind.TRANSFER, inputs, (), fee=fee, outputs=outputs, replaces=replaces)

    def make_payout(
        self,
        outpoints: Sequence[Outpoint],
        burns: Sequence[BurnId],
        *,
        fee: int = 2_000,
        outputs: int = 1,
        replaces: tuple[IntentId, ...] = (),
    ) -> Intent:
        """Return a payout of open burns from booked vault outputs."""
        booked = [self.ledger.vault[outpoint] for outpoint in outpoints]
        inputs = tuple(IntentInput(item.outpoint, item.value, item.child) for item in booked)
        requests = [self.ledger.burns[burn].request for burn in burns]
        payments = tuple(Payment(item.burn_id, item.payout, item.script) for item in requests)
        return make_intent(IntentKind.PAYOUT, inputs, payments, fee=fee, outputs=outputs, replaces=replaces)

    def record(self, intent: Intent) -> IntentId:
        """Record an endorsed intent in the next block."""
        self.add(endorse(self.epoch, intent, self.ledger.height))
        return intent.intent_id

    # -------------------------------------------------------------- ends of intents

    def sign_booking(self, booking: Booking) -> BookingRecorded:
        """Return a booking under both group keys."""
        groups = self.epoch.groups
        return BookingRecorded(
            booking,
            sign_with_group(groups[Role.VALIDATOR], booking.digest),
            sign_with_group(groups[Role.WITNESS], booking.digest),
        )

    def book(self, intent: IntentId) -> tuple[LedgerEvent, ...]:
        """Book a recorded intent in the next block."""
        return self.add(self.sign_booking(self.ledger.compute_booking(intent)))

    def make_withdrawal(self, intent: IntentId) -> IntentWithdrawn:
        """Return a withdrawal under both group keys."""
        record = IntentWithdrawn(Network.REGTEST, intent, self.epoch.number, UNSIGNED, UNSIGNED)
        groups = self.epoch.groups
        return replace(
            record,
            validator_signature=sign_with_group(groups[Role.VALIDATOR], record.digest),
            witness_signature=sign_with_group(groups[Role.WITNESS], record.digest),
        )

    def make_death(
        self, intent: IntentId, outpoint: Outpoint, spender: Txid, path: tuple[bytes, ...] = ()
    ) -> IntentDead:
        """Return a death under both group keys."""
        record = IntentDead(Network.REGTEST, intent, outpoint, spender, self.epoch.number, UNSIGNED, UNSIGNED, path)
        groups = self.epoch.groups
        return replace(
            record,
            validator_signature=sign_with_group(groups[Role.VALIDATOR], record.digest),
            witness_signature=sign_with_group(groups[Role.WITNESS], record.digest),
        )

    # -------------------------------------------------------------- kBTC

    def fund(self, user: str, value: int, index: int) -> Sats:
        """Peg `value` sat in for a user through invoice `index`, to the booking; what was credited."""
        self.add(self.make_invoices(self.make_terms(index, user=user), request_id=b"fund %d" % index))
        self.book(self.record(self.make_transfer([(index, value)])))
        return self.ledger.get_account(make_account(user)[1]).balance

    def make_send(self, user: str, recipient: AccountKey, amount: int) -> AccountTransfer:
        """Return a signed transfer with the sender's next nonce."""
        secret, sender = make_account(user)
        nonce = self.ledger.get_account(sender).nonce
        record = AccountTransfer(Network.REGTEST, sender, nonce, recipient, Sats(amount), UNSIGNED)
        return replace(record, signature=sign(secret, record.digest))

    def make_burn(
        self, user: str, payout: int, *, fee: int | None = None, script: Script | None = None
    ) -> BurnRequested:
        """Return a signed burn with the sender's next nonce; the fee is today's price when not given."""
        secret, sender = make_account(user)
        price = compute_fee_out(self.ledger.params, Sats(payout), FeeRate(self.ledger.fee_rate))
        record = BurnRequested(
            network=Network.REGTEST,
            sender=sender,
            nonce=self.ledger.get_account(sender).nonce,
            payout=Sats(payout),
            fee=price if fee is None else Sats(fee),
            script=destination(user) if script is None else script,
            signature=UNSIGNED,
        )
        return replace(record, signature=sign(secret, record.digest))

    def burn(self, user: str, payout: int) -> BurnId:
        """Open a burn in the next block."""
        record = self.make_burn(user, payout)
        self.add(record)
        return record.burn_id

    def make_cancel(self, user: str, burn: BurnId) -> BurnCancelled:
        """Return a signed cancel with the sender's next nonce."""
        secret, sender = make_account(user)
        nonce = self.ledger.get_account(sender).nonce
        record = BurnCancelled(Network.REGTEST, sender, nonce, burn, UNSIGNED)
        return replace(record, signature=sign(secret, record.digest))

    def make_raise(self, user: str, burn: BurnId, extra: int) -> BurnRaised:
        """Return a signed raise with the sender's next nonce."""
        secret, sender = make_account(user)
        nonce = self.ledger.get_account(sender).nonce
        record = BurnRaised(Network.REGTEST, sender, nonce, burn, Sats(extra), UNSIGNED)
        return replace(record, signature=sign(secret, record.digest))


def make_intent(
    kind: IntentKind,
    inputs: tuple[IntentInput, ...],
    payments: tuple[Payment, ...],
    *,
    fee: int,
    outputs: int,
    replaces: tuple[IntentId, ...] = (),
    epoch: EpochNumber = EPOCH,
    target: EpochNumber = EPOCH,
    commissions: tuple[Commission, ...] = (),
    op_return: Script = NO_SCRIPT,
) -> Intent:
    """Return an intent whose money adds up: what payments and fee leave over is split over the vault outputs."""
    rest = sum(item.value for item in inputs) - sum(item.amount for item in payments) - fee
    rest -= sum(item.amount for item in commissions)
    share, odd = divmod(rest, outputs) if outputs else (0, 0)
    intent = Intent(
        network=Network.REGTEST,
        kind=kind,
        epoch=epoch,
        target_epoch=target,
        inputs=inputs,
        payments=payments,
        vault_outputs=tuple(Sats(share + (position < odd)) for position in range(outputs)),
        fee=Sats(fee),
        fee_rate=FeeRate(10_000),
        txid=Txid(bytes(32)),
        replaces=replaces,
        commissions=commissions,
        op_return=op_return,
    )
    return with_own_txid(intent)


def with_own_txid(intent: Intent) -> Intent:
    """Return the intent with a txid that follows from everything else."""
    return replace(intent, txid=Txid(tagged_hash("TEST/txid", replace(intent, txid=Txid(bytes(32))).intent_id)))


def deposit_outpoint(index: int) -> Outpoint:
    """Return the outpoint of the deposit to invoice `index`."""
    return Outpoint(Txid(tagged_hash("TEST/deposit", index.to_bytes(4, "big"))), index % 3)


def vault_outpoint(intent: Intent, position: int = 0) -> Outpoint:
    """Return an intent's vault output."""
    return Outpoint(intent.txid, position)


def vault_child(position: int) -> ChildIndex:
    """Return a vault output's child index."""
    return ChildIndex(VAULT_INDEX_START + position)


def destination(user: str) -> Script:
    """Return a user's Bitcoin script, P2WPKH."""
    return Script(b"\x00\x14" + tagged_hash("TEST/destination", user.encode())[:20])
