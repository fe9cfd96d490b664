"""Makes records of what a failed ceremony's sealed messages prove; what they do not prove is left out here already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from coordinator.ceremony import CeremonyTask
from smpc.errors import Refused
from smpc.protocol.ceremony_faults import prove_fault
from smpc.protocol.ceremony_records import CeremonyFault, FaultProof, WrongCertificate, WrongFirstMessage, WrongShare
from smpc.protocol.pod_messages import Envelope, SessionHeader, ShareAccusation


class FaultCase:
    """One session's evidence: who took part, and what each sealed."""

    def __init__(self, header: SessionHeader, task: CeremonyTask, protocol: bytes) -> None:
        self._header = header
        self._task = task
        self._protocol = protocol

    def list_wrong_firsts(self, sealed: Mapping[int, Envelope], culprits: Iterable[int]) -> tuple[CeremonyFault, ...]:
        """Return a record for each first message that is wrong by itself; `sealed` by position."""
        return self._prove([(at, sealed[at], WrongFirstMessage()) for at in culprits])

    def list_wrong_certificates(
        self, sealed: Mapping[int, Envelope], broadcast: bytes, culprits: Iterable[int]
    ) -> tuple[CeremonyFault, ...]:
        """Return a record for each second message that signs another transcript than the broadcast's."""
        return self._prove([(at, sealed[at], WrongCertificate(broadcast)) for at in culprits])

    def list_wrong_shares(
        self, sealed: Mapping[int, Envelope], accusations: Mapping[int, Sequence[ShareAccusation]]
    ) -> tuple[CeremonyFault, ...]:
        """Return a record for each accused whose accuser proves it; `accusations` by the accuser's position."""
        return self._prove(
            [
                (each.accused, sealed[each.accused], self._name(accuser, each))
                for accuser, told in sorted(accusations.items())
                for each in told
                if each.accused in sealed
            ]
        )

    def _name(self, accuser: int, accusation: ShareAccusation) -> FaultProof:
        if not accusation.complaint:
            return WrongFirstMessage()
        return WrongShare(self._task.seats[accuser].identity, accusation.complaint)

    def _prove(self, claims: Sequence[tuple[int, Envelope, FaultProof]]) -> tuple[CeremonyFault, ...]:
        """Keep the first claim about each member that holds."""
        proven: dict[int, CeremonyFault] = {}
        for at, message, proof in claims:
            accused = self._task.seats[at].identity
            fault = CeremonyFault(self._header, self._task.host_keys, accused, message, proof)
            if at not in proven and self._is_proven(fault):
                proven[at] = fault
        return tuple(proven[at] for at in sorted(proven))

    def _is_proven(self, fault: CeremonyFault) -> bool:
        announced = {seat.identity: seat.host_key for seat in self._task.seats}
        try:
            prove_fault(fault, protocol=self._protocol, announced=announced, threshold=self._task.threshold)
        except Refused:
            return False
        return True
