"""What a pod attests by itself: heartbeats with what its bitcoind says, and the checkpoints of the chain it follows.

Both go through its own consensus node, so no coordinator can silence it. A checkpoint is signed only when every block
up to it is valid here, and only after the vote is on disk. A pod never signs two checkpoints of one height, never one
below its last, and none on a branch without its last unless that branch is final beyond it. Two checkpoints that
contradict each other cannot both become final then, whatever more than two thirds of the stake see and when.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import Final

import structlog

from smpc.curve import SecretKey, compute_xonly_key, sign_schnorr
from smpc.errors import BridgeError, Conflict
from smpc.node.consensus import ConsensusNode
from smpc.node.ports import BitcoinNode
from smpc.node.replica import Replica
from smpc.participant.signing_log import SigningLog
from smpc.participant.vote_log import CastVote
from smpc.protocol.attestations import CheckpointVote, Heartbeat
from smpc.protocol.records import Record
from smpc.types import FeeRate, IdentityKey, KaonHash, KaonHeight, Signature

log = structlog.get_logger()

ESTIMATE_BLOCKS: Final = 3
"""Confirmation target of the fee estimate in heartbeats."""

MAX_OPEN_VOTES: Final = 4
"""Newest checkpoints voted for at once: after a long silence of others two in a row are enough for finality."""

_UNSIGNED: Final = Signature(bytes(64))


class Attestor:
    """One validator's heartbeats and votes. Does nothing where the genesis knows no checkpoints."""

    def __init__(
        self,
        *,
        identity_secret: SecretKey,
        signing_log: SigningLog,
        node: BitcoinNode,
        consensus: ConsensusNode,
        replica: Replica,
    ) -> None:
        self._secret = identity_secret
        self._identity = IdentityKey(compute_xonly_key(identity_secret))
        self._log = signing_log
        self._node = node
        self._consensus = consensus
        self._replica = replica
        self._beaten: int | None = None
        self._sent: dict[KaonHeight, KaonHash] = {}

    @property
    def is_needed(self) -> bool:
        """Tell whether this identity is a registered validator of a chain with checkpoints."""
        genesis = self._replica.ledger.genesis
        return genesis.has_checkpoints and any(
            item.identity == self._identity and item.stake > 0 for item in genesis.validators
        )

    async def run(self) -> None:
        """Attest whatever each new block asks for, for ever; returns at once where it is not needed."""
        while self.is_needed:
            tip = self._replica.tip_hash
            await self.attest()
            await self._replica.wait_beside(tip)

    async def attest(self) -> None:
        """Send the heartbeat and the votes that are due; what could not be sent is tried again at the next block."""
        if not self.is_needed:
            return
        try:
            await self._beat()
        except BridgeError as reason:
            log.warning("heartbeat.postponed", code=reason.code, reason=reason.message)
        try:
            await self._vote()
        except BridgeError as reason:
            log.warning("vote.postponed", code=reason.code, reason=reason.message)

    # -------------------------------------------------------------- heartbeats

    async def _beat(self) -> None:
        height = self._replica.tip_height
        window = height // self._replica.ledger.params.heartbeat_blocks
        if window <= self._find_last_window():
            return
        await self._submit(await self._build_heartbeat(height))
        self._beaten = window

    def _find_last_window(self) -> int:
        if self._beaten is None:
            ledger = self._replica.ledger
            known = ledger.heartbeats.get(self._identity)
            every = ledger.params.heartbeat_blocks
            self._beaten = known.heartbeat.kaon_height // every if known is not None else -1
        return self._beaten

    async def _build_heartbeat(self, height: KaonHeight) -> Heartbeat:
        tip = await self._node.fetch_tip()
        if not tip.is_synced:
            raise Conflict(f"my bitcoind is at block {tip.height} of {tip.headers}", remedy="wait until it is synced")
        estimate = await self._node.estimate_fee_rate(ESTIMATE_BLOCKS)
        params = self._replica.ledger.params
        rate = 0 if estimate is None else min(params.fee_cap, max(params.fee_floor, estimate))
        unsigned = Heartbeat(
            network=params.network,
            identity=self._identity,
            kaon_height=height,
            btc_height=tip.height,
            btc_hash=tip.block_hash,
            btc_time=tip.time,
            fee_rate=FeeRate(rate),
            signature=_UNSIGNED,
        )
        return replace(unsigned, signature=self._sign(unsigned.digest))

    # -------------------------------------------------------------- checkpoint votes

    async def _vote(self) -> None:
        for height, block_hash in self._replica.list_open_checkpoints()[-MAX_OPEN_VOTES:]:
            if self._sent.get(height) == block_hash:
                continue
            last = await asyncio.to_thread(self._log.find_last_vote)
            vote = CastVote(height, block_hash)
            if last is not None and (vote.height < last.height or not self._follows(last)):
                continue
            # The chain may have moved while the disk was read: whatever is checked and signed is one and the same.
            if not await self._replica.check_checkpoint(height, block_hash):
                return
            await asyncio.to_thread(self._log.record_vote, vote)
            await self._submit(self._build_vote(vote))
            self._note_sent(vote)

    def _follows(self, last: CastVote) -> bool:
        """Tell whether the chain followed holds the last checkpoint signed, or is final beyond it."""
        if last.height <= self._replica.ledger.height:
            return True
        return (last.height, last.block_hash) in self._replica.list_open_checkpoints()

    def _build_vote(self, vote: CastVote) -> CheckpointVote:
        network = self._replica.ledger.params.network
        unsigned = CheckpointVote(network, vote.height, vote.block_hash, self._identity, _UNSIGNED)
        return replace(unsigned, signature=self._sign(unsigned.digest))

    def _note_sent(self, vote: CastVote) -> None:
        final = self._replica.ledger.height
        self._sent = {height: known for height, known in self._sent.items() if height > final}
        self._sent[vote.height] = vote.block_hash

    async def _submit(self, record: Record) -> None:
        try:
            await self._consensus.submit(record)
        except Conflict as known:
            # Recorded before a restart, or by a request whose answer was lost.
            log.debug("attestation.known", kind=type(record).__name__, reason=known.message)

    def _sign(self, digest: bytes) -> Signature:
        return sign_schnorr(self._secret, digest, os.urandom(32))
