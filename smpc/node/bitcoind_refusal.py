"""Translate bitcoind's reasons for not taking a transaction into the few kinds the bridge acts on."""

from __future__ import annotations

from typing import Final

from smpc.node.ports import BroadcastRefused, RefusalReason

_REASONS: Final = (
    # First match wins. Left: how bitcoind's reason starts (Core and Knots 28 and later).
    ("txn-mempool-conflict", RefusalReason.CONFLICT),
    ("insufficient fee", RefusalReason.CONFLICT),
    ("replacement-adds-unconfirmed", RefusalReason.CONFLICT),
    ("too many potential replacements", RefusalReason.CONFLICT),
    ("bad-txns-spends-conflicting-tx", RefusalReason.CONFLICT),
    ("package RBF failed", RefusalReason.CONFLICT),
    ("bad-txns-inputs-missingorspent", RefusalReason.MISSING_INPUTS),
    ("missing-inputs", RefusalReason.MISSING_INPUTS),
    ("package-not-child-with-unconfirmed-parents", RefusalReason.MISSING_INPUTS),
    ("missing-ephemeral", RefusalReason.POLICY),
    ("non-BIP68-final", RefusalReason.NOT_FINAL),
    ("non-final", RefusalReason.NOT_FINAL),
    ("bad-txns-nonfinal", RefusalReason.NOT_FINAL),
    ("bad-txns-premature-spend-of-coinbase", RefusalReason.NOT_FINAL),
    ("min relay fee not met", RefusalReason.FEE_TOO_LOW),
    ("mempool min fee not met", RefusalReason.FEE_TOO_LOW),
    ("mempool full", RefusalReason.FEE_TOO_LOW),
    ("Fee exceeds maximum", RefusalReason.FEE_TOO_HIGH),
    ("max feerate exceeded", RefusalReason.FEE_TOO_HIGH),
    ("max-fee-exceeded", RefusalReason.FEE_TOO_HIGH),
    ("mandatory-script-verify-flag-failed", RefusalReason.SCRIPT),
    ("non-mandatory-script-verify-flag", RefusalReason.SCRIPT),
    ("mempool-script-verify-flag-failed", RefusalReason.SCRIPT),
    ("block-script-verify-flag-failed", RefusalReason.SCRIPT),
)


def build_refusal(node_reason: str) -> BroadcastRefused:
    """Classify a node's reason by how it starts; what nobody named is `POLICY`."""
    for start, reason in _REASONS:
        if node_reason.startswith(start):
            return BroadcastRefused(reason, node_reason[:500])
    return BroadcastRefused(RefusalReason.POLICY, node_reason[:500])
