"""Protobuf <-> domain for the consensus layer's port; a peer's malformed answer is a ProtocolError."""

from __future__ import annotations

from pegbridge.v1 import consensus_pb2 as pb
from smpc.errors import InvalidInput, ProtocolError
from smpc.protocol.codec import decode, decode_variant, encode, encode_variant
from smpc.protocol.ledger_state import AccountEntry, EpochState
from smpc.protocol.ledger_views import (
    ChallengeVerdict,
    EpochView,
    GroupView,
    KaonTip,
    RecordedEntry,
    RecordsPage,
    SupplyView,
)
from smpc.protocol.records import GroupInfo, KaonBlock, Record
from smpc.types import (
    Attempt,
    EpochNumber,
    FeeRate,
    GroupId,
    HostKey,
    IdentityKey,
    IntentId,
    KaonHash,
    KaonHeight,
    PlainKey,
    Role,
    Sats,
)


def to_record_message(record: Record) -> pb.CanonicalRecord:
    """Return the protobuf form."""
    return pb.CanonicalRecord(kind=type(record).__name__, content=encode_variant(record))


def from_record_message(message: pb.CanonicalRecord) -> Record:
    """Read a record; InvalidInput unless its bytes are canonical and of the kind stated."""
    record: Record = decode_variant(Record, message.content)
    if type(record).__name__ != message.kind:
        raise InvalidInput(f"the record is a {type(record).__name__}, not a {message.kind[:40]!r}")
    return record


def to_block_message(block: KaonBlock) -> pb.CanonicalBlock:
    """Return the protobuf form."""
    return pb.CanonicalBlock(kaon_height=block.height, content=encode(block))


def from_block_message(message: pb.CanonicalBlock) -> KaonBlock:
    """Read a block; ProtocolError unless its bytes are canonical and of the height stated."""
    try:
        block = decode(KaonBlock, message.content)
    except InvalidInput as error:
        raise ProtocolError(f"the consensus node sent no block: {error.message}", code="BAD_BLOCK") from error
    if block.height != message.kaon_height:
        raise ProtocolError(f"asked for block {message.kaon_height}, got {block.height}", code="BAD_BLOCK")
    return block


def to_tip_message(tip: KaonTip) -> pb.GetTipResponse:
    """Return the protobuf form."""
    return pb.GetTipResponse(
        kaon_height=tip.height,
        block_hash=tip.block_hash,
        final_kaon_height=tip.final,
        genesis_hash=tip.genesis_hash,
        time_millis=tip.time_millis,
    )


def from_tip_message(message: pb.GetTipResponse) -> KaonTip:
    """Read a tip."""
    return KaonTip(
        height=KaonHeight(message.kaon_height),
        block_hash=KaonHash(_exact(message.block_hash, 32, "block_hash")),
        final=KaonHeight(message.final_kaon_height),
        genesis_hash=KaonHash(_exact(message.genesis_hash, 32, "genesis_hash")),
        time_millis=message.time_millis,
    )


def to_epoch_message(epoch: EpochView) -> pb.GetEpochResponse:
    """Return the protobuf form."""
    return pb.GetEpochResponse(
        epoch=epoch.number,
        state=epoch.state,
        announced_kaon_height=epoch.announced,
        activated_kaon_height=epoch.activated,
        preimage_hash=epoch.preimage_hash,
        confirmed_preimages=epoch.confirmed_preimages,
        groups=[
            pb.CertifiedGroup(
                role=group.role, members=group.members, threshold=group.threshold, key=_to_key_message(group.info)
            )
            for group in epoch.groups
        ],
    )


def from_epoch_message(message: pb.GetEpochResponse) -> EpochView:
    """Read an epoch."""
    number = EpochNumber(message.epoch)
    try:
        state = EpochState(message.state)
        groups = tuple(_from_group_message(number, group) for group in message.groups)
    except ValueError as error:
        raise ProtocolError(f"the consensus node sent no epoch: {error}", code="BAD_EPOCH") from error
    return EpochView(
        number=number,
        state=state,
        announced=KaonHeight(message.announced_kaon_height),
        activated=KaonHeight(message.activated_kaon_height) if message.HasField("activated_kaon_height") else None,
        preimage_hash=_exact(message.preimage_hash, 32, "preimage_hash"),
        confirmed_preimages=message.confirmed_preimages,
        groups=groups,
    )


def to_supply_message(supply: SupplyView) -> pb.GetSupplyResponse:
    """Return the protobuf form."""
    return pb.GetSupplyResponse(
        vault_sats=supply.vault,
        supply_sats=supply.supply,
        open_burns_sats=supply.open_burns,
        reserve_sats=supply.reserve,
        fee_rate_sat_per_kvb=supply.fee_rate,
        kaon_height=supply.height,
    )


def from_supply_message(message: pb.GetSupplyResponse) -> SupplyView:
    """Read the money identity."""
    return SupplyView(
        vault=Sats(message.vault_sats),
        supply=Sats(message.supply_sats),
        open_burns=Sats(message.open_burns_sats),
        reserve=message.reserve_sats,
        fee_rate=FeeRate(message.fee_rate_sat_per_kvb),
        height=KaonHeight(message.kaon_height),
    )


def from_account_message(message: pb.GetAccountResponse) -> AccountEntry:
    """Read an account."""
    return AccountEntry(balance=Sats(message.balance_sats), nonce=message.nonce)


def to_page_message(page: RecordsPage) -> pb.ListRecordsResponse:
    """Return the protobuf form."""
    return pb.ListRecordsResponse(
        entries=[
            pb.RecordedEntry(kaon_height=entry.height, record=to_record_message(entry.record)) for entry in page.entries
        ],
        through_kaon_height=page.through,
    )


def from_page_message(message: pb.ListRecordsResponse) -> RecordsPage:
    """Read a page of records."""
    try:
        entries = tuple(
            RecordedEntry(KaonHeight(entry.kaon_height), from_record_message(entry.record)) for entry in message.entries
        )
    except InvalidInput as error:
        raise ProtocolError(f"the consensus node sent no record: {error.message}", code="BAD_RECORD") from error
    return RecordsPage(entries, KaonHeight(message.through_kaon_height))


def to_verdicts_message(verdicts: tuple[ChallengeVerdict, ...]) -> pb.ListVerdictsResponse:
    """Return the protobuf form."""
    return pb.ListVerdictsResponse(
        verdicts=[
            pb.Verdict(
                intent_id=item.intent,
                challenger=item.challenger,
                rule=item.rule,
                note=item.note,
                upheld=item.is_upheld,
            )
            for item in verdicts
        ]
    )


def from_verdicts_message(message: pb.ListVerdictsResponse) -> tuple[ChallengeVerdict, ...]:
    """Read verdicts."""
    return tuple(
        ChallengeVerdict(
            intent=IntentId(_exact(item.intent_id, 32, "intent_id")),
            challenger=IdentityKey(_exact(item.challenger, 32, "challenger")),
            rule=item.rule,
            note=item.note,
            is_upheld=item.upheld,
        )
        for item in message.verdicts
    )


def _to_key_message(info: GroupInfo | None) -> pb.CertifiedKey | None:
    if info is None:
        return None
    return pb.CertifiedKey(
        attempt=info.attempt,
        host_keys=info.host_keys,
        group_key=info.group_key,
        public_shares=info.public_shares,
        recovery_data=info.recovery_data,
        members=info.members,
    )


def _from_group_message(epoch: EpochNumber, message: pb.CertifiedGroup) -> GroupView:
    role = Role(message.role)
    members = tuple(IdentityKey(_exact(member, 32, "member")) for member in message.members)
    info = None
    if message.HasField("key"):
        key = message.key
        info = GroupInfo(
            group=GroupId(epoch, role),
            members=tuple(IdentityKey(_exact(item, 32, "member")) for item in key.members),
            host_keys=tuple(HostKey(_exact(item, 33, "host_key")) for item in key.host_keys),
            threshold=message.threshold,
            attempt=Attempt(key.attempt),
            group_key=PlainKey(_exact(key.group_key, 33, "group_key")),
            public_shares=tuple(PlainKey(_exact(item, 33, "public_share")) for item in key.public_shares),
            recovery_data=key.recovery_data,
        )
    return GroupView(role, members, message.threshold, info)


def _exact(value: bytes, length: int, what: str) -> bytes:
    if len(value) != length:
        raise ProtocolError(f"{what}: {len(value)} bytes, expected {length}", code="BAD_LENGTH")
    return value
