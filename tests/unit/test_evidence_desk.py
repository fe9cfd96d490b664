"""What a coordinator keeps of who lied to it: bundle files that anyone, in any process, judges the same."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from coordinator.evidence_case import Case, CeremonyCase, SigningCase
from coordinator.evidence_desk import MAX_WAITING, EvidenceDesk, EvidenceStore
from coordinator.signing_round import run_signing_round
from smpc.curve import compute_xonly_key
from smpc.errors import Conflict, ExitCode, Unavailable
from smpc.protocol.evidence import parse_bundle
from smpc.protocol.evidence_proof import Conviction, prove_offence
from smpc.protocol.ledger_views import RecordsPage
from smpc.protocol.offences import Offence
from smpc.protocol.records import Record
from smpc.protocol.verdict_records import EvidenceRecorded
from smpc.types import KaonHeight, RecordId, Role
from tests.support.evidence_world import Announcements
from tests.support.faulty_ceremony import open_session
from tests.support.pod_network import late
from tests.support.round_stage import CALM, RoundStage
from tests.support.virtual_loop import in_virtual_time


class DeskStage(RoundStage):
    """A signing round whose culprits end up on a desk."""

    def __init__(self, directory: Path) -> None:
        self.cases: list[Case] = []
        super().__init__(directory, self.cases.append)
        self.directory = directory / "evidence"
        self.epoch = self.pods.world.chain.epoch
        self.desk = self.open_desk()

    def open_desk(self, limit: int = 10) -> EvidenceDesk:
        store = EvidenceStore(self.directory, limit=limit)
        return EvidenceDesk(store, self.epoch.coordinator, Announcements(self.epoch.host_keys))

    async def catch(self, **changes: object) -> SigningCase:
        """Run a round in which the first member lies in round two; the case made of it."""
        self.lie(0, "Sign", **changes)
        self.let(3, late(self.network.signing, "Commit"))
        assert (await run_signing_round(self.voice, self.job(), policy=CALM)).is_signed
        self.network.signing.clear()
        case = self.cases[-1]
        assert isinstance(case, SigningCase)
        return case

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.directory.glob("*"))


@pytest.fixture
def stage(tmp_path: Path) -> DeskStage:
    return DeskStage(tmp_path)


@in_virtual_time
async def test_a_pod_that_lies_in_a_round_is_convicted_by_a_file(stage: DeskStage) -> None:
    case = await stage.catch(shares=bytes(64))
    with capture_logs() as logs:
        path = await stage.desk.write(case)
    assert path is not None
    assert [entry["event"] for entry in logs] == ["evidence.written"]
    bundle = parse_bundle(path.read_bytes())
    assert path.name == f"{bundle.bundle_id.hex()}.evidence"
    assert path.stat().st_mode & 0o777 == 0o600
    assert bundle.reporter == compute_xonly_key(stage.epoch.coordinator)
    conviction = prove_offence(bundle)
    assert isinstance(conviction, Conviction)
    assert conviction.offence is Offence.INVALID_SHARE
    assert conviction.accused == stage.epoch.groups[Role.VALIDATOR].info.members[0]
    assert stage.files == [path.name]


@in_virtual_time
async def test_a_pod_that_sends_no_points_as_nonces_is_convicted_by_a_file(stage: DeskStage) -> None:
    stage.lie(1, "Commit", nonces=b"\x04" + bytes(259))
    assert (await run_signing_round(stage.voice, stage.job(), policy=CALM)).is_signed
    (case,) = stage.cases
    path = await stage.desk.write(case)
    assert path is not None
    conviction = prove_offence(parse_bundle(path.read_bytes()))
    assert isinstance(conviction, Conviction)
    assert conviction.offence is Offence.INVALID_NONCE
    assert conviction.accused == stage.epoch.groups[Role.VALIDATOR].info.members[1]


@in_virtual_time
async def test_the_same_lie_is_written_once_and_nothing_is_overwritten(stage: DeskStage) -> None:
    case = await stage.catch(shares=bytes(64))
    path = await stage.desk.write(case)
    assert path is not None
    path.write_bytes(b"someone's notes")
    assert await stage.desk.write(case) is None
    assert path.read_bytes() == b"someone's notes"
    assert len(stage.files) == 1


@in_virtual_time
async def test_no_more_files_are_written_than_there_is_room_for(stage: DeskStage) -> None:
    first, second = await stage.catch(shares=bytes(64)), await stage.catch(shares=bytes(63) + b"\x01")
    desk = stage.open_desk(limit=1)
    assert await desk.write(first) is not None
    assert await desk.write(second) is None
    assert await stage.open_desk(limit=2).write(second) is not None
    assert len(stage.files) == 2


@in_virtual_time
async def test_what_nobody_else_could_verify_is_not_written(stage: DeskStage) -> None:
    """A liar that denies the context too, a member without a record, a transcript that lacks its half."""
    case = await stage.catch(shares=bytes(64), answered=bytes(32))
    assert await stage.desk.write(case) is None
    case = await stage.catch(shares=bytes(64))
    silent = EvidenceDesk(EvidenceStore(stage.directory), stage.epoch.coordinator, Announcements(()))
    assert await silent.write(case) is None
    cut = replace(case, culprit=replace(case.culprit, transcript=case.culprit.transcript[2:]))
    assert await stage.desk.write(cut) is None
    assert await stage.desk.write(replace(case, job=replace(case.job, recovery_data=b""))) is None
    assert stage.files == []
    assert await stage.desk.write(case) is not None


@in_virtual_time
async def test_an_honest_round_accuses_nobody(stage: DeskStage) -> None:
    assert (await run_signing_round(stage.voice, stage.job(), policy=CALM)).is_signed
    assert stage.cases == []


@in_virtual_time
async def test_a_wrong_message_in_a_ceremony_is_written_too(stage: DeskStage) -> None:
    session = open_session(stage.epoch)
    path = await stage.desk.write(CeremonyCase(session.accuse_share(1, 2), session.threshold))
    assert path is not None
    assert prove_offence(parse_bundle(path.read_bytes())).code == "INVALID_SHARE"


@in_virtual_time
async def test_more_cases_than_can_wait_are_dropped_and_said_so(stage: DeskStage) -> None:
    case = await stage.catch(shares=bytes(64))
    with capture_logs() as logs:
        for _ in range(MAX_WAITING + 1):
            stage.desk.take(case)
    assert [entry["event"] for entry in logs] == ["evidence.dropped"]
    await stage.desk.write_waiting()
    assert len(stage.files) == 1


class LostNode(Announcements):
    """A consensus node that is away for the first questions."""

    failures = 3

    async def list_records(self, after: KaonHeight, kinds: Collection[type[Record]] = ()) -> RecordsPage:
        self.failures -= 1
        if self.failures >= 0:
            raise Unavailable("no connection")
        return await super().list_records(after, kinds)


@in_virtual_time
async def test_a_case_outlives_the_consensus_nodes_absence(stage: DeskStage) -> None:
    case = await stage.catch(shares=bytes(64))
    store = EvidenceStore(stage.directory)
    desk = EvidenceDesk(store, stage.epoch.coordinator, LostNode(stage.epoch.host_keys))
    desk.take(case)
    running = asyncio.create_task(desk.run_forever())
    await asyncio.sleep(60)
    running.cancel()
    assert prove_offence(parse_bundle(store.list_files()[0].read_bytes())).offence is Offence.INVALID_SHARE


class JudgingNode(Announcements):
    """A consensus node that is away at first, and then has what it took already."""

    failures = 2

    async def submit(self, record: Record, *, wait: bool = False) -> RecordId:
        self.failures -= 1
        if self.failures >= 0:
            raise Unavailable("no connection")
        if record in self.submitted:
            raise Conflict("slashed already")
        return await super().submit(record, wait=wait)


async def run_for_a_while(desk: EvidenceDesk) -> None:
    running = asyncio.create_task(desk.run_forever())
    await asyncio.sleep(60)
    assert not running.done()
    running.cancel()


@in_virtual_time
async def test_what_is_written_reaches_the_ledger_and_again_after_a_restart(stage: DeskStage) -> None:
    case, node = await stage.catch(shares=bytes(64)), JudgingNode(stage.epoch.host_keys)
    store = EvidenceStore(stage.directory)
    desk = EvidenceDesk(store, stage.epoch.coordinator, node, is_judged=True)
    desk.take(case)
    await run_for_a_while(desk)
    bundle = parse_bundle(store.list_files()[0].read_bytes())
    assert node.submitted == [EvidenceRecorded(bundle.evidence)]
    (stage.directory / ("0" * 64 + ".evidence")).write_bytes(b"someone's notes")
    with capture_logs() as logs:
        await run_for_a_while(EvidenceDesk(store, stage.epoch.coordinator, node, is_judged=True))
    assert [entry["event"] for entry in logs] == ["evidence.refused", "evidence.known"]
    assert len(node.submitted) == 1


@in_virtual_time
async def test_a_chain_that_judges_nobody_is_told_nothing(stage: DeskStage) -> None:
    case, node = await stage.catch(shares=bytes(64)), JudgingNode(stage.epoch.host_keys)
    desk = EvidenceDesk(EvidenceStore(stage.directory), stage.epoch.coordinator, node)
    desk.take(case)
    await run_for_a_while(desk)
    assert stage.files
    assert not node.submitted
    assert node.failures == 2


@in_virtual_time
async def test_another_process_comes_to_the_same_verdict(stage: DeskStage) -> None:
    path = await stage.desk.write(await stage.catch(shares=bytes(64)))
    assert path is not None
    here = prove_offence(parse_bundle(path.read_bytes()))
    assert isinstance(here, Conviction)
    told = [ask_another_process(path) for _ in range(2)]
    assert told[0] == told[1]
    assert told[0]["accused"] == here.accused.hex()
    assert told[0]["session"] == here.session.hex()
    assert (told[0]["offence"], told[0]["is_proven"], told[0]["standing"]) == ("invalid_share", True, "consistent")


def ask_another_process(path: Path) -> dict[str, Any]:
    """Return what `peg verify-evidence` says where nothing but the file is known."""
    program = "from coordinator.cli.app import main; main()"
    words = ["verify-evidence", str(path), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=path.parent, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == ExitCode.DONE, done.stderr.decode()
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["schema"] == "peg.verify-evidence/1"
    data: dict[str, Any] = document["data"]
    return data
