"""A whole Validator group vanishes: its outputs move by emergencies, and no user notices (design.md section 6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from coordinator.outlook import Outlook
from coordinator.views import find_halt
from coordinator.waiting import describe_judged
from pegin.lifecycle import DepositState
from smpc.bitcoin.fees import assemble_witness
from smpc.bitcoin.script import Leaf
from smpc.bitcoin.sighash import precompute_sighash
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.params import REGTEST
from smpc.participant.mailroom import refuse
from smpc.protocol.emergency import build_output_tree
from smpc.protocol.ledger_state import IntentStatus
from smpc.types import EpochNumber, IdentityKey, Outpoint, Role, Sats
from tests.support.armed_world import build_armed_genesis
from tests.support.chain import destination
from tests.support.groups import sign_with_child
from tests.support.turning_world import Story, TurningWorld, play_turning, turning


def armed(story: Story) -> Callable[[Path], None]:
    """Turn a story into a test: as `turning`, on a chain that arms."""
    return turning(story, build_armed_genesis())


def members(world: TurningWorld, epoch: int, role: Role) -> tuple[IdentityKey, ...]:
    """Return a group of an epoch."""
    return world.ledger.epochs[EpochNumber(epoch)].members[role]


def vanish(world: TurningWorld, epoch: int, role: Role = Role.VALIDATOR) -> None:
    """Let a whole group stop its heartbeats and answer nothing any more."""
    gone = members(world, epoch, role)
    world.attestors.gone.update(gone)
    world.network.faults.deaf.update(gone)


def sign_nothing(world: TurningWorld, epoch: int) -> None:
    """Let V endorse what it is asked to, and sign no transaction."""
    for member in members(world, epoch, Role.VALIDATOR):
        world.network.faults.policies[member] = lambda _: refuse("V02", "NODE_BEHIND", "my node is away")


def come_back(world: TurningWorld) -> None:
    """Let everybody who vanished be there again; their terms go on."""
    world.attestors.gone.clear()
    world.network.faults.deaf.clear()
    world.network.faults.policies.clear()


def look_at(world: TurningWorld) -> Outlook:
    """Return what the coordinator's screens are drawn from."""
    outlook = Outlook(world.ledger, world.bitcoin)
    outlook.board = world.board
    return outlook


def is_released(world: TurningWorld, epoch: int) -> bool:
    """Tell whether V of an epoch is judged."""
    return (EpochNumber(epoch), Role.VALIDATOR) in world.ledger.judgements.verdicts


def is_whole(world: TurningWorld) -> bool:
    """Tell whether every booked output is armed."""
    return world.ledger.compute_coverage().is_full and not world.ledger.list_unarmed()


@armed
async def test_a_validator_group_that_vanishes_loses_nobody_anything(world: TurningWorld) -> None:
    await world.peg_in(50_000_000, 30_000_000)
    balance, held = world.balance("alice"), world.find_value(0)
    vanish(world, 0)
    await world.until(lambda: is_released(world, 0))
    await world.until(lambda: not world.find_value(0), mine_every=6)
    assert world.balance("alice") == balance
    assert world.ledger.money.is_balanced
    (epoch,) = {entry.epoch for entry in world.ledger.vault.values()}
    assert epoch == 1
    spent = [booking for booking in world.ledger.bookings.values() if booking.vault_spent]
    assert world.ledger.vault_total == held - sum(booking.reserve_loss for booking in spent)
    assert not is_whole(world), "too few validators are left for a parallel group"
    assert "are not armed" in find_halt(look_at(world)), "so credits halt, and everybody is told"
    come_back(world)
    await world.until(lambda: is_whole(world), mine_every=6)


@armed
async def test_a_burn_that_the_dead_epoch_was_to_pay_is_paid_from_the_next(world: TurningWorld) -> None:
    await world.peg_in(50_000_000, 30_000_000)
    world.mine(REGTEST.transfer_csv)
    sign_nothing(world, 0)
    burn = await world.burn(4_000_000, script=destination("bob"))
    await world.until(lambda: world.list_payers(burn))
    vanish(world, 0)
    await world.until(lambda: not world.find_value(0), mine_every=6)
    assert [(entry.intent.epoch, entry.status) for entry in world.list_payers(burn)] == [(0, IntentStatus.DEAD)]
    come_back(world)
    await world.until(lambda: world.is_settled(burn), mine_every=6)
    assert await world.list_payments(destination("bob")) == [4_000_000]
    await world.close_batches()


@armed
async def test_a_deposit_that_was_armed_and_not_transferred_is_credited_by_its_emergency(world: TurningWorld) -> None:
    await world.peg_in(50_000_000)
    (invoice,) = await world.issue(30_000_000)
    sign_nothing(world, 0)
    deposit = world.pay(invoice, 30_000_000, confirmations=3)
    await world.until(lambda: world.ledger.find_standing((deposit,), ()))
    vanish(world, 0)
    await world.until(lambda: is_released(world, 0))
    assert describe_judged(look_at(world), world.deposit(deposit)) == "its emergency: epoch 0 is judged"
    await world.until(lambda: deposit in world.ledger.credited, mine_every=6)
    terms = invoice.terms
    credited = 30_000_000 - terms.compute_fee_in(Sats(30_000_000))
    await world.until(lambda: world.deposit(deposit).state is DepositState.BOOKED)
    assert world.deposit(deposit).credited == credited
    assert world.ledger.credited[deposit] == world.deposit(deposit).transfer
    assert is_released(world, 0)
    await world.until(lambda: not world.find_value(0), mine_every=6)
    await world.close_batches()
    come_back(world)
    await world.until(lambda: is_whole(world), mine_every=6)
    await world.close_batches()
    await world.check_rebuild()


@armed
async def test_a_deposit_that_nobody_armed_is_left_to_its_refund(world: TurningWorld) -> None:
    (invoice,) = await world.issue(30_000_000)
    vanish(world, 0)
    await world.until(lambda: is_released(world, 0))
    deposit = world.pay(invoice, 30_000_000, confirmations=4)
    await world.advance(20)
    assert not world.ledger.armings
    assert world.deposit(deposit).state is DepositState.MATURE
    assert not [batch for batch in world.board.batches.values() if deposit in batch.intent.outpoints]
    assert describe_judged(look_at(world), world.deposit(deposit)).startswith("your refund, open in")
    world.mine(REGTEST.refund_csv)
    await world.refund(invoice, deposit, 30_000_000)
    world.mine(REGTEST.confirmations)
    await world.until(lambda: world.deposit(deposit).state is DepositState.REFUNDED)


@armed
async def test_an_emergency_that_a_reorg_takes_back_is_sent_again(world: TurningWorld) -> None:
    await world.peg_in(50_000_000)
    vanish(world, 0)
    await world.until(lambda: is_released(world, 0) and world.bitcoin.pending)
    sent = world.bitcoin.pending
    world.mine(2)
    await world.advance(4)
    world.bitcoin.reorganise(2, keep_mempool=False)
    assert not world.bitcoin.pending
    await world.until(lambda: world.bitcoin.pending == sent)
    await world.until(lambda: not world.find_value(0), mine_every=6)
    assert len([booking for booking in world.ledger.bookings.values() if booking.vault_spent]) == len(sent)


@armed
async def test_a_rung_that_nobody_mines_is_raised(world: TurningWorld) -> None:
    await world.peg_in(50_000_000)
    vanish(world, 0)
    await world.until(lambda: is_released(world, 0) and world.bitcoin.pending)
    first = {transaction.txid: transaction for transaction in world.bitcoin.list_pending()}
    world.mine_empty(REGTEST.bump_after)
    await world.until(lambda: world.bitcoin.pending and not world.bitcoin.pending & first.keys())
    assert len(world.bitcoin.pending) == len(first)
    await world.until(lambda: not world.find_value(0), mine_every=6)


def steal(world: TurningWorld, outpoints: Sequence[Outpoint]) -> Transaction:
    """Return what V and W of epoch 0 sign against every rule: outputs of theirs to anybody."""
    ledger, groups = world.ledger, world.find_secrets(0).groups
    booked = [ledger.vault[outpoint] for outpoint in outpoints]
    trees = [build_output_tree(ledger, ledger.epochs[EpochNumber(0)], entry.child) for entry in booked]
    value = Sats(sum(entry.value for entry in booked) - 2_000)
    inputs = tuple(TxIn(entry.outpoint, REGTEST.transfer_csv) for entry in booked)
    unsigned = Transaction(2, inputs, (TxOut(value, destination("thief")),), 0)
    prevouts = [TxOut(entry.value, tree.script) for entry, tree in zip(booked, trees, strict=True)]
    sighash, witnesses = precompute_sighash(unsigned, prevouts), []
    for place, (entry, tree) in enumerate(zip(booked, trees, strict=True)):
        leaf = tree.leaf(Leaf.TRANSFER)
        digest = sighash.compute(place, leaf)
        halves = [sign_with_child(groups[role], entry.child, digest) for role in (Role.VALIDATOR, Role.WITNESS)]
        witnesses.append(assemble_witness(leaf, tree.control_block(Leaf.TRANSFER), halves, None))
    return unsigned.with_witnesses(witnesses)


@armed
async def test_what_two_groups_steal_is_booked_as_a_loss_of_the_reserve_at_once_for_all_of_it(
    world: TurningWorld,
) -> None:
    await world.peg_in(50_000_000)
    balance, reserve = world.balance("alice"), world.ledger.reserve
    world.mine(REGTEST.transfer_csv)
    lost = sorted(world.ledger.vault)
    value = world.ledger.vault_total
    assert len(lost) > 1
    world.stolen.update(lost)
    theft = steal(world, lost)
    await world.bitcoin.broadcast(theft.to_bytes())
    world.mine(REGTEST.confirmations - 1)
    await world.until(world.has_halted)
    await world.advance(20)
    assert not set(lost) - world.ledger.vault.keys(), "it may yet leave the chain again"
    world.mine()
    await world.until(lambda: not world.ledger.vault)
    assert world.ledger.bookings[theft.txid].vault_spent == tuple(lost)
    assert world.ledger.reserve == reserve - value < 0
    assert world.balance("alice") == balance
    assert world.ledger.money.is_balanced
    await world.until(lambda: not world.has_halted())


def test_coordinators_that_die_once_at_every_kind_of_point_leave_every_emergency_booked_once(tmp_path: Path) -> None:
    async def story(world: TurningWorld) -> None:
        await world.peg_in(50_000_000)
        vanish(world, 0)
        await world.until(lambda: is_released(world, 0))
        world.survived = world.coordinator.life.survived = set()
        await world.until(lambda: not world.find_value(0), mine_every=6)
        assert set(world.deaths) >= {
            "before submitting RejectionSigned",
            "after submitting RejectionSigned",
            "before broadcast",
            "after broadcast",
            "before submitting BookingRecorded",
            "after submitting BookingRecorded",
        }
        assert world.ledger.money.is_balanced

    play_turning(story, tmp_path, build_armed_genesis())
