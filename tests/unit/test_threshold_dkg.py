"""Key ceremonies as stories: who is named when a message is wrong, and what is never blamed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smpc.curve import INFINITY_BYTES, ORDER, SecretKey, verify_schnorr
from smpc.errors import Conflict, CoordinatorFault, InvalidInput, MemberFault, UnattributedFault
from smpc.threshold.complaint import ShareComplaint, participant_complain, verify_complaint
from smpc.threshold.dkg import (
    DkgOutput,
    SessionParams,
    ShareFault,
    coordinator_finalize,
    coordinator_investigate,
    coordinator_recover,
    coordinator_step1,
    participant_finalize,
    participant_investigate,
    participant_recover,
    participant_step1,
    participant_step2,
    verify_recovery_data,
)
from smpc.threshold.frost import SigningTask, TweakContext
from smpc.threshold.lagrange import compute_point_at_zero
from smpc.threshold.messages import CoordinatorMessage1, InvestigationMessage
from smpc.threshold.params import InvalidHostKey, InvalidHostSecret
from smpc.threshold.readiness import compute_readiness_sets
from smpc.types import HostKey
from tests.unit.threshold_ceremony import Ceremony
from tests.unit.threshold_groups import DealtGroup, deal_group, seed

OFF_CURVE = b"\x02" + bytes.fromhex("eefdea4cdb677750a420fee807eacf21eb9898ae79b9768766e4faa04a2d4a34")


def _to_group(outputs: list[DkgOutput]) -> DealtGroup:
    dealt = deal_group(outputs[0].group.threshold, outputs[0].group.size)
    return replace(dealt, key=outputs[0].group, shares=tuple(output.share for output in outputs))


@pytest.mark.parametrize(("threshold", "size"), [(1, 1), (1, 2), (2, 2), (2, 3), (3, 4), (5, 7)])
def test_a_ceremony_yields_a_key_that_signs(threshold: int, size: int) -> None:
    outputs = Ceremony(threshold, size, (threshold, size)).finish()
    group = _to_group(outputs)
    key = group.key.threshold_pubkey
    for signers in compute_readiness_sets(threshold, size):
        task = SigningTask(seed("ready"), TweakContext.from_group_key(key))
        signature = group.sign(signers, [task]).signatures[0]
        assert signature is not None
        assert verify_schnorr(key[1:], task.message, signature)
    assert [output.share.public_share for output in outputs] == list(group.key.public_shares)


def test_a_ceremony_of_a_hundred_yields_consistent_shares() -> None:
    outputs = Ceremony(67, 100, "hundred").finish()
    group = _to_group(outputs)
    task = SigningTask(seed("m"), TweakContext.from_group_key(group.key.threshold_pubkey))
    assert group.sign(tuple(range(33, 100)), [task]).is_complete
    chosen = tuple(range(67))
    points = [group.key.public_points[member] for member in chosen]
    assert compute_point_at_zero(chosen, points).to_bytes() == group.key.threshold_pubkey
    public = verify_recovery_data(outputs[0].recovery_data, host_keys=group.key.host_keys, threshold=67)
    assert public == group.key


def test_another_order_of_members_is_another_ceremony() -> None:
    ceremony = Ceremony(2, 3)
    swapped = SessionParams(tuple(reversed(ceremony.params.host_keys)), 2)
    _, message = participant_step1(ceremony.secrets[0], swapped, seed("step1", 0, 0))
    assert message != ceremony.messages[0]


class TestMalformedFirstMessages:
    """The coordinator holds each sender's own bytes, so it names the sender (cases A1, A3, A9)."""

    def _refuse(self, ceremony: Ceremony, member: int, data: bytes) -> MemberFault:
        ceremony.messages[member] = data
        with pytest.raises(MemberFault) as caught:
            coordinator_step1(ceremony.messages, ceremony.params)
        assert caught.value.culprits() == (member,)
        return caught.value

    @pytest.mark.parametrize("other", [1, 2, 4])
    def test_wrong_number_of_commitments(self, other: int) -> None:
        ceremony = Ceremony(3, 4)
        params = SessionParams(ceremony.params.host_keys, other)
        _, message = participant_step1(ceremony.secrets[2], params, seed("more"))
        assert self._refuse(ceremony, 2, message).code == "BAD_COMMITMENT_LENGTH"

    @pytest.mark.parametrize("change", [-1, 1, 32])
    def test_wrong_length_otherwise(self, change: int) -> None:
        ceremony = Ceremony(3, 4)
        data = (ceremony.messages[1] * 2)[: len(ceremony.messages[1]) + change]
        assert self._refuse(ceremony, 1, data).code == "BAD_LENGTH"

    def test_empty_message(self) -> None:
        assert self._refuse(Ceremony(3, 4), 0, b"").code in {"BAD_LENGTH", "BAD_COMMITMENT_LENGTH"}

    @pytest.mark.parametrize(
        "point", [INFINITY_BYTES, OFF_CURVE, b"\x02" + b"\xff" * 32, b"\x04" + bytes(32), b"\x00" + b"\x01" * 32]
    )
    @pytest.mark.parametrize("place", [0, 1, 2, "nonce"])
    def test_malformed_point(self, point: bytes, place: int | str) -> None:
        ceremony = Ceremony(3, 4)
        offset = 3 * 33 + 64 if place == "nonce" else int(place) * 33
        data = ceremony.messages[3]
        fault = self._refuse(ceremony, 3, data[:offset] + point + data[offset + 33 :])
        assert fault.code == "INVALID_ARGUMENT"

    def test_scalar_not_below_the_group_order(self) -> None:
        ceremony = Ceremony(3, 4)
        data = ceremony.messages[3]
        for scalar in (ORDER.to_bytes(32, "big"), b"\xff" * 32):
            assert self._refuse(ceremony, 3, data[:-32] + scalar).code == "INVALID_ARGUMENT"

    @pytest.mark.parametrize("kind", ["missing", "wrong", "for another place", "of an earlier ceremony"])
    def test_proof_of_possession(self, kind: str) -> None:
        ceremony = Ceremony(3, 4)
        pops = {
            "missing": bytes(64),
            "wrong": seed("r") + seed("s"),
            "for another place": ceremony.parse(0).pop,
            "of an earlier ceremony": Ceremony(3, 4, "earlier").parse(1).pop,
        }
        data = ceremony.messages[1]
        fault = self._refuse(ceremony, 1, data[:99] + pops[kind] + data[163:])
        assert fault.code == "INVALID_POK"

    def test_all_faulty_members_are_named_at_once(self) -> None:
        ceremony = Ceremony(3, 4)
        ceremony.messages[1] = b"short"
        ceremony.messages[3] = bytes(len(ceremony.messages[3]))
        with pytest.raises(MemberFault) as caught:
            coordinator_step1(ceremony.messages, ceremony.params)
        assert caught.value.culprits() == (1, 3)

    @pytest.mark.parametrize("count", [3, 5])
    def test_wrong_number_of_messages_is_the_callers_mistake(self, count: int) -> None:
        ceremony = Ceremony(3, 4)
        with pytest.raises(InvalidInput):
            coordinator_step1((ceremony.messages * 2)[:count], ceremony.params)

    def test_wrong_signature_names_its_author(self) -> None:
        ceremony = Ceremony(3, 4)
        state, answer = coordinator_step1(ceremony.messages, ceremony.params)
        signatures = [
            participant_step2(secret, own, answer, seed("aux"))[1]
            for secret, own in zip(ceremony.secrets, ceremony.states, strict=True)
        ]
        for wrong in (bytes(64), signatures[0], signatures[2][:63], b""):
            with pytest.raises(MemberFault) as caught:
                coordinator_finalize(state, [*signatures[:2], wrong, signatures[3]])
            assert caught.value.culprits() == (2,)


class TestWrongShare:
    """Cases A5 and A6: one wrong share is found, and a false claim harms nobody honest."""

    def _find(self) -> tuple[Ceremony, ShareFault]:
        ceremony = Ceremony(3, 4)
        ceremony.alter_share(sender=2, receiver=0)
        _, answer = coordinator_step1(ceremony.messages, ceremony.params)
        for member in (1, 2, 3):
            participant_step2(ceremony.secrets[member], ceremony.states[member], answer, seed("aux"))
        with pytest.raises(ShareFault) as caught:
            participant_step2(ceremony.secrets[0], ceremony.states[0], answer, seed("aux"))
        assert caught.value.culprits() == ()
        return ceremony, caught.value

    def test_investigation_suspects_the_sender(self) -> None:
        ceremony, fault = self._find()
        message = coordinator_investigate(ceremony.messages, ceremony.params)[0]
        with pytest.raises(UnattributedFault) as caught:
            participant_investigate(fault, message)
        assert caught.value.suspects == (2,)
        assert caught.value.culprits() == ()

    def test_investigation_finds_a_coordinator_that_made_it_up(self) -> None:
        ceremony, fault = self._find()
        honest = InvestigationMessage.from_bytes(coordinator_investigate(ceremony.messages, ceremony.params)[0], size=4)
        shares = list(honest.encrypted_shares)
        shares[1], shares[2] = shares[1] + 1, shares[2] - 1
        moved_blame = replace(honest, encrypted_shares=tuple(shares))
        with pytest.raises(UnattributedFault) as caught:
            participant_investigate(fault, moved_blame.to_bytes())
        assert caught.value.culprits() == ()
        shares[3] += 1
        for message in (replace(honest, encrypted_shares=tuple(shares)).to_bytes(), b"", bytes(65 * 4)):
            with pytest.raises(CoordinatorFault):
                participant_investigate(fault, message)

    def test_complaint_proves_it_to_anyone(self) -> None:
        ceremony, _ = self._find()
        params, message = ceremony.params, ceremony.messages[2]
        complaint = participant_complain(ceremony.secrets[0], params, 2, message, seed("aux"))
        parsed = ShareComplaint.from_bytes(complaint.to_bytes())
        assert verify_complaint(params, accuser=0, accused=2, accused_message=message, complaint=parsed)
        for accuser, accused in ((1, 2), (3, 2)):
            assert not verify_complaint(
                params, accuser=accuser, accused=accused, accused_message=message, complaint=parsed
            )
        for changed in (
            replace(parsed, response=parsed.response + 1),
            replace(parsed, challenge=parsed.challenge + 1),
            replace(parsed, shared_point=OFF_CURVE),
            replace(parsed, shared_point=params.host_keys[1]),
        ):
            assert not verify_complaint(params, accuser=0, accused=2, accused_message=message, complaint=changed)

    def test_false_claim_never_blames_an_honest_member(self) -> None:
        ceremony = Ceremony(3, 4)
        params, message = ceremony.params, ceremony.messages[1]
        with pytest.raises(InvalidInput, match="nothing to complain"):
            participant_complain(ceremony.secrets[0], params, 1, message, seed("aux"))
        # The accuser forges: a true proof about another message, or a made-up one.
        ceremony.alter_share(sender=2, receiver=0)
        other = participant_complain(ceremony.secrets[0], params, 2, ceremony.messages[2], seed("aux"))
        made_up = ShareComplaint(params.host_keys[3], 5, 7)
        for forged in (other, made_up):
            assert not verify_complaint(params, accuser=0, accused=1, accused_message=message, complaint=forged)

    def test_nobody_complains_about_itself_or_a_stranger(self) -> None:
        ceremony = Ceremony(3, 4)
        complaint = ShareComplaint(ceremony.params.host_keys[3], 5, 7)
        for accuser, accused in ((1, 1), (0, 4), (-1, 0), (4, 0)):
            with pytest.raises(InvalidInput):
                verify_complaint(
                    ceremony.params,
                    accuser=accuser,
                    accused=accused,
                    accused_message=ceremony.messages[0],
                    complaint=complaint,
                )

    @pytest.mark.parametrize("data", [b"", bytes(96), bytes(98), bytes(33) + b"\xff" * 64])
    def test_malformed_complaint_is_refused(self, data: bytes) -> None:
        with pytest.raises(InvalidInput):
            ShareComplaint.from_bytes(data)

    def test_the_ceremony_without_the_culprit_succeeds(self) -> None:
        self._find()
        outputs = Ceremony(3, 3, "without").finish()
        assert outputs[0].group.threshold == 3


class TestLyingCoordinator:
    """A member blames the coordinator only for what contradicts the member's own message."""

    def _answer(self) -> tuple[Ceremony, CoordinatorMessage1]:
        ceremony = Ceremony(3, 4)
        _, answer = coordinator_step1(ceremony.messages, ceremony.params)
        return ceremony, CoordinatorMessage1.from_bytes(answer, threshold=3, size=4)

    def _step2(self, ceremony: Ceremony, message: bytes) -> None:
        participant_step2(ceremony.secrets[0], ceremony.states[0], message, seed("aux"))

    @pytest.mark.parametrize("field", ["to_secrets", "nonce_keys"])
    def test_own_part_altered(self, field: str) -> None:
        ceremony, answer = self._answer()
        values = list(getattr(answer, field))
        values[0] = values[1]
        with pytest.raises(CoordinatorFault):
            self._step2(ceremony, replace(answer, **{field: tuple(values)}).to_bytes())

    def test_another_members_part_altered_only_raises_suspicion(self) -> None:
        ceremony, answer = self._answer()
        pops = (*answer.pops[:3], answer.pops[2])
        with pytest.raises(UnattributedFault) as caught:
            self._step2(ceremony, replace(answer, pops=pops).to_bytes())
        assert caught.value.suspects == (3,)
        assert caught.value.code == "INVALID_POK"
        assert caught.value.culprits() == ()

    @pytest.mark.parametrize("size", [0, 1, -1])
    def test_wrong_length(self, size: int) -> None:
        ceremony, answer = self._answer()
        data = answer.to_bytes()
        wrong = data + b"\x00" if size == 1 else data[:size]
        with pytest.raises(CoordinatorFault):
            self._step2(ceremony, wrong)

    def test_two_stories_for_two_members_cannot_be_certified(self) -> None:
        # Case A7: member 3 makes two first messages and the coordinator tells one to member 0, the other to the rest.
        ceremony = Ceremony(3, 4)
        _, second = participant_step1(ceremony.secrets[3], ceremony.params, seed("second"))
        state, answer = coordinator_step1(ceremony.messages, ceremony.params)
        _, other_answer = coordinator_step1([*ceremony.messages[:3], second], ceremony.params)
        told = (other_answer, answer, answer, answer)
        seconds = [
            participant_step2(ceremony.secrets[member], ceremony.states[member], told[member], seed("aux"))
            for member in range(4)
        ]
        certificate = [signature for _, signature in seconds]
        with pytest.raises(MemberFault):
            coordinator_finalize(state, certificate)
        for own, _ in seconds:
            with pytest.raises(CoordinatorFault):
                participant_finalize(own, b"".join(certificate))

    def test_incomplete_certificate_is_refused_and_the_full_one_still_accepted(self) -> None:
        # Case A13: a certificate that never came complete does not make a key; the state waits for the right one.
        ceremony = Ceremony(3, 4)
        state, answer = coordinator_step1(ceremony.messages, ceremony.params)
        seconds = [
            participant_step2(secret, own, answer, seed("aux"))
            for secret, own in zip(ceremony.secrets, ceremony.states, strict=True)
        ]
        certificate, _ = coordinator_finalize(state, [signature for _, signature in seconds])
        for bad in (certificate[:-64], certificate[:-64] + bytes(64), certificate + bytes(64), b""):
            with pytest.raises(CoordinatorFault):
                participant_finalize(seconds[0][0], bad)
        assert participant_finalize(seconds[0][0], certificate).group == state.group


class TestRecovery:
    """Host secret key plus public recovery data is the share (case A13)."""

    def test_every_member_restores_its_share(self) -> None:
        ceremony = Ceremony(3, 4)
        outputs = ceremony.finish()
        for secret, output in zip(ceremony.secrets, outputs, strict=True):
            recovered, params = participant_recover(secret, output.recovery_data)
            assert recovered.share.secret == output.share.secret
            assert recovered.share.position == output.share.position
            assert recovered.group == output.group
            assert params == ceremony.params

    def test_a_stranger_restores_nothing(self) -> None:
        outputs = Ceremony(3, 4).finish()
        with pytest.raises(InvalidHostSecret):
            participant_recover(SecretKey.generate(seed("stranger")), outputs[0].recovery_data)

    def test_any_changed_byte_is_noticed_and_no_member_blamed(self) -> None:
        data = Ceremony(2, 3).finish()[0].recovery_data
        for offset in range(0, len(data), 13):
            changed = data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]
            with pytest.raises(InvalidInput):
                coordinator_recover(changed)

    @pytest.mark.parametrize("size", [0, 3, 4, 100, -1])
    def test_truncated_data_is_refused(self, size: int) -> None:
        data = Ceremony(2, 3).finish()[0].recovery_data
        with pytest.raises(InvalidInput):
            coordinator_recover(data[:size])

    def test_data_of_another_group_is_refused(self) -> None:
        ceremony = Ceremony(3, 4)
        data = ceremony.finish()[0].recovery_data
        keys = ceremony.params.host_keys
        verify_recovery_data(data, host_keys=keys, threshold=3)
        for host_keys, threshold in ((keys, 2), (tuple(reversed(keys)), 3), (keys[:3], 3), ((), 3)):
            with pytest.raises(InvalidInput) as caught:
                verify_recovery_data(data, host_keys=host_keys, threshold=threshold)
            assert caught.value.code == "WRONG_GROUP"


class TestOwnMistakes:
    """What a caller must not do is refused before anything happens."""

    def test_state_is_used_once(self) -> None:
        ceremony = Ceremony(2, 2)
        _, answer = coordinator_step1(ceremony.messages, ceremony.params)
        participant_step2(ceremony.secrets[0], ceremony.states[0], answer, seed("aux"))
        with pytest.raises(Conflict):
            participant_step2(ceremony.secrets[0], ceremony.states[0], answer, seed("aux"))

    def test_wrong_secret_leaves_the_state_unused(self) -> None:
        ceremony = Ceremony(2, 2)
        _, answer = coordinator_step1(ceremony.messages, ceremony.params)
        with pytest.raises(InvalidHostSecret):
            participant_step2(ceremony.secrets[1], ceremony.states[0], answer, seed("aux"))
        participant_step2(ceremony.secrets[0], ceremony.states[0], answer, seed("aux"))

    @pytest.mark.parametrize("randomness", [b"", bytes(32), bytes(31)])
    def test_bad_randomness(self, randomness: bytes) -> None:
        ceremony = Ceremony(2, 2)
        with pytest.raises(InvalidInput):
            participant_step1(ceremony.secrets[0], ceremony.params, randomness)

    def test_duplicate_host_keys_name_both_members(self) -> None:
        keys = Ceremony(2, 3).params.host_keys
        with pytest.raises(InvalidHostKey) as caught:
            SessionParams((keys[0], keys[1], keys[0]), 2)
        assert caught.value.culprits() == (0, 2)

    @pytest.mark.parametrize("key", [INFINITY_BYTES, OFF_CURVE, b"", b"\x04" + bytes(64), b"\x02" + bytes(31)])
    def test_malformed_host_key_names_its_member(self, key: bytes) -> None:
        keys = Ceremony(2, 3).params.host_keys
        with pytest.raises(InvalidHostKey) as caught:
            SessionParams((keys[0], HostKey(key), keys[2]), 2)
        assert caught.value.culprits() == (1,)

    @pytest.mark.parametrize(("threshold", "size"), [(0, 3), (4, 3), (-1, 3), (1, 0)])
    def test_bad_threshold(self, threshold: int, size: int) -> None:
        with pytest.raises(InvalidInput):
            SessionParams(Ceremony(2, 3).params.host_keys[:size], threshold)

    def test_secrets_do_not_print(self) -> None:
        ceremony = Ceremony(3, 4)
        outputs = ceremony.finish()
        shown = repr(outputs) + repr(ceremony.states) + repr(ceremony.secrets)
        for output in outputs:
            assert output.share.secret.to_secret_bytes().hex() not in shown
