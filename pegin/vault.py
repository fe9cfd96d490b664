"""Keys and trees of an epoch's outputs, which everyone derives from the recorded group keys (design.md 4 and 5)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from smpc.bitcoin import taproot
from smpc.bitcoin.taproot import GroupKeys, Timelocks, VaultTree
from smpc.errors import NotFound
from smpc.params import Params
from smpc.protocol.ledger_state import EpochEntry
from smpc.protocol.records import GroupInfo
from smpc.threshold.child_keys import (
    VAULT_RANGE_START,
    compute_emergency_index,
    compute_rejection_index,
    compute_vault_index,
    derive_child_xonly,
)
from smpc.types import ChildIndex, EpochNumber, PlainKey, Role, Sats, Script


@dataclass(frozen=True, slots=True)
class EpochKeys:
    """The three group keys of an epoch and its release hash: all that its addresses are made of."""

    epoch: EpochNumber
    validator: PlainKey
    witness: PlainKey
    emergency: PlainKey
    release_hash: bytes
    """`h = SHA256(r)`, 32 bytes."""

    @classmethod
    def from_entry(cls, entry: EpochEntry) -> EpochKeys:
        """Take the keys from the ledger's epoch; NotFound while a group has none."""
        return cls.from_groups(entry.number, entry.groups, entry.preimage_hash)

    @classmethod
    def from_groups(cls, epoch: EpochNumber, groups: Mapping[Role, GroupInfo], release_hash: bytes) -> EpochKeys:
        """Take the keys from three recorded groups; NotFound when one is missing."""
        missing = [role for role in Role if role not in groups]
        if missing:
            raise NotFound(
                f"epoch {epoch} has no {missing[0]} key yet", remedy="wait until its three group keys are recorded"
            )
        return cls(
            epoch=epoch,
            validator=groups[Role.VALIDATOR].group_key,
            witness=groups[Role.WITNESS].group_key,
            emergency=groups[Role.EMERGENCY].group_key,
            release_hash=release_hash,
        )

    def derive(self, child: ChildIndex) -> GroupKeys:
        """Return the child keys of the output whose index is `child`; InvalidInput outside the ranges."""
        return GroupKeys(
            v=derive_child_xonly(self.validator, child),
            w=derive_child_xonly(self.witness, child),
            wr=derive_child_xonly(self.witness, compute_rejection_index(child)),
            e=derive_child_xonly(self.emergency, compute_emergency_index(child)),
            release_hash=self.release_hash,
        )


def find_epoch_keys(epochs: Mapping[EpochNumber, EpochEntry], epoch: EpochNumber) -> EpochKeys:
    """Return an epoch's keys from the ledger; NotFound when the epoch or one of its keys is missing."""
    entry = epochs.get(epoch)
    if entry is None:
        raise NotFound(f"there is no epoch {epoch} on the ledger")
    return EpochKeys.from_entry(entry)


@functools.lru_cache(maxsize=1024)
def build_vault_tree(params: Params, keys: EpochKeys, position: int) -> VaultTree:
    """Return the tree of the vault output that stands at `position` of its transaction."""
    return taproot.build_vault_tree(keys.derive(compute_vault_index(position)), Timelocks.from_params(params))


def find_vault_scripts(params: Params, keys: EpochKeys) -> tuple[Script, ...]:
    """Return the scripts of every vault position a transaction of ours can have."""
    return tuple(build_vault_tree(params, keys, position).script for position in range(params.vault_outputs))


def is_vault_child(child: ChildIndex) -> bool:
    """Tell whether a child index is a vault output's, not an invoice's."""
    return child >= VAULT_RANGE_START


def split_value(total: Sats, count: int) -> tuple[Sats, ...]:
    """Split `total` into `count` parts that differ by at most one satoshi, the larger ones first."""
    share, rest = divmod(total, count)
    return tuple(Sats(share + (position < rest)) for position in range(count))
