"""Sweeps on the ledger: one retiring epoch to the active one, to the satoshi, notarised, commission as it is due."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smpc.params import REGTEST
from smpc.protocol.codec import decode, encode
from smpc.protocol.intents import Commission, Intent, IntentKind
from smpc.protocol.ledger_bookings import VAULT_INDEX_START
from smpc.protocol.ledger_commission import KEPT_SWEEPS, compute_sweep_cost
from smpc.protocol.ledger_state import BurnStatus, EpochState, IntentStatus
from smpc.protocol.notarisation import Notarisation, build_op_return, find_notarisation
from smpc.protocol.records import RESERVE_ACCOUNT
from smpc.types import EpochNumber, FeeRate, IntentId, KaonHeight, Outpoint, Sats, Script
from tests.support.chain import with_own_txid
from tests.support.groups import endorse
from tests.support.turning_chain import TurningChain

KEPT = KEPT_SWEEPS * compute_sweep_cost(REGTEST, FeeRate(10_000))
MEMBERS = 12


def retiring(*values: int) -> TurningChain:
    """Return a chain whose epoch 0 holds an output of each value, and whose epoch 1 is active."""
    chain = TurningChain.started()
    for index, value in enumerate(values or (1_000_000,)):
        chain.fund_active("alice", value, index + 1)
    chain.add(chain.make_send("alice", RESERVE_ACCOUNT, 50_000))
    chain.turn()
    return chain


def rich(spare: int = MEMBERS * 20_000) -> TurningChain:
    """Return a chain whose epoch 0 retires with `spare` sat over what the reserve keeps."""
    chain = TurningChain.started()
    chain.fund_active("alice", 5_000_000, 1)
    chain.add(chain.make_send("alice", RESERVE_ACCOUNT, KEPT + spare - chain.ledger.reserve))
    chain.turn()
    return chain


def offer(chain: TurningChain, intent: Intent) -> str:
    """Return the code with which a sweep is refused."""
    return chain.refusal(endorse(chain.keyed[intent.epoch], intent, chain.ledger.height))


def changed(intent: Intent, **parts: object) -> Intent:
    """Return the sweep with some parts changed and its money still adding up at the first vault output."""
    other = replace(intent, **parts)  # type: ignore[arg-type]
    spent = sum(item.amount for item in other.payments) + sum(item.amount for item in other.commissions) + other.fee
    rest = sum(item.value for item in other.inputs) - spent - sum(other.vault_outputs[1:])
    return with_own_txid(replace(other, vault_outputs=(Sats(rest), *other.vault_outputs[1:])))


def first_output(chain: TurningChain) -> Outpoint:
    return chain.ledger.list_free_outputs(EpochNumber(0))[0].outpoint


# ------------------------------------------------------------------ what a sweep does


def test_a_sweep_moves_every_output_to_the_active_epoch_and_the_reserve_pays() -> None:
    chain = retiring(1_000_000, 700_000)
    supply, reserve = chain.ledger.supply, chain.ledger.reserve
    sweep = chain.record(chain.make_sweep(0, fee=3_000, outputs=2))
    booking = chain.ledger.compute_booking(sweep)
    assert (booking.credits, booking.settled, booking.reserve_gain, booking.reserve_loss) == ((), (), 0, 3_000)
    chain.book(sweep)
    ledger = chain.ledger
    assert ledger.epoch_value == {EpochNumber(1): 1_700_000 - 2 * 2_000 - 3_000}
    assert (ledger.supply, ledger.reserve) == (supply, reserve - 3_000)
    assert {(entry.epoch, entry.child) for entry in ledger.vault.values()} == {
        (1, VAULT_INDEX_START),
        (1, VAULT_INDEX_START + 1),
    }
    assert ledger.intents[sweep].status is IntentStatus.BOOKED


def test_a_sweep_carries_queued_burns_along() -> None:
    chain = retiring()
    burns = [chain.burn("alice", payout) for payout in (100_000, 50_000)]
    fees = sum(chain.ledger.burns[burn].fee for burn in burns)
    reserve = chain.ledger.reserve
    chain.book(chain.record(chain.make_sweep(0, fee=3_000, burns=burns)))
    assert all(chain.ledger.burns[burn].status is BurnStatus.SETTLED for burn in burns)
    assert chain.ledger.reserve == reserve + fees - 3_000
    assert chain.ledger.vault_total == 998_000 - 150_000 - 3_000
    assert chain.ledger.open_burns == 0


def test_a_sweep_pays_its_commission_once_to_the_satoshi() -> None:
    chain = rich()
    intent = chain.make_sweep(0, fee=3_000)
    assert [item.amount for item in intent.commissions] == [20_000] * MEMBERS
    assert intent.commissions == chain.entry(0).commissions == chain.ledger.find_due_commission(EpochNumber(0))
    vault, reserve = chain.ledger.vault_total, chain.ledger.reserve
    chain.book(chain.record(intent))
    assert chain.ledger.vault_total == vault - MEMBERS * 20_000 - 3_000
    assert chain.ledger.reserve == reserve - MEMBERS * 20_000 - 3_000 == KEPT - 3_000
    assert chain.entry(0).is_commission_paid
    assert chain.ledger.find_due_commission(EpochNumber(0)) == ()


def test_a_sweep_keeps_its_epoch_retiring_until_it_is_booked() -> None:
    chain = retiring()
    sweep = chain.record(chain.make_sweep(0))
    chain.pulse(10_000)
    assert chain.state(0) is EpochState.RETIRING
    chain.book(sweep)
    chain.add()
    assert chain.state(0) is EpochState.RETIRED or chain.state(0) is EpochState.PARKED


def test_a_recorded_sweep_may_be_booked_two_turns_later() -> None:
    chain = retiring()
    sweep = chain.record(chain.make_sweep(0))
    chain.turn()
    chain.turn()
    assert chain.ledger.active_epoch == 3
    chain.book(sweep)
    assert chain.ledger.epoch_value == {EpochNumber(1): 996_000}
    assert chain.state(1) is EpochState.RETIRING
    chain.book(chain.record(chain.make_sweep(1)))
    assert chain.ledger.epoch_value == {EpochNumber(3): 994_000}


def test_late_value_goes_in_a_second_sweep() -> None:
    chain = TurningChain.started()
    chain.fund_active("alice", 1_000_000, 1)
    chain.add(chain.make_invoices(chain.make_terms(2), request_id=b"late"))
    late = chain.record(chain.make_transfer_of(0, [(2, 300_000)]))
    chain.turn()
    chain.book(chain.record(chain.make_sweep(0)))
    chain.book(late)
    chain.skip(2)
    assert chain.state(0) is EpochState.RETIRING
    chain.book(chain.record(chain.make_sweep(0)))
    assert set(chain.ledger.epoch_value) == {1}


def test_a_sweep_is_read_back_as_it_was_written_and_says_more_than_a_payout() -> None:
    intent = rich().make_sweep(0)
    assert decode(Intent, encode(intent)) == intent
    assert intent.choice.commissions == intent.commissions
    assert intent.choice.op_return == intent.op_return
    others = {
        replace(intent, commissions=()).intent_id,
        replace(intent, op_return=Script(b"")).intent_id,
        replace(intent, kind=IntentKind.PAYOUT).intent_id,
    }
    assert intent.intent_id not in others
    assert len(others) == 3


# ------------------------------------------------------------------ whose outputs, and when


def test_refuses_a_sweep_of_the_active_epoch() -> None:
    chain = TurningChain.started()
    chain.fund_active("alice", 1_000_000, 1)
    assert offer(chain, chain.make_sweep(0)) == "EPOCH_STATE"


def test_refuses_a_sweep_to_any_epoch_but_the_active_one() -> None:
    chain = retiring()
    for target in (0, 2):
        assert offer(chain, replace(chain.make_sweep(0), target_epoch=EpochNumber(target))) == "TARGET_NOT_ACTIVE"


def test_refuses_a_sweep_of_another_epochs_output_or_of_none() -> None:
    chain = retiring()
    chain.fund_active("bob", 500_000, 1_000)
    foreign = chain.ledger.list_free_outputs(EpochNumber(1))[0].outpoint
    assert offer(chain, chain.make_sweep(0, outpoints=[first_output(chain), foreign])) == "WRONG_INPUT"
    assert offer(chain, replace(chain.make_sweep(0), inputs=())) == "COUNT"


def test_refuses_a_deposit_among_vault_outputs() -> None:
    chain = retiring()
    intent = chain.make_sweep(0)
    deposit = replace(intent.inputs[0], outpoint=Outpoint(intent.txid, 7))
    assert offer(chain, changed(intent, inputs=(*intent.inputs, deposit))) == "NOT_BOOKED"


def test_refuses_a_sweep_that_leaves_no_vault_output_and_pays_nobody() -> None:
    chain = retiring()
    intent = chain.make_sweep(0)
    burnt = replace(intent, vault_outputs=(), fee=Sats(intent.fee + sum(intent.vault_outputs)))
    assert offer(chain, burnt) in {"NO_VAULT_OUTPUT", "RESERVE_TOO_LOW"}


def test_refuses_a_satoshi_too_much_or_too_little() -> None:
    chain = retiring()
    intent = chain.make_sweep(0)
    for off in (-1, 1):
        assert offer(chain, replace(intent, fee=Sats(intent.fee + off))) == "NOT_CONSERVED"


def test_a_sweep_and_a_payout_of_one_output_do_not_both_stand() -> None:
    chain = retiring()
    chain.record(chain.make_sweep(0))
    burn = chain.burn("alice", 100_000)
    (outpoint,) = chain.ledger.vault
    payout = replace(chain.make_payout([outpoint], [burn]), target_epoch=EpochNumber(1))
    assert offer(chain, payout) == "OUTPOINT_BUSY"


@pytest.mark.parametrize("off", [0, 1])
def test_a_sweep_the_reserve_cannot_pay_waits(off: int) -> None:
    chain = retiring()
    intent = chain.make_sweep(0, fee=chain.ledger.reserve + off)
    if off:
        assert offer(chain, intent) == "RESERVE_TOO_LOW"
    else:
        chain.book(chain.record(intent))
        assert chain.ledger.reserve == 0


def test_what_burns_paid_helps_the_reserve_pay_a_sweep() -> None:
    chain = retiring()
    burn = chain.burn("alice", 100_000)
    most = chain.ledger.reserve + chain.ledger.burns[burn].fee
    assert offer(chain, chain.make_sweep(0, fee=most + 1, burns=[burn])) == "RESERVE_TOO_LOW"
    chain.record(chain.make_sweep(0, fee=most, burns=[burn]))


# ------------------------------------------------------------------ notarisation


def test_the_op_return_names_the_block_that_made_the_target_active() -> None:
    chain = retiring()
    began = chain.entry(1).activated
    assert began is not None
    notarised = find_notarisation(chain.make_sweep(0).op_return)
    anchor = chain.ledger.anchors[EpochNumber(1)]
    assert notarised == Notarisation(EpochNumber(0), chain.blocks[began - 1].block_hash, anchor.state_root)
    assert anchor.height == began


def test_the_anchors_state_root_is_the_replicas_own() -> None:
    chain = TurningChain.started()
    chain.announce()
    chain.key(2)
    while chain.ledger.active_epoch == 0:
        chain.add()
    assert chain.ledger.anchors[EpochNumber(1)].state_root == chain.ledger.compute_state_root()


@pytest.mark.parametrize(("epoch", "target"), [(2**32, 1), (2**63, 1), (99, 1), (0, 99)])
def test_knows_no_op_return_of_an_epoch_that_never_was(epoch: int, target: int) -> None:
    assert retiring().ledger.find_op_return(EpochNumber(epoch), EpochNumber(target)) is None


@pytest.mark.parametrize("lie", ["none", "stale", "epoch", "root", "more"])
def test_refuses_any_other_op_return(lie: str) -> None:
    chain = retiring()
    right = chain.make_sweep(0)
    notarised = find_notarisation(right.op_return)
    stale = chain.ledger.find_op_return(EpochNumber(0), EpochNumber(0))
    assert notarised is not None
    assert stale is not None
    forged = {
        "none": Script(b""),
        "stale": stale,
        "epoch": build_op_return(replace(notarised, epoch=EpochNumber(1))),
        "root": build_op_return(replace(notarised, state_root=bytes(32))),
        "more": Script(right.op_return + b"\x00"),
    }[lie]
    assert offer(chain, replace(right, op_return=forged)) == "WRONG_OP_RETURN"


@pytest.mark.parametrize("epoch", [99, 2**32 - 1, 2**32, 2**63])
def test_refuses_a_sweep_out_of_an_epoch_that_never_was(epoch: int) -> None:
    chain = retiring()
    lie = replace(chain.make_sweep(0), epoch=EpochNumber(epoch))
    assert chain.refusal(endorse(chain.keyed[EpochNumber(0)], lie, chain.ledger.height)) == "UNKNOWN_EPOCH"


def test_only_a_sweep_notarises_or_pays_commission() -> None:
    chain = retiring()
    burn = chain.burn("alice", 100_000)
    (outpoint,) = chain.ledger.vault
    payout = replace(chain.make_payout([outpoint], [burn]), target_epoch=EpochNumber(1))
    assert offer(chain, replace(payout, op_return=chain.make_sweep(0).op_return)) == "NOT_A_SWEEP"
    member = Commission(chain.entry(0).groups[next(iter(chain.entry(0).groups))].members[0], Sats(20_000), Script(b""))
    assert offer(chain, changed(payout, commissions=(member,))) == "NOT_A_SWEEP"


def test_a_height_is_buried_by_the_first_booked_sweep_above_it() -> None:
    chain = retiring()
    ledger, anchor = chain.ledger, chain.ledger.anchors[EpochNumber(1)]
    sweep = chain.record(chain.make_sweep(0))
    assert ledger.find_burial(KaonHeight(1)) is None
    chain.book(sweep)
    found = ledger.find_burial(KaonHeight(1))
    assert found is not None
    assert (found.height, found.block_hash, found.txid) == (
        anchor.height,
        anchor.block_hash,
        ledger.intents[sweep].intent.txid,
    )
    assert ledger.find_burial(anchor.height) == found
    assert ledger.find_burial(KaonHeight(anchor.height + 1)) is None
    chain.turn()
    chain.book(chain.record(chain.make_sweep(1)))
    later = ledger.find_burial(KaonHeight(anchor.height + 1))
    assert later is not None
    assert later.height == ledger.anchors[EpochNumber(2)].height
    assert ledger.find_burial(KaonHeight(1)) == found


# ------------------------------------------------------------------ commission, exactly as it is due


@pytest.mark.parametrize("lie", ["more", "less", "order", "left out", "script", "all left out", "twice"])
def test_refuses_any_other_commission(lie: str) -> None:
    chain = rich()
    right = chain.make_sweep(0)
    first, *rest = right.commissions
    forged = {
        "more": (replace(first, amount=Sats(first.amount + 1)), *rest),
        "less": (replace(first, amount=Sats(first.amount - 1)), *rest),
        "order": right.commissions[::-1],
        "left out": tuple(rest),
        "script": (replace(first, script=rest[0].script), *rest),
        "all left out": (),
        "twice": (*right.commissions, first),
    }[lie]
    code = "COUNT" if lie == "twice" else "WRONG_COMMISSION"
    assert offer(chain, changed(right, commissions=forged)) == code


def test_refuses_commission_where_none_is_due() -> None:
    donor = rich().make_sweep(0).commissions
    chain = retiring(5_000_000)
    assert chain.ledger.find_due_commission(EpochNumber(0)) == ()
    assert offer(chain, chain.make_sweep(0, commissions=donor)) in {"WRONG_COMMISSION", "RESERVE_TOO_LOW"}


def test_a_sweep_with_no_room_for_the_commission_goes_without_it() -> None:
    chain = TurningChain.started()
    chain.fund_active("alice", 5_000_000, 1)
    chain.add(chain.make_send("alice", RESERVE_ACCOUNT, KEPT + MEMBERS * 20_000))
    chain.fund_active("bob", 50_000, 2)
    small = next(entry.outpoint for entry in chain.ledger.vault.values() if entry.value < 100_000)
    chain.turn()
    chain.book(chain.record(chain.make_sweep(0, outpoints=[small], commissions=())))
    assert not chain.entry(0).is_commission_paid
    sweep = chain.make_sweep(0)
    assert sweep.commissions
    chain.book(chain.record(sweep))
    assert chain.entry(0).is_commission_paid


def test_a_second_sweep_carries_none_while_the_first_stands_and_does_when_it_is_withdrawn() -> None:
    chain = TurningChain.started()
    chain.fund_active("alice", 5_000_000, 1)
    chain.add(chain.make_send("alice", RESERVE_ACCOUNT, KEPT + MEMBERS * 20_000))
    chain.fund_active("bob", 3_000_000, 2)
    chain.turn()
    one, two = (entry.outpoint for entry in chain.ledger.list_free_outputs(EpochNumber(0)))
    first = chain.make_sweep(0, outpoints=[one])
    chain.record(first)
    assert chain.ledger.find_due_commission(EpochNumber(0)) == ()
    assert offer(chain, chain.make_sweep(0, outpoints=[two], commissions=first.commissions)) == "WRONG_COMMISSION"
    second = chain.record(chain.make_sweep(0, outpoints=[two]))
    chain.epoch = chain.keyed[EpochNumber(0)]
    chain.add(chain.make_withdrawal(first.intent_id))
    assert chain.ledger.find_due_commission(EpochNumber(0)) == first.commissions
    chain.book(second)
    chain.book(chain.record(chain.make_sweep(0, fee=2_500)))
    assert chain.entry(0).is_commission_paid


def bump(chain: TurningChain, old: Intent, **parts: object) -> Intent:
    replaces: tuple[IntentId, ...] = (old.intent_id,)
    outpoints = [item.outpoint for item in old.inputs]
    intent = chain.make_sweep(0, fee=old.fee + 2_000, outpoints=outpoints, replaces=replaces)
    return changed(intent, **parts) if parts else intent


def test_a_bump_carries_the_same_commission_and_only_the_mined_one_is_booked() -> None:
    chain = rich()
    old = chain.make_sweep(0)
    chain.record(old)
    assert offer(chain, bump(chain, old, commissions=())) == "WRONG_COMMISSION"
    new = bump(chain, old)
    assert new.commissions == old.commissions
    chain.record(new)
    reserve = chain.ledger.reserve
    chain.book(old.intent_id)
    assert chain.ledger.intents[new.intent_id].status is IntentStatus.DEAD
    assert chain.ledger.reserve == reserve - old.fee - MEMBERS * 20_000
    assert chain.entry(0).is_commission_paid


def test_the_promise_was_made_when_the_epoch_began_to_retire() -> None:
    chain = rich()
    promised = chain.entry(0).commissions
    chain.add(chain.make_send("alice", RESERVE_ACCOUNT, 500_000))
    assert chain.make_sweep(0).commissions == promised
    assert len(chain.ledger.compute_commission(EpochNumber(0))) == MEMBERS
    chain.record(chain.make_sweep(0))


def test_two_retiring_epochs_do_not_share_out_the_same_surplus() -> None:
    chain = rich()
    chain.fund_active("bob", 2_000_000, 900)
    chain.turn()
    spare = chain.ledger.reserve - KEPT - MEMBERS * 20_000
    assert chain.entry(0).commissions
    assert sum(item.amount for item in chain.entry(1).commissions) <= max(spare, 0)


def test_an_epoch_with_nothing_over_promises_nothing() -> None:
    assert retiring().entry(0).commissions == ()
