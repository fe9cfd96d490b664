"""Carries `peg emergency execute` out: with the two chains, a wallet and a voice, and no coordinator at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from coordinator.cli.emergency_orders import NotRejected
from coordinator.emergency_executor import EmergencyExecutor, Execution, Order
from coordinator.pod_channels import GrpcPods
from coordinator.pods import Pods
from coordinator.rejection_rounds import RejectionRounds
from slashing.rejection import build_rejections
from slashing.rungs import choose_rung
from smpc.curve import compute_xonly_key
from smpc.errors import BridgeError, Refused, TimedOut, Unavailable
from smpc.host.config import load_config
from smpc.host.grpc_channel import RpcChannel
from smpc.host.keystore import open_keystore
from smpc.node.consensus import ConsensusNode
from smpc.node.consensus_client import ConsensusClient
from smpc.node.ports import BitcoinNode
from smpc.node.replica import Replica
from smpc.params import Params
from smpc.participant.config import PodConfig
from smpc.protocol.leaders import is_leader
from smpc.protocol.ledger import Ledger
from smpc.protocol.records import Genesis
from smpc.types import BtcHeight, EpochNumber, FeeRate, IdentityKey, Network, Outpoint, Purpose, to_display_hex

POD_PREFIX: Final = "PEG_POD"
"""As `peg-participant` reads a pod's configuration."""

POLL_SECONDS: Final = 1.0
FINAL_SECONDS: Final = 120.0
"""How long a recorded rejection may take to become final."""

FEE_TARGET_BLOCKS: Final = 2

Note = Callable[[str], None]


@asynccontextmanager
async def follow_ledger(consensus: ConsensusNode, genesis: Genesis, params: Params) -> AsyncIterator[Replica]:
    """Give a replica that has reached what the consensus node calls final, and follows it meanwhile."""
    replica = Replica(consensus, genesis, params)
    following = asyncio.create_task(replica.run())
    try:
        await replica.wait_synced()
        yield replica
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError, BridgeError):
            await following


# ------------------------------------------------------------------ as a leader


async def lead_rejections(
    replica: Replica, config: Path, epochs: Sequence[EpochNumber], node: BitcoinNode, note: Note
) -> None:
    """Run W's rounds as a validator, with that validator's own keystore and certificate, and wait until they are final.

    What W signs goes to that validator's own consensus node: none takes it from a user. Refused (NOT_A_LEADER) for who
    is no unjailed validator; NotRejected when W does not sign everything.
    """
    settings = load_config(PodConfig, config, POD_PREFIX)
    secret = open_keystore(settings.keystore, settings.passphrase.read_passphrase(), network=settings.network)
    ledger = replica.ledger
    require_leader(ledger, IdentityKey(compute_xonly_key(secret)), settings.network)
    transport = GrpcPods(ledger.genesis.validators, settings.network, settings.tls)
    pods = Pods(transport, secret, lambda: replica.ledger)
    channel = RpcChannel(settings.consensus, settings.tls)
    rounds = RejectionRounds(pods, ConsensusClient(channel), lambda: replica.ledger, node)
    try:
        await reject_all(replica, rounds, epochs, note)
    finally:
        await channel.close()
        await pods.close()
        await transport.close()
        secret.wipe()


def require_leader(ledger: Ledger, identity: IdentityKey, network: Network) -> None:
    """Refuse (NOT_A_LEADER) whoever may not lead W's rejections."""
    if network is not ledger.params.network or not is_leader(ledger, Purpose.REJECTION, identity):
        raise Refused(
            f"{identity.hex()} is no unjailed validator of this network",
            code="NOT_A_LEADER",
            rule="V03",
            remedy="name the pod configuration of a registered validator",
        )


async def reject_all(replica: Replica, rounds: RejectionRounds, epochs: Sequence[EpochNumber], note: Note) -> None:
    """Let W sign what it has not signed of these epochs and wait until that is final.

    What one epoch or output lacks stops no other: NotRejected, naming who did not sign, comes at the end.
    """
    left: dict[Outpoint, str] = {}
    for epoch in epochs:
        if not build_rejections(replica.ledger, epoch):
            continue
        note(f"leading the Witness group of epoch {epoch}")
        outcome = await rounds.run(epoch)
        told = f"the Witness group of epoch {epoch} did not sign: "
        left |= {outpoint: told + reason for outpoint, reason in outcome.failed.items()}
        note("waiting for finality")
        try:
            async with asyncio.timeout(FINAL_SECONDS):
                await replica.wait_for(partial(_is_rejected, epoch, outcome.signed))
        except TimeoutError:
            late = f"the rejections of epoch {epoch} are recorded and not final yet"
            left |= dict.fromkeys(outcome.signed, late)
    if left:
        raise NotRejected(next(iter(left.values())), left)


def _is_rejected(epoch: EpochNumber, outpoints: frozenset[Outpoint], ledger: Ledger) -> bool:
    return not build_rejections(ledger, epoch, outpoints)


# ------------------------------------------------------------------ on Bitcoin


@dataclass(slots=True)
class Run:
    """One go at every order, and what follows until all of them are mined."""

    executor: EmergencyExecutor
    params: Params
    note: Note
    rate: FeeRate | None = None
    """Wanted from the start, sat/kvB; the node's estimate when not given."""
    _given_up: dict[Outpoint, Execution] = field(default_factory=dict)
    """What failed in a way that no other go changes: somebody must act first."""

    async def plan(self, orders: Sequence[Order]) -> list[dict[str, Any]]:
        """Say what would be tried first, and send nothing."""
        rate = await self._find_rate()
        return [await self._plan(order, rate) for order in orders]

    async def send(self, orders: Sequence[Order]) -> list[Execution]:
        """Try every order once; what fails for one stops no other, and stands in its execution."""
        rate = await self._find_rate()
        return [await self._try(order, rate) for order in orders]

    async def follow(self, orders: Sequence[Order], seconds: float = 0.0) -> list[Execution]:
        """Try every order, again after each Bitcoin block and for more after some, until all are mined or gone.

        Or given up, because somebody must act first: their executions say so. A node that does not answer is asked
        again. TimedOut after `seconds` (0: no limit). What is in a mempool stays there.
        """
        ends = time.monotonic() + seconds if seconds else None
        first = rate = await self._find_rate()
        began = seen = await self._find_height(None)
        while True:
            done = [await self._try(order, rate) for order in orders]
            left = [item for item in done if not self._is_over(item)]
            if not left:
                return done
            self.note(f"{len(done) - len(left)} of {len(done)} over at Bitcoin block {seen}, wanted {rate} sat/kvB")
            is_cut_short = seen is None or any(item.fault for item in left)
            while (height := await self._find_height(seen)) == seen:
                if ends is not None and time.monotonic() > ends:
                    text = f"{len(left)} of {len(done)} emergencies are not mined yet"
                    raise TimedOut(text, remedy="run this again: it goes on where it is")
                await asyncio.sleep(POLL_SECONDS)
                if is_cut_short:
                    break
            seen = height
            began = seen if began is None else began
            if seen is not None and began is not None:
                rate = raise_rate(self.params, first, (seen - began) // self.params.bump_after)

    def _is_over(self, item: Execution) -> bool:
        return item.is_mined or item.is_absent or item.outpoint in self._given_up

    async def _try(self, order: Order, rate: FeeRate) -> Execution:
        """Execute one order; what fails is said in its execution, and tried again unless somebody must act first."""
        known = self._given_up.get(order.outpoint)
        if known is not None:
            return known
        try:
            return await self.executor.execute(order, rate)
        except (Unavailable, TimedOut) as reason:
            self.note(f"{order.outpoint}: {reason.message}")
            return Execution(order.outpoint, fault=reason.message)
        except BridgeError as reason:
            self.note(f"{order.outpoint} is given up: {reason.message}")
            text = f"{reason.message}; {reason.remedy}" if reason.remedy else reason.message
            self._given_up[order.outpoint] = Execution(order.outpoint, fault=text)
            return self._given_up[order.outpoint]

    async def _find_height(self, seen: BtcHeight | None) -> BtcHeight | None:
        """Return the height of my node's tip; `seen` while it does not answer."""
        try:
            return (await self.executor.node.fetch_tip()).height
        except (Unavailable, TimedOut) as reason:
            self.note(f"your Bitcoin node: {reason.message}")
            return seen

    async def _plan(self, order: Order, rate: FeeRate) -> dict[str, Any]:
        mined = await self.executor.find_mined(order)
        market = await self.executor.look(order.outpoint, rate)
        attempt = None if mined is not None else choose_rung(order.rungs, market)
        chosen = None if attempt is None else order.rungs[attempt.place]
        return {
            "outpoint": str(order.outpoint),
            "is_mined": mined is not None,
            "place": None if attempt is None else attempt.place,
            "txid": None if chosen is None else to_display_hex(chosen.transaction.txid),
            "fee_sats": None if chosen is None else chosen.fee,
            "needs_child": None if attempt is None else attempt.needs_child,
            "wanted_rate_sat_per_kvb": market.rate,
        }

    async def _find_rate(self) -> FeeRate:
        if self.rate is not None:
            return self.rate
        try:
            estimate = await self.executor.node.estimate_fee_rate(FEE_TARGET_BLOCKS)
        except (Unavailable, TimedOut) as reason:
            self.note(f"no estimate of your Bitcoin node: {reason.message}")
            estimate = None
        return self.params.fee_default if estimate is None else max(estimate, self.params.fee_floor)


def raise_rate(params: Params, first: FeeRate, steps: int) -> FeeRate:
    """Return a rate raised as any replacement is, once per `bump_after` blocks without a confirmation."""
    rate = first
    for _ in range(steps):
        rate = FeeRate(max(rate + params.bump_min, rate * (100 + params.bump_percent) // 100))
    return rate


def execution_to_plain(execution: Execution) -> dict[str, Any]:
    """Return an execution as `--json` shows it."""
    state = "confirmed" if execution.is_mined else "broadcast" if execution.is_in else "not_taken"
    return {
        "outpoint": str(execution.outpoint),
        "state": "failed" if execution.fault else "absent" if execution.is_absent else state,
        "txid": None if execution.txid is None else to_display_hex(execution.txid),
        "confirmations": execution.confirmations,
        "place": execution.place,
        "rate_sat_per_kvb": execution.rate,
        "child_txid": None if execution.child is None else to_display_hex(execution.child),
        "child_fee_sats": execution.child_fee,
        "fault": execution.fault,
        "refusals": [
            {"place": item.attempt.place, "needs_child": item.attempt.needs_child, "reason": item.reason}
            for item in execution.refusals
        ],
    }
