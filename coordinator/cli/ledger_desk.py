"""Records of the user's own accounts: built and signed here, sent to the user's consensus node, awaited until final."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeVar

from coordinator.cli.desk import Desk
from coordinator.cli.submission import submit_until_final
from smpc.curve import SecretKey, compute_xonly_key, sign_schnorr
from smpc.errors import TimedOut, Unavailable
from smpc.node.genesis import load_genesis
from smpc.protocol.ledger_accounts import AccountRecord
from smpc.protocol.notarisation import KaonDepth
from smpc.protocol.records import AccountTransfer, BurnCancelled, BurnRaised, BurnRequested
from smpc.types import AccountKey, Signature

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


async def submit_and_measure(desk: Desk, record: AccountRecord) -> KaonDepth:
    """Send a signed record, wait until it is final and return how deep its block is; errors as `submit_until_final`.

    Nothing as new as this is notarised yet. A record that stood there before counts as in the last final block, and so
    does one whose block cannot be asked for any more: it is final, and no failure may make the user send another one.
    """
    after = (await desk.consensus.fetch_tip()).height
    final = await submit_until_final(desk.consensus, record, desk.output.note)
    try:
        page = await desk.consensus.list_records(after, (type(record),))
        found = [entry.height for entry in page.entries if entry.record.record_id == record.record_id]
    except (Unavailable, TimedOut):
        found = []
    is_ruled = load_genesis(desk.profile.genesis).has_checkpoints
    return KaonDepth(next(iter(found), final), final, btc_needed=desk.params.confirmations if is_ruled else None)
