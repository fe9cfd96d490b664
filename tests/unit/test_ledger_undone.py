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
from smpc.types import EpochNumber, Purpose, Role
from tests.support.armed_world import ArmedChain
from tests.support.chain import make_intent
from tests.support.groups import EPOCH
from tests.support.verdict_chain import complain, list_rejections, reject, reveal

V, W = Role.VALIDATOR, Role.WITNESS
LONG = PATIENCE * REGTEST.silence_blocks
ONE = EpochNumber(1)


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
    withdrawn = [key for key, entry in chain.ledger.intents.items() if entry.status.is_standing]
    for key in withdrawn:
        chain.book(key)
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
    assert set(chain.ledger.judgements.rejections) == {
        key for key, entry in chain.ledger.vault.items() if entry.epoch == EPOCH
    }


def test_v_whose_recovery_is_recorded_is_not_judged_for_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_undone, "BLOCKS_PER_BTC_BLOCK", 1)
    chain = blame(W)
    chain.announce()
    for number, entry in list(chain.ledger.epochs.items()):
        if entry.state is EpochState.ANNOUNCED:
            chain.key(number)
    (outpoint, booked), *_ = chain.ledger.vault.items()
    inputs = (IntentInput(outpoint, booked.value, booked.child),)
    chain.record(make_intent(IntentKind.RECOVERY, inputs, (), fee=900, outputs=1, target=ONE))
    chain.finalise_to(chain.ledger.height + REGTEST.recovery_csv + LONG)
    chain.add()
    assert (EPOCH, V) not in chain.ledger.judgements.verdicts
