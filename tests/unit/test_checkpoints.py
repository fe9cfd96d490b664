"""Checkpoints: more than two thirds of all stake sign every fourth block, and two in a row make one final [R4]."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smpc.params import REGTEST
from smpc.protocol.checkpoints import find_final, find_final_height, has_two_thirds, is_checkpoint
from smpc.protocol.ledger import Ledger, replay
from smpc.protocol.records import KaonBlock
from smpc.types import IdentityKey, KaonHash, KaonHeight
from tests.support.chain import LedgerChain
from tests.support.groups import build_genesis, make_secret, sign
from tests.support.turning_chain import TurningChain, build_turning_genesis


def at(height: int) -> TurningChain:
    chain = TurningChain()
    chain.skip(height)
    return chain


def lag(chain: TurningChain, height: int) -> tuple[Ledger, list[KaonBlock]]:
    """Return what a replica has: the ledger at `height`, and the blocks upon it."""
    return replay(chain.epoch.genesis, REGTEST, chain.blocks[:height]), chain.blocks[height:]


def test_every_fourth_block_is_a_checkpoint_and_the_genesis_is_none() -> None:
    assert [height for height in range(13) if is_checkpoint(KaonHeight(height))] == [4, 8, 12]


@pytest.mark.parametrize(("voters", "suffices"), [(10, False), (11, True)])
def test_two_thirds_means_more_than_two_thirds_of_the_stake(voters: int, suffices: bool) -> None:
    stakes = {IdentityKey(bytes([number])): 1_000 for number in range(16)}
    assert has_two_thirds(stakes, [IdentityKey(bytes([number])) for number in range(voters)]) is suffices


def test_exactly_two_thirds_is_too_little_and_strangers_count_nothing() -> None:
    stakes = {IdentityKey(bytes([number])): stake for number, stake in enumerate((1, 1, 1))}
    assert not has_two_thirds(stakes, [IdentityKey(b"\x00"), IdentityKey(b"\x01")])
    assert not has_two_thirds(stakes, [IdentityKey(b"\x00"), IdentityKey(b"\x01"), IdentityKey(b"\x09")])


@pytest.mark.parametrize(
    ("justified", "final"), [((), 0), ((4,), 0), ((4, 8), 4), ((4, 12), 0), ((4, 8, 12), 8), ((4, 8, 16, 20), 16)]
)
def test_two_checkpoints_in_a_row_make_the_first_one_final(justified: tuple[int, ...], final: int) -> None:
    assert find_final({KaonHeight(height) for height in justified}) == final


def test_the_ledger_finalises_by_the_votes_in_its_blocks() -> None:
    chain = at(8)
    chain.vote(4)
    assert chain.ledger.final_height == 0
    chain.vote(8, range(10))
    assert chain.ledger.final_height == 0
    chain.vote(8, [10])
    assert chain.ledger.final_height == 4
    assert set(chain.ledger.checkpoints) == {4, 8}


def test_the_order_of_two_checkpoints_votes_does_not_matter() -> None:
    chain = at(8)
    chain.vote(8)
    chain.vote(4)
    assert chain.ledger.final_height == 4


def test_what_is_final_stays_final_and_is_not_voted_for_below() -> None:
    chain = at(12)
    chain.vote(4)
    chain.vote(8)
    chain.vote(12)
    assert chain.ledger.final_height == 8
    assert set(chain.ledger.checkpoints) == {8, 12}
    assert chain.refusal(chain.make_vote(12, 4)) == "NO_CHECKPOINT"


def test_finality_goes_on_after_a_checkpoint_nobody_signed() -> None:
    chain = at(20)
    chain.vote(4)
    chain.vote(12)
    assert chain.ledger.final_height == 0
    chain.vote(16)
    assert chain.ledger.final_height == 12


def test_refuses_votes_for_what_is_no_checkpoint_or_another_block() -> None:
    chain = at(9)
    other = replace(chain.make_vote(0, 8), block_hash=KaonHash(bytes(32)))
    assert chain.refusal(chain.make_vote(0, 9)) == "NO_CHECKPOINT"
    assert chain.refusal(replace(other, signature=sign(make_secret("identity", 0), other.digest))) == "OTHER_BLOCK"
    ahead = replace(chain.make_vote(0, 8), height=KaonHeight(12))
    assert chain.refusal(replace(ahead, signature=sign(make_secret("identity", 0), ahead.digest))) == "NO_CHECKPOINT"


def test_refuses_votes_of_strangers_forged_ones_and_second_ones() -> None:
    chain = at(9)
    vote = chain.make_vote(0, 8)
    assert chain.refusal(replace(vote, identity=IdentityKey(bytes(31) + b"\x01"))) == "NOT_A_VALIDATOR"
    assert chain.refusal(replace(vote, signature=sign(make_secret("mallory"), vote.digest))) == "BAD_SIGNATURE"
    chain.add(vote)
    again = replace(vote, signature=sign(make_secret("identity", 0), vote.digest, variant=1))
    assert chain.refusal(again) == "ALREADY_RECORDED"


def test_a_chain_without_checkpoints_takes_no_votes_and_counts_depth() -> None:
    plain, turning = LedgerChain(), at(9)
    assert plain.refusal(turning.make_vote(0, 8)) == "NO_CHECKPOINTS"
    plain.skip(9)
    assert plain.ledger.final_height == 9 - REGTEST.finality_depth
    assert not plain.ledger.checkpoints


# ------------------------------------------------------------------ what a replica finds


def test_a_replica_finds_the_height_that_the_ledger_at_the_tip_knows() -> None:
    chain = at(8)
    chain.vote(4)
    chain.vote(8)
    chain.skip(3)
    chain.vote(12)
    for applied in range(chain.ledger.final_height + 1):
        assert find_final_height(*lag(chain, applied)) == chain.ledger.final_height == 8


def test_nothing_is_final_by_votes_the_replica_has_not_seen() -> None:
    chain = at(8)
    chain.vote(4)
    chain.vote(8, range(10))
    assert find_final_height(*lag(chain, 0)) == 0
    ledger, blocks = lag(chain, 0)
    assert find_final_height(ledger, blocks[:8]) == 0


def test_finality_never_falls_behind_what_was_applied() -> None:
    chain = at(8)
    ledger, _ = lag(chain, 6)
    assert find_final_height(ledger, []) == 6


@pytest.mark.parametrize("lie", ["signature", "block", "voter", "network"])
def test_a_forged_vote_in_a_block_makes_nothing_final(lie: str) -> None:
    chain = at(8)
    chain.vote(4)
    honest = [chain.make_vote(number, 8) for number in range(10)]
    last = chain.make_vote(10, 8)
    forged = {
        "signature": replace(last, signature=sign(make_secret("mallory"), last.digest)),
        "block": replace(last, block_hash=KaonHash(bytes(32))),
        "voter": replace(last, identity=honest[0].identity),
        "network": replace(last, network=build_genesis().network, height=KaonHeight(7)),
    }[lie]
    ledger, blocks = lag(chain, 0)
    assert find_final_height(ledger, [*blocks, chain.build_block(*honest, forged)]) == 0
    assert find_final_height(ledger, [*blocks, chain.build_block(*honest, last)]) == 4


def test_by_depth_a_replica_finds_what_it_always_did() -> None:
    chain = LedgerChain()
    chain.skip(9)
    ledger = replay(chain.epoch.genesis, REGTEST, chain.blocks[:3])
    assert find_final_height(ledger, chain.blocks[3:]) == 7
    assert find_final_height(Ledger(build_genesis(), REGTEST), chain.blocks[:1]) == 0


def test_replaying_the_blocks_gives_the_same_state() -> None:
    chain = at(8)
    chain.vote(4)
    chain.vote(8)
    chain.pulse()
    again = replay(build_turning_genesis(), REGTEST, chain.blocks)
    assert again.compute_state_root() == chain.ledger.compute_state_root()
    assert again.final_height == 4
