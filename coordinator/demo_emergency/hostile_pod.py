"""`python -m coordinator.demo_emergency.hostile_pod --config F`: a pod whose operator turned on the bridge.

It holds a real member's keys, answers every request, and lies where it counts: its partial signatures under child keys,
which sign Bitcoin transactions only, are wrong. It runs the pod's own code but for that, so that nothing else gives it
away. With `--withhold` it refuses to sign Bitcoin transactions instead, and lets its heartbeats go on.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from smpc.curve import encode_scalar, reduce_scalar
from smpc.host.config import load_config
from smpc.host.log import configure_logging
from smpc.host.process import die_with_parent, harden_process
from smpc.participant import signer
from smpc.participant.app import run_pod
from smpc.participant.config import PodConfig
from smpc.threshold.frost import SecretNonce, SigningContext, SigningTask, sign_messages
from smpc.threshold.frost_nonce import AggregateNonce
from smpc.threshold.group_key import SecretShare

SHARE_SIZE: Final = 32
WITHHELD: Final = ("transfer", "payout", "sweep")


def spoil(shares: bytes) -> bytes:
    """Return partial signatures, 32 bytes each, of which every one is another scalar than the right one.

    Each is too large by one: what several liars add never cancels out, as it did where a bit of each was turned.
    """
    wrong = (reduce_scalar(shares[at : at + SHARE_SIZE]) + 1 for at in range(0, len(shares), SHARE_SIZE))
    return b"".join(encode_scalar(value) for value in wrong)


def main() -> None:
    """Run until SIGTERM, as the pod would."""
    parser = argparse.ArgumentParser(prog="hostile-pod", description="A pod that lies or withholds.")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--withhold", action="store_true", help="refuse what moves BTC instead of lying")
    given = parser.parse_args()
    die_with_parent(os.getppid())
    harden_process(secrets=True)
    config = load_config(PodConfig, given.config, "PEG_POD")
    configure_logging(config.log_level, pod=given.config.resolve().parent.name)
    if given.withhold:
        config = replace(config, paused=WITHHELD)
    else:
        _lie()
    asyncio.run(run_pod(config))


def _lie() -> None:
    """Put wrong shares in the place of right ones, in this process."""
    honest = sign_messages

    def sign_wrongly(
        context: SigningContext,
        share: SecretShare,
        nonces: Sequence[SecretNonce],
        aggregates: Sequence[AggregateNonce],
        tasks: Sequence[SigningTask],
    ) -> bytes:
        shares = honest(context, share, nonces, aggregates, tasks)
        is_transaction = any(task.key.plain_key != context.group.threshold_pubkey for task in tasks)
        return spoil(shares) if is_transaction else shares

    vars(signer)["sign_messages"] = sign_wrongly


if __name__ == "__main__":
    main()
