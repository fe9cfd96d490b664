"""ChillDKG's recovery data: public, self-authenticating, and with a host secret key enough to restore a share."""

from __future__ import annotations

from collections.abc import Sequence

from smpc.curve import ORDER, SecretKey, compute_point
from smpc.errors import InvalidInput, UnattributedFault
from smpc.threshold.certeq import find_wrong_signatures
from smpc.threshold.encpedpop import compute_receiving_pads, decrypt_share
from smpc.threshold.group_key import DkgOutput, GroupKey, SecretShare
from smpc.threshold.messages import RecoveryData
from smpc.threshold.params import SessionParams
from smpc.types import HostKey


def participant_recover(host_secret: SecretKey, recovery_data: bytes) -> tuple[DkgOutput, SessionParams]:
    """Restore a member's share from its host secret key and public recovery data (ChillDKG `participant_recover`).

    Whoever calls it compares the parameters with what it expects. InvalidInput for bad recovery data,
    InvalidHostSecret for a non-member.
    """
    data, params, group, tweak = _open_recovery_data(recovery_data)
    position = params.find_position(host_secret)
    try:
        pads = compute_receiving_pads(host_secret, params, position, data.nonce_keys)
    except UnattributedFault as error:
        raise InvalidInput(f"recovery data: {error.message}") from error
    share = decrypt_share((data.encrypted_shares[position] + tweak) % ORDER, pads, position)
    if compute_point(share) != group.commitment.compute_public_share(position):
        raise InvalidInput("the recovery data holds a share that we never signed")
    return DkgOutput(group, SecretShare(position, share), bytes(recovery_data)), params


def coordinator_recover(recovery_data: bytes) -> tuple[GroupKey, SessionParams]:
    """Restore the public output alone (ChillDKG `coordinator_recover`); InvalidInput for bad recovery data."""
    _, params, group, _ = _open_recovery_data(recovery_data)
    return group, params


def verify_recovery_data(recovery_data: bytes, *, host_keys: Sequence[HostKey], threshold: int) -> GroupKey:
    """Check a ceremony's public record against the members and threshold expected, and return the group's key.

    Needs no secret: all `n` signatures of the certificate are verified. InvalidInput for malformed data
    (`BAD_LENGTH`, `INVALID_ARGUMENT`), a wrong signature (`INVALID_CERTIFICATE`) or another group's data
    (`WRONG_GROUP`); whoever presents such data is at fault, never the members named in it.
    """
    group, params = coordinator_recover(recovery_data)
    if params.host_keys != tuple(host_keys) or params.threshold != threshold:
        raise InvalidInput("the recovery data is of another group, order or threshold", code="WRONG_GROUP")
    return group


def _open_recovery_data(recovery_data: bytes) -> tuple[RecoveryData, SessionParams, GroupKey, int]:
    data = RecoveryData.from_bytes(recovery_data)
    try:
        params = SessionParams(tuple(HostKey(key) for key in data.host_keys), data.threshold)
    except InvalidInput as error:
        raise InvalidInput(f"recovery data: {error.message}") from error
    wrong = find_wrong_signatures(params, data.to_transcript_bytes(), data.certificate)
    if wrong:
        raise InvalidInput(
            f"the certificate's signatures at positions {wrong} are wrong",
            code="INVALID_CERTIFICATE",
            remedy="get the recovery data from another member or from the ledger",
        )
    tweaked, tweak = data.commitment.compute_taproot_tweaked()
    return data, params, GroupKey(params.host_keys, tweaked), tweak
