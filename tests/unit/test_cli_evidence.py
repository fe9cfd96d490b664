"""`peg verify-evidence`: what its exit code says, and what the user's own consensus node adds."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coordinator.cli.app import app
from coordinator.cli.command import run_app
from coordinator.cli.evidence_commands import fetch_anchor, fetch_spend_anchor, judge_bundle
from coordinator.evidence_desk import EvidenceStore
from smpc.errors import ExitCode
from smpc.params import REGTEST
from smpc.protocol.evidence import MAX_BUNDLE_SIZE, CeremonyOffence, EvidenceBundle
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_views import EpochView, RecordedEntry, RecordsPage, build_epoch_view
from smpc.protocol.records import Record
from smpc.protocol.verdict_records import EvidenceRecorded
from smpc.types import EpochNumber, GroupId, IdentityKey, KaonHeight, Role, to_display_hex
from tests.support.armed_world import ArmedWorld
from tests.support.desk_world import open_desk_world
from tests.support.evidence_world import EvidenceWorld, report
from tests.support.faulty_ceremony import open_session
from tests.support.groups import make_xonly
from tests.support.thefts import steal_vault

SIGNERS = (0, 1, 2)


@pytest.fixture
async def guilty(tmp_path: Path) -> EvidenceBundle:
    world = EvidenceWorld(tmp_path)
    return report(world.wrong_share(1, (await world.run(world.first, 1, SIGNERS))[1]))


@pytest.fixture
async def honest(tmp_path: Path) -> EvidenceBundle:
    directory = tmp_path / "honest"
    directory.mkdir()
    world = EvidenceWorld(directory)
    answer = (await world.run(world.first, 1, SIGNERS))[1]
    return report(replace(world.wrong_share(1, answer), answer=answer))


@pytest.fixture
def prone(tmp_path: Path) -> EvidenceBundle:
    """Return a bundle about a first message of another number of commitments than the ledger's threshold."""
    directory = tmp_path / "prone"
    directory.mkdir()
    world = EvidenceWorld(directory)
    session = open_session(world.epoch)
    announced = tuple(world.announced[key] for key in session.host_keys)
    return report(CeremonyOffence(session.accuse_first(2, bytes), announced, session.threshold - 1))


class Screen:
    """Runs the command on a file in a directory without a profile."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.file = directory / "some.evidence"
        self._directory = directory
        self._capsys = capsys

    def verify(self, content: bytes, *words: str) -> tuple[ExitCode, dict[str, Any]]:
        self.file.write_bytes(content)
        return self.ask("verify-evidence", str(self.file), *words)

    def ask(self, *words: str) -> tuple[ExitCode, dict[str, Any]]:
        self._capsys.readouterr()
        code = run_app(app, [*words, "--json", "--data-dir", str(self._directory / "nothing")])
        document: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        return code, document


@pytest.fixture
def screen(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Screen:
    monkeypatch.delenv("PEG_PROFILE", raising=False)
    return Screen(tmp_path, capsys)


def test_a_proven_offence_is_exit_code_zero_and_names_everything(screen: Screen, guilty: EvidenceBundle) -> None:
    code, document = screen.verify(guilty.serialise())
    assert code is ExitCode.DONE
    assert document["schema"] == "peg.verify-evidence/1"
    data = document["data"]
    assert (data["is_proven"], data["offence"], data["code"]) == (True, "invalid_share", "INVALID_SHARE")
    assert (data["epoch"], data["role"], data["standing"]) == (0, "validator", "consistent")
    assert data["bundle"] == guilty.bundle_id.hex()
    assert {"accused", "session", "rule", "reporter", "reason", "note"} <= set(data)
    assert screen.verify(guilty.serialise(), "--offline")[0] is ExitCode.DONE


def test_what_proves_nothing_is_exit_code_seven_with_the_reason(screen: Screen, honest: EvidenceBundle) -> None:
    code, document = screen.verify(honest.serialise())
    assert code is ExitCode.CHECK_FAILED
    assert document["data"]["is_proven"] is False
    assert document["data"]["reason"] == "every share verifies"


def test_a_damaged_or_endless_file_is_exit_code_two(screen: Screen, guilty: EvidenceBundle) -> None:
    data = guilty.serialise()
    for content, expected in (
        (b"", "NOT_A_BUNDLE"),
        (data[:-1], "DAMAGED"),
        (data + b"\n", "DAMAGED"),
        (bytes(MAX_BUNDLE_SIZE + 2), "TOO_LARGE"),
    ):
        code, document = screen.verify(content)
        assert code is ExitCode.USAGE
        assert document["error"]["code"] == expected


def test_what_only_the_threshold_decides_is_not_proven_without_a_node(screen: Screen, prone: EvidenceBundle) -> None:
    code, document = screen.verify(prone.serialise())
    assert code is ExitCode.CHECK_FAILED
    assert "threshold" in document["data"]["reason"]


def test_incidents_are_listed_with_their_verdicts_and_damaged_files_too(
    screen: Screen, tmp_path: Path, guilty: EvidenceBundle, honest: EvidenceBundle
) -> None:
    assert screen.ask("incident", "list")[1]["data"] == {"incidents": []}
    store = EvidenceStore(tmp_path / "nothing" / "coordinator" / "evidence")
    path = store.keep(guilty)
    assert path is not None
    assert store.keep(honest) is not None
    path.with_name(f"{'0' * 64}.evidence").write_bytes(b"rubbish")
    code, document = screen.ask("incident", "list")
    rows = {row["incident"]: row for row in document["data"]["incidents"]}
    assert code is ExitCode.DONE
    assert rows[guilty.bundle_id.hex()]["offence"] == "invalid_share"
    assert rows[honest.bundle_id.hex()]["reason"] == "every share verifies"
    assert rows["0" * 64]["reason"] == "this is no evidence bundle"
    assert [row["is_proven"] for row in rows.values()].count(True) == 1


def test_an_incident_is_shown_as_its_file_is_verified(screen: Screen, tmp_path: Path, guilty: EvidenceBundle) -> None:
    directory = tmp_path / "elsewhere"
    assert EvidenceStore(directory).keep(guilty) is not None
    name, where = guilty.bundle_id.hex(), ("--directory", str(directory))
    code, document = screen.ask("incident", "show", name, *where)
    assert (code, document["schema"]) == (ExitCode.DONE, "peg.incident.show/1")
    not_asked = {"is_recorded": None, "is_slashed": None, "punishments": None}
    assert document["data"] == screen.verify(guilty.serialise())[1]["data"] | not_asked
    assert screen.ask("incident", "show", "0" * 64, *where)[0] is ExitCode.NOT_FOUND
    assert screen.ask("incident", "show", name)[0] is ExitCode.NOT_FOUND


class JudgingNode:
    """A consensus node over a ledger in memory, and what its blocks hold."""

    def __init__(self, ledger: Ledger, *records: Record) -> None:
        self._ledger = ledger
        self._records = records

    async def fetch_epoch(self, number: EpochNumber | None = None) -> EpochView:
        return build_epoch_view(self._ledger, number)

    async def list_records(self, after: KaonHeight, kinds: Collection[type[Record]] = ()) -> RecordsPage:
        entries = tuple(RecordedEntry(KaonHeight(1), each) for each in self._records if type(each) in kinds)
        return RecordsPage(() if after else entries, KaonHeight(1))


def test_whose_group_signed_is_shown_offline_but_rests_on_the_ledger(screen: Screen) -> None:
    world = ArmedWorld.filled(500_000)
    stolen = steal_vault(world.ledger, world.armed.keyed[EpochNumber(0)])
    bundle = report(stolen.accuse(Role.VALIDATOR, Role.WITNESS))
    code, document = screen.verify(bundle.serialise())
    data = document["data"]
    assert code is ExitCode.CHECK_FAILED
    assert (data["offence"], data["role"], data["epoch"]) == ("unauthorised_spend", "validator and witness", 0)
    assert data["txid"] == to_display_hex(stolen.transaction.txid)
    assert (data["accused"], data["session"], data["standing"]) == ("", "", "consistent")
    assert "recorded keys and intents" in data["reason"]
    broken = report(replace(stolen.accuse(Role.VALIDATOR), validator_signature=bytes(64)))
    assert screen.verify(broken.serialise())[1]["data"]["code"] == "BAD_SIGNATURE"


async def test_a_node_whose_ledger_judged_the_spend_verifies_it() -> None:
    world = ArmedWorld.filled(500_000)
    evidence = steal_vault(world.ledger, world.armed.keyed[EpochNumber(0)]).accuse(Role.VALIDATOR)
    node = JudgingNode(world.ledger, EvidenceRecorded(evidence))
    answer = judge_bundle(report(evidence), await fetch_spend_anchor(node, REGTEST, evidence))
    assert (answer.exit_code, answer.data["standing"]) == (ExitCode.DONE, "verified")
    silent = JudgingNode(world.ledger)
    answer = judge_bundle(report(evidence), await fetch_spend_anchor(silent, REGTEST, evidence))
    assert (answer.exit_code, answer.data["standing"]) == (ExitCode.CHECK_FAILED, "consistent")
    assert "has not judged" in answer.data["reason"]
    for epoch in (1, 9):
        other = replace(evidence, output=replace(evidence.output, epoch=EpochNumber(epoch)))
        answer = judge_bundle(report(other), await fetch_spend_anchor(node, REGTEST, other))
        assert "the keys are not those recorded" in answer.data["reason"]


async def test_the_users_own_node_verifies_or_contradicts(guilty: EvidenceBundle, prone: EvidenceBundle) -> None:
    group = GroupId(EpochNumber(0), Role.VALIDATOR)
    async with open_desk_world() as world:
        anchor = await fetch_anchor(world.consensus, world.epoch.genesis, REGTEST, group)
        assert len(anchor.announced) == 4
        answer = judge_bundle(guilty, anchor)
        assert (answer.exit_code, answer.data["standing"]) == (ExitCode.DONE, "verified")
        false = judge_bundle(prone, anchor)
        assert (false.exit_code, false.data["reason"]) == (ExitCode.CHECK_FAILED, "the group's threshold is another")
        strange = replace(world.epoch.genesis, coordinators=(IdentityKey(make_xonly("another coordinator")),))
        doubted = judge_bundle(guilty, await fetch_anchor(world.consensus, strange, REGTEST, group))
        assert (doubted.exit_code, doubted.data["standing"]) == (ExitCode.CHECK_FAILED, "consistent")
        unknown = await fetch_anchor(
            world.consensus, world.epoch.genesis, REGTEST, GroupId(EpochNumber(9), Role.WITNESS)
        )
        assert (unknown.announced, unknown.threshold, unknown.info) == (frozenset(), None, None)
