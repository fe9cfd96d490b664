"""What the real code paths cost: an invoice as the coordinator issues it, a large transaction as a pod signs it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from hashlib import sha256

from pegin.invoice import TermsRequest, build_invoice_tree, build_terms
from pegin.model import BuiltTransaction, Plan, Spend, build_transaction
from pegin.vault import EpochKeys
from smpc.bitcoin.address import to_address
from smpc.bitcoin.second_opinion import compute_second_opinion
from smpc.curve import multiply_generator
from smpc.params import REGTEST
from smpc.participant.sessions import PreparedSpend, prepare_spend
from smpc.participant.shares import HeldShare
from smpc.protocol.intents import IntentChoice, IntentInput, IntentKind
from smpc.protocol.invoices import InvoiceTerms
from smpc.protocol.pod_messages import SIGNING_SUITE, SessionHeader, compute_protocol_hash
from smpc.threshold.child_keys import derive_child
from smpc.threshold.frost import SigningContext, aggregate_commitments, generate_nonces, parse_aggregates, sign_messages
from smpc.types import (
    AccountKey,
    Attempt,
    BtcHeight,
    ChildIndex,
    EpochNumber,
    FeeRate,
    GroupId,
    IdentityKey,
    KaonHeight,
    Network,
    Outpoint,
    PlainKey,
    Purpose,
    Role,
    Sats,
    Txid,
    XOnlyKey,
)
from tests.bench.rows import BenchRow
from tests.bench.yardstick import measure_multiplication_us, measure_us
from tests.unit.threshold_groups import DealtGroup, deal_group

INVOICE_LIMIT = 8.0
SIGNER_LIMIT = 2_000.0
INPUTS = 500

_EPOCH = EpochNumber(0)
_USER = XOnlyKey(multiply_generator(19).to_plain_key()[1:])


def run() -> list[BenchRow]:
    """Measure everything and return the table's rows."""
    unit = measure_multiplication_us()
    return [_bench_invoice(unit), *bench_pod(unit, INPUTS)]


def _bench_invoice(unit: float) -> BenchRow:
    """Issue one invoice after another: terms and their hash, every child key, four leaves, address."""
    keys = _build_keys(*(multiply_generator(number).to_plain_key() for number in (11, 13)))
    indexes = itertools.count()

    def issue() -> str:
        terms = _build_terms(ChildIndex(next(indexes)))
        return to_address(build_invoice_tree(keys, terms).script, Network.REGTEST)

    measured = measure_us(issue)
    tree = build_invoice_tree(keys, _build_terms(ChildIndex(0)))
    peer = measure_us(lambda: compute_second_opinion(tree, Network.REGTEST), calls=2, runs=3)
    name = "invoice by pegin.invoice: terms, 4 child keys, 4 leaves, address"
    return BenchRow(name, measured, measured / unit, INVOICE_LIMIT, "bitcoin-utils (no child keys)", peer)


def bench_pod(unit: float, inputs: int) -> list[BenchRow]:
    """Measure what a validator's pod computes once it has accepted a transaction of so many inputs, 67 of 100."""
    validators, witnesses = deal_group(67, 100, "validators"), deal_group(67, 100, "witnesses")
    keys = _build_keys(validators.key.threshold_pubkey, witnesses.key.threshold_pubkey)
    built = _build_transfer(keys, inputs)
    sign = _prepare_signer(validators, built)

    def sign_cold() -> object:
        derive_child.cache_clear()
        return sign()

    cold = measure_us(sign_cold, calls=1, runs=6)
    warm = measure_us(sign, calls=1, runs=6)
    rebuild = measure_us(lambda: _rebuild_cold(keys, inputs), calls=1, runs=2)
    limit = SIGNER_LIMIT * inputs / INPUTS
    # Judging a transaction rebuilds its trees, so a pod that signs has derived the children already.
    return [
        BenchRow(f"{inputs} inputs: one pod's digests, nonces and shares", warm, warm / unit, limit),
        BenchRow(f"{inputs} inputs: the same with no child key at hand", cold, cold / unit, None),
        BenchRow(f"{inputs} inputs: rebuilding every tree for the review", rebuild, rebuild / unit, None),
    ]


def _prepare_signer(group: DealtGroup, built: BuiltTransaction) -> Callable[[], object]:
    """Return everything one signer computes: from what was built here to the shares that leave."""
    signers = tuple(range(group.key.threshold))
    count = len(built.spends)
    _, publics = group.commit(signers, count, "pod bench")
    wire = b"".join(nonce.to_bytes() for nonce in aggregate_commitments(publics, count))
    held = HeldShare(GroupId(_EPOCH, Role.VALIDATOR), Attempt(0), group.key, group.shares[0], b"")
    header = _build_header(built, held.group)

    def sign() -> object:
        prepared: PreparedSpend = prepare_spend(header, held, built)
        nonces, _ = generate_nonces(
            sha256(b"fresh").digest(), count, share=held.share, group_key=held.key.threshold_pubkey
        )
        context = SigningContext.build(held.key, signers)
        return sign_messages(context, held.share, nonces, parse_aggregates(wire, count), prepared.tasks)

    return sign


def _build_transfer(keys: EpochKeys, inputs: int) -> BuiltTransaction:
    """Build the transfer of so many deposits, each on an invoice of its own."""
    spends = tuple(
        Spend.from_tree(
            IntentInput(Outpoint(Txid(sha256(b"%d" % number).digest()), 0), Sats(100_000), ChildIndex(number)),
            build_invoice_tree(keys, _build_terms(ChildIndex(number))),
        )
        for number in range(inputs)
    )
    ordered = tuple(sorted(spends, key=lambda spend: spend.item.outpoint))
    outpoints = tuple(spend.item.outpoint for spend in ordered)
    choice = IntentChoice(IntentKind.TRANSFER, _EPOCH, _EPOCH, outpoints, (), FeeRate(5_000), ())
    fee = Sats(1_000 * inputs)
    plan = Plan(choice, ordered, (), (Sats(100_000 * inputs - fee),), fee)
    return build_transaction(REGTEST, plan, keys)


def _rebuild_cold(keys: EpochKeys, inputs: int) -> BuiltTransaction:
    derive_child.cache_clear()
    build_invoice_tree.cache_clear()
    return _build_transfer(keys, inputs)


def _build_header(built: BuiltTransaction, group: GroupId) -> SessionHeader:
    return SessionHeader(
        protocol=compute_protocol_hash(REGTEST),
        suite=SIGNING_SUITE,
        network=Network.REGTEST,
        group=group,
        slot=KaonHeight(1),
        leader=IdentityKey(_USER),
        purpose=Purpose.TRANSFER,
        subject=built.intent.intent_id,
        attempt=Attempt(0),
    )


def _build_keys(validator: PlainKey, witness: PlainKey) -> EpochKeys:
    return EpochKeys(_EPOCH, validator, witness, multiply_generator(17).to_plain_key(), bytes(32))


def _build_terms(index: ChildIndex) -> InvoiceTerms:
    request = TermsRequest(_EPOCH, index, AccountKey(_USER), _USER)
    return build_terms(REGTEST, request, REGTEST.fee_default, BtcHeight(100))
