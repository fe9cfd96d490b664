"""Every record is what its signers signed: no changed byte makes the ledger take something else."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smpc.errors import Conflict, InvalidInput, Refused
from smpc.protocol.codec import decode_variant, encode_variant
from smpc.protocol.end_records import ChallengeRaised
from smpc.protocol.intents import IntentInput, IntentKind
from smpc.protocol.records import RESERVE_ACCOUNT, Record
from smpc.types import ChildIndex, Network, Role, Sats, Signature, Txid
from tests.support.chain import LedgerChain, deposit_outpoint, make_intent
from tests.support.faulty_ceremony import open_session
from tests.support.groups import endorse, make_account, sign
from tests.support.lineage import SPENDER, build_lineage
from tests.support.turning_chain import TurningChain

Case = tuple[LedgerChain, Record]


def announced() -> LedgerChain:
    chain = LedgerChain()
    chain.add(chain.epoch.announced)
    return chain


def host_key() -> Case:
    chain = announced()
    return chain, chain.epoch.host_keys[0]


def preimage() -> Case:
    chain = announced()
    return chain, chain.epoch.confirmed[0]


def group_key() -> Case:
    chain = announced()
    chain.add(*chain.epoch.host_keys)
    return chain, chain.epoch.keyed[0]


def keying() -> LedgerChain:
    chain = announced()
    chain.add(*chain.epoch.host_keys)
    return chain


def wrong_share() -> Case:
    chain = keying()
    return chain, open_session(chain.epoch).accuse_share(2, 0)


def wrong_certificate() -> Case:
    chain = keying()
    return chain, open_session(chain.epoch).accuse_certificate(1)


def wrong_first_message() -> Case:
    chain = keying()
    return chain, open_session(chain.epoch).accuse_first(3, lambda message: message[:-1])


def invoices() -> Case:
    chain = LedgerChain.activated()
    return chain, chain.make_invoices(chain.make_terms(1), chain.make_terms(2))


def intent() -> Case:
    chain, record = invoices()
    chain.add(record)
    return chain, endorse(chain.epoch, chain.make_transfer([(1, 1_000_000)], outputs=2), chain.ledger.height)


def with_intent() -> LedgerChain:
    chain, record = intent()
    chain.add(record)
    return chain


def booking() -> Case:
    chain = with_intent()
    (intent_id,) = chain.ledger.intents
    return chain, chain.sign_booking(chain.ledger.compute_booking(intent_id))


def withdrawal() -> Case:
    chain = with_intent()
    (intent_id,) = chain.ledger.intents
    return chain, chain.make_withdrawal(intent_id)


def death() -> Case:
    chain = with_intent()
    (intent_id,) = chain.ledger.intents
    return chain, chain.make_death(intent_id, deposit_outpoint(1), Txid(b"\x03" * 32))


def ancestor_death() -> Case:
    chain, lineage = LedgerChain.activated(), build_lineage(2)
    chain.add(chain.make_invoices(chain.make_terms(1)))
    inputs = (IntentInput(lineage.created, Sats(1_000_000), ChildIndex(1)),)
    intent_id = chain.record(make_intent(IntentKind.TRANSFER, inputs, (), fee=2_000, outputs=1))
    return chain, chain.make_death(intent_id, lineage.taken, SPENDER, lineage.path)


def challenge() -> Case:
    chain = with_intent()
    (intent_id,) = chain.ledger.intents
    identity = chain.epoch.groups[Role.VALIDATOR].info.members[0]
    record = ChallengeRaised(Network.REGTEST, intent_id, identity, "V18", "note", Signature(bytes(64)))
    return chain, replace(record, signature=sign(chain.epoch.identities[identity], record.digest))


def funded() -> LedgerChain:
    chain = LedgerChain.activated()
    chain.fund("alice", 1_000_000, 1)
    return chain


def send() -> Case:
    chain = funded()
    return chain, chain.make_send("alice", make_account("bob")[1], 77)


def burn() -> Case:
    chain = funded()
    return chain, chain.make_burn("alice", 50_000)


def cancel() -> Case:
    chain = funded()
    return chain, chain.make_cancel("alice", chain.burn("alice", 50_000))


def raise_limit() -> Case:
    chain = funded()
    return chain, chain.make_raise("alice", chain.burn("alice", 50_000), 600)


def heartbeat() -> Case:
    chain = TurningChain.started()
    chain.skip(8)
    return chain, chain.make_heartbeat(3, fee_rate=5_000)


def vote() -> Case:
    chain = TurningChain.started()
    return chain, chain.make_vote(3, 4)


def sweep() -> Case:
    chain = TurningChain.started()
    chain.fund_active("alice", 5_000_000, 1)
    chain.add(chain.make_send("alice", RESERVE_ACCOUNT, 2_000_000))
    chain.turn()
    intent = chain.make_sweep(0)
    assert intent.commissions
    return chain, endorse(chain.keyed[intent.epoch], intent, chain.ledger.height)


CASES: tuple[Callable[[], Case], ...] = (
    host_key,
    preimage,
    group_key,
    wrong_share,
    wrong_certificate,
    wrong_first_message,
    invoices,
    intent,
    booking,
    withdrawal,
    death,
    ancestor_death,
    challenge,
    send,
    burn,
    cancel,
    raise_limit,
    heartbeat,
    vote,
    sweep,
)


@functools.cache
def prepared(make: Callable[[], Case]) -> Case:
    return make()


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_changed_byte_makes_the_ledger_take_something_else(make: Callable[[], Case], data: st.DataObject) -> None:
    chain, record = prepared(make)
    changed = bytearray(encode_variant(record))
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        chain.ledger.check_record(decode_variant(Record, bytes(changed)))
    except (Refused, InvalidInput, Conflict):
        return
    pytest.fail(f"the ledger takes {changed.hex()}")


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_the_unchanged_record_is_taken(make: Callable[[], Case]) -> None:
    chain, record = prepared(make)
    chain.ledger.check_record(record)


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_no_record_is_taken_on_another_network(make: Callable[[], Case]) -> None:
    chain, record = prepared(make)
    data = encode_variant(record)
    foreign = data.replace(b"\x00\x00\x00\x07regtest", b"\x00\x00\x00\x07mainnet")
    assert foreign != data
    with pytest.raises((Refused, InvalidInput, Conflict)):
        chain.ledger.check_record(decode_variant(Record, foreign))
