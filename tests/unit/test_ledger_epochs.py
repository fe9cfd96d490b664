"""Epochs: the draw is recomputed, host keys are the members' own, and no key enters without its whole proof."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smpc.curve import compute_plain_key
from smpc.protocol.ceremony_records import HostKeyAnnounced
from smpc.protocol.ledger_epochs import MAX_SEALED, compute_ready_signatures_needed
from smpc.protocol.ledger_state import EpochState
from smpc.protocol.records import EpochAnnounced, GroupKeyRecorded, Record, compute_ready_digest
from smpc.types import Attempt, EpochNumber, GroupId, HostKey, Network, Role, Signature
from tests.support.chain import LedgerChain
from tests.support.groups import ATTEMPT, EPOCH, interpolate, make_secret, run_ceremony, sign, sign_with_group

V = GroupId(EPOCH, Role.VALIDATOR)


def announced() -> LedgerChain:
    chain = LedgerChain()
    chain.add(chain.epoch.announced)
    return chain


def with_host_keys() -> LedgerChain:
    chain = announced()
    chain.add(*chain.epoch.host_keys)
    return chain


def make_host_key(chain: LedgerChain, *, attempt: int = 0, position: int = 0, name: str = "fresh") -> HostKeyAnnounced:
    group = chain.epoch.groups[Role.VALIDATOR]
    key = HostKey(compute_plain_key(make_secret(name, position)))
    identity = group.info.members[position]
    record = HostKeyAnnounced(Network.REGTEST, V, Attempt(attempt), identity, key, Signature(bytes(64)))
    return replace(record, signature=sign(group.identities[position], record.digest))


def key_record(chain: LedgerChain, role: Role = Role.VALIDATOR) -> GroupKeyRecorded:
    return next(record for record in chain.epoch.keyed if record.group.role is role)


def test_takes_the_draw_everybody_computes() -> None:
    chain = announced()
    entry = chain.ledger.epochs[EPOCH]
    assert entry.state is EpochState.ANNOUNCED
    assert entry.thresholds == {Role.VALIDATOR: 3, Role.WITNESS: 3, Role.EMERGENCY: 3}


def test_refuses_a_draw_with_one_member_exchanged() -> None:
    chain = LedgerChain()
    (role, keys), *rest = chain.epoch.announced.members
    changed = ((role, (keys[1], keys[0], *keys[2:])), *rest)
    assert chain.refusal(replace(chain.epoch.announced, members=changed)) == "WRONG_DRAW"


@pytest.mark.parametrize("change", ["missing", "order", "empty", "long"])
def test_refuses_preimages_not_sealed_to_every_emergency_member(change: str) -> None:
    chain = LedgerChain()
    sealed = chain.epoch.announced.sealed_preimages
    changed = {
        "missing": sealed[1:],
        "order": sealed[::-1],
        "empty": ((sealed[0][0], b""), *sealed[1:]),
        "long": ((sealed[0][0], bytes(MAX_SEALED + 1)), *sealed[1:]),
    }[change]
    assert chain.refusal(replace(chain.epoch.announced, sealed_preimages=changed)) == "WRONG_SEALED_PREIMAGES"


def test_refuses_a_preimage_hash_of_another_length() -> None:
    chain = LedgerChain()
    record = replace(chain.epoch.announced, preimage_hash=bytes(31))
    assert chain.refusal(record) == "WRONG_PREIMAGE_HASH"


def test_refuses_a_second_announcement_and_a_later_epoch() -> None:
    chain = announced()
    again = replace(chain.epoch.announced, preimage_hash=bytes(32))
    later: EpochAnnounced = replace(chain.epoch.announced, epoch=EpochNumber(1))
    assert chain.refusal(again) == "EPOCH_NOT_DUE"
    assert chain.refusal(later) == "EPOCH_NOT_DUE"


def test_the_first_host_key_starts_key_generation() -> None:
    chain = announced()
    chain.add(chain.epoch.host_keys[0])
    assert chain.ledger.epochs[EPOCH].state is EpochState.KEYGEN


def test_refuses_a_host_key_of_an_unknown_epoch() -> None:
    assert LedgerChain().refusal(LedgerChain().epoch.host_keys[0]) == "UNKNOWN_EPOCH"


def test_refuses_a_host_key_of_somebody_who_was_not_drawn() -> None:
    chain = announced()
    outsider = chain.epoch.groups[Role.WITNESS]
    record = replace(make_host_key(chain), identity=outsider.info.members[0])
    record = replace(record, signature=sign(outsider.identities[0], record.digest))
    assert chain.refusal(record) == "NOT_A_MEMBER"


def test_refuses_a_host_key_that_somebody_else_signed() -> None:
    chain = announced()
    record = make_host_key(chain)
    assert chain.refusal(replace(record, signature=sign(make_secret("mallory"), record.digest))) == "BAD_SIGNATURE"


def test_refuses_a_second_host_key_for_the_same_attempt() -> None:
    chain = announced()
    chain.add(make_host_key(chain))
    assert chain.refusal(make_host_key(chain, name="another")) == "HOST_KEY_KNOWN"


def test_a_ceremony_has_n_minus_t_plus_one_attempts() -> None:
    chain = announced()
    chain.add(make_host_key(chain, attempt=1))
    assert chain.refusal(make_host_key(chain, attempt=2, name="late")) == "TOO_MANY_ATTEMPTS"


def test_refuses_a_host_key_that_was_announced_before() -> None:
    chain = announced()
    chain.add(make_host_key(chain))
    assert chain.refusal(make_host_key(chain, attempt=1)) == "HOST_KEY_REUSED"


def test_refuses_a_host_key_that_is_no_point() -> None:
    chain = announced()
    record = replace(make_host_key(chain), host_key=HostKey(b"\x02" + b"\xff" * 32))
    record = replace(record, signature=sign(chain.epoch.groups[Role.VALIDATOR].identities[0], record.digest))
    assert chain.refusal(record) == "BAD_KEY"


def test_refuses_a_preimage_confirmed_by_somebody_outside_e_or_twice() -> None:
    chain = announced()
    first = chain.epoch.confirmed[0]
    outsider = chain.epoch.groups[Role.VALIDATOR]
    stranger = replace(first, identity=outsider.info.members[0])
    assert chain.refusal(replace(stranger, signature=sign(outsider.identities[0], stranger.digest))) == "NOT_A_MEMBER"
    assert chain.refusal(replace(first, signature=Signature(bytes(64)))) == "BAD_SIGNATURE"
    chain.add(first)
    assert chain.refusal(first) == "ALREADY_RECORDED"


def test_records_a_certified_key_with_its_public_shares() -> None:
    chain = with_host_keys()
    chain.add(key_record(chain))
    group = chain.ledger.epochs[EPOCH].groups[Role.VALIDATOR]
    assert group == chain.epoch.groups[Role.VALIDATOR].info


def test_refuses_a_key_before_every_member_announced_its_host_key() -> None:
    chain = announced()
    chain.add(*(record for record in chain.epoch.host_keys if record.identity != chain.epoch.host_keys[3].identity))
    assert chain.refusal(key_record(chain)) == "WRONG_MEMBERS"


def test_refuses_recovery_data_with_one_flipped_bit() -> None:
    chain = with_host_keys()
    record = key_record(chain)
    for place in (0, 40, len(record.recovery_data) // 2, len(record.recovery_data) - 1):
        data = bytearray(record.recovery_data)
        data[place] ^= 1
        assert chain.refusal(replace(record, recovery_data=bytes(data))) == "NOT_CERTIFIED"


def test_refuses_the_recovery_data_of_another_group() -> None:
    chain = with_host_keys()
    other = key_record(chain, Role.WITNESS)
    assert chain.refusal(replace(key_record(chain), recovery_data=other.recovery_data)) == "WRONG_MEMBERS"


def test_refuses_a_key_of_a_lower_threshold() -> None:
    chain = with_host_keys()
    group = chain.epoch.groups[Role.VALIDATOR]
    weak = run_ceremony(group.host_secrets, 2, "weak")[0]
    assert chain.refusal(replace(key_record(chain), recovery_data=weak.recovery_data)) == "WRONG_THRESHOLD"


def rerun(positions: tuple[int, ...], attempt: int = 1) -> GroupKeyRecorded:
    """Return the record of a ceremony among these members with the host keys announced for `attempt`."""
    outputs = run_ceremony(tuple(make_secret("rerun", position) for position in positions), 3, f"rerun {positions}")
    data = outputs[0].recovery_data
    digest = compute_ready_digest(Network.REGTEST, V, Attempt(attempt), data)
    secret = interpolate(outputs[:3])
    ready = tuple(sign(secret, digest, variant=number) for number in range(2))
    return GroupKeyRecorded(Network.REGTEST, V, Attempt(attempt), data, ready)


def with_rerun_keys(*positions: int, attempt: int = 1) -> LedgerChain:
    chain = with_host_keys()
    chain.add(*(make_host_key(chain, attempt=attempt, position=place, name="rerun") for place in positions))
    return chain


def test_a_rerun_may_leave_a_silent_member_out() -> None:
    chain = with_rerun_keys(0, 1, 3)
    chain.add(rerun((0, 1, 3)))
    group = chain.ledger.epochs[EPOCH].groups[Role.VALIDATOR]
    drawn = chain.ledger.epochs[EPOCH].members[Role.VALIDATOR]
    assert group.members == (drawn[0], drawn[1], drawn[3])
    assert (group.threshold, len(group.public_shares), group.attempt) == (3, 3, 1)


def test_a_rerun_with_everybody_is_fine_too() -> None:
    chain = with_rerun_keys(0, 1, 2, 3)
    chain.add(rerun((0, 1, 2, 3)))


def test_a_rerun_keeps_the_order_of_the_draw() -> None:
    chain = with_rerun_keys(0, 1, 2, 3)
    assert chain.refusal(rerun((1, 0, 3))) == "WRONG_MEMBERS"


def test_a_rerun_has_at_least_t_members_who_announced_a_key_for_it() -> None:
    chain = with_rerun_keys(0, 1)
    assert chain.refusal(rerun((0, 1, 3))) == "WRONG_MEMBERS"


def test_the_first_attempt_leaves_nobody_out() -> None:
    chain = announced()
    chain.add(*(make_host_key(chain, attempt=0, position=place, name="rerun") for place in (0, 1, 3)))
    assert chain.refusal(rerun((0, 1, 3), attempt=0)) == "WRONG_MEMBERS"


def test_needs_two_different_ready_signatures_for_three_of_four() -> None:
    chain = with_host_keys()
    record = key_record(chain)
    first, second = record.ready_signatures
    assert chain.refusal(replace(record, ready_signatures=(first,))) == "NOT_READY"
    assert chain.refusal(replace(record, ready_signatures=(first, first))) == "NOT_READY"
    chain.add(replace(record, ready_signatures=(second, first)))


def test_refuses_more_ready_signatures_than_members() -> None:
    chain = with_host_keys()
    record = key_record(chain)
    digest = compute_ready_digest(Network.REGTEST, V, ATTEMPT, record.recovery_data)
    group = chain.epoch.groups[Role.VALIDATOR]
    many = tuple(sign(group.secret, digest, variant=number) for number in range(5))
    assert chain.refusal(replace(record, ready_signatures=many)) == "NOT_READY"
    chain.add(replace(record, ready_signatures=many[:4]))


def test_refuses_ready_signatures_by_another_group() -> None:
    chain = with_host_keys()
    record = key_record(chain)
    digest = compute_ready_digest(Network.REGTEST, V, ATTEMPT, record.recovery_data)
    foreign = sign_with_group(chain.epoch.groups[Role.WITNESS], digest)
    assert chain.refusal(replace(record, ready_signatures=(record.ready_signatures[0], foreign))) == "BAD_SIGNATURE"


def test_a_group_has_one_key() -> None:
    chain = with_host_keys()
    chain.add(key_record(chain))
    assert chain.refusal(replace(key_record(chain), attempt=Attempt(1))) == "GROUP_KEYED"
    assert chain.refusal(make_host_key(chain, attempt=1)) == "GROUP_KEYED"


@pytest.mark.parametrize("kept", [2, 3])
def test_standby_needs_t_confirmed_preimages(kept: int) -> None:
    chain = with_host_keys()
    chain.add(*chain.epoch.keyed, *chain.epoch.confirmed[:kept])
    expected = EpochState.STANDBY if kept == 3 else EpochState.KEYGEN
    assert chain.ledger.epochs[EPOCH].state is expected


@pytest.mark.parametrize("missing", list(Role))
def test_standby_needs_all_three_keys(missing: Role) -> None:
    chain = with_host_keys()
    records: list[Record] = [record for record in chain.epoch.keyed if record.group.role is not missing]
    chain.add(*chain.epoch.confirmed, *records)
    chain.add()
    assert chain.ledger.epochs[EPOCH].state is EpochState.KEYGEN
    chain.add(key_record(chain, missing))
    chain.add()
    assert chain.ledger.epochs[EPOCH].state is EpochState.ACTIVE


def test_a_late_member_still_confirms_its_preimage_when_the_epoch_is_active() -> None:
    chain = with_host_keys()
    chain.add(*chain.epoch.keyed, *chain.epoch.confirmed[:3])
    chain.add(chain.epoch.confirmed[3])
    entry = chain.ledger.epochs[EPOCH]
    assert entry.state is EpochState.ACTIVE
    assert len(entry.confirmed) == 4


def test_ceremonies_are_over_when_the_epoch_is_keyed() -> None:
    chain = LedgerChain.activated()
    assert chain.refusal(make_host_key(chain, attempt=1)) == "EPOCH_KEYED"


@pytest.mark.parametrize(("size", "threshold", "needed"), [(4, 3, 2), (3, 3, 1), (100, 67, 2), (7, 5, 2), (1, 1, 1)])
def test_overlapping_subsets_needed_to_use_every_share(size: int, threshold: int, needed: int) -> None:
    assert compute_ready_signatures_needed(size, threshold) == needed
