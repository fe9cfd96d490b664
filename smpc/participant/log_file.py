"""Where a pod's signing log lies, and when one may begin empty: a new pod's, or by the operator's own word."""

from __future__ import annotations

from typing import Final

from smpc.errors import Conflict
from smpc.host.process import lock_data_directory
from smpc.participant.config import PodConfig
from smpc.participant.keystore import read_keystore_identity
from smpc.participant.signing_log import SigningLog
from smpc.types import IdentityKey

LOG_NAME: Final = "log.sqlite"


def open_signing_log(config: PodConfig, identity: IdentityKey) -> SigningLog:
    """Open the pod's signing log; create it only where none was ever opened beside this keystore.

    A log that vanished is no new pod's: what it forbade is partly known to the ledger alone, so an operator decides.
    """
    path = config.data_dir / LOG_NAME
    if not path.exists() and not (config.data_dir / _MARKER_NAME).exists():
        return _create(config, identity)
    return SigningLog.open(path, network=config.network, identity=identity)


def begin_new_signing_log(config: PodConfig) -> IdentityKey:
    """Create an empty log in the place of one that is lost; the identity it is bound to.

    The next start merges every standing intent of the ledger into it before anything is signed. Conflict while the pod
    runs, and while the old file is still there: even a damaged one may be repaired.
    """
    path = config.data_dir / LOG_NAME
    identity = read_keystore_identity(config.keystore)
    with lock_data_directory(config.data_dir):
        if path.exists():
            raise Conflict(
                f"the signing log {path} is still there", remedy="move it away first and keep it: it may be repaired"
            )
        _create(config, identity, is_successor=True).close()
    return identity


_MARKER_NAME: Final = f"{LOG_NAME}.created"
"""Stays when a log vanishes, so that its loss is noticed."""


def _create(config: PodConfig, identity: IdentityKey, *, is_successor: bool = False) -> SigningLog:
    path = config.data_dir / LOG_NAME
    opened = SigningLog.create(path, network=config.network, identity=identity, is_successor=is_successor)
    (config.data_dir / _MARKER_NAME).touch(mode=0o600)
    return opened
