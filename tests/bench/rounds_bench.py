"""What whole signing rounds cost the coordinator: sealing, opening, scheduling and checking, with 67 of 100 signers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.pods import Pods
from coordinator.signing_outcome import RoundPolicy
from coordinator.signing_round import run_signing_round
from smpc.params import REGTEST
from smpc.protocol.ledger import Ledger
from smpc.types import Role, Signature
from tests.bench.rows import BenchRow
from tests.bench.yardstick import measure_multiplication_us
from tests.support.bare_members import BareMembers, Transfer
from tests.support.groups import build_genesis, make_secret

INPUTS = 500
LIMIT = 10_000.0
"""Multiplications for both groups together (issue, Speed)."""

RUNS = 3

POLICY = RoundPolicy(deadline=120.0, patience=60.0, hedge=60.0)


@dataclass(frozen=True, slots=True)
class Spent:
    """What one round cost the coordinator."""

    coordinator_us: float
    """CPU of the process but for what the members took."""
    signatures: tuple[Signature, ...]
    questions: dict[str, int]


def run() -> list[BenchRow]:
    """Measure everything and return the table's rows."""
    unit = measure_multiplication_us()
    # Other child keys each time: what was derived before must not count as nothing.
    both = min(_sign_by_both(Transfer.draw(INPUTS, number * INPUTS)) for number in range(RUNS))
    each = both / (2 * INPUTS)
    return [
        BenchRow(f"{INPUTS} inputs: coordinator, both groups, with envelopes", both, both / unit, LIMIT),
        BenchRow("the same, per message", each, each / unit, None),
    ]


def _sign_by_both(transfer: Transfer) -> float:
    validators = spend_round(BareMembers(67, 100, Role.VALIDATOR), transfer)
    witnesses = spend_round(BareMembers(67, 100, Role.WITNESS), transfer, validators.signatures)
    return validators.coordinator_us + witnesses.coordinator_us


def spend_round(members: BareMembers, transfer: Transfer, validators: Sequence[Signature] = ()) -> Spent:
    """Run one whole round and return what it cost; child keys are derived within."""
    ledger = Ledger(build_genesis(), REGTEST)
    pods = Pods(members, make_secret("coordinator"), lambda: ledger)

    async def work() -> tuple[Signature, ...]:
        job = members.build_job(transfer, validators)
        return (await run_signing_round(pods, job, policy=POLICY)).require_signatures()

    began, members.seconds = time.process_time(), 0.0
    signatures = asyncio.run(work())
    spent = time.process_time() - began - members.seconds
    return Spent(spent * 1e6, signatures, dict(members.asked))
