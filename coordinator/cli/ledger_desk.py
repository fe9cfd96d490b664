"""Records of the user's own accounts: built and signed here, sent to the user's consensus node, awaited until final."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeVar

from coordinator.cli.desk import Desk
from smpc.curve import SecretKey, compute_xonly_key, sign_schnorr
from smpc.errors import TimedOut
from smpc.protocol.ledger_accounts import AccountRecord
from smpc.protocol.records import AccountTransfer, BurnCancelled, BurnRaised, BurnRequested
from smpc.types import AccountKey, KaonHeight, Signature

FINAL_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.1

RecordT = TypeVar("RecordT", AccountTransfer, BurnRequested, BurnCancelled, BurnRaised)

UNSIGNED: Final = Signature(bytes(64))
"""Stands in a record until it is signed; no digest covers it."""


async def sign_with_nonce(desk: Desk, secret: SecretKey, build: Callable[[AccountKey, int], RecordT]) -> RecordT:
    """Return the record that `build` makes of the account and its next nonce, signed by the account's key."""
    account = AccountKey(compute_xonly_key(secret))
    nonce = (await desk.consensus.fetch_account(account)).nonce
    record = build(account, nonce)
    signature = sign_schnorr(secret, record.digest, secrets.token_bytes(32))
    return replace(record, signature=signature)


async def submit_until_final(desk: Desk, record: AccountRecord) -> KaonHeight:
    """Send a signed record and wait until its block is final; return a final height at which it stands.

    The ledger's Refused, InvalidInput or Conflict come as they are. TimedOut when blocks stop becoming final: the
    record stands all the same and needs no second one.
    """
    desk.output.note("waiting for a block of the consensus layer")
    await desk.consensus.submit(record, wait=True)
    recorded = (await desk.consensus.fetch_tip()).height
    return await wait_final(desk, recorded)


async def wait_final(desk: Desk, height: KaonHeight) -> KaonHeight:
    """Wait until a height of the consensus layer is final and return the final height."""
    deadline = time.monotonic() + FINAL_SECONDS
    while True:
        tip = await desk.consensus.fetch_tip()
        if tip.final >= height:
            return tip.final
        desk.output.note(f"waiting for finality: {max(0, height - tip.final)} more block(s)")
        if time.monotonic() > deadline:
            raise TimedOut(
                f"block {height} is not final after {FINAL_SECONDS:g} s",
                remedy="the record is on the chain; do not send another one, ask again later",
            )
        await asyncio.sleep(_POLL_SECONDS)
