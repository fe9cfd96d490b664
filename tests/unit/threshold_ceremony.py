"""A key ceremony with all members in one process, so that a test can interfere at any step."""

from __future__ import annotations

from dataclasses import replace

from smpc.curve import ORDER, SecretKey
from smpc.threshold.dkg import (
    DkgOutput,
    ParticipantState1,
    SessionParams,
    coordinator_finalize,
    coordinator_step1,
    hostpubkey_gen,
    participant_finalize,
    participant_step1,
    participant_step2,
)
from smpc.threshold.messages import ParticipantMessage1
from tests.unit.threshold_groups import seed


class Ceremony:
    """A ceremony of `size` members up to the point where a test interferes."""

    def __init__(self, threshold: int, size: int, label: object = 0) -> None:
        self.secrets = [SecretKey.generate(seed("host", label, member)) for member in range(size)]
        self.params = SessionParams(tuple(hostpubkey_gen(secret) for secret in self.secrets), threshold)
        self.states: list[ParticipantState1] = []
        self.messages: list[bytes] = []
        for member, secret in enumerate(self.secrets):
            state, message = participant_step1(secret, self.params, seed("step1", label, member))
            self.states.append(state)
            self.messages.append(message)

    def parse(self, member: int) -> ParticipantMessage1:
        """Return a member's first message, parsed."""
        return ParticipantMessage1.from_bytes(
            self.messages[member], threshold=self.params.threshold, size=self.params.size
        )

    def alter_share(self, sender: int, receiver: int) -> None:
        """Let `sender` send a wrong share to `receiver` alone."""
        message = self.parse(sender)
        shares = list(message.encrypted_shares)
        shares[receiver] = (shares[receiver] + 1) % ORDER
        self.messages[sender] = replace(message, encrypted_shares=tuple(shares)).to_bytes()

    def finish(self) -> list[DkgOutput]:
        """Run the rest honestly."""
        state, answer = coordinator_step1(self.messages, self.params)
        seconds = [
            participant_step2(secret, own, answer, seed("aux", member))
            for member, (secret, own) in enumerate(zip(self.secrets, self.states, strict=True))
        ]
        certificate, output = coordinator_finalize(state, [signature for _, signature in seconds])
        outputs = [participant_finalize(second, certificate) for second, _ in seconds]
        assert all(own.group == output.group for own in outputs)
        assert all(own.recovery_data == output.recovery_data for own in outputs)
        return outputs
