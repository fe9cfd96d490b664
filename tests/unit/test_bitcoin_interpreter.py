"""Bitcoin Core's interpreter as a gate: lets right spends pass and names the input that is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smpc.bitcoin.fees import assemble_witness
from smpc.bitcoin.interpreter import is_interpreter_available, verify_input_scripts
from smpc.bitcoin.script import Leaf
from smpc.bitcoin.sighash import precompute_sighash
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.errors import CheckFailed, InvalidInput
from smpc.types import Outpoint, Sats, Script, Txid
from tests.support.leaf_signers import LOCKS, LeafSigners

SIGNERS = LeafSigners("interpreter")
TREE = SIGNERS.vault()
PREVOUTS = [TxOut(Sats(10_000 + place), TREE.script) for place in range(3)]


def _sign(count: int = 3) -> Transaction:
    inputs = tuple(TxIn(Outpoint(Txid(bytes(32)), place), LOCKS.transfer) for place in range(count))
    unsigned = Transaction(2, inputs, (TxOut(Sats(29_000), Script(b"\x51")),), 0)
    context = precompute_sighash(unsigned, PREVOUTS)
    leaf, block = TREE.leaf(Leaf.TRANSFER), TREE.control_block(Leaf.TRANSFER)
    digests = [context.compute(index, leaf) for index in range(count)]
    stacks = [[SIGNERS.sign(name, digest) for name in ("v", "w")] for digest in digests]
    return unsigned.with_witnesses([assemble_witness(leaf, block, stack) for stack in stacks])


def test_the_interpreter_is_there_on_this_machine() -> None:
    assert is_interpreter_available()


def test_a_right_transaction_passes() -> None:
    verify_input_scripts(_sign(), PREVOUTS)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_names_the_input_whose_signature_is_wrong(index: int) -> None:
    signed = _sign()
    stacks = [list(txin.witness) for txin in signed.inputs]
    stacks[index][0] = bytes(64)
    with pytest.raises(CheckFailed, match=f"input {index} "):
        verify_input_scripts(signed.with_witnesses(map(tuple, stacks)), PREVOUTS)


def test_a_wrong_amount_or_script_of_one_spent_output_fails_every_input() -> None:
    for wrong in (replace(PREVOUTS[2], value=Sats(1)), replace(PREVOUTS[2], script=SIGNERS.invoice().script)):
        with pytest.raises(CheckFailed, match="input 0 "):
            verify_input_scripts(_sign(), [*PREVOUTS[:2], wrong])


def test_a_sequence_below_the_lock_fails() -> None:
    signed = _sign()
    early = replace(signed, inputs=tuple(replace(txin, sequence=LOCKS.transfer - 1) for txin in signed.inputs))
    with pytest.raises(CheckFailed, match="input 0 "):
        verify_input_scripts(early, PREVOUTS)


def test_every_input_needs_the_output_it_spends() -> None:
    with pytest.raises(InvalidInput, match="as many"):
        verify_input_scripts(_sign(), PREVOUTS[:2])


def test_what_the_library_cannot_read_is_refused_with_our_own_error() -> None:
    with pytest.raises(InvalidInput, match="cannot read"):
        verify_input_scripts(Transaction(2, (), (TxOut(Sats(1), Script(b"")),), 0), [])
    anyone = [TxOut(Sats(1), Script(b""))]
    spend = Transaction(2, (TxIn(Outpoint(Txid(bytes(32)), 0), 1),), (TxOut(Sats(1), Script(b"")),), 0)
    with pytest.raises(CheckFailed, match="input 0 "):
        verify_input_scripts(spend, anyone)
