"""The ledger's rules of armings: what it takes as armed, what it refuses before, what is covered, what it forgets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from coordinator.inspection import judge_coverage
from pegin.bookings import review_booking
from slashing.build import build_arming, build_armings, build_renewal
from smpc.errors import Refused
from smpc.node.ports import Verdict
from smpc.params import REGTEST, Params
from smpc.protocol import ledger_armings
from smpc.protocol.arming_records import Arming, ArmingRecorded, list_created
from smpc.protocol.arming_state import ArmingFault, Coverage, EpochCoverage
from smpc.protocol.codec import decode_variant, encode_variant
from smpc.protocol.intents import IntentInput
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import EpochState
from smpc.protocol.ledger_undone import PATIENCE
from smpc.protocol.records import Genesis, Record
from smpc.protocol.review import Stage
from smpc.threshold.child_keys import VAULT_RANGE_START, compute_vault_index
from smpc.types import ChildIndex, EpochNumber, FeeRate, Network, Outpoint, Role, Sats, Script, Signature, Txid
from tests.support.armed_world import ArmedChain, ArmedWorld, arm_deposit
from tests.support.chain import deposit_outpoint, vault_outpoint
from tests.support.flow_world import find_rule
from tests.support.groups import EPOCH, endorse
from tests.support.sweep_world import SweepWorld
from tests.support.turning_chain import BTC_START
from tests.support.verdict_chain import attest_without

ONE, TWO = EpochNumber(1), EpochNumber(2)
LONG = PATIENCE * REGTEST.silence_blocks


def refusal(world: SweepWorld, *records: Record) -> str:
    return world.chain.refusal(*records)


def change(record: ArmingRecorded, **fields: object) -> ArmingRecorded:
    return replace(record, arming=replace(record.arming, **fields))  # type: ignore[arg-type]


def test_an_armed_deposit_is_recorded_booked_and_credited() -> None:
    world = ArmedWorld.filled(500_000)
    entry, *_ = world.ledger.vault.values()
    assert world.ledger.money.supply > 0
    assert world.ledger.compute_coverage().is_full
    assert world.ledger.list_unarmed() == ()
    (armed,) = world.ledger.armings[entry.outpoint]
    assert (armed.epoch, armed.target, armed.output.value) == (EPOCH, ONE, entry.value)


def test_an_intent_without_its_armings_is_refused() -> None:
    world = ArmedWorld.filled()
    built, _ = arm_deposit(world, 500_000)
    assert refusal(world, endorse(world.chain.epoch, built.intent, world.ledger.height)) == "NOT_ARMED"


def test_an_arming_may_stand_in_the_same_block_as_its_intent_but_not_after_it() -> None:
    world = ArmedWorld.filled()
    built, (arming,) = arm_deposit(world, 500_000)
    record, intent = world.armed.pre_sign(arming), endorse(world.chain.epoch, built.intent, world.ledger.height)
    assert refusal(world, intent, record) == "NOT_ARMED"
    world.chain.add(record, intent)
    assert built.intent.intent_id in world.ledger.intents


def test_each_part_alone_is_not_enough() -> None:
    world = ArmedWorld.filled()
    built, (arming,) = arm_deposit(world, 500_000, 600_000)
    for without in range(len(arming.emergencies)):
        rest = tuple(item for at, item in enumerate(arming.emergencies) if at != without)
        part = replace(arming, arming=replace(arming.arming, outputs=tuple(e.output for e in rest)), emergencies=rest)
        intent = endorse(world.chain.epoch, built.intent, world.ledger.height)
        assert refusal(world, world.armed.pre_sign(part), intent) == "NOT_ARMED"
    world.record(built)


CHANGES: list[tuple[str, Callable[[ArmingRecorded], ArmingRecorded]]] = [
    ("WRONG_NETWORK", lambda record: change(record, network=Network.MAINNET)),
    ("EPOCH_STATE", lambda record: change(record, epoch=ONE)),
    ("EPOCH_STATE", lambda record: change(record, epoch=EpochNumber(9))),
    ("WRONG_TARGET", lambda record: change(record, target=EPOCH)),
    ("WRONG_TARGET", lambda record: change(record, target_script=Script(b"\x51\x20" + bytes(32)))),
    ("COUNT", lambda record: change(record, outputs=())),
    ("DUPLICATE", lambda record: change(record, outputs=(record.arming.outputs[0], *record.arming.outputs))),
    ("DUPLICATE", lambda record: change(record, outputs=record.arming.outputs[::-1])),
    ("BAD_SIGNATURE", lambda record: change(record, outputs=_with_output(record.arming, value=Sats(499_999)))),
    ("BAD_SIGNATURE", lambda record: change(record, outputs=_with_output(record.arming, outpoint=_next(record)))),
    ("BAD_SIGNATURE", lambda record: replace(record, signatures=record.signatures[:-1])),
    ("BAD_SIGNATURE", lambda record: replace(record, signatures=(*record.signatures, record.signatures[0]))),
    ("BAD_SIGNATURE", lambda record: replace(record, signatures=(Signature(bytes(64)), *record.signatures[1:]))),
    ("BAD_SIGNATURE", lambda record: replace(record, signatures=record.signatures[::-1])),
    ("INVALID_ARGUMENT", lambda record: change(record, outputs=_with_output(record.arming, value=Sats(2**63)))),
    ("INVALID_ARGUMENT", lambda record: change(record, outputs=_with_output(record.arming, outpoint=_past(record)))),
    ("VALUE_TOO_SMALL", lambda record: change(record, outputs=_with_output(record.arming, value=Sats(1_000)))),
]


def _with_output(arming: Arming, **fields: object) -> tuple[IntentInput, ...]:
    return (replace(arming.outputs[0], **fields), *arming.outputs[1:])  # type: ignore[arg-type]


def _past(record: ArmingRecorded) -> Outpoint:
    return replace(record.arming.outputs[0].outpoint, vout=2**32)


def _next(record: ArmingRecorded) -> Outpoint:
    return replace(record.arming.outputs[0].outpoint, vout=7)


@pytest.mark.parametrize(("code", "mutate"), CHANGES)
def test_a_changed_arming_is_refused_and_changes_nothing(
    code: str, mutate: Callable[[ArmingRecorded], ArmingRecorded]
) -> None:
    world = ArmedWorld.filled()
    _, (arming,) = arm_deposit(world, 500_000)
    record = world.armed.pre_sign(arming)
    assert refusal(world, mutate(record)) == code
    world.chain.add(record)


def test_an_unknown_invoice_or_vault_position_is_refused() -> None:
    world = ArmedWorld.filled()
    _, (arming,) = arm_deposit(world, 500_000)
    record = world.armed.pre_sign(arming)
    for child in (77, 0x10000000 + REGTEST.vault_outputs):
        outputs = _with_output(record.arming, child=ChildIndex(child))
        with pytest.raises(Exception, match="invoice|position"):
            world.chain.ledger.apply_block(world.chain.build_block(change(record, outputs=outputs)))


def test_more_outputs_than_a_batch_has_are_refused() -> None:
    world = ArmedWorld.filled()
    _, (arming,) = arm_deposit(world, 500_000)
    item = arming.arming.outputs[0]
    most = REGTEST.max_batch_inputs + REGTEST.vault_outputs
    many = tuple(replace(item, outpoint=Outpoint(Txid(bytes(32)), at)) for at in range(most + 1))
    assert refusal(world, change(world.armed.pre_sign(arming), outputs=many)) == "COUNT"
    assert refusal(world, change(world.armed.pre_sign(arming), outputs=many[1:])) == "BAD_SIGNATURE"


def test_a_record_is_taken_once_and_survives_the_wire() -> None:
    world = ArmedWorld.filled()
    _, (arming,) = arm_deposit(world, 500_000)
    record = world.armed.pre_sign(arming)
    assert decode_variant(Record, encode_variant(record)) == record
    world.chain.add(record)
    assert refusal(world, record) == "ALREADY_RECORDED"


def test_a_chain_that_arms_nothing_takes_no_arming_and_needs_none() -> None:
    world = SweepWorld.filled(500_000)
    armed = ArmedWorld.filled()
    _, (arming,) = arm_deposit(armed, 500_000)
    assert refusal(world, armed.armed.pre_sign(arming)) == "ARMING_OFF"
    assert world.ledger.list_unarmed() == ()
    coverage = world.ledger.compute_coverage()
    assert (coverage.armed, coverage.total) == (0, world.ledger.vault_total)
    assert judge_coverage(world.ledger) == ()


def test_a_sweep_arms_what_it_creates_to_the_new_standby() -> None:
    world = ArmedWorld.retiring(500_000)
    built = world.sweep()
    (arming,) = build_armings(world.ledger, built.intent)
    assert (arming.arming.epoch, arming.arming.target) == (ONE, TWO)
    assert refusal(world, endorse(world.turning.keyed[EPOCH], built.intent, world.ledger.height)) == "NOT_ARMED"
    world.chain.add(*world.armed.list_armings(built.intent))
    world.chain.add(endorse(world.turning.keyed[EPOCH], built.intent, world.ledger.height))
    assert built.intent.intent_id in world.ledger.intents


def test_a_late_deposit_is_armed_by_its_own_epoch_and_what_it_becomes_by_the_active_one() -> None:
    chain = ArmedChain.started()
    chain.add(chain.make_invoices(chain.make_terms(0)))
    chain.turn()
    intent = chain.make_transfer_of(0, [(0, 500_000)])
    armings = [item.arming for item in build_armings(chain.ledger, intent)]
    assert [(item.epoch, item.target) for item in armings] == [(EPOCH, ONE), (ONE, TWO)]
    assert [item.outputs[0].outpoint for item in armings] == [deposit_outpoint(0), Outpoint(intent.txid, 0)]
    late, created = chain.list_armings(intent)
    assert chain.refusal(late, endorse(chain.keyed[EPOCH], intent, chain.ledger.height)) == "NOT_ARMED"
    assert chain.refusal(created, endorse(chain.keyed[EPOCH], intent, chain.ledger.height)) == "NOT_ARMED"
    chain.add(late, created, endorse(chain.keyed[EPOCH], intent, chain.ledger.height))


def test_what_an_ended_intent_had_armed_serves_its_successor() -> None:
    """The same transaction, proposed at a rate that rounds to the same fee, is armed already."""
    chain = ArmedChain.started()
    chain.add(chain.make_invoices(chain.make_terms(0)))
    first = chain.make_transfer([(0, 500_000)])
    chain.record(first)
    chain.add(chain.make_withdrawal(first.intent_id))
    again = replace(first, fee_rate=FeeRate(first.fee_rate + 1))
    assert [chain.refusal(record) for record in chain.list_armings(again)] == ["ALREADY_RECORDED"]
    chain.add(endorse(chain.epoch, again, chain.ledger.height))
    chain.book(again.intent_id)


def test_a_retired_epochs_armings_are_forgotten() -> None:
    chain = hold_over(1)
    chain.book(chain.record(chain.make_sweep(0)))
    assert any(item.epoch == EPOCH for items in chain.ledger.armings.values() for item in items)
    expires = chain.entry(0).watched_until
    assert expires is not None
    chain.pulse(expires + REGTEST.confirmations + 1)
    chain.skip(2)
    assert chain.state(0) is EpochState.RETIRED
    assert {item.epoch for items in chain.ledger.armings.values() for item in items} == {ONE}


def hold_over(turns: int) -> ArmedChain:
    """Return a chain whose epoch 0 holds value that nobody swept while so many epochs turned."""
    chain = ArmedChain.started()
    chain.fund_active("alice", 500_000, 0)
    for _ in range(turns):
        chain.turn()
    chain.pulse(BTC_START + 10)
    chain.skip(2)
    return chain


def test_a_parked_target_is_stale_and_halts_new_deposits_until_it_is_renewed() -> None:
    chain = hold_over(2)
    (outpoint,) = chain.ledger.vault
    assert chain.state(1) is EpochState.PARKED  # it never held anything
    (unarmed,) = chain.ledger.list_unarmed()
    assert (unarmed.outpoint, unarmed.fault) == (outpoint, ArmingFault.TARGET_PARKED)
    coverage = chain.ledger.compute_coverage()
    assert not coverage.is_full
    assert coverage.text == "0.0000"
    (finding,) = judge_coverage(chain.ledger)
    assert finding.verdict is Verdict.FAILED
    assert str(outpoint) in finding.detail
    assert "target_parked" in finding.detail
    assert [(item.epoch, item.armed, item.total) for item in coverage.epochs] == [(EPOCH, 0, unarmed.value)]
    chain.add(chain.make_invoices(chain.make_terms(1), request_id=b"new"))
    transfer = chain.make_transfer_of(2, [(1, 600_000)])
    chain.add(*chain.list_armings(transfer))
    assert chain.refusal(endorse(chain.keyed[TWO], transfer, chain.ledger.height)) == "COVERAGE"
    chain.renew(0, [outpoint])
    assert [item.verdict for item in judge_coverage(chain.ledger)] == [Verdict.OK]
    assert [item.target for item in chain.ledger.armings[outpoint]] == [ONE, TWO]
    assert chain.ledger.compute_coverage().is_full
    chain.add(endorse(chain.keyed[TWO], transfer, chain.ledger.height))


def test_the_turn_after_leaves_an_arming_current() -> None:
    chain = hold_over(1)
    assert chain.state(1) is EpochState.ACTIVE
    assert chain.ledger.list_unarmed() == ()


def test_payouts_and_sweeps_go_on_while_credits_halt() -> None:
    chain = hold_over(2)
    assert not chain.ledger.compute_coverage().is_full
    chain.book(chain.record(chain.make_sweep(0)))
    assert chain.ledger.compute_coverage().is_full
    assert chain.ledger.money.is_balanced


def test_a_target_is_not_retired_while_an_output_ever_armed_to_it_is_unspent() -> None:
    chain = hold_over(2)
    (outpoint,) = chain.ledger.vault
    chain.renew(0, [outpoint])
    chain.skip(2)
    assert chain.state(1) is EpochState.PARKED  # the old armings could still be used
    chain.book(chain.record(chain.make_sweep(0)))
    chain.skip(2)
    assert chain.state(1) is EpochState.RETIRED


def test_an_outpoint_is_armed_as_one_output_by_its_epoch_whatever_else_e_signs() -> None:
    """Else a hostile E could record the same outpoint at every value, and every look at it would go through them."""
    chain = hold_over(1)
    (entry,) = chain.ledger.vault.values()
    honest = IntentInput(entry.outpoint, entry.value, entry.child)
    for other in (replace(honest, value=Sats(entry.value - 1)), replace(honest, child=compute_vault_index(1))):
        assert chain.refusal(chain.pre_sign(build_arming(chain.ledger, EPOCH, [other]))) == "ARMED_OTHERWISE"
    unbooked = replace(honest, outpoint=replace(entry.outpoint, vout=entry.outpoint.vout + 1))
    chain.add(chain.pre_sign(build_arming(chain.ledger, EPOCH, [unbooked])))
    beside = build_arming(chain.ledger, ONE, [replace(unbooked, value=Sats(1_000))])
    assert chain.refusal(chain.pre_sign(beside)) == "VALUE_TOO_SMALL"
    chain.add(chain.pre_sign(build_arming(chain.ledger, ONE, [replace(unbooked, value=Sats(90_000))])))
    assert [item.epoch for item in chain.ledger.armings[unbooked.outpoint]] == [EPOCH, ONE]
    assert chain.ledger.compute_coverage().is_full


def test_a_booked_output_is_armed_as_it_is_booked_and_by_no_other_epochs_e() -> None:
    chain = hold_over(1)
    (entry,) = chain.ledger.vault.values()
    booked = IntentInput(entry.outpoint, entry.value, entry.child)
    for other in (booked, replace(booked, value=Sats(entry.value - 1)), replace(booked, child=compute_vault_index(1))):
        record = chain.pre_sign(build_arming(chain.ledger, ONE, [other]))
        assert chain.refusal(record) == "BOOKED_OTHERWISE"
    elsewhere = replace(booked, outpoint=replace(entry.outpoint, vout=entry.outpoint.vout + 1))
    mixed = chain.pre_sign(build_arming(chain.ledger, ONE, [booked, elsewhere]))
    assert chain.refusal(mixed) == "BOOKED_OTHERWISE"
    chain.add(chain.pre_sign(build_arming(chain.ledger, ONE, [elsewhere])))
    assert [item.epoch for item in chain.ledger.armings[entry.outpoint]] == [EPOCH]


def test_an_epoch_arms_so_many_outputs_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = ArmedChain.started()
    monkeypatch.setattr(ledger_armings, "MAX_ARMED", 3)

    def invent(*names: int) -> ArmingRecorded:
        points = [Outpoint(Txid(bytes([name]) * 32), 0) for name in names]
        outputs = [IntentInput(point, Sats(90_000), compute_vault_index(0)) for point in points]
        return chain.pre_sign(build_arming(chain.ledger, EPOCH, outputs))

    chain.add(invent(1, 2))
    assert chain.refusal(invent(3, 4)) == "TOO_MANY_ARMED"
    chain.add(invent(2, 3))
    assert chain.refusal(invent(4)) == "TOO_MANY_ARMED"
    chain.add(invent(1))


def test_what_another_epochs_e_records_beside_a_deposit_takes_no_emergency_from_it() -> None:
    """Said to be a vault output that nobody booked, it seemed never to exist: no rejection, and its target erased."""
    world = ArmedWorld.filled(500_000)
    chain = world.armed
    _, armings = arm_deposit(world, 300_000)
    chain.add(*(chain.pre_sign(item) for item in armings))
    deposit = next(item for each in armings for item in each.arming.outputs if item.child < VAULT_RANGE_START)
    assert deposit.outpoint in chain.ledger.judgements.list_rejectable(EPOCH)
    chain.turn()
    beside = build_arming(chain.ledger, ONE, [replace(deposit, child=compute_vault_index(0))])
    chain.add(chain.pre_sign(beside))
    assert deposit.outpoint in chain.ledger.judgements.list_rejectable(EPOCH)
    assert deposit.outpoint not in chain.ledger.judgements.list_rejectable(ONE)


class ForgetfulLedger(Ledger):
    """A ledger that loses an arming: no valid chain comes to that, so the rule is the last net."""

    def lose(self, outpoint: Outpoint) -> None:
        self._tables.armings.pop(outpoint)

    def change_epoch(self, epoch: EpochNumber, **fields: object) -> None:
        self._tables.epochs[epoch] = replace(self._tables.epochs[epoch], **fields)  # type: ignore[arg-type]


class ForgetfulChain(ArmedChain):
    def __init__(self, params: Params = REGTEST, genesis: Genesis | None = None) -> None:
        super().__init__(params, genesis)
        self.ledger = ForgetfulLedger(self.epoch.genesis, params)


def test_a_booking_is_refused_while_a_vault_output_is_not_armed() -> None:
    chain = ForgetfulChain.started()
    chain.add(chain.make_invoices(chain.make_terms(0)))
    intent = chain.make_transfer([(0, 500_000)])
    chain.record(intent)
    booking = chain.sign_booking(chain.ledger.compute_booking(intent.intent_id))
    created = vault_outpoint(intent)
    assert isinstance(chain.ledger, ForgetfulLedger)
    chain.ledger.lose(created)
    with pytest.raises(Refused) as caught:
        chain.add(booking)
    assert (caught.value.rule, caught.value.code) == ("V70", "NOT_ARMED")
    chain.add(chain.pre_sign(build_arming(chain.ledger, EPOCH, list_created(intent))))
    chain.add(booking)


@pytest.mark.parametrize(
    ("fault", "fields", "is_booked"),
    [
        (ArmingFault.TARGET_PARKED, {"state": EpochState.PARKED}, True),
        (ArmingFault.TARGET_RETIRED, {"state": EpochState.RETIRED}, False),
        (ArmingFault.TARGET_REKEYED, {"preimage_hash": b"\x01" * 32}, False),
        (ArmingFault.TARGET_REKEYED, {"groups": {}}, False),
        (ArmingFault.TARGET_REKEYED, {"state": EpochState.ABORTED}, False),
    ],
)
def test_what_became_of_the_target_says_how_stale_an_arming_is(
    fault: ArmingFault, fields: dict[str, object], is_booked: bool
) -> None:
    """Only a parked target still takes what is sent to it, so a booking waits for nothing there."""
    chain = ForgetfulChain.started()
    chain.fund_active("alice", 500_000, 0)
    chain.add(chain.make_invoices(chain.make_terms(1), request_id=b"more"))
    intent = chain.make_transfer([(1, 500_000)])
    chain.record(intent)
    booking = chain.sign_booking(chain.ledger.compute_booking(intent.intent_id))
    assert isinstance(chain.ledger, ForgetfulLedger)
    chain.ledger.change_epoch(ONE, **fields)
    assert [item.fault for item in chain.ledger.list_unarmed()] == [fault]
    assert set(chain.ledger.find_unarmed(intent)) == {*intent.outpoints, vault_outpoint(intent)}
    if is_booked:
        chain.ledger.check_record(booking)
        return
    with pytest.raises(Refused) as caught:
        chain.ledger.check_record(booking)
    assert (caught.value.rule, caught.value.code) == ("V70", "NOT_ARMED")


@pytest.mark.parametrize(
    ("state", "reason"), [(EpochState.PARKED, ""), (EpochState.RETIRED, "NOT_ARMED"), (EpochState.ABORTED, "NOT_ARMED")]
)
def test_members_sign_a_booking_just_where_the_ledger_takes_it(state: EpochState, reason: str) -> None:
    chain = ForgetfulChain.started()
    world = ArmedWorld(chain, {}, {})
    built = world.record(world.transfer(world.deposit(0, 500_000)))
    facts, booking = world.booking_facts(built), world.ledger.compute_booking(built.intent.intent_id)
    assert find_rule(review_booking(world.ledger, facts, booking)) == ("", "")
    assert isinstance(chain.ledger, ForgetfulLedger)
    chain.ledger.change_epoch(ONE, state=state)
    assert find_rule(review_booking(world.ledger, facts, booking)) == ("V70" if reason else "", reason)
    if not reason:
        chain.ledger.check_record(chain.sign_booking(booking))
        return
    with pytest.raises(Refused) as refused:
        chain.ledger.check_record(chain.sign_booking(booking))
    assert refused.value.code == reason


def test_a_renewal_in_the_same_state_is_the_same_record() -> None:
    world = ArmedWorld.filled(500_000)
    outpoints = list(world.ledger.vault)
    first = build_renewal(world.ledger, EPOCH, outpoints)
    assert first == build_renewal(world.ledger, EPOCH, outpoints[::-1])
    assert not first.find_bad_signatures(world.armed.pre_sign(first).signatures)
    assert first.find_bad_signatures([]) == tuple(range(len(first.rungs)))
    assert first.find_bad_signatures((Signature(bytes(64)), *world.armed.pre_sign(first).signatures[1:])) == (0,)


def test_the_coverage_is_rounded_down_and_whole_only_when_nothing_is_missing() -> None:
    def show(armed: int, total: int) -> str:
        return Coverage((EpochCoverage(EPOCH, Sats(armed), Sats(total)),)).text

    assert (show(0, 0), show(5, 5), show(0, 5)) == ("1.0000", "1.0000", "0.0000")
    assert (show(99_999, 100_000), show(1, 3)) == ("0.9999", "0.3333")


# ------------------------------------------------------------------------------------------ a target keyed anew


def rekeyed() -> ArmedWorld:
    """Return a world whose epoch 0 is armed to keys that epoch 1 has no more: two members of its V went silent."""
    world = ArmedWorld.filled(500_000)
    chain = world.armed
    world.deposit(len(world.ledger.invoices), 300_000)
    chain.announce()
    chain.key(2)
    quiet = chain.entry(1).groups[Role.VALIDATOR].members[:2]
    while chain.state(1) is not EpochState.ABORTED:
        attest_without(chain, quiet)
    while any(chain.state(number) is not EpochState.STANDBY for number in (1, 2)):
        chain.announce()
        for number in (1, 2):
            if chain.state(number) is EpochState.ANNOUNCED:
                chain.key(number)
    assert {item.fault for item in chain.ledger.list_unarmed()} == {ArmingFault.TARGET_REKEYED}
    return world


def test_the_turn_waits_for_e_to_arm_again_and_comes_when_it_did() -> None:
    world = rekeyed()
    chain = world.armed
    chain.skip(REGTEST.epoch_blocks)
    assert "armed to keys" in world.ledger.find_turn_hindrance()
    chain.pulse()
    chain.renew(0, sorted(world.ledger.vault))
    chain.add()
    assert world.ledger.active_epoch == ONE


def test_a_turn_waits_so_long_for_an_e_that_beats_and_arms_nothing_and_not_for_ever() -> None:
    world = rekeyed()
    chain, keyed = world.armed, world.ledger.epochs[ONE].keyed
    assert keyed is not None
    chain.wait_almost(keyed, LONG - 1)
    assert "armed to keys" in world.ledger.find_turn_hindrance()
    assert world.ledger.active_epoch == 0
    chain.wait_acting(keyed, LONG)
    chain.add()
    assert world.ledger.active_epoch == ONE
    assert not world.ledger.judgements.verdicts


def test_what_that_e_left_unarmed_is_swept_by_v_and_w_while_credits_halt() -> None:
    """No rule of arming stands in the sweep's way: its inputs need none, its outputs have the new epoch's E (3.7)."""
    world = rekeyed()
    chain, keyed = world.armed, world.ledger.epochs[ONE].keyed
    assert keyed is not None
    chain.wait_acting(keyed, LONG)
    chain.add()
    chain.announce()
    for number in world.ledger.epochs:
        if chain.state(number) is EpochState.ANNOUNCED:
            chain.key(number)
    late = chain.make_transfer_of(0, [(len(world.ledger.invoices) - 1, 300_000)])
    chain.add(*chain.list_armings(late))
    assert chain.refusal(endorse(chain.keyed[EPOCH], late, chain.ledger.height)) == "COVERAGE"
    sweep = world.sweep()
    chain.add(*chain.list_armings(sweep.intent))
    assert not world.endorse(sweep).failures
    world.record(sweep)
    assert not world.review(Stage.SIGN, sweep.intent, sweep.transaction.to_bytes()).failures
    world.mine(sweep)
    assert world.ledger.compute_coverage().is_full
    chain.add(endorse(chain.keyed[EPOCH], late, chain.ledger.height))
