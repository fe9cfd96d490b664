"""What the ledger does with evidence of a group's signature: whom it jails, what it releases, what it lets pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from smpc.bitcoin.script import Leaf
from smpc.bitcoin.transaction import TxOut, parse_transaction
from smpc.errors import Refused
from smpc.protocol.codec import encode
from smpc.protocol.emergency import build_emergency, build_target
from smpc.protocol.evidence import MAX_BUNDLE_SIZE
from smpc.protocol.intents import IntentInput
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_offences import apply_evidence_recorded
from smpc.protocol.ledger_punishments import FOREVER
from smpc.protocol.ledger_state import EpochState, IntentStatus
from smpc.protocol.spend_evidence import UnauthorisedSpend
from smpc.protocol.spend_sighting import find_shown_evidence
from smpc.protocol.verdict_records import EvidenceRecorded
from smpc.protocol.verdict_state import Cause, Misdeed, Penalty
from smpc.types import EpochNumber, IdentityKey, KaonHeight, Role, Sats
from tests.support.armed_world import ArmedWorld
from tests.support.evidence_world import EvidenceWorld
from tests.support.groups import EPOCH, make_xonly
from tests.support.sweep_world import SweepWorld
from tests.support.thefts import Theft, steal_vault

V, W = Role.VALIDATOR, Role.WITNESS
ONE = EpochNumber(1)


def theft(world: ArmedWorld, leaf: Leaf = Leaf.TRANSFER) -> Theft:
    return steal_vault(world.ledger, world.armed.keyed[EPOCH], leaf)


def refusal(world: SweepWorld, evidence: UnauthorisedSpend) -> str:
    return world.chain.refusal(EvidenceRecorded(evidence))


def list_punished(ledger: Ledger) -> set[IdentityKey]:
    """Return who was jailed for a group's signature; nobody is ever slashed for one."""
    everything = [item for items in ledger.judgements.punishments.values() for item in items]
    assert all(item.penalty is Penalty.JAILED and not item.stake for item in everything)
    return {item.identity for item in everything if item.misdeed is Misdeed.GROUP_SIGNATURE}


def members(world: ArmedWorld, *roles: Role) -> set[IdentityKey]:
    return {member for role in roles for member in world.ledger.epochs[EPOCH].groups[role].members}


def test_a_spend_that_nothing_records_jails_both_groups_and_releases_the_epoch() -> None:
    world = ArmedWorld.filled(500_000)
    accused = theft(world)
    record = EvidenceRecorded(accused.accuse(V, W))
    world.chain.add(record)
    assert list_punished(world.ledger) == members(world, V, W)
    assert world.ledger.epochs[EPOCH].released == world.ledger.height
    verdict = world.ledger.judgements.verdicts[EPOCH, V]
    assert verdict.cause is Cause.UNAUTHORISED_SPEND
    assert world.ledger.judgements.unauthorised == {
        (EPOCH, V): accused.transaction.txid,
        (EPOCH, W): accused.transaction.txid,
    }
    for items in world.ledger.judgements.punishments.values():
        assert [item.evidence for item in items] == [record.record_id]
    assert world.ledger.judgements.verdicts[EPOCH, W].cause is Cause.UNAUTHORISED_SPEND


def test_v_alone_is_judged_for_what_it_signed_alone() -> None:
    world = ArmedWorld.filled(500_000)
    world.chain.add(EvidenceRecorded(theft(world).accuse(V)))
    assert list_punished(world.ledger) == members(world, V)
    world.chain.add()
    assert set(world.ledger.judgements.verdicts) == {(EPOCH, V)}


@pytest.mark.parametrize("leaf", [Leaf.TRANSFER, Leaf.REJECTION])
def test_w_alone_is_jailed_and_can_sign_no_more(leaf: Leaf) -> None:
    world = ArmedWorld.filled(500_000)
    world.chain.add(EvidenceRecorded(theft(world, leaf).accuse(W)))
    assert list_punished(world.ledger) == members(world, W)
    world.chain.add()
    assert {key: item.cause for key, item in world.ledger.judgements.verdicts.items()} == {
        (EPOCH, W): Cause.UNAUTHORISED_SPEND
    }


def test_a_recovery_that_nothing_records_is_v_s_offence() -> None:
    world = ArmedWorld.filled(500_000)
    world.chain.add(EvidenceRecorded(theft(world, Leaf.RECOVERY).accuse(V)))
    assert set(world.ledger.judgements.verdicts) == {(EPOCH, V)}


def test_the_same_groups_are_not_punished_twice_whatever_else_they_signed() -> None:
    world = ArmedWorld.filled(500_000)
    first = theft(world)
    second = first.pay(TxOut(Sats(1_000), first.prevout.script))
    world.chain.add(EvidenceRecorded(first.accuse(V)))
    for again, code in ((first.accuse(V), "ALREADY_RECORDED"), (second.accuse(V), "PUNISHED_ALREADY")):
        assert refusal(world, again) == code
    world.chain.add(EvidenceRecorded(second.accuse(V, W)))
    assert list_punished(world.ledger) == members(world, V, W)
    assert world.ledger.judgements.unauthorised[EPOCH, V] == first.transaction.txid
    assert world.ledger.judgements.unauthorised[EPOCH, W] == second.transaction.txid
    assert all(len(items) == 1 for items in world.ledger.judgements.punishments.values())


@pytest.mark.parametrize("left", [0, 30])
def test_who_serves_a_term_serves_the_one_for_the_group_s_signature_after_it(left: int) -> None:
    """A group's signature is judged once: whose term ends with that very block must not go free."""
    world = ArmedWorld.filled(500_000)
    tables = world.ledger._tables  # noqa: SLF001 - only a test may
    who = min(members(world, W))
    ends = KaonHeight(world.ledger.height + 1 + left)
    tables.jailed[who] = ends
    world.chain.add(EvidenceRecorded(theft(world).accuse(W)))
    assert list_punished(world.ledger) == members(world, W)
    (item,) = world.ledger.judgements.punishments[who]
    assert (item.recorded, item.until) == (world.ledger.height, ends + world.ledger.params.epoch_blocks)
    world.chain.skip(left + 1)
    assert not members(world, W) & set(world.ledger.stakes)


def test_nothing_is_added_to_a_term_that_never_ends() -> None:
    world = ArmedWorld.filled(500_000)
    tables = world.ledger._tables  # noqa: SLF001 - only a test may
    who = min(members(world, W))
    tables.jailed[who] = FOREVER
    world.chain.add(EvidenceRecorded(theft(world).accuse(W)))
    assert list_punished(world.ledger) == members(world, W) - {who}
    assert tables.jailed[who] == FOREVER


@pytest.mark.parametrize("role", [V, W])
def test_a_parked_epoch_s_group_is_judged_at_once_and_stays_so_when_value_comes(role: Role) -> None:
    world = ArmedWorld.filled(500_000)
    signed = theft(world).accuse(role)
    tables = world.ledger._tables  # noqa: SLF001 - only a test may
    tables.epochs[EPOCH] = replace(tables.epochs[EPOCH], state=EpochState.PARKED, ended=KaonHeight(1))
    tables.head = replace(tables.head, active_epoch=ONE)
    tables.epochs[ONE] = replace(tables.epochs[ONE], state=EpochState.ACTIVE, activated=world.ledger.height)
    apply_evidence_recorded(tables, EvidenceRecorded(signed))
    assert {key: item.cause for key, item in world.ledger.judgements.verdicts.items()} == {
        (EPOCH, role): Cause.UNAUTHORISED_SPEND
    }
    assert world.ledger.epochs[EPOCH].is_convicted


# ------------------------------------------------------------------------------------------ recorded, or not


def test_a_recorded_transaction_is_no_offence_and_the_same_one_unrecorded_is() -> None:
    world = ArmedWorld.filled(500_000)
    index = len(world.ledger.invoices)
    built = world.transfer(world.deposit(index, 200_000))
    evidence = find_shown_evidence(world.ledger, built.intent, built.transaction.to_bytes(), world.sign(built, V))
    assert evidence is not None
    other = ArmedWorld.filled(500_000)
    other.deposit(index, 200_000)
    world.record(built)
    assert refusal(world, evidence) == "SPEND_ALLOWED"
    world.mine(built)
    assert refusal(world, evidence) == "SPEND_ALLOWED"
    assert not list_punished(world.ledger)
    other.chain.add(EvidenceRecorded(evidence))
    assert list_punished(other.ledger) == members(other, V)


def test_nobody_makes_an_offence_of_a_recorded_transaction_by_adding_to_it() -> None:
    """A scriptSig changes the txid and no digest: once both groups signed, anyone could have them jailed for it."""
    world = ArmedWorld.filled(500_000)
    built = world.transfer(world.deposit(len(world.ledger.invoices), 200_000))
    evidence = find_shown_evidence(world.ledger, built.intent, built.transaction.to_bytes(), world.sign(built, V))
    assert evidence is not None
    world.record(built)
    signed = parse_transaction(evidence.transaction)
    inputs = tuple(replace(item, script_sig=b"\x51") for item in signed.inputs)
    forged = replace(evidence, transaction=replace(signed, inputs=inputs).to_bytes())
    assert refusal(world, forged) == "NOT_PROVEN"


@pytest.mark.parametrize(
    ("status", "is_allowed"),
    [(status, status not in {IntentStatus.VOID, IntentStatus.WITHDRAWN}) for status in IntentStatus],
)
def test_only_an_intent_that_no_share_may_have_left_for_makes_its_transaction_an_offence(
    status: IntentStatus, is_allowed: bool
) -> None:
    world = ArmedWorld.filled(500_000)
    built = world.record(world.transfer(world.deposit(len(world.ledger.invoices), 200_000)))
    evidence = find_shown_evidence(world.ledger, built.intent, built.transaction.to_bytes(), world.sign(built, V))
    assert evidence is not None
    force_status(world, built.intent.intent_id, status)
    if is_allowed:
        assert refusal(world, evidence) == "SPEND_ALLOWED"
    else:
        world.chain.add(EvidenceRecorded(evidence))
        assert list_punished(world.ledger) == members(world, V)


def force_status(world: ArmedWorld, intent: bytes, status: IntentStatus) -> None:
    """Put an intent into a state without its whole story; each story is told in the tests of intents."""
    tables = world.ledger._tables  # noqa: SLF001 - only a test may
    (key,) = (known for known in tables.intents if known == intent)
    tables.intents[key] = replace(tables.intents[key], status=status)


def test_a_withdrawn_intent_s_transaction_is_an_offence() -> None:
    world = ArmedWorld.filled(500_000)
    built = world.record(world.transfer(world.deposit(len(world.ledger.invoices), 200_000)))
    world.chain.add(world.chain.make_withdrawal(built.intent.intent_id))
    shown = find_shown_evidence(world.ledger, built.intent, built.transaction.to_bytes(), world.sign(built, V))
    assert shown is not None
    world.chain.add(EvidenceRecorded(shown))
    assert list_punished(world.ledger) == members(world, V)


# ------------------------------------------------------------------------------------------ emergencies


def emergency(world: ArmedWorld) -> Theft:
    """Return W's signature of the first rung that E armed of the vault output."""
    plain = theft(world, Leaf.REJECTION)
    output = IntentInput(plain.outpoint, plain.value, plain.child)
    target = build_target(world.ledger.params, world.ledger.epochs[ONE])
    rung = build_emergency(world.ledger, EPOCH, output, target).rungs[0]
    return replace(plain, unsigned=rung.transaction)


def test_an_emergency_before_its_release_is_w_s_offence() -> None:
    world = ArmedWorld.filled(500_000)
    world.chain.add(EvidenceRecorded(emergency(world).accuse(W)))
    assert list_punished(world.ledger) == members(world, W)


def test_the_same_emergency_after_the_release_is_not() -> None:
    world = ArmedWorld.filled(500_000)
    signed = emergency(world).accuse(W)
    world.chain.add(EvidenceRecorded(theft(world).accuse(V)))
    assert refusal(world, signed) == "SPEND_ALLOWED"
    assert list_punished(world.ledger) == members(world, V)


def test_another_rejection_after_the_release_is_w_s_offence() -> None:
    """W signs what E armed and nothing else, whoever was judged."""
    world = ArmedWorld.filled(500_000)
    world.chain.add(EvidenceRecorded(theft(world).accuse(V)))
    world.chain.add(EvidenceRecorded(theft(world, Leaf.REJECTION).accuse(W)))
    assert list_punished(world.ledger) == members(world, V, W)


# ------------------------------------------------------------------------------------------ what is not about us


def test_foreign_keys_and_other_epochs_are_refused() -> None:
    world = ArmedWorld.filled(500_000)
    evidence = theft(world).accuse(V)
    for epoch in (ONE, EpochNumber(7)):
        assert refusal(world, replace(evidence, output=replace(evidence.output, epoch=epoch))) == "NOT_ANCHORED"
    broken = replace(evidence, validator_signature=bytes(64))
    assert refusal(world, broken) == "BAD_SIGNATURE"
    assert not world.ledger.judgements.punishments


def test_a_chain_that_arms_nothing_judges_nobody() -> None:
    world, plain = ArmedWorld.filled(500_000), SweepWorld.filled(500_000)
    assert refusal(plain, theft(world).accuse(V, W)) == "NO_EMERGENCY"


async def test_a_member_s_own_offence_slashes_it_alone_and_once(tmp_path: Path) -> None:
    world = ArmedWorld.filled()
    pods = EvidenceWorld(tmp_path, world)
    guilty = pods.wrong_share(1, (await pods.run(pods.first, 1, (0, 1, 2)))[1])
    accused = pods.group.info.members[1]
    world.chain.add(EvidenceRecorded(guilty))
    (item,) = world.ledger.judgements.punishments[accused]
    assert (item.penalty, item.misdeed, item.stake, item.until) == (Penalty.SLASHED, Misdeed.OFFENCE, 1_000, None)
    assert set(world.ledger.judgements.punishments) == {accused}
    again = pods.wrong_share(1, (await pods.run(pods.second, 1, (0, 1, 2)))[1])
    assert world.chain.refusal(EvidenceRecorded(again)) == "SLASHED_ALREADY"
    honest = replace(again, answer=(await pods.run(pods.second, 2, (0, 1, 2)))[1])
    assert world.chain.refusal(EvidenceRecorded(honest)) == "NOT_PROVEN"


async def test_what_no_group_of_this_ledger_can_have_signed_is_not_even_proven(tmp_path: Path) -> None:
    """Whoever makes up keys makes up groups of any size, and every proof begins with the group's whole ceremony."""
    world = ArmedWorld.filled()
    pods = EvidenceWorld(tmp_path, world)
    guilty = pods.wrong_share(1, (await pods.run(pods.first, 1, (0, 1, 2)))[1])
    for recovery in (b"", b"\x01" * 100_000, pods.epoch.groups[W].info.recovery_data):
        forged = replace(guilty, member=replace(guilty.member, recovery_data=recovery))
        assert world.chain.refusal(EvidenceRecorded(forged)) == "NOT_ANCHORED"
    task = guilty.answer.tasks[0]
    least = MAX_BUNDLE_SIZE // len(encode(task))
    large = replace(guilty, answer=replace(guilty.answer, tasks=(task,) * least))
    assert world.chain.refusal(EvidenceRecorded(large)) == "TOO_LARGE"
    half = replace(guilty, answer=replace(guilty.answer, tasks=(task,) * (least // 4)))
    assert world.chain.refusal(EvidenceRecorded(half)) == "NOT_PROVEN"
    world.chain.add(EvidenceRecorded(guilty))


def test_a_standby_group_that_signs_is_jailed_and_its_epoch_drawn_again() -> None:
    """It has no outputs; what it signed spends something that it says there is."""
    world = ArmedWorld.filled(500_000)
    plain = theft(world)
    signed = replace(plain, keyed=world.armed.keyed[ONE])
    world.chain.add(EvidenceRecorded(signed.accuse(V)))
    assert (ONE, V) not in world.ledger.judgements.verdicts
    assert list_punished(world.ledger) == set(world.armed.keyed[ONE].groups[V].info.members)


def test_what_a_member_cannot_have_signed_convicts_no_group() -> None:
    world = ArmedWorld.filled(500_000)
    evidence = theft(world).accuse(V)
    with pytest.raises(Refused):
        world.ledger.apply_block(
            world.chain.build_block(
                EvidenceRecorded(replace(evidence, validator_signature=make_xonly("x") + make_xonly("y")))
            )
        )


# ------------------------------------------------------------------------------------------ finality


def test_who_is_jailed_just_now_votes_until_that_is_final_and_no_longer() -> None:
    """Two groups of four are half of sixteen: without their votes nothing would be final any more."""
    world = ArmedWorld.filled(500_000)
    everyone = set(world.ledger.voting_stakes)
    world.chain.add(EvidenceRecorded(theft(world).accuse(V, W)))
    guilty = members(world, V, W)
    assert set(world.ledger.voting_stakes) == everyone
    assert set(world.ledger.stakes) == everyone - guilty
    numbers = range(len(everyone))
    world.armed.finalise_by(numbers[:11])
    assert world.ledger.final_height >= world.ledger.judgements.verdicts[EPOCH, V].recorded
    assert set(world.ledger.voting_stakes) == everyone - guilty
