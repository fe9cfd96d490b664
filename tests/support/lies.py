"""Lies of a coordinator as tables: how each departs from the honest request, and the rule that every pod names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final, Generic, TypeVar

from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.protocol.intents import Intent
from smpc.protocol.pod_messages import SessionHeader
from smpc.types import (
    BurnId,
    ChildIndex,
    EpochNumber,
    GroupId,
    IdentityKey,
    Network,
    Outpoint,
    Purpose,
    Role,
    Sats,
    Script,
    Txid,
)
from tests.support.groups import make_xonly

T = TypeVar("T")

ATTACKER: Final = Script(b"\x51\x20" + make_xonly("attacker"))
FOREIGN: Final = Outpoint(Txid(sha256(b"somebody else's").digest()), 0)
PAYOUT: Final = Sats(300_000)
"""What the honest payout pays."""


@dataclass(frozen=True, slots=True)
class Lie(Generic[T]):
    """One departure from what is honest, and how it is refused; an empty reason means any reason of the rule."""

    tell: Callable[[T], T]
    rule: str
    reason: str = ""


def add_output(transaction: Transaction, value: int, script: Script) -> Transaction:
    """Pay one more output."""
    return replace(transaction, outputs=(*transaction.outputs, TxOut(Sats(value), script)))


def change_output(transaction: Transaction, place: int, **changes: object) -> Transaction:
    """Change fields of one output."""
    outputs = list(transaction.outputs)
    outputs[place] = replace(outputs[place], **changes)  # type: ignore[arg-type]
    return replace(transaction, outputs=tuple(outputs))


def change_input(transaction: Transaction, **changes: object) -> Transaction:
    """Change fields of the first input."""
    first, *rest = transaction.inputs
    return replace(transaction, inputs=(replace(first, **changes), *rest))  # type: ignore[arg-type]


def change_payment(intent: Intent, **changes: object) -> Intent:
    """Change fields of the intent's first payment."""
    first, *rest = intent.payments
    return replace(intent, payments=(replace(first, **changes), *rest))  # type: ignore[arg-type]


def change_spent(intent: Intent, **changes: object) -> Intent:
    """Change fields of the intent's first input."""
    first, *rest = intent.inputs
    return replace(intent, inputs=(replace(first, **changes), *rest))  # type: ignore[arg-type]


def other_group(group: GroupId) -> GroupId:
    """Return W for V, and V for any other."""
    return GroupId(group.epoch, Role.WITNESS if group.role is Role.VALIDATOR else Role.VALIDATOR)


TRANSACTION_LIES: Final[Mapping[str, Lie[Transaction]]] = {
    "change goes to the attacker": Lie(lambda it: change_output(it, 0, script=ATTACKER), "V15", "CHANGE_SCRIPT"),
    "an extra output of 1 sat": Lie(lambda it: add_output(it, 1, ATTACKER), "V17", "DUST"),
    "an extra OP_RETURN": Lie(lambda it: add_output(it, 0, Script(b"\x6a\x04KAON")), "V16", "OP_RETURN"),
    "an extra output of the attacker": Lie(lambda it: add_output(it, 50_000, ATTACKER), "V10", "NOT_REBUILT"),
    "the payout is 1 sat short": Lie(lambda it: change_output(it, -1, value=PAYOUT - 1), "V43", "AMOUNT_MISMATCH"),
    "the payout goes elsewhere": Lie(lambda it: change_output(it, -1, script=ATTACKER), "V42", "DESTINATION"),
    "the change is 1 sat short": Lie(
        lambda it: change_output(it, 0, value=it.outputs[0].value - 1), "V10", "NOT_REBUILT"
    ),
    "a foreign input": Lie(lambda it: replace(it, inputs=(*it.inputs, TxIn(FOREIGN, 3))), "V14", "INPUT_MISSING"),
    "another input": Lie(lambda it: change_input(it, outpoint=FOREIGN), "V14", "INPUT_MISSING"),
    "the same input twice": Lie(lambda it: replace(it, inputs=it.inputs * 2), "V13", "DUPLICATE"),
    "no relative lock": Lie(lambda it: change_input(it, sequence=0xFFFFFFFE), "V12", "TX_SHAPE"),
    "a locktime": Lie(lambda it: replace(it, locktime=1), "V12", "TX_SHAPE"),
}
"""The transaction is not the one that follows from the intent (a payout of one burn)."""

PAYOUT_LIES: Final[Mapping[str, Lie[Intent]]] = {
    "pays 1 sat more": Lie(lambda it: change_payment(it, amount=PAYOUT + 1), "V43", "AMOUNT_MISMATCH"),
    "pays the attacker": Lie(lambda it: change_payment(it, script=ATTACKER), "V42", "DESTINATION"),
    "pays a burn nobody made": Lie(lambda it: change_payment(it, burn=BurnId(bytes(32))), "V40", "BURN_UNKNOWN"),
    "pays the same burn twice": Lie(lambda it: replace(it, payments=it.payments * 2), "V13", "DUPLICATE"),
    "claims 1 sat more of an input": Lie(lambda it: change_spent(it, value=it.inputs[0].value + 1), "V14"),
    "spends an output that is nobody's": Lie(lambda it: change_spent(it, outpoint=FOREIGN), "V14", "INPUT_NOT_BOOKED"),
    "spends another child key's output": Lie(lambda it: change_spent(it, child=ChildIndex(0x10000009)), "V14"),
    "spends the same output twice": Lie(lambda it: replace(it, inputs=it.inputs * 2), "V13", "DUPLICATE"),
    "spends nothing": Lie(lambda it: replace(it, inputs=()), "V12", "TX_TOO_LARGE"),
    "keeps change as dust": Lie(lambda it: replace(it, vault_outputs=(Sats(9_999),)), "V17", "DUST"),
    "pays another epoch": Lie(lambda it: replace(it, target_epoch=EpochNumber(1)), "V15", "CHANGE_SCRIPT"),
    "replaces an intent nobody made": Lie(lambda it: replace(it, replaces=(it.intent_id,)), "V20", "REPLACES_WRONG"),
    "is another network's": Lie(lambda it: replace(it, network=Network.MAINNET), "V10", "NOT_REBUILT"),
    "says another fee": Lie(lambda it: replace(it, fee=Sats(it.fee - 1)), "V10", "NOT_REBUILT"),
}
"""The intent of a payout is not what the honest one is."""

TRANSFER_LIES: Final[Mapping[str, Lie[Intent]]] = {
    "claims 1 sat more of a deposit": Lie(
        lambda it: change_spent(it, value=it.inputs[0].value + 1),
        "V14",
        "AMOUNT_MISMATCH",
    ),
    "moves a deposit of another invoice": Lie(
        lambda it: change_spent(it, child=ChildIndex(0)), "V14", "UNKNOWN_SCRIPT"
    ),
    "names an invoice nobody recorded": Lie(
        lambda it: change_spent(it, child=ChildIndex(77)),
        "V31",
        "INVOICE_UNKNOWN",
    ),
    "moves an output that is not there": Lie(lambda it: change_spent(it, outpoint=FOREIGN), "V14", "INPUT_MISSING"),
}
"""The intent of a transfer of one deposit is not what the honest one is."""

HEADER_LIES: Final[Mapping[str, Lie[SessionHeader]]] = {
    "another group": Lie(lambda it: replace(it, group=other_group(it.group)), "V06", "WRONG_GROUP"),
    "the emergency group": Lie(lambda it: replace(it, group=GroupId(it.group.epoch, Role.EMERGENCY)), "V06"),
    "another epoch": Lie(lambda it: replace(it, group=GroupId(EpochNumber(1), it.group.role)), "V06", "WRONG_GROUP"),
    "other parameters": Lie(lambda it: replace(it, protocol=bytes(32)), "V01", "PROTOCOL_MISMATCH"),
    "another leader": Lie(lambda it: replace(it, leader=IdentityKey(make_xonly("leader"))), "V03", "NOT_LEADER"),
    "another purpose": Lie(lambda it: replace(it, purpose=Purpose.TRANSFER), "V04", "SESSION_ID_MISMATCH"),
    "another subject": Lie(lambda it: replace(it, subject=bytes(32)), "V04", "SESSION_ID_MISMATCH"),
    "another suite": Lie(lambda it: replace(it, suite="FROST/other"), "V04", "SESSION_ID_MISMATCH"),
    "another network": Lie(lambda it: replace(it, network=Network.MAINNET), "V04", "SESSION_ID_MISMATCH"),
}
"""The session is not the one it should be."""
