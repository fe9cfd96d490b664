"""ChillDKG against the BIP draft's own vectors, error cases included: not only that it fails, but who is blamed.

The vectors' error types read here as: ValueError -> our InvalidInput, or the fault of whoever sent the bytes of wrong
length; FaultyParticipantError -> MemberFault; FaultyParticipantOrCoordinatorError -> UnattributedFault;
UnknownFaultyParticipantOrCoordinatorError -> ShareFault; FaultyCoordinatorError -> CoordinatorFault.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smpc.curve import SecretKey
from smpc.errors import BridgeError, CoordinatorFault, InvalidInput, MemberFault, UnattributedFault
from smpc.threshold.dkg import (
    DkgOutput,
    GroupKey,
    ParticipantState1,
    ParticipantState2,
    SessionParams,
    ShareFault,
    coordinator_finalize,
    coordinator_investigate,
    coordinator_recover,
    coordinator_step1,
    hostpubkey_gen,
    params_hash,
    participant_finalize,
    participant_investigate,
    participant_recover,
    participant_step1,
    participant_step2,
    verify_recovery_data,
)
from smpc.threshold.params import BadThreshold, InvalidHostKey, InvalidHostSecret
from smpc.types import HostKey

SHARED = Path(os.environ.get("PEG_SHARED", Path(__file__).resolve().parents[3] / "shared"))
VECTORS = SHARED / "vectors" / "chilldkg"

Case = dict[str, Any]

EXPECTED: dict[str, tuple[type[BridgeError], ...]] = {
    "ValueError": (InvalidInput, MemberFault, CoordinatorFault),
    "HostSeckeyError": (InvalidHostSecret, InvalidInput),
    "ThresholdOrCountError": (BadThreshold,),
    "InvalidHostPubkeyError": (InvalidHostKey,),
    "DuplicateHostPubkeyError": (InvalidHostKey,),
    "RandomnessError": (InvalidInput,),
    "RecoveryDataError": (InvalidInput,),
    "FaultyParticipantError": (MemberFault,),
    "FaultyCoordinatorError": (CoordinatorFault,),
    "FaultyParticipantOrCoordinatorError": (UnattributedFault,),
    "UnknownFaultyParticipantOrCoordinatorError": (ShareFault,),
}


def _load(name: str) -> list[Case]:
    """Return the file's groups; a file without groups is one group. Empty where the vectors are not present."""
    path = VECTORS / f"{name}_vectors.json"
    if not path.exists():
        return []
    data = json.loads(path.read_text())
    groups: list[Case] = data.get("testGroups", [data])
    return groups


def _cases(name: str, kind: str) -> list[Any]:
    cases = [(group, case) for group in _load(name) for case in group.get(kind, [])]
    if not cases:
        mark = pytest.mark.skip(reason=f"{VECTORS}/{name}_vectors.json is not there")
        return [pytest.param({}, {}, marks=mark)]
    return [pytest.param(group, case, id=f"{case['tcId']}-{case['comment']}") for group, case in cases]


def _valid(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("group", "case"), _cases(name, "validTestCases"))


def _errors(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("group", "case"), _cases(name, "errorTestCases"))


def _hex(text: str) -> bytes:
    return bytes.fromhex(text)


def _params(group: Case) -> SessionParams:
    params = group["params"]
    return SessionParams(tuple(HostKey(_hex(key)) for key in params["hostpubkeys"]), params["t"])


def _secret(text: str) -> SecretKey:
    return SecretKey.from_bytes(_hex(text))


def _expect(error: Case, action: Callable[[], object]) -> None:
    with pytest.raises(EXPECTED[error["type"]]) as caught:
        action()
    blamed = [error[key] for key in ("participantId", "participantId1", "participantId2") if key in error]
    if blamed:
        fault = caught.value
        named = fault.suspects if isinstance(fault, UnattributedFault) else fault.culprits()
        assert list(named) == blamed
    if error["type"] == "FaultyParticipantOrCoordinatorError":
        assert caught.value.culprits() == ()


def _check_group(group: GroupKey, expected: Case) -> None:
    assert group.threshold_pubkey == _hex(expected["threshPk"])
    assert list(group.public_shares) == [_hex(share) for share in expected["pubshares"]]


def _check_output(output: DkgOutput, expected: Case) -> None:
    _check_group(output.group, expected["dkgOutput"])
    assert output.share.secret == _secret(expected["dkgOutput"]["secshare"])
    assert output.recovery_data == _hex(expected["recoveryData"])


def _state1(group: Case) -> ParticipantState1:
    state, message = participant_step1(_secret(group["hostseckey"]), _params(group), _hex(group["random"]))
    assert message == _hex(group["pmsg1"])
    return state


def _state2(group: Case) -> ParticipantState2:
    secret, aux = _secret(group["hostseckey"]), _hex(group["auxRand"])
    state, signature = participant_step2(secret, _state1(group), _hex(group["cmsg1"]), aux)
    assert signature == _hex(group["pmsg2"])
    return state


@_valid("hostpubkey_gen")
def test_host_key_is_the_vectors(group: Case, case: Case) -> None:
    assert group
    assert hostpubkey_gen(_secret(case["hostseckey"])) == _hex(case["expectedHostpubkey"])


@_errors("hostpubkey_gen")
def test_bad_host_secret_is_refused(group: Case, case: Case) -> None:
    assert group
    _expect(case["expectedError"], lambda: hostpubkey_gen(_secret(case["hostseckey"])))


@_valid("params_hash")
def test_params_hash_is_the_vectors(group: Case, case: Case) -> None:
    assert group
    assert params_hash(_params(case)) == _hex(case["expectedParamsHash"])


@_errors("params_hash")
def test_bad_params_are_refused(group: Case, case: Case) -> None:
    assert group
    _expect(case["expectedError"], lambda: _params(case))


@_valid("participant_step1")
def test_step1_message_is_the_vectors(group: Case, case: Case) -> None:
    assert group
    _, message = participant_step1(_secret(case["hostseckey"]), _params(case), _hex(case["random"]))
    assert message == _hex(case["expectedPmsg1"])


@_errors("participant_step1")
def test_step1_refuses_what_the_vectors_refuse(group: Case, case: Case) -> None:
    assert group
    _expect(
        case["expectedError"],
        lambda: participant_step1(_secret(case["hostseckey"]), _params(case), _hex(case["random"])),
    )


@_valid("participant_step2")
def test_step2_message_is_the_vectors(group: Case, case: Case) -> None:
    secret, aux = _secret(group["hostseckey"]), _hex(group["auxRand"])
    _, signature = participant_step2(secret, _state1(group), _hex(case["cmsg1"]), aux)
    assert signature == _hex(case["expectedPmsg2"])


@_errors("participant_step2")
def test_step2_blames_whom_the_vectors_blame(group: Case, case: Case) -> None:
    merged = group | case
    secret, aux = _secret(merged["hostseckey"]), _hex(merged["auxRand"])
    state = _state1(group)
    _expect(case["expectedError"], lambda: participant_step2(secret, state, _hex(case["cmsg1"]), aux))


@_valid("participant_finalize")
def test_finalize_output_is_the_vectors(group: Case, case: Case) -> None:
    _check_output(participant_finalize(_state2(group), _hex(case["cmsg2"])), case["expectedOutput"])


@_errors("participant_finalize")
def test_finalize_blames_whom_the_vectors_blame(group: Case, case: Case) -> None:
    state = _state2(group)
    _expect(case["expectedError"], lambda: participant_finalize(state, _hex(case["cmsg2"])))


@_valid("coordinator_step1")
def test_coordinator_step1_message_is_the_vectors(group: Case, case: Case) -> None:
    messages = [_hex(group["pmsg1Pool"][i]) for i in case["pmsg1Indices"]]
    _, answer = coordinator_step1(messages, _params(case))
    assert answer == _hex(case["expectedCmsg1"])


@_errors("coordinator_step1")
def test_coordinator_step1_blames_whom_the_vectors_blame(group: Case, case: Case) -> None:
    messages = [_hex(group["pmsg1Pool"][i]) for i in case["pmsg1Indices"]]
    _expect(case["expectedError"], lambda: coordinator_step1(messages, _params(case)))


@_valid("coordinator_finalize")
def test_coordinator_finalize_output_is_the_vectors(group: Case, case: Case) -> None:
    state, answer = coordinator_step1([_hex(message) for message in group["pmsgs1"]], _params(group))
    assert answer == _hex(group["cmsg1"])
    signatures = [_hex(group["pmsg2Pool"][i]) for i in case["pmsg2Indices"]]
    certificate, output = coordinator_finalize(state, signatures)
    expected = case["expectedOutput"]
    assert certificate == _hex(expected["cmsg2"])
    assert output.recovery_data == _hex(expected["recoveryData"])
    _check_group(output.group, expected["dkgOutput"])


@_errors("coordinator_finalize")
def test_coordinator_finalize_blames_whom_the_vectors_blame(group: Case, case: Case) -> None:
    state, _ = coordinator_step1([_hex(message) for message in group["pmsgs1"]], _params(group))
    signatures = [_hex(group["pmsg2Pool"][i]) for i in case["pmsg2Indices"]]
    _expect(case["expectedError"], lambda: coordinator_finalize(state, signatures))


@_valid("coordinator_investigate")
def test_investigation_messages_are_the_vectors(group: Case, case: Case) -> None:
    messages = coordinator_investigate([_hex(message) for message in group["pmsgs1"]], _params(group))
    assert list(messages) == [_hex(message) for message in case["expectedCinvMsgs"]]


@_errors("participant_investigate")
def test_investigation_blames_whom_the_vectors_blame(group: Case, case: Case) -> None:
    message = _hex(group["cmsg1Pool"][case["cmsg1Index"]])
    with pytest.raises(ShareFault) as caught:
        participant_step2(_secret(group["hostseckey"]), _state1(group), message, _hex(group["auxRand"]))
    _expect(case["expectedError"], lambda: participant_investigate(caught.value, _hex(case["cinvMsg"])))


@_valid("recover")
def test_recovery_output_is_the_vectors(group: Case, case: Case) -> None:
    assert group
    expected, data = case["expectedOutput"], _hex(case["recoveryData"])
    public, params = coordinator_recover(data)
    assert params == _params(expected)
    _check_group(public, expected["dkgOutput"])
    assert verify_recovery_data(data, host_keys=params.host_keys, threshold=params.threshold) == public
    if case["hostseckey"] is not None:
        output, recovered = participant_recover(_secret(case["hostseckey"]), data)
        assert recovered == params
        assert output.group == public
        assert output.share.secret == _secret(expected["dkgOutput"]["secshare"])


@_errors("recover")
def test_recovery_refuses_what_the_vectors_refuse(group: Case, case: Case) -> None:
    assert group
    data = _hex(case["recoveryData"])
    if case["hostseckey"] is None:
        _expect(case["expectedError"], lambda: coordinator_recover(data))
    else:
        _expect(case["expectedError"], lambda: participant_recover(_secret(case["hostseckey"]), data))
