"""The shares a pod holds: restored from public recovery data and the identity secret, never written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from smpc.curve import SecretKey, compute_xonly_key
from smpc.errors import BridgeError
from smpc.participant.keystore import derive_host_secret
from smpc.protocol.encoding import hash_fields
from smpc.protocol.ledger_state import EpochEntry, EpochState
from smpc.protocol.records import GroupInfo
from smpc.threshold.dkg import DkgOutput, GroupKey, SecretShare, participant_recover
from smpc.types import Attempt, EpochNumber, GroupId, IdentityKey, Network

log = structlog.get_logger()

_OVER: Final = frozenset({EpochState.RETIRED, EpochState.ABORTED})


@dataclass(frozen=True, slots=True)
class HeldShare:
    """One group's key material as this member holds it; prints without its secret."""

    group: GroupId
    attempt: Attempt
    key: GroupKey
    share: SecretShare
    recovery_data: bytes
    """Public: with the identity secret it restores the share."""

    @property
    def recovery_hash(self) -> bytes:
        """Return the tagged hash `KAON/recovery-data`, what the key-ready message names."""
        return compute_recovery_hash(self.recovery_data)

    @property
    def position(self) -> int:
        """Return the member's 0-based position in the group."""
        return self.share.position


def compute_recovery_hash(recovery_data: bytes) -> bytes:
    """Return the 32-byte tagged hash `KAON/recovery-data`."""
    return hash_fields("recovery-data", recovery_data)


class ShareRing:
    """Every share of one identity: those of recorded groups, and those of ceremonies finished but not yet recorded."""

    def __init__(self, identity_secret: SecretKey, network: Network) -> None:
        self._secret = identity_secret
        self._network = network
        self._recorded: dict[GroupId, HeldShare] = {}
        self._pending: dict[tuple[GroupId, Attempt], HeldShare] = {}
        self.identity = IdentityKey(compute_xonly_key(identity_secret))

    def derive_host_secret(self, group: GroupId, attempt: Attempt) -> SecretKey:
        """Return this member's ceremony host secret for one attempt."""
        return derive_host_secret(self._secret, self._network, group.epoch, group.role, attempt)

    def keep_pending(self, group: GroupId, attempt: Attempt, output: DkgOutput) -> HeldShare:
        """Hold a finished ceremony's share until the group key is recorded."""
        held = _hold(group, attempt, output)
        self._pending[group, attempt] = held
        return held

    def find(self, group: GroupId) -> HeldShare | None:
        """Return the share of a group whose key is recorded, if this identity is a member."""
        return self._recorded.get(group)

    def find_pending(self, group: GroupId, attempt: Attempt) -> HeldShare | None:
        """Return the share of a finished ceremony, recorded or not."""
        recorded = self._recorded.get(group)
        if recorded is not None and recorded.attempt == attempt:
            return recorded
        return self._pending.get((group, attempt))

    def has_share(self, share: SecretShare) -> bool:
        """Tell whether this very object is held, recorded or pending: nobody else may wipe it then."""
        return any(held.share is share for held in (*self._recorded.values(), *self._pending.values()))

    def held(self) -> tuple[HeldShare, ...]:
        """Return every share of a recorded group, by epoch and role."""
        return tuple(self._recorded[group] for group in sorted(self._recorded, key=lambda g: (g.epoch, g.role)))

    def refresh(self, epochs: Mapping[EpochNumber, EpochEntry]) -> None:
        """Restore the share of every recorded group of which this identity is a member and holds none yet.

        What belongs to a retired epoch, or to a draw that was aborted, is forgotten [R6]: hygiene only, because the
        identity secret and the recovery data give it back.
        """
        for epoch in epochs.values():
            if epoch.state in _OVER:
                self._forget(epoch.number)
                continue
            for role, info in epoch.groups.items():
                group = GroupId(epoch.number, role)
                if self.identity in info.members and not self._holds(group, info):
                    self._restore(group, info)

    def restore(self, group: GroupId, attempt: Attempt, recovery_data: bytes) -> HeldShare:
        """Restore a share from recovery data; InvalidInput unless it is this member's ceremony."""
        output, _ = participant_recover(self.derive_host_secret(group, attempt), recovery_data)
        return self.keep_pending(group, attempt, output)

    def _holds(self, group: GroupId, info: GroupInfo) -> bool:
        # An epoch that was drawn again has another key under the same name.
        held = self._recorded.get(group)
        return held is not None and held.key.threshold_pubkey == info.group_key

    def _forget(self, epoch: EpochNumber) -> None:
        for group in [group for group in self._recorded if group.epoch == epoch]:
            del self._recorded[group]
            log.info("share.forgotten", epoch=group.epoch, role=group.role)
        for key in [key for key in self._pending if key[0].epoch == epoch]:
            del self._pending[key]

    def _restore(self, group: GroupId, info: GroupInfo) -> None:
        pending = self._pending.pop((group, info.attempt), None)
        if pending is not None and pending.key.threshold_pubkey == info.group_key:
            self._recorded[group] = pending
            return
        try:
            output, _ = participant_recover(self.derive_host_secret(group, info.attempt), info.recovery_data)
        except BridgeError:
            log.exception("share.not_restored", epoch=group.epoch, role=group.role)
            return
        self._recorded[group] = _hold(group, info.attempt, output)
        log.info("share.restored", epoch=group.epoch, role=group.role, position=output.share.position)


def _hold(group: GroupId, attempt: Attempt, output: DkgOutput) -> HeldShare:
    return HeldShare(group, attempt, output.group, output.share, output.recovery_data)
