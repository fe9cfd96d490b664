"""The emergency transactions of an output, the same bytes for whoever builds them (design.md section 5).

Pure and deterministic: the ledger, every pod and every executor derive them from the recorded keys and invoices alone.
One input by the rejection leaf, version 3 (TRUC), the emergency lock as sequence; output 0 pays what the rung's fee and
the anchor leave to the parallel group's vault, output 1 is the anchor through which a child pays for more.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from smpc.bitcoin.fees import VAULT_REJECTION, assemble_witness, compute_dust_limit, compute_fee, compute_spend_vbytes
from smpc.bitcoin.script import PAY_TO_ANCHOR, Leaf
from smpc.bitcoin.sighash import compute_tapscript_sighash
from smpc.bitcoin.taproot import InvoiceTree, Timelocks, VaultTree, build_invoice_tree, build_vault_tree
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.errors import InvalidInput, NotFound
from smpc.params import Params
from smpc.protocol.intents import IntentInput
from smpc.protocol.ledger_destinations import derive_output_keys
from smpc.protocol.ledger_state import EpochEntry, EpochState, InvoiceEntry
from smpc.protocol.output_keys import derive_child_keys
from smpc.threshold.child_keys import VAULT_RANGE_START, compute_vault_index
from smpc.types import MAX_MONEY, ChildIndex, EpochNumber, FeeRate, PlainKey, Role, Sats, Script, Signature, XOnlyKey

RUNGS: Final = (FeeRate(2_000), FeeRate(20_000), FeeRate(200_000))
"""The preset fee rates, sat/kvB, ascending; where one does not get in, the next one does."""

MOST_FEE_DIVISOR: Final = 20
"""A rung whose fee is above a twentieth, 5 %, of the output's value is left out."""

ANCHOR_VALUE: Final = Sats(240)
"""What the pay-to-anchor output carries: the dust limit of its script."""

EMERGENCY_VERSION: Final = 3
"""TRUC (BIP 431): a child with confirmed coins bumps it under every policy."""

EMERGENCY_POSITION: Final = 0
"""Where an emergency transaction's one vault output stands."""

_LAST_POSITION: Final = 0xFFFFFFFF
_SHAPE: Final = Script(b"\x51\x20" + bytes(32))
"""Any vault script: its size and its dust limit."""

_GUARDED: Final = frozenset({EpochState.RETIRING, EpochState.PARKED})


class EpochBook(Protocol):
    """What emergencies are built from: recorded epochs and invoices, which never change."""

    @property
    def params(self) -> Params:
        """Return the network's preset."""
        ...

    @property
    def epochs(self) -> Mapping[EpochNumber, EpochEntry]:
        """Return every epoch."""
        ...

    @property
    def invoices(self) -> Mapping[tuple[EpochNumber, ChildIndex], InvoiceEntry]:
        """Return every recorded invoice."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """The parallel group that emergencies pay."""

    epoch: EpochNumber
    script: Script
    """Its vault script at the one position an emergency transaction has, 34 bytes."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One of an output's emergency transactions, unsigned."""

    rate: FeeRate
    fee: Sats
    """To miners; the anchor's value comes on top."""
    transaction: Transaction
    digest: bytes
    """BIP 341 digest of the rejection leaf, SIGHASH_DEFAULT, 32 bytes: what E signs now and W after a release."""


@dataclass(frozen=True, slots=True)
class Emergency:
    """All emergency transactions of one output for one target, and what their signatures are under."""

    output: IntentInput
    epoch: EpochNumber
    """Whose output it is: its W and E sign."""
    target: Target
    script: Script
    """The output's own script, 34 bytes."""
    leaf: Script
    control_block: bytes
    witness_key: XOnlyKey
    """`Wr_i`."""
    emergency_key: XOnlyKey
    """`E_i`."""
    rungs: tuple[Rung, ...]
    """Ascending; empty when the value bears none."""

    @property
    def prevout(self) -> TxOut:
        """The output spent."""
        return TxOut(self.output.value, self.script)

    def complete(self, rung: Rung, witness: Signature, emergency: Signature, preimage: bytes) -> Transaction:
        """Return a rung with both signatures and the 32-byte preimage; InvalidInput when one has a wrong length."""
        stack = assemble_witness(self.leaf, self.control_block, (witness, emergency), preimage)
        return rung.transaction.with_witnesses([stack])


def find_target_epoch(
    epochs: Mapping[EpochNumber, EpochEntry], active: EpochNumber | None, epoch: EpochNumber
) -> EpochEntry | None:
    """Return the epoch whose V an output of `epoch` would go to: the active one, for its own outputs the standby.

    None when there is none, or when the epoch has no outputs to arm; then nothing new is armed and credits halt.
    """
    entry = epochs.get(epoch)
    if entry is None or active is None:
        return None
    if entry.state is EpochState.ACTIVE:
        standby = epochs.get(EpochNumber(active + 1))
        return standby if standby is not None and standby.state is EpochState.STANDBY else None
    return epochs[active] if entry.state in _GUARDED and not epochs[active].is_convicted else None


def build_target(params: Params, target: EpochEntry) -> Target:
    """Return what emergencies to an epoch pay; NotFound while one of its groups has no key."""
    _require_keys(target)
    validator = target.groups[Role.VALIDATOR].group_key
    witness = target.groups[Role.WITNESS].group_key
    emergency = target.groups[Role.EMERGENCY].group_key
    return Target(target.number, _derive_script(params, validator, witness, emergency, target.preimage_hash))


@functools.lru_cache(maxsize=256)
def _derive_script(params: Params, v: PlainKey, w: PlainKey, e: PlainKey, release_hash: bytes) -> Script:
    """Derive once what every look at the coverage compares."""
    keys = derive_child_keys(v, w, e, compute_vault_index(EMERGENCY_POSITION), release_hash)
    return build_vault_tree(keys, Timelocks.from_params(params)).script


def build_emergency(book: EpochBook, epoch: EpochNumber, output: IntentInput, target: Target) -> Emergency:
    """Build every emergency transaction of an output of `epoch` that the value bears.

    NotFound when the epoch, a group key or the invoice is not recorded; InvalidInput for a child index, a position or a
    value that is none.
    """
    if not (0 <= output.value <= MAX_MONEY and 0 <= output.outpoint.vout <= _LAST_POSITION):
        raise InvalidInput(f"{output.outpoint} of {output.value} sat cannot exist")
    tree = build_output_tree(book, find_keyed_epoch(book, epoch), output.child)
    leaf, prevout = tree.leaf(Leaf.REJECTION), TxOut(output.value, tree.script)
    rungs: list[Rung] = []
    for rate in RUNGS:
        fee = find_rung_fee(book.params, output.value, rate)
        if fee is not None:
            transaction = _build_rung(book.params, output, fee, target.script)
            rungs.append(Rung(rate, fee, transaction, compute_tapscript_sighash(transaction, [prevout], 0, leaf)))
    return Emergency(
        output=output,
        epoch=epoch,
        target=target,
        script=tree.script,
        leaf=leaf,
        control_block=tree.control_block(Leaf.REJECTION),
        witness_key=tree.keys.wr,
        emergency_key=tree.keys.e,
        rungs=tuple(rungs),
    )


def build_output_tree(book: EpochBook, epoch: EpochEntry, child: ChildIndex) -> InvoiceTree | VaultTree:
    """Return the tree of a keyed epoch's output; NotFound for an unknown invoice, InvalidInput for no index at all."""
    params = book.params
    locks = Timelocks.from_params(params)
    if child >= VAULT_RANGE_START:
        if child >= compute_vault_index(params.vault_outputs):
            raise InvalidInput(f"child index {child:#x} is no vault position: there are {params.vault_outputs}")
        return build_vault_tree(derive_output_keys(epoch, child), locks)
    entry = book.invoices.get((epoch.number, child))
    if entry is None:
        raise NotFound(f"epoch {epoch.number} has no recorded invoice {child}")
    terms, keys = entry.request.terms, derive_output_keys(epoch, child)
    return build_invoice_tree(keys, user_key=terms.refund_key, terms_hash=terms.terms_hash, locks=locks)


def find_rung_fee(params: Params, value: Sats, rate: FeeRate) -> Sats | None:
    """Return the fee of one rung, exact from the signed size; None where the value does not bear it.

    Left out: a fee above 5 % of the value, or one that leaves the vault output below the dust limit.
    """
    # The rejection leaf has the same size and depth in an invoice and in a vault output.
    size = compute_spend_vbytes([VAULT_REJECTION], [_SHAPE, PAY_TO_ANCHOR], Timelocks.from_params(params))
    fee = compute_fee(rate, size)
    left = value - fee - ANCHOR_VALUE
    is_borne = fee * MOST_FEE_DIVISOR <= value and left >= compute_dust_limit(_SHAPE)
    return fee if is_borne else None


def find_keyed_epoch(book: EpochBook, number: EpochNumber) -> EpochEntry:
    """Return an epoch whose three group keys are recorded; NotFound for any other."""
    entry = book.epochs.get(number)
    if entry is None:
        raise NotFound(f"there is no epoch {number} on the ledger")
    _require_keys(entry)
    return entry


def _require_keys(entry: EpochEntry) -> None:
    missing = [role for role in Role if role not in entry.groups]
    if missing:
        remedy = "wait until its three group keys are recorded"
        raise NotFound(f"epoch {entry.number} has no {missing[0]} key yet", remedy=remedy)


def _build_rung(params: Params, output: IntentInput, fee: Sats, target_script: Script) -> Transaction:
    left = TxOut(Sats(output.value - fee - ANCHOR_VALUE), target_script)
    anchor = TxOut(ANCHOR_VALUE, PAY_TO_ANCHOR)
    return Transaction(EMERGENCY_VERSION, (TxIn(output.outpoint, params.emergency_csv),), (left, anchor), 0)
