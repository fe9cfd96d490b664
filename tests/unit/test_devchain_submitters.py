"""Which roles may submit which records to the embedded consensus layer."""

from __future__ import annotations

import typing

from smpc.host.peer import PeerRole
from smpc.node.devchain.servicer import SUBMITTERS
from smpc.protocol.records import EpochAnnounced, Record
from smpc.protocol.verdict_records import EvidenceRecorded, PreimageRevealed, RejectionSigned


def test_every_record_but_the_proposers_own_can_be_submitted_by_a_participant_or_a_coordinator() -> None:
    allowed = SUBMITTERS[PeerRole.PARTICIPANT] | SUBMITTERS[PeerRole.COORDINATOR]
    assert set(typing.get_args(Record)) - allowed == {EpochAnnounced}


def test_an_operator_executes_an_emergency_and_reports_an_offence_without_a_coordinator() -> None:
    assert {EvidenceRecorded, PreimageRevealed, RejectionSigned} <= SUBMITTERS[PeerRole.OPERATOR]


def test_a_user_submits_what_concerns_accounts_only() -> None:
    assert SUBMITTERS[PeerRole.USER].isdisjoint({EvidenceRecorded, PreimageRevealed, RejectionSigned})
    assert SUBMITTERS[PeerRole.CONSENSUS] == frozenset()
