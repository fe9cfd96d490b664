"""Missed ceremonies: who announced no host key is jailed once the ceremony is over, and nobody for being left out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smpc.protocol.ceremony_records import HostKeyAnnounced
from smpc.protocol.epoch import compute_ceremony_deadline
from smpc.protocol.ledger_attendance import ANNOUNCE_BLOCKS, list_missing, punish_missing
from smpc.protocol.ledger_state import EpochState, Replacement
from smpc.protocol.records import GroupKeyRecorded
from smpc.protocol.verdict_state import Misdeed, Penalty
from smpc.types import Attempt, EpochNumber, IdentityKey, KaonHeight, Role
from tests.support.armed_world import ArmedChain, build_armed_genesis
from tests.support.groups import KeyedEpoch, key_epoch
from tests.support.turning_chain import TurningChain, list_identities

TWO = EpochNumber(2)
ONE_MORE = IdentityKey(b"\x07" * 32)


def announced(chain: TurningChain | None = None) -> TurningChain:
    """Return a chain that has announced epoch 2, the first that is not drawn at genesis."""
    chain = chain or ArmedChain.started()
    chain.announce()
    return chain


def host_keys(keyed: KeyedEpoch, role: Role, without: IdentityKey | None = None) -> list[HostKeyAnnounced]:
    """Return the announcements of a group's members, without one of them."""
    return [item for item in keyed.host_keys if item.group.role is role and item.identity != without]


def rerun_without(chain: TurningChain, left_out: IdentityKey) -> tuple[list[HostKeyAnnounced], GroupKeyRecorded]:
    """Return host keys and key of V's second attempt among the others."""
    members = tuple(
        (role, tuple(key for key in keys if key != left_out)) for role, keys in chain.entry(TWO).members.items()
    )
    again = key_epoch(build_armed_genesis(), TWO, members, attempt=Attempt(1))
    (record,) = (item for item in again.keyed if item.group.role is Role.VALIDATOR)
    return host_keys(again, Role.VALIDATOR), record


def punished(chain: TurningChain) -> dict[IdentityKey, Misdeed]:
    """Return who was punished for what."""
    return {key: item.misdeed for key, items in chain.ledger.judgements.punishments.items() for item in items}


@pytest.mark.parametrize(("final", "is_jailed"), [(ANNOUNCE_BLOCKS // 2, False), (ANNOUNCE_BLOCKS, True)])
def test_who_announced_nothing_is_jailed_when_the_others_have_their_key(final: int, is_jailed: bool) -> None:
    chain = announced()
    absent = chain.entry(TWO).members[Role.VALIDATOR][2]
    keys, record = rerun_without(chain, absent)
    chain.add(*keys)
    start = chain.entry(TWO).announced
    chain.finalise_to(start + final)
    if is_jailed:
        chain.wait_acting(start, ANNOUNCE_BLOCKS)
    chain.pulse()
    assert (chain.ledger.final_height - start >= ANNOUNCE_BLOCKS) is is_jailed
    chain.add(record)
    assert punished(chain) == ({absent: Misdeed.MISSED_CEREMONY} if is_jailed else {})
    assert (absent not in chain.ledger.stakes) is is_jailed
    for item in chain.ledger.judgements.punishments.get(absent, ()):
        assert (item.penalty, item.stake) == (Penalty.JAILED, 0)


def test_who_was_not_there_at_all_is_left_to_the_longer_measure_of_silence() -> None:
    chain = announced()
    absent = chain.entry(TWO).members[Role.VALIDATOR][2]
    others = [number for number, identity in enumerate(list_identities()) if identity != absent]
    keys, record = rerun_without(chain, absent)
    chain.add(*keys)
    chain.wait_acting(chain.entry(TWO).announced, ANNOUNCE_BLOCKS, silent=[list_identities().index(absent)])
    chain.pulse(validators=others)
    chain.add(record)
    assert punished(chain) == {}


def test_a_member_has_its_blocks_to_announce_to_the_last_and_a_successor_its_own() -> None:
    chain = announced()
    entry = chain.entry(TWO)
    members = entry.members[Role.VALIDATOR]
    last = KaonHeight(entry.announced + ANNOUNCE_BLOCKS)
    assert list_missing(entry, Role.VALIDATOR, KaonHeight(last - 1)) == ()
    assert list_missing(entry, Role.VALIDATOR, last) == members
    joined = Replacement(
        Role.VALIDATOR, Attempt(0), ONE_MORE, 1, members[1], 1, KaonHeight(last + 5), (ONE_MORE,), (), (), ()
    )
    replaced = replace(entry, replaced=(joined,))
    assert members[1] not in list_missing(replaced, Role.VALIDATOR, KaonHeight(last + 5 + ANNOUNCE_BLOCKS - 1))
    assert members[1] in list_missing(replaced, Role.VALIDATOR, KaonHeight(last + 5 + ANNOUNCE_BLOCKS))


@pytest.mark.parametrize(("blocks", "is_jailed"), [(ANNOUNCE_BLOCKS - 1, False), (ANNOUNCE_BLOCKS, True)])
def test_a_member_has_its_blocks_from_the_one_in_which_it_could_know_what_it_was_drawn_into(
    blocks: int, is_jailed: bool
) -> None:
    """Nothing becomes final for a while after the announcement: that time is nobody's."""
    chain = announced()
    absent = chain.entry(TWO).members[Role.VALIDATOR][2]
    keys, record = rerun_without(chain, absent)
    start = chain.entry(TWO).announced
    chain.add(*keys)
    while chain.ledger.height < start + 2 * ANNOUNCE_BLOCKS:
        chain.pulse()
    chain.finalise()
    assert chain.ledger.final_height >= start + ANNOUNCE_BLOCKS
    chain.wait_almost(start, blocks)
    chain.add(chain.make_heartbeat(list_identities().index(absent)))
    assert chain.ledger.count_acting(start) == blocks
    chain.add(record)
    assert punished(chain) == ({absent: Misdeed.MISSED_CEREMONY} if is_jailed else {})


def test_when_finality_returns_just_before_the_deadline_nobody_is_jailed_and_no_group_judged() -> None:
    chain = announced()
    last = compute_ceremony_deadline(chain.ledger.params, chain.entry(TWO))
    while chain.ledger.height < last - 14:
        chain.pulse()
    chain.finalise()
    assert chain.ledger.final_height - chain.entry(TWO).announced >= ANNOUNCE_BLOCKS
    while chain.state(TWO) is not EpochState.ABORTED:
        chain.add()
    chain.add()
    assert punished(chain) == {}
    assert not chain.ledger.judgements.verdicts


def test_a_successor_has_its_blocks_from_the_one_in_which_its_replacement_was_final() -> None:
    chain = announced()
    chain.finalise_to(chain.entry(TWO).announced + 2 * ANNOUNCE_BLOCKS)
    joins = KaonHeight(chain.ledger.height + 1)
    while chain.ledger.height < joins + 2 * ANNOUNCE_BLOCKS:
        chain.pulse()
    chain.finalise()
    chain.pulse()
    entry = chain.entry(TWO)
    (left, joined) = entry.members[Role.VALIDATOR][:2]
    replacement = Replacement(Role.VALIDATOR, Attempt(0), left, 1, joined, 1, joins, (left,), (), (), ())
    tables = chain.ledger._tables  # noqa: SLF001 - only a test may
    punish_missing(tables, replace(entry, replaced=(replacement,)), Role.VALIDATOR)
    assert set(punished(chain)) == set(entry.members[Role.VALIDATOR]) - {joined}
    chain.wait_acting(joins, ANNOUNCE_BLOCKS)
    chain.pulse()
    punish_missing(tables, replace(entry, replaced=(replacement,)), Role.VALIDATOR)
    assert set(punished(chain)) == set(entry.members[Role.VALIDATOR])


def test_who_announced_is_never_jailed_for_being_left_out() -> None:
    chain = announced()
    left_out = chain.entry(TWO).members[Role.VALIDATOR][2]
    keys, record = rerun_without(chain, left_out)
    chain.add(*host_keys(chain.keyed[TWO], Role.VALIDATOR), *keys)
    chain.finalise_to(chain.entry(TWO).announced + 2 * ANNOUNCE_BLOCKS)
    chain.add(record)
    assert left_out not in chain.entry(TWO).groups[Role.VALIDATOR].members
    assert punished(chain) == {}


def test_while_nothing_becomes_final_nobody_learns_of_a_ceremony_and_nobody_missed_it() -> None:
    chain = announced()
    keys, record = rerun_without(chain, chain.entry(TWO).members[Role.VALIDATOR][2])
    chain.add(*keys)
    chain.skip(3 * ANNOUNCE_BLOCKS)
    chain.add(record)
    assert punished(chain) == {}


def test_when_the_deadline_passes_those_who_announced_nothing_are_jailed_and_not_drawn_again() -> None:
    chain = announced()
    entry = chain.entry(TWO)
    absent = entry.members[Role.WITNESS][1]
    chain.add(*host_keys(chain.keyed[TWO], Role.VALIDATOR), *host_keys(chain.keyed[TWO], Role.EMERGENCY))
    chain.add(*host_keys(chain.keyed[TWO], Role.WITNESS, without=absent))
    chain.wait_acting(entry.announced, ANNOUNCE_BLOCKS)
    chain.pulse()
    while chain.ledger.height < compute_ceremony_deadline(chain.ledger.params, entry):
        chain.add()
    assert punished(chain) == {}
    chain.add()
    assert chain.state(TWO) is EpochState.ABORTED
    assert punished(chain) == {absent: Misdeed.MISSED_CEREMONY}
    assert absent in chain.ledger.due[TWO].origin.jailed
    assert all(absent not in keys for _, keys in chain.ledger.due[TWO].members)


def test_a_group_that_had_its_key_before_the_deadline_is_not_judged_twice() -> None:
    chain = announced()
    entry = chain.entry(TWO)
    keyed = chain.keyed[TWO]
    chain.add(*host_keys(keyed, Role.VALIDATOR))
    chain.add(next(item for item in keyed.keyed if item.group.role is Role.VALIDATOR))
    chain.wait_acting(entry.announced, ANNOUNCE_BLOCKS)
    chain.pulse()
    while chain.state(TWO) is not EpochState.ABORTED:
        chain.add()
    assert set(punished(chain)) == {*entry.members[Role.WITNESS], *entry.members[Role.EMERGENCY]}


def test_the_epochs_of_the_genesis_wait_for_pods_that_are_still_started() -> None:
    chain = ArmedChain()
    chain.add()
    chain.announce()
    finalise_to_plain(chain, 3 * ANNOUNCE_BLOCKS)
    while chain.state(0) is not EpochState.ABORTED:
        chain.add()
    assert Misdeed.MISSED_CEREMONY not in punished(chain).values()


def finalise_to_plain(chain: TurningChain, height: int) -> None:
    """Go on until a block is final, without heartbeats."""
    while chain.ledger.final_height < height:
        chain.finalise()


def test_a_chain_that_arms_nothing_jails_nobody_for_it() -> None:
    chain = announced(TurningChain.started())
    chain.finalise_to(chain.entry(TWO).announced + ANNOUNCE_BLOCKS)
    while chain.state(TWO) is not EpochState.ABORTED:
        chain.add()
    assert punished(chain) == {}
