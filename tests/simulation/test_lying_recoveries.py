"""A coordinator that lies about a recovery, before the pods of the judged epoch: each refuses, by the lie's rule."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import pytest

from coordinator.attendance import Answered, Declined, Heard, Seat, seat_members
from coordinator.pods import Pods
from pegin.model import BuiltTransaction, compute_signing_index
from slashing.build import build_armings
from slashing.recovery.build import build_recovery
from slashing.recovery.plan import choose_recovery, list_recoverable
from smpc.params import REGTEST
from smpc.protocol.intents import Intent, IntentChoice, IntentInput, IntentKind
from smpc.protocol.ledger_state import EpochState
from smpc.protocol.pod_messages import CommitRequest, EndorseRequest, IntentSubject, Reply, Request
from smpc.protocol.session_checks import is_near_median
from smpc.types import EpochNumber, Purpose, Role, Sats, Signature
from tests.simulation.test_recovery import lose_witnesses
from tests.support.flow_world import RATE
from tests.support.groups import EPOCH, endorse, sign_with_child
from tests.support.lies import ATTACKER, add_output, change_input, change_output, change_spent
from tests.support.recovery_world import build_crowded_genesis
from tests.support.turning_world import TurningWorld, play_turning

SIGNERS: Final = (Role.VALIDATOR, Role.EMERGENCY)
SECONDS: Final = 30.0

Told = tuple[Intent, bytes]


@dataclass(slots=True)
class Stage:
    """An epoch that holds value, and whoever speaks to its pods."""

    world: TurningWorld
    pods: Pods
    honest: BuiltTransaction

    def rebuild(self, **changes: object) -> BuiltTransaction:
        """Build another choice, as a coordinator does that is consistent in its lie."""
        return build(self.world, replace(self.honest.intent.choice, **changes))  # type: ignore[arg-type]

    async def ask(self, make: Callable[[Seat], Request], roles: Sequence[Role] = SIGNERS) -> list[Heard[Reply]]:
        """Ask every member of the epoch's groups."""
        groups = self.world.ledger.epochs[EPOCH].groups
        seats = [seat for role in roles for seat in seat_members(groups[role])]
        async with asyncio.TaskGroup() as calls:
            asked = [
                calls.create_task(self.pods.hear(seat, self.pods.seal(make(seat)), seconds=SECONDS)) for seat in seats
            ]
        return [each.result() for each in asked]

    async def ask_endorsements(self, told: Told, roles: Sequence[Role] = SIGNERS) -> list[Heard[Reply]]:
        """Ask for endorsements."""
        slot, (intent, raw) = self.pods.open_slot(), told
        purpose = Purpose(intent.kind.value)
        return await self.ask(
            lambda seat: EndorseRequest(slot.open_header(seat.group, purpose, intent.intent_id, 0), intent, raw), roles
        )

    async def ask_commitments(
        self, raw: bytes, role: Role, signatures: tuple[Signature, ...] = (), attempt: int = 1
    ) -> list[Heard[Reply]]:
        """Ask a group to begin signing."""
        slot, intent = self.pods.open_slot(), self.honest.intent
        return await self.ask(
            lambda seat: CommitRequest(
                slot.open_header(seat.group, Purpose.RECOVERY, intent.intent_id, attempt),
                IntentSubject(intent, raw, signatures),
            ),
            (role,),
        )

    def sign(self, role: Role) -> tuple[Signature, ...]:
        """Return a group's signature of every input."""
        group = self.world.find_secrets(EPOCH).groups[role]
        pairs = zip(self.honest.intent.inputs, self.honest.compute_digests(), strict=True)
        return tuple(sign_with_child(group, compute_signing_index(role, item.child), digest) for item, digest in pairs)


def build(world: TurningWorld, choice: IntentChoice) -> BuiltTransaction:
    coins = [IntentInput(item.outpoint, item.value, item.child) for item in world.ledger.vault.values()]
    return build_recovery(world.ledger, choice, coins)


def tell(built: BuiltTransaction) -> Told:
    return built.intent, built.transaction.to_bytes()


def claim(stage: Stage, **changes: object) -> Told:
    intent, raw = tell(stage.honest)
    return replace(intent, **changes), raw  # type: ignore[arg-type]


def forge(stage: Stage, **changes: object) -> Told:
    """Change the first output, and let the intent's txid agree with the lie."""
    forged = change_output(stage.honest.transaction, 0, **changes)
    return replace(stage.honest.intent, txid=forged.txid), forged.to_bytes()


LIES: dict[str, tuple[Callable[[Stage], Told], str]] = {
    "pays an epoch whose turn it is not": (lambda it: tell(it.rebuild(target_epoch=EpochNumber(3))), "V77"),
    "pays an epoch that retires": (lambda it: tell(it.rebuild(target_epoch=EpochNumber(1))), "V77"),
    "pays the epoch that is to be emptied": (lambda it: claim(it, target_epoch=EPOCH), "V77"),
    "pays an epoch that nobody announced": (lambda it: claim(it, target_epoch=EpochNumber(9)), "V77"),
    "pays the coordinator's own key": (lambda it: forge(it, script=ATTACKER), "V15"),
    "keeps a satoshi of the vault": (lambda it: forge(it, value=it.honest.intent.vault_outputs[0] - 1), "V10"),
    "claims a satoshi more of an input": (
        lambda it: (change_spent(it.honest.intent, value=it.honest.intent.inputs[0].value + 1), tell(it.honest)[1]),
        "V14",
    ),
    "says another fee": (lambda it: claim(it, fee=Sats(it.honest.intent.fee + 1)), "V10"),
    "is called a sweep": (lambda it: claim(it, kind=IntentKind.SWEEP), "V06"),
    "is called a payout": (lambda it: claim(it, kind=IntentKind.PAYOUT), "V06"),
}
"""What is proposed, and a rule that every pod names."""

FORGERIES: dict[str, tuple[Callable[[Stage], bytes], str]] = {
    "moves the vault to the attacker": (
        lambda it: change_output(it.honest.transaction, 0, script=ATTACKER).to_bytes(),
        "V15",
    ),
    "adds an output": (lambda it: add_output(it.honest.transaction, 50_000, ATTACKER).to_bytes(), "V10"),
    "waits no longer than a transfer": (
        lambda it: change_input(it.honest.transaction, sequence=REGTEST.transfer_csv).to_bytes(),
        "V12",
    ),
}
"""The transaction that is to be signed is not the recorded intent's."""


Answers = dict[str, list[Heard[Reply]]]
"""What every pod said, by what it was asked."""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    said: Answers = {}

    async def story(world: TurningWorld) -> None:
        await world.peg_in(30_000_000)
        await world.kill()
        await world.reach(1)
        said["while W serves"] = await ask_honestly(propose(world))
        await lose_witnesses(world)
        world.network.faults.deaf.clear()
        await world.reach(2)
        await world.until(lambda: world.ledger.epochs[EpochNumber(3)].state is EpochState.STANDBY)
        stage = propose(world)
        world.mine(REGTEST.recovery_csv - 1 - await find_depth(world, stage))
        await come_near(world)
        said["while locked"] = await ask_honestly(stage)
        world.mine(1)
        await come_near(world)
        for name, (lie, _) in LIES.items():
            said[name] = await stage.ask_endorsements(lie(stage))
        said["of W"] = await ask_honestly(stage, (Role.WITNESS,))
        said["honest"] = await ask_honestly(stage)
        await ask_to_sign(world, stage, said)

    play_turning(story, tmp_path_factory.mktemp("liar"), build_crowded_genesis())
    return said


async def ask_honestly(stage: Stage, roles: Sequence[Role] = SIGNERS) -> list[Heard[Reply]]:
    """Ask for endorsements of the recovery as it should be."""
    return await stage.ask_endorsements(tell(stage.honest), roles)


async def ask_to_sign(world: TurningWorld, stage: Stage, said: Answers) -> None:
    """Ask before the record, and after it for forgeries, for E's turn before V's, and as it should be."""
    raw = stage.honest.transaction.to_bytes()
    said["unrecorded"] = await stage.ask_commitments(raw, Role.VALIDATOR)
    await record(world, stage.honest.intent)
    for name, (lie, _) in FORGERIES.items():
        said[name] = await stage.ask_commitments(lie(stage), Role.VALIDATOR)
    said["E without V"] = await stage.ask_commitments(raw, Role.EMERGENCY)
    said["E with its own"] = await stage.ask_commitments(raw, Role.EMERGENCY, stage.sign(Role.EMERGENCY), 2)
    said["V"] = await stage.ask_commitments(raw, Role.VALIDATOR, (), 3)
    said["E"] = await stage.ask_commitments(raw, Role.EMERGENCY, stage.sign(Role.VALIDATOR), 4)


def propose(world: TurningWorld) -> Stage:
    """Return the recovery of all that epoch 0 holds, whether its time has come or not."""
    ledger = world.ledger
    items = list_recoverable(ledger, EPOCH, ledger.vault)
    honest = build(world, choose_recovery(ledger, EPOCH, items, RATE))
    return Stage(world, Pods(world.network, world.epoch.coordinator, lambda: world.ledger), honest)


async def come_near(world: TurningWorld) -> None:
    """Let heartbeats tell the Bitcoin height of now."""
    tip = (await world.bitcoin.fetch_tip()).height
    await world.until(lambda: is_near_median(world.ledger, tip))


async def find_depth(world: TurningWorld, stage: Stage) -> int:
    """Return how deep the youngest output is."""
    outputs = [
        await world.bitcoin.fetch_output(item.outpoint, include_mempool=False) for item in stage.honest.intent.inputs
    ]
    return min(output.confirmations for output in outputs if output is not None)


async def record(world: TurningWorld, intent: Intent) -> None:
    """Arm and record the intent, and let its window pass."""
    for built in build_armings(world.ledger, intent):
        group = world.find_secrets(built.arming.epoch).groups[Role.EMERGENCY]
        signatures = [sign_with_child(group, child, digest) for child, digest in built.list_tasks()]
        await world.advance(1, built.to_record(signatures))
    await world.advance(1, endorse(world.find_secrets(EPOCH), intent, world.consensus.ledger.height))
    await world.until(lambda: intent.intent_id in world.ledger.intents)
    recorded = world.ledger.intents[intent.intent_id].recorded
    await world.until(lambda: REGTEST.is_window_over(recorded, world.ledger.height))


def assert_all_name(heard: list[Heard[Reply]], rule: str, reason: str = "") -> None:
    assert heard
    for answer in heard:
        assert isinstance(answer, Declined), answer
        assert rule in answer.refusal.rules, answer.refusal
        assert not reason or answer.refusal.reason == reason, answer.refusal


def test_while_w_serves_every_pod_refuses_to_move_anything_without_it(answers: Answers) -> None:
    assert_all_name(answers["while W serves"], "V77")
    assert_all_name(answers["while W serves"], "V06")


def test_one_block_before_the_lock_opens_every_pod_refuses(answers: Answers) -> None:
    assert len(answers["while locked"]) == 8
    assert_all_name(answers["while locked"], "V77", "LOCK_NOT_PASSED")


def test_the_honest_recovery_is_endorsed_by_v_and_e_and_by_nobody_of_w(answers: Answers) -> None:
    assert all(isinstance(answer, Answered) for answer in answers["honest"]), answers["honest"]
    assert len(answers["honest"]) == 8
    assert_all_name(answers["of W"], "V06", "WRONG_GROUP")


@pytest.mark.parametrize("lie", LIES)
def test_every_pod_refuses_to_endorse_a_recovery_that(answers: Answers, lie: str) -> None:
    assert_all_name(answers[lie], LIES[lie][1])


def test_nobody_signs_before_the_record(answers: Answers) -> None:
    assert_all_name(answers["unrecorded"], "V21")


@pytest.mark.parametrize("forgery", FORGERIES)
def test_every_pod_refuses_to_sign_a_transaction_that(answers: Answers, forgery: str) -> None:
    assert_all_name(answers[forgery], FORGERIES[forgery][1])


def test_e_signs_after_v_and_never_before(answers: Answers) -> None:
    assert_all_name(answers["E without V"], "V11")
    assert_all_name(answers["E with its own"], "V11")
    assert all(isinstance(answer, Answered) for answer in answers["V"]), answers["V"]
    assert all(isinstance(answer, Answered) for answer in answers["E"]), answers["E"]
