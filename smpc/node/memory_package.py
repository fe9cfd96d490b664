"""The twin's packages of a parent and one child: bitcoind's rules as far as an executor can meet them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from smpc.bitcoin.fees import compute_fee
from smpc.bitcoin.mempool import MAX_PACKAGE_RIVALS, MempoolPolicy, Rival, TrucPolicy
from smpc.bitcoin.transaction import Transaction
from smpc.node.bitcoind_refusal import build_refusal
from smpc.node.memory_diagram import Chunk, build_chunks, is_improvement
from smpc.node.memory_mempool import MemoryMempool, Pending
from smpc.node.memory_truc import TRUC_VERSION
from smpc.node.package_relay import Admission, AlreadyKnown, Entered, NotTaken, PackageOutcome
from smpc.node.ports import BroadcastRefused, RefusalReason
from smpc.types import FeeRate, Outpoint, Sats, Txid, Vbytes

_NO_FLOOR: Final = FeeRate(0)
_LONE_FEES: Final = frozenset({RefusalReason.FEE_TOO_LOW, RefusalReason.CONFLICT})
"""Reasons that a child's fee may heal."""


def submit_package(mempool: MemoryMempool, parent: Transaction, child: Transaction) -> PackageOutcome:
    """Try each alone, then both together; the outcome of `PackageRelay.submit_package`."""
    before = frozenset(mempool.pending)
    if _has_stranger(mempool, parent, child):
        refused = NotTaken(RefusalReason.MISSING_INPUTS, "package-not-child-with-unconfirmed-parents")
        return PackageOutcome(_settle(mempool, parent, refused), _settle(mempool, child, refused), frozenset())
    first, second = _admit_alone(mempool, parent), _admit_alone(mempool, child)
    if isinstance(first, NotTaken) and first.reason in _LONE_FEES and _is_orphan(second):
        first, second = _admit_together(mempool, parent, child, (first, second))
    return PackageOutcome(first, second, before - frozenset(mempool.pending))


def find_rival(mempool: MemoryMempool, outpoint: Outpoint) -> Rival | None:
    """Return who holds an output and what depends on it, as `PackageRelay.fetch_rival` says."""
    txid = mempool.find_spender(outpoint)
    if txid is None:
        return None
    held = mempool.pending[txid]
    family = mempool.collect_descendants({txid: held}).values()
    return Rival(
        txid=txid,
        fee=held.fee,
        vsize=held.vsize,
        family_fee=Sats(sum(entry.fee for entry in family)),
        family_vsize=Vbytes(sum(entry.vsize for entry in family)),
        family_count=len(family),
        ancestors=len(mempool.find_ancestors(held.transaction)),
    )


def _has_stranger(mempool: MemoryMempool, parent: Transaction, child: Transaction) -> bool:
    """Tell whether the child spends anything that is neither the parent's nor on the chain."""
    others = (txin.outpoint for txin in child.inputs if txin.outpoint.txid != parent.txid)
    return any(outpoint not in mempool.chain.coins for outpoint in others)


def _admit_alone(mempool: MemoryMempool, transaction: Transaction) -> Admission:
    if _is_known(mempool, transaction):
        return AlreadyKnown()
    try:
        mempool.accept(transaction)
    except BroadcastRefused as refused:
        return NotTaken(refused.reason, refused.node_reason)
    entered = mempool.pending[transaction.txid]
    return Entered(entered.fee, entered.vsize)


def _admit_together(
    mempool: MemoryMempool, parent: Transaction, child: Transaction, alone: tuple[Admission, Admission]
) -> tuple[Admission, Admission]:
    """Judge both by what they pay together, on a copy, so that a refused package leaves nothing behind."""
    trial = mempool.copy()
    rivals = trial.find_conflicts(parent) | trial.find_conflicts(child)
    family = trial.collect_descendants(rivals)
    for txid in rivals:
        trial.remove(txid)
    try:
        first = trial.judge(parent, floor=_lower_floor(mempool.policy, parent))
    except BroadcastRefused:
        return alone
    trial.insert(first)
    try:
        second = trial.judge(child, floor=_lower_floor(mempool.policy, child))
    except BroadcastRefused as refused:
        return alone[0], NotTaken(refused.reason, refused.node_reason)
    trial.insert(second)
    fault = _find_rate_fault(mempool.policy, first, second)
    fault = fault or _find_rival_fault(mempool, (first, second), rivals, family)
    if fault is not None:
        return alone[0], _build_refused(fault)
    mempool.adopt(trial)
    return Entered(first.fee, first.vsize), Entered(second.fee, second.vsize)


def _lower_floor(policy: MempoolPolicy, parent: Transaction) -> MempoolPolicy:
    """Let a child lift its parent above the mempool's minimum; above the relay minimum only under enforced TRUC."""
    is_lifted = policy.truc is TrucPolicy.ENFORCE and parent.version == TRUC_VERSION
    return replace(policy, minimum=_NO_FLOOR, relay_minimum=_NO_FLOOR if is_lifted else policy.relay_minimum)


def _find_rate_fault(policy: MempoolPolicy, first: Pending, second: Pending) -> str | None:
    fee, vsize = first.fee + second.fee, Vbytes(first.vsize + second.vsize)
    if fee < compute_fee(policy.relay_minimum, vsize):
        return f"min relay fee not met, {fee} < {compute_fee(policy.relay_minimum, vsize)}"
    if fee < compute_fee(policy.minimum, vsize):
        return f"mempool min fee not met, {fee} < {compute_fee(policy.minimum, vsize)}"
    return None


def _find_rival_fault(
    mempool: MemoryMempool,
    package: tuple[Pending, Pending],
    rivals: Mapping[Txid, Pending],
    family: Mapping[Txid, Pending],
) -> str | None:
    """Apply package replace-by-fee: small families only, all they paid and the relay of both, a better diagram."""
    if not family:
        return None
    parent, fee = package[0], Sats(sum(entry.fee for entry in package))
    vsize = Vbytes(sum(entry.vsize for entry in package))
    if any(len(_list_relatives(mempool, entry)) >= MAX_PACKAGE_RIVALS for entry in family.values()):
        return f"package RBF failed: more than {MAX_PACKAGE_RIVALS - 1} relatives"
    needed = sum(entry.fee for entry in family.values()) + compute_fee(mempool.policy.increment, vsize)
    if fee < needed:
        return f"package RBF failed: insufficient anti-DoS fees, {fee} < {needed}"
    if fee * parent.vsize <= parent.fee * vsize:
        return "package RBF failed: package feerate is less than or equal to parent feerate"
    old, kept = _list_chunks(mempool, rivals)
    if not is_improvement(old, [*kept, (fee, vsize)]):
        return "package RBF failed: insufficient feerate: does not improve feerate diagram"
    return None


def _list_chunks(mempool: MemoryMempool, rivals: Mapping[Txid, Pending]) -> tuple[list[Chunk], list[Chunk]]:
    """Return the chunks of the rivals with their one relative each, and those that stay when the rivals leave."""
    old: list[Chunk] = []
    kept: list[Chunk] = []
    for rival in rivals.values():
        own = (rival.fee, rival.vsize)
        relatives = [(entry.fee, entry.vsize) for entry in _list_relatives(mempool, rival)]
        is_heir = bool(mempool.find_ancestors(rival.transaction))
        pair = (*relatives, own) if is_heir else (own, *relatives)
        old += build_chunks(*pair) if relatives else (own,)
        kept += relatives if is_heir else ()
    return old, kept


def _list_relatives(mempool: MemoryMempool, entry: Pending) -> list[Pending]:
    own = entry.transaction.txid
    heirs = mempool.collect_descendants({own: entry})
    ancestors = mempool.find_ancestors(entry.transaction)
    return [
        pending for txid, pending in mempool.pending.items() if txid in ancestors or (txid in heirs and txid != own)
    ]


def _is_orphan(admission: Admission) -> bool:
    return isinstance(admission, NotTaken) and admission.reason is RefusalReason.MISSING_INPUTS


def _build_refused(node_reason: str) -> NotTaken:
    refused = build_refusal(node_reason)
    return NotTaken(refused.reason, refused.node_reason)


def _is_known(mempool: MemoryMempool, transaction: Transaction) -> bool:
    return transaction.txid in mempool.pending or mempool.chain.find_transaction(transaction.txid) is not None


def _settle(mempool: MemoryMempool, transaction: Transaction, otherwise: NotTaken) -> Admission:
    return AlreadyKnown() if _is_known(mempool, transaction) else otherwise
