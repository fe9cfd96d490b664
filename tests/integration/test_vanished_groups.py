"""Real processes of which a whole group is deleted, directories and all: the BTC moves and nobody loses anything."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from smpc.protocol.ledger_state import IntentStatus
from smpc.protocol.verdict_state import Cause
from smpc.types import Role, txid_from_hex
from tests.support.emergency_devnet import find_lowest, open_emergency_devnet

GONE: Final = frozenset({Cause.CANNOT_SIGN, Cause.DOES_NOT_SERVE})
"""Its silence and what it leaves undone are over at nearly the same block; whichever comes first judges it."""


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_a_deleted_validator_group_leaves_the_vault_to_the_parallel_group(tmp_path: Path) -> None:
    async with open_emergency_devnet(tmp_path / "net") as stand:
        epoch = await stand.fill(40_000_000, 25_000_000)
        held = frozenset(stand.ledger.vault)
        await stand.delete_group(epoch, Role.VALIDATOR)
        await stand.net.burn(3_000_000)
        balance = await stand.fetch_balance()
        assert await stand.wait_verdict(epoch, Role.VALIDATOR) in GONE
        await stand.wait_moved(epoch, held, find_lowest(stand.ledger))
        await stand.check_money(balance)
        await stand.wait_payments()
        assert await stand.credit_next(10_000_000) > epoch
        assert not await stand.fetch_punished("slashed")


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_a_deleted_witness_group_leaves_the_vault_to_validators_and_the_emergency_group(tmp_path: Path) -> None:
    async with open_emergency_devnet(tmp_path / "net") as stand:
        epoch = await stand.fill(40_000_000, 25_000_000)
        held = frozenset(stand.ledger.vault)
        await stand.delete_group(epoch, Role.WITNESS)
        await stand.net.burn(3_000_000)
        balance = await stand.fetch_balance()
        assert await stand.wait_verdict(epoch, Role.WITNESS) in GONE
        await stand.net.wait_active(epoch + 1)
        await stand.wait_recovered(epoch, held)
        await stand.check_money(balance)
        await stand.wait_payments()
        assert await stand.credit_next(10_000_000) > epoch


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_a_witness_group_deleted_when_validators_signed_a_whole_sweep_loses_nothing(tmp_path: Path) -> None:
    async with open_emergency_devnet(tmp_path / "net") as stand:
        net = stand.net
        epoch = await stand.fill(40_000_000, 25_000_000)
        held, balance = frozenset(net.ledger.vault), await stand.fetch_balance()
        names = stand.name_members(epoch, Role.WITNESS)
        await net.watch(lambda: net.find_live_sweep(epoch), f"a sweep of epoch {epoch}")
        await net.kill(*names[:2])
        sweep = net.list_sweeps(epoch)[-1].intent
        await net.watch(
            lambda: net.read_log("coordinator", "record.moved", state="validators_signed"), "V's signatures"
        )
        await stand.delete(*names)
        assert {item.outpoint for item in sweep.inputs} == held
        assert await stand.wait_verdict(epoch, Role.WITNESS) in GONE
        await stand.wait_recovered(epoch, held)
        assert net.ledger.intents[sweep.intent_id].status is not IntentStatus.LIVE
        await stand.check_money(balance)
        assert await stand.credit_next(10_000_000) > epoch


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_without_its_emergency_group_an_epoch_credits_nothing_and_is_swept_all_the_same(tmp_path: Path) -> None:
    async with open_emergency_devnet(tmp_path / "net") as stand:
        net = stand.net
        await stand.fill(40_000_000)
        balance = await stand.fetch_balance()
        order = await net.order(9_000_000)
        epoch = order["epoch"]
        await stand.delete_group(epoch, Role.EMERGENCY)
        await stand.pay_unlisted(order, 9_000_000)
        await net.wait(lambda ledger: all(entry.epoch > epoch for entry in ledger.vault.values()), "the sweeps")
        assert IntentStatus.BOOKED in {entry.status for each in range(epoch + 1) for entry in net.list_sweeps(each)}
        await stand.check_money(balance)
        assert await stand.credit_next(10_000_000) > epoch
        assert len(net.ledger.credited) == 2
        await stand.take_refund(order, 9_000_000)
        assert not {role for number, role in net.ledger.judgements.verdicts if number == epoch}


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_without_a_coordinator_a_validator_leads_the_release_from_the_command_line(tmp_path: Path) -> None:
    async with open_emergency_devnet(tmp_path / "net") as stand:
        net = stand.net
        epoch = await stand.fill(40_000_000, 25_000_000)
        held, balance = frozenset(net.ledger.vault), await stand.fetch_balance()
        leader = stand.name_members(epoch, Role.WITNESS)[0]
        await stand.delete_group(epoch, Role.VALIDATOR)
        assert await stand.wait_verdict(epoch, Role.VALIDATOR) in GONE
        safe = await stand.take_coordinator_away()
        await net.wait(lambda ledger: epoch in ledger.judgements.preimages, "the preimage")
        done = await stand.execute(epoch, leader)
        assert {item["outpoint"] for item in done} == {str(outpoint) for outpoint in held}
        assert {item["state"] for item in done} == {"confirmed"}
        (verdict,) = (await net.peg("emergency", "status", str(epoch)))["verdicts"]
        assert {item["state"] for item in verdict["outputs"]} == {"confirmed"}
        assert await stand.fetch_balance() == balance
        mined = {item["outpoint"]: frozenset({txid_from_hex(item["txid"])}) for item in done}
        await stand.bring_coordinator_back(safe)
        await stand.wait_moved(epoch, held, {outpoint: mined[str(outpoint)] for outpoint in held})
        await stand.check_money(balance)
