"""Carries `peg emergency execute` out: with the two chains, a wallet and a voice, and no coordinator at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from coordinator.emergency_executor import EmergencyExecutor, Execution, Order
from coordinator.pod_channels import GrpcPods
from coordinator.pods import Pods
from coordinator.rejection_rounds import RejectionRounds
from slashing.rejection import build_rejections
from slashing.release import Release, list_releases
from slashing.rungs import choose_rung
from smpc.curve import compute_xonly_key
from smpc.errors import BridgeError, Refused, TimedOut
from smpc.host.config import load_config
from smpc.host.grpc_channel import RpcChannel
from smpc.host.keystore import open_keystore
from smpc.node.consensus import ConsensusNode
from smpc.node.consensus_client import ConsensusClient
from smpc.node.replica import Replica
from smpc.params import Params
from smpc.participant.config import PodConfig
from smpc.protocol.leaders import is_leader
from smpc.protocol.ledger import Ledger
from smpc.protocol.records import Genesis
from smpc.types import EpochNumber, FeeRate, IdentityKey, Network, Purpose, Role, to_display_hex

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


def find_epochs(ledger: Ledger, epoch: EpochNumber | None) -> tuple[EpochNumber, ...]:
    """Return the epochs to execute: every one under a final release, or the one named; Refused when there is none."""
    released = tuple(sorted(number for number, role in ledger.judgements.verdicts if role is Role.VALIDATOR))
    chosen = released if epoch is None else tuple(number for number in released if number == epoch)
    if not chosen:
        which = "no epoch" if epoch is None else f"epoch {epoch}: no"
        raise Refused(
            f"{which} release is final" if epoch is not None else "no release of any epoch is final",
            code="NOT_RELEASED",
            rule="V61",
            remedy="an emergency needs a final verdict on V: see peg emergency status",
        )
    return chosen


def collect_orders(ledger: Ledger, epochs: Sequence[EpochNumber]) -> tuple[tuple[Order, ...], tuple[Release, ...]]:
    """Return what can be sent, and the releases that cannot, by outpoint.

    Refused, with the first fault as code, when there is something to move and none of it can be.
    """
    releases = [release for epoch in epochs for release in list_releases(ledger, epoch)]
    ready = [release for release in releases if release.fault is None]
    waiting = tuple(release for release in releases if release.fault is not None)
    if waiting and not ready:
        waiting[0].complete()  # says why, and what to do
    orders = tuple(Order(release.outpoint, release.prevout, release.complete()) for release in ready)
    return orders, waiting


# ------------------------------------------------------------------ as a leader


async def lead_rejections(replica: Replica, config: Path, epochs: Sequence[EpochNumber], note: Note) -> None:
    """Run W's rounds as a validator, with that validator's own keystore and certificate, and wait until they are final.

    What W signs goes to that validator's own consensus node: none takes it from a user. Refused (NOT_A_LEADER) for who
    is no unjailed validator; Refused (NOT_REJECTED) when W does not sign.
    """
    settings = load_config(PodConfig, config, POD_PREFIX)
    secret = open_keystore(settings.keystore, settings.passphrase.read_passphrase(), network=settings.network)
    ledger = replica.ledger
    require_leader(ledger, IdentityKey(compute_xonly_key(secret)), settings.network)
    transport = GrpcPods(ledger.genesis.validators, settings.network, settings.tls)
    pods = Pods(transport, secret, lambda: replica.ledger)
    channel = RpcChannel(settings.consensus, settings.tls)
    try:
        await reject_all(replica, RejectionRounds(pods, ConsensusClient(channel), lambda: replica.ledger), epochs, note)
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

    Refused (NOT_REJECTED), naming who did not sign, or TimedOut when the records do not become final.
    """
    for epoch in epochs:
        if not build_rejections(replica.ledger, epoch):
            continue
        note(f"leading the Witness group of epoch {epoch}")
        failed = await rounds.run(epoch)
        if failed:
            text = f"the Witness group of epoch {epoch} did not sign: {failed[0]}"
            raise Refused(text, code="NOT_REJECTED", remedy="bring its pods back, then run this again")
        note("waiting for finality")
        try:
            async with asyncio.timeout(FINAL_SECONDS):
                await replica.wait_for(partial(_is_rejected, epoch))
        except TimeoutError:
            raise TimedOut(
                f"the rejections of epoch {epoch} are recorded and not final yet", remedy="run this again"
            ) from None


def _is_rejected(epoch: EpochNumber, ledger: Ledger) -> bool:
    return not build_rejections(ledger, epoch)


# ------------------------------------------------------------------ on Bitcoin


@dataclass(slots=True)
class Run:
    """One go at every order, and what follows until all of them are mined."""

    executor: EmergencyExecutor
    params: Params
    note: Note
    rate: FeeRate | None = None
    """Wanted from the start, sat/kvB; the node's estimate when not given."""

    async def plan(self, orders: Sequence[Order]) -> list[dict[str, Any]]:
        """Say what would be tried first, and send nothing."""
        rate = await self._find_rate()
        return [await self._plan(order, rate) for order in orders]

    async def send(self, orders: Sequence[Order]) -> list[Execution]:
        """Try every order once."""
        rate = await self._find_rate()
        return [await self.executor.execute(order, rate) for order in orders]

    async def follow(self, orders: Sequence[Order], seconds: float = 0.0) -> list[Execution]:
        """Try every order, again after each Bitcoin block and for more after some, until all are mined or gone.

        TimedOut after `seconds` (0: no limit). What is in a mempool stays there.
        """
        ends = time.monotonic() + seconds if seconds else None
        first = rate = await self._find_rate()
        began = seen = (await self.executor.node.fetch_tip()).height
        while True:
            done = [await self.executor.execute(order, rate) for order in orders]
            left = [item for item in done if not item.is_mined and not item.is_absent]
            if not left:
                return done
            self.note(f"{len(done) - len(left)} of {len(done)} mined at Bitcoin block {seen}, wanted {rate} sat/kvB")
            while (height := (await self.executor.node.fetch_tip()).height) == seen:
                if ends is not None and time.monotonic() > ends:
                    text = f"{len(left)} of {len(done)} emergencies are not mined yet"
                    raise TimedOut(text, remedy="run this again: it goes on where it is")
                await asyncio.sleep(POLL_SECONDS)
            seen = height
            rate = raise_rate(self.params, first, (height - began) // self.params.bump_after)

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
        estimate = await self.executor.node.estimate_fee_rate(FEE_TARGET_BLOCKS)
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
        "state": "absent" if execution.is_absent else state,
        "txid": None if execution.txid is None else to_display_hex(execution.txid),
        "confirmations": execution.confirmations,
        "place": execution.place,
        "rate_sat_per_kvb": execution.rate,
        "child_txid": None if execution.child is None else to_display_hex(execution.child),
        "child_fee_sats": execution.child_fee,
        "refusals": [
            {"place": item.attempt.place, "needs_child": item.attempt.needs_child, "reason": item.reason}
            for item in execution.refusals
        ],
    }
