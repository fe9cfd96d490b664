"""Makes evidence of a spend of a vault output or deposit, from what is on Bitcoin or was shown to a member of W."""

from __future__ import annotations

from collections.abc import Sequence

from smpc.bitcoin.script import Leaf
from smpc.bitcoin.transaction import Transaction, TxOut, parse_transaction
from smpc.errors import BridgeError, NotFound, Refused
from smpc.protocol.emergency import EpochBook, find_keyed_epoch
from smpc.protocol.intents import Intent, IntentKind
from smpc.protocol.spend_evidence import (
    DepositOrigin,
    OutputOrigin,
    ShownSignatures,
    UnauthorisedSpend,
    build_origin_tree,
    build_spend_evidence,
    read_signatures,
)
from smpc.protocol.spend_proof import prove_spend
from smpc.threshold.child_keys import VAULT_RANGE_START
from smpc.types import ChildIndex, EpochNumber, Role, Signature


def describe_origin(book: EpochBook, epoch: EpochNumber, child: ChildIndex) -> OutputOrigin:
    """Return what an output of an epoch is built from; NotFound when the epoch's keys or the invoice are unknown."""
    entry = find_keyed_epoch(book, epoch)
    invoice = None if child >= VAULT_RANGE_START else book.invoices.get((epoch, child))
    if invoice is None and child < VAULT_RANGE_START:
        raise NotFound(f"epoch {epoch} has no recorded invoice {child}")
    terms = None if invoice is None else invoice.request.terms
    return OutputOrigin(
        epoch=epoch,
        child=child,
        validator=entry.groups[Role.VALIDATOR].group_key,
        witness=entry.groups[Role.WITNESS].group_key,
        emergency=entry.groups[Role.EMERGENCY].group_key,
        release_hash=entry.preimage_hash,
        deposit=None if terms is None else DepositOrigin(terms.terms_hash, terms.refund_key),
    )


def find_spend_evidence(
    book: EpochBook,
    epoch: EpochNumber,
    child: ChildIndex,
    transaction: Transaction,
    prevouts: Sequence[TxOut],
    position: int,
) -> UnauthorisedSpend | None:
    """Return evidence of whose group key spends an output with this complete transaction; None for a user's refund.

    NotFound as `describe_origin`; Refused when the signatures are none of the group's: then no node takes it either.
    """
    network, origin = book.params.network, describe_origin(book, epoch, child)
    tree = build_origin_tree(network, origin)
    shown = read_signatures(tree, transaction.inputs[position].witness)
    if shown is None:
        return None
    evidence = build_spend_evidence(network, origin, transaction, prevouts, position, shown)
    prove_spend(evidence)
    return evidence


def find_shown_evidence(
    book: EpochBook, intent: Intent, unsigned: bytes, signatures: Sequence[Signature]
) -> UnauthorisedSpend | None:
    """Return evidence of what V signed, from the signatures that a proposer shows to W, or to E; else None.

    Values and children are the proposer's word: a signature that fits them all proves them, V committed to each.
    """
    leaf = Leaf.RECOVERY if intent.kind is IntentKind.RECOVERY else Leaf.TRANSFER
    try:
        transaction = parse_transaction(unsigned)
        origins = [describe_origin(book, intent.epoch, item.child) for item in intent.inputs]
        scripts = [build_origin_tree(book.params.network, origin).script for origin in origins]
    except BridgeError:
        return None
    if not len(signatures) == len(origins) == len(transaction.inputs):
        return None
    prevouts = [TxOut(item.value, script) for item, script in zip(intent.inputs, scripts, strict=True)]
    for position, (origin, signature) in enumerate(zip(origins, signatures, strict=True)):
        shown = ShownSignatures(leaf, signature, b"", b"")
        evidence = build_spend_evidence(book.params.network, origin, transaction, prevouts, position, shown)
        try:
            prove_spend(evidence)
        except Refused:
            continue
        return evidence
    return None
