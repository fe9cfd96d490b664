"""What `peg doctor` sees from the user's own side: his certificate, his consensus node, his bitcoind."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from coordinator.cli.desk import Desk
from smpc.errors import BridgeError, CheckFailed
from smpc.host.pki import read_expiry
from smpc.node.genesis import load_genesis
from smpc.node.ports import Verdict

RENEW_BEFORE: Final = dt.timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Check:
    """One check's outcome, and what to do when it failed."""

    name: str
    is_ok: bool
    detail: str
    remedy: str = ""


async def check_own_side(desk: Desk) -> list[Check]:
    """Return the checks that need no coordinator."""
    checks = [
        await _try("tls.certificate", lambda: _check_certificate(desk)),
        await _try("consensus.tip", lambda: _check_consensus(desk)),
        await _try("consensus.epoch", lambda: _check_epoch(desk)),
        await _try("consensus.money", lambda: _check_money(desk)),
    ]
    if desk.profile.bitcoind is not None:
        findings = await desk.bitcoin.check_node()
        checks += [Check(item.check, item.verdict is not Verdict.FAILED, item.detail, item.remedy) for item in findings]
    return checks


async def _try(name: str, look: Callable[[], Awaitable[str]]) -> Check:
    try:
        return Check(name, True, await look())
    except BridgeError as error:
        return Check(name, False, error.message, error.remedy)


async def _check_certificate(desk: Desk) -> str:
    expires = read_expiry(desk.profile.tls.cert)
    if expires < dt.datetime.now(dt.UTC) + RENEW_BEFORE:
        raise CheckFailed(f"the certificate ends {expires.isoformat()}", remedy="renew it: peg pki issue --renew")
    return f"good until {expires.date().isoformat()}"


async def _check_consensus(desk: Desk) -> str:
    tip, genesis = await desk.consensus.fetch_tip(), load_genesis(desk.profile.genesis)
    if tip.genesis_hash != genesis.genesis_hash:
        raise CheckFailed("the consensus node is on another chain than the genesis file", remedy="name the right node")
    behind = dt.datetime.now(dt.UTC) - dt.datetime.fromtimestamp(tip.time_millis / 1000, dt.UTC)
    late = dt.timedelta(milliseconds=20 * genesis.block_millis) + dt.timedelta(seconds=5)
    if behind > late:
        raise CheckFailed(
            f"the newest block {tip.height} is {behind.total_seconds():.0f} s old", remedy="is the proposer running?"
        )
    return f"height {tip.height}, final {tip.final}"


async def _check_epoch(desk: Desk) -> str:
    view = await desk.consensus.fetch_epoch()
    missing = [group.role for group in view.groups if group.info is None]
    if missing:
        raise CheckFailed(f"epoch {view.number} has no key of {', '.join(missing)}", remedy="see the pods' logs")
    return f"epoch {view.number} {view.state}: " + ", ".join(
        f"{group.role} {group.threshold} of {len(group.members)}" for group in view.groups
    )


async def _check_money(desk: Desk) -> str:
    money = await desk.consensus.fetch_supply()
    difference = money.vault - money.supply - money.open_burns - money.reserve
    if difference:
        raise CheckFailed(f"the money identity is off by {difference} sat", remedy="stop and look: nothing may move")
    return f"vault {money.vault} = supply {money.supply} + open burns {money.open_burns} + reserve {money.reserve} sat"
