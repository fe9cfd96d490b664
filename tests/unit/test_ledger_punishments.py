"""Punishments: when a validator is silent, how long it sits out, what a slashed one is kept from, what ends a group."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from smpc.params import REGTEST
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_commission import compute_commission
from smpc.protocol.ledger_draws import note_due
from smpc.protocol.ledger_events import MemberPunished, VerdictReached
from smpc.protocol.ledger_heartbeats import is_jailed, list_counting
from smpc.protocol.ledger_punishments import (
    FOREVER,
    MAX_TERMS,
    compute_term_end,
    is_good,
    is_silent,
    jail,
    punish_silence,
    slash,
)
from smpc.protocol.ledger_state import HeartbeatEntry
from smpc.protocol.ledger_tables import LedgerTables
from smpc.protocol.ledger_verdicts import judge_groups
from smpc.protocol.verdict_state import Cause, Misdeed, Penalty, Punishment
from smpc.types import EpochNumber, IdentityKey, KaonHeight, RecordId, Role
from tests.support.armed_world import ArmedChain, ArmedWorld, build_armed_genesis
from tests.support.sweep_world import RICH
from tests.support.turning_chain import TurningChain, list_identities

SILENCE = REGTEST.silence_blocks
ME, PEER = list_identities()[:2]
ZERO, TWO = EpochNumber(0), EpochNumber(2)


def make_tables(*, height: int = 200, final: int = 0, beaten: int | None = None) -> LedgerTables:
    """Return empty tables at a height, where every validator's last heartbeat came with block `beaten`."""
    tables = LedgerTables(build_armed_genesis(), REGTEST)
    set_head(tables, height, final)
    chain = TurningChain()
    if beaten is not None:
        for number, identity in enumerate(list_identities()):
            entry = HeartbeatEntry(chain.make_heartbeat(number), KaonHeight(beaten))
            tables.put(tables.heartbeats, identity, entry)
    return tables


def set_head(tables: LedgerTables, height: int, final: int) -> None:
    tables.head = replace(tables.head, height=KaonHeight(height), final_height=KaonHeight(final))


def punishments(tables: LedgerTables, identity: IdentityKey = ME) -> tuple[Punishment, ...]:
    return tables.judgements.punishments.get(identity, ())


# ------------------------------------------------------------------ silence


@pytest.mark.parametrize(("since", "silent"), [(SILENCE, False), (SILENCE + 1, True)])
def test_a_validator_is_silent_one_past_the_final_blocks_it_has(since: int, silent: bool) -> None:
    tables = make_tables(height=500, final=100 + since, beaten=100)
    assert is_silent(tables, ME) is silent
    assert is_good(tables, ME) is not silent
    punish_silence(tables)
    assert is_jailed(tables, ME) is silent


@pytest.mark.parametrize(("final", "silent"), [(SILENCE, False), (SILENCE + 1, True)])
def test_who_never_sent_a_heartbeat_counts_from_the_genesis(final: int, silent: bool) -> None:
    assert is_silent(make_tables(final=final), ME) is silent


def test_nobody_is_silent_while_nothing_becomes_final() -> None:
    tables = make_tables(height=100_000, final=100, beaten=90)
    punish_silence(tables)
    assert not tables.judgements.punishments


def test_who_is_jailed_already_is_not_jailed_again_until_his_term_is_over() -> None:
    tables = make_tables(height=200, final=196)
    for height in range(200, 281):
        set_head(tables, height, height - 4)
        punish_silence(tables)
    assert [item.until for item in punishments(tables)] == [280]
    assert {item.misdeed for item in punishments(tables)} == {Misdeed.SILENCE}


def test_one_long_outage_is_one_term_that_goes_on_and_another_outage_is_the_next() -> None:
    tables = make_tables(height=200, final=196)
    for height in range(200, 2_000):
        set_head(tables, height, height - 4)
        punish_silence(tables)
        assert is_jailed(tables, ME)
    (first,) = punishments(tables)
    assert first.recorded == 200
    assert first.until is not None
    assert 2_000 <= first.until <= 2_000 + 80
    tables.put(tables.heartbeats, ME, HeartbeatEntry(TurningChain().make_heartbeat(0), KaonHeight(2_001)))
    set_head(tables, 2_100, 2_001 + SILENCE)
    punish_silence(tables)
    assert not is_jailed(tables, ME)
    set_head(tables, 2_101 + SILENCE, 2_002 + SILENCE)
    punish_silence(tables)
    assert [item.until for item in punishments(tables)] == [first.until, 2_101 + SILENCE + 160]


# ------------------------------------------------------------------ terms


def test_terms_double_and_the_fifth_is_for_ever() -> None:
    ends = [compute_term_end(80, terms, KaonHeight(1_000)) for terms in range(MAX_TERMS + 1)]
    assert ends == [1_080, 1_160, 1_320, 1_640, None, None]


def test_a_term_counts_whatever_it_was_for_and_ends_with_its_last_block() -> None:
    tables, height = make_tables(), 200
    for misdeed in (Misdeed.SILENCE, Misdeed.ABSENCE, Misdeed.MISSED_CEREMONY, Misdeed.GROUP_SIGNATURE):
        set_head(tables, height, 0)
        assert not is_jailed(tables, ME)
        jail(tables, ME, misdeed, "a test")
        until = punishments(tables)[-1].until
        assert until is not None
        set_head(tables, until, 0)
        assert is_jailed(tables, ME)
        height = until + 1
    set_head(tables, height, 0)
    jail(tables, ME, Misdeed.SILENCE, "a test")
    assert punishments(tables)[-1].until is None
    set_head(tables, height + 10**9, 0)
    assert is_jailed(tables, ME)
    assert len(punishments(tables)) == MAX_TERMS


# ------------------------------------------------------------------ slashing


def test_slashing_takes_the_whole_stake_once_and_for_ever() -> None:
    tables = make_tables()
    evidence = RecordId(b"\x05" * 32)
    assert slash(tables, ME, evidence, "NONCE_SPENT")
    assert not slash(tables, ME, RecordId(b"\x06" * 32), "INVALID_SHARE")
    jail(tables, ME, Misdeed.SILENCE, "a test")
    (item,) = punishments(tables)
    assert (item.penalty, item.misdeed, item.until) == (Penalty.SLASHED, Misdeed.OFFENCE, None)
    assert (item.stake, item.evidence, item.detail) == (tables.stakes[ME], evidence, "NONCE_SPENT")
    assert tables.jailed[ME] == FOREVER
    assert tables.events == [MemberPunished(ME, Penalty.SLASHED, Misdeed.OFFENCE)]


def test_one_who_is_jailed_is_slashed_all_the_same() -> None:
    tables = make_tables()
    jail(tables, ME, Misdeed.SILENCE, "a test")
    assert slash(tables, ME, RecordId(bytes(32)), "INVALID_SHARE")
    assert [item.penalty for item in punishments(tables)] == [Penalty.JAILED, Penalty.SLASHED]
    assert tables.jailed[ME] == FOREVER


def test_a_slashed_one_is_out_of_draws_and_medians() -> None:
    tables = make_tables(beaten=199)
    slash(tables, ME, RecordId(bytes(32)), "INVALID_SHARE")
    assert ME not in {entry.heartbeat.identity for entry in list_counting(tables)}
    assert len(list_counting(tables)) == len(list_identities()) - 1
    note_due(tables, TWO)
    due = tables.due[TWO]
    assert due.origin.jailed == (ME,)
    assert due.members
    assert all(ME not in keys for _, keys in due.members)


def tables_of(ledger: Ledger) -> LedgerTables:
    """Return a ledger's tables, to look into and to punish by hand."""
    return ledger._tables  # noqa: SLF001


def punish(chain: TurningChain, numbers: Iterable[int]) -> None:
    """Slash validators between two blocks: what evidence does is shown elsewhere."""
    tables = tables_of(chain.ledger)
    for number in numbers:
        slash(tables, list_identities()[number], RecordId(bytes([number]) * 32), "INVALID_SHARE")
    tables.take_events()


def test_a_slashed_one_signs_no_checkpoint_and_counts_in_none_once_it_is_final() -> None:
    chain = ArmedChain.started()
    punish(chain, [0])
    chain.finalise_to(chain.ledger.height, silent=[0])
    while chain.ledger.height % 4:
        chain.add()
    height = chain.ledger.height
    assert chain.refusal(chain.make_vote(0, height)) == "NOT_A_VALIDATOR"
    chain.add(*(chain.make_vote(number, height) for number in range(1, 11)))
    assert not chain.ledger.checkpoints[KaonHeight(height)].is_justified, "ten of fifteen are no more than two thirds"
    chain.add(chain.make_vote(11, height))
    assert chain.ledger.checkpoints[KaonHeight(height)].is_justified


def test_a_slashed_one_is_promised_and_paid_no_commission() -> None:
    world = ArmedWorld.filled(RICH, RICH)
    tables = tables_of(world.ledger)
    promised = compute_commission(tables, ZERO, world.ledger.fee_rate)
    assert promised
    punish(world.turning, [list_identities().index(promised[0].member)])
    after = compute_commission(tables, ZERO, world.ledger.fee_rate)
    assert {item.member for item in after} == {item.member for item in promised[1:]}


def test_who_is_slashed_after_the_promise_is_left_out_of_the_sweep() -> None:
    world = ArmedWorld.retiring(RICH, RICH)
    promised = world.ledger.epochs[ZERO].commissions
    assert promised
    punish(world.turning, [list_identities().index(promised[0].member)])
    assert world.ledger.find_due_commission(ZERO) == promised[1:]


# ------------------------------------------------------------------ who judges a group


def members_of(chain: TurningChain, role: Role, count: int) -> list[int]:
    """Return the numbers of a group's first members."""
    return [list_identities().index(key) for key in chain.entry(0).groups[role].members[:count]]


@pytest.mark.parametrize("role", [Role.VALIDATOR, Role.WITNESS])
@pytest.mark.parametrize(("lost", "is_judged"), [(1, False), (2, True)])
def test_a_group_is_judged_when_fewer_than_t_of_its_members_are_good(role: Role, lost: int, is_judged: bool) -> None:
    chain = ArmedChain.started()
    threshold = chain.entry(0).groups[role].threshold
    silent = members_of(chain, role, lost)
    chain.finalise_to(chain.ledger.height + SILENCE, silent=silent)
    chain.add()
    good = chain.ledger.judgements.list_good(ZERO, role)
    assert len(good) == 4 - lost == threshold - is_judged
    verdict = chain.ledger.judgements.verdicts.get((ZERO, role))
    assert (verdict is not None) is is_judged
    if verdict is not None:
        assert verdict.cause is Cause.CANNOT_SIGN
        assert (chain.entry(0).released, chain.entry(0).witness_lost) == (
            (verdict.recorded, None) if role is Role.VALIDATOR else (None, verdict.recorded)
        )
    assert set(chain.ledger.judgements.punishments) == {list_identities()[number] for number in silent}


def test_a_verdict_is_reached_once_and_stays_though_its_members_come_back() -> None:
    chain = ArmedChain.started()
    silent = members_of(chain, Role.VALIDATOR, 2)
    chain.finalise_to(chain.ledger.height + SILENCE, silent=silent)
    chain.add()
    first = chain.ledger.judgements.verdicts[ZERO, Role.VALIDATOR]
    chain.finalise_to(chain.ledger.height + SILENCE)
    assert chain.ledger.judgements.verdicts == {(ZERO, Role.VALIDATOR): first}


def test_a_lost_group_without_members_of_another_judges_only_itself() -> None:
    chain = ArmedChain.started()
    punish(chain, members_of(chain, Role.EMERGENCY, 4))
    events = chain.add()
    assert not [event for event in events if isinstance(event, VerdictReached)]
    tables = tables_of(chain.ledger)
    tables.mark()
    judge_groups(tables)
    tables.roll_back()
    assert not chain.ledger.judgements.verdicts, "E is not judged"


def test_a_chain_that_arms_nothing_punishes_no_silence() -> None:
    chain = TurningChain.started()
    silent = members_of(chain, Role.VALIDATOR, 2)
    chain.finalise_to(chain.ledger.height + SILENCE, silent=silent)
    assert not chain.ledger.judgements.punishments
    assert not chain.ledger.judgements.verdicts
