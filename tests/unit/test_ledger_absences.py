"""Measuring: peers drawn at random say who does not answer, and only more than two thirds of a quorum jail anybody."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smpc.params import REGTEST
from smpc.protocol.measuring import (
    MAX_QUORUM,
    QUORUM,
    build_window,
    compute_quorum,
    compute_quorum_size,
    has_quorum_spoken,
    is_window_start,
    list_absent,
    list_measured,
)
from smpc.protocol.records import Record
from smpc.protocol.verdict_records import AbsenceVote
from smpc.protocol.verdict_state import Misdeed, Penalty, Punishment
from smpc.types import IdentityKey, KaonHash, KaonHeight, Network
from tests.support.armed_world import ArmedChain
from tests.support.chain import UNSIGNED
from tests.support.groups import CROWD, sign
from tests.support.turning_chain import TurningChain, list_identities, list_secrets

WINDOW_BLOCKS = REGTEST.silence_blocks
FIRST = KaonHeight(WINDOW_BLOCKS)
ACCUSED = list_identities()[3]
ALL = 15
"""Of sixteen validators everybody else measures each."""
ENOUGH = 11
"""The fewest that are more than two thirds of them."""


def make_vote(voter: IdentityKey, window: int = FIRST, accused: IdentityKey = ACCUSED) -> AbsenceVote:
    """Return a validator's signed vote."""
    record = AbsenceVote(Network.REGTEST, KaonHeight(window), accused, voter, UNSIGNED)
    secret = list_secrets(CROWD)[list_identities(CROWD).index(voter)]
    return replace(record, signature=sign(secret, record.digest))


def at(height: int) -> ArmedChain:
    """Return a chain whose next block is `height`."""
    chain = ArmedChain()
    chain.skip(height - 1)
    return chain


def quorum_of(chain: TurningChain, accused: IdentityKey = ACCUSED, window: int = FIRST) -> tuple[IdentityKey, ...]:
    """Return who measures the accused."""
    found = chain.ledger.judgements.windows[KaonHeight(window)]
    return compute_quorum(found, chain.ledger.stakes, accused)


def is_out(chain: TurningChain, accused: IdentityKey = ACCUSED) -> bool:
    """Tell whether a validator is jailed now."""
    return accused not in chain.ledger.stakes


def test_more_than_two_thirds_of_a_quorum_jail_and_one_vote_less_does_not() -> None:
    chain = at(FIRST + WINDOW_BLOCKS)
    quorum = quorum_of(chain)
    assert len(quorum) == ALL
    chain.add(*(make_vote(voter) for voter in quorum[: ENOUGH - 1]))
    assert not is_out(chain)
    chain.add(make_vote(quorum[ENOUGH - 1]))
    assert is_out(chain)
    (item,) = chain.ledger.judgements.punishments[ACCUSED]
    assert (item.penalty, item.misdeed, item.stake) == (Penalty.JAILED, Misdeed.ABSENCE, 0)
    assert chain.refusal(make_vote(quorum[ENOUGH])) == "JAILED_ALREADY"


def test_a_window_is_judged_after_its_last_block_and_two_windows_long() -> None:
    chain = at(FIRST + WINDOW_BLOCKS - 1)
    voter, later = quorum_of(chain)[:2]
    assert chain.refusal(make_vote(voter)) == "WINDOW_OPEN"
    chain.add()
    chain.add(make_vote(voter))
    chain.skip(2 * WINDOW_BLOCKS - 2)
    assert chain.ledger.height == FIRST + 3 * WINDOW_BLOCKS - 2
    chain.ledger.check_record(make_vote(later))
    chain.add()
    assert chain.refusal(make_vote(later)) == "NO_WINDOW"
    chain.add()
    assert not chain.ledger.judgements.absences
    assert FIRST not in chain.ledger.judgements.windows


def test_only_who_was_drawn_votes_once_and_signs_it_himself() -> None:
    chain = at(FIRST + WINDOW_BLOCKS)
    quorum = quorum_of(chain)
    stranger = list_identities(CROWD)[-1]
    assert chain.refusal(make_vote(stranger)) == "NOT_IN_QUORUM"
    assert chain.refusal(make_vote(ACCUSED)) == "NOT_IN_QUORUM"
    assert chain.refusal(make_vote(quorum[0], accused=IdentityKey(bytes(32)))) == "NOT_IN_QUORUM"
    assert chain.refusal(make_vote(quorum[0], window=FIRST + 1)) == "NO_WINDOW"
    assert chain.refusal(make_vote(quorum[0], window=0)) == "NO_WINDOW"
    assert chain.refusal(replace(make_vote(quorum[0]), network=Network.MAINNET)) == "WRONG_NETWORK"
    forged = replace(make_vote(quorum[0]), signature=make_vote(quorum[1]).signature)
    assert chain.refusal(forged) == "BAD_SIGNATURE"
    chain.add(make_vote(quorum[0]))
    assert chain.refusal(make_vote(quorum[0])) == "ALREADY_RECORDED"
    again = replace(make_vote(quorum[0]), signature=forged.signature)
    assert chain.refusal(again) == "ALREADY_RECORDED"


def test_a_chain_that_arms_nothing_measures_nobody() -> None:
    chain = TurningChain()
    chain.skip(2 * WINDOW_BLOCKS)
    assert not chain.ledger.judgements.windows
    record: Record = make_vote(list_identities()[0])
    assert chain.refusal(record) == "NO_EMERGENCY"


def test_who_is_jailed_neither_measures_nor_is_measured() -> None:
    chain = at(FIRST + WINDOW_BLOCKS)
    chain.add(*(make_vote(voter) for voter in quorum_of(chain)[:ENOUGH]))
    chain.skip(WINDOW_BLOCKS)
    window = FIRST + WINDOW_BLOCKS + WINDOW_BLOCKS
    assert chain.ledger.judgements.windows[KaonHeight(window)].jailed == (ACCUSED,)
    everybody = {key for accused in list_identities() for key in quorum_of(chain, accused, window)}
    assert ACCUSED not in everybody
    assert quorum_of(chain, ACCUSED, window) == ()


def test_who_was_jailed_since_the_window_began_votes_no_more() -> None:
    chain = at(FIRST + WINDOW_BLOCKS)
    voter = quorum_of(chain)[0]
    chain.add(*(make_vote(peer, accused=voter) for peer in quorum_of(chain, voter)[:ENOUGH]))
    assert is_out(chain, voter)
    assert chain.refusal(make_vote(voter)) == "NOT_IN_QUORUM"


def wait_for_the_end_of_the_term(chain: ArmedChain) -> None:
    while is_out(chain):
        chain.add()


def test_a_late_vote_jails_nobody_again_for_a_window_that_was_judged() -> None:
    """Each of those who had not voted jailed the accused alone when his term ended, with the term doubled each time."""
    chain = at(FIRST + WINDOW_BLOCKS)
    quorum = quorum_of(chain)
    chain.add(*(make_vote(voter) for voter in quorum[:ENOUGH]))
    wait_for_the_end_of_the_term(chain)
    assert FIRST in chain.ledger.judgements.windows, "its votes are still taken"
    assert {chain.refusal(make_vote(voter)) for voter in quorum[ENOUGH:]} == {"PUNISHED_ALREADY"}
    (item,) = chain.ledger.judgements.punishments[ACCUSED]
    assert item.misdeed is Misdeed.ABSENCE


@pytest.mark.parametrize(("recorded", "is_jailed_again"), [(FIRST - 1, True), (FIRST, False), (FIRST + 9, False)])
def test_an_outage_that_was_punished_as_silence_since_the_window_began_is_not_punished_as_absence(
    recorded: int, *, is_jailed_again: bool
) -> None:
    chain = at(FIRST + WINDOW_BLOCKS)
    silence = Punishment(
        ACCUSED, Penalty.JAILED, Misdeed.SILENCE, KaonHeight(recorded), KaonHeight(recorded + 1), 0, None, ""
    )
    chain.ledger._tables.judgements.punishments[ACCUSED] = (silence,)  # noqa: SLF001 - a short term, long over
    votes = [make_vote(voter) for voter in quorum_of(chain)[:ENOUGH]]
    if is_jailed_again:
        chain.add(*votes)
        assert is_out(chain)
    else:
        assert {chain.refusal(vote) for vote in votes} == {"PUNISHED_ALREADY"}
        assert not is_out(chain)


def test_the_next_window_is_another_outage() -> None:
    chain = at(FIRST + WINDOW_BLOCKS)
    chain.add(*(make_vote(voter) for voter in quorum_of(chain)[:ENOUGH]))
    wait_for_the_end_of_the_term(chain)
    while not is_window_start(REGTEST, chain.ledger.height):
        chain.add()
    window = chain.ledger.height
    chain.skip(WINDOW_BLOCKS)
    chain.add(*(make_vote(voter, window) for voter in quorum_of(chain, window=window)[:ENOUGH]))
    assert is_out(chain)
    assert len(chain.ledger.judgements.punishments[ACCUSED]) == 2


def test_replicas_agree_on_seeds_and_votes_in_their_state_root() -> None:
    one, two = at(FIRST + WINDOW_BLOCKS), at(FIRST + WINDOW_BLOCKS)
    assert one.ledger.compute_state_root() == two.ledger.compute_state_root()
    one.add(make_vote(quorum_of(one)[0]))
    two.add(make_vote(quorum_of(two)[0]))
    assert one.ledger.compute_state_root() == two.ledger.compute_state_root()
    before = at(FIRST)
    root = before.ledger.compute_state_root()
    before.ledger.open_draft()
    assert FIRST in before.ledger.judgements.windows
    before.ledger.drop_draft()
    assert before.ledger.compute_state_root() == root


def test_the_seed_is_a_final_block_s_hash() -> None:
    chain = at(5)
    chain.finalise()
    final = chain.ledger.final_height
    assert final > 0
    while chain.ledger.height < FIRST:
        chain.add()
    block = chain.blocks[final - 1]
    assert chain.ledger.judgements.windows[FIRST] == build_window(REGTEST, FIRST, block.block_hash, ())


@settings(max_examples=40, deadline=None)
@given(
    liars=st.sets(st.integers(0, ALL - 1), max_size=ENOUGH - 1),
    order=st.permutations(range(ALL)),
    others=st.sets(st.integers(16, 19)),
)
def test_no_minority_of_liars_jails_anybody(liars: set[int], order: list[int], others: Collection[int]) -> None:
    chain = at(FIRST + WINDOW_BLOCKS)
    quorum = quorum_of(chain)
    for place in order:
        if place in liars:
            chain.add(make_vote(quorum[place]))
    for number in sorted(others):
        assert chain.refusal(make_vote(list_identities(CROWD)[number])) == "NOT_IN_QUORUM"
    assert not is_out(chain)
    assert ACCUSED not in chain.ledger.judgements.punishments


# ------------------------------------------------------------------ the draw itself

KEYS = tuple(IdentityKey(number.to_bytes(32, "big")) for number in range(1, 101))


@settings(max_examples=50, deadline=None)
@given(
    seed=st.binary(min_size=32, max_size=32),
    stakes=st.lists(st.integers(1, 2**40), min_size=2, max_size=40),
    jailed=st.sets(st.integers(0, 39), max_size=5),
)
def test_a_quorum_is_of_others_without_repeats_and_the_same_for_everybody(
    seed: bytes, stakes: list[int], jailed: set[int]
) -> None:
    table = dict(zip(KEYS, stakes, strict=False))
    out = [KEYS[place] for place in jailed if place < len(stakes)]
    window = build_window(REGTEST, FIRST, KaonHash(seed), out)
    mirrored = dict(reversed(table.items()))
    for key in table:
        quorum = compute_quorum(window, table, key)
        assert quorum == compute_quorum(window, mirrored, key)
        assert len(set(quorum)) == len(quorum)
        assert key not in quorum
        assert not set(quorum) & set(out)
        free = len(table) - len(out) - 1
        assert len(quorum) == (0 if key in out else compute_quorum_size(free))
    for voter in table:
        assert all(voter in compute_quorum(window, table, key) for key in list_measured(window, table, voter))


@pytest.mark.parametrize(
    ("others", "size"), [(QUORUM - 1, 0), (QUORUM, QUORUM), (15, 15), (20, 20), (21, MAX_QUORUM), (22, 21), (300, 21)]
)
def test_a_quorum_grows_with_the_validators_and_too_few_measure_nobody(others: int, size: int) -> None:
    assert compute_quorum_size(others) == size


def test_in_a_small_network_two_thirds_of_the_names_need_two_thirds_of_the_stake_too() -> None:
    poor, rich = KEYS[:12], KEYS[12:15]
    table = {**dict.fromkeys(poor, 1), **dict.fromkeys(rich, 2)}
    assert has_quorum_spoken(poor, KEYS[:15], dict.fromkeys(KEYS, 1))
    assert not has_quorum_spoken(poor, KEYS[:15], table), "twelve of eighteen"
    assert has_quorum_spoken(KEYS[1:14], KEYS[:15], table), "fifteen of eighteen"
    assert not has_quorum_spoken(KEYS[5:15], KEYS[:15], table), "ten of fifteen names"
    assert has_quorum_spoken(KEYS[:15], KEYS[:MAX_QUORUM], {**dict.fromkeys(KEYS, 9), **table}), "drawn by stake"


def test_places_go_by_stake_so_that_many_names_do_not_buy_them() -> None:
    rich, poor = KEYS[:6], KEYS[6:60]
    table = {**dict.fromkeys(rich, 10**9), **dict.fromkeys(poor, 1)}
    drawn = [
        peer
        for number in range(20)
        for peer in compute_quorum(
            build_window(REGTEST, FIRST, KaonHash(number.to_bytes(32, "big")), ()), table, rich[0]
        )[:5]
    ]
    assert all(peer in rich for peer in drawn)


@pytest.mark.parametrize(
    ("there", "asked", "accused"), [(2, 4, 0), (3, 4, 1), (2, 3, 1), (1, 2, 0), (0, 5, 0), (5, 5, 0)]
)
def test_a_voter_who_reached_half_or_fewer_accuses_nobody(there: int, asked: int, accused: int) -> None:
    answered = {KEYS[place]: place < there for place in range(asked)}
    assert list_absent(answered) == tuple(KEYS[there:asked] if accused else ())
    assert len(list_absent(answered)) == accused
