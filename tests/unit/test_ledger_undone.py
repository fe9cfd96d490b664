"""No single group locks an epoch's BTC for ever: who has the other judged must then do its own part, or is judged."""

from __future__ import annotations

import pytest

from smpc.params import REGTEST
from smpc.protocol import ledger_undone
from smpc.protocol.epoch import is_serving
from smpc.protocol.intents import IntentInput, IntentKind
from smpc.protocol.ledger_state import EpochState
from smpc.protocol.ledger_undone import PATIENCE
from smpc.protocol.verdict_state import Cause
from smpc.types import IntentId, Purpose, Role
from tests.support.armed_world import ArmedChain
from tests.support.chain import make_intent
from tests.support.groups import EPOCH
from tests.support.verdict_chain import complain, list_rejections, reject, reveal

V, W = Role.VALIDATOR, Role.WITNESS
LONG = PATIENCE * REGTEST.silence_blocks


def blame(role: Role) -> ArmedChain:
    """Return a chain on which `t` of one group had the other one of epoch 0 judged, and epoch 1 is active."""
    chain = ArmedChain.started()
    chain.fund_active("alice", 500_000, 0)
    chain.add(chain.make_invoices(chain.make_terms(1), request_id=b"more"))
    intent_id = chain.record(chain.make_transfer_of(0, [(1, 90_000)]))
    chain.finalise_to(chain.ledger.height + REGTEST.challenge_blocks + REGTEST.silence_blocks + 1)
    accusers = chain.entry(0).groups[V if role is W else W]
    chain.add(*(complain(member, role, intent_id) for member in accusers.members[: accusers.threshold]))
    assert set(chain.ledger.judgements.verdicts) == {(EPOCH, role)}
    chain.add()
    assert chain.ledger.active_epoch == 1
    chain.pulse()
    return chain


def release(chain: ArmedChain) -> int:
    """Publish the preimage of epoch 0 once its release is final; the block in which it stands."""
    chain.finalise_to(chain.ledger.judgements.verdicts[EPOCH, V].recorded)
    chain.add(reveal(EPOCH, chain.keyed[EPOCH].preimage))
    return chain.ledger.judgements.preimages[EPOCH].recorded


def go_to(chain: ArmedChain, final: int) -> None:
    """Go on until the newest final block is the last checkpoint below `final`."""
    while chain.ledger.final_height + 16 < final:
        chain.pulse()
        chain.finalise()


def test_w_that_has_v_judged_and_rejects_nothing_is_judged_and_v_and_e_recover() -> None:
    chain = blame(V)
    since = release(chain)
    go_to(chain, since + LONG)
    assert chain.ledger.final_height < since + LONG
    assert (EPOCH, W) not in chain.ledger.judgements.verdicts
    chain.finalise_to(since + LONG)
    chain.add()
    verdict = chain.ledger.judgements.verdicts[EPOCH, W]
    assert verdict.cause is Cause.DOES_NOT_SERVE
    assert not chain.ledger.judgements.punishments
    for purpose in (Purpose.RECOVERY, Purpose.REJECTION, Purpose.ARMING):
        assert is_serving(chain.entry(0), purpose)


def test_w_that_rejects_in_time_is_not_judged_however_long_it_is_not_executed() -> None:
    chain = blame(V)
    since = release(chain)
    for built in list_rejections(chain):
        chain.add(reject(chain, built))
    chain.finalise_to(since + 2 * LONG)
    chain.add()
    assert (EPOCH, W) not in chain.ledger.judgements.verdicts


def test_w_is_not_judged_while_no_member_of_e_published_the_preimage() -> None:
    chain = blame(V)
    chain.finalise_to(chain.ledger.height + 2 * LONG)
    chain.add()
    assert (EPOCH, W) not in chain.ledger.judgements.verdicts


def test_v_that_has_w_judged_and_recovers_nothing_is_judged_and_w_and_e_reject(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_undone, "BLOCKS_PER_BTC_BLOCK", 1)
    chain = blame(W)
    due = chain.ledger.judgements.verdicts[EPOCH, W].recorded + REGTEST.recovery_csv + LONG
    assert any(entry.status.is_standing for entry in chain.ledger.intents.values()), "W left a transfer undone"
    go_to(chain, due)
    assert chain.ledger.final_height < due
    assert (EPOCH, V) not in chain.ledger.judgements.verdicts
    chain.finalise_to(due)
    chain.add()
    assert chain.ledger.judgements.verdicts[EPOCH, V].cause is Cause.DOES_NOT_SERVE
    assert not chain.ledger.judgements.punishments
    chain.finalise_to(chain.ledger.height)
    for built in list_rejections(chain):
        chain.add(reject(chain, built))
    booked = {key for key, entry in chain.ledger.vault.items() if entry.epoch == EPOCH}
    assert booked
    assert booked <= set(chain.ledger.judgements.rejections)


def recover(chain: ArmedChain) -> IntentId:
    """Record the recovery of an output of epoch 0, once epoch 2 is keyed for what that creates."""
    chain.announce()
    for number, entry in list(chain.ledger.epochs.items()):
        if entry.state is EpochState.ANNOUNCED:
            chain.key(number)
    outpoint, booked = next((key, entry) for key, entry in chain.ledger.vault.items() if entry.epoch == EPOCH)
    inputs = (IntentInput(outpoint, booked.value, booked.child),)
    active = chain.ledger.active_epoch
    assert active is not None
    return chain.record(make_intent(IntentKind.RECOVERY, inputs, (), fee=900, outputs=1, target=active))


def test_v_whose_recovery_is_recorded_is_not_judged_for_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_undone, "BLOCKS_PER_BTC_BLOCK", 1)
    chain = blame(W)
    recover(chain)
    chain.finalise_to(chain.ledger.height + REGTEST.recovery_csv + LONG)
    chain.add()
    assert (EPOCH, V) not in chain.ledger.judgements.verdicts


def test_a_recovery_that_stands_long_and_is_signed_by_nobody_is_w_s_to_complain_about(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """V cannot have W judged, endorse a recovery and leave it at that; nor can E that endorsed it with V."""
    monkeypatch.setattr(ledger_undone, "BLOCKS_PER_BTC_BLOCK", 1)
    chain = blame(W)
    recovery = recover(chain)
    since = chain.ledger.intents[recovery].recorded + REGTEST.challenge_blocks
    chain.wait_acting(since, REGTEST.silence_blocks)
    accusers = chain.entry(0).groups[W]
    chain.add(*(complain(member, V, recovery) for member in accusers.members[: accusers.threshold]))
    assert chain.ledger.judgements.verdicts[EPOCH, V].cause is Cause.DOES_NOT_SERVE
    assert is_serving(chain.entry(0), Purpose.REJECTION)
    assert is_serving(chain.entry(0), Purpose.RECOVERY), "what was endorsed may still be signed"


def test_v_has_its_time_again_for_what_a_booked_recovery_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_undone, "BLOCKS_PER_BTC_BLOCK", 1)
    chain = blame(W)
    transfer = next(key for key, entry in chain.ledger.intents.items() if entry.status.is_standing)
    chain.book(transfer)  # W's half was out in time: two outputs now
    first = recover(chain)
    chain.finalise_to(chain.ledger.judgements.verdicts[EPOCH, W].recorded + REGTEST.recovery_csv + LONG + 32)
    chain.book(first)
    booked = chain.ledger.height
    assert chain.ledger.epoch_value[EPOCH]
    assert_judged_after(chain, V, booked)


def test_v_has_its_time_for_an_output_that_came_late_from_its_own_lock_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_undone, "BLOCKS_PER_BTC_BLOCK", 1)
    chain = blame(W)
    transfer = next(key for key, entry in chain.ledger.intents.items() if entry.status.is_standing)
    chain.book(recover(chain))
    chain.finalise_to(chain.ledger.judgements.verdicts[EPOCH, W].recorded + REGTEST.recovery_csv + LONG)
    assert EPOCH not in chain.ledger.epoch_value
    chain.book(transfer)
    booked = chain.ledger.height
    assert_judged_after(chain, V, booked + REGTEST.recovery_csv)


def test_w_has_its_time_for_an_output_that_came_late() -> None:
    chain = blame(V)
    since = release(chain)
    transfer = next(key for key, entry in chain.ledger.intents.items() if entry.status.is_standing)
    for built in list_rejections(chain):
        chain.add(reject(chain, built))
    chain.finalise_to(since + LONG)
    chain.book(transfer)
    booked = chain.ledger.height
    tables = chain.ledger._tables  # noqa: SLF001 - only a test may
    for outpoint, entry in chain.ledger.vault.items():
        if entry.epoch == EPOCH and tables.vault_since[outpoint] == booked:
            tables.judgements.rejections.pop(outpoint)
    assert_judged_after(chain, W, booked)


def assert_judged_after(chain: ArmedChain, role: Role, since: int) -> None:
    """Tell that a group of epoch 0 is judged once its patience from a block on is over, and not before."""
    chain.add()
    assert (EPOCH, role) not in chain.ledger.judgements.verdicts
    chain.wait_almost(since, LONG - 1)
    assert (EPOCH, role) not in chain.ledger.judgements.verdicts
    chain.wait_acting(since, LONG)
    chain.add()
    assert (EPOCH, role) in chain.ledger.judgements.verdicts


@pytest.mark.parametrize("role", [V, W])
def test_what_a_stall_of_finality_takes_is_nobody_s_fault(role: Role, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_undone, "BLOCKS_PER_BTC_BLOCK", 1)
    chain = blame(V if role is W else W)
    lost = chain.ledger.judgements.verdicts[EPOCH, V if role is W else W].recorded
    since = release(chain) if role is W else lost + REGTEST.recovery_csv
    while chain.ledger.height < since + LONG + 32:
        chain.pulse()
    chain.finalise()
    assert chain.ledger.final_height >= since + LONG
    chain.add()
    assert (EPOCH, role) not in chain.ledger.judgements.verdicts
    chain.wait_almost(since, LONG)
    assert (EPOCH, role) not in chain.ledger.judgements.verdicts
    chain.add()
    assert (EPOCH, role) in chain.ledger.judgements.verdicts
    assert not chain.ledger.judgements.punishments
