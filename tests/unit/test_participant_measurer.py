"""A pod that measures its peers: whom it pings, when it votes, and when it must not accuse anybody."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import pytest

from smpc.errors import Unavailable
from smpc.params import REGTEST
from smpc.participant.measurer import MIN_PINGS, PINGS, Measurer
from smpc.protocol.measuring import list_measured
from smpc.protocol.records import Record
from smpc.protocol.verdict_records import AbsenceVote
from smpc.protocol.verdict_state import Misdeed
from smpc.types import IdentityKey, KaonHeight, RecordId
from tests.support.armed_world import ArmedChain
from tests.support.peer_lines import MemoryPeers
from tests.support.turning_chain import TurningChain, list_identities, list_secrets

WINDOW_BLOCKS = REGTEST.silence_blocks
FIRST = KaonHeight(WINDOW_BLOCKS)
SECRETS = dict(zip(list_identities(), list_secrets(), strict=True))


class Mailbox:
    """A consensus node that keeps what is submitted until the next block."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.is_away = False

    async def submit(self, record: Record, *, wait: bool = False) -> RecordId:
        assert not wait
        if self.is_away:
            raise Unavailable("my consensus node is away")
        self.records.append(record)
        return record.record_id

    @property
    def votes(self) -> list[AbsenceVote]:
        return [record for record in self.records if isinstance(record, AbsenceVote)]


class Town:
    """Every validator's measurer over one chain; blocks are final at once."""

    def __init__(self, chain: TurningChain | None = None, only: Iterable[int] = range(16)) -> None:
        self.chain = chain or ArmedChain()
        self.peers = MemoryPeers(SECRETS)
        self.box = Mailbox()
        self.measurers = {number: self.start(number) for number in only}

    def start(self, number: int) -> Measurer:
        return Measurer(
            identity_secret=list_secrets()[number],
            peers=self.peers,
            consensus=self.box,  # type: ignore[arg-type]
            view=lambda: self.chain.ledger,
        )

    async def advance_to(self, height: int) -> None:
        """Add blocks, each with what was submitted before; after each every measurer does its part."""
        while self.chain.ledger.height < height:
            records, self.box.records = self.box.records, []
            self.chain.add(*_list_valid(self.chain, records))
            for measurer in self.measurers.values():
                await measurer.measure()


def _list_valid(chain: TurningChain, records: Collection[Record]) -> list[Record]:
    """Return what a proposer would take."""
    taken: list[Record] = []
    chain.ledger.open_draft()
    try:
        for record in records:
            try:
                chain.ledger.add_to_draft(record)
            except Exception:  # noqa: BLE001, S112
                continue
            taken.append(record)
    finally:
        chain.ledger.drop_draft()
    return taken


def measured_by(town: Town, number: int, window: int = FIRST) -> tuple[IdentityKey, ...]:
    """Return whom a validator measures."""
    found = town.chain.ledger.judgements.windows[KaonHeight(window)]
    return list_measured(found, town.chain.ledger.stakes, list_identities()[number])


async def test_a_pod_that_is_away_for_a_window_is_jailed_by_its_peers_and_nobody_else_is() -> None:
    town = Town()
    away = list_identities()[5]
    town.peers.away.add(away)
    await town.advance_to(FIRST + WINDOW_BLOCKS + 1)
    (item,) = town.chain.ledger.judgements.punishments[away]
    assert item.misdeed is Misdeed.ABSENCE
    assert set(town.chain.ledger.judgements.punishments) == {away}


async def test_nobody_is_accused_while_all_answer_and_each_is_pinged_once_a_window_by_each_of_its_quorum() -> None:
    town = Town()
    await town.advance_to(FIRST + WINDOW_BLOCKS - 1)
    assert {peer: town.peers.pinged.count(peer) for peer in list_identities()} == dict.fromkeys(list_identities(), 15)
    await town.advance_to(FIRST + 2 * WINDOW_BLOCKS)
    assert not town.box.votes
    assert not town.chain.ledger.judgements.absences


async def test_who_answers_once_late_in_the_window_is_there() -> None:
    town = Town()
    town.peers.away.add(list_identities()[5])
    await town.advance_to(FIRST + WINDOW_BLOCKS - WINDOW_BLOCKS // PINGS - 1)
    town.peers.away.clear()
    await town.advance_to(FIRST + WINDOW_BLOCKS + 1)
    assert not town.chain.ledger.judgements.absences


async def test_an_answer_that_another_nonce_was_signed_for_is_none() -> None:
    town = Town()
    liar = list_identities()[5]
    town.peers.forging.add(liar)
    await town.advance_to(FIRST + WINDOW_BLOCKS + 1)
    assert set(town.chain.ledger.judgements.punishments) == {liar}


async def test_a_pod_whose_own_network_is_gone_accuses_nobody() -> None:
    town = Town(only=[2])
    town.peers.away.update(list_identities())
    await town.advance_to(FIRST + WINDOW_BLOCKS)
    assert town.peers.pinged
    assert not town.box.votes


@pytest.mark.parametrize("is_majority", [False, True])
async def test_a_pod_accuses_only_when_more_than_half_of_those_it_measured_answered(is_majority: bool) -> None:
    town = Town(only=[2])
    await town.advance_to(FIRST)
    peers = measured_by(town, 2)
    lost = (len(peers) - 1) // 2 if is_majority else -(-len(peers) // 2)
    second = Town(only=[2])
    second.peers.away.update(peers[:lost])
    await second.advance_to(FIRST + WINDOW_BLOCKS)
    assert {vote.accused for vote in second.box.votes} == (set(peers[:lost]) if is_majority else set())


async def test_a_pod_that_started_late_in_the_window_has_asked_too_seldom_to_accuse() -> None:
    town = Town(only=[])
    away = list_identities()[5]
    town.peers.away.add(away)
    await town.advance_to(FIRST + WINDOW_BLOCKS - 5)
    town.measurers = {number: town.start(number) for number in range(16)}
    await town.advance_to(FIRST + WINDOW_BLOCKS + 1)
    assert town.peers.pinged.count(away) < 15 * MIN_PINGS
    assert not town.chain.ledger.judgements.absences
    await town.advance_to(FIRST + 2 * WINDOW_BLOCKS + 1)
    assert set(town.chain.ledger.judgements.punishments) == {away}


async def test_a_vote_that_could_not_be_sent_is_sent_with_a_later_block() -> None:
    town = Town()
    town.peers.away.add(list_identities()[5])
    await town.advance_to(FIRST + WINDOW_BLOCKS - 1)
    town.box.is_away = True
    await town.advance_to(FIRST + 2 * WINDOW_BLOCKS)
    town.box.is_away = False
    await town.advance_to(FIRST + 2 * WINDOW_BLOCKS + 2)
    assert set(town.chain.ledger.judgements.punishments) == {list_identities()[5]}


async def test_a_jailed_pod_is_measured_by_nobody_and_measures_nobody() -> None:
    town = Town()
    away = list_identities()[5]
    town.peers.away.add(away)
    await town.advance_to(FIRST + WINDOW_BLOCKS + 1)
    town.peers.pinged.clear()
    await town.advance_to(FIRST + 3 * WINDOW_BLOCKS - 1)
    assert measured_by(town, 5, FIRST + WINDOW_BLOCKS * 2) == ()
    last = len(town.peers.pinged)
    await town.measurers[5].measure()
    assert len(town.peers.pinged) == last


async def test_who_had_not_voted_yet_votes_no_more_after_the_term_of_who_was_jailed_by_others() -> None:
    town = Town()
    away = list_identities()[5]
    town.peers.away.add(away)
    await town.advance_to(FIRST + WINDOW_BLOCKS - 1)
    late = {number: town.measurers.pop(number) for number in (0, 1, 2)}
    await town.advance_to(FIRST + WINDOW_BLOCKS + 1)
    assert away not in town.chain.ledger.stakes
    town.measurers |= late
    while away not in town.chain.ledger.stakes:
        await town.advance_to(town.chain.ledger.height + 1)
        assert not town.box.votes
    await town.advance_to(town.chain.ledger.height + 2)
    assert FIRST in town.chain.ledger.judgements.windows, "its votes would still be taken"
    assert not town.box.votes
    assert len(town.chain.ledger.judgements.punishments[away]) == 1


async def test_where_nothing_is_armed_nobody_is_pinged() -> None:
    town = Town(TurningChain())
    await town.advance_to(3 * WINDOW_BLOCKS)
    assert not town.peers.pinged
