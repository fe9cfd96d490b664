"""Does what the ledger says this member owes: announces host keys, confirms and publishes emergency preimages."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Final, assert_never

import structlog

from smpc.bitcoin.script import PREIMAGE_BYTES, is_preimage
from smpc.curve import SecretKey, sign_schnorr
from smpc.errors import BridgeError, CheckFailed, Conflict, TimedOut, Unavailable
from smpc.host.sealing import build_preimage_context, open_sealed
from smpc.node.consensus import ConsensusNode
from smpc.participant.duties import Duty, HostKeyDue, PreimageDue, RevealDue, find_duties, find_reveals
from smpc.participant.shares import ShareRing
from smpc.protocol.ceremony_records import HostKeyAnnounced
from smpc.protocol.ledger import Ledger
from smpc.protocol.records import PreimageConfirmed, Record
from smpc.protocol.verdict_records import PreimageRevealed
from smpc.threshold.dkg import hostpubkey_gen
from smpc.types import EpochNumber, KaonHeight, Signature

log = structlog.get_logger()

REPEAT_AFTER: Final = 10
"""Final blocks after which a duty that the ledger still does not show is done again."""


class DutyKeeper:
    """Submits this member's records through its own consensus node; a coordinator has no part in it."""

    def __init__(
        self, *, identity_secret: SecretKey, ring: ShareRing, consensus: ConsensusNode, view: Callable[[], Ledger]
    ) -> None:
        self._secret = identity_secret
        self._ring = ring
        self._consensus = consensus
        self._view = view
        self._done: dict[Duty, KaonHeight] = {}

    async def perform(self) -> None:
        """Do every duty that is due and not on its way; what fails is tried again at a later block."""
        ledger = self._view()
        identity = self._ring.identity
        for duty in (*find_duties(ledger.epochs, identity, ledger.count_acting), *find_reveals(ledger, identity)):
            done = self._done.get(duty)
            if done is not None and ledger.height < done + REPEAT_AFTER:
                continue
            try:
                await self._consensus.submit(self._build(duty, ledger))
                log.info("duty.performed", duty=type(duty).__name__)
            except (Unavailable, TimedOut) as reason:
                log.warning("duty.postponed", duty=type(duty).__name__, reason=reason.message)
                return
            except Conflict as reason:
                log.info("duty.done_before", duty=type(duty).__name__, reason=reason.message)
            except BridgeError as reason:
                log.warning("duty.refused", duty=type(duty).__name__, code=reason.code, reason=reason.message)
            self._done[duty] = ledger.height

    def _build(self, duty: Duty, ledger: Ledger) -> Record:
        match duty:
            case HostKeyDue():
                return self._announce(duty, ledger)
            case PreimageDue():
                return self._confirm(duty, ledger)
            case RevealDue():
                network = ledger.params.network
                return PreimageRevealed(network, duty.epoch, self._open_preimage(duty.epoch, ledger))
            case _:
                assert_never(duty)

    def _announce(self, duty: HostKeyDue, ledger: Ledger) -> HostKeyAnnounced:
        host_key = hostpubkey_gen(self._ring.derive_host_secret(duty.group, duty.attempt))
        network, identity = ledger.params.network, self._ring.identity
        unsigned = HostKeyAnnounced(network, duty.group, duty.attempt, identity, host_key, Signature(bytes(64)))
        signature = sign_schnorr(self._secret, unsigned.digest, os.urandom(32))
        return HostKeyAnnounced(network, duty.group, duty.attempt, identity, host_key, signature)

    def _confirm(self, duty: PreimageDue, ledger: Ledger) -> PreimageConfirmed:
        self._open_preimage(duty.epoch, ledger)
        network, identity = ledger.params.network, self._ring.identity
        unsigned = PreimageConfirmed(network, duty.epoch, identity, Signature(bytes(64)), duty.draw)
        signature = sign_schnorr(self._secret, unsigned.digest, os.urandom(32))
        return replace(unsigned, signature=signature)

    def _open_preimage(self, epoch: EpochNumber, ledger: Ledger) -> bytes:
        """Return the 32 bytes sealed to me; CheckFailed (WRONG_PREIMAGE) when they are not the epoch's preimage.

        Then I confirm nothing: without `t` confirmations the epoch is never standby, and the next proposer draws it
        again. The length counts as much as the hash, or everything were armed that nobody can ever reject.
        """
        entry = ledger.epochs[epoch]
        context = build_preimage_context(ledger.params.network, epoch)
        preimage = open_sealed(entry.sealed_preimages[self._ring.identity], self._secret, context)
        if len(preimage) != PREIMAGE_BYTES:
            text = f"the sealed preimage of epoch {epoch} has {len(preimage)} bytes, a rejection takes {PREIMAGE_BYTES}"
            raise CheckFailed(text, code="WRONG_PREIMAGE")
        if not is_preimage(preimage, entry.preimage_hash):
            text = f"the sealed preimage of epoch {epoch} does not open to its hash"
            raise CheckFailed(text, code="WRONG_PREIMAGE")
        return preimage
