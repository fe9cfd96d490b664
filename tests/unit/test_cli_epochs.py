"""What anyone checks for himself: an epoch's draw, and which Bitcoin transaction buries a block."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.cli.epoch_commands import check_election, find_notarised
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.errors import NotFound
from smpc.node.final_chain import FinalChain, replay_chain
from smpc.node.memory_bitcoin import MemoryBitcoin
from smpc.node.memory_consensus import MemoryConsensus
from smpc.node.ports import TransactionStatus
from smpc.params import REGTEST
from smpc.protocol.ledger_state import EpochState
from smpc.types import BlockHash, BtcHeight, EpochNumber, KaonHash, KaonHeight, Outpoint, Role, Sats, Script, Txid
from tests.support.faulty_ceremony import open_session
from tests.support.groups import build_genesis, build_keyed_epoch, make_secret
from tests.support.turning_chain import TurningChain


def final_chain(chain: TurningChain) -> FinalChain:
    hashes = {KaonHeight(0): chain.ledger.genesis.genesis_hash}
    hashes.update({block.height: block.block_hash for block in chain.blocks})
    return FinalChain(chain.ledger, hashes)


def swept() -> TurningChain:
    """Return a chain whose epoch 0 is swept to epoch 1, booked."""
    chain = TurningChain.started()
    chain.fund_active("alice", 1_000_000, 1)
    chain.turn()
    chain.book(chain.record(chain.make_sweep(0)))
    return chain


class ShownBitcoin(MemoryBitcoin):
    """A node that has one transaction, with this output script, so many blocks deep."""

    def __init__(self, script: Script, confirmations: int) -> None:
        super().__init__()
        spent = TxIn(Outpoint(Txid(bytes(32)), 0), 3, b"")
        self._raw = Transaction(2, (spent,), (TxOut(Sats(0), script),), 0).to_bytes()
        self._confirmations = confirmations

    async def fetch_transaction(self, txid: Txid) -> TransactionStatus | None:  # noqa: ARG002 - it has only one
        return TransactionStatus(self._raw, self._confirmations, BlockHash(bytes(32)), BtcHeight(1), None)


def test_every_epoch_is_drawn_again_from_the_chain() -> None:
    chain = TurningChain.started()
    chain.finalise()
    chain.turn()
    chain.announce()
    checks = [check_election(final_chain(chain), number) for number in sorted(chain.ledger.epochs)]
    assert all(check.is_same for check in checks)
    assert [check.seed_height for check in checks[:2]] == [0, 0]
    assert check_election(final_chain(chain), EpochNumber(3)).seed_height > 0


def test_a_seed_that_does_not_follow_from_the_chain_is_noticed() -> None:
    chain = TurningChain.started()
    chain.finalise()
    chain.turn()
    chain.announce()
    own = final_chain(chain)
    seed_height = check_election(own, EpochNumber(3)).seed_height
    other = replace(own, hashes={**own.hashes, seed_height: KaonHash(bytes(32))})
    check = check_election(other, EpochNumber(3))
    assert not check.is_same
    assert check.draw is None


def with_fault(role: Role = Role.VALIDATOR) -> TurningChain:
    """Return a chain in which a member of epoch 0 was replaced while epoch 1 was drawn already."""
    chain = TurningChain()
    chain.add()
    chain.announce()
    chain.add(*chain.keyed[EpochNumber(0)].host_keys)
    chain.add(open_session(chain.keyed[EpochNumber(0)], role).accuse_share(2, 0))
    return chain


@pytest.mark.parametrize("role", list(Role))
def test_a_draw_with_a_successor_is_verified_and_so_is_the_draw_that_followed(role: Role) -> None:
    chain = with_fault(role)
    check = check_election(final_chain(chain), EpochNumber(0))
    assert check.is_same
    (item,) = check.entry.replaced
    assert [each.identity for each in check.successors if each is not None] == [item.successor]
    assert check_election(final_chain(chain), EpochNumber(1)).is_same


def test_a_successor_whom_nobody_drew_is_noticed() -> None:
    check = check_election(final_chain(with_fault()), EpochNumber(0))
    (item,) = check.entry.replaced
    for other in (None, check.entry.members[Role.WITNESS][0]):
        forged = replace(check.entry, replaced=(replace(item, successor=other),))
        assert not replace(check, entry=forged).is_same


def test_an_epoch_drawn_again_after_a_conviction_is_verified_without_the_convicted() -> None:
    chain = with_fault()
    while chain.state(0) is not EpochState.ABORTED:
        chain.add()
    chain.announce()
    assert check_election(final_chain(chain), EpochNumber(0)).is_same
    assert check_election(final_chain(chain), EpochNumber(1)).is_same


def test_an_epoch_that_is_not_announced_is_not_found() -> None:
    with pytest.raises(NotFound, match="not announced"):
        check_election(final_chain(TurningChain.started()), EpochNumber(9))


async def test_a_chain_whose_epochs_do_not_turn_is_replayed_and_its_draw_verified_too() -> None:
    memory = MemoryConsensus(build_genesis(), REGTEST, make_secret("proposer"))
    await memory.start(build_keyed_epoch().announced)
    for _ in range(40):
        await memory.produce()
    chain = await replay_chain(memory, build_genesis(), REGTEST)
    assert max(chain.hashes) == 38
    assert check_election(chain, EpochNumber(0)).is_same


async def test_a_height_is_shown_with_what_buries_it_and_how_deep() -> None:
    chain = swept()
    anchor = chain.ledger.anchors[EpochNumber(1)]
    script = chain.ledger.find_op_return(EpochNumber(0), EpochNumber(1))
    assert script is not None
    found = await find_notarised(final_chain(chain), KaonHeight(1), ShownBitcoin(script, 5))
    assert found.burial is not None
    assert (found.burial.height, found.confirmations, found.is_contradicted) == (anchor.height, 5, False)
    later = await find_notarised(final_chain(chain), KaonHeight(anchor.height + 1), ShownBitcoin(script, 5))
    assert (later.burial, later.confirmations) == (None, None)


async def test_a_transaction_that_notarises_another_block_is_a_contradiction() -> None:
    chain = swept()
    script = chain.ledger.find_op_return(EpochNumber(0), EpochNumber(1))
    assert script is not None
    forged = Script(script[:20] + bytes([script[20] ^ 1]) + script[21:])
    assert (await find_notarised(final_chain(chain), KaonHeight(1), ShownBitcoin(forged, 5))).is_contradicted
    assert (await find_notarised(final_chain(chain), KaonHeight(1), ShownBitcoin(Script(b""), 5))).is_contradicted


async def test_without_a_node_or_a_transaction_there_are_no_confirmations() -> None:
    chain = swept()
    assert (await find_notarised(final_chain(chain), KaonHeight(1), None)).confirmations is None
    missing = await find_notarised(final_chain(chain), KaonHeight(1), MemoryBitcoin())
    assert (missing.confirmations, missing.is_contradicted) == (0, False)
    with pytest.raises(NotFound, match="not final"):
        await find_notarised(final_chain(chain), KaonHeight(chain.ledger.height + 1), None)
