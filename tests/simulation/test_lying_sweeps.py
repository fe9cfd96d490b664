"""A coordinator that lies about a sweep, before the pods of the retiring epoch: each refuses, by the lie's rule."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import pytest

from coordinator.attendance import Answered, Declined, Heard, Seat, seat_members
from coordinator.pods import Pods
from pegin.model import BuiltTransaction
from smpc.params import REGTEST
from smpc.protocol.intents import Commission, Intent, IntentInput
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import EpochState
from smpc.protocol.notarisation import build_op_return, find_notarisation
from smpc.protocol.pod_messages import CommitRequest, EndorseRequest, IntentSubject, Reply, Request
from smpc.protocol.session_checks import is_near_median
from smpc.types import EpochNumber, KaonHash, Outpoint, Purpose, Role, Sats, Script
from sweep.build import build_sweep
from sweep.plan import plan_sweep
from tests.support.chain import destination
from tests.support.flow_world import RATE
from tests.support.groups import EPOCH, endorse
from tests.support.lies import ATTACKER, add_output, change_input, change_output, change_spent
from tests.support.sweep_world import RICH
from tests.support.turning_world import TurningWorld, play_turning

SIGNERS: Final = (Role.VALIDATOR, Role.WITNESS)
SECONDS: Final = 30.0


@dataclass(slots=True)
class Stage:
    """A retiring epoch with a commission due, a burn that waits for its sweep, and a mature late deposit."""

    world: TurningWorld
    pods: Pods
    honest: BuiltTransaction
    stale: Script
    """What a sweep had to notarise before the last turn."""
    deposit: IntentInput

    def rebuild(self, **changes: object) -> BuiltTransaction:
        """Build another choice, as a coordinator does that is consistent in its lie."""
        choice = replace(self.honest.intent.choice, **changes)  # type: ignore[arg-type]
        coins = [IntentInput(item.outpoint, item.value, item.child) for item in self.world.ledger.vault.values()]
        return build_sweep(self.world.ledger, choice, coins)

    async def ask(self, make: Callable[[Seat], Request], roles: Sequence[Role] = SIGNERS) -> list[Heard[Reply]]:
        """Ask every member of the retiring epoch's groups."""
        groups = self.world.ledger.epochs[EPOCH].groups
        seats = [seat for role in roles for seat in seat_members(groups[role])]
        async with asyncio.TaskGroup() as calls:
            asked = [
                calls.create_task(self.pods.hear(seat, self.pods.seal(make(seat)), seconds=SECONDS)) for seat in seats
            ]
        return [each.result() for each in asked]

    async def ask_endorsements(self, intent: Intent, raw: bytes) -> list[Heard[Reply]]:
        """Ask for endorsements."""
        slot = self.pods.open_slot()
        return await self.ask(
            lambda seat: EndorseRequest(slot.open_header(seat.group, Purpose.SWEEP, intent.intent_id, 0), intent, raw)
        )

    async def ask_commitments(self, intent: Intent, raw: bytes) -> list[Heard[Reply]]:
        """Ask V to begin signing."""
        slot = self.pods.open_slot()
        return await self.ask(
            lambda seat: CommitRequest(
                slot.open_header(seat.group, Purpose.SWEEP, intent.intent_id, 1), IntentSubject(intent, raw, ())
            ),
            (Role.VALIDATOR,),
        )


Told = tuple[Intent, bytes]


def tell(built: BuiltTransaction) -> Told:
    return built.intent, built.transaction.to_bytes()


def pay_commission(stage: Stage, change: Callable[[Commission], Commission]) -> Told:
    first, *rest = stage.honest.intent.commissions
    return tell(stage.rebuild(commissions=(change(first), *rest)))


def notarise(stage: Stage, **changes: object) -> Told:
    found = find_notarisation(stage.honest.intent.op_return)
    assert found is not None
    return tell(stage.rebuild(op_return=build_op_return(replace(found, **changes))))  # type: ignore[arg-type]


def claim(stage: Stage, **changes: object) -> Told:
    intent, raw = tell(stage.honest)
    return replace(intent, **changes), raw  # type: ignore[arg-type]


def forge(stage: Stage, place: int, **changes: object) -> Told:
    """Change an output, and let the intent's txid agree with the lie."""
    forged = change_output(stage.honest.transaction, place, **changes)
    return replace(stage.honest.intent, txid=forged.txid), forged.to_bytes()


def mix_deposit_in(stage: Stage) -> Told:
    spent = sorted((*stage.honest.intent.inputs, stage.deposit), key=lambda item: item.outpoint)
    return claim(stage, inputs=tuple(spent))


LIES: dict[str, tuple[Callable[[Stage], Told], str]] = {
    "leaves a vault output out": (lambda it: tell(it.rebuild(outpoints=sorted(it.honest.intent.outpoints)[1:])), "V53"),
    "pays a member one satoshi more": (
        lambda it: pay_commission(it, lambda one: replace(one, amount=Sats(one.amount + 1))),
        "V52",
    ),
    "pays a member one satoshi less": (
        lambda it: pay_commission(it, lambda one: replace(one, amount=Sats(one.amount - 1))),
        "V52",
    ),
    "pays a commission elsewhere": (lambda it: pay_commission(it, lambda one: replace(one, script=ATTACKER)), "V52"),
    "pays no commission": (lambda it: tell(it.rebuild(commissions=())), "V52"),
    "pays an epoch whose turn it is not": (lambda it: tell(it.rebuild(target_epoch=EpochNumber(3))), "V50"),
    "pays an epoch without certified groups": (lambda it: claim(it, target_epoch=EpochNumber(4)), "V50"),
    "pays an epoch that nobody announced": (lambda it: claim(it, target_epoch=EpochNumber(9)), "V50"),
    "pays an epoch that retires": (lambda it: tell(it.rebuild(target_epoch=EpochNumber(1))), "V50"),
    "pays the coordinator's own key": (lambda it: forge(it, 0, script=ATTACKER), "V15"),
    "keeps a satoshi of the vault": (lambda it: forge(it, 0, value=it.honest.intent.vault_outputs[0] - 1), "V10"),
    "notarises what the turn before said": (lambda it: tell(it.rebuild(op_return=it.stale)), "V16"),
    "notarises another epoch": (lambda it: notarise(it, epoch=EpochNumber(1)), "V16"),
    "notarises another block": (lambda it: notarise(it, block_hash=KaonHash(bytes(32))), "V16"),
    "notarises another state": (lambda it: notarise(it, state_root=bytes(32)), "V16"),
    "notarises nothing": (lambda it: claim(it, op_return=Script(b"")), "V16"),
    "spends a deposit beside the vault": (mix_deposit_in, "V23"),
    "claims a satoshi more of an input": (
        lambda it: (change_spent(it.honest.intent, value=it.honest.intent.inputs[0].value + 1), tell(it.honest)[1]),
        "V14",
    ),
    "drops the burn's payment": (lambda it: claim(it, payments=()), "V52"),
}
"""What is proposed, and a rule that every pod names."""

FORGERIES: dict[str, tuple[Callable[[Stage], bytes], str]] = {
    "moves the vault to the attacker": (
        lambda it: change_output(it.honest.transaction, 0, script=ATTACKER).to_bytes(),
        "V15",
    ),
    "adds an output": (lambda it: add_output(it.honest.transaction, 50_000, ATTACKER).to_bytes(), "V10"),
    "notarises something else": (
        lambda it: change_output(it.honest.transaction, -1, script=build_forged_notarisation(it)).to_bytes(),
        "V16",
    ),
    "spends something else": (
        lambda it: change_input(it.honest.transaction, outpoint=it.deposit.outpoint).to_bytes(),
        "V10",
    ),
}
"""The transaction that is to be signed is not the recorded intent's."""


def build_forged_notarisation(stage: Stage) -> Script:
    found = find_notarisation(stage.honest.intent.op_return)
    assert found is not None
    return build_op_return(replace(found, state_root=bytes(32)))


# ------------------------------------------------------------------------------ one world for all of them


@dataclass(slots=True)
class Answers:
    """What every pod said to each lie, and to the honest sweep."""

    honest: list[Heard[Reply]]
    lies: dict[str, list[Heard[Reply]]]
    forgeries: dict[str, list[Heard[Reply]]]
    unforged: list[Heard[Reply]]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    told: list[Answers] = []

    async def story(world: TurningWorld) -> None:
        stage = await set_up(world)
        intent, raw = tell(stage.honest)
        honest = await stage.ask_endorsements(intent, raw)
        lies = {name: await stage.ask_endorsements(*lie(stage)) for name, (lie, _) in LIES.items()}
        await world.advance(1, endorse(world.find_secrets(0), intent, world.consensus.ledger.height))
        await world.until(lambda: intent.intent_id in world.ledger.intents)
        await world.advance(REGTEST.challenge_blocks + 1)
        forgeries = {name: await stage.ask_commitments(intent, lie(stage)) for name, (lie, _) in FORGERIES.items()}
        told.append(Answers(honest, lies, forgeries, await stage.ask_commitments(intent, raw)))

    play_turning(story, tmp_path_factory.mktemp("liar"))
    return told[0]


async def set_up(world: TurningWorld) -> Stage:
    """Let epoch 0 retire with a due commission, a burn and a late deposit; no coordinator is left but the liar."""
    (late,) = await world.issue(20_000_000)
    await world.peg_in(RICH)
    await world.kill()
    await world.reach(1)
    ledger = world.ledger
    stale = ledger.find_op_return(EPOCH, EpochNumber(1))
    deposit = world.pay(late, 20_000_000)
    await world.burn(4_000_000, script=destination("bob"))
    await world.until(lambda: find_state(ledger, 3) is EpochState.STANDBY)
    world.attestors.is_keying = False
    await world.reach(2)
    world.mine(REGTEST.confirmations)
    await world.until(lambda: find_state(ledger, 4) is EpochState.ANNOUNCED)
    tip = (await world.bitcoin.fetch_tip()).height
    await world.until(lambda: is_near_median(ledger, tip))
    mature = {outpoint for outpoint, entry in ledger.vault.items() if entry.epoch == EPOCH}
    built = plan_sweep(ledger, EPOCH, mature, RATE).built
    assert stale is not None
    assert built is not None
    assert built.intent.commissions
    assert built.intent.payments
    item = IntentInput(Outpoint(deposit.txid, deposit.vout), Sats(20_000_000), late.terms.index)
    return Stage(world, Pods(world.network, world.epoch.coordinator, lambda: world.ledger), built, stale, item)


def find_state(ledger: Ledger, epoch: int) -> EpochState | None:
    entry = ledger.epochs.get(EpochNumber(epoch))
    return entry.state if entry else None


def assert_all_name(heard: list[Heard[Reply]], rule: str) -> None:
    assert heard
    for answer in heard:
        assert isinstance(answer, Declined), answer
        assert rule in answer.refusal.rules, answer.refusal


def test_the_honest_sweep_is_endorsed_and_signed_by_all(answers: Answers) -> None:
    assert all(isinstance(answer, Answered) for answer in answers.honest), answers.honest
    assert len(answers.honest) == 2 * len(answers.unforged) == 8
    assert all(isinstance(answer, Answered) for answer in answers.unforged), answers.unforged


@pytest.mark.parametrize("lie", LIES)
def test_every_pod_refuses_to_endorse_a_sweep_that(answers: Answers, lie: str) -> None:
    assert_all_name(answers.lies[lie], LIES[lie][1])


@pytest.mark.parametrize("forgery", FORGERIES)
def test_every_pod_refuses_to_sign_a_transaction_that(answers: Answers, forgery: str) -> None:
    assert_all_name(answers.forgeries[forgery], FORGERIES[forgery][1])
