"""ChillDKG (BIP draft 0.3): distributed key generation through an untrusted coordinator.

    participant_step1 -> coordinator_step1 -> participant_step2 -> coordinator_finalize -> participant_finalize

Messages travel as bytes. Blame: a coordinator that holds messages signed by their senders proves a fault
(MemberFault); a member who sees only what the coordinator relays cannot tell the two apart (UnattributedFault) unless
the coordinator contradicts what the member itself sent (CoordinatorFault). After a mismatch of one's own share,
`participant_investigate` narrows the suspicion to one member, and `smpc.threshold.complaint` proves it to anyone where
first messages are signed.

One file per layer: `vss` (sharing) < `simplpedpop` (proofs of possession) < `encpedpop` (encryption) < `certeq`
(agreement) < the steps of members and coordinator, all offered here.
"""

from smpc.threshold.dkg_coordinator import (
    CoordinatorOutput,
    CoordinatorState,
    coordinator_finalize,
    coordinator_investigate,
    coordinator_step1,
    parse_participant_message1,
)
from smpc.threshold.dkg_participant import (
    ParticipantState1,
    ParticipantState2,
    ShareFault,
    participant_finalize,
    participant_investigate,
    participant_step1,
    participant_step2,
    verify_transcript_signature,
)
from smpc.threshold.dkg_recovery import coordinator_recover, participant_recover, verify_recovery_data
from smpc.threshold.group_key import DkgOutput, GroupKey, SecretShare
from smpc.threshold.params import SessionParams, hostpubkey_gen, params_hash

__all__ = [
    "CoordinatorOutput",
    "CoordinatorState",
    "DkgOutput",
    "GroupKey",
    "ParticipantState1",
    "ParticipantState2",
    "SecretShare",
    "SessionParams",
    "ShareFault",
    "coordinator_finalize",
    "coordinator_investigate",
    "coordinator_recover",
    "coordinator_step1",
    "hostpubkey_gen",
    "params_hash",
    "parse_participant_message1",
    "participant_finalize",
    "participant_investigate",
    "participant_recover",
    "participant_step1",
    "participant_step2",
    "verify_recovery_data",
    "verify_transcript_signature",
]
