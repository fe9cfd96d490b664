"""PSBTs: what we write is read back the same, hostile bytes are refused at once, and signing ends in a transaction."""

from __future__ import annotations

import base64
import time
import tracemalloc
from dataclasses import replace

import pytest

from smpc.bitcoin.interpreter import verify_input_scripts
from smpc.bitcoin.key_origin import KeyOrigin, UserKey
from smpc.bitcoin.psbt import LeafSpend, Psbt, PsbtInput, build_psbt, finalise_psbt, parse_psbt
from smpc.bitcoin.psbt_maps import InputField, PsbtMaps, parse_maps
from smpc.bitcoin.reader import to_compact_size, to_var_bytes
from smpc.bitcoin.script import NUMS_KEY, Leaf
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.bitcoin.user_psbt import RefundableDeposit, build_funding_template, build_refund_psbt
from smpc.errors import CheckFailed, InvalidInput
from smpc.types import FeeRate, Outpoint, Sats, Script, Signature, Txid
from tests.support.leaf_signers import LOCKS, SIGNERS_OF, LeafSigners

SIGNERS = LeafSigners("psbt")
INVOICE, VAULT = SIGNERS.invoice(), SIGNERS.vault()
ORIGIN = KeyOrigin(bytes.fromhex("d34db33f"), (86 | 1 << 31, 0, 5))
USER = UserKey(SIGNERS.key("user"), ORIGIN)
P2WPKH = Script(b"\x00\x14" + bytes(20))


def _spend(leaf: Leaf = Leaf.TRANSFER, count: int = 2) -> Psbt:
    sequence = {Leaf.TRANSFER: LOCKS.transfer, Leaf.REJECTION: LOCKS.emergency, Leaf.RECOVERY: LOCKS.recovery}[leaf]
    inputs = tuple(TxIn(Outpoint(Txid((place + 1).to_bytes(32, "big")), place), sequence) for place in range(count))
    prevouts = [TxOut(Sats(10_000 + place), VAULT.script) for place in range(count)]
    unsigned = Transaction(2, inputs, (TxOut(Sats(9_000), P2WPKH),), 0)
    spend = LeafSpend.from_tree(VAULT.tree, leaf)
    return build_psbt(unsigned, [PsbtInput(prevout, spend, ((SIGNERS.key("v"), ORIGIN),)) for prevout in prevouts])


def _sign(psbt: Psbt, leaf: Leaf = Leaf.TRANSFER) -> Psbt:
    for index in range(len(psbt.inputs)):
        digest = psbt.compute_digest(index)
        for name in SIGNERS_OF[leaf]:
            psbt = psbt.add_signature(index, SIGNERS.key(name), SIGNERS.sign(name, digest))
    return psbt


@pytest.mark.parametrize("leaf", [Leaf.TRANSFER, Leaf.REJECTION, Leaf.RECOVERY])
def test_signed_by_the_right_keys_it_ends_in_a_transaction_that_spends(leaf: Leaf) -> None:
    signed = finalise_psbt(_sign(_spend(leaf), leaf), SIGNERS.preimage)
    verify_input_scripts(signed, _spend(leaf).prevouts)


@pytest.mark.parametrize("psbt", [_spend(), _sign(_spend())], ids=["unsigned", "signed"])
def test_what_is_written_is_read_back_the_same_in_both_forms(psbt: Psbt) -> None:
    assert parse_psbt(psbt.to_bytes()) == psbt
    assert parse_psbt(psbt.to_base64()) == psbt
    assert parse_psbt(psbt.to_bytes()).to_bytes() == psbt.to_bytes()


def test_a_missing_signature_is_named() -> None:
    psbt = _spend()
    psbt = psbt.add_signature(0, SIGNERS.key("v"), SIGNERS.sign("v", psbt.compute_digest(0)))
    with pytest.raises(CheckFailed, match=f"input 0 has no valid signature of {SIGNERS.key('w').hex()}"):
        finalise_psbt(psbt)


def test_a_wrong_signature_is_neither_added_nor_finalised() -> None:
    psbt = _sign(_spend())
    for_other_input = psbt.inputs[1].signatures[0]
    with pytest.raises(CheckFailed, match="does not verify"):
        psbt.add_signature(0, *for_other_input)
    forged = replace(psbt.inputs[0], signatures=psbt.inputs[1].signatures)
    with pytest.raises(CheckFailed, match="input 0"):
        finalise_psbt(replace(psbt, inputs=(forged, psbt.inputs[1])))


def test_a_rejection_is_not_finalised_without_its_preimage() -> None:
    psbt = _sign(_spend(Leaf.REJECTION), Leaf.REJECTION)
    with pytest.raises(InvalidInput, match="preimage"):
        finalise_psbt(psbt)


def test_a_finalised_psbt_is_extracted_as_it_is() -> None:
    psbt = _sign(_spend(count=1))
    done = finalise_psbt(psbt)
    maps = parse_maps(psbt.to_bytes())
    witness = to_compact_size(4) + b"".join(map(to_var_bytes, done.inputs[0].witness))
    final = {b"\x01": psbt.inputs[0].prevout.to_bytes(), b"\x08": witness}
    assert finalise_psbt(parse_psbt(replace(maps, inputs=(final,)).to_bytes())) == done


@pytest.mark.parametrize("version", [1, 2, 3])
def test_version_locktime_and_sequences_survive_the_format_library(version: int) -> None:
    psbt = _spend()
    odd = replace(psbt.transaction, version=version, locktime=0xFFFFFFFF)
    for sequence in (1, 0xFFFF, 0xFFFFFFFD, 0xFFFFFFFF):
        inputs = tuple(replace(txin, sequence=sequence) for txin in odd.inputs)
        again = parse_psbt(build_psbt(replace(odd, inputs=inputs), psbt.inputs).to_bytes())
        assert again.transaction == replace(odd, inputs=inputs)


def test_a_sequence_of_zero_is_refused_because_the_format_library_would_write_another() -> None:
    psbt = _spend()
    immediate = replace(psbt.transaction.inputs[0], sequence=0)
    with pytest.raises(InvalidInput, match="sequence 0"):
        build_psbt(replace(psbt.transaction, inputs=(immediate, psbt.transaction.inputs[1])), psbt.inputs)
    with pytest.raises(InvalidInput, match="alters"):
        replace(psbt, transaction=replace(psbt.transaction, inputs=(immediate, psbt.transaction.inputs[1]))).to_bytes()


def test_two_psbts_built_one_after_the_other_share_nothing() -> None:
    first = _sign(_spend()).to_bytes()
    _spend(Leaf.REJECTION).to_bytes()
    assert _sign(_spend()).to_bytes() == first


def test_a_psbt_is_not_built_from_signed_or_mismatched_parts() -> None:
    psbt = _spend()
    with pytest.raises(InvalidInput, match="unsigned"):
        build_psbt(psbt.transaction.with_witnesses([(b"x",), ()]), psbt.inputs)
    with pytest.raises(InvalidInput, match="described"):
        build_psbt(psbt.transaction, psbt.inputs[:1])
    with pytest.raises(InvalidInput, match="described"):
        build_psbt(replace(psbt.transaction, inputs=()), ())


# ---------------------------------------------------------------- hostile bytes

RAW = _sign(_spend(count=1)).to_bytes()
MAPS = parse_maps(RAW)
INPUT_MAP = dict(MAPS.inputs[0])


def _claim_inputs(count: int) -> bytes:
    fields = ((b"\xfb", (2).to_bytes(4, "little")), (b"\x04", to_compact_size(count)), (b"\x05", b"\x00"))
    return b"psbt\xff" + b"".join(to_var_bytes(key) + to_var_bytes(value) for key, value in fields) + b"\x00"


def _with_field(key: bytes, value: bytes, *, drop: bytes = b"") -> bytes:
    fields = {k: v for k, v in INPUT_MAP.items() if k != drop}
    return replace(MAPS, inputs=({**fields, key: value},)).to_bytes()


def _with_twice(key_type: int) -> bytes:
    key, value = next((k, v) for k, v in INPUT_MAP.items() if k[0] == key_type)
    pair = to_var_bytes(key) + to_var_bytes(value)
    assert RAW.count(pair) == 1
    return RAW.replace(pair, pair + pair)


def _with_unsigned(raw: bytes) -> bytes:
    return b"psbt\xff" + b"\x01\x00" + to_var_bytes(raw) + b"\x00" * 3


UNSIGNED = MAPS.transaction.to_bytes()
CONTROL_BLOCK = VAULT.control_block(Leaf.TRANSFER)
WITH_SCRIPT_SIG = TxIn(Outpoint(Txid(bytes(32)), 0), 1, b"x")
SIGNATURE_KEY = next(key for key in INPUT_MAP if key[0] == InputField.TAP_SCRIPT_SIG)
LEAF_KEY = b"\x15" + CONTROL_BLOCK

HOSTILE = {
    **{f"version 2 claiming {count} inputs": _claim_inputs(count) for count in (10**4, 10**6, 10**9)},
    "nothing": b"",
    "magic only": b"psbt\xff",
    "other magic": b"psbs\xff" + RAW[5:],
    "no unsigned transaction": b"psbt\xff\x00",
    "a trailing byte": RAW + b"\x00",
    "a missing byte": RAW[:-1],
    "explicit version 0": b"psbt\xff\x01\xfb\x04" + bytes(4) + RAW[5:],
    "a key length longer than needed": RAW.replace(b"psbt\xff\x01\x00", b"psbt\xff\xfd\x01\x00\x00"),
    "a value length longer than needed": _with_unsigned(UNSIGNED)[:7] + b"\xfd" + bytes((len(UNSIGNED), 0)) + UNSIGNED,
    "an endless key": b"psbt\xff\xff" + b"\xff" * 8,
    "an endless value": b"psbt\xff\x01\x00\xfe\xff\xff\xff\xff",
    "the internal key twice": _with_twice(InputField.TAP_INTERNAL_KEY),
    "the merkle root twice": _with_twice(InputField.TAP_MERKLE_ROOT),
    "a signature twice": _with_twice(InputField.TAP_SCRIPT_SIG),
    "a leaf twice": _with_twice(InputField.TAP_LEAF_SCRIPT),
    "a 3-byte merkle root": _with_field(b"\x18", b"abc"),
    "another merkle root": _with_field(b"\x18", bytes(32)),
    "a 33-byte internal key": _with_field(b"\x17", b"\x02" + NUMS_KEY),
    "another internal key": _with_field(b"\x17", SIGNERS.key("v")),
    "SIGHASH_ALL": _with_field(b"\x03", b"\x01\x00\x00\x00"),
    "SIGHASH_NONE": _with_field(b"\x03", b"\x02\x00\x00\x00"),
    "SIGHASH_SINGLE": _with_field(b"\x03", b"\x03\x00\x00\x00"),
    "ANYONECANPAY": _with_field(b"\x03", b"\x80\x00\x00\x00"),
    "a signature with a hash type": _with_field(SIGNATURE_KEY, bytes(65)),
    "a signature of no point": _with_field(b"\x14" + bytes(32) + SIGNATURE_KEY[33:], bytes(64)),
    "a signature for another leaf": _with_field(SIGNATURE_KEY[:33] + bytes(32), bytes(64)),
    "a key path signature of 65 bytes": _with_field(b"\x13", bytes(65)),
    "a leaf of another version": _with_field(LEAF_KEY, VAULT.leaf(Leaf.TRANSFER) + b"\xc2"),
    "a leaf that is not in the output": _with_field(LEAF_KEY, VAULT.leaf(Leaf.RECOVERY) + b"\xc0"),
    "two leaves": _with_field(b"\x15" + VAULT.control_block(Leaf.RECOVERY), VAULT.leaf(Leaf.RECOVERY) + b"\xc0"),
    "a control block cut short": _with_field(LEAF_KEY[:-1], VAULT.leaf(Leaf.TRANSFER) + b"\xc0", drop=LEAF_KEY),
    "no spent output": replace(MAPS, inputs=({},)).to_bytes(),
    "a spent output with a tail": _with_field(b"\x01", INPUT_MAP[b"\x01"] + b"\x00"),
    "a million leaf hashes": _with_field(
        b"\x16" + SIGNERS.key("w"), b"\xfe" + (10**6).to_bytes(4, "little") + bytes(8)
    ),
    "a version 2 field": _with_field(b"\x0e", bytes(32)),
    "a previous transaction that is none": _with_field(b"\x00", b"\x00"),
    "a billion witness items": _with_field(b"\x08", b"\xfe" + (10**9).to_bytes(4, "little")),
    "a scriptSig": _with_unsigned(replace(MAPS.transaction, inputs=(WITH_SCRIPT_SIG,)).to_bytes()),
    "an unsigned transaction with a tail": _with_unsigned(UNSIGNED + b"\x00"),
    "a signed transaction": _with_unsigned(MAPS.transaction.with_witnesses([(b"x",)]).to_bytes()),
    "an input twice": _with_unsigned(replace(MAPS.transaction, inputs=MAPS.transaction.inputs * 2).to_bytes()),
    "300 fields": replace(MAPS, inputs=({bytes((0xF0, n & 255, n >> 8)): b"" for n in range(300)},)).to_bytes(),
    "two megabytes": b"psbt\xff" + bytes(2_000_000),
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
def test_refuses_hostile_bytes_at_once_and_without_eating_memory(raw: bytes) -> None:
    tracemalloc.start()
    started = time.thread_time()
    with pytest.raises(InvalidInput):
        parse_psbt(raw)
    elapsed = time.thread_time() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert elapsed < 0.010
    assert peak < 10_000_000


@pytest.mark.parametrize("text", ["", "=", "cHNi", "not base64", " " + base64.b64encode(RAW).decode(), "A" * 2_000_000])
def test_refuses_text_that_is_no_psbt(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_psbt(text)


def test_one_flipped_bit_is_refused_or_read_without_ambiguity() -> None:
    refused = 0
    for place in range(0, len(RAW), 3):
        try:
            changed = parse_psbt(RAW[:place] + bytes((RAW[place] ^ 1,)) + RAW[place + 1 :])
        except InvalidInput:
            refused += 1
        else:
            assert parse_psbt(changed.to_bytes()) == changed
    assert refused > len(RAW) // 6


def test_a_template_without_inputs_is_not_taken_for_something_to_sign() -> None:
    template = build_funding_template([(INVOICE, Sats(50_000))])
    assert parse_maps(template).transaction.outputs == (TxOut(Sats(50_000), INVOICE.script),)
    assert parse_maps(template).to_bytes() == template
    with pytest.raises(InvalidInput, match="template"):
        parse_psbt(template)
    with pytest.raises(InvalidInput, match="at least one output"):
        build_funding_template([])


# ---------------------------------------------------------------- refunds


def _deposit(value: int, vout: int = 0) -> RefundableDeposit:
    return RefundableDeposit(Outpoint(Txid(b"\x05" * 32), vout), Sats(value), INVOICE, USER)


def test_a_refund_pays_everything_less_an_exact_fee_and_says_where_the_key_is() -> None:
    psbt = build_refund_psbt([_deposit(50_000), _deposit(60_000, 1)], P2WPKH, FeeRate(2_000))
    digests = [psbt.compute_digest(index) for index in range(2)]
    signed = psbt
    for index, digest in enumerate(digests):
        signed = signed.add_signature(index, USER.key, SIGNERS.sign("user", digest))
    done = finalise_psbt(signed)
    verify_input_scripts(done, psbt.prevouts)
    assert 110_000 - done.outputs[0].value == 2 * done.vsize
    assert {txin.sequence for txin in done.inputs} == {LOCKS.refund}
    assert parse_psbt(psbt.to_bytes()).inputs[0].origins == ((USER.key, ORIGIN),)


def test_a_refund_is_refused_when_one_satoshi_short_of_the_dust_limit() -> None:
    fee = 2 * _measure_refund()
    assert build_refund_psbt([_deposit(fee + 294)], P2WPKH, FeeRate(2_000)).transaction.outputs[0].value == 294
    with pytest.raises(InvalidInput, match="dust"):
        build_refund_psbt([_deposit(fee + 293)], P2WPKH, FeeRate(2_000))


def _measure_refund() -> int:
    psbt = build_refund_psbt([_deposit(50_000)], P2WPKH, FeeRate(2_000))
    signed = psbt.add_signature(0, USER.key, Signature(SIGNERS.sign("user", psbt.compute_digest(0))))
    return finalise_psbt(signed).vsize


def test_a_refund_needs_a_deposit_and_the_right_key() -> None:
    with pytest.raises(InvalidInput, match="needs deposits"):
        build_refund_psbt([], P2WPKH, FeeRate(2_000))
    other = replace(_deposit(50_000), user=UserKey(SIGNERS.key("v"), ORIGIN))
    with pytest.raises(InvalidInput, match="own invoice's refund key"):
        build_refund_psbt([other], P2WPKH, FeeRate(2_000))


def test_a_batch_of_500_inputs_is_written_and_read() -> None:
    psbt = _spend(count=500)
    again = parse_psbt(psbt.to_bytes())
    assert again == psbt
    assert isinstance(parse_maps(psbt.to_bytes()), PsbtMaps)
