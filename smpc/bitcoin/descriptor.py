"""An invoice or a vault output as one standard `tr()` descriptor (BIP 380, 386) that any descriptor wallet imports."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from smpc.bitcoin.descriptor_checksum import add_checksum, verify_checksum
from smpc.bitcoin.key_origin import UserKey, parse_user_key
from smpc.bitcoin.script import MARKER_TAG, NUMS_KEY
from smpc.bitcoin.taproot import (
    GroupKeys,
    InvoiceTree,
    Timelocks,
    VaultTree,
    build_invoice_tree,
    build_vault_tree,
)
from smpc.errors import InvalidInput
from smpc.types import TermsHash, XOnlyKey

_MAX_LENGTH: Final = 4_000
_REMEDY: Final = "take the descriptor from the invoice as it was issued"


@dataclass(frozen=True, slots=True)
class InvoiceDescriptor:
    """What an invoice's descriptor says: its tree, and the refund key with its origin."""

    tree: InvoiceTree
    user: UserKey


def build_invoice_descriptor(tree: InvoiceTree, user: UserKey) -> str:
    """Return the invoice's `tr()` descriptor with checksum; InvalidInput when `user` holds another refund key."""
    if user.key != tree.user_key:
        raise InvalidInput("the origin given belongs to another key than this invoice's refund key")
    return add_checksum(_write_invoice(tree, str(user)))


def build_vault_descriptor(tree: VaultTree) -> str:
    """Return a vault output's `tr()` descriptor with checksum."""
    keys, locks = tree.keys, tree.locks
    recovery = f"and_v(v:pk({keys.v.hex()}),and_v(v:pk({keys.e.hex()}),older({locks.recovery})))"
    inner = f"{{{{{recovery},{_write_rejection(keys, locks)}}},{_write_transfer(keys, locks)}}}"
    return add_checksum(f"tr({NUMS_KEY.hex()},{inner})")


def parse_invoice_descriptor(text: str) -> InvoiceDescriptor:
    """Read an invoice's descriptor back; only exactly what `build_invoice_descriptor` writes is accepted.

    InvalidInput for a missing or wrong checksum, other forms, locks that lock nothing, bad keys, a missing origin.
    The recovery lock is in no invoice and comes back as the largest possible.
    """
    found = _match(_INVOICE, text)
    user = parse_user_key(found["user"])
    locks = Timelocks(int(found["emergency"]), int(found["transfer"]), int(found["refund"]), 0xFFFF)
    tree = build_invoice_tree(
        _read_keys(found), user_key=user.key, terms_hash=TermsHash(bytes.fromhex(found["terms"])), locks=locks
    )
    if _write_invoice(tree, found["user"]) != text[:-9]:
        raise InvalidInput("descriptor repeats a key, hash or lock with different values", remedy=_REMEDY)
    return InvoiceDescriptor(tree, user)


def parse_vault_descriptor(text: str) -> VaultTree:
    """Read a vault output's descriptor back; only exactly what `build_vault_descriptor` writes is accepted.

    InvalidInput as for `parse_invoice_descriptor`. The refund lock is in no vault output and comes back as the largest
    possible.
    """
    found = _match(_VAULT, text)
    locks = Timelocks(int(found["emergency"]), int(found["transfer"]), 0xFFFF, int(found["recovery"]))
    tree = build_vault_tree(_read_keys(found), locks)
    if build_vault_descriptor(tree) != text:
        raise InvalidInput("descriptor repeats a key, hash or lock with different values", remedy=_REMEDY)
    return tree


def _write_invoice(tree: InvoiceTree, user: str) -> str:
    keys, locks = tree.keys, tree.locks
    terms = f"sha256({tree.terms_hash.hex()})"
    marker = f"and_v(v:pk({NUMS_KEY.hex()}),and_v(v:sha256({MARKER_TAG.hex()}),{terms}))"
    refund = f"and_v(v:pk({user}),older({locks.refund}))"
    inner = f"{{{{{{{marker},{refund}}},{_write_rejection(keys, locks)}}},{_write_transfer(keys, locks)}}}"
    return f"tr({NUMS_KEY.hex()},{inner})"


def _write_transfer(keys: GroupKeys, locks: Timelocks) -> str:
    return f"and_v(v:pk({keys.v.hex()}),and_v(v:pk({keys.w.hex()}),older({locks.transfer})))"


def _write_rejection(keys: GroupKeys, locks: Timelocks) -> str:
    inner = f"and_v(v:pk({keys.wr.hex()}),and_v(v:pk({keys.e.hex()}),older({locks.emergency})))"
    return f"and_v(v:sha256({keys.release_hash.hex()}),{inner})"


def _match(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    if len(text) > _MAX_LENGTH or not verify_checksum(text):
        raise InvalidInput("descriptor has no or a wrong checksum", remedy=_REMEDY)
    found = pattern.fullmatch(text[:-9])
    if not found:
        raise InvalidInput("descriptor is not of the bridge's form", remedy=_REMEDY)
    return found


def _read_keys(found: re.Match[str]) -> GroupKeys:
    v, w, wr, e = (XOnlyKey(bytes.fromhex(found[name])) for name in ("v", "w", "wr", "e"))
    return GroupKeys(v, w, wr, e, bytes.fromhex(found["release"]))


def _compile(template: str) -> re.Pattern[str]:
    """Turn a template into a pattern: `<name>` is 32 bytes of hex, `<#name>` a block count, `<@name>` a user key."""
    return re.compile(_PLACE.sub(lambda place: f"(?P<{place[2]}>{_FORMS[place[1]]})", re.escape(template)))


_PLACE: Final = re.compile(r"<(|@|\\#)(\w+)>")
_FORMS: Final = {"": "[0-9a-f]{64}", "\\#": "0|[1-9][0-9]{0,9}", "@": r"(?:\[[^\]]{1,400}\])?[0-9a-f]{1,200}"}
_MARKER: Final = f"and_v(v:pk({NUMS_KEY.hex()}),and_v(v:sha256({MARKER_TAG.hex()}),sha256(<terms>)))"
_REFUND: Final = "and_v(v:pk(<@user>),older(<#refund>))"
_REJECTION: Final = "and_v(v:sha256(<release>),and_v(v:pk(<wr>),and_v(v:pk(<e>),older(<#emergency>))))"
_TRANSFER: Final = "and_v(v:pk(<v>),and_v(v:pk(<w>),older(<#transfer>)))"
_RECOVERY: Final = "and_v(v:pk(<v2>),and_v(v:pk(<e2>),older(<#recovery>)))"

_INVOICE: Final = _compile(f"tr({NUMS_KEY.hex()},{{{{{{{_MARKER},{_REFUND}}},{_REJECTION}}},{_TRANSFER}}})")
_VAULT: Final = _compile(f"tr({NUMS_KEY.hex()},{{{{{_RECOVERY},{_REJECTION}}},{_TRANSFER}}})")
