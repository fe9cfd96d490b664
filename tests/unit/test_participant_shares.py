"""The ring of shares: what a draw that is drawn again, and an epoch that is over, leave in it."""

from __future__ import annotations

from dataclasses import replace

from smpc.participant.shares import ShareRing
from smpc.protocol.ledger_state import EpochEntry, EpochState
from smpc.types import EpochNumber, GroupId, Network, Role
from tests.support.turning_chain import TurningChain, list_identities, list_secrets, run_ceremonies

ZERO = EpochNumber(0)
GROUP = GroupId(ZERO, Role.VALIDATOR)


def ring_of_member(entry: EpochEntry) -> ShareRing:
    return ShareRing(list_secrets()[list_identities().index(entry.members[Role.VALIDATOR][0])], Network.REGTEST)


def test_the_share_of_another_draw_takes_the_place_of_the_first_one_s() -> None:
    entry = TurningChain.started().entry(0)
    ring = ring_of_member(entry)
    ring.refresh({ZERO: entry})
    first = ring.find(GROUP)
    attempt = type(entry.first_attempt)(2)
    members = tuple((role, entry.members[role]) for role in (Role.VALIDATOR, Role.WITNESS, Role.EMERGENCY))
    again = run_ceremonies(ZERO, members, 1, attempt)
    ring.refresh({ZERO: replace(entry, groups={role: group.info for role, group in again.groups.items()})})
    second = ring.find(GROUP)
    assert first is not None
    assert second is not None
    assert (first.attempt, second.attempt) == (0, 2)
    assert first.key.threshold_pubkey != second.key.threshold_pubkey


def test_shares_of_an_epoch_that_is_over_are_forgotten_and_of_one_that_is_parked_kept() -> None:
    entry = TurningChain.started().entry(0)
    for state, is_kept in ((EpochState.PARKED, True), (EpochState.RETIRED, False), (EpochState.ABORTED, False)):
        ring = ring_of_member(entry)
        ring.refresh({ZERO: entry})
        ring.refresh({ZERO: replace(entry, state=state)})
        assert (ring.find(GROUP) is not None) is is_kept
