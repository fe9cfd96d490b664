"""A keyed epoch for tests: 16 validators, groups of 3-of-4 with real ceremonies, and every member's secrets.

`build_keyed_epoch()` runs three ChillDKG ceremonies once per process. Group signatures are made with the interpolated
group secret: tests of the ledger and of flows need valid signatures, not a signing round.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from smpc.curve import (
    ORDER,
    SecretKey,
    add_scalar,
    compute_plain_key,
    compute_xonly_key,
    parse_scalar,
    sign_schnorr,
    tagged_hash,
)
from smpc.params import REGTEST
from smpc.participant.keystore import derive_host_secret
from smpc.protocol.ceremony_records import HostKeyAnnounced
from smpc.protocol.election import compute_genesis_seed, find_draw
from smpc.protocol.intents import Endorsement, Intent, compute_endorsement_digest, list_signing_roles
from smpc.protocol.records import (
    EpochAnnounced,
    Genesis,
    GroupInfo,
    GroupKeyRecorded,
    IntentRecorded,
    PreimageConfirmed,
    Record,
    ValidatorInfo,
    compute_ready_digest,
)
from smpc.threshold.child_keys import derive_child_tweak
from smpc.threshold.dkg import (
    SessionParams,
    coordinator_finalize,
    coordinator_step1,
    participant_finalize,
    participant_step1,
    participant_step2,
)
from smpc.threshold.group_key import DkgOutput
from smpc.types import (
    AccountKey,
    Attempt,
    ChildIndex,
    EpochNumber,
    GroupId,
    HostKey,
    IdentityKey,
    KaonHeight,
    Network,
    Role,
    Script,
    Signature,
    XOnlyKey,
)

EPOCH: Final = EpochNumber(0)
ATTEMPT: Final = Attempt(0)
VALIDATORS: Final = 16
CROWD: Final = 20
"""As many as tests ever register: with four of them gone for good, three groups of four can still be drawn."""


@dataclass(frozen=True, slots=True)
class KeyedGroup:
    """A group with everything its members know."""

    info: GroupInfo
    identities: tuple[SecretKey, ...]
    host_secrets: tuple[SecretKey, ...]
    outputs: tuple[DkgOutput, ...]
    """Each member's own view of the finished ceremony, its secret share included."""
    secret: SecretKey
    """The group secret, interpolated: a test's short cut."""


@dataclass(frozen=True, slots=True)
class KeyedEpoch:
    """Epoch 0 of a test chain: its genesis, all secrets, and the records that bring it to standby."""

    genesis: Genesis
    identities: Mapping[IdentityKey, SecretKey]
    coordinator: SecretKey
    proposer: SecretKey
    preimage: bytes
    announced: EpochAnnounced
    host_keys: tuple[HostKeyAnnounced, ...]
    confirmed: tuple[PreimageConfirmed, ...]
    keyed: tuple[GroupKeyRecorded, ...]
    groups: Mapping[Role, KeyedGroup]

    @property
    def number(self) -> EpochNumber:
        """The epoch's number."""
        return self.announced.epoch

    @property
    def records(self) -> tuple[Record, ...]:
        """Every record up to standby, in an order the ledger accepts."""
        return (self.announced, *self.host_keys, *self.confirmed, *self.keyed)


def make_secret(name: str, number: int = 0) -> SecretKey:
    """Return the same secret key for the same name and number."""
    return SecretKey.generate(tagged_hash("TEST/secret", name.encode(), number.to_bytes(4, "big")))


def make_account(name: str) -> tuple[SecretKey, AccountKey]:
    """Return an account's secret and key."""
    secret = make_secret(f"account {name}")
    return secret, AccountKey(compute_xonly_key(secret))


def make_xonly(name: str) -> XOnlyKey:
    """Return some x-only key."""
    return compute_xonly_key(make_secret(name))


def sign(secret: SecretKey, digest: bytes, *, variant: int = 0) -> Signature:
    """Return a BIP 340 signature; each `variant` gives another one of the same digest."""
    return sign_schnorr(secret, digest, tagged_hash("TEST/aux", digest, bytes([variant])))


def sign_with_group(group: KeyedGroup, digest: bytes) -> Signature:
    """Return the group key's own signature, as for bookings, withdrawals and deaths."""
    return sign(group.secret, digest)


def sign_with_child(group: KeyedGroup, child: ChildIndex, digest: bytes) -> Signature:
    """Return the signature of the group's child key, as a leaf wants it."""
    tweak = parse_scalar(derive_child_tweak(group.info.group_key, child))
    return sign(add_scalar(group.secret, tweak), digest)


def endorse(
    epoch: KeyedEpoch, intent: Intent, height: KaonHeight, *, members: tuple[int, ...] = (0, 1, 2)
) -> IntentRecorded:
    """Return the intent with valid endorsements of these members of each signing group, as of `height`."""
    endorsements = tuple(
        Endorsement(role, position, height, _endorse_one(epoch.groups[role], intent, role, position, height))
        for role in list_signing_roles(intent.kind)
        for position in members
    )
    return IntentRecorded(intent, endorsements)


def make_validator(number: int) -> ValidatorInfo:
    """Return what is registered of a validator."""
    return ValidatorInfo(
        identity=IdentityKey(compute_xonly_key(make_secret("identity", number))),
        endpoint=f"127.0.0.1:{20_000 + number}",
        stake=1_000,
        payout_script=Script(b"\x51\x20" + make_xonly(f"payout {number}")),
    )


@functools.cache
def build_genesis() -> Genesis:
    """Return a devnet-like genesis: 16 validators of equal stake, one coordinator."""
    return Genesis(
        network=Network.REGTEST,
        validators=tuple(map(make_validator, range(VALIDATORS))),
        coordinators=(IdentityKey(compute_xonly_key(make_secret("coordinator"))),),
        proposer=IdentityKey(compute_xonly_key(make_secret("proposer"))),
        btc_start=(100, bytes(32)),
        block_millis=250,
    )


@functools.cache
def build_keyed_epoch() -> KeyedEpoch:
    """Run the ceremonies of epoch 0 of `build_genesis()`, once per process."""
    genesis = build_genesis()
    draw = find_draw(REGTEST, genesis.validators, compute_genesis_seed(genesis.genesis_hash, EPOCH))
    assert draw is not None
    return key_epoch(genesis, EPOCH, draw.members)


def key_epoch(
    genesis: Genesis,
    epoch: EpochNumber,
    members: tuple[tuple[Role, tuple[IdentityKey, ...]], ...],
    *,
    draw: int = 0,
    attempt: Attempt = ATTEMPT,
) -> KeyedEpoch:
    """Run the ceremonies of an epoch with these members; the same arguments give the same keys."""
    secrets = [make_secret("identity", number) for number in range(CROWD)]
    identities = {IdentityKey(compute_xonly_key(secret)): secret for secret in secrets}
    groups = {role: _build_group(GroupId(epoch, role), attempt, keys, identities) for role, keys in members}
    preimage = tagged_hash("TEST/preimage", *([bytes([epoch, draw])] if epoch or draw else []))
    emergency = dict(members)[Role.EMERGENCY]
    return KeyedEpoch(
        genesis=genesis,
        identities=identities,
        coordinator=make_secret("coordinator"),
        proposer=make_secret("proposer"),
        preimage=preimage,
        announced=EpochAnnounced(
            epoch, members, _sha256(preimage), tuple((key, b"sealed for " + key) for key in emergency)
        ),
        host_keys=tuple(record for group in groups.values() for record in _announce(group)),
        confirmed=tuple(_confirm(identities[key], epoch, key, draw) for key in emergency),
        keyed=tuple(_record(group) for group in groups.values()),
        groups=groups,
    )


def run_ceremony(host_secrets: tuple[SecretKey, ...], threshold: int, salt: str) -> tuple[DkgOutput, ...]:
    """Run a whole ChillDKG ceremony among honest members; each member's output."""
    host_keys = tuple(HostKey(compute_plain_key(secret)) for secret in host_secrets)
    params = SessionParams(host_keys, threshold)
    randomness = [tagged_hash("TEST/dkg", salt.encode(), key) for key in host_keys]
    first = [participant_step1(secret, params, noise) for secret, noise in zip(host_secrets, randomness, strict=True)]
    coordinator, broadcast = coordinator_step1([message for _, message in first], params)
    second = [
        participant_step2(secret, state, broadcast, noise)
        for secret, (state, _), noise in zip(host_secrets, first, randomness, strict=True)
    ]
    certificate, _ = coordinator_finalize(coordinator, [signature for _, signature in second])
    return tuple(participant_finalize(state, certificate) for state, _ in second)


def _build_group(
    group_id: GroupId, attempt: Attempt, members: tuple[IdentityKey, ...], identities: Mapping[IdentityKey, SecretKey]
) -> KeyedGroup:
    threshold, epoch, role = REGTEST.compute_threshold(len(members)), group_id.epoch, group_id.role
    host_secrets = tuple(derive_host_secret(identities[key], Network.REGTEST, epoch, role, attempt) for key in members)
    outputs = run_ceremony(host_secrets, threshold, role)
    group = outputs[0].group
    info = GroupInfo(
        group=group_id,
        members=members,
        host_keys=group.host_keys,
        threshold=threshold,
        attempt=attempt,
        group_key=group.threshold_pubkey,
        public_shares=group.public_shares,
        recovery_data=outputs[0].recovery_data,
    )
    secret = interpolate(outputs[:threshold])
    assert compute_plain_key(secret) == info.group_key
    return KeyedGroup(info, tuple(identities[key] for key in members), host_secrets, outputs, secret)


def interpolate(outputs: tuple[DkgOutput, ...]) -> SecretKey:
    """Return the group secret that `t` members' shares lie on."""
    points = [(output.share.position + 1, output.share.secret.to_secret_bytes()) for output in outputs]
    total = 0
    for x, share in points:
        weight = int.from_bytes(share, "big")
        for other, _ in points:
            if other != x:
                weight = weight * other * pow(other - x, -1, ORDER) % ORDER
        total += weight
    return SecretKey.from_bytes((total % ORDER).to_bytes(32, "big"))


def _announce(group: KeyedGroup) -> list[HostKeyAnnounced]:
    records = []
    for identity, secret, host_key in zip(group.info.members, group.identities, group.info.host_keys, strict=True):
        unsigned = HostKeyAnnounced(
            Network.REGTEST, group.info.group, group.info.attempt, identity, host_key, Signature(bytes(64))
        )
        records.append(replace(unsigned, signature=sign(secret, unsigned.digest)))
    return records


def _confirm(secret: SecretKey, epoch: EpochNumber, identity: IdentityKey, draw: int) -> PreimageConfirmed:
    unsigned = PreimageConfirmed(Network.REGTEST, epoch, identity, Signature(bytes(64)), draw)
    return replace(unsigned, signature=sign(secret, unsigned.digest))


def _record(group: KeyedGroup) -> GroupKeyRecorded:
    info = group.info
    digest = compute_ready_digest(Network.REGTEST, info.group, info.attempt, info.recovery_data)
    ready = (sign(group.secret, digest), sign(group.secret, digest, variant=1))
    return GroupKeyRecorded(Network.REGTEST, info.group, info.attempt, info.recovery_data, ready)


def _endorse_one(group: KeyedGroup, intent: Intent, role: Role, position: int, height: KaonHeight) -> Signature:
    digest = compute_endorsement_digest(Network.REGTEST, intent.intent_id, role, height)
    return sign(group.host_secrets[position], digest)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
