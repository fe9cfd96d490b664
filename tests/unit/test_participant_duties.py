"""Stories about what a member owes the consensus layer without being asked."""

from __future__ import annotations

import dataclasses

from smpc.participant.duties import (
    CEREMONY_ATTEMPT_BLOCKS,
    Duty,
    HostKeyDue,
    PreimageDue,
    compute_open_attempts,
    find_duties,
)
from smpc.protocol.ledger_state import DrawOrigin, EpochEntry, EpochState
from smpc.types import Attempt, EpochNumber, GroupId, HostKey, IdentityKey, KaonHeight, Role
from tests.support.armed_world import ArmedChain

ALICE, BOB, CAROL, DAVE = (IdentityKey(bytes([i]) * 32) for i in range(1, 5))
EPOCH = EpochEntry(
    number=EpochNumber(0),
    state=EpochState.KEYGEN,
    announced=KaonHeight(10),
    activated=None,
    members={Role.VALIDATOR: (ALICE, BOB, CAROL, DAVE), Role.EMERGENCY: (ALICE,)},
    thresholds={Role.VALIDATOR: 3, Role.EMERGENCY: 1},
    preimage_hash=bytes(32),
    sealed_preimages={ALICE: b"sealed"},
    confirmed=frozenset(),
    host_keys={},
    groups={},
)


def _owed(epoch: EpochEntry, identity: IdentityKey, height: int) -> tuple[Duty, ...]:
    return find_duties({epoch.number: epoch}, identity, lambda since: max(0, height - since))


def test_a_member_announces_a_host_key_for_each_of_its_groups_and_confirms_the_preimage() -> None:
    groups = [duty.group.role for duty in _owed(EPOCH, ALICE, 10) if isinstance(duty, HostKeyDue)]
    assert groups == [Role.EMERGENCY, Role.VALIDATOR]
    assert PreimageDue(EpochNumber(0)) in _owed(EPOCH, ALICE, 10)


def test_an_announced_key_is_not_owed_again() -> None:
    announced = dataclasses.replace(EPOCH, host_keys={(Role.VALIDATOR, Attempt(0)): {BOB: HostKey(bytes(33))}})
    assert _owed(announced, BOB, 10) == ()


def test_the_next_attempt_opens_at_its_height_and_not_a_block_before() -> None:
    opens = 10 + CEREMONY_ATTEMPT_BLOCKS
    assert len(_owed(EPOCH, BOB, opens - 1)) == 1
    assert _owed(EPOCH, BOB, opens)[-1] == HostKeyDue(GroupId(EpochNumber(0), Role.VALIDATOR), Attempt(1))


def test_after_a_stall_of_finality_attempts_open_one_after_the_other() -> None:
    chain = ArmedChain.started()
    chain.announce()
    start = chain.entry(2).announced
    member = chain.entry(2).members[Role.VALIDATOR][0]

    def owed() -> list[Attempt]:
        duties = find_duties(chain.ledger.epochs, member, chain.ledger.count_acting)
        return [duty.attempt for duty in duties if isinstance(duty, HostKeyDue)]

    while chain.ledger.height < start + 5 * CEREMONY_ATTEMPT_BLOCKS:
        chain.pulse()
    chain.finalise()
    assert chain.ledger.final_height > start + 4 * CEREMONY_ATTEMPT_BLOCKS
    chain.wait_almost(start, CEREMONY_ATTEMPT_BLOCKS)
    assert owed() == [0]
    chain.add()
    assert owed() == [0, 1]


def test_no_more_attempts_open_than_n_minus_t_plus_one() -> None:
    assert compute_open_attempts(EPOCH, Role.VALIDATOR, 10_000) == 2


def test_an_epoch_drawn_again_goes_on_counting_attempts_and_has_another_preimage() -> None:
    origin = DrawOrigin(1, Attempt(2), bytes(32), KaonHeight(0), (), 1, 1, 0)
    owed = _owed(dataclasses.replace(EPOCH, origin=origin), ALICE, 10 + CEREMONY_ATTEMPT_BLOCKS)
    attempts = [duty.attempt for duty in owed if isinstance(duty, HostKeyDue) and duty.group.role is Role.VALIDATOR]
    assert attempts == [2, 3]
    assert PreimageDue(EpochNumber(0), 1) in owed


def test_an_outsider_and_a_finished_epoch_owe_nothing() -> None:
    assert _owed(EPOCH, IdentityKey(bytes(32)), 10) == ()
    assert _owed(dataclasses.replace(EPOCH, state=EpochState.ACTIVE), ALICE, 10) == ()
