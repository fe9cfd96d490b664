"""What the proposer announces at the start: the first epoch's draw and its sealed emergency preimage (section 5)."""

from __future__ import annotations

import hashlib
import secrets

from smpc.curve import SecretKey
from smpc.errors import ConfigError
from smpc.host.sealing import build_preimage_context, seal
from smpc.params import Params
from smpc.protocol.election import compute_genesis_seed, find_draw
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
    preimage = secrets.token_bytes(32)
    context = build_preimage_context(genesis.network, FIRST_EPOCH)
    emergency = dict(draw.members)[Role.EMERGENCY]
    return EpochAnnounced(
        epoch=FIRST_EPOCH,
        members=draw.members,
        preimage_hash=hashlib.sha256(preimage).digest(),
        sealed_preimages=tuple((key, _seal(preimage, key, context)) for key in emergency),
    )


def _seal(preimage: bytes, recipient: IdentityKey, context: bytes) -> bytes:
    ephemeral = SecretKey.generate(secrets.token_bytes(32))
    try:
        return seal(preimage, recipient, context, ephemeral)
    finally:
        ephemeral.wipe()
