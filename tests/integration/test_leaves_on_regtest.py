"""Every leaf of design.md section 5 on a real node: spent by whom it should be, refused for everyone else and early."""

from __future__ import annotations

import base64
import itertools
from decimal import Decimal
from hashlib import sha256

import pytest

from smpc.bitcoin.address import to_address
from smpc.bitcoin.descriptor import build_invoice_descriptor, build_vault_descriptor
from smpc.bitcoin.descriptor_checksum import add_checksum
from smpc.bitcoin.fees import (
    INVOICE_REFUND,
    INVOICE_REJECTION,
    INVOICE_TRANSFER,
    VAULT_RECOVERY,
    VAULT_REJECTION,
    VAULT_TRANSFER,
    InputKind,
    compute_spend_vbytes,
)
from smpc.bitcoin.interpreter import verify_input_scripts
from smpc.bitcoin.key_origin import KeyOrigin, UserKey, parse_user_key
from smpc.bitcoin.psbt import LeafSpend, PsbtInput, build_psbt, finalise_psbt, parse_psbt
from smpc.bitcoin.psbt_maps import parse_maps
from smpc.bitcoin.script import MARKER_TAG, Leaf
from smpc.bitcoin.sighash import precompute_sighash
from smpc.bitcoin.taproot import InvoiceTree, VaultTree, build_invoice_tree
from smpc.bitcoin.transaction import Transaction, TxOut, parse_transaction
from smpc.bitcoin.user_psbt import RefundableDeposit, build_funding_template, build_refund_psbt
from smpc.errors import CheckFailed
from smpc.types import FeeRate, Network, Outpoint, Sats, Script, TermsHash, txid_from_hex
from tests.support.leaf_signers import LOCKS, SIGNERS_OF, LeafSigners, build_spend, sign_leaf
from tests.support.regtest import RegtestNode

DEPOSIT = Sats(100_000)
NAMES = ("v", "w", "wr", "e", "user")

LEAVES = [
    pytest.param("invoice", Leaf.REFUND, LOCKS.refund, INVOICE_REFUND, id="invoice-refund"),
    pytest.param("invoice", Leaf.TRANSFER, LOCKS.transfer, INVOICE_TRANSFER, id="invoice-transfer"),
    pytest.param("invoice", Leaf.REJECTION, LOCKS.emergency, INVOICE_REJECTION, id="invoice-rejection"),
    pytest.param("vault", Leaf.TRANSFER, LOCKS.transfer, VAULT_TRANSFER, id="vault-transfer"),
    pytest.param("vault", Leaf.REJECTION, LOCKS.emergency, VAULT_REJECTION, id="vault-rejection"),
    pytest.param("vault", Leaf.RECOVERY, LOCKS.recovery, VAULT_RECOVERY, id="vault-recovery"),
]
DESTINATION = Script(b"\x00\x14" + bytes(range(20)))


def _tree(signers: LeafSigners, kind: str) -> InvoiceTree | VaultTree:
    return signers.invoice() if kind == "invoice" else signers.vault()


def _fund(node: RegtestNode, script: Script, confirmations: int = 1, sats: Sats = DEPOSIT) -> tuple[Outpoint, TxOut]:
    txid, vout = node.fund(to_address(script, Network.REGTEST), sats, confirmations=confirmations)
    return Outpoint(txid_from_hex(txid), vout), TxOut(sats, script)


def _refusal(node: RegtestNode, transaction: Transaction) -> str | None:
    """Return why the node's mempool refuses a transaction, or None when it would take it."""
    answer = node.rpc("testmempoolaccept", [transaction.to_bytes().hex()])[0]
    return None if answer["allowed"] else str(answer["reject-reason"])


def _broadcast_and_mine(node: RegtestNode, transaction: Transaction) -> None:
    txid = node.rpc("sendrawtransaction", transaction.to_bytes().hex())
    assert txid == transaction.txid[::-1].hex()
    node.mine(1)
    assert node.rpc("getrawtransaction", txid, 1)["confirmations"] == 1


@pytest.mark.parametrize(("kind", "leaf", "lock", "shape"), LEAVES)
def test_the_right_signers_spend_a_leaf_when_its_lock_has_passed_and_not_one_block_early(
    regtest: RegtestNode, kind: str, leaf: Leaf, lock: int, shape: InputKind
) -> None:
    signers = LeafSigners(f"right/{kind}/{leaf}")
    tree = _tree(signers, kind)
    outpoint, prevout = _fund(regtest, tree.script, confirmations=lock - 1)
    unsigned = build_spend(outpoint, Sats(DEPOSIT - 1_000), DESTINATION, lock)
    signed = sign_leaf(unsigned, prevout, tree, leaf, signers)

    verify_input_scripts(signed, [prevout])
    assert _refusal(regtest, signed) == "non-BIP68-final"
    regtest.mine(1)
    assert _refusal(regtest, signed) is None
    assert signed.vsize == compute_spend_vbytes([shape], [DESTINATION], LOCKS)
    assert regtest.rpc("decoderawtransaction", signed.to_bytes().hex())["vsize"] == signed.vsize
    _broadcast_and_mine(regtest, signed)


@pytest.mark.parametrize(("kind", "leaf", "lock", "shape"), LEAVES)
def test_every_other_set_of_signers_is_refused_by_a_mature_leaf(
    regtest: RegtestNode, kind: str, leaf: Leaf, lock: int, shape: InputKind
) -> None:
    signers = LeafSigners(f"wrong/{kind}/{leaf}")
    tree = _tree(signers, kind)
    outpoint, prevout = _fund(regtest, tree.script, confirmations=lock)
    unsigned = build_spend(outpoint, Sats(DEPOSIT - 1_000), DESTINATION, lock)
    assert shape.leaf is leaf

    for names in itertools.product(NAMES, repeat=len(SIGNERS_OF[leaf])):
        signed = sign_leaf(unsigned, prevout, tree, leaf, signers, names)
        if names == SIGNERS_OF[leaf]:
            assert _refusal(regtest, signed) is None
        else:
            assert "script-verify-flag-failed" in str(_refusal(regtest, signed)), names
            with pytest.raises(CheckFailed, match="input 0"):
                verify_input_scripts(signed, [prevout])


@pytest.mark.parametrize(("kind", "leaf", "lock", "shape"), LEAVES)
def test_a_mature_leaf_refuses_a_lower_sequence_an_old_version_and_a_missing_signature(
    regtest: RegtestNode, kind: str, leaf: Leaf, lock: int, shape: InputKind
) -> None:
    signers = LeafSigners(f"early/{kind}/{leaf}")
    tree = _tree(signers, kind)
    outpoint, prevout = _fund(regtest, tree.script, confirmations=lock)
    value = Sats(DEPOSIT - 1_000)
    assert shape.leaf is leaf

    for sequence, version in ((lock - 1, 2), (0xFFFFFFFF, 2), (1 << 22 | lock, 2), (lock, 1)):
        signed = sign_leaf(build_spend(outpoint, value, DESTINATION, sequence, version), prevout, tree, leaf, signers)
        # A time-based sequence is refused as not final before any script runs: ask the interpreter too.
        assert _refusal(regtest, signed) is not None, (sequence, version)
        with pytest.raises(CheckFailed):
            verify_input_scripts(signed, [prevout])
    right = sign_leaf(build_spend(outpoint, value, DESTINATION, lock), prevout, tree, leaf, signers)
    stack = right.inputs[0].witness
    for place in range(len(stack) - 2):
        for witness in (stack[:place] + stack[place + 1 :], (*stack[:place], b"", *stack[place + 1 :])):
            assert _refusal(regtest, right.with_witnesses([witness])) is not None


@pytest.mark.parametrize("kind", ["invoice", "vault"])
def test_a_rejection_needs_the_right_preimage_of_exactly_32_bytes(regtest: RegtestNode, kind: str) -> None:
    signers = LeafSigners(f"preimage/{kind}")
    tree = _tree(signers, kind)
    outpoint, prevout = _fund(regtest, tree.script, confirmations=LOCKS.emergency)
    unsigned = build_spend(outpoint, Sats(DEPOSIT - 1_000), DESTINATION, LOCKS.emergency)
    wrong = sign_leaf(unsigned, prevout, tree, Leaf.REJECTION, signers, preimage=sha256(b"guess").digest())
    assert "script-verify-flag-failed" in str(_refusal(regtest, wrong))
    stack = list(wrong.inputs[0].witness)
    stack[2] = signers.preimage + b"\x00"
    assert "script-verify-flag-failed" in str(_refusal(regtest, wrong.with_witnesses([tuple(stack)])))
    stack[2] = signers.preimage
    assert _refusal(regtest, wrong.with_witnesses([tuple(stack)])) is None


def test_nobody_spends_the_marker_leaf_or_the_key_path(regtest: RegtestNode) -> None:
    signers = LeafSigners("marker")
    tree = signers.invoice()
    outpoint, prevout = _fund(regtest, tree.script, confirmations=LOCKS.refund)
    unsigned = build_spend(outpoint, Sats(DEPOSIT - 1_000), DESTINATION, LOCKS.refund)
    marker = tree.leaf(Leaf.MARKER)
    digest = precompute_sighash(unsigned, [prevout]).compute(0, marker)
    for name in NAMES:
        signature = signers.sign(name, digest)
        stack = (tree.terms_hash, MARKER_TAG, signature, marker, tree.control_block(Leaf.MARKER))
        assert "script-verify-flag-failed" in str(_refusal(regtest, unsigned.with_witnesses([stack])))
        assert "script-verify-flag-failed" in str(_refusal(regtest, unsigned.with_witnesses([(signature,)])))


def _wallet_key(node: RegtestNode, wallet: str) -> UserKey:
    address = node.rpc("getnewaddress", "refund", "bech32m", wallet=wallet)
    return parse_user_key(node.rpc("getaddressinfo", address, wallet=wallet)["desc"])


def _invoice_of(user: UserKey, seed: str) -> InvoiceTree:
    terms = TermsHash(sha256(seed.encode()).digest())
    return build_invoice_tree(LeafSigners(seed).group_keys, user_key=user.key, terms_hash=terms, locks=LOCKS)


def test_a_stock_wallet_alone_signs_and_finalises_the_refund_of_two_deposits(regtest: RegtestNode) -> None:
    wallet = regtest.create_wallet("refund-user")
    users = [_wallet_key(regtest, wallet), _wallet_key(regtest, wallet)]
    trees = [_invoice_of(user, f"refund-{place}") for place, user in enumerate(users)]
    coins = [_fund(regtest, trees[0].script), _fund(regtest, trees[1].script, confirmations=LOCKS.refund - 1)]
    deposits = [
        RefundableDeposit(outpoint, prevout.value, tree, user)
        for (outpoint, prevout), tree, user in zip(coins, trees, users, strict=True)
    ]
    psbt = build_refund_psbt(deposits, DESTINATION, FeeRate(2_000))

    answer = regtest.rpc("walletprocesspsbt", psbt.to_base64(), wallet=wallet)
    assert answer["complete"]
    signed = parse_transaction(bytes.fromhex(answer["hex"]))
    assert signed.txid == psbt.transaction.txid
    assert _refusal(regtest, signed) == "non-BIP68-final"
    regtest.mine(1)
    assert _refusal(regtest, signed) is None
    fee = 2 * DEPOSIT - signed.outputs[0].value
    assert fee == 2 * signed.vsize
    _broadcast_and_mine(regtest, signed)


def test_our_parser_reads_what_the_wallet_gives_back_and_finalises_it_itself(regtest: RegtestNode) -> None:
    wallet = regtest.create_wallet("refund-partial")
    user = _wallet_key(regtest, wallet)
    tree = _invoice_of(user, "partial")
    outpoint, prevout = _fund(regtest, tree.script, confirmations=LOCKS.refund)
    psbt = build_refund_psbt([RefundableDeposit(outpoint, prevout.value, tree, user)], DESTINATION, FeeRate(2_000))
    partial = regtest.rpc("walletprocesspsbt", psbt.to_base64(), True, "DEFAULT", True, False, wallet=wallet)
    assert not partial["complete"]

    signed = finalise_psbt(parse_psbt(partial["psbt"]))
    assert _refusal(regtest, signed) is None
    complete = regtest.rpc("walletprocesspsbt", psbt.to_base64(), wallet=wallet)
    assert finalise_psbt(parse_psbt(complete["psbt"])).outputs == signed.outputs


def test_a_wallet_that_imports_the_descriptor_with_its_private_key_sees_and_spends_the_deposit(
    regtest: RegtestNode,
) -> None:
    source = regtest.create_wallet("descriptor-source")
    user = _wallet_key(regtest, source)
    tree = _invoice_of(user, "imported")
    descriptor = build_invoice_descriptor(tree, user)
    account = next(
        entry["desc"]
        for entry in regtest.rpc("listdescriptors", True, wallet=source)["descriptors"]
        if entry["desc"].startswith("tr(") and not entry["internal"]
    )
    master = account[3:].partition("/")[0]
    path = "/".join(str(user.origin).split("/")[1:])
    private = descriptor[:-9].replace(str(user), f"{master}/{path}")
    importer = regtest.create_wallet("descriptor-import", blank=True)
    request = {"desc": add_checksum(private), "timestamp": "now"}
    assert regtest.rpc("importdescriptors", [request], wallet=importer)[0]["success"]

    outpoint, _ = _fund(regtest, tree.script, confirmations=LOCKS.refund)
    entry = {"txid": outpoint.txid[::-1].hex(), "vout": outpoint.vout, "sequence": LOCKS.refund}
    raw = regtest.rpc("createrawtransaction", [entry], [{to_address(DESTINATION, Network.REGTEST): Decimal("0.0009")}])
    answer = regtest.rpc("signrawtransactionwithwallet", raw, wallet=importer)
    assert answer["complete"]
    _broadcast_and_mine(regtest, parse_transaction(bytes.fromhex(answer["hex"])))


@pytest.mark.parametrize(
    ("kind", "leaf", "lock"),
    [("invoice", Leaf.TRANSFER, LOCKS.transfer), ("vault", Leaf.RECOVERY, LOCKS.recovery)],
)
def test_the_node_itself_finalises_our_psbt_to_the_same_transaction(
    regtest: RegtestNode, kind: str, leaf: Leaf, lock: int
) -> None:
    signers = LeafSigners(f"finalise/{kind}")
    tree = _tree(signers, kind)
    outpoint, prevout = _fund(regtest, tree.script, confirmations=lock)
    unsigned = build_spend(outpoint, Sats(DEPOSIT - 1_000), DESTINATION, lock)
    origin = KeyOrigin(bytes(4), (0, 1))
    entry = PsbtInput(prevout, LeafSpend.from_tree(tree.tree, leaf), ((signers.key("v"), origin),))
    psbt = build_psbt(unsigned, [entry])
    for name in SIGNERS_OF[leaf]:
        psbt = psbt.add_signature(0, signers.key(name), signers.sign(name, psbt.compute_digest(0)))

    answer = regtest.rpc("finalizepsbt", psbt.to_base64())
    assert answer["complete"]
    assert bytes.fromhex(answer["hex"]) == finalise_psbt(parse_psbt(psbt.to_bytes())).to_bytes()
    decoded = regtest.rpc("decodepsbt", psbt.to_base64())["inputs"][0]
    assert decoded["taproot_merkle_root"] == tree.merkle_root.hex()
    assert decoded["taproot_scripts"][0]["script"] == tree.leaf(leaf).hex()
    _broadcast_and_mine(regtest, parse_transaction(bytes.fromhex(answer["hex"])))


def test_the_node_derives_our_addresses_from_our_descriptors(regtest: RegtestNode) -> None:
    signers = LeafSigners("descriptors")
    user = UserKey(signers.key("user"), KeyOrigin(bytes.fromhex("d34db33f"), (86 | 1 << 31, 5)))
    invoice, vault = signers.invoice(), signers.vault()
    for descriptor, tree in (
        (build_invoice_descriptor(invoice, user), invoice),
        (build_vault_descriptor(vault), vault),
    ):
        info = regtest.rpc("getdescriptorinfo", descriptor)
        assert info["checksum"] == descriptor[-8:]
        assert info["issolvable"]
        assert regtest.rpc("deriveaddresses", descriptor) == [to_address(tree.script, Network.REGTEST)]


def test_the_node_reads_the_funding_template_with_its_trees_and_a_wallet_funds_its_outputs(
    regtest: RegtestNode,
) -> None:
    trees = [LeafSigners(f"template-{place}").invoice() for place in range(3)]
    template = build_funding_template([(tree, Sats(50_000 + place)) for place, tree in enumerate(trees)])
    decoded = regtest.rpc("decodepsbt", base64.b64encode(template).decode())
    assert [Decimal(50_000 + place).scaleb(-8) for place in range(3)] == [out["value"] for out in decoded["tx"]["vout"]]
    assert decoded["inputs"] == []
    for tree, output in zip(trees, decoded["outputs"], strict=True):
        assert [leaf["script"] for leaf in output["taproot_tree"]] == [leaf.script.hex() for leaf in tree.tree.leaves]
    wallet = regtest.create_wallet("template-payer")
    regtest.fund(regtest.rpc("getnewaddress", wallet=wallet), 1_000_000)
    funded = regtest.rpc("fundrawtransaction", parse_maps(template).transaction.to_bytes().hex(), wallet=wallet)
    signed = regtest.rpc("signrawtransactionwithwallet", funded["hex"], wallet=wallet)
    assert signed["complete"]
    assert _refusal(regtest, parse_transaction(bytes.fromhex(signed["hex"]))) is None
