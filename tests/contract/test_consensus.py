"""One contract for the consensus layer's ports: the in-memory twin and the real process behave alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from smpc.errors import Conflict, InvalidInput, NotFound, Refused
from smpc.node.replica import Replica
from smpc.params import REGTEST
from smpc.protocol.ceremony_records import CeremonyFault
from smpc.protocol.end_records import ChallengeRaised
from smpc.protocol.ledger_state import BurnStatus, EpochState
from smpc.protocol.records import BurnRequested, InvoicesRecorded, KaonBlock, Record
from smpc.types import KaonHeight, Network, Role, Signature
from tests.contract.consensus_world import World, open_devchain, open_memory
from tests.support.chain import LedgerChain
from tests.support.faulty_ceremony import open_session
from tests.support.groups import EPOCH, KeyedEpoch, build_keyed_epoch, endorse, make_account, sign


@pytest.fixture(params=["memory", "devchain"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    opened = open_memory() if request.param == "memory" else open_devchain(tmp_path)
    async with opened as consensus:
        yield consensus


async def activate(world: World) -> KeyedEpoch:
    """Bring epoch 0 to active through the port, as its members would."""
    epoch = build_keyed_epoch()
    await world.advance()
    records: tuple[Record, ...] = (*epoch.host_keys, *epoch.confirmed, *epoch.keyed)
    for record in records:
        await world.participant.submit(record)
    await world.advance(2)
    return epoch


async def shadow(world: World) -> LedgerChain:
    """Return a signing bench on the chain's own blocks."""
    chain = LedgerChain()
    tip = await world.user.fetch_tip()
    for height in range(1, tip.height + 1):
        chain.ledger.apply_block(await world.user.fetch_block(KaonHeight(height)))
    return chain


async def test_the_tip_grows_and_lags_two_blocks_behind_in_finality(world: World) -> None:
    await world.advance(3)
    tip = await world.user.fetch_tip()
    assert tip.height >= 3
    assert tip.final == tip.height - 2
    assert tip.genesis_hash == build_keyed_epoch().genesis.genesis_hash
    block = await world.user.fetch_block(tip.height)
    assert (block.block_hash, block.time_millis) == (tip.block_hash, tip.time_millis)


async def test_blocks_link_and_the_first_links_to_the_genesis(world: World) -> None:
    await world.advance(3)
    blocks = [await world.user.fetch_block(KaonHeight(height)) for height in (1, 2, 3)]
    assert blocks[0].parent == build_keyed_epoch().genesis.genesis_hash
    assert [block.parent for block in blocks[1:]] == [block.block_hash for block in blocks[:2]]


async def test_there_is_no_block_0_and_none_above_the_tip(world: World) -> None:
    await world.advance()
    with pytest.raises(InvalidInput):
        await world.user.fetch_block(KaonHeight(0))
    with pytest.raises(NotFound):
        await world.user.fetch_block(KaonHeight(1_000_000))


async def test_watching_gives_old_blocks_then_new_ones_in_order(world: World) -> None:
    await world.advance(3)
    seen: list[KaonBlock] = []

    async def collect() -> None:
        async with aclosing(world.user.watch_blocks(KaonHeight(2))) as blocks:
            async for block in blocks:
                seen.append(block)
                if block.height == 6:
                    return

    async with asyncio.TaskGroup() as group:
        group.create_task(collect())
        await world.advance(4)
    assert [block.height for block in seen] == [2, 3, 4, 5, 6]


async def test_epoch_0_is_announced_keyed_and_activated_through_the_port(world: World) -> None:
    with pytest.raises(NotFound):
        await world.user.fetch_epoch()
    await world.advance()
    announced = await world.user.fetch_epoch(EPOCH)
    assert announced.state is EpochState.ANNOUNCED
    assert all(group.info is None for group in announced.groups)
    epoch = await activate(world)
    active = await world.user.fetch_epoch()
    assert active.state is EpochState.ACTIVE
    assert [group.info for group in active.groups] == [group.info for group in epoch.groups.values()]
    assert active.confirmed_preimages == 4
    assert active.activated is not None
    with pytest.raises(NotFound):
        await world.user.fetch_epoch(type(EPOCH)(1))


async def test_a_record_submitted_again_is_a_success(world: World) -> None:
    await world.advance()
    record = build_keyed_epoch().host_keys[0]
    first = await world.participant.submit(record)
    assert await world.participant.submit(record) == first == record.record_id
    await world.advance()
    assert await world.participant.submit(record) == first


async def test_a_waiting_submission_returns_when_a_block_holds_the_record(world: World) -> None:
    await world.advance()
    record = build_keyed_epoch().host_keys[0]
    async with asyncio.TaskGroup() as group:
        submitted = group.create_task(world.participant.submit(record, wait=True))
        await world.advance(2)
    assert submitted.result() == record.record_id
    page = await world.user.list_records(KaonHeight(0), [type(record)])
    assert [entry.record for entry in page.entries] == [record]


async def test_the_ledger_s_refusal_reaches_whoever_submits(world: World) -> None:
    await world.advance()
    record = build_keyed_epoch().host_keys[0]
    with pytest.raises(Refused) as caught:
        await world.participant.submit(replace(record, signature=Signature(bytes(64))))
    assert caught.value.code == "BAD_SIGNATURE"
    await world.participant.submit(record)
    other = replace(build_keyed_epoch().host_keys[1], identity=record.identity)
    with pytest.raises((Refused, Conflict)):
        await world.participant.submit(other)


async def test_a_refusal_carries_its_rule_and_remedy(world: World) -> None:
    await activate(world)
    chain = await shadow(world)
    terms = replace(chain.make_terms(1), fee_bp=9)
    with pytest.raises(Refused) as caught:
        await world.coordinator.submit(chain.make_invoices(terms))
    assert (caught.value.code, caught.value.rule) == ("WRONG_TERMS", "V31")
    assert "preset" in caught.value.remedy


async def test_a_fault_is_taken_once_from_its_accuser_and_from_a_coordinator(world: World) -> None:
    epoch = build_keyed_epoch()
    await world.advance()
    for record in epoch.host_keys:
        await world.participant.submit(record)
    await world.advance()
    fault, other = open_session(epoch).accuse_share(2, 0), open_session(epoch).accuse_share(3, 0)
    assert await world.coordinator.submit(fault) == fault.record_id
    assert await world.participant.submit(fault) == fault.record_id
    assert await world.participant.submit(other) == fault.record_id
    await world.advance(2)
    page = await world.user.list_records(KaonHeight(0), (CeremonyFault,))
    assert [entry.record for entry in page.entries] == [fault]
    view = await world.user.fetch_epoch(EPOCH)
    (validators,) = [group for group in view.groups if group.role is Role.VALIDATOR]
    assert fault.accused not in validators.members
    assert (len(validators.members), validators.threshold) == (4, 3)


async def test_a_fault_of_one_member_goes_in_from_its_accuser_alone(world: World) -> None:
    epoch = build_keyed_epoch()
    await world.advance()
    for record in epoch.host_keys:
        await world.participant.submit(record)
    fault = open_session(epoch, Role.WITNESS).accuse_share(0, 3)
    assert await world.participant.submit(fault) == fault.record_id
    await world.advance(2)
    page = await world.user.list_records(KaonHeight(0), (CeremonyFault,))
    assert [entry.record for entry in page.entries] == [fault]


async def test_nobody_submits_an_announcement(world: World) -> None:
    with pytest.raises(Refused) as caught:
        await world.participant.submit(build_keyed_epoch().announced)
    assert caught.value.code == "PERMISSION_DENIED"


async def test_records_are_listed_by_kind_from_a_cursor_on(world: World) -> None:
    epoch = await activate(world)
    everything = await world.user.list_records(KaonHeight(0))
    kinds = {type(entry.record).__name__ for entry in everything.entries}
    assert kinds == {"EpochAnnounced", "HostKeyAnnounced", "PreimageConfirmed", "GroupKeyRecorded"}
    assert everything.through >= 3
    keys = await world.user.list_records(KaonHeight(0), [type(epoch.keyed[0])])
    assert [entry.record for entry in keys.entries] == list(epoch.keyed)
    after = await world.user.list_records(everything.through)
    assert after.entries == ()
    assert after.through >= everything.through


async def test_money_goes_in_and_out_through_the_port(world: World) -> None:
    epoch = await activate(world)
    chain = await shadow(world)
    secret, alice = make_account("alice")
    await world.coordinator.submit(chain.make_invoices(chain.make_terms(1)), wait=world.memory is None)
    await world.advance()
    chain = await shadow(world)
    transfer = chain.make_transfer([(1, 1_000_000)])
    await world.participant.submit(endorse(epoch, transfer, chain.ledger.height))
    await world.advance()
    chain = await shadow(world)
    await world.participant.submit(chain.sign_booking(chain.ledger.compute_booking(transfer.intent_id)))
    await world.advance()
    assert (await world.user.fetch_account(alice)).balance == 995_250
    chain = await shadow(world)
    await world.user.submit(chain.make_burn("alice", 100_000))
    await world.advance()
    account = await world.user.fetch_account(alice)
    assert (account.balance, account.nonce) == (995_250 - 102_350, 1)
    supply = await world.user.fetch_supply()
    assert (supply.vault, supply.open_burns) == (998_000, 102_350)
    assert supply.vault == supply.supply + supply.open_burns + supply.reserve
    burns = await world.user.list_records(KaonHeight(0), [BurnRequested, InvoicesRecorded])
    assert [type(entry.record) for entry in burns.entries] == [InvoicesRecorded, BurnRequested]
    assert sign(secret, bytes(32))


async def test_a_challenge_is_judged_and_its_verdict_listed(world: World) -> None:
    epoch = await activate(world)
    chain = await shadow(world)
    await world.coordinator.submit(chain.make_invoices(chain.make_terms(1)))
    await world.advance()
    chain = await shadow(world)
    transfer = chain.make_transfer([(1, 1_000_000)])
    identity, secret = next(iter(epoch.identities.items()))
    record = ChallengeRaised(Network.REGTEST, transfer.intent_id, identity, "V18", "odd", Signature(bytes(64)))
    record = replace(record, signature=sign(secret, record.digest))
    await world.participant.submit(endorse(epoch, transfer, chain.ledger.height))
    assert await world.participant.challenge(record) == record.record_id
    await world.advance(2)
    (verdict,) = await world.user.list_verdicts(transfer.intent_id)
    assert (verdict.challenger, verdict.rule, verdict.note, verdict.is_upheld) == (identity, "V18", "odd", False)
    assert await world.user.list_verdicts() == (verdict,)
    assert await world.user.list_verdicts(type(transfer.intent_id)(bytes(32))) == ()


async def test_an_unknown_account_is_empty(world: World) -> None:
    account = await world.user.fetch_account(make_account("nobody")[1])
    assert (account.balance, account.nonce) == (0, 0)


async def test_two_records_of_one_account_stand_in_one_block_in_the_order_of_their_nonces(world: World) -> None:
    epoch = await activate(world)
    chain = await shadow(world)
    await world.coordinator.submit(chain.make_invoices(chain.make_terms(1)))
    await world.advance()
    chain = await shadow(world)
    transfer = chain.make_transfer([(1, 1_000_000)])
    await world.participant.submit(endorse(epoch, transfer, chain.ledger.height))
    await world.advance()
    chain = await shadow(world)
    await world.participant.submit(chain.sign_booking(chain.ledger.compute_booking(transfer.intent_id)))
    await world.advance()
    chain = await shadow(world)
    first = chain.make_send("alice", make_account("bob")[1], 1)
    second = replace(first, nonce=1)
    second = replace(second, signature=sign(make_account("alice")[0], second.digest))
    await world.user.submit(first)
    await world.user.submit(second)
    await world.advance()
    assert (await world.user.fetch_account(first.recipient)).balance == 2


async def test_a_replica_reaches_the_same_state_as_the_node(world: World) -> None:
    epoch = await activate(world)
    replica = Replica(world.participant, epoch.genesis, REGTEST)
    async with asyncio.TaskGroup() as group:
        following = group.create_task(replica.run())
        await world.advance(2)
        await replica.wait_synced()
        await replica.wait_for(lambda ledger: ledger.active_epoch == EPOCH)
        following.cancel()
    chain = LedgerChain()
    for height in range(1, replica.ledger.height + 1):
        chain.ledger.apply_block(await world.user.fetch_block(KaonHeight(height)))
    assert chain.ledger.compute_state_root() == replica.ledger.compute_state_root()
    assert all(burn.status is BurnStatus.OPEN for burn in replica.ledger.burns.values())
