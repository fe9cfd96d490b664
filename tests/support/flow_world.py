"""A small world for tests of the flows: a real ledger, and what a member's own Bitcoin node would say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from pegin.build import build_transfer
from pegin.invoice import build_invoice_tree
from pegin.model import BuiltTransaction, compute_signing_index
from pegin.vault import EpochKeys
from pegout.build import build_payout
from smpc.curve import compute_xonly_key, tagged_hash
from smpc.params import REGTEST, Params
from smpc.participant.spending import rebuild_spend, review_spend
from smpc.protocol.facts import (
    BookingFacts,
    Facts,
    InputFacts,
    NodeFacts,
    Proposal,
    SessionFacts,
    StandingFacts,
    TransactionFacts,
)
from smpc.protocol.intents import Intent, IntentChoice, IntentInput, IntentKind
from smpc.protocol.ledger import Ledger
from smpc.protocol.pod_messages import SIGNING_SUITE, SessionHeader, compute_protocol_hash
from smpc.protocol.review import Stage, Verdict
from smpc.types import (
    Attempt,
    BtcHeight,
    BurnId,
    ChildIndex,
    FeeRate,
    GroupId,
    IdentityKey,
    IntentId,
    KaonHeight,
    Network,
    Outpoint,
    Purpose,
    Role,
    Sats,
    Script,
    Signature,
    Txid,
)
from tests.support.chain import LedgerChain
from tests.support.groups import EPOCH, sign_with_child

RATE: Final = FeeRate(5_000)
"""What is proposed where no estimate exists: half of what pods accept."""

TIP: Final = BtcHeight(200)


@dataclass(slots=True)
class FlowWorld:
    """A ledger with an active epoch, and the unspent outputs of one Bitcoin node."""

    chain: LedgerChain
    outputs: dict[Outpoint, InputFacts]
    children: dict[Outpoint, ChildIndex]
    estimate: FeeRate | None = None

    @classmethod
    def opened(cls, params: Params = REGTEST) -> FlowWorld:
        """Return a world whose epoch 0 is active and whose chain is empty."""
        return cls(LedgerChain.activated(params), {}, {})

    @property
    def ledger(self) -> Ledger:
        """The ledger everyone agrees on."""
        return self.chain.ledger

    @property
    def keys(self) -> EpochKeys:
        """The active epoch's keys."""
        return EpochKeys.from_entry(self.ledger.epochs[EPOCH])

    # -------------------------------------------------------------- deposits and burns

    def deposit(self, index: int, value: int, *, user: str = "alice", confirmations: int = 3) -> Outpoint:
        """Record invoice `index` and pay it; the deposit's outpoint."""
        terms = self.chain.make_terms(index, user=user)
        self.chain.add(self.chain.make_invoices(terms, request_id=b"deposit %d" % index))
        return self.pay(index, value, confirmations=confirmations)

    def pay(self, index: int, value: int, *, confirmations: int = 3, vout: int = 0) -> Outpoint:
        """Pay a recorded invoice (again)."""
        terms = self.ledger.invoices[EPOCH, ChildIndex(index)].request.terms
        outpoint = Outpoint(Txid(tagged_hash("TEST/deposit", index.to_bytes(4, "big"), bytes([vout]))), vout)
        script = build_invoice_tree(self.keys, terms).script
        self.outputs[outpoint] = InputFacts(outpoint, Sats(value), script, confirmations)
        self.children[outpoint] = ChildIndex(index)
        return outpoint

    def burn(self, payout: int, *, user: str = "alice", script: Script | None = None) -> BurnId:
        """Open a burn and let its block become final."""
        record = self.chain.make_burn(user, payout, script=script)
        self.chain.add(record)
        self.chain.skip(2)
        return record.burn_id

    def fill_vault(self, *values: int, user: str = "alice") -> tuple[Outpoint, ...]:
        """Peg in and book one deposit per value; the vault outputs, three blocks deep."""
        for value in values:
            index = len(self.ledger.invoices)
            self.mine(self.record(self.transfer(self.deposit(index, value, user=user))))
        return tuple(sorted(self.ledger.vault))

    # -------------------------------------------------------------- building

    def coin(self, outpoint: Outpoint) -> IntentInput:
        """Return an output as an intent names it."""
        return IntentInput(outpoint, self.outputs[outpoint].value, self.children[outpoint])

    def transfer(
        self, *outpoints: Outpoint, rate: FeeRate = RATE, replaces: tuple[IntentId, ...] = ()
    ) -> BuiltTransaction:
        """Build a transfer of deposits."""
        choice = IntentChoice(IntentKind.TRANSFER, EPOCH, EPOCH, tuple(sorted(outpoints)), (), rate, replaces)
        return build_transfer(self.ledger, choice, [self.coin(outpoint) for outpoint in outpoints])

    def payout(
        self,
        outpoints: tuple[Outpoint, ...],
        burns: tuple[BurnId, ...],
        *,
        rate: FeeRate = RATE,
        replaces: tuple[IntentId, ...] = (),
    ) -> BuiltTransaction:
        """Build a payout of burns."""
        choice = IntentChoice(
            IntentKind.PAYOUT, EPOCH, EPOCH, tuple(sorted(outpoints)), tuple(sorted(burns)), rate, replaces
        )
        return build_payout(self.ledger, choice, [self.coin(outpoint) for outpoint in outpoints])

    # -------------------------------------------------------------- the life of a transaction

    def record(self, built: BuiltTransaction) -> BuiltTransaction:
        """Record the intent on the ledger and let its window pass."""
        self.chain.record(built.intent)
        self.chain.skip(2 + self.ledger.params.challenge_blocks)
        return built

    def mine(self, built: BuiltTransaction, *, confirmations: int = 3) -> None:
        """Put the transaction on the chain and book it."""
        for item in built.intent.inputs:
            self.outputs.pop(item.outpoint, None)
        for position, value in enumerate(built.intent.vault_outputs):
            outpoint = Outpoint(built.intent.txid, position)
            script = built.transaction.outputs[position].script
            self.outputs[outpoint] = InputFacts(outpoint, value, script, confirmations)
            self.children[outpoint] = ChildIndex(0x10000000 + position)
        self.chain.book(built.intent.intent_id)

    def sign(self, built: BuiltTransaction, role: Role) -> tuple[Signature, ...]:
        """Return the group's signature of every input."""
        group = self.chain.epoch.groups[role]
        pairs = zip(built.spends, built.compute_digests(), strict=True)
        return tuple(
            sign_with_child(group, compute_signing_index(role, spend.item.child), digest) for spend, digest in pairs
        )

    # -------------------------------------------------------------- facts and verdicts

    @property
    def tip(self) -> BtcHeight:
        """The height of the member's node."""
        return TIP

    @property
    def node(self) -> NodeFacts:
        """What the member's node says of itself."""
        return NodeFacts(Network.REGTEST, True, self.tip, 1_000, 1_000, self.estimate)

    def session(self, purpose: Purpose, subject: bytes, role: Role = Role.VALIDATOR) -> SessionFacts:
        """Return an honest session about `subject`, as a ready member of a group sees it."""
        leader = IdentityKey(compute_xonly_key(self.chain.epoch.coordinator))
        group = GroupId(EPOCH, role)
        header = SessionHeader(
            compute_protocol_hash(self.ledger.params),
            SIGNING_SUITE,
            Network.REGTEST,
            group,
            KaonHeight(1),
            leader,
            purpose,
            subject,
            Attempt(0),
        )
        return SessionFacts(
            header=header,
            claimed_id=header.session_id,
            sender=leader,
            leader=leader,
            own_group=group,
            is_key_ready=True,
        )

    def facts(self, intent: Intent, role: Role = Role.VALIDATOR, standing: tuple[StandingFacts, ...] = ()) -> Facts:
        """Gather what an honest member knows when asked about an intent."""
        return Facts(
            session=self.session(Purpose(intent.kind), intent.intent_id, role),
            node=self.node,
            final_height=KaonHeight(self.ledger.height - self.ledger.params.finality_depth),
            inputs=dict(self.outputs),
            standing=standing,
        )

    def review(
        self,
        stage: Stage,
        intent: Intent,
        unsigned_tx: bytes,
        facts: Facts | None = None,
        signatures: tuple[Signature, ...] = (),
    ) -> Verdict:
        """Judge an intent as a member does."""
        known, proposal = facts or self.facts(intent), Proposal(intent, unsigned_tx, signatures)
        return review_spend(stage, self.ledger, known, proposal)

    def rebuild(self, intent: Intent) -> BuiltTransaction:
        """Build what an intent chose as a member does."""
        return rebuild_spend(self.ledger, self.facts(intent), intent)

    def endorse(self, built: BuiltTransaction, facts: Facts | None = None) -> Verdict:
        """Judge what was built, before an endorsement."""
        return self.review(Stage.ENDORSE, built.intent, built.transaction.to_bytes(), facts)

    def booking_facts(
        self, built: BuiltTransaction, *, confirmations: int = 3, height: int = 190, input_height: int = 180
    ) -> BookingFacts:
        """Gather what an honest member knows of a mined transaction when asked to book it."""
        outpoints = tuple(item.outpoint for item in built.intent.inputs)
        booking = self.ledger.compute_booking(built.intent.intent_id)
        return BookingFacts(
            session=self.session(Purpose.BOOKING, booking.digest),
            node=self.node,
            final_height=KaonHeight(self.ledger.height - self.ledger.params.finality_depth),
            transaction=TransactionFacts(built.intent.txid, outpoints, confirmations, BtcHeight(height)),
            input_heights=dict.fromkeys(outpoints, BtcHeight(input_height)),
        )


def with_session(facts: Facts, **changes: object) -> Facts:
    """Return the facts with another session."""
    return replace(facts, session=replace(facts.session, **changes))  # type: ignore[arg-type]


def find_rule(verdict: Verdict) -> tuple[str, str]:
    """Return the refusal's rule and reason; empty texts when accepted."""
    refusal = verdict.refusal()
    return (refusal.rule, refusal.reason) if refusal else ("", "")
