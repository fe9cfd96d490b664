"""What the proposer announces: an epoch's draw and its sealed emergency preimage (design.md section 5)."""

from __future__ import annotations

import hashlib
import secrets

from smpc.curve import SecretKey
from smpc.errors import ConfigError
from smpc.host.sealing import build_preimage_context, seal
from smpc.params import Params
from smpc.protocol.election import compute_genesis_seed, find_draw
from smpc.protocol.ledger_state import DueEpoch, GroupMembers
from smpc.protocol.records import EpochAnnounced, Genesis
from smpc.types import EpochNumber, IdentityKey, Role

FIRST_EPOCH = EpochNumber(0)


def announce_first_epoch(genesis: Genesis, params: Params) -> EpochAnnounced:
    """Draw epoch 0 and a fresh preimage, sealed to every emergency member and kept by nobody else.

    ConfigError when the genesis has too few validators for three groups.
    """
    draw = find_draw(params, genesis.validators, compute_genesis_seed(genesis.genesis_hash, FIRST_EPOCH))
    if draw is None:
        raise ConfigError(
            f"{len(genesis.validators)} validators are too few for three groups of {params.min_group_size}",
            remedy="register more validators, none with a third of the stake",
        )
    return _announce(genesis, FIRST_EPOCH, draw.members)


def announce_epoch(genesis: Genesis, due: DueEpoch) -> EpochAnnounced:
    """Announce the draw that is due with a fresh preimage, sealed to every emergency member and kept by nobody else."""
    return _announce(genesis, due.number, due.members)


def _announce(genesis: Genesis, epoch: EpochNumber, members: GroupMembers) -> EpochAnnounced:
    preimage = secrets.token_bytes(32)
    context = build_preimage_context(genesis.network, epoch)
    emergency = dict(members)[Role.EMERGENCY]
    return EpochAnnounced(
        epoch=epoch,
        members=members,
        preimage_hash=hashlib.sha256(preimage).digest(),
        sealed_preimages=tuple((key, _seal(preimage, key, context)) for key in emergency),
    )


def _seal(preimage: bytes, recipient: IdentityKey, context: bytes) -> bytes:
    ephemeral = SecretKey.generate(secrets.token_bytes(32))
    try:
        return seal(preimage, recipient, context, ephemeral)
    finally:
        ephemeral.wipe()
