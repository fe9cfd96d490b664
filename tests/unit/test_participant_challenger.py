"""What a pod objects to, what it leaves alone, and what a challenge does to those who sign."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pegin.model import BuiltTransaction
from smpc.participant.challenger import OBJECTIONS, find_objection, is_seated, review_recorded
from smpc.protocol.end_records import ChallengeRaised
from smpc.protocol.facts import Facts
from smpc.protocol.intents import IntentKind
from smpc.protocol.pod_messages import CommitReply, Refusal
from smpc.protocol.review import RULES, Stage
from smpc.protocol.service import list_overdue
from smpc.protocol.verdict_records import ServiceComplaint
from smpc.types import ChildIndex, EpochNumber, FeeRate, IdentityKey, Network, Purpose, Role, Sats, Signature, Txid
from tests.support.armed_world import ArmedWorld
from tests.support.groups import make_xonly, sign
from tests.support.pod_world import PodWorld
from tests.support.turning_chain import list_identities, list_secrets

V, W = Role.VALIDATOR, Role.WITNESS


def objection(world: ArmedWorld, built: BuiltTransaction, facts: Facts | None = None) -> str:
    known = facts or world.facts(built.intent)
    found = find_objection(review_recorded(world.ledger, known, built.intent))
    return "" if found is None else f"{found.rule} {found.reason}"


def change(built: BuiltTransaction, **fields: object) -> BuiltTransaction:
    return replace(built, intent=replace(built.intent, **fields))  # type: ignore[arg-type]


def test_every_objection_is_a_reason_of_its_rule() -> None:
    for rule, reasons in OBJECTIONS.items():
        assert reasons <= set(RULES[rule].reasons), rule


def test_an_honest_intent_meets_no_objection_before_and_after_its_record() -> None:
    world = ArmedWorld.filled(500_000)
    built = world.transfer(world.deposit(1, 90_000))
    assert objection(world, built) == ""
    world.record(built)
    assert objection(world, built) == ""


def test_what_no_time_heals_is_objected_to() -> None:
    world = ArmedWorld.filled(500_000)
    built = world.transfer(world.deposit(1, 90_000))
    item = built.intent.inputs[0]
    gone = replace(world.facts(built.intent), inputs={})
    assert objection(world, built, gone) == "V14 INPUT_MISSING"
    assert objection(world, change(built, txid=Txid(bytes(32)))) == "V10 NOT_REBUILT"
    assert objection(world, change(built, inputs=(replace(item, value=Sats(90_001)),))) == "V14 AMOUNT_MISMATCH"
    assert objection(world, change(built, inputs=(replace(item, child=ChildIndex(0)),))).startswith("V14")
    assert objection(world, change(built, vault_outputs=(Sats(9_999),))) == "V17 DUST"


def test_what_differs_honestly_between_pods_is_left_alone() -> None:
    world = ArmedWorld.filled(500_000)
    built = world.transfer(world.deposit(1, 90_000), rate=FeeRate(9_000))
    facts = world.facts(built.intent)
    (outpoint, found) = next(
        (key, item) for key, item in facts.inputs.items() if key == built.intent.inputs[0].outpoint
    )
    for other in (
        replace(facts, inputs={outpoint: replace(found, confirmations=1)}),
        replace(facts, inputs={outpoint: replace(found, spender=Txid(bytes(32)))}),
        replace(facts, node=replace(facts.node, fee_estimate=FeeRate(1_000))),
        replace(facts, session=replace(facts.session, leader=None, own_group=None, is_key_ready=False)),
        replace(facts, conflicts=("something of mine",)),
    ):
        assert objection(world, built, other) == ""


def test_a_pod_whose_nodes_are_behind_or_contradict_objects_to_nothing() -> None:
    world = ArmedWorld.filled(500_000)
    built = world.transfer(world.deposit(1, 90_000))
    facts = replace(world.facts(built.intent), inputs={})
    behind = replace(facts, node=replace(facts.node, is_synced=False))
    doubtful = replace(facts, session=replace(facts.session, doubt="NOTARISATION_UNKNOWN"))
    assert objection(world, built, facts)
    assert objection(world, built, behind) == ""
    assert objection(world, built, doubtful) == ""


def test_only_who_sits_in_a_group_that_is_not_over_looks() -> None:
    world = ArmedWorld.filled()
    seated = {member for entry in world.ledger.epochs.values() for keys in entry.members.values() for member in keys}
    assert all(is_seated(world.ledger, member) for member in seated)
    assert not is_seated(world.ledger, IdentityKey(make_xonly("a stranger")))


# ------------------------------------------------------------------------------------------ who signs


def challenge(built: BuiltTransaction, by: int) -> ChallengeRaised:
    unsigned = ChallengeRaised(
        Network.REGTEST, built.intent.intent_id, list_identities()[by], "V14", "not on my chain", Signature(bytes(64))
    )
    return replace(unsigned, signature=sign(list_secrets()[by], unsigned.digest))


def record_challenged(world: ArmedWorld, built: BuiltTransaction, by: range) -> None:
    """Record an intent, challenge it in its window, and let the window pass."""
    world.armed.record(built.intent)
    world.chain.add(*(challenge(built, number) for number in by))
    world.chain.skip(8)


@pytest.mark.parametrize(("count", "is_signed"), [(0, True), (5, True), (6, False)])
def test_nobody_signs_what_more_than_a_third_of_the_stake_challenged(count: int, is_signed: bool) -> None:
    """Even a member whose own node shows nothing wrong; one third is five of sixteen and a bit."""
    world = ArmedWorld.filled(500_000)
    built = world.transfer(world.deposit(1, 90_000))
    record_challenged(world, built, range(count))
    raw = built.transaction.to_bytes()
    for role in (V, W):
        shown = world.sign(built, V) if role is W else ()
        refusal = world.review(Stage.SIGN, built.intent, raw, world.facts(built.intent, role), shown).refusal()
        assert (refusal is None) is is_signed
        if refusal is not None:
            assert (refusal.rule, refusal.reason) == ("V21", "CHALLENGED")


async def test_a_pod_that_challenged_an_intent_does_not_sign_it_later(tmp_path: Path) -> None:
    world = ArmedWorld.filled(500_000)
    built = world.transfer(world.deposit(1, 90_000))
    pods = PodWorld(world, tmp_path)
    mine = list_identities().index(pods.pods[V, 0].ring.identity)
    record_challenged(world, built, range(mine, mine + 1))
    header = pods.header(V, Purpose.TRANSFER, built.intent.intent_id)
    first = await pods.commit(pods.pods[V, 0], pods.subject(built), header)
    other = await pods.commit(pods.pods[V, 1], pods.subject(built), header)
    assert isinstance(first, Refusal)
    assert (first.rule, first.reason) == ("V21", "CHALLENGED")
    assert isinstance(other, CommitReply)


@pytest.mark.parametrize(("is_recorded", "is_signed"), [(True, True), (False, True), (False, False)])
async def test_w_keeps_what_v_signed_without_a_record(tmp_path: Path, is_recorded: bool, is_signed: bool) -> None:
    world = ArmedWorld.filled(500_000)
    built = world.transfer(world.deposit(1, 90_000))
    pods = PodWorld(world, tmp_path)
    if is_recorded:
        world.record(built)
    signatures = world.sign(built, V) if is_signed else (Signature(bytes(64)),)
    header = pods.header(W, Purpose.TRANSFER, built.intent.intent_id)
    reply = await pods.commit(pods.pods[W, 0], pods.subject(built, signatures), header)
    assert isinstance(reply, CommitReply) is is_recorded
    assert [item.validator_signature for item in pods.reported] == list(
        signatures if is_signed and not is_recorded else ()
    )
    assert all(item.output.epoch == EpochNumber(0) for item in pods.reported)
    assert built.intent.kind is IntentKind.TRANSFER


# ------------------------------------------------------------------------------------------ and who is blamed for it


@pytest.mark.parametrize(("count", "code"), [(5, "NOT_OVERDUE"), (6, "NOTHING_DUE")])
def test_nobody_is_blamed_for_not_signing_what_is_contested(count: int, code: str) -> None:
    world = ArmedWorld.filled(500_000)
    built = world.transfer(world.deposit(1, 90_000))
    record_challenged(world, built, range(count))
    accuser = world.ledger.epochs[EpochNumber(0)].groups[W].members[0]
    unsigned = ServiceComplaint(
        Network.REGTEST, EpochNumber(0), V, built.intent.intent_id, accuser, Signature(bytes(64))
    )
    secret = list_secrets()[list_identities().index(accuser)]
    assert world.chain.refusal(replace(unsigned, signature=sign(secret, unsigned.digest))) == code
    world.turning.finalise_to(world.ledger.height + 2 * world.ledger.params.silence_blocks)
    subjects = {item.subject for item in list_overdue(world.ledger, accuser)}
    assert (built.intent.intent_id in subjects) is (count == 5)
