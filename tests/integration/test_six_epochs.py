"""Six epochs of a whole devnet with traffic in each, and a trouble of its own in each: nothing is lost or left behind.

What is counted at the end is counted on Bitcoin alone, and against what the user wrote down himself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from smpc.protocol.intents import IntentKind
from smpc.protocol.ledger_state import BurnStatus, EpochState, IntentEntry, IntentStatus
from smpc.types import EpochNumber, IdentityKey, Role
from tests.support.turning_devnet import TurningDevnet, open_turning_devnet

EMPTY = frozenset({EpochState.PARKED, EpochState.RETIRED})
SIGNERS = (Role.VALIDATOR, Role.WITNESS)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_six_epochs_with_trouble_in_each_lose_nothing_and_leave_nothing_behind(tmp_path: Path) -> None:
    async with open_turning_devnet(tmp_path / "net") as net:
        await net.enter_user("20")
        late = await net.order(7_000_000)
        enough = asyncio.Event()
        async with asyncio.TaskGroup() as works:
            works.create_task(trade(net, enough))
            await fail_a_ceremony_twice(net)
            await pay_late(net, late)
            await kill_in_mid_sweep(net)
            await replace_a_pod(net)
            await take_a_sweep_back(net)
            await withhold_a_sweep(net)
            await net.wait_active(6)
            enough.set()
        await check_the_books(net, await rest(net))
        await retire(net, late["epoch"])


async def trade(net: TurningDevnet, enough: asyncio.Event) -> None:
    """Peg something in and something out in every epoch, until it is enough."""
    while not enough.is_set():
        epoch = net.active
        await net.deposit(30_000_000 + epoch)
        await net.wait(lambda ledger: ledger.supply, "the first credit")
        await net.burn(1_000_000 + epoch)
        await net.wait(lambda _, now=epoch: net.active > now or enough.is_set(), f"the end of epoch {epoch}")  # type: ignore[misc]


# ------------------------------------------------------------------------------ troubles


async def fail_a_ceremony_twice(net: TurningDevnet) -> None:
    """Two members of a group die once its ceremony can begin, until it failed twice; the active epoch is extended.

    The coordinator is away while the host keys come, so that the ceremony begins after the two are gone.
    """
    await net.wait(lambda ledger: ledger.supply, "the first credit")
    await net.wait(lambda _: net.state(net.active + 2) is EpochState.STANDBY, "the keys that the next turn needs")
    await net.kill("coordinator")
    now = net.active + 1
    number = EpochNumber(now + 2)
    await net.wait(lambda _: has_every_host_key(net, number), f"the host keys of epoch {number}")
    role, missing = choose_missing(net, number)
    names = [net.name_of(member) for member in missing]
    await net.kill(*names)
    await net.start("coordinator")
    failed = {"epoch": number, "role": str(role)}
    await net.watch(lambda: len(net.read_log("coordinator", "ceremony.failed", **failed)) >= 2, "a second failure")
    assert role not in net.ledger.epochs[number].groups
    assert net.active == now
    await net.start(*names)
    await net.wait(lambda _: net.state(number) is EpochState.STANDBY, f"epoch {number} on standby")


def has_every_host_key(net: TurningDevnet, epoch: EpochNumber) -> bool:
    entry = net.ledger.epochs.get(epoch)
    return entry is not None and all(
        set(entry.host_keys.get((role, entry.first_attempt), ())) >= set(members)
        for role, members in entry.members.items()
    )


def choose_missing(net: TurningDevnet, epoch: EpochNumber) -> tuple[Role, Sequence[IdentityKey]]:
    """Return two members of one group without whom as many as possible of the groups that sign now still can."""
    signing = [
        set(entry.members[role])
        for entry in net.ledger.epochs.values()
        if entry.state in {EpochState.ACTIVE, EpochState.RETIRING}
        for role in SIGNERS
    ]
    pairs = [
        (role, pair) for role, members in net.ledger.epochs[epoch].members.items() for pair in combinations(members, 2)
    ]
    return min(pairs, key=lambda each: sum(len(group & set(each[1])) > 1 for group in signing))


async def pay_late(net: TurningDevnet, order: dict[str, Any]) -> None:
    """Pay an invoice of an epoch that retires; its deposit is moved to the active one's vault and credited."""
    epoch = order["epoch"]
    assert net.state(epoch) in {EpochState.RETIRING, EpochState.PARKED}
    await net.pay(order, 7_000_000)
    await net.wait(lambda ledger: any(is_late_transfer(entry, epoch) for entry in ledger.intents.values()), "its move")


def is_late_transfer(entry: IntentEntry, epoch: int) -> bool:
    intent = entry.intent
    is_late = intent.kind is IntentKind.TRANSFER and intent.epoch == epoch < intent.target_epoch
    return is_late and any(item.value == 7_000_000 for item in intent.inputs)


async def kill_in_mid_sweep(net: TurningDevnet) -> None:
    """Kill the coordinator when a sweep is recorded and not mined yet, and start it again."""
    epoch = net.active
    net.withhold_sweeps(epoch)
    await net.watch(lambda: net.find_live_sweep(epoch), f"a sweep of epoch {epoch}")
    await net.kill("coordinator")
    net.withhold_nothing()
    await net.start("coordinator")
    await net.wait(lambda _: not net.find_value(epoch), f"the end of the sweep of epoch {epoch}")


async def replace_a_pod(net: TurningDevnet) -> None:
    """Remove everything of a member of the active epoch but its keystore, and bring it back from that."""
    epoch = net.active
    # Who took part: a rerun of the ceremony may have left a silent member out.
    lost = net.ledger.epochs[EpochNumber(epoch)].groups[Role.VALIDATOR].members[0]
    name = net.name_of(lost)
    await net.kill(name)
    shares = await net.recover_pod(name)
    assert all(share["is_proven"] for share in shares)
    assert {(share["epoch"], share["role"]) for share in shares} >= {(epoch, "validator")}
    await net.start(name)


async def take_a_sweep_back(net: TurningDevnet) -> None:
    """Take a mined sweep off the chain by a reorg; it is mined again in another block."""
    epoch = net.active
    net.withhold_sweeps(epoch)
    sweep, raw = await find_sent_sweep(net, epoch)
    await net.miner.pause()
    block = await net.miner.mine_only(raw)
    await net.miner.mine_only()
    assert await net.miner.find_raw(sweep.intent.txid) is None
    await net.miner.unmine(block)
    assert await net.miner.find_raw(sweep.intent.txid) == raw
    await net.miner.mine_only()
    await net.miner.mine_only()
    assert sweep.intent.txid not in net.ledger.bookings
    net.withhold_nothing()
    net.miner.resume()
    await net.wait(lambda _: not net.find_value(epoch), f"the sweep of epoch {epoch} after the reorg")


async def withhold_a_sweep(net: TurningDevnet) -> None:
    """Keep a sweep from every block while its coordinator dies and replaces it; a turn later mine the first one.

    It pays an epoch that retires by then, and is booked by the groups of a later one.
    """
    epoch = net.active
    net.withhold_sweeps(epoch)
    sweep, raw = await find_sent_sweep(net, epoch)
    await net.kill("coordinator")
    await net.start("coordinator")
    await net.wait(lambda _: list_replacements(net, sweep), "a dearer version")
    await net.wait_active(epoch + 2)
    await net.miner.pause()
    await net.miner.mine_only(raw)
    net.withhold_nothing()
    net.miner.resume()
    await net.wait(lambda ledger: sweep.intent.txid in ledger.bookings, "the booking of the late sweep")
    assert net.ledger.bookings[sweep.intent.txid].epoch > sweep.intent.target_epoch
    ended = {entry.status for entry in list_replacements(net, sweep)}
    assert ended <= {IntentStatus.DEAD, IntentStatus.WITHDRAWN}, ended


def list_replacements(net: TurningDevnet, sweep: IntentEntry) -> list[IntentEntry]:
    return [entry for entry in net.ledger.intents.values() if sweep.intent.intent_id in entry.intent.replaces]


async def find_sent_sweep(net: TurningDevnet, epoch: int) -> tuple[IntentEntry, bytes]:
    """Wait until a sweep of an epoch waits to be mined; with its bytes."""

    async def ask() -> tuple[IntentEntry, bytes] | None:
        entry = net.find_live_sweep(epoch)
        raw = await net.miner.find_raw(entry.intent.txid) if entry else None
        return (entry, raw) if entry and raw else None

    return await net.find(ask, f"a sweep of epoch {epoch} in the mempool")


# ------------------------------------------------------------------------------ the end


async def rest(net: TurningDevnet) -> int:
    """Wait until every user is served and value is in the newest two epochs alone; how many are empty for ever."""
    await net.wait(
        lambda ledger: all(entry.status is BurnStatus.SETTLED for entry in ledger.burns.values()), "the last payment"
    )
    await net.wait(lambda ledger: len(ledger.credited) == len(net.books.orders), "the last credit")
    await net.wait(lambda _: all(net.state(epoch) in EMPTY for epoch in range(net.active - 1)), "empty old epochs")
    return net.active - 1


async def check_the_books(net: TurningDevnet, empty: int) -> None:
    """Count again from Bitcoin and from the user's own books, while blocks hold no transactions."""
    await net.recount()
    assert net.difference == 0
    # Epochs turn on meanwhile, and those of later numbers are not swept yet while no block holds a transaction.
    assert await net.count_vault(range(empty)) == 0
    books = net.books
    assert net.ledger.supply == await net.fetch_credits() - sum(item.burned for item in books.burns)
    for item in books.burns:
        assert await net.count_received(item.address) == item.wanted
    assert len({epoch for _, epoch in books.orders}) >= 6
    shown = await net.peg("supply")
    assert shown["difference_sats"] == 0
    net.miner.resume()


async def retire(net: TurningDevnet, epoch: int) -> None:
    """Let the grace of an epoch's last invoice pass."""
    for _ in range(70):
        await net.miner.mine()
    await net.wait(lambda _: net.state(epoch) is EpochState.RETIRED, f"the end of epoch {epoch}")
