"""The ledger rebuilds an intent's transaction from the record alone; what differs from its txid is void (V10)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pegin.model import BuiltTransaction
from slashing.recovery.build import build_recovery
from smpc.errors import InvalidInput
from smpc.params import REGTEST
from smpc.protocol.end_records import ChallengeRaised
from smpc.protocol.intent_transaction import build_intent_transaction
from smpc.protocol.intents import Commission, Intent, IntentChoice, IntentKind
from smpc.protocol.ledger_challenges import find_broken_rule
from smpc.protocol.ledger_state import IntentStatus
from smpc.types import EpochNumber, IdentityKey, IntentId, Network, Sats, Script, Signature, Txid
from tests.support.armed_world import ArmedWorld
from tests.support.chain import destination
from tests.support.flow_world import RATE
from tests.support.groups import EPOCH, endorse, sign
from tests.support.sweep_world import RICH, SweepWorld
from tests.support.turning_chain import list_identities, list_secrets

ONE = EpochNumber(1)


def rebuild(world: SweepWorld, built: BuiltTransaction) -> bytes:
    intent = built.intent
    return build_intent_transaction(REGTEST, world.ledger.epochs[intent.target_epoch], intent).to_bytes()


def test_it_agrees_with_the_builders_of_transfers_payouts_sweeps_and_recoveries() -> None:
    world = ArmedWorld.filled(RICH, 600_000)
    transfer = world.transfer(world.deposit(2, 90_000), world.deposit(3, 70_000))
    burn = world.burn(100_000, script=destination("bob"))
    outpoints = tuple(sorted(world.ledger.vault))
    payout = world.payout(outpoints[:2], (burn,))
    world.turn()
    sweep = world.sweep(burns=[burn])
    choice = IntentChoice(IntentKind.RECOVERY, EPOCH, ONE, outpoints, (), RATE, ())
    recovery = build_recovery(world.ledger, choice, [world.coin(outpoint) for outpoint in outpoints])
    for built in (transfer, payout, sweep, recovery):
        assert rebuild(world, built) == built.transaction.to_bytes()
    assert sweep.intent.commissions
    assert {built.intent.kind for built in (transfer, payout, sweep, recovery)} == set(IntentKind)


def test_every_part_of_the_content_is_in_the_transaction() -> None:
    world = ArmedWorld.retiring(RICH)
    burn = world.burn(100_000, script=destination("bob"))
    intent = world.sweep(burns=[burn]).intent
    target = world.ledger.epochs[ONE]
    (payment,), first = intent.payments, intent.inputs[0]
    changed = [
        replace(intent, inputs=intent.inputs[1:]),
        replace(intent, inputs=(replace(first, outpoint=replace(first.outpoint, vout=9)), *intent.inputs[1:])),
        replace(intent, payments=()),
        replace(intent, payments=(replace(payment, amount=Sats(payment.amount + 1)),)),
        replace(intent, payments=(replace(payment, script=destination("eve")),)),
        replace(intent, vault_outputs=(Sats(intent.vault_outputs[0] - 1), *intent.vault_outputs[1:])),
        replace(intent, vault_outputs=intent.vault_outputs[1:]),
        replace(intent, commissions=()),
        replace(intent, op_return=Script(b"")),
        replace(intent, kind=IntentKind.RECOVERY),
    ]
    for other in changed:
        assert build_intent_transaction(REGTEST, target, other).txid != intent.txid
    with pytest.raises(InvalidInput):
        build_intent_transaction(REGTEST, world.ledger.epochs[EpochNumber(0)], intent)
    with pytest.raises(InvalidInput):
        build_intent_transaction(REGTEST, target, replace(intent, vault_outputs=(Sats(20_000),) * 9))
    for vout, is_possible in ((2**32 - 1, True), (2**32, False)):
        far = replace(intent, inputs=(replace(first, outpoint=replace(first.outpoint, vout=vout)),))
        if is_possible:
            assert build_intent_transaction(REGTEST, target, far).txid != intent.txid
        else:
            with pytest.raises(InvalidInput):
                build_intent_transaction(REGTEST, target, far)


def challenge(intent: IntentId, by: int = 0, rule: str = "V10") -> ChallengeRaised:
    record = ChallengeRaised(
        Network.REGTEST, intent, IdentityKey(list_identities()[by]), rule, "odd", Signature(bytes(64))
    )
    return replace(record, signature=sign(list_secrets()[by], record.digest))


def record_with(world: ArmedWorld, intent: Intent) -> IntentId:
    """Record an intent with both groups' endorsements, without waiting."""
    world.chain.add(*world.armed.list_armings(intent))
    world.chain.add(endorse(world.chain.epoch, intent, world.ledger.height))
    return intent.intent_id


@pytest.mark.parametrize("is_own", [True, False])
def test_a_challenge_voids_an_intent_with_another_txid_than_its_own(is_own: bool) -> None:
    world = ArmedWorld.filled(500_000)
    intent = world.transfer(world.deposit(1, 90_000)).intent
    if not is_own:
        intent = replace(intent, txid=Txid(bytes(31) + b"\x01"))
    key = record_with(world, intent)
    world.chain.add(challenge(key))
    entry = world.ledger.intents[key]
    assert entry.status is (IntentStatus.LIVE if is_own else IntentStatus.VOID)
    assert entry.challenge == ("" if is_own else "V10")


def test_a_chain_without_armings_goes_on_as_before() -> None:
    world = SweepWorld.filled(500_000)
    intent = replace(world.transfer(world.deposit(1, 90_000)).intent, txid=Txid(bytes(31) + b"\x01"))
    tables = world.ledger._tables  # noqa: SLF001 - only a test may
    assert find_broken_rule(tables, intent) == ""


def test_an_honest_commission_is_part_of_it() -> None:
    world = ArmedWorld.retiring(RICH)
    intent = world.sweep().intent
    more = (*intent.commissions, Commission(list_identities()[0], Sats(5_000), destination("eve")))
    target = world.ledger.epochs[ONE]
    assert build_intent_transaction(REGTEST, target, replace(intent, commissions=more)).txid != intent.txid


# ------------------------------------------------------------------------------------------ notes


@pytest.mark.parametrize(("count", "is_contested"), [(1, False), (5, False), (6, True)])
def test_more_than_a_third_of_the_stake_contests_an_intent(count: int, is_contested: bool) -> None:
    """Sixteen validators of equal stake: five are less than a third."""
    world = ArmedWorld.filled(500_000)
    key = record_with(world, world.transfer(world.deposit(1, 90_000)).intent)
    world.chain.add(*(challenge(key, by, "V14") for by in range(count)))
    assert world.ledger.intents[key].status is IntentStatus.LIVE
    assert world.ledger.is_contested(key) is is_contested
