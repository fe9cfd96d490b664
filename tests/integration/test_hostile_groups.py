"""Real processes of which a group lies or withholds: the BTC leaves it, and only proven liars pay for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from smpc.protocol.verdict_state import Cause
from smpc.types import Role
from tests.support.emergency_devnet import find_lowest, open_emergency_devnet


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_liars_of_a_validator_group_are_slashed_and_the_vault_leaves_them(tmp_path: Path) -> None:
    async with open_emergency_devnet(tmp_path / "net") as stand:
        epoch = await stand.fill(40_000_000)
        held = frozenset(stand.ledger.vault)
        liars = stand.name_members(epoch, Role.VALIDATOR)[:2]
        await stand.turn_hostile(liars)
        await stand.net.burn(3_000_000)
        balance = await stand.fetch_balance()
        assert await stand.wait_verdict(epoch, Role.VALIDATOR) is Cause.CANNOT_SIGN
        assert await stand.fetch_punished("slashed") == frozenset(liars)
        await stand.wait_moved(epoch, held, find_lowest(stand.ledger))
        await stand.check_money(balance)
        await stand.wait_payments()
        incidents = (await stand.net.peg("incident", "list"))["incidents"]
        assert {stand.net.name_of(bytes.fromhex(item["accused"])) for item in incidents} == set(liars)
        assert all(item["is_proven"] and item["is_slashed"] for item in incidents)
        assert await stand.fetch_punished("slashed") == frozenset(liars)
        assert await stand.fetch_punished("jailed") <= frozenset(liars)


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_a_validator_group_that_withholds_is_complained_about_and_not_punished(tmp_path: Path) -> None:
    async with open_emergency_devnet(tmp_path / "net") as stand:
        epoch = await stand.fill(40_000_000)
        held = frozenset(stand.ledger.vault)
        await stand.turn_hostile(stand.name_members(epoch, Role.VALIDATOR), "--withhold")
        await stand.net.burn(3_000_000)
        balance = await stand.fetch_balance()
        assert await stand.wait_verdict(epoch, Role.VALIDATOR) is Cause.DOES_NOT_SERVE
        complaints = [who for (number, role, _), who in stand.ledger.judgements.complaints.items() if number == epoch]
        witnesses = set(stand.ledger.epochs[epoch].groups[Role.WITNESS].members)
        assert any(len(who) >= 3 and who <= witnesses for who in complaints)
        await stand.wait_moved(epoch, held, find_lowest(stand.ledger))
        await stand.check_money(balance)
        await stand.wait_payments()
        assert not stand.ledger.judgements.punishments
