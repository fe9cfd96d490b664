"""A consensus chain whose epochs turn: heartbeats, checkpoint votes, ceremonies for every epoch, sweeps."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Final, Self

from smpc.curve import SecretKey, compute_xonly_key
from smpc.params import REGTEST, Params
from smpc.protocol.attestations import CheckpointVote, Heartbeat
from smpc.protocol.checkpoints import CHECKPOINT_BLOCKS
from smpc.protocol.intents import Booking, Commission, Intent, IntentInput, IntentKind, Payment
from smpc.protocol.ledger_events import LedgerEvent
from smpc.protocol.ledger_state import EpochEntry, EpochState
from smpc.protocol.records import BookingRecorded, Genesis, Record
from smpc.types import (
    Attempt,
    BlockHash,
    BtcHeight,
    BurnId,
    ChildIndex,
    EpochNumber,
    FeeRate,
    Finality,
    IdentityKey,
    IntentId,
    KaonHeight,
    Network,
    Outpoint,
    Role,
    Sats,
    Script,
)
from tests.support.chain import UNSIGNED, LedgerChain, deposit_outpoint, make_intent
from tests.support.groups import (
    CROWD,
    VALIDATORS,
    KeyedEpoch,
    build_genesis,
    build_keyed_epoch,
    endorse,
    key_epoch,
    make_secret,
    sign,
    sign_with_group,
)

BTC_START: Final = BtcHeight(200)


@functools.cache
def build_turning_genesis() -> Genesis:
    """Return the genesis of `build_genesis()` with checkpoints."""
    return replace(build_genesis(), finality=Finality.CHECKPOINTS)


@functools.cache
def list_secrets(count: int = VALIDATORS) -> tuple[SecretKey, ...]:
    """Return every validator's identity secret, by number."""
    return tuple(make_secret("identity", number) for number in range(count))


@functools.cache
def list_identities(count: int = VALIDATORS) -> tuple[IdentityKey, ...]:
    """Return every validator's identity key, by number."""
    return tuple(IdentityKey(compute_xonly_key(secret)) for secret in list_secrets(count))


@functools.cache
def run_ceremonies(
    epoch: EpochNumber, members: tuple[tuple[Role, tuple[IdentityKey, ...]], ...], draw: int, attempt: Attempt
) -> KeyedEpoch:
    """Key an epoch of the turning genesis, once per process."""
    return key_epoch(build_turning_genesis(), epoch, members, draw=draw, attempt=attempt)


class TurningChain(LedgerChain):
    """A ledger whose validators beat and vote, with the secrets of every epoch announced so far."""

    def __init__(self, params: Params = REGTEST, genesis: Genesis | None = None) -> None:
        base = replace(build_keyed_epoch(), genesis=genesis or build_turning_genesis())
        super().__init__(base, params)
        self.keyed: dict[EpochNumber, KeyedEpoch] = {}
        self.btc_height = BTC_START

    @classmethod
    def started(cls, params: Params = REGTEST, genesis: Genesis | None = None) -> Self:
        """Return a chain whose epoch 0 is active, with heartbeats at `BTC_START`."""
        chain = cls(params, genesis)
        chain.add()
        chain.announce()
        chain.add(*chain.keyed[EpochNumber(0)].records[1:], *chain.keyed[EpochNumber(1)].records[1:])
        chain.add()
        chain.pulse()
        return chain

    # -------------------------------------------------------------- epochs

    def entry(self, epoch: int) -> EpochEntry:
        """Return an epoch of the ledger."""
        return self.ledger.epochs[EpochNumber(epoch)]

    def state(self, epoch: int) -> EpochState:
        """Return an epoch's state."""
        return self.entry(epoch).state

    def announce(self) -> None:
        """Announce every epoch that is due, one block each, as the proposer does."""
        while self.ledger.due:
            number, due = next(iter(self.ledger.due.items()))
            keyed = run_ceremonies(number, due.members, due.origin.draw, due.origin.first_attempt)
            self.keyed[number] = keyed
            self.add(keyed.announced)

    def key(self, epoch: int) -> None:
        """Record everything that brings an announced epoch to standby."""
        self.add(*self.keyed[EpochNumber(epoch)].records[1:])

    def turn(self) -> EpochNumber:
        """Key what is announced and go on until the next epoch is active; which one."""
        before = self.ledger.active_epoch
        self.announce()
        for number in list(self.ledger.epochs):
            if self.state(number) is EpochState.ANNOUNCED:
                self.key(number)
        while self.ledger.active_epoch == before:
            self.add()
        active = self.ledger.active_epoch
        assert active is not None
        self.pulse()
        return active

    def add(self, *records: Record) -> tuple[LedgerEvent, ...]:
        """Apply the next block; the epoch of this chain's usual records is the active one."""
        events = super().add(*records)
        if self.ledger.active_epoch is not None:
            self.epoch = self.keyed[self.ledger.active_epoch]
        return events

    # -------------------------------------------------------------- what validators attest

    def make_heartbeat(
        self, validator: int, btc_height: int | None = None, fee_rate: int = 0, kaon_height: int | None = None
    ) -> Heartbeat:
        """Return a validator's signed heartbeat as of the tip."""
        at = self.ledger.height if kaon_height is None else kaon_height
        record = Heartbeat(
            network=Network.REGTEST,
            identity=list_identities(CROWD)[validator],
            kaon_height=KaonHeight(at),
            btc_height=BtcHeight(self.btc_height if btc_height is None else btc_height),
            btc_hash=BlockHash(bytes(32)),
            btc_time=1_700_000_000,
            fee_rate=FeeRate(fee_rate),
            signature=UNSIGNED,
        )
        return replace(record, signature=sign(list_secrets(CROWD)[validator], record.digest))

    def pulse(
        self, btc_height: int | None = None, *, fee_rate: int = 0, validators: Iterable[int] | None = None
    ) -> None:
        """Let validators send the heartbeats they may send now; the block after takes the new medians."""
        self.btc_height = self.btc_height if btc_height is None else BtcHeight(btc_height)
        every = self.ledger.params.heartbeat_blocks
        last = max((entry.heartbeat.kaon_height for entry in self.ledger.heartbeats.values()), default=-every)
        while self.ledger.height // every <= last // every:
            self.add()
        chosen = range(VALIDATORS) if validators is None else validators
        self.add(*(self.make_heartbeat(validator, fee_rate=fee_rate) for validator in chosen))
        self.add()

    def make_vote(self, validator: int, height: int) -> CheckpointVote:
        """Return a validator's signed vote for a checkpoint of this chain."""
        block = self.blocks[height - 1]
        record = CheckpointVote(
            Network.REGTEST, KaonHeight(height), block.block_hash, list_identities(CROWD)[validator], UNSIGNED
        )
        return replace(record, signature=sign(list_secrets(CROWD)[validator], record.digest))

    def vote(self, height: int, validators: Collection[int] | None = None) -> None:
        """Let validators sign a checkpoint: the first eleven who are not jailed; of sixteen more than two thirds."""
        free = [number for number, key in enumerate(list_identities()) if key in self.ledger.stakes]
        self.add(
            *(self.make_vote(validator, height) for validator in (free[:11] if validators is None else validators))
        )

    def finalise(self) -> int:
        """Bring two checkpoints and their votes; the first of them is final then."""
        while self.ledger.height % CHECKPOINT_BLOCKS:
            self.add()
        first = self.ledger.height
        self.skip(CHECKPOINT_BLOCKS)
        self.vote(first)
        self.vote(first + CHECKPOINT_BLOCKS)
        return first

    def finalise_to(self, height: int, *, silent: Collection[int] = ()) -> None:
        """Go on until a block is final; every validator beats in every span on the way, but for the silent ones."""
        beating = [number for number in range(VALIDATORS) if number not in silent]
        while self.ledger.final_height < height:
            self.pulse(validators=beating)
            self.finalise()

    def wait_acting(self, since: int, blocks: int, *, silent: Collection[int] = ()) -> None:
        """Go on as `finalise_to` until `blocks` final blocks passed since one, and all could act on it in as many."""
        self.finalise_to(since + blocks, silent=silent)
        beating = [number for number in range(VALIDATORS) if number not in silent]
        while self.ledger.count_acting(KaonHeight(since)) < blocks:
            self.pulse(validators=beating)
            self.finalise()

    def wait_almost(self, since: int, blocks: int) -> None:
        """Go on until all could act on what stands in a block in one block less than `blocks`."""
        while self.ledger.count_acting(KaonHeight(since)) < blocks - 14:
            self.pulse()
            self.finalise()
        while self.ledger.count_acting(KaonHeight(since)) < blocks - 1:
            self.add()

    # -------------------------------------------------------------- flows across epochs

    def record(self, intent: Intent) -> IntentId:
        """Record an intent endorsed by the groups of its own epoch."""
        self.add(endorse(self.keyed[intent.epoch], intent, self.ledger.height))
        return intent.intent_id

    def sign_booking(self, booking: Booking) -> BookingRecorded:
        """Return a booking under both group keys of the epoch it names."""
        groups = self.keyed[booking.epoch].groups
        return BookingRecorded(
            booking,
            sign_with_group(groups[Role.VALIDATOR], booking.digest),
            sign_with_group(groups[Role.WITNESS], booking.digest),
        )

    def make_transfer_of(self, epoch: int, deposits: Sequence[tuple[int, int]], *, fee: int = 2_000) -> Intent:
        """Return a transfer of deposits to an epoch's invoices, as (index, value), into the active epoch's vault."""
        inputs = tuple(IntentInput(deposit_outpoint(i), Sats(value), ChildIndex(i)) for i, value in deposits)
        source, target = EpochNumber(epoch), self.epoch.number
        return make_intent(IntentKind.TRANSFER, inputs, (), fee=fee, outputs=1, epoch=source, target=target)

    def fund_active(self, user: str, value: int, index: int) -> None:
        """Peg `value` sat in for a user: invoice, transfer and booking of the active epoch."""
        record = self.make_invoices(self.make_terms(index, user=user), request_id=b"fund %d" % index)
        self.add(record)
        self.book(self.record(self.make_transfer_of(self.epoch.number, [(index, value)])))

    def make_sweep(
        self,
        epoch: int,
        *,
        fee: int = 2_000,
        outputs: int = 1,
        burns: Sequence[BurnId] = (),
        commissions: tuple[Commission, ...] | None = None,
        op_return: Script | None = None,
        outpoints: Sequence[Outpoint] | None = None,
        replaces: tuple[IntentId, ...] = (),
    ) -> Intent:
        """Return the sweep of an epoch's free vault outputs; every part may be said otherwise."""
        ledger, source, target = self.ledger, EpochNumber(epoch), self.epoch.number
        chosen = [item.outpoint for item in ledger.list_free_outputs(source)] if outpoints is None else outpoints
        booked = [ledger.vault[outpoint] for outpoint in chosen]
        requests = [ledger.burns[burn].request for burn in burns]
        notarised = ledger.find_op_return(source, target)
        assert notarised is not None
        return make_intent(
            IntentKind.SWEEP,
            tuple(IntentInput(item.outpoint, item.value, item.child) for item in booked),
            tuple(Payment(item.burn_id, item.payout, item.script) for item in requests),
            fee=fee,
            outputs=outputs,
            replaces=replaces,
            epoch=source,
            target=target,
            commissions=ledger.find_due_commission(source, replaces) if commissions is None else commissions,
            op_return=notarised if op_return is None else op_return,
        )
