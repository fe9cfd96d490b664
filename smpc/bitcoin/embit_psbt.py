"""The only place that calls embit: writes and re-reads PSBTs with it, and trusts neither without comparing.

embit turns sequence 0 into 0xffffffff and version 0 into 2, shares default containers across the process, and drops
what it does not expect. So containers are always fresh, and its output is read back by `psbt_maps` and compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from embit.base import EmbitError
from embit.psbt import PSBT, InputScope, OutputScope
from embit.script import Script as EmbitScript
from embit.script import Witness
from embit.transaction import Transaction as EmbitTransaction
from embit.transaction import TransactionInput, TransactionOutput

from smpc.bitcoin.psbt_maps import PsbtMaps, parse_maps
from smpc.bitcoin.reader import to_var_bytes
from smpc.bitcoin.transaction import Transaction
from smpc.errors import InvalidInput

_EMBIT_FAULTS = (EmbitError, ValueError, TypeError, LookupError, AttributeError, OverflowError, RuntimeError)
"""What embit raises on bytes it cannot digest."""


def write_with_embit(transaction: Transaction, inputs: Sequence[Mapping[bytes, bytes]]) -> bytes:
    """Serialise a PSBT from its unsigned transaction and its inputs' fields; outputs carry none.

    InvalidInput when embit writes anything but exactly that.
    """
    psbt = PSBT(_build_transaction(transaction), {})
    psbt.inputs = [_build_scope(vin, fields) for vin, fields in zip(psbt.tx.vin, inputs, strict=True)]
    psbt.outputs = [OutputScope({}, vout=vout) for vout in psbt.tx.vout]
    raw: bytes = psbt.serialize()
    maps = parse_maps(raw)
    if maps.transaction != transaction or [dict(entry) for entry in maps.inputs] != [dict(entry) for entry in inputs]:
        raise InvalidInput("this PSBT cannot be written: the format library alters it")
    return raw


def parse_like_embit(maps: PsbtMaps) -> None:
    """Let embit parse and write the PSBT; InvalidInput when it refuses or would say something else."""
    try:
        again = parse_maps(PSBT.parse(maps.to_bytes()).serialize())
    except _EMBIT_FAULTS as fault:
        raise InvalidInput(f"PSBT is malformed: {fault}", remedy="export it again from the wallet") from None
    if again != maps:
        raise InvalidInput("PSBT has fields that do not survive being read and written", remedy="export it again")


def _build_scope(vin: Any, fields: Mapping[bytes, bytes]) -> Any:  # noqa: ANN401 - embit publishes no types
    scope = InputScope({}, vin=vin)
    for key, value in fields.items():
        scope.read_value(BytesIO(to_var_bytes(value)), key)
    return scope


def _build_transaction(transaction: Transaction) -> Any:  # noqa: ANN401 - embit publishes no types
    inputs = [
        TransactionInput(txin.outpoint.txid[::-1], txin.outpoint.vout, EmbitScript(b""), txin.sequence, Witness([]))
        for txin in transaction.inputs
    ]
    outputs = [TransactionOutput(txout.value, EmbitScript(txout.script)) for txout in transaction.outputs]
    return EmbitTransaction(version=transaction.version, vin=inputs, vout=outputs, locktime=transaction.locktime)
