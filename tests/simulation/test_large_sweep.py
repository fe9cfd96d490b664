"""More outputs than one transaction can spend, at full size: real builders, reviewers and signers (case E6)."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from typing import Final

import pytest

from pegin.build import build_transfer
from pegin.model import BuiltTransaction
from smpc.bitcoin.fees import MAX_STANDARD_WEIGHT
from smpc.bitcoin.transaction import parse_transaction
from smpc.params import REGTEST
from smpc.protocol.intents import IntentChoice, IntentInput, IntentKind
from smpc.protocol.ledger_state import EpochState, IntentStatus
from smpc.protocol.records import Record
from smpc.types import EpochNumber, Outpoint, Role, Sats, Signature
from tests.support.flow_world import RATE
from tests.support.groups import EPOCH, KeyedGroup, endorse, sign_with_child
from tests.support.turning_world import TurningWorld, turning
from tests.support.world_parts import Issued

TRANSFERS: Final = 255
"""Each makes two vault outputs."""

VALUE: Final = Sats(400_000)
AT_ONCE: Final = 50


@pytest.mark.slow
@turning
async def test_510_outputs_are_swept_in_two_standard_transactions_of_500_and_10(world: TurningWorld) -> None:
    await fill(world)
    assert sum(entry.epoch == EPOCH for entry in world.ledger.vault.values()) == 2 * TRANSFERS == 510
    began, before = time.process_time(), read_peak_megabytes()
    await world.start()
    await world.until(lambda: world.active == 1)
    world.mine(REGTEST.confirmations)
    await world.until(lambda: not world.find_value(0), mine_every=12)
    print(f"{time.process_time() - began:.1f} s, {read_peak_megabytes() - before} MB more at the peak")  # noqa: T201
    sweeps = world.list_sweeps()
    assert sorted(len(entry.intent.inputs) for entry in sweeps) == [10, REGTEST.max_batch_inputs]
    assert {entry.status for entry in sweeps} == {IntentStatus.BOOKED}
    for entry in sweeps:
        transaction = parse_transaction(world.bitcoin.sent[entry.intent.txid])
        assert transaction.weight <= MAX_STANDARD_WEIGHT
        assert len(entry.intent.vault_outputs) == REGTEST.vault_outputs
    assert read_peak_megabytes() - before < 300
    await world.until(lambda: world.ledger.epochs[EpochNumber(0)].state is EpochState.PARKED, mine_every=12)


async def fill(world: TurningWorld) -> None:
    """Give epoch 0 its outputs while no coordinator is there, by one transfer for each deposit."""
    await world.kill()
    world.attestors.is_keying = False
    issued: list[Issued] = []
    for start in range(0, TRANSFERS, AT_ONCE):
        issued += await world.issue(*[VALUE] * min(AT_ONCE, TRANSFERS - start))
    deposits = [(invoice, world.pay(invoice, VALUE)) for invoice in issued]
    world.mine(REGTEST.confirmations)
    transfers = [build(world, invoice, outpoint) for invoice, outpoint in deposits]
    keyed, height = world.find_secrets(0), world.consensus.ledger.height
    await record(world, [endorse(keyed, built.intent, height) for built in transfers])
    for built in transfers:
        signed = built.complete(*(sign_all(keyed.groups[role], built) for role in (Role.VALIDATOR, Role.WITNESS)))
        await world.bitcoin.broadcast(signed.to_bytes())
    world.mine(REGTEST.confirmations)
    bookings = [world.consensus.ledger.compute_booking(built.intent.intent_id) for built in transfers]
    world.attestors.keyed[EPOCH] = keyed
    await record(world, [world.attestors.sign_booking(booking) for booking in bookings])
    await world.until(lambda: len(world.ledger.bookings) == TRANSFERS)
    world.attestors.is_keying = True


def build(world: TurningWorld, invoice: Issued, outpoint: Outpoint) -> BuiltTransaction:
    choice = IntentChoice(IntentKind.TRANSFER, EPOCH, EPOCH, (outpoint,), (), RATE, ())
    return build_transfer(world.ledger, choice, [IntentInput(outpoint, VALUE, invoice.terms.index)])


def sign_all(group: KeyedGroup, built: BuiltTransaction) -> tuple[Signature, ...]:
    pairs = zip(built.spends, built.compute_digests(), strict=True)
    return tuple(sign_with_child(group, spend.item.child, digest) for spend, digest in pairs)


async def record(world: TurningWorld, records: Sequence[Record]) -> None:
    for start in range(0, len(records), AT_ONCE):
        await world.advance(1, *records[start : start + AT_ONCE])


def read_peak_megabytes() -> int:
    """Return the most memory this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
