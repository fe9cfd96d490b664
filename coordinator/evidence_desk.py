"""Writes an evidence bundle for everyone whom a round proves at fault: one file each, for anyone to verify offline."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import Final, Protocol

import structlog

from coordinator.evidence_case import Case, build_evidence
from coordinator.patience import wait_for_dependency
from smpc.curve import SecretKey, compute_xonly_key, sign_schnorr
from smpc.errors import BridgeError, Conflict
from smpc.host.private_file import make_private_directory, sync_directory, write_private_file
from smpc.protocol.ceremony_records import HostKeyAnnounced
from smpc.protocol.evidence import Evidence, EvidenceBundle, compute_report_digest, parse_bundle
from smpc.protocol.ledger_views import RecordsPage
from smpc.protocol.records import Record
from smpc.protocol.verdict_records import EvidenceRecorded
from smpc.types import HostKey, KaonHeight, RecordId

log = structlog.get_logger()

DIRECTORY: Final = "evidence"
SUFFIX: Final = ".evidence"

MAX_FILES: Final = 500
"""Bundles kept. More say nothing that these do not; a liar is left out of rounds long before."""

MAX_WAITING: Final = 100
"""Cases not yet written: each holds a session's messages."""


class RecordSource(Protocol):
    """Where announcements of host keys are read and evidence goes: a `ConsensusNode`."""

    async def list_records(self, after: KaonHeight, kinds: Collection[type[Record]] = ()) -> RecordsPage:
        """Return the records of blocks above `after`, of the kinds named."""
        ...

    async def submit(self, record: Record, *, wait: bool = False) -> RecordId:
        """Offer a record for the next block; Conflict, Refused or InvalidInput when the ledger does not take it."""
        ...


class EvidenceStore:
    """The directory of bundles, each named by its hash and never overwritten."""

    def __init__(self, directory: Path, *, limit: int = MAX_FILES) -> None:
        self._directory = directory
        self._limit = limit

    def list_files(self) -> tuple[Path, ...]:
        """Return every bundle's path, by name."""
        return tuple(sorted(self._directory.glob(f"*{SUFFIX}")))

    def keep(self, bundle: EvidenceBundle) -> Path | None:
        """Write a bundle down and return its path; None when it is kept already, or when there are enough."""
        path = self._directory / f"{bundle.bundle_id.hex()}{SUFFIX}"
        if path.exists() or len(self.list_files()) >= self._limit:
            return None
        make_private_directory(self._directory)
        fresh = path.with_suffix(f".{os.getpid()}.new")
        fresh.unlink(missing_ok=True)
        write_private_file(fresh, bundle.serialise())
        try:
            path.hardlink_to(fresh)  # unlike a rename this never replaces what is there
        except FileExistsError:
            return None
        finally:
            fresh.unlink()
        sync_directory(self._directory)
        return path


class EvidenceDesk:
    """Takes cases from rounds without holding them up, and writes bundles of those that hold."""

    def __init__(
        self, store: EvidenceStore, secret: SecretKey, records: RecordSource, *, is_judged: bool = False
    ) -> None:
        """`secret` is the coordinator's envelope key: it signs the bundles as their reporter.

        `is_judged`: the chain punishes offences (its genesis arms), so evidence is submitted too.
        """
        self._is_judged = is_judged
        self._store = store
        self._secret = secret
        self._records = records
        self._cases: asyncio.Queue[Case] = asyncio.Queue(MAX_WAITING)
        self._announced: dict[HostKey, HostKeyAnnounced] = {}
        self._seen = KaonHeight(0)

    def take(self, case: Case) -> None:
        """Have a case looked at later; at once, and never in anyone's way."""
        try:
            self._cases.put_nowait(case)
        except asyncio.QueueFull:
            log.warning("evidence.dropped", reason="too many cases wait")

    async def run_forever(self) -> None:
        """Write down what comes and let the ledger judge it, until cancelled; first what an earlier run left."""
        for path in self._store.list_files() if self._is_judged else ():
            await self._submit_file(path)
        while True:
            case = await self._cases.get()
            await self._wait_for_announcements(case)
            written = await self.write(case)
            if written is not None and self._is_judged:
                await self._submit_file(written)

    async def write_waiting(self) -> None:
        """Write down what waits now."""
        while not self._cases.empty():
            await self.write(self._cases.get_nowait())

    async def write(self, case: Case) -> Path | None:
        """Write one case's bundle and return its path; None where there is none to write. Never raises for a case."""
        try:
            await self._read_announcements(case.host_keys)
            evidence = await asyncio.to_thread(build_evidence, case, self._announced)
            bundle = self._sign(evidence)
            path = await asyncio.to_thread(self._store.keep, bundle)
        except (BridgeError, OSError) as error:
            log.warning("evidence.failed", code=getattr(error, "code", type(error).__name__), reason=str(error))
            return None
        if path is not None:
            log.warning("evidence.written", file=path.name, kind=type(evidence).__name__)
        return path

    async def _wait_for_announcements(self, case: Case) -> None:
        """Read them, however long the consensus node is away; what else it answers `write` will hear again."""
        with contextlib.suppress(BridgeError):
            await wait_for_dependency(
                "consensus", lambda: self._read_announcements(case.host_keys), lambda _reason: None
            )

    async def _submit_file(self, path: Path) -> None:
        """Submit one bundle's evidence, however long the consensus node is away; never raises for a bundle."""
        try:
            bundle = parse_bundle(await asyncio.to_thread(path.read_bytes))
            record = EvidenceRecorded(bundle.evidence)
            await wait_for_dependency("consensus", lambda: self._records.submit(record), lambda _reason: None)
        except Conflict as known:
            log.debug("evidence.known", file=path.name, reason=known.message)
        except (BridgeError, OSError) as error:
            log.warning(
                "evidence.refused", file=path.name, code=getattr(error, "code", type(error).__name__), reason=str(error)
            )
        else:
            log.info("evidence.submitted", file=path.name)

    def _sign(self, evidence: Evidence) -> EvidenceBundle:
        reporter = compute_xonly_key(self._secret)
        signature = sign_schnorr(self._secret, compute_report_digest(evidence, reporter), os.urandom(32))
        return EvidenceBundle(evidence, reporter, signature)

    async def _read_announcements(self, wanted: Collection[HostKey]) -> None:
        """Read on in the chain until the announcements of these host keys are known, or nothing is left to read."""
        while not set(wanted) <= self._announced.keys():
            page = await self._records.list_records(self._seen, (HostKeyAnnounced,))
            for entry in page.entries:
                if isinstance(entry.record, HostKeyAnnounced):
                    self._announced.setdefault(entry.record.host_key, entry.record)
            if page.through <= self._seen:
                return
            self._seen = page.through


def _ignore(_reason: str) -> None:
    """Evidence that waits is no reason to promise less."""
