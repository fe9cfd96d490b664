"""What an honest coordinator does with a `PodNet`, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from coordinator.endorsement_round import EndorsementOutcome, collect_endorsements
from coordinator.signing_job import SigningJob, build_booking_job, build_spend_job
from coordinator.signing_round import run_signing_round
from pegin.build import build_transfer
from pegin.invoice import TermsRequest, build_invoice_tree, build_terms
from pegin.model import BuiltTransaction
from pegout.build import build_payout
from smpc.bitcoin.address import to_address
from smpc.bitcoin.transaction import parse_transaction
from smpc.curve import sign_schnorr
from smpc.params import REGTEST
from smpc.protocol.intents import IntentChoice, IntentInput, IntentKind
from smpc.protocol.invoices import InvoiceRequest, InvoiceTerms, RefundOrigin, compute_fee_out
from smpc.protocol.records import BookingRecorded, BurnRequested, InvoicesRecorded
from smpc.types import (
    BtcHeight,
    BurnId,
    ChildIndex,
    FeeRate,
    IntentId,
    Network,
    Outpoint,
    Role,
    Sats,
    Script,
    Signature,
    txid_from_hex,
)
from tests.support.groups import make_account, make_xonly
from tests.support.pod_net import EPOCH, PodNet

RATE: Final = FeeRate(5_000)
"""What is proposed where no estimate exists: half of what pods accept."""

UNSIGNED: Final = Signature(bytes(64))

SIGNING_ROLES: Final = (Role.VALIDATOR, Role.WITNESS)


class Coordinator:
    """The coordinator's work by hand: nothing here is a lie."""

    def __init__(self, net: PodNet) -> None:
        self.net = net

    # -------------------------------------------------------------- users

    async def invoice(self, user: str = "alice") -> InvoiceTerms:
        """Record a new invoice for a user's account."""
        net, ledger = self.net, self.net.ledger
        index, height = ChildIndex(len(ledger.invoices)), BtcHeight(await net.chain.fetch_height())
        request = TermsRequest(EPOCH, index, make_account(user)[1], make_xonly(f"refund {user}"))
        terms = build_terms(REGTEST, request, ledger.fee_rate, height)
        origin = RefundOrigin(bytes(4), ())
        unsigned = InvoicesRecorded(
            Network.REGTEST,
            b"invoice %d" % index,
            (InvoiceRequest(terms, terms.min_amount, origin),),
            net.pods.leader,
            UNSIGNED,
        )
        await net.submit(replace(unsigned, signature=net.sign(unsigned.digest)))
        return terms

    async def deposit(self, sats: int, *, user: str = "alice", blocks: int = 3) -> IntentInput:
        """Pay a new invoice and mine so many blocks; the deposit as an intent names it."""
        terms = await self.invoice(user)
        script = build_invoice_tree(self.net.keys, terms).script
        outpoint = await self.pay(script, sats)
        if blocks:
            await self.net.chain.mine(blocks)
        return IntentInput(outpoint, Sats(sats), terms.index)

    async def pay(self, script: Script, sats: int) -> Outpoint:
        """Pay a script from the miner's wallet; nothing is mined."""
        net = self.net
        txid = txid_from_hex(await net.chain.fund(to_address(script, Network.REGTEST), Sats(sats)))
        found = await net.node.fetch_transaction(txid)
        assert found is not None
        outputs = parse_transaction(found.raw).outputs
        return Outpoint(txid, next(at for at, output in enumerate(outputs) if output.script == script))

    async def burn(self, payout: int, script: Script, *, user: str = "alice") -> BurnId:
        """Burn a user's kBTC for a payout and wait until that is final."""
        secret, sender = make_account(user)
        ledger = self.net.ledger
        record = BurnRequested(
            network=Network.REGTEST,
            sender=sender,
            nonce=ledger.get_account(sender).nonce,
            payout=Sats(payout),
            fee=compute_fee_out(REGTEST, Sats(payout), ledger.fee_rate),
            script=script,
            signature=UNSIGNED,
        )
        await self.net.submit(replace(record, signature=sign_schnorr(secret, record.digest, bytes(32))))
        return record.burn_id

    # -------------------------------------------------------------- building

    def transfer(
        self, *deposits: IntentInput, rate: FeeRate = RATE, replaces: tuple[IntentId, ...] = ()
    ) -> BuiltTransaction:
        """Build the transfer of deposits."""
        outpoints = tuple(item.outpoint for item in deposits)
        choice = IntentChoice(IntentKind.TRANSFER, EPOCH, EPOCH, outpoints, (), rate, replaces)
        return build_transfer(self.net.ledger, choice, deposits)

    def payout(
        self,
        outpoints: Sequence[Outpoint],
        burns: Sequence[BurnId],
        *,
        rate: FeeRate = RATE,
        replaces: tuple[IntentId, ...] = (),
    ) -> BuiltTransaction:
        """Build the payout of burns from booked vault outputs."""
        choice = IntentChoice(IntentKind.PAYOUT, EPOCH, EPOCH, tuple(outpoints), tuple(burns), rate, replaces)
        return build_payout(self.net.ledger, choice, self.list_coins())

    def list_coins(self) -> list[IntentInput]:
        """Return every booked vault output, those of the most value first."""
        booked = sorted(self.net.ledger.vault.values(), key=lambda entry: (-entry.value, entry.outpoint))
        return [IntentInput(entry.outpoint, entry.value, entry.child) for entry in booked]

    def find_free_coins(self) -> list[Outpoint]:
        """Return the booked vault outputs that no standing intent spends."""
        ledger = self.net.ledger
        return [item.outpoint for item in self.list_coins() if not ledger.find_standing((item.outpoint,), ())]

    # -------------------------------------------------------------- the life of a transaction

    async def endorse(self, built: BuiltTransaction) -> EndorsementOutcome:
        """Ask V and W for endorsements."""
        groups = [self.net.group(role) for role in SIGNING_ROLES]
        return await collect_endorsements(self.net.pods, groups, built)

    async def record(self, built: BuiltTransaction) -> None:
        """Have the intent endorsed and recorded; its window has just begun."""
        outcome = await self.endorse(built)
        assert outcome.is_enough, outcome.describe()
        await self.net.submit(outcome.to_record())

    async def pass_window(self, built: BuiltTransaction) -> None:
        """Wait until every pod that has reached this replica's height sees the window closed."""
        recorded = self.net.ledger.intents[built.intent.intent_id].recorded
        await self.net.wait(lambda ledger: REGTEST.is_window_over(recorded, ledger.height))

    async def sign(
        self, role: Role, built: BuiltTransaction, validators: Sequence[Signature] = ()
    ) -> tuple[Signature, ...]:
        """Have a group sign every input."""
        return await self._sign(build_spend_job(self.net.group(role), built, validators))

    async def sign_both(self, built: BuiltTransaction) -> tuple[tuple[Signature, ...], tuple[Signature, ...]]:
        """Have V sign, then W."""
        validators = await self.sign(Role.VALIDATOR, built)
        return validators, await self.sign(Role.WITNESS, built, validators)

    async def send(
        self, built: BuiltTransaction, validators: Sequence[Signature], witnesses: Sequence[Signature], blocks: int = 3
    ) -> None:
        """Broadcast the complete transaction and bury it."""
        await self.net.node.broadcast(built.complete(validators, witnesses).to_bytes())
        await self.net.chain.mine(blocks)

    async def book(self, built: BuiltTransaction) -> None:
        """Have both groups sign the booking and record it."""
        booking = self.net.ledger.compute_booking(built.intent.intent_id)
        signatures = [(await self._sign(build_booking_job(self.net.group(role), booking)))[0] for role in SIGNING_ROLES]
        await self.net.submit(BookingRecorded(booking, signatures[0], signatures[1]))

    async def carry_out(self, built: BuiltTransaction) -> None:
        """Take a transaction all the way: endorsed, recorded, signed, mined, booked."""
        await self.record(built)
        await self.pass_window(built)
        await self.send(built, *await self.sign_both(built))
        await self.book(built)

    async def _sign(self, job: SigningJob) -> tuple[Signature, ...]:
        return (await run_signing_round(self.net.pods, job)).require_signatures()
