"""Nobody is paid twice: not by twice the same news, not by rival proposals (cases D1, D7)."""

from __future__ import annotations

import pytest

from coordinator.endorsement_round import collect_endorsements
from coordinator.pods import Pods
from pegin.vault import is_vault_child
from pegout.build import build_payout
from pegout.lifecycle import PegOutState
from smpc.errors import Refused
from smpc.protocol.intents import IntentChoice, IntentInput, IntentKind
from smpc.types import Role
from tests.support.bridge_world import BridgeWorld, simulated
from tests.support.chain import destination
from tests.support.groups import EPOCH


@simulated
async def test_a_burn_seen_again_after_every_restart_is_paid_by_one_output(world: BridgeWorld) -> None:
    await world.peg_in(50_000_000)
    world.mine(3)
    burn = await world.burn(4_000_000, script=destination("bob"))
    for _ in range(8):
        await world.restart()
        await world.advance(2)
    await world.until(lambda: world.is_settled(burn), mine_every=6)
    for _ in range(3):
        await world.restart()
        await world.advance(6)
        world.mine()
    assert await world.list_payments(destination("bob")) == [4_000_000]
    assert world.board.pegouts[burn].state is PegOutState.BOOKED


@simulated
async def test_of_two_rival_proposals_for_one_burn_the_ledger_takes_one_and_pods_endorse_no_other(
    world: BridgeWorld,
) -> None:
    await world.peg_in(50_000_000)
    world.mine(3)
    await world.kill()
    burn = await world.burn(4_000_000, script=destination("bob"))
    pods = Pods(world.network, world.epoch.coordinator, lambda: world.ledger)
    first, second = (IntentInput(entry.outpoint, entry.value, entry.child) for entry in world.ledger.vault.values())
    assert is_vault_child(first.child)
    rivals = [
        build_payout(
            world.ledger,
            IntentChoice(IntentKind.PAYOUT, EPOCH, EPOCH, (coin.outpoint,), (burn,), world.ledger.params.fee_floor, ()),
            [coin],
        )
        for coin in (first, second)
    ]
    groups = [world.ledger.epochs[EPOCH].groups[role] for role in (Role.VALIDATOR, Role.WITNESS)]
    one, other = [await collect_endorsements(pods, groups, built) for built in rivals]
    assert one.is_enough
    assert other.is_enough, "nothing is recorded yet"
    await world.consensus.submit(one.to_record())
    with pytest.raises(Refused) as refused:
        await world.consensus.submit(other.to_record())
    assert refused.value.code == "DOUBLE_PAY"
    await world.advance(4)
    late = await collect_endorsements(pods, groups, rivals[1])
    assert not late.endorsements
    assert "V20" in late.find_rules()
    await world.start()
    await world.until(lambda: world.is_settled(burn), mine_every=6)
    assert await world.list_payments(destination("bob")) == [4_000_000]
    await world.rest()
    await world.check_rebuild()
