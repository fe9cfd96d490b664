"""Which scripts a burn may pay, and which are the bridge's own (rule V42)."""

from __future__ import annotations

from typing import Final

from smpc.bitcoin.script import OutputType, find_output_type
from smpc.bitcoin.taproot import GroupKeys, Timelocks, build_invoice_tree, build_vault_tree
from smpc.curve import is_valid_xonly
from smpc.params import Params
from smpc.protocol.invoices import InvoiceTerms
from smpc.protocol.ledger_state import EpochEntry
from smpc.protocol.output_keys import derive_child_keys
from smpc.threshold.child_keys import compute_vault_index
from smpc.types import ChildIndex, Role, Script

_PAYABLE: Final = frozenset({OutputType.P2PKH, OutputType.P2SH, OutputType.P2WPKH, OutputType.P2WSH, OutputType.P2TR})


def is_standard_destination(script: bytes) -> bool:
    """Tell whether `script` is P2PKH, P2SH, P2WPKH, P2WSH or P2TR with a key that is on the curve."""
    kind = find_output_type(script)
    # An output key that is no curve point could never be spent: the payout would be lost to its user.
    return kind in _PAYABLE and (kind is not OutputType.P2TR or is_valid_xonly(script[2:]))


def derive_invoice_script(params: Params, epoch: EpochEntry, terms: InvoiceTerms) -> Script:
    """Return the script of an invoice's address; the epoch has its three group keys."""
    keys = derive_output_keys(epoch, terms.index)
    locks = Timelocks.from_params(params)
    return build_invoice_tree(keys, user_key=terms.refund_key, terms_hash=terms.terms_hash, locks=locks).script


def derive_vault_scripts(params: Params, epoch: EpochEntry) -> tuple[Script, ...]:
    """Return the scripts of every vault position a transaction can have; the epoch has its three group keys."""
    locks = Timelocks.from_params(params)
    indices = [compute_vault_index(position) for position in range(params.vault_outputs)]
    return tuple(build_vault_tree(derive_output_keys(epoch, index), locks).script for index in indices)


def derive_output_keys(epoch: EpochEntry, child: ChildIndex) -> GroupKeys:
    """Return the child keys of the output whose own index is `child`; the epoch has its three group keys."""
    validator = epoch.groups[Role.VALIDATOR].group_key
    witness = epoch.groups[Role.WITNESS].group_key
    emergency = epoch.groups[Role.EMERGENCY].group_key
    return derive_child_keys(validator, witness, emergency, child, epoch.preimage_hash)
