"""No change of true evidence against a group leaves its verdict, and nothing but our own errors ever comes out."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smpc.bitcoin.script import Leaf
from smpc.bitcoin.transaction import Transaction, TxOut
from smpc.errors import InvalidInput, Refused
from smpc.protocol.evidence import parse_bundle
from smpc.protocol.evidence_proof import prove_offence
from smpc.protocol.spend_evidence import SIGNERS, UnauthorisedSpend
from smpc.protocol.spend_proof import prove_spend
from smpc.types import Role, Sats, Script
from tests.support.armed_world import ArmedWorld
from tests.support.evidence_world import report
from tests.support.groups import EPOCH
from tests.support.thefts import Theft, steal_vault

JUDGED: Final = {Role.VALIDATOR, Role.WITNESS}
MANY = settings(max_examples=300, deadline=None)


@pytest.fixture(scope="module")
def world() -> ArmedWorld:
    return ArmedWorld.filled(500_000)


def draw_theft(world: ArmedWorld, data: st.DataObject) -> tuple[Theft, UnauthorisedSpend]:
    """Return a theft by any leaf, hash type and annex, to anybody, and evidence against some who signed it."""
    leaf = data.draw(st.sampled_from(sorted(SIGNERS)))
    theft = steal_vault(world.ledger, world.armed.keyed[EPOCH], Leaf(leaf))
    theft = replace(
        theft,
        hash_type=data.draw(st.sampled_from((0x00, 0x01, 0x02, 0x03, 0x81, 0x82, 0x83))),
        annex=data.draw(st.one_of(st.just(b""), st.binary(max_size=40).map(lambda rest: b"\x50" + rest))),
    )
    outputs = data.draw(
        st.lists(
            st.builds(TxOut, st.integers(0, 10**12).map(Sats), st.binary(max_size=60).map(Script)),
            min_size=1,
            max_size=4,
        )
    )
    theft = theft.pay(*outputs)
    able = [role for role in SIGNERS[theft.leaf] if role in JUDGED]
    roles = data.draw(st.lists(st.sampled_from(able), min_size=1, unique=True))
    return theft, theft.accuse(*roles)


@given(data=st.data())
@MANY
def test_every_theft_is_proven_against_exactly_those_whose_signature_is_shown(
    world: ArmedWorld, data: st.DataObject
) -> None:
    theft, evidence = draw_theft(world, data)
    shown = {Role.VALIDATOR: evidence.validator_signature, Role.WITNESS: evidence.witness_signature}
    found = prove_spend(evidence)
    assert found.roles == tuple(role for role, signature in shown.items() if signature)
    assert (found.txid, found.outpoint, found.epoch) == (theft.transaction.txid, theft.outpoint, EPOCH)


@given(data=st.data())
@MANY
def test_no_changed_byte_of_a_file_leaves_a_verdict(world: ArmedWorld, data: st.DataObject) -> None:
    _, evidence = draw_theft(world, data)
    true = report(evidence).serialise()
    content = bytearray(true)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
    if bytes(content) == true:
        return
    with pytest.raises((Refused, InvalidInput)):
        pytest.fail(str(prove_offence(parse_bundle(bytes(content)))))


@given(data=st.data())
@MANY
def test_a_default_signature_proves_one_transaction_only(world: ArmedWorld, data: st.DataObject) -> None:
    """Whatever a liar puts beside an honest signature, it convicts nobody of another transaction."""
    theft = steal_vault(world.ledger, world.armed.keyed[EPOCH])
    honest = theft.accuse(Role.VALIDATOR, Role.WITNESS)
    other = Transaction(
        data.draw(st.integers(0, 3)),
        theft.transaction.inputs,
        (
            *theft.transaction.outputs[: data.draw(st.integers(0, 1))],
            TxOut(Sats(data.draw(st.integers(0, 10**9))), Script(b"\x51")),
        ),
        data.draw(st.integers(0, 3)),
    )
    forged = replace(honest, transaction=other.to_bytes(include_witness=False))
    if other == theft.transaction:
        return
    with pytest.raises(Refused):
        pytest.fail(str(prove_spend(forged)))
