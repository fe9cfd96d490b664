"""The tables under the ledger: totals follow entries, a mark is undone exactly, one satoshi off halts (case J11)."""

from __future__ import annotations

import pytest

from smpc.errors import Halted
from smpc.params import REGTEST
from smpc.protocol.intents import VaultEntry
from smpc.protocol.ledger_root import compute_state_root
from smpc.protocol.ledger_state import AccountEntry
from smpc.protocol.ledger_tables import LedgerTables, Money
from smpc.types import Outpoint, Sats, Txid
from tests.support.chain import vault_child
from tests.support.groups import EPOCH, build_genesis, make_account

ALICE = make_account("alice")[1]
OUTPOINT = Outpoint(Txid(bytes(32)), 0)


def make_tables() -> LedgerTables:
    tables = LedgerTables(build_genesis(), REGTEST)
    tables.mark()
    return tables


def output(value: int) -> VaultEntry:
    return VaultEntry(OUTPOINT, Sats(value), EPOCH, vault_child(0))


def test_totals_follow_the_entries() -> None:
    tables = make_tables()
    tables.put_vault(output(1_000))
    tables.put_account(ALICE, AccountEntry(Sats(900), 0))
    tables.put_account(ALICE, AccountEntry(Sats(700), 1))
    tables.move_reserve(300)
    assert tables.money == Money(vault=1_000, supply=700, open_burns=0, reserve=300)
    tables.check_money()
    tables.drop_vault(OUTPOINT)
    assert tables.money.vault == 0


@pytest.mark.parametrize("off", [-1, 1])
def test_one_satoshi_too_much_or_too_little_halts(off: int) -> None:
    tables = make_tables()
    tables.put_vault(output(1_000))
    tables.put_account(ALICE, AccountEntry(Sats(1_000), 0))
    tables.check_money()
    tables.move_reserve(off)
    with pytest.raises(Halted, match="identity"):
        tables.check_money()


def test_rolling_back_restores_written_changed_and_dropped_entries_and_the_money() -> None:
    tables = make_tables()
    tables.put_vault(output(1_000))
    tables.put_account(ALICE, AccountEntry(Sats(1_000), 0))
    before, money = compute_state_root(tables), tables.money
    tables.mark()
    tables.drop_vault(OUTPOINT)
    tables.put_vault(output(5))
    tables.put_account(ALICE, AccountEntry(Sats(3), 7))
    tables.put_account(make_account("bob")[1], AccountEntry(Sats(2), 0))
    tables.move_reserve(-5)
    tables.roll_back()
    assert compute_state_root(tables) == before
    assert tables.money == money


def test_an_accepted_inner_mark_is_still_undone_by_the_outer_one() -> None:
    tables = make_tables()
    before = compute_state_root(tables)
    tables.mark()
    tables.mark()
    tables.put_account(ALICE, AccountEntry(Sats(1), 0))
    tables.accept()
    assert tables.account(ALICE).balance == 1
    tables.roll_back()
    assert compute_state_root(tables) == before
