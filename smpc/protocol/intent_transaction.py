"""The Bitcoin transaction that an intent's content says, rebuilt from the ledger alone (`Intent`'s docstring) [R23].

Pods build it from a choice and their own facts (`pegin`, `pegout`, `sweep`, `slashing.recovery`); the ledger, which has
no Bitcoin node, takes values at their word and still finds out whether the intent's txid is that of its own content.
"""

from __future__ import annotations

from typing import Final

from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.errors import InvalidInput, NotFound
from smpc.params import Params
from smpc.protocol.intents import Intent, IntentKind
from smpc.protocol.ledger_destinations import derive_vault_scripts
from smpc.protocol.ledger_state import EpochEntry
from smpc.types import Role, Sats

_VERSION: Final = 2
"""Relative locks need version 2 (BIP 68)."""

_LAST_POSITION: Final = 0xFFFFFFFF


def build_intent_transaction(params: Params, target: EpochEntry, intent: Intent) -> Transaction:
    """Return the unsigned transaction of an intent that pays the vault of `target`.

    NotFound while a group of the target has no key; InvalidInput for another epoch than the intent's target, for
    more vault outputs than there are positions, and for an input that cannot exist.
    """
    if target.number != intent.target_epoch:
        raise InvalidInput(f"the intent pays epoch {intent.target_epoch}, not epoch {target.number}")
    if any(role not in target.groups for role in Role):
        raise NotFound(f"epoch {target.number} has no certified groups")
    if len(intent.vault_outputs) > params.vault_outputs:
        raise InvalidInput(f"there are {params.vault_outputs} vault positions")
    if any(item.outpoint.vout > _LAST_POSITION for item in intent.inputs):
        raise InvalidInput("a transaction has no output at such a position")
    lock = params.recovery_csv if intent.kind is IntentKind.RECOVERY else params.transfer_csv
    scripts = derive_vault_scripts(params, target) if intent.vault_outputs else ()
    outputs = [TxOut(value, script) for value, script in zip(intent.vault_outputs, scripts, strict=False)]
    outputs += [TxOut(item.amount, item.script) for item in intent.payments]
    outputs += [TxOut(item.amount, item.script) for item in intent.commissions]
    if intent.op_return:
        outputs.append(TxOut(Sats(0), intent.op_return))
    return Transaction(_VERSION, tuple(TxIn(item.outpoint, lock) for item in intent.inputs), tuple(outputs), 0)
