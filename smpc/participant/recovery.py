"""A lost share given back: from the identity secret and the recovery data on the ledger, and shown to sign.

The recovery data is public and certified by every member of the ceremony, so a participant who kept nothing but his
identity key is whole again (design.md section 4). The proof is his own part of a key-ready signature: a share of the
signature over the ready message, checked against the public share that the ledger has. It leaves nobody's machine.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass

from smpc.curve import SecretKey
from smpc.errors import CheckFailed, NotFound
from smpc.participant.shares import HeldShare, ShareRing
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import EpochState
from smpc.protocol.records import GroupInfo, compute_ready_digest
from smpc.threshold.frost import (
    SigningContext,
    SigningTask,
    TweakContext,
    aggregate_nonces,
    generate_nonce,
    open_session,
    sign_message,
    verify_share,
)
from smpc.types import EpochNumber, GroupId, Network, PlainKey

_OVER = frozenset({EpochState.RETIRED, EpochState.ABORTED})


@dataclass(frozen=True, slots=True)
class RecoveredShare:
    """One share that was restored and signed for a proof; nothing in it is secret."""

    info: GroupInfo
    position: int
    public_share: PlainKey


def recover_shares(secret: SecretKey, ledger: Ledger, only: Collection[EpochNumber] = ()) -> tuple[RecoveredShare, ...]:
    """Restore and prove this identity's share of every recorded group, or of the epochs named; by epoch and role.

    Retired epochs are passed over unless they are named. NotFound when this identity has no share there; CheckFailed
    when a restored share does not sign for its public share.
    """
    ring = ShareRing(secret, ledger.params.network)
    found = [
        _recover(ring, ledger.params.network, entry.groups[role])
        for number, entry in sorted(ledger.epochs.items())
        if (number in only if only else entry.state not in _OVER)
        for role in sorted(entry.groups)
        if ring.identity in entry.groups[role].members
    ]
    if not found:
        raise NotFound(
            f"{ring.identity.hex()} is in no group whose key is recorded",
            remedy="check the keystore and the epoch; a new member gets its share from the next ceremony",
        )
    return tuple(found)


def _recover(ring: ShareRing, network: Network, info: GroupInfo) -> RecoveredShare:
    held = ring.restore(info.group, info.attempt, info.recovery_data)
    expected = info.public_shares[held.position]
    if held.key.threshold_pubkey != info.group_key or held.share.public_share != expected:
        raise CheckFailed(f"the share restored for {_name(info.group)} is not the one the ledger has")
    if not co_signs(held, network):
        raise CheckFailed(f"the share restored for {_name(info.group)} does not sign")
    return RecoveredShare(info, held.position, expected)


def co_signs(held: HeldShare, network: Network) -> bool:
    """Make this member's part of a key-ready signature and check it against its public share."""
    signers = sorted({held.position, *[at for at in range(held.key.size) if at != held.position][: _others(held)]})
    context = SigningContext.build(held.key, signers)
    digest = compute_ready_digest(network, held.group, held.attempt, held.recovery_data)
    task = SigningTask(digest, TweakContext.from_group_key(held.key.threshold_pubkey))
    nonce, own = generate_nonce(os.urandom(32), share=held.share, group_key=held.key.threshold_pubkey, message=digest)
    # The other signers' nonces are nobody's: no signature comes of this, whoever sees it.
    nonces = {at: own if at == held.position else generate_nonce(os.urandom(32))[1] for at in signers}
    session = open_session(context, task, aggregate_nonces(nonces))
    signed = sign_message(session, held.share, context.compute_coefficient(held.position), nonce)
    return verify_share(session, held.position, own, signed)


def _others(held: HeldShare) -> int:
    return held.key.threshold - 1


def _name(group: GroupId) -> str:
    return f"{group.role} of epoch {group.epoch}"
