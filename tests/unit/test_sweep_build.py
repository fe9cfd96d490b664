"""How a sweep is built: which outputs, in which order, for what money; and what cannot be built."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pegin.vault import EpochKeys, find_vault_scripts
from smpc.bitcoin.fees import MAX_STANDARD_WEIGHT, VAULT_TRANSFER, compute_spend_weight, find_nonstandard_reason
from smpc.bitcoin.script import MAX_OP_RETURN_DATA, OutputType, find_output_type
from smpc.bitcoin.taproot import Timelocks
from smpc.errors import InvalidInput, NotFound
from smpc.params import REGTEST
from smpc.participant.spending import rebuild
from smpc.protocol.intents import Commission, IntentKind
from smpc.protocol.notarisation import OP_RETURN_SHAPE, find_notarisation
from smpc.types import BurnId, EpochNumber, FeeRate, IdentityKey, Outpoint, Role, Sats, Script, Txid
from sweep.build import build_due, build_sweep
from sweep.model import compute_room
from tests.support.groups import EPOCH
from tests.support.sweep_world import RICH, SweepWorld, sum_commission


@pytest.fixture
def world() -> SweepWorld:
    """Give a retiring epoch 0 with four outputs and an active epoch 1."""
    return SweepWorld.retiring(1_000_000, 300_000)


def test_a_sweep_moves_everything_to_the_active_epochs_vault(world: SweepWorld) -> None:
    built = world.sweep()
    assert built.intent.outpoints == frozenset(world.ledger.vault)
    scripts = find_vault_scripts(REGTEST, EpochKeys.from_entry(world.ledger.epochs[EpochNumber(1)]))
    assert tuple(txout.script for txout in built.transaction.outputs[:2]) == scripts
    assert sum(built.intent.vault_outputs) + built.intent.fee == world.ledger.vault_total


def test_a_sweep_spreads_its_value_over_k_outputs_whatever_they_cost(world: SweepWorld) -> None:
    assert len(world.sweep().intent.vault_outputs) == REGTEST.vault_outputs


def test_small_value_goes_to_one_output() -> None:
    built = SweepWorld.retiring(150_000).sweep()
    assert len(built.intent.vault_outputs) == 1


def test_one_op_return_notarises_what_the_ledger_keeps_as_anchor(world: SweepWorld) -> None:
    built = world.sweep()
    last = built.transaction.outputs[-1]
    kinds = [find_output_type(txout.script) for txout in built.transaction.outputs]
    assert kinds.count(OutputType.OP_RETURN) == 1
    assert last.value == 0
    assert len(last.script) - 2 <= MAX_OP_RETURN_DATA
    found = find_notarisation(last.script)
    anchor = world.ledger.anchors[world.target]
    assert found is not None
    assert (found.epoch, found.block_hash, found.state_root) == (EPOCH, anchor.block_hash, anchor.state_root)


def test_burns_are_carried_along_and_commission_is_paid() -> None:
    world = SweepWorld.retiring(RICH)
    burns = (world.burn(100_000), world.burn(50_000))
    built = world.sweep(burns=burns)
    intent, outputs = built.intent, built.transaction.outputs
    assert [payment.burn for payment in intent.payments] == sorted(burns)
    assert intent.commissions == world.ledger.find_due_commission(EPOCH)
    assert len(intent.commissions) == 3 * REGTEST.group_size
    assert [txout.value for txout in outputs[2:4]] == [payment.amount for payment in intent.payments]
    assert [txout.script for txout in outputs[4:-1]] == [item.script for item in intent.commissions]
    paid = sum(payment.amount for payment in intent.payments) + sum_commission(built)
    assert sum(txout.value for txout in outputs) + intent.fee == world.ledger.vault_total
    assert sum(intent.vault_outputs) + paid + intent.fee == world.ledger.vault_total


def test_the_fee_is_exact_and_the_transaction_is_relayed(world: SweepWorld) -> None:
    built = world.sweep(burns=(world.burn(50_000),))
    assert built.intent.fee == -(-built.intent.fee_rate * built.vsize // 1000)
    signed = built.complete(world.sign(built, Role.VALIDATOR), world.sign(built, Role.WITNESS))
    assert signed.vsize == built.vsize
    assert find_nonstandard_reason(signed) is None


def test_everyone_builds_the_same_bytes_from_the_recorded_intent(world: SweepWorld) -> None:
    built = world.record(world.sweep())
    entry = world.ledger.intents[built.intent.intent_id]
    assert rebuild(world.ledger, entry.intent.choice, entry.intent.inputs) == built
    choice = replace(built.intent.choice, outpoints=built.intent.choice.outpoints[::-1])
    assert build_sweep(world.ledger, choice, built.intent.inputs) == built


def test_both_groups_of_the_retiring_epoch_sign_it(world: SweepWorld) -> None:
    built = world.sweep()
    world.chain.epoch = world.turning.keyed[EPOCH]
    for role in (Role.VALIDATOR, Role.WITNESS):
        assert built.find_bad_signatures(role, world.sign(built, role)) == ()


# ------------------------------------------------------------------ what cannot be built


def test_refuses_what_is_no_sweep(world: SweepWorld) -> None:
    choice = world.choose()
    with pytest.raises(InvalidInput, match="sweep's choice"):
        world.build(replace(choice, kind=IntentKind.PAYOUT))
    with pytest.raises(InvalidInput, match="another epoch"):
        world.build(replace(choice, target_epoch=EPOCH))
    with pytest.raises(InvalidInput, match="1 to 500"):
        world.build(replace(choice, outpoints=()))


def test_refuses_a_notarisation_that_is_none(world: SweepWorld) -> None:
    for script in (b"", b"\x6a\x04KAON", OP_RETURN_SHAPE, OP_RETURN_SHAPE[:-1]):
        with pytest.raises(InvalidInput, match="OP_RETURN"):
            world.build(replace(world.choose(), op_return=Script(script)))


def test_refuses_unknown_parts(world: SweepWorld) -> None:
    stranger = Outpoint(Txid(b"\x07" * 32), 0)
    with pytest.raises(NotFound):
        build_sweep(world.ledger, world.choose(outpoints=(stranger,)), ())
    with pytest.raises(NotFound):
        world.build(world.choose(burns=(BurnId(bytes(32)),)))
    with pytest.raises(NotFound):
        world.build(replace(world.choose(), target_epoch=EpochNumber(9)))


def test_no_transfer_and_no_payout_pays_commission_or_notarises() -> None:
    world = SweepWorld.filled(1_000_000)
    commission = Commission(IdentityKey(bytes(32)), Sats(20_000), Script(b"\x00\x14" + bytes(20)))
    payout = world.payout(tuple(world.ledger.vault)[:1], (world.burn(50_000),)).intent
    transfer = world.transfer(world.deposit(7, 50_000)).intent
    for intent in (payout, transfer):
        for choice in (
            replace(intent.choice, commissions=(commission,)),
            replace(intent.choice, op_return=OP_RETURN_SHAPE),
        ):
            with pytest.raises(InvalidInput, match="commission"):
                rebuild(world.ledger, choice, intent.inputs)


def find_least_rate(world: SweepWorld, outpoint: Outpoint) -> FeeRate:
    """Return the rate at which a sweep of one output leaves exactly the least vault output."""
    spare = world.outputs[outpoint].value - REGTEST.min_vault_output
    vsize = world.build(world.choose(outpoints=(outpoint,))).vsize
    return FeeRate(spare * 1000 // vsize)


def test_what_leaves_less_than_a_vault_output_stays_and_is_no_fee() -> None:
    world = SweepWorld.retiring(20_000, 1_000_000)
    small = min(world.ledger.vault.values(), key=lambda entry: entry.value).outpoint
    rate = find_least_rate(world, small)
    built = world.build(world.choose(outpoints=(small,), rate=rate))
    (value,) = built.intent.vault_outputs
    assert 0 <= value - REGTEST.min_vault_output < 10
    with pytest.raises(InvalidInput, match="less than 10000 sat"):
        world.build(world.choose(outpoints=(small,), rate=FeeRate(rate + 50)))


def test_a_sweep_without_room_for_the_commission_carries_none() -> None:
    """The ledger takes both: what is due where it fits, and none where no whole vault output would be left."""
    world = SweepWorld.retiring(RICH, 60_000)
    small = min(world.ledger.vault.values(), key=lambda entry: entry.value).outpoint
    poor = build_due(world.ledger, world.choose(outpoints=(small,)), [world.coin(small)])
    assert poor.intent.commissions == ()
    rich = world.choose()
    whole = build_due(world.ledger, rich, [world.coin(outpoint) for outpoint in rich.outpoints])
    assert whole.intent.commissions == world.ledger.find_due_commission(EPOCH) != ()


def test_one_transaction_has_room_for_500_inputs_or_its_standard_weight() -> None:
    assert compute_room(REGTEST, (OP_RETURN_SHAPE,)) == 500
    wide = replace(REGTEST, max_batch_inputs=2_000)
    room = compute_room(wide, (OP_RETURN_SHAPE,))
    outputs = [Script(bytes(34))] * wide.vault_outputs + [OP_RETURN_SHAPE]
    locks = Timelocks.from_params(wide)
    assert compute_spend_weight([VAULT_TRANSFER] * room, outputs, locks) <= MAX_STANDARD_WEIGHT
    assert compute_spend_weight([VAULT_TRANSFER] * (room + 1), outputs, locks) > MAX_STANDARD_WEIGHT
