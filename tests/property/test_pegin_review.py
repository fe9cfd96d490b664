"""Review accepts whatever build makes of deposits, and refuses every single-field change of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import replace
from random import Random
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pegin.model import BuiltTransaction
from smpc.errors import BridgeError
from smpc.params import REGTEST
from smpc.protocol.intents import Commission, Credit, Intent, IntentKind, Payment
from smpc.protocol.review import RULES, Stage
from smpc.types import AccountKey, BurnId, FeeRate, IdentityKey, IntentId, Outpoint, Sats, Script, Txid
from tests.support.flow_world import FlowWorld

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

values = st.lists(st.integers(min_value=20_000, max_value=3_000_000), min_size=1, max_size=5)
rates = st.integers(min_value=REGTEST.fee_floor, max_value=REGTEST.fee_default)


ADDED: Final = {
    "payments": (Payment(BurnId(b"\x01" * 32), Sats(20_000), Script(b"\x00\x14" + bytes(20))),),
    "replaces": (IntentId(b"\x01" * 32),),
    "vault_outputs": (Sats(20_000),),
    "commissions": (Commission(IdentityKey(b"\x01" * 32), Sats(20_000), Script(b"\x00\x14" + bytes(20))),),
    "op_return": Script(b"\x6a\x01\x01"),
    "credits": (Credit(Outpoint(Txid(b"\x01" * 32), 0), AccountKey(b"\x01" * 32), Sats(20_000), Sats(20)),),
    "settled": (BurnId(b"\x01" * 32),),
}
"""What a change puts where there was nothing."""


def iter_changes(value: object) -> Iterator[Any]:
    """Yield small and large changes of any field value."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, IntentKind):
        yield from (kind for kind in IntentKind if kind is not value)
    elif isinstance(value, str):
        yield "mainnet"
    elif isinstance(value, int):
        yield from (value + 1, value - 1 if value else 7, 2**64 - 1)
    elif isinstance(value, bytes):
        yield bytes((value[0] ^ 1, *value[1:]))
    elif isinstance(value, tuple):
        yield from _iter_tuple_changes(value)
    else:
        yield from iter_field_changes(value)


def _iter_tuple_changes(items: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    yield items[:-1]
    yield (*items, items[0])
    if items[::-1] != items:
        yield items[::-1]
    for changed in iter_changes(items[0]):
        yield (changed, *items[1:])


def iter_field_changes(record: Any) -> Iterator[Any]:  # noqa: ANN401 - any dataclass
    """Yield the record with exactly one field changed."""
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        for changed in (ADDED[field.name],) if value in {(), b""} else iter_changes(value):
            yield replace(record, **{field.name: changed})


def is_another_honest_proposal(world: FlowWorld, intent: Intent, raw: bytes) -> bool:
    """Tell whether a change is itself what its own choice builds: a fee rate that rounds to the same fee."""
    try:
        built = world.rebuild(intent)
    except BridgeError:
        return False
    return built.intent == intent and built.transaction.to_bytes() == raw


def assert_every_change_is_refused(world: FlowWorld, built: BuiltTransaction, stages: Iterable[Stage]) -> None:
    raw = built.transaction.to_bytes()
    for intent in iter_field_changes(built.intent):
        if is_another_honest_proposal(world, intent, raw):
            continue
        for stage in stages:
            refusal = world.review(stage, intent, raw).refusal()
            assert refusal is not None, intent
            assert refusal.reason in RULES[refusal.rule].reasons
            assert refusal.message


@QUICK
@given(values=values, rate=rates)
def test_review_accepts_what_build_makes(values: list[int], rate: int) -> None:
    world = FlowWorld.opened()
    outpoints = [world.deposit(index, value) for index, value in enumerate(values)]
    built = world.transfer(*outpoints, rate=FeeRate(rate))
    assert world.endorse(built).refusal() is None
    world.record(built)
    assert world.review(Stage.SIGN, built.intent, built.transaction.to_bytes()).refusal() is None


@QUICK
@given(values=values, rate=rates)
def test_what_comes_in_goes_to_the_vault_and_the_miners(values: list[int], rate: int) -> None:
    world = FlowWorld.opened()
    built = world.transfer(*(world.deposit(index, value) for index, value in enumerate(values)), rate=FeeRate(rate))
    intent = built.intent
    assert sum(values) == sum(intent.vault_outputs) + intent.fee
    assert intent.fee == -(-rate * built.vsize // 1000)
    outputs = intent.vault_outputs
    assert len(outputs) == 1 or min(outputs) >= REGTEST.split_vault_output
    assert max(outputs) - min(outputs) <= 1
    assert 1 <= len(outputs) <= REGTEST.vault_outputs


@settings(max_examples=10, deadline=None)
@given(values=values)
def test_every_single_field_change_is_refused(values: list[int]) -> None:
    world = FlowWorld.opened()
    built = world.transfer(*(world.deposit(index, value) for index, value in enumerate(values)))
    assert_every_change_is_refused(world, built, (Stage.ENDORSE,))
    world.record(built)
    assert_every_change_is_refused(world, built, (Stage.SIGN,))


@settings(max_examples=40, deadline=None)
@given(position=st.integers(min_value=0, max_value=10_000), bit=st.integers(min_value=0, max_value=7))
def test_every_flipped_bit_of_the_transaction_is_refused(position: int, bit: int) -> None:
    world = FlowWorld.opened()
    built = world.transfer(world.deposit(1, 300_000))
    raw = bytearray(built.transaction.to_bytes())
    raw[position % len(raw)] ^= 1 << bit
    refusal = world.review(Stage.ENDORSE, built.intent, bytes(raw)).refusal()
    assert refusal is not None
    assert "V10" in refusal.rules


@QUICK
@given(shuffler=st.randoms(use_true_random=False), values=values)
def test_the_order_of_what_is_chosen_changes_nothing(shuffler: Random, values: list[int]) -> None:
    world = FlowWorld.opened()
    outpoints: list[Outpoint] = [world.deposit(index, value) for index, value in enumerate(values)]
    first = world.transfer(*outpoints)
    shuffler.shuffle(outpoints)
    assert world.transfer(*outpoints) == first
    assert first.intent.txid == Txid(first.transaction.txid)
