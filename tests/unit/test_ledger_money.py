"""The money table, to the satoshi: every flow leaves booked vault = supply + open burns + reserve."""

from __future__ import annotations

from smpc.protocol.ledger_state import EpochState
from smpc.types import EpochNumber
from tests.support.chain import LedgerChain
from tests.support.groups import make_account


def test_an_epoch_becomes_active_in_the_block_after_its_keys() -> None:
    chain = LedgerChain()
    chain.add(*chain.epoch.records)
    assert chain.ledger.epochs[EpochNumber(0)].state is EpochState.STANDBY
    assert chain.ledger.epochs[EpochNumber(0)].activated is None
    chain.add()
    assert chain.ledger.active_epoch == 0
    assert chain.ledger.epochs[EpochNumber(0)].activated == 2


def test_a_booked_transfer_credits_the_deposit_less_its_fee() -> None:
    chain = LedgerChain.activated()
    credited = chain.fund("alice", 1_000_000, 1)
    assert credited == 1_000_000 - 1_000 - 3_750
    assert chain.ledger.vault_total == 1_000_000 - 2_000
    assert chain.ledger.reserve == 1_000 + 3_750 - 2_000
    assert chain.ledger.supply == credited


def test_a_booked_payout_settles_its_burn_and_gives_the_reserve_the_rest_of_the_fee() -> None:
    chain = LedgerChain.activated()
    credited = chain.fund("alice", 1_000_000, 1)
    reserve = chain.ledger.reserve
    burn = chain.burn("alice", 500_000)
    fee_out = 500 + 2_250
    assert chain.ledger.open_burns == 500_000 + fee_out
    (outpoint,) = chain.ledger.vault
    chain.book(chain.record(chain.make_payout([outpoint], [burn], fee=1_900)))
    assert chain.ledger.open_burns == 0
    assert chain.ledger.reserve == reserve + fee_out - 1_900
    assert chain.ledger.vault_total == 998_000 - 500_000 - 1_900
    assert chain.ledger.get_account(make_account("alice")[1]).balance == credited - 500_000 - fee_out
