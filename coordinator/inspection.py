"""Every check of `peg doctor` on the coordinator's side: what is looked at, how it came out, what to do about it."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from coordinator.links import Links
from coordinator.outlook import Outlook
from coordinator.pause import PauseSwitch
from coordinator.pod_inquiry import PodInquiry
from coordinator.standing import OFFICE, Standing
from coordinator.term import Term
from coordinator.views import view_money
from pegbridge.v1 import participant_pb2 as pb
from smpc.errors import BridgeError
from smpc.host.pki import read_expiry
from smpc.node.ports import Finding, Verdict
from smpc.params import PROTOCOL_VERSION
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_bookings import TIP_TOLERANCE
from smpc.protocol.ledger_state import EpochEntry
from smpc.protocol.ledger_views import KaonTip
from smpc.types import BtcHeight, FeeRate, IdentityKey

RENEW_BEFORE: Final = dt.timedelta(days=30)
"""A certificate that ends sooner is to be renewed."""

MAX_LAG: Final = 10
"""Final consensus-layer blocks a replica may be behind, and block times the chain may be silent."""

MAX_LOOK_SECONDS: Final = 5.0
"""How long a chain that looks silent is watched before it is called so."""

Statuses = Mapping[IdentityKey, pb.StatusResponse | BridgeError]


class Inspector:
    """Looks at everything the coordinator depends on; changes nothing."""

    def __init__(
        self,
        *,
        links: Links,
        outlook: Outlook,
        standing: Standing,
        pause: PauseSwitch,
        inquiry: PodInquiry,
        certificate: Path,
        find_term: Callable[[], Term | None],
    ) -> None:
        self._links = links
        self._outlook = outlook
        self._standing = standing
        self._pause = pause
        self._inquiry = inquiry
        self._certificate = certificate
        self._find_term = find_term

    async def inspect(self) -> tuple[Finding, ...]:
        """Return one finding per check; whatever cannot be asked is a finding, not an error."""
        estimate = judge_estimate(self._outlook.pulse.estimate, self._outlook.ledger.params.fee_default)
        reserve = judge_reserve(self._outlook.ledger.reserve)
        ledger = self._outlook.ledger
        heartbeats = judge_heartbeats(ledger.median_btc_height, self._outlook.tip)
        money = (self._check_money(), reserve, *judge_coverage(ledger), *judge_verdicts(ledger), estimate, heartbeats)
        own = (self._check_standing(), self._check_certificate(), *money, *self._check_flows())
        slow = await _run_all(
            self._links.node.check_node(), self._check_store(), self._check_consensus(), self._check_pods()
        )
        return (*own, *(finding for findings in slow for finding in findings))

    # -------------------------------------------------------------- own side

    def _check_standing(self) -> Finding:
        reason = self._standing.describe()
        halted = self._standing.halted
        remedy = halted.remedy if halted is not None else "see the checks below; it goes on by itself"
        return _judge("coordinator.working", not reason, reason or "at work", remedy)

    def _check_certificate(self) -> Finding:
        try:
            ends = read_expiry(self._certificate)
        except BridgeError as error:
            return _fail("tls.certificate", error)
        is_ok = ends - dt.datetime.now(dt.UTC) > RENEW_BEFORE
        detail = f"{self._certificate} ends {ends.isoformat()}"
        return _judge("tls.certificate", is_ok, detail, "renew it: peg pki issue --renew")

    def _check_money(self) -> Finding:
        money, term = view_money(self._outlook), self._find_term()
        halted = None if term is None else term.driver.halted
        detail = (
            f"vault {money.locked} = supply {money.supply} + open burns {money.pegout_in_flight}"
            f" + reserve {money.reserve} sat, off by {money.difference}"
        )
        if halted is not None:
            detail = f"{detail}; {halted.message}"
        is_ok = money.difference == 0 and halted is None
        return _judge("money.identity", is_ok, detail, "stop every pod and compare the ledger with the Bitcoin chain")

    def _check_flows(self) -> Iterable[Finding]:
        for flow in sorted(self._pause.paused):
            yield Finding(f"flow.{flow}", Verdict.WARNING, "paused by the operator", f"resume it: peg resume {flow}")

    # -------------------------------------------------------------- dependencies

    async def _check_store(self) -> tuple[Finding, ...]:
        term = self._find_term()
        if term is None:
            reason = self._standing.reasons.get(OFFICE, "it is not open yet")
            return (Finding("store.reachable", Verdict.FAILED, reason, "start the store; its log says more"),)
        lease = _judge(
            "store.lease", term.tenure.is_held, f"token {term.lease.token}", "it is renewed when the store answers"
        )
        try:
            head = await term.mempool.store.read_head()
        except BridgeError as error:
            return (_fail("store.reachable", error), lease)
        detail = f"{head.sequence} events, {head.open_effects} effects to carry out"
        return (Finding("store.reachable", Verdict.OK, detail), lease)

    async def _check_consensus(self) -> tuple[Finding, ...]:
        ledger = self._outlook.ledger
        epoch = self._check_epoch()
        try:
            tip = await self._links.consensus.fetch_tip()
        except BridgeError as error:
            return (_fail("consensus.reachable", error), epoch)
        limit = max(MAX_LAG * ledger.genesis.block_millis, 10_000)
        has_moved = False
        if _compute_age(tip) > limit:
            # The chain is silent or this clock is ahead: a block that comes now and looks old tells which.
            await asyncio.sleep(min(2 * ledger.genesis.block_millis / 1000, MAX_LOOK_SECONDS))
            try:
                newer = await self._links.consensus.fetch_tip()
            except BridgeError as error:
                return (_fail("consensus.reachable", error), epoch)
            has_moved, tip = newer.height > tip.height, newer
        return (
            _judge(
                "consensus.chain",
                tip.genesis_hash == ledger.genesis.genesis_hash,
                f"genesis {tip.genesis_hash.hex()}",
                "point the coordinator at its own network's consensus node",
            ),
            *judge_freshness(tip.height, _compute_age(tip), limit, has_moved=has_moved),
            _judge(
                "consensus.replica",
                tip.final - ledger.height <= MAX_LAG,
                f"block {ledger.height} applied of {tip.final} final",
                "see this coordinator's log",
            ),
            epoch,
        )

    def _check_epoch(self) -> Finding:
        ledger = self._outlook.ledger
        if ledger.active_epoch is None:
            return Finding("epoch.active", Verdict.FAILED, "no epoch is active yet", "every member's pod must answer")
        entry = ledger.epochs[ledger.active_epoch]
        return Finding("epoch.active", Verdict.OK, f"epoch {entry.number} since block {entry.activated}")

    # -------------------------------------------------------------- pods

    async def _check_pods(self) -> tuple[Finding, ...]:
        statuses = await self._inquiry.fetch_statuses()
        pods = [finding for pod, status in statuses.items() for finding in self._judge_pod(pod, status)]
        return (*pods, *self._check_groups(statuses))

    def _judge_pod(self, pod: IdentityKey, status: pb.StatusResponse | BridgeError) -> Iterable[Finding]:
        name = self._outlook.name_pod(pod)
        if isinstance(status, BridgeError):
            yield _fail(f"{name}.reachable", status)
            return
        detail = f"final block {status.kaon_height}, Bitcoin block {status.btc_height}, {status.refusals} refusals"
        yield Finding(f"{name}.reachable", Verdict.OK, detail)
        reason = _find_fault(status, self._outlook)
        if reason:
            yield Finding(f"{name}.ready", Verdict.FAILED, reason, "ask that pod's operator to look at its log")

    def _check_groups(self, statuses: Statuses) -> Iterable[Finding]:
        """Say of each group of the active epoch whether enough members could sign now."""
        ledger = self._outlook.ledger
        if ledger.active_epoch is None:
            return
        entry = ledger.epochs[ledger.active_epoch]
        for role, members in entry.members.items():
            able = [pod for pod in members if _is_able(statuses.get(pod), entry)]
            needed = entry.thresholds[role]
            yield _judge(
                f"group.{role}",
                len(able) >= needed,
                f"{len(able)} of {len(members)} members can sign, {needed} are needed",
                "bring the members' pods back",
            )


def judge_freshness(height: int, age_millis: float, limit_millis: float, *, has_moved: bool) -> tuple[Finding, ...]:
    """Tell a silent chain from a wrong clock by the newest block's age; `has_moved`: it came while we looked.

    Nothing in the protocol reads this clock but TLS and, on MAINNET, the age of a pod's Bitcoin tip (case G16).
    """
    is_skewed = age_millis < -limit_millis or (age_millis > limit_millis and has_moved)
    way = "behind" if age_millis < 0 else "ahead of"
    return (
        _judge(
            "clock.skew",
            not is_skewed,
            f"CLOCK_SKEW: this clock is {abs(age_millis) / 1000:.0f} s {way} the consensus layer's"
            if is_skewed
            else "this clock agrees with the consensus layer's",
            "set this machine's clock: certificates are judged by it",
        ),
        _judge(
            "consensus.blocks",
            age_millis <= limit_millis or has_moved,
            f"block {height} is {age_millis / 1000:.1f} s old",
            "start the consensus layer's proposer",
        ),
    )


def judge_estimate(estimate: FeeRate | None, default: FeeRate) -> Finding:
    """Say when the node has no usable fee estimate: proposals go on at the default rate, degraded (case D14)."""
    if estimate is None:
        detail = f"DEGRADED: the node estimates no fee, {default} sat/kvB at most are proposed"
        return Finding("bitcoind.estimate", Verdict.WARNING, detail, "it comes by itself once the node saw more blocks")
    return Finding("bitcoind.estimate", Verdict.OK, f"{estimate} sat/kvB")


def judge_heartbeats(median: BtcHeight | None, tip: BtcHeight) -> Finding:
    """Say when this coordinator's tip is not near the heartbeats' median: members refuse all it proposes then (V02)."""
    if median is None:
        return Finding("bitcoind.median", Verdict.OK, "no heartbeats of more than half of the stake")
    detail = f"block {tip}, the heartbeats' median is block {median}"
    if abs(tip - median) <= TIP_TOLERANCE:
        return Finding("bitcoind.median", Verdict.OK, detail)
    remedy = "nothing new is proposed until they agree; if it lasts, compare this bitcoind with others"
    return Finding("bitcoind.median", Verdict.WARNING, detail, remedy)


def judge_reserve(reserve: int) -> Finding:
    """Say when the reserve (satoshi) is negative: no deposit is credited then."""
    remedy = "top it up: peg reserve pay-in"
    return _judge("money.reserve", reserve >= 0, f"{reserve} sat{'' if reserve >= 0 else ': credits halt'}", remedy)


def judge_coverage(ledger: Ledger) -> tuple[Finding, ...]:
    """Say how much of the vault value is armed: below all of it no deposit is taken; nothing where nothing is armed."""
    if not ledger.needs_arming:
        return ()
    unarmed = ledger.list_unarmed()
    detail = f"{ledger.compute_coverage().text} of the vault value is armed"
    if unarmed:
        first = unarmed[0]
        detail = f"{detail}; {len(unarmed)} outputs are not, as {first.outpoint} ({first.fault}): credits halt"
    remedy = "it is renewed once enough of the Emergency group of their epoch answer"
    return (_judge("money.coverage", not unarmed, detail, remedy),)


def judge_verdicts(ledger: Ledger) -> tuple[Finding, ...]:
    """Say which epochs were judged and still hold something: their emergencies or recoveries are under way."""
    found = []
    for epoch, role in sorted(ledger.judgements.verdicts):
        held = ledger.epoch_value.get(epoch, 0)
        if held:
            cause = ledger.judgements.verdicts[epoch, role].cause
            detail = f"{role} of epoch {epoch} is judged ({cause}): {held} sat are still to be moved"
            found.append(Finding(f"verdict.{epoch}.{role}", Verdict.WARNING, detail, "see peg emergency status"))
    return tuple(found)


def _compute_age(tip: KaonTip) -> float:
    return dt.datetime.now(dt.UTC).timestamp() * 1000 - tip.time_millis


def _find_fault(status: pb.StatusResponse, outlook: Outlook) -> str:
    """Return why a pod that answers cannot do its part; empty when it can."""
    params, behind = outlook.ledger.params, outlook.ledger.height - status.kaon_height
    if status.network != params.network:
        return f"it is of network {status.network}"
    if status.protocol_version != PROTOCOL_VERSION:
        return f"it speaks protocol version {status.protocol_version}, not {PROTOCOL_VERSION}"
    if behind > MAX_LAG:
        return f"it is {behind} final blocks behind"
    if status.paused:
        return f"its operator paused {', '.join(status.paused)}"
    return status.not_ready_reason


def _is_able(status: pb.StatusResponse | BridgeError | None, entry: EpochEntry) -> bool:
    if status is None or isinstance(status, BridgeError) or status.not_ready_reason:
        return False
    return any(share.epoch == entry.number and share.is_ready for share in status.shares)


def _judge(check: str, holds: bool, detail: str, remedy: str) -> Finding:
    return Finding(check, Verdict.OK, detail) if holds else Finding(check, Verdict.FAILED, detail, remedy)


def _fail(check: str, error: BridgeError) -> Finding:
    return Finding(check, Verdict.FAILED, error.message, error.remedy)


async def _run_all(*works: Coroutine[Any, Any, tuple[Finding, ...]]) -> list[tuple[Finding, ...]]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in works]
    return [task.result() for task in tasks]
