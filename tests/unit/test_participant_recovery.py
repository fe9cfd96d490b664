"""A participant who kept nothing but his identity key has his shares back, and they sign."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smpc.curve import SecretKey
from smpc.errors import NotFound
from smpc.participant.recovery import RecoveredShare, co_signs, recover_shares
from smpc.participant.shares import ShareRing
from smpc.types import EpochNumber, GroupId, Network, Role
from tests.support.groups import make_secret
from tests.support.turning_chain import TurningChain, list_identities, list_secrets


@pytest.fixture(scope="module")
def chain() -> TurningChain:
    started = TurningChain.started()
    started.turn()
    return started


def test_every_member_of_every_group_gets_back_a_share_that_signs(chain: TurningChain) -> None:
    recovered = [share for secret in list_secrets() for share in _recover_or_none(chain, secret)]
    groups = [info for entry in chain.ledger.epochs.values() for info in entry.groups.values()]
    places = {(share.info.group, share.position) for share in recovered}
    assert places == {(info.group, at) for info in groups for at in range(len(info.members))}
    assert all(share.public_share == share.info.public_shares[share.position] for share in recovered)


def test_only_the_epochs_named_are_restored(chain: TurningChain) -> None:
    member = chain.ledger.epochs[EpochNumber(0)].members[Role.WITNESS][2]
    secret = list_secrets()[list_identities().index(member)]
    (share,) = recover_shares(secret, chain.ledger, [EpochNumber(0)])
    assert (share.info.group, share.position) == (GroupId(EpochNumber(0), Role.WITNESS), 2)


def test_a_stranger_has_nothing_to_recover(chain: TurningChain) -> None:
    with pytest.raises(NotFound, match="in no group"):
        recover_shares(make_secret("stranger"), chain.ledger)


def test_a_share_of_another_member_does_not_sign_in_ones_place(chain: TurningChain) -> None:
    info = chain.ledger.epochs[EpochNumber(0)].groups[Role.VALIDATOR]
    held = []
    for member in info.members[:2]:
        ring = ShareRing(list_secrets()[list_identities().index(member)], Network.REGTEST)
        held.append(ring.restore(info.group, info.attempt, info.recovery_data))
    assert all(co_signs(each, Network.REGTEST) for each in held)
    swapped = replace(held[0], share=replace(held[1].share, position=held[0].position))
    assert not co_signs(swapped, Network.REGTEST)


def _recover_or_none(chain: TurningChain, secret: SecretKey) -> tuple[RecoveredShare, ...]:
    try:
        return recover_shares(secret, chain.ledger)
    except NotFound:
        return ()
