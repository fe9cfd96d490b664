"""An arming chain in which groups fall silent, are judged, and have their outputs rejected."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import replace

from slashing.model import BuiltRejection
from slashing.rejection import build_rejections
from smpc.protocol.checkpoints import CHECKPOINT_BLOCKS
from smpc.protocol.intents import Booking
from smpc.protocol.verdict_records import PreimageRevealed, RejectionSigned, ServiceComplaint
from smpc.types import EpochNumber, IdentityKey, Network, Outpoint, Role, Txid
from tests.support.armed_world import ArmedChain, ArmedWorld
from tests.support.chain import UNSIGNED
from tests.support.groups import CROWD, sign, sign_with_child
from tests.support.turning_chain import list_identities, list_secrets

FIRST = EpochNumber(0)


def list_members(chain: ArmedChain, epoch: int, role: Role) -> tuple[IdentityKey, ...]:
    """Return a group's members."""
    return chain.entry(epoch).groups[role].members


def attest_without(chain: ArmedChain, silent: Collection[IdentityKey]) -> None:
    """Bring two checkpoints with the heartbeats and votes of all others who are not jailed; the first is final then."""
    others = tuple(
        number
        for number, identity in enumerate(list_identities())
        if identity not in silent and identity in chain.ledger.stakes
    )
    chain.pulse(validators=others)
    while chain.ledger.height % CHECKPOINT_BLOCKS:
        chain.add()
    first = chain.ledger.height
    chain.skip(CHECKPOINT_BLOCKS)
    chain.vote(first, others)
    chain.vote(first + CHECKPOINT_BLOCKS, others)


def wait_until_final(chain: ArmedChain, height: int, silent: Collection[IdentityKey] = ()) -> None:
    """Go on, others attesting, until a block at or above `height` is final."""
    while chain.ledger.final_height < height:
        attest_without(chain, silent)


def silence_group(chain: ArmedChain, epoch: int, role: Role) -> tuple[IdentityKey, ...]:
    """Let so many of a group stop their heartbeats that it cannot sign, until the ledger judged it; who they are.

    The verdict stands in the newest block and is not final yet. The group's other members go on: with them silent too
    there were too few validators left to draw from.
    """
    info = chain.entry(epoch).groups[role]
    silent = info.members[: len(info.members) - info.threshold + 1]
    while (EpochNumber(epoch), role) not in chain.ledger.judgements.verdicts:
        attest_without(chain, silent)
        chain.add()
    return silent


def reveal(epoch: int, preimage: bytes) -> PreimageRevealed:
    """Return the record of a preimage."""
    return PreimageRevealed(Network.REGTEST, EpochNumber(epoch), preimage)


def find_preimage(chain: ArmedChain, epoch: int) -> bytes:
    """Return the preimage that the proposer drew."""
    found = chain.keyed[EpochNumber(epoch)].preimage
    assert hashlib.sha256(found).digest() == chain.entry(epoch).preimage_hash
    return found


def list_rejections(chain: ArmedChain, epoch: int = FIRST) -> tuple[BuiltRejection, ...]:
    """Return what W of a released epoch has still to sign."""
    return build_rejections(chain.ledger, EpochNumber(epoch))


def reject(chain: ArmedChain, built: BuiltRejection) -> RejectionSigned:
    """Return a rejection with W's signatures."""
    group = chain.keyed[built.arming.epoch].groups[Role.WITNESS]
    return built.to_record([sign_with_child(group, child, digest) for child, digest in built.list_tasks()])


def complain(accuser: IdentityKey, role: Role, subject: bytes, epoch: int = FIRST) -> ServiceComplaint:
    """Return a signed complaint."""
    record = ServiceComplaint(Network.REGTEST, EpochNumber(epoch), role, subject, accuser, UNSIGNED)
    return replace(record, signature=sign(list_secrets(CROWD)[list_identities(CROWD).index(accuser)], record.digest))


def book_emergency(chain: ArmedChain, outpoint: Outpoint, txid: Txid) -> Booking:
    """Book an executed emergency under the active epoch's keys."""
    booking = chain.ledger.judgements.compute_emergency_booking(outpoint, txid)
    chain.add(chain.sign_booking(booking))
    return booking


def released_world(*values: int) -> ArmedWorld:
    """Return a world whose epoch 0 holds these deposits, booked, and whose V was judged; the release is final."""
    world = ArmedWorld.filled(*values)
    silent = silence_group(world.armed, FIRST, Role.VALIDATOR)
    wait_until_final(world.armed, world.ledger.judgements.verdicts[FIRST, Role.VALIDATOR].recorded, silent)
    return world
