"""Evidence of a group's signature: who verifies it offline, against whom, and what never passes for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from smpc.bitcoin.foreign_sighash import compute_foreign_sighash
from smpc.bitcoin.interpreter import verify_input_scripts
from smpc.bitcoin.script import Leaf
from smpc.bitcoin.sighash import compute_tapscript_sighash
from smpc.bitcoin.transaction import TxIn, TxOut, parse_transaction
from smpc.errors import CheckFailed, InvalidInput, Refused
from smpc.protocol.codec import decode_variant, encode_variant
from smpc.protocol.evidence import Evidence, parse_bundle
from smpc.protocol.evidence_anchor import SpendAnchor, find_spend_doubts
from smpc.protocol.evidence_proof import prove_evidence, prove_offence
from smpc.protocol.spend_evidence import OutputOrigin, SpentOutput, UnauthorisedSpend
from smpc.protocol.spend_proof import GroupConviction, prove_spend
from smpc.protocol.spend_sighting import find_shown_evidence, find_spend_evidence
from smpc.types import (
    ChildIndex,
    EpochNumber,
    Network,
    Outpoint,
    PlainKey,
    Role,
    Sats,
    Script,
    Signature,
    Txid,
    XOnlyKey,
)
from tests.support.armed_world import ArmedWorld
from tests.support.evidence_world import report
from tests.support.groups import EPOCH, sign_with_child
from tests.support.thefts import Theft, steal, steal_vault

P2WPKH = b"\x00\x14" + bytes(20)
BOTH = (Role.VALIDATOR, Role.WITNESS)
SIGNED_BY = {
    Leaf.TRANSFER: BOTH,
    Leaf.REJECTION: (Role.WITNESS,),
    Leaf.RECOVERY: (Role.VALIDATOR,),
}


@pytest.fixture(scope="module")
def world() -> ArmedWorld:
    return ArmedWorld.filled(500_000)


def deposit_theft(world: ArmedWorld) -> Theft:
    index = len(world.ledger.invoices)
    outpoint = world.deposit(index, 90_000)
    return steal(world.ledger, world.armed.keyed[EPOCH], outpoint, Sats(90_000), ChildIndex(index))


def vault_theft(world: ArmedWorld, leaf: Leaf = Leaf.TRANSFER) -> Theft:
    return steal_vault(world.ledger, world.armed.keyed[EPOCH], leaf)


def refusal(evidence: UnauthorisedSpend) -> str:
    with pytest.raises(Refused) as refused:
        prove_spend(evidence)
    return refused.value.code


@pytest.mark.parametrize("leaf", SIGNED_BY)
def test_each_leaf_convicts_exactly_the_groups_that_signed_it(world: ArmedWorld, leaf: Leaf) -> None:
    theft = vault_theft(world, leaf)
    found = prove_evidence(theft.accuse(*SIGNED_BY[leaf]))
    assert found == GroupConviction(
        Network.REGTEST, EPOCH, SIGNED_BY[leaf], theft.transaction.txid, theft.outpoint, leaf
    )
    assert found.rests_on


@pytest.mark.parametrize("role", BOTH)
def test_one_signature_alone_convicts_one_group(world: ArmedWorld, role: Role) -> None:
    assert prove_spend(vault_theft(world).accuse(role)).roles == (role,)


def test_a_deposit_is_judged_by_its_own_tree(world: ArmedWorld) -> None:
    theft = deposit_theft(world)
    evidence = theft.accuse(*BOTH)
    assert evidence.output.deposit is not None
    assert prove_spend(evidence).roles == BOTH
    assert refusal(replace(evidence, output=replace(evidence.output, deposit=None))) == "NOT_PROVEN"


@pytest.mark.parametrize("hash_type", [0x00, 0x01, 0x02, 0x03, 0x81, 0x82, 0x83])
@pytest.mark.parametrize("annex", [b"", b"\x50 and more"])
def test_no_hash_type_and_no_annex_hides_who_signed(world: ArmedWorld, hash_type: int, annex: bytes) -> None:
    theft = replace(vault_theft(world), hash_type=hash_type, annex=annex)
    evidence = find_spend_evidence(world.ledger, EPOCH, theft.child, theft.complete(), [theft.prevout], 0)
    assert evidence == theft.accuse(*BOTH)
    assert prove_spend(evidence).roles == BOTH


@pytest.mark.parametrize("hash_type", [0x00, 0x01, 0x02, 0x03, 0x81, 0x82, 0x83])
@pytest.mark.parametrize("annex", [b"", b"\x50 and more"])
@pytest.mark.parametrize("leaf", SIGNED_BY)
def test_bitcoin_takes_every_such_theft(world: ArmedWorld, hash_type: int, annex: bytes, leaf: Leaf) -> None:
    """What the evidence verifies is what Bitcoin Core's own interpreter verifies, and one bit less is neither."""
    theft = replace(vault_theft(world, leaf), hash_type=hash_type, annex=annex)
    verify_input_scripts(theft.complete(), [theft.prevout])
    assert prove_spend(theft.accuse(*SIGNED_BY[leaf])).leaf is leaf
    other = replace(theft, unsigned=replace(theft.transaction, locktime=1)).transaction
    moved = other.with_witnesses([theft.complete().inputs[0].witness])
    with pytest.raises(CheckFailed):
        verify_input_scripts(moved, [theft.prevout])
    with pytest.raises(Refused):
        find_spend_evidence(world.ledger, EPOCH, theft.child, moved, [theft.prevout], 0)


def test_a_script_sig_that_no_digest_commits_to_makes_no_other_transaction(world: ArmedWorld) -> None:
    """Anyone can add one to what the groups signed rightly: the same signatures, another txid."""
    evidence = vault_theft(world).accuse(*BOTH)
    signed = parse_transaction(evidence.transaction)
    changed = replace(signed, inputs=(replace(signed.inputs[0], script_sig=b"\x51"),))
    assert changed.txid != signed.txid
    assert refusal(replace(evidence, transaction=changed.to_bytes())) == "NOT_PROVEN"


@pytest.mark.parametrize(("script", "refused"), [(b"\x76\xa9\x14" + bytes(20) + b"\x88\xac", False), (P2WPKH, True)])
def test_a_thief_s_own_input_has_a_script_sig_only_where_bitcoin_takes_one(
    world: ArmedWorld, script: bytes, refused: bool
) -> None:
    theft, own = vault_theft(world), TxOut(Sats(5_000), Script(script))
    spent = (theft.transaction.inputs[0], TxIn(Outpoint(Txid(bytes(32)), 0), 0, b"\x51"))
    unsigned = replace(theft.transaction, inputs=spent)
    digest = compute_foreign_sighash(unsigned, [theft.prevout, own], 0, theft.tree.leaf(Leaf.TRANSFER), 0)
    signature = sign_with_child(world.armed.keyed[EPOCH].groups[Role.VALIDATOR], theft.child, digest)
    evidence = replace(
        theft.accuse(),
        transaction=unsigned.to_bytes(),
        prevouts=tuple(SpentOutput(item.value, item.script) for item in (theft.prevout, own)),
        validator_signature=signature,
    )
    if refused:
        assert refusal(evidence) == "NOT_PROVEN"
    else:
        assert prove_spend(evidence).roles == (Role.VALIDATOR,)


def test_the_default_digest_is_the_one_that_we_sign(world: ArmedWorld) -> None:
    theft = vault_theft(world)
    leaf = theft.tree.leaf(Leaf.TRANSFER)
    own = compute_tapscript_sighash(theft.transaction, [theft.prevout], 0, leaf)
    assert compute_foreign_sighash(theft.transaction, [theft.prevout], 0, leaf, 0) == own
    for wrong in (0x04, 0x80, 0xFF):
        with pytest.raises(InvalidInput):
            compute_foreign_sighash(theft.transaction, [theft.prevout], 0, leaf, wrong)


@pytest.mark.parametrize("suffix", [b"\x00", b"\x04", b"\x80", b"\x01\x01"])
def test_a_signature_of_another_length_or_type_is_none(world: ArmedWorld, suffix: bytes) -> None:
    evidence = vault_theft(world).accuse(*BOTH)
    assert refusal(replace(evidence, validator_signature=evidence.validator_signature + suffix)) == "BAD_SIGNATURE"


def test_what_shows_no_signature_or_one_that_the_leaf_does_not_ask_for_proves_nothing(world: ArmedWorld) -> None:
    assert refusal(vault_theft(world).accuse()) == "NOT_PROVEN"
    rejection = vault_theft(world, Leaf.REJECTION).accuse(Role.WITNESS)
    assert refusal(replace(rejection, validator_signature=rejection.witness_signature)) == "NOT_PROVEN"
    recovery = vault_theft(world, Leaf.RECOVERY).accuse(Role.VALIDATOR)
    assert refusal(replace(recovery, witness_signature=recovery.validator_signature)) == "NOT_PROVEN"
    for leaf in (Leaf.MARKER, Leaf.REFUND):
        assert refusal(replace(rejection, leaf=leaf)) == "NOT_PROVEN"


def test_two_groups_of_another_epoch_are_not_convicted_by_exchanged_keys(world: ArmedWorld) -> None:
    evidence = vault_theft(world).accuse(*BOTH)
    output = evidence.output
    swapped = replace(output, validator=output.witness, witness=output.validator)
    assert refusal(replace(evidence, output=swapped)) == "NOT_PROVEN"


def test_a_refund_accuses_nobody_and_a_wrong_signature_is_refused(world: ArmedWorld) -> None:
    theft = deposit_theft(world)
    tree = theft.tree
    refund = theft.transaction.with_witnesses([(bytes(64), tree.leaf(Leaf.REFUND), tree.control_block(Leaf.REFUND))])
    assert find_spend_evidence(world.ledger, EPOCH, theft.child, refund, [theft.prevout], 0) is None
    bare = theft.transaction
    assert find_spend_evidence(world.ledger, EPOCH, theft.child, bare, [theft.prevout], 0) is None
    stack = theft.complete().inputs[0].witness
    forged = theft.transaction.with_witnesses([(stack[1], stack[0], *stack[2:])])
    with pytest.raises(Refused):
        find_spend_evidence(world.ledger, EPOCH, theft.child, forged, [theft.prevout], 0)


def test_what_is_shown_to_w_convicts_v_alone(world: ArmedWorld) -> None:
    built = world.transfer(world.deposit(len(world.ledger.invoices), 200_000))
    signatures = world.sign(built, Role.VALIDATOR)
    raw = built.transaction.to_bytes()
    evidence = find_shown_evidence(world.ledger, built.intent, raw, signatures)
    assert evidence is not None
    found = prove_spend(evidence)
    assert (found.roles, found.txid) == ((Role.VALIDATOR,), built.intent.txid)
    forged = tuple(Signature(bytes(64)) for _ in signatures)
    for shown in (forged, signatures[:-1], (*signatures, *forged)):
        assert find_shown_evidence(world.ledger, built.intent, raw, shown) is None
    assert find_shown_evidence(world.ledger, built.intent, raw[:-1], signatures) is None


@pytest.mark.parametrize("leaf", SIGNED_BY)
def test_every_changed_field_is_refused_or_another_verdict(world: ArmedWorld, leaf: Leaf) -> None:
    true = vault_theft(world, leaf).accuse(*SIGNED_BY[leaf])
    verdict, count = prove_spend(true), 0
    for path, changed in mutate(true):
        try:
            found = prove_spend(changed)
        except Refused:
            found = None
        assert found != verdict, path
        assert found is None or path in {"output.epoch", "validator_signature empty", "witness_signature empty"}, path
        count += 1
    assert count > 25


def mutate(true: UnauthorisedSpend) -> Iterator[tuple[str, UnauthorisedSpend]]:
    for at in range(len(true.transaction)):
        data = bytearray(true.transaction)
        data[at] ^= 1
        yield f"transaction byte {at}", replace(true, transaction=bytes(data))
    yield "transaction longer", replace(true, transaction=true.transaction + b"\x00")
    first = true.prevouts[0]
    for name, prevouts in {
        "prevout value": (replace(first, value=Sats(first.value + 1)),),
        "prevout script": (replace(first, script=Script(first.script[:-1] + bytes([first.script[-1] ^ 1]))),),
        "no prevout": (),
        "one prevout more": (first, first),
    }.items():
        yield name, replace(true, prevouts=prevouts)
    yield "network", replace(true, network=Network.MAINNET)
    yield "network without preset", replace(true, network=Network.SIGNET)
    yield "position", replace(true, position=1)
    for leaf in set(Leaf) - {true.leaf}:
        yield f"leaf {leaf}", replace(true, leaf=leaf)
    for name, changed in mutate_output(true.output):
        yield f"output.{name}", replace(true, output=changed)
    for name in ("validator_signature", "witness_signature"):
        signature: bytes = getattr(true, name)
        if signature:
            other: dict[str, Any] = {name: signature[:-1] + bytes([signature[-1] ^ 1])}
            yield name, replace(true, **other)
            yield f"{name} longer", replace(true, **{name: signature + b"\x01"})  # type: ignore[arg-type]
            if true.validator_signature and true.witness_signature:
                yield f"{name} empty", replace(true, **{name: b""})  # type: ignore[arg-type]
    for annex in (b"\x50", b"\x00"):
        yield "annex", replace(true, annex=annex)


def mutate_output(output: OutputOrigin) -> Iterator[tuple[str, OutputOrigin]]:
    yield "epoch", replace(output, epoch=EpochNumber(output.epoch + 1))
    for child in (output.child + 1, 0, 0x20000000, 2**31):
        yield f"child {child}", replace(output, child=ChildIndex(child))
    for name in ("validator", "witness", "emergency"):
        key: bytes = getattr(output, name)
        for text, other in ((name, bytes([key[0] ^ 1]) + key[1:]), (f"{name} is none", bytes(33))):
            changed: dict[str, Any] = {name: PlainKey(other)}
            yield text, replace(output, **changed)
    yield "hash", replace(output, release_hash=bytes(32))
    yield "short hash", replace(output, release_hash=b"")


def test_the_file_reads_back_and_has_the_same_verdict(world: ArmedWorld) -> None:
    evidence: Evidence = vault_theft(world).accuse(*BOTH)
    bundle = report(evidence)
    again = parse_bundle(bundle.serialise())
    assert again == bundle
    assert prove_offence(again) == prove_evidence(evidence)
    assert decode_variant(Evidence, encode_variant(evidence)) == evidence


def test_a_node_that_knows_the_epoch_verifies_and_another_says_what_it_misses(world: ArmedWorld) -> None:
    evidence = vault_theft(world).accuse(*BOTH)
    entry = world.ledger.epochs[EPOCH]
    groups = entry.groups
    keys = tuple(groups[role].group_key for role in Role)
    anchor = SpendAnchor(Network.REGTEST, (keys[0], keys[1], keys[2]), entry.preimage_hash)
    assert find_spend_doubts(evidence, anchor) == ()
    for strange in (
        replace(anchor, network=Network.MAINNET),
        replace(anchor, group_keys=None),
        replace(anchor, group_keys=(keys[1], keys[0], keys[2])),
        replace(anchor, release_hash=b""),
        replace(anchor, doubt="I do not know"),
    ):
        assert len(find_spend_doubts(evidence, strange)) == 1


def test_another_users_terms_are_another_output(world: ArmedWorld) -> None:
    evidence = deposit_theft(world).accuse(*BOTH)
    deposit = evidence.output.deposit
    assert deposit is not None
    for changed in (
        replace(deposit, terms_hash=type(deposit.terms_hash)(bytes(32))),
        replace(deposit, refund_key=XOnlyKey(evidence.output.emergency[1:])),
        replace(deposit, refund_key=XOnlyKey(bytes(32))),
    ):
        assert refusal(replace(evidence, output=replace(evidence.output, deposit=changed))) == "NOT_PROVEN"


def test_a_single_output_type_without_its_output_signs_nothing(world: ArmedWorld) -> None:
    theft = vault_theft(world)
    two = replace(
        theft.transaction,
        inputs=(theft.transaction.inputs[0], replace(theft.transaction.inputs[0], sequence=9)),
    )
    prevouts = [theft.prevout, TxOut(Sats(1), theft.prevout.script)]
    with pytest.raises(InvalidInput):
        compute_foreign_sighash(two, prevouts, 1, theft.tree.leaf(Leaf.TRANSFER), 0x03)
    with pytest.raises(InvalidInput):
        compute_foreign_sighash(two, prevouts[:1], 0, theft.tree.leaf(Leaf.TRANSFER), 0)
