"""Stories about the preimage after a release: every member of E that was told it owes it, and one suffices."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass, field, replace

import pytest
from structlog.testing import capture_logs

from smpc.errors import Unavailable
from smpc.host.sealing import build_preimage_context, seal
from smpc.participant.duties import RevealDue, find_reveals
from smpc.participant.duty_keeper import REPEAT_AFTER, DutyKeeper
from smpc.participant.shares import ShareRing
from smpc.protocol.ceremony_records import HostKeyAnnounced
from smpc.protocol.epoch import compute_ceremony_deadline
from smpc.protocol.ledger_events import LedgerEvent
from smpc.protocol.ledger_state import EpochState
from smpc.protocol.ledger_views import KaonTip, RecordsPage
from smpc.protocol.records import EpochAnnounced, GroupKeyRecorded, KaonBlock, Record
from smpc.protocol.verdict_records import PreimageRevealed
from smpc.types import EpochNumber, IdentityKey, KaonHeight, Network, RecordId, Role
from tests.support.armed_world import ArmedChain, ArmedWorld
from tests.support.groups import EPOCH, make_secret


class SealedChain(ArmedChain):
    """An armed chain whose preimages are sealed for real."""

    false: frozenset[IdentityKey] = frozenset()
    """Members to whom the proposer sealed something else."""
    size: int = 32
    """Bytes of every preimage; a proposer that draws others hashes, and seals, just these."""

    def add(self, *records: Record) -> tuple[LedgerEvent, ...]:
        return super().add(*(self._seal(item) if isinstance(item, EpochAnnounced) else item for item in records))

    def _seal(self, record: EpochAnnounced) -> EpochAnnounced:
        preimage = self.find_preimage(record.epoch)
        context = build_preimage_context(Network.REGTEST, record.epoch)
        members = [key for key, _ in record.sealed_preimages]
        sealed = tuple(
            (key, seal(bytes(32) if key in self.false else preimage, key, context, make_secret("ephemeral", place)))
            for place, key in enumerate(members)
        )
        return replace(record, sealed_preimages=sealed, preimage_hash=hashlib.sha256(preimage).digest())

    def find_preimage(self, epoch: EpochNumber) -> bytes:
        return (self.keyed[epoch].preimage * 2)[: self.size]


@dataclass(slots=True)
class Post:
    """A consensus node that puts every record it is given into the next block, or is away."""

    chain: ArmedChain
    is_away: bool = False
    records: list[Record] = field(default_factory=list)

    async def submit(self, record: Record, *, wait: bool = False) -> RecordId:  # noqa: ARG002 - it never waits
        if self.is_away:
            raise Unavailable("away")
        self.chain.ledger.check_record(record)
        self.chain.add(record)
        self.records.append(record)
        return record.record_id

    async def fetch_tip(self) -> KaonTip:
        raise AssertionError

    async def fetch_block(self, height: KaonHeight) -> KaonBlock:
        raise AssertionError(height)

    def watch_blocks(self, from_height: KaonHeight) -> AsyncGenerator[KaonBlock, None]:
        raise AssertionError(from_height)

    async def list_records(self, after: KaonHeight, kinds: Collection[type[Record]] = ()) -> RecordsPage:
        raise AssertionError(after, kinds)


def open_world() -> ArmedWorld:
    world = ArmedWorld(SealedChain.started(), {}, {})
    world.fill_vault(500_000)
    return world


def keeper_of(world: ArmedWorld, post: Post, role: Role, place: int) -> DutyKeeper:
    secret = world.turning.keyed[EPOCH].groups[role].identities[place]
    ring = ShareRing(secret, Network.REGTEST)
    return DutyKeeper(identity_secret=secret, ring=ring, consensus=post, view=lambda: world.ledger)


def member(world: ArmedWorld, role: Role, place: int) -> IdentityKey:
    return world.ledger.epochs[EPOCH].members[role][place]


def test_before_a_release_nobody_owes_a_preimage_and_after_it_every_member_of_e_until_it_is_known() -> None:
    world = open_world()
    everybody = [member(world, role, place) for role in Role for place in range(4)]
    assert not any(find_reveals(world.ledger, identity) for identity in everybody)
    world.release()
    owing = [identity for identity in everybody if find_reveals(world.ledger, identity) == (RevealDue(EPOCH),)]
    assert owing == [member(world, Role.EMERGENCY, place) for place in range(4)]
    world.chain.add(PreimageRevealed(Network.REGTEST, EPOCH, world.turning.keyed[EPOCH].preimage))
    assert not any(find_reveals(world.ledger, identity) for identity in everybody)


def test_a_verdict_on_w_reveals_nothing() -> None:
    world = open_world()
    world.armed.silence(EPOCH, Role.WITNESS)
    assert (EPOCH, Role.WITNESS) in world.ledger.judgements.verdicts
    assert find_reveals(world.ledger, member(world, Role.EMERGENCY, 0)) == ()


async def test_one_member_of_e_publishes_it_and_the_others_have_nothing_left_to_do() -> None:
    world = open_world()
    post = Post(world.armed)
    keepers = [keeper_of(world, post, role, place) for role in Role for place in range(4)]
    for keeper in keepers:
        await keeper.perform()
    assert post.records == []
    world.release()
    for keeper in keepers:
        await keeper.perform()
    assert [type(record) for record in post.records] == [PreimageRevealed]
    assert world.ledger.judgements.preimages[EPOCH].preimage == world.turning.keyed[EPOCH].preimage


async def test_who_is_told_that_it_is_known_already_goes_on() -> None:
    world, late = open_world(), open_world()
    world.release()
    late.release()
    # Both chains are the same; the second member's replica has not seen the block with the first one's record.
    world.chain.add(PreimageRevealed(Network.REGTEST, EPOCH, world.turning.keyed[EPOCH].preimage))
    post = Post(world.armed)
    keeper = keeper_of(late, post, Role.EMERGENCY, 1)
    await keeper.perform()
    assert post.records == []


async def test_a_member_whose_consensus_node_is_away_publishes_it_when_that_is_back() -> None:
    world = open_world()
    world.release()
    post = Post(world.armed, is_away=True)
    keeper = keeper_of(world, post, Role.EMERGENCY, 0)
    await keeper.perform()
    post.is_away = False
    await keeper.perform()
    assert EPOCH in world.ledger.judgements.preimages


async def test_a_member_that_was_sealed_something_else_publishes_nothing_and_another_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    liar = member(open_world(), Role.EMERGENCY, 0)
    monkeypatch.setattr(SealedChain, "false", frozenset({liar}))
    world = open_world()
    world.release()
    post = Post(world.armed)
    await keeper_of(world, post, Role.EMERGENCY, 0).perform()
    assert post.records == []
    world.chain.skip(REPEAT_AFTER)
    await keeper_of(world, post, Role.EMERGENCY, 1).perform()
    assert EPOCH in world.ledger.judgements.preimages


# -------------------------------------------------------------- how long a preimage is


@pytest.mark.parametrize("size", [31, 32, 33])
async def test_a_preimage_is_confirmed_when_it_has_32_bytes_whatever_else_hashes_to_h(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """The rejection leaf asks for 32 bytes before it hashes: else all were armed, and nothing could be rejected."""
    monkeypatch.setattr(SealedChain, "size", size)
    chain = SealedChain()
    chain.add()
    chain.announce()
    chain.add(*(item for item in chain.keyed[EPOCH].records if isinstance(item, HostKeyAnnounced)))
    chain.add(*(item for item in chain.keyed[EPOCH].records if isinstance(item, GroupKeyRecorded)))
    world = ArmedWorld(chain, {}, {})
    post = Post(chain)
    with capture_logs() as logs:
        for place in range(4):
            await keeper_of(world, post, Role.EMERGENCY, place).perform()
    entry = chain.entry(EPOCH)
    if size == 32:
        assert (len(entry.confirmed), entry.state) == (3, EpochState.STANDBY)
        return
    assert (entry.confirmed, entry.state) == (frozenset(), EpochState.KEYGEN)
    refused = [line for line in logs if line["event"] == "duty.refused" and line["duty"] == "PreimageDue"]
    assert {line["code"] for line in refused} == {"WRONG_PREIMAGE"}
    assert all(f"{size} bytes" in line["reason"] for line in refused)
    chain.skip(compute_ceremony_deadline(chain.ledger.params, entry) - chain.ledger.height + 1)
    assert chain.state(EPOCH) is EpochState.ABORTED
    assert EPOCH in chain.ledger.due
    assert not chain.ledger.judgements.punishments


@pytest.mark.parametrize("size", [31, 32, 33])
def test_the_ledger_takes_a_preimage_of_32_bytes_only(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(SealedChain, "size", size)
    world = open_world()  # E confirmed it, whatever it is
    world.release()
    chain = world.armed
    assert isinstance(chain, SealedChain)
    record = PreimageRevealed(Network.REGTEST, EPOCH, chain.find_preimage(EPOCH))
    assert hashlib.sha256(record.preimage).digest() == chain.entry(EPOCH).preimage_hash
    if size == 32:
        chain.add(record)
        assert chain.ledger.judgements.preimages[EPOCH].preimage == record.preimage
    else:
        assert chain.refusal(record) == "WRONG_PREIMAGE"
