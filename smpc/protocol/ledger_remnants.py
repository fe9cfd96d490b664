"""What is left in an epoch that no sweep can move: it takes none of the places for epochs with value (section 5).

A sweep spends one epoch only and leaves a vault output, so nothing can be added to what is too little for both. The
epoch keeps it and never retires with it [R6], but others do not wait for that.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from smpc.bitcoin.fees import VAULT_TRANSFER, compute_fee, compute_spend_vbytes
from smpc.bitcoin.taproot import Timelocks
from smpc.params import Params
from smpc.protocol.ledger_tables import LedgerTables
from smpc.protocol.notarisation import OP_RETURN_SHAPE
from smpc.types import EpochNumber, Sats, Script

_VAULT_SHAPE: Final = Script(b"\x51\x20" + bytes(32))


def compute_least_swept(params: Params, inputs: int) -> Sats:
    """Return the least value in satoshi, over `inputs` vault outputs, that the cheapest sweep can move.

    That is one vault output of the least value, and the fee at the lowest rate with nobody paid beside it.
    """
    outputs = [_VAULT_SHAPE, OP_RETURN_SHAPE]
    vbytes = compute_spend_vbytes([VAULT_TRANSFER] * inputs, outputs, Timelocks.from_params(params))
    return Sats(params.min_vault_output + compute_fee(params.fee_floor, vbytes))


def list_remnants(tables: LedgerTables) -> frozenset[EpochNumber]:
    """Return the epochs that hold too little for any sweep, and from which no standing intent spends.

    The vault is gone through only where an epoch holds less than a sweep of the most inputs needs.
    """
    params = tables.params
    most = compute_least_swept(params, params.max_batch_inputs)
    small = {number for number, value in tables.epoch_value.items() if value < most and not tables.spenders.get(number)}
    if not small:
        return frozenset()
    counts = Counter(entry.epoch for entry in tables.vault.values() if entry.epoch in small)
    return frozenset(
        number
        for number in small
        if tables.epoch_value[number] < compute_least_swept(params, min(counts[number], params.max_batch_inputs))
    )
