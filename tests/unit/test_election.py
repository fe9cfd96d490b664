"""The election: stake-weighted, reproducible, and within every rule of section 6 [R11]."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smpc.curve import tagged_hash
from smpc.params import MAINNET, REGTEST
from smpc.protocol.election import (
    Draw,
    Successor,
    compute_genesis_seed,
    compute_group_size,
    find_draw,
    find_successor,
)
from smpc.protocol.records import ValidatorInfo
from smpc.types import EpochNumber, IdentityKey, KaonHash, Role, Script

SEED = bytes(32)


def make_validators(stakes: list[int]) -> tuple[ValidatorInfo, ...]:
    return tuple(
        ValidatorInfo(IdentityKey(tagged_hash("TEST/validator", bytes([place]))), "host:1", stake, Script(b""))
        for place, stake in enumerate(stakes)
    )


def draw(stakes: list[int], seed: bytes = SEED, **options: object) -> Draw:
    found = find_draw(REGTEST, make_validators(stakes), seed, **options)  # type: ignore[arg-type]  # options are passed on
    assert found is not None
    return found


def groups(found: Draw) -> Mapping[Role, set[IdentityKey]]:
    return {role: set(keys) for role, keys in found.members}


def numbered_seed(number: int) -> bytes:
    return tagged_hash("TEST/seed", number.to_bytes(4, "big"))


def test_draws_three_disjoint_groups_in_the_order_v_w_e() -> None:
    found = draw([1] * 16)
    assert [role for role, _ in found.members] == [Role.VALIDATOR, Role.WITNESS, Role.EMERGENCY]
    assert len({key for _, keys in found.members for key in keys}) == 12
    assert (found.bound, found.strict_bound, found.is_relaxed) == (1, 1, False)


def test_the_same_seed_gives_the_same_draw_in_whatever_order_validators_are_listed() -> None:
    validators = make_validators([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3])
    assert find_draw(REGTEST, validators, SEED) == find_draw(REGTEST, validators[::-1], SEED)


def test_another_seed_gives_another_draw() -> None:
    assert draw([1] * 16).members != draw([1] * 16, numbered_seed(1)).members


def test_the_genesis_seed_depends_on_the_chain_and_the_epoch() -> None:
    seeds = {
        compute_genesis_seed(KaonHash(bytes([chain]) * 32), EpochNumber(epoch)) for chain in (0, 1) for epoch in (0, 1)
    }
    assert len(seeds) == 4


@pytest.mark.parametrize(("count", "is_drawn"), [(11, False), (12, False), (13, True)])
def test_under_three_groups_or_at_a_third_of_the_stake_there_is_no_epoch(count: int, is_drawn: bool) -> None:
    # Four of twelve equal stakes are exactly a third, which is too much.
    found = find_draw(REGTEST, make_validators([1] * count), SEED)
    assert (found is not None) is is_drawn


@pytest.mark.parametrize(("eligible", "size"), [(149, None), (150, 50), (299, 99), (300, 100), (1_000, 100)])
def test_a_group_has_100_members_and_never_under_50(eligible: int, size: int | None) -> None:
    assert compute_group_size(MAINNET, eligible) == size


def test_the_jailed_and_those_without_stake_are_not_drawn() -> None:
    validators = make_validators([0] + [1] * 16)
    jailed = validators[1].identity
    found = find_draw(REGTEST, validators, SEED, jailed=[jailed])
    assert found is not None
    assert not {jailed, validators[0].identity} & {key for _, keys in found.members for key in keys}


def test_no_group_reaches_a_third_of_the_stake() -> None:
    stakes = [20, 20, 20] + [3] * 13
    for number in range(30):
        found = draw(stakes, numbered_seed(number))
        by_key = {item.identity: item.stake for item in make_validators(stakes)}
        for keys in groups(found).values():
            assert 3 * sum(by_key[key] for key in keys) < sum(stakes)


def test_a_validator_with_a_third_of_the_stake_is_never_drawn() -> None:
    validators = make_validators([8] + [1] * 16)
    for number in range(10):
        found = find_draw(REGTEST, validators, numbered_seed(number))
        assert found is not None
        assert validators[0].identity not in {key for _, keys in found.members for key in keys}


def test_more_stake_is_drawn_more_often() -> None:
    stakes = [1] * 20 + [3] * 20
    validators = make_validators(stakes)
    heavy = {item.identity for item in validators[20:]}
    drawn: Counter[bool] = Counter()
    for number in range(60):
        first_member = draw(stakes, numbered_seed(number)).members[0][1][0]
        drawn[first_member in heavy] += 1
    # 45 of 60 are expected; 30 would be four and a half standard deviations off.
    assert drawn[True] > 30


def test_the_next_v_has_nobody_of_the_present_v_and_groups_share_at_most_n_minus_t() -> None:
    stakes = [1] * 24
    present = groups(draw(stakes))
    for number in range(20):
        found = draw(stakes, numbered_seed(number), previous={role: tuple(keys) for role, keys in present.items()})
        following = groups(found)
        assert not following[Role.VALIDATOR] & present[Role.VALIDATOR]
        for keys in following.values():
            assert all(len(keys & before) <= 1 for before in present.values())
        assert not found.is_relaxed


def test_where_no_draw_exists_the_bound_rises_and_says_so() -> None:
    # Of 13 validators 12 sit in groups already: every next group has three of them at least.
    stakes = [1] * 13
    present = dict(draw(stakes).members)
    found = draw(stakes, numbered_seed(1), previous=present)
    assert found.is_relaxed
    assert found.bound == 2
    assert found.redraws > 0
    assert not set(dict(found.members)[Role.VALIDATOR]) & set(present[Role.VALIDATOR])


def test_the_other_rules_never_relax() -> None:
    # With everybody but four in the present V's group, nothing is left for the next V.
    validators = make_validators([1] * 16)
    everyone = tuple(item.identity for item in validators)
    assert find_draw(REGTEST, validators, SEED, previous={Role.VALIDATOR: everyone[:13]}) is None


@settings(max_examples=40)
@given(stakes=st.lists(st.integers(0, 50), min_size=12, max_size=24), seed=st.binary(min_size=32, max_size=32))
def test_every_draw_obeys_every_rule(stakes: list[int], seed: bytes) -> None:
    validators = make_validators(stakes)
    by_key = {item.identity: item.stake for item in validators}
    found = find_draw(REGTEST, validators, seed)
    if found is None:
        return
    members = [key for _, keys in found.members for key in keys]
    assert len(set(members)) == len(members)
    for _, keys in found.members:
        assert len(keys) == 4
        assert all(by_key[key] > 0 for key in keys)
        assert 3 * sum(by_key[key] for key in keys) < sum(stakes)


def test_a_mainnet_draw_of_300_validators_takes_groups_of_100() -> None:
    validators = tuple(
        ValidatorInfo(IdentityKey(tagged_hash("TEST/validator", place.to_bytes(2, "big"))), "host:1", 1, Script(b""))
        for place in range(301)
    )
    found = find_draw(MAINNET, validators, SEED)
    assert found is not None
    assert [len(keys) for _, keys in found.members] == [100, 100, 100]
    assert found.strict_bound == 33
    assert find_draw(replace(MAINNET, min_group_size=101), validators, SEED) is None


# ------------------------------------------------------------------ successors


def successor_of(
    stakes: list[int], leaving: int = 0, role: Role = Role.VALIDATOR, **options: object
) -> Successor | None:
    """Draw who takes one member's place in the draw of these stakes."""
    members = dict(draw(stakes).members)
    kept = [key for place, key in enumerate(members[role]) if place != leaving]
    arguments: dict[str, object] = {
        "size": 4,
        "threshold": 3,
        "barred": {key for keys in members.values() for key in keys},
        "neighbours": (),
        "jailed": (),
        **options,
    }
    return find_successor(make_validators(stakes), numbered_seed(9), role, kept, **arguments)  # type: ignore[arg-type]


def test_a_successor_comes_from_outside_every_group_and_is_the_same_for_everyone() -> None:
    found, drawn = successor_of([1] * 16), {key for _, keys in draw([1] * 16).members for key in keys}
    assert found is not None
    assert found.identity not in drawn
    assert found == successor_of([1] * 16)
    assert (found.bound, found.strict_bound) == (1, 1)


def test_the_jailed_and_whoever_was_at_fault_before_succeed_nobody() -> None:
    drawn = {key for _, keys in draw([1] * 16).members for key in keys}
    outside = sorted(item.identity for item in make_validators([1] * 16) if item.identity not in drawn)
    found = successor_of([1] * 16, jailed=outside[:2], barred={*drawn, outside[2]})
    assert found is not None
    assert found.identity == outside[3]
    assert successor_of([1] * 16, jailed=outside[:2], barred={*drawn, *outside[2:]}) is None


@pytest.mark.parametrize(("stake", "is_drawn"), [(2, True), (3, False)])
def test_no_successor_brings_its_group_to_a_third_of_the_stake(stake: int, is_drawn: bool) -> None:
    """Three members of stake 1 and a successor of 2 are 5 of 17; one of 3 makes it 6 of 18, which is a third."""
    validators = make_validators([1] * 15 + [stake])
    kept = [item.identity for item in validators[:3]]
    barred = [item.identity for item in validators[:15]]
    found = find_successor(
        validators, SEED, Role.WITNESS, kept, size=4, threshold=3, barred=barred, neighbours=(), jailed=()
    )
    assert (found is not None) is is_drawn


@pytest.mark.parametrize("beside", ["before", "after"])
def test_a_successor_in_v_sits_in_no_v_beside_and_the_bound_holds_where_it_can(beside: str) -> None:
    validators = make_validators([1] * 20)
    keys = [item.identity for item in validators]
    here, other = keys[:4], {Role.VALIDATOR: tuple(keys[12:16]), Role.WITNESS: (keys[1], *keys[16:19])}
    neighbours = (other, {}) if beside == "before" else ({}, other)
    for number in range(12):
        found = find_successor(
            validators,
            numbered_seed(number),
            Role.VALIDATOR,
            here[1:],
            size=4,
            threshold=3,
            barred=keys[:12],
            neighbours=neighbours,
            jailed=(),
        )
        # The last of twenty alone is in neither V nor, with keys[1] there already, in W beside.
        assert found is not None
        assert (found.identity, found.bound) == (keys[19], 1)
    relaxed = find_successor(
        validators,
        SEED,
        Role.VALIDATOR,
        here[1:],
        size=4,
        threshold=3,
        barred=keys[:12],
        neighbours=neighbours,
        jailed=[keys[19]],
    )
    assert relaxed is not None
    assert relaxed.identity in keys[16:19]
    assert (relaxed.bound, relaxed.strict_bound) == (2, 1)
