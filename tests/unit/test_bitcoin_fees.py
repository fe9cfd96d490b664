"""Fees, sizes, dust and relay limits: exact before anything is signed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smpc.bitcoin.fees import (
    INVOICE_REFUND,
    INVOICE_REJECTION,
    INVOICE_TRANSFER,
    MAX_STANDARD_WEIGHT,
    VAULT_RECOVERY,
    VAULT_REJECTION,
    VAULT_TRANSFER,
    InputKind,
    assemble_witness,
    compute_dust_limit,
    compute_fee,
    compute_fee_rate,
    compute_spend_vbytes,
    compute_spend_weight,
    compute_witness_bytes,
    find_nonstandard_reason,
)
from smpc.bitcoin.script import PAY_TO_ANCHOR, Leaf, build_op_return
from smpc.bitcoin.taproot import InvoiceTree, Timelocks, VaultTree
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut, to_witness_bytes
from smpc.errors import InvalidInput
from smpc.params import MAINNET
from smpc.types import FeeRate, Outpoint, Sats, Script, Signature, Txid, Vbytes
from tests.support.leaf_signers import LOCKS, SIGNERS_OF, LeafSigners

SIGNERS = LeafSigners("fees")
SIGNATURE = Signature(bytes(64))
P2WPKH = Script(b"\x00\x14" + bytes(20))
P2TR = Script(b"\x51\x20" + bytes(32))
P2PKH = Script(b"\x76\xa9\x14" + bytes(20) + b"\x88\xac")
P2SH = Script(b"\xa9\x14" + bytes(20) + b"\x87")
P2WSH = Script(b"\x00\x20" + bytes(32))

KINDS = [
    ("invoice", INVOICE_REFUND),
    ("invoice", INVOICE_TRANSFER),
    ("invoice", INVOICE_REJECTION),
    ("vault", VAULT_TRANSFER),
    ("vault", VAULT_REJECTION),
    ("vault", VAULT_RECOVERY),
]


def _witness(tree: InvoiceTree | VaultTree, leaf: Leaf) -> tuple[bytes, ...]:
    preimage = SIGNERS.preimage if leaf is Leaf.REJECTION else None
    return assemble_witness(tree.leaf(leaf), tree.control_block(leaf), [SIGNATURE] * len(SIGNERS_OF[leaf]), preimage)


@pytest.mark.parametrize(("tree_name", "kind"), KINDS, ids=[f"{tree}-{kind.leaf}" for tree, kind in KINDS])
@pytest.mark.parametrize("locks", [LOCKS, Timelocks.from_params(MAINNET), Timelocks(17, 200, 40_000, 65_535)])
def test_the_size_computed_from_shapes_is_the_size_of_the_signed_transaction(
    tree_name: str, kind: InputKind, locks: Timelocks
) -> None:
    tree = SIGNERS.invoice(locks) if tree_name == "invoice" else SIGNERS.vault(locks)
    witness = _witness(tree, kind.leaf)
    assert compute_witness_bytes(kind, locks) == len(to_witness_bytes(witness))
    for inputs, outputs in ((1, 1), (2, 3), (252, 1), (253, 1), (1, 253)):
        txins = tuple(TxIn(Outpoint(Txid(bytes(32)), place), 1, witness=witness) for place in range(inputs))
        signed = Transaction(2, txins, (TxOut(Sats(1), P2TR),) * outputs, 0)
        assert compute_spend_weight([kind] * inputs, [P2TR] * outputs, locks) == signed.weight
        assert compute_spend_vbytes([kind] * inputs, [P2TR] * outputs, locks) == signed.vsize


def test_inputs_of_different_kinds_add_up_whatever_their_order() -> None:
    kinds = [VAULT_TRANSFER, VAULT_RECOVERY, VAULT_TRANSFER]
    weight = compute_spend_weight(kinds, [P2TR, P2PKH], LOCKS)
    assert weight == compute_spend_weight(kinds[::-1], [P2TR, P2PKH], LOCKS)
    assert weight - compute_spend_weight(kinds[:-1], [P2TR, P2PKH], LOCKS) == 164 + compute_witness_bytes(
        VAULT_TRANSFER, LOCKS
    )


def test_the_marker_has_no_size_because_nobody_spends_it() -> None:
    with pytest.raises(InvalidInput, match="nobody can spend"):
        compute_witness_bytes(InputKind(Leaf.MARKER, 3), LOCKS)


def test_500_inputs_stay_below_the_relay_limit() -> None:
    assert compute_spend_weight([INVOICE_TRANSFER] * 500, [P2TR] * 100, LOCKS) <= MAX_STANDARD_WEIGHT


@pytest.mark.parametrize(
    ("rate", "vbytes", "fee"),
    [(1000, 141, 141), (1001, 141, 142), (2000, 1, 2), (999, 1, 1), (0, 100, 0), (1, 1000, 1)],
)
def test_a_fee_is_rounded_up_to_the_next_satoshi(rate: int, vbytes: int, fee: int) -> None:
    assert compute_fee(FeeRate(rate), Vbytes(vbytes)) == fee
    assert compute_fee_rate(Sats(fee), Vbytes(vbytes)) >= rate


def test_a_rate_is_rounded_down_so_that_it_was_truly_paid() -> None:
    assert compute_fee_rate(Sats(142), Vbytes(141)) == 1007


@pytest.mark.parametrize(
    ("script", "limit"),
    [
        (P2PKH, 546),
        (P2SH, 540),
        (P2WPKH, 294),
        (P2WSH, 330),
        (P2TR, 330),
        (PAY_TO_ANCHOR, 240),
        (build_op_return(b"ab"), 0),
    ],
)
def test_dust_limits_are_those_of_the_default_policy(script: Script, limit: int) -> None:
    assert compute_dust_limit(script) == limit


def test_the_stack_is_consumed_from_the_top_preimage_first_then_the_first_key() -> None:
    tree = SIGNERS.vault()
    first, second = Signature(b"\x01" * 64), Signature(b"\x02" * 64)
    leaf, block = tree.leaf(Leaf.TRANSFER), tree.control_block(Leaf.TRANSFER)
    assert assemble_witness(leaf, block, [first, second]) == (second, first, leaf, block)
    leaf, block = tree.leaf(Leaf.REJECTION), tree.control_block(Leaf.REJECTION)
    stack = assemble_witness(leaf, block, [first, second], SIGNERS.preimage)
    assert stack == (second, first, SIGNERS.preimage, leaf, block)
    refund = SIGNERS.invoice().leaf(Leaf.REFUND)
    assert assemble_witness(refund, block, [first]) == (first, refund, block)


@pytest.mark.parametrize(
    ("leaf", "signatures", "preimage"),
    [
        (Leaf.TRANSFER, [SIGNATURE], None),
        (Leaf.TRANSFER, [SIGNATURE] * 3, None),
        (Leaf.TRANSFER, [SIGNATURE, Signature(bytes(65))], None),
        (Leaf.TRANSFER, [SIGNATURE] * 2, bytes(32)),
        (Leaf.REJECTION, [SIGNATURE] * 2, None),
        (Leaf.REJECTION, [SIGNATURE] * 2, bytes(31)),
    ],
)
def test_no_witness_is_assembled_from_too_few_too_many_or_wrong_items(
    leaf: Leaf, signatures: list[Signature], preimage: bytes | None
) -> None:
    tree = SIGNERS.vault()
    with pytest.raises(InvalidInput):
        assemble_witness(tree.leaf(leaf), tree.control_block(leaf), signatures, preimage)


def test_no_witness_is_assembled_for_a_foreign_script_or_the_marker() -> None:
    for script in (b"\x51", SIGNERS.invoice().leaf(Leaf.MARKER)):
        with pytest.raises(InvalidInput, match="no spendable leaf"):
            assemble_witness(script, b"", [SIGNATURE])


STANDARD = Transaction(2, (TxIn(Outpoint(Txid(bytes(32)), 0), 3),), (TxOut(Sats(330), P2TR),), 0)


def _paying(*outputs: tuple[int, Script]) -> Transaction:
    return replace(STANDARD, outputs=tuple(TxOut(Sats(value), script) for value, script in outputs))


@pytest.mark.parametrize(
    ("transaction", "reason"),
    [
        (STANDARD, None),
        (_paying((329, P2TR)), "dust limit of 330"),
        (_paying((294, P2WPKH)), None),
        (_paying((293, P2WPKH)), "dust limit of 294"),
        (_paying((240, PAY_TO_ANCHOR), (330, P2TR)), None),
        (_paying((239, PAY_TO_ANCHOR)), "dust limit of 240"),
        (_paying((0, build_op_return(bytes(80)))), None),
        (_paying((0, build_op_return(b"ab")), (0, build_op_return(b"cd"))), "more than one OP_RETURN"),
        (_paying((1000, Script(b"\x51"))), "no standard script"),
        (replace(STANDARD, version=0), "version 0"),
        (replace(STANDARD, version=4), "version 4"),
        (replace(STANDARD, version=3), None),
        (replace(STANDARD, version=3, outputs=STANDARD.outputs * 300), "10000 are relayed"),
        (replace(STANDARD, outputs=STANDARD.outputs * 2325), "above 400000"),
        (replace(STANDARD, outputs=STANDARD.outputs * 2324), None),
    ],
)
def test_names_why_a_transaction_would_not_be_relayed(transaction: Transaction, reason: str | None) -> None:
    found = find_nonstandard_reason(transaction)
    assert found is None if reason is None else reason in str(found)
