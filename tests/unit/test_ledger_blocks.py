"""Blocks: they link, they are signed, they apply whole or not at all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smpc.errors import Conflict, Halted, InvalidInput, Refused
from smpc.params import MAINNET, REGTEST
from smpc.protocol.ledger import Ledger, replay
from smpc.protocol.records import KaonBlock
from smpc.types import KaonHash, KaonHeight, Network, Signature
from tests.support.chain import LedgerChain
from tests.support.groups import make_account, make_secret, sign


def signed(chain: LedgerChain, block: KaonBlock) -> KaonBlock:
    return replace(block, signature=sign(chain.epoch.proposer, block.block_hash))


def test_refuses_a_block_that_skips_a_height() -> None:
    chain = LedgerChain()
    block = chain.build_block()
    with pytest.raises(Refused) as caught:
        chain.ledger.apply_block(signed(chain, replace(block, height=KaonHeight(2))))
    assert caught.value.code == "WRONG_HEIGHT"


def test_refuses_a_block_on_another_parent() -> None:
    chain = LedgerChain()
    with pytest.raises(Refused) as caught:
        chain.ledger.apply_block(signed(chain, replace(chain.build_block(), parent=KaonHash(bytes(32)))))
    assert caught.value.code == "WRONG_PARENT"


def test_refuses_a_block_older_than_its_parent_and_takes_one_of_the_same_time() -> None:
    chain = LedgerChain()
    chain.add()
    now = chain.ledger.time_millis
    with pytest.raises(Refused) as caught:
        chain.ledger.apply_block(signed(chain, replace(chain.build_block(), time_millis=now - 1)))
    assert caught.value.code == "WRONG_TIME"
    chain.ledger.apply_block(signed(chain, replace(chain.build_block(), time_millis=now)))


def test_refuses_a_block_signed_by_somebody_else() -> None:
    chain = LedgerChain()
    block = chain.build_block()
    with pytest.raises(Refused) as caught:
        chain.ledger.apply_block(replace(block, signature=sign(make_secret("mallory"), block.block_hash)))
    assert caught.value.code == "BAD_SIGNATURE"


def test_a_block_with_one_bad_record_changes_nothing_at_all() -> None:
    chain = LedgerChain.activated()
    good = chain.make_invoices(chain.make_terms(1))
    bad = replace(chain.make_invoices(chain.make_terms(2), request_id=b"other"), signature=Signature(bytes(64)))
    assert chain.refusal(good, bad) == "BAD_SIGNATURE"
    assert not chain.ledger.invoices
    chain.add(good)
    assert len(chain.ledger.invoices) == 1


def test_refuses_the_same_record_twice() -> None:
    chain = LedgerChain.activated()
    record = chain.make_invoices(chain.make_terms(1))
    assert chain.refusal(record, record) == "ALREADY_RECORDED"
    chain.add(record)
    assert chain.refusal(record) == "ALREADY_RECORDED"


def test_refuses_a_record_of_another_network() -> None:
    chain = LedgerChain.activated()
    chain.fund("alice", 1_000_000, 1)
    record = replace(chain.make_send("alice", make_account("bob")[1], 1), network=Network.MAINNET)
    record = replace(record, signature=sign(make_account("alice")[0], record.digest))
    assert chain.refusal(record) == "WRONG_NETWORK"


def test_refuses_a_genesis_of_another_network_than_the_parameters() -> None:
    with pytest.raises(InvalidInput):
        Ledger(LedgerChain().epoch.genesis, MAINNET)


def test_a_draft_shows_what_would_be_and_leaves_no_trace() -> None:
    chain = LedgerChain.activated()
    before = chain.ledger.compute_state_root()
    first = chain.make_invoices(chain.make_terms(1))
    chain.ledger.open_draft()
    chain.ledger.add_to_draft(first)
    with pytest.raises(Conflict):
        chain.ledger.add_to_draft(chain.make_invoices(chain.make_terms(1), request_id=b"other"))
    assert len(chain.ledger.invoices) == 1
    chain.ledger.drop_draft()
    assert not chain.ledger.invoices
    assert chain.ledger.compute_state_root() == before


def test_checking_a_record_leaves_no_trace() -> None:
    chain = LedgerChain.activated()
    before = chain.ledger.compute_state_root()
    chain.ledger.check_record(chain.make_invoices(chain.make_terms(1)))
    assert chain.ledger.compute_state_root() == before


def test_replaying_the_blocks_gives_the_live_state() -> None:
    chain = LedgerChain.activated()
    chain.fund("alice", 1_000_000, 1)
    burn = chain.burn("alice", 500_000)
    chain.add(chain.make_raise("alice", burn, 700))
    replayed = replay(chain.epoch.genesis, REGTEST, chain.blocks)
    assert replayed.compute_state_root() == chain.ledger.compute_state_root()
    assert replayed.money == chain.ledger.money


def test_replaying_a_changed_chain_halts() -> None:
    chain = LedgerChain.activated()
    changed = [chain.blocks[0], replace(chain.blocks[1], time_millis=chain.blocks[1].time_millis + 1)]
    with pytest.raises(Halted):
        replay(chain.epoch.genesis, REGTEST, changed)


def test_the_state_root_notices_a_single_satoshi() -> None:
    chain, other = LedgerChain.activated(), LedgerChain.activated()
    chain.fund("alice", 1_000_000, 1)
    other.fund("alice", 1_000_001, 1)
    assert chain.ledger.compute_state_root() != other.ledger.compute_state_root()
