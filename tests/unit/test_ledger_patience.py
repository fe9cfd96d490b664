"""How long everybody could act on a block: what a stall of finality takes, counts against nobody."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from smpc.params import REGTEST
from smpc.protocol.ledger import Ledger, replay
from smpc.protocol.ledger_attendance import ANNOUNCE_BLOCKS
from smpc.protocol.ledger_patience import KEPT_SILENCES, count_acting, is_patience_over, note_final
from smpc.protocol.ledger_tables import LedgerTables
from smpc.protocol.ledger_undone import PATIENCE
from smpc.protocol.service import IDLE_PATIENCE
from smpc.types import KaonHeight
from tests.support.armed_world import ArmedChain, build_armed_genesis
from tests.support.chain import LedgerChain
from tests.support.groups import EPOCH

LAG = REGTEST.endorsement_blocks


def run(*finals: int) -> LedgerTables:
    """Return tables after one block per entry, from block 1 on, each of which began with this final height."""
    tables = LedgerTables(build_armed_genesis(), REGTEST)
    for height, final in enumerate(finals, 1):
        tables.head = replace(tables.head, height=KaonHeight(height), final_height=KaonHeight(final))
        note_final(tables)
    return tables


def test_a_block_counts_from_the_one_at_whose_beginning_it_was_final() -> None:
    tables = run(0, 0, 0, 2, 2, 2)
    assert count_acting(tables, KaonHeight(2)) == 2
    assert count_acting(tables, KaonHeight(2), KaonHeight(5)) == 1
    assert count_acting(tables, KaonHeight(2), KaonHeight(3)) == 0
    assert count_acting(tables, KaonHeight(3)) == 0, "it is not final"


@pytest.mark.parametrize(("stalled", "counted"), [(LAG, LAG), (LAG + 1, LAG), (LAG + 100, LAG)])
def test_a_block_counts_while_the_newest_final_one_is_so_old_and_not_a_block_longer(stalled: int, counted: int) -> None:
    """Final block 3 is in force from block 4 on, so that the last block that counts is block 3 + `LAG`."""
    tables = run(0, 0, 0, *[3] * stalled, 3)
    assert count_acting(tables, KaonHeight(3)) == min(stalled, counted)


def test_after_a_stall_the_count_goes_on() -> None:
    tables = run(0, 0, 0, *[3] * 100, *[100] * 6)
    assert count_acting(tables, KaonHeight(3)) == LAG + 5
    assert count_acting(tables, KaonHeight(50)) == 5


@pytest.mark.parametrize(("blocks", "is_over"), [(5, True), (6, False)])
def test_patience_ends_with_its_block(blocks: int, is_over: bool) -> None:
    assert is_patience_over(run(0, 0, 0, *[3] * 100, *[100] * 6), KaonHeight(50), blocks) is is_over


def test_patience_needs_as_many_final_blocks_as_well() -> None:
    tables = run(0, 0, 0, *[3] * 8)
    assert count_acting(tables, KaonHeight(3)) == 7
    assert not is_patience_over(tables, KaonHeight(3), 1)


def test_the_longest_patience_is_remembered_and_no_more_than_needed() -> None:
    longest = max(PATIENCE, IDLE_PATIENCE) * REGTEST.silence_blocks
    assert KEPT_SILENCES * REGTEST.silence_blocks > max(longest, ANNOUNCE_BLOCKS)
    tables = run(*(max(0, height - 8) // 4 * 4 for height in range(1, 2_000)))
    assert count_acting(tables, KaonHeight(0)) >= longest
    assert len(tables.head.final_steps) <= KEPT_SILENCES * REGTEST.silence_blocks // 4 + 2


def test_what_is_counted_is_what_one_counts_by_hand() -> None:
    dice = random.Random(7)
    for _ in range(50):
        finals, final = [0], 0
        while len(finals) < 250:
            final = dice.choice([final] * dice.choice((3, 40)) + [max(final, len(finals) - dice.randrange(4, 40))])
            finals.append(final)
        tables, since = run(*finals), dice.randrange(0, 200)
        by_hand = sum(
            known >= since and height - known <= LAG for height, known in enumerate(finals, 1) if height < len(finals)
        )
        assert count_acting(tables, KaonHeight(since)) == by_hand


def test_where_blocks_are_final_by_depth_every_block_counts() -> None:
    chain = LedgerChain()
    chain.skip(30)
    assert chain.ledger.count_acting(KaonHeight(10)) == chain.ledger.height - 10


def test_every_replica_remembers_the_same_and_its_root_says_so() -> None:
    chain = ArmedChain.started()
    for _ in range(3):
        chain.pulse()
        chain.finalise()
    other = replay(chain.ledger.genesis, REGTEST, chain.blocks)
    assert steps_of(other) == steps_of(chain.ledger)
    assert other.compute_state_root() == chain.ledger.compute_state_root()
    tables = other._tables  # noqa: SLF001 - only a test may
    tables.head = replace(tables.head, final_steps=tables.head.final_steps[1:])
    assert other.compute_state_root() != chain.ledger.compute_state_root()


def test_the_root_says_since_when_outputs_are_booked_and_epochs_keyed() -> None:
    chain = ArmedChain.started()
    chain.fund_active("alice", 500_000, 0)
    tables = chain.ledger._tables  # noqa: SLF001 - only a test may
    root, (outpoint,) = chain.ledger.compute_state_root(), chain.ledger.vault
    assert tables.vault_since == {outpoint: chain.ledger.height}
    tables.vault_since[outpoint] = KaonHeight(1)
    changed = chain.ledger.compute_state_root()
    tables.epochs[EPOCH] = replace(tables.epochs[EPOCH], keyed=KaonHeight(1))
    assert len({root, changed, chain.ledger.compute_state_root()}) == 3
    chain.ledger.open_draft()
    tables.drop_vault(outpoint)
    assert outpoint not in tables.vault_since
    chain.ledger.drop_draft()
    assert tables.vault_since[outpoint] == 1


def test_a_draft_leaves_no_trace() -> None:
    chain = ArmedChain.started()
    chain.finalise()
    before = steps_of(chain.ledger)
    chain.ledger.open_draft()
    assert steps_of(chain.ledger) != before
    chain.ledger.drop_draft()
    assert steps_of(chain.ledger) == before


def steps_of(ledger: Ledger) -> object:
    return ledger._tables.head.final_steps  # noqa: SLF001 - only a test may
