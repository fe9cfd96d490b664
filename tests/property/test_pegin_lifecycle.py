"""A deposit's life against a small model of the chains: it always agrees with them, whatever was missed or repeated."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pegin.events import DepositEvent
from pegin.lifecycle import DEPOSIT, Deposit, DepositState
from pegin.steps import DepositOrigin, DepositView, find_event, open_deposit, step
from smpc.protocol.codec import decode, encode
from smpc.protocol.machine import advance
from smpc.types import BtcHeight, Sats, Txid
from tests.support.lifecycle_samples import DEPOSIT_SAMPLE, INTENT_ID, LIMITS, OTHER_ID

S = DepositState
TRANSFER = Txid(b"\x0a" * 32)
REFUND = Txid(b"\x0b" * 32)


@dataclass(slots=True)
class Chains:
    """What is true: where the deposit, its transfer and its refund are."""

    tip: int = 100
    height: int | None = None
    in_mempool: bool = True
    intent: bool = False
    signed: bool = False
    transfer: int | None = None
    refund: int | None = None
    """Height of the refund; 0 while it is in the mempool."""
    credited: bool = False

    def to_view(self) -> DepositView:
        """Return what an observer reads."""
        spender = REFUND if self.refund is not None and self.height is not None else None
        return DepositView(
            tip=BtcHeight(self.tip),
            height=None if self.height is None or self.is_spent else BtcHeight(self.height),
            is_in_mempool=self.height is None and self.in_mempool,
            spender=None if self.transfer is not None else spender,
            spender_confirmations=self.tip - self.refund + 1 if self.refund else 0,
            intent=(OTHER_ID if self.signed else INTENT_ID) if self.intent else None,
            signed=TRANSFER if self.signed else None,
            transfer=TRANSFER if self.transfer is not None else None,
            transfer_height=None if self.transfer is None else BtcHeight(self.transfer),
            credited=(TRANSFER, Sats(49_000)) if self.credited else None,
        )

    @property
    def is_spent(self) -> bool:
        """Whether a transaction spends the deposit, mined or not."""
        return self.transfer is not None or self.refund is not None

    def disconnect(self, depth: int) -> None:
        """Take the last blocks back; what they held is in the mempool again."""
        self.tip -= depth
        for name in ("height", "transfer", "refund"):
            mined = getattr(self, name)
            if mined is not None and mined > self.tip:
                setattr(self, name, 0 if name == "refund" else None)
        if self.height is None:
            self.in_mempool, self.transfer, self.refund = True, None, None


def compute_state(chains: Chains, deposit: Deposit) -> set[DepositState]:
    """Say in which states the deposit may be, from what is true alone."""
    if chains.credited:
        return {S.BOOKED}
    if chains.transfer is not None:
        return {S.LOCKED}
    if chains.refund is not None:
        buried = bool(chains.refund) and chains.tip - chains.refund + 1 >= LIMITS.settled
        return {S.REFUNDED} if buried else {S.REFUNDING}
    if chains.height is None:
        return {S.SEEN} if chains.in_mempool else {S.MISSING, S.DEAD}
    if chains.intent:
        return {S.TRANSFERRING} if chains.signed else {S.RECORDED}
    return {compute_age(chains, deposit)}


def compute_age(chains: Chains, deposit: Deposit) -> DepositState:
    """Say what a confirmed, unspent deposit without an intent is."""
    assert chains.height is not None
    confirmations = chains.tip - chains.height + 1
    if deposit.value < LIMITS.min_amount:
        return S.OUT_OF_BOUNDS
    if chains.height > LIMITS.watched_until or LIMITS.refund_csv - confirmations <= LIMITS.refund_stop:
        return S.EXPIRED
    return S.MATURE if confirmations >= LIMITS.confirmations else S.MATURING


def settle(deposit: Deposit, view: DepositView) -> Deposit:
    """Step a deposit until it agrees with the chains."""

    def look(record: Deposit) -> DepositEvent | None:
        return find_event(record, view)

    steps = advance(deposit, look, step)
    return steps[-1][1].record if steps else deposit


class DepositLife(RuleBasedStateMachine):
    """Chains move at random; the coordinator looks now and then, and may be restarted at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.chains = Chains()
        self.deposit = DEPOSIT_SAMPLE
        self.ended: Deposit | None = None

    @initialize(value=st.sampled_from([19_999, 20_000, 50_000]))
    def see(self, value: int) -> None:
        self.deposit = replace(DEPOSIT_SAMPLE, value=Sats(value))

    @rule(blocks=st.integers(1, 12))
    def mine_blocks(self, blocks: int) -> None:
        self.chains.tip += blocks

    @precondition(lambda self: self.chains.height is None and self.chains.in_mempool)
    @rule()
    def mine_the_deposit(self) -> None:
        self.chains.tip += 1
        self.chains.height = self.chains.tip

    @precondition(lambda self: self.chains.height is None)
    @rule(present=st.booleans())
    def replace_or_rebroadcast_the_deposit(self, present: bool) -> None:
        self.chains.in_mempool = present

    @precondition(lambda self: not self.chains.credited)
    @rule(depth=st.integers(1, 6))
    def reorganise(self, depth: int) -> None:
        self.chains.disconnect(depth)

    @precondition(lambda self: self.chains.height is not None and not self.chains.is_spent)
    @rule(recorded=st.booleans(), signed=st.booleans())
    def record_or_end_the_intent(self, recorded: bool, signed: bool) -> None:
        self.chains.intent = recorded
        self.chains.signed = recorded and signed

    @precondition(lambda self: self.chains.signed and self.chains.height is not None and self.chains.refund is None)
    @rule()
    def mine_the_transfer(self) -> None:
        self.chains.tip += 1
        self.chains.transfer = self.chains.tip

    @precondition(lambda self: self.chains.height is not None and self.chains.transfer is None)
    @rule(mined=st.booleans())
    def refund(self, mined: bool) -> None:
        if mined and not self.chains.refund:
            self.chains.tip += 1
            self.chains.refund = self.chains.tip
        elif self.chains.refund is None:
            self.chains.refund = 0

    @precondition(lambda self: self.chains.transfer is not None)
    @rule()
    def credit(self) -> None:
        self.chains.credited = True

    @rule(stages=st.integers(1, 6))
    def proceed(self, stages: int) -> None:
        """Let the next honest things happen, so that the late states are met often."""
        for _ in range(stages):
            self.proceed_once()
        self.look()

    def proceed_once(self) -> None:
        chains = self.chains
        if chains.is_spent:
            return
        chains.tip += 1
        if chains.height is None:
            chains.height = chains.tip
        elif not chains.intent:
            chains.tip += 2
            chains.intent = True
        elif not chains.signed:
            chains.signed = True
        else:
            chains.transfer = chains.tip

    @rule()
    def look(self) -> None:
        view = self.chains.to_view()
        self.deposit = settle(self.deposit, view)
        if self.ended is not None:
            assert self.deposit == self.ended, "a terminal deposit moved"
        elif DEPOSIT.is_terminal(self.deposit.state):
            self.ended = self.deposit
        else:
            assert self.deposit.state in compute_state(self.chains, self.deposit)
            assert find_event(self.deposit, view) is None
            if self.deposit.state is not S.LOCKED and not self.chains.is_spent:
                assert self.deposit.height == self.chains.height

    @rule()
    def restart(self) -> None:
        self.deposit = decode(Deposit, encode(self.deposit))

    @rule()
    def rebuild(self) -> None:
        """From nothing but the chains comes the state that the old record has."""
        origin = DepositOrigin(
            self.deposit.outpoint, self.deposit.value, self.deposit.epoch, self.deposit.child, self.deposit.pegin
        )
        view = self.chains.to_view()
        fresh = open_deposit(origin, LIMITS, BtcHeight(self.chains.tip)).record
        assert settle(fresh, view).state in compute_state(self.chains, fresh)

    @invariant()
    def credit_needs_a_transfer(self) -> None:
        if self.deposit.state is S.BOOKED:
            assert self.deposit.credited == 49_000
            assert self.deposit.transfer == TRANSFER


TestDepositLife = DepositLife.TestCase
TestDepositLife.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
