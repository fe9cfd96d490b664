"""`peg incident list|show|report`: evidence that was written down, judged anew here, and by the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from coordinator.cli.command import command
from coordinator.cli.desk import Desk
from coordinator.cli.evidence_commands import OfflineOption, describe_conviction, judge_file
from coordinator.cli.ids import parse_id
from coordinator.cli.jail_commands import punishment_to_plain
from coordinator.cli.output import Answer, build_table
from coordinator.cli.submission import submit_until_final
from coordinator.devnet.layout import DevnetLayout
from coordinator.evidence_desk import DIRECTORY, SUFFIX, EvidenceStore
from smpc.errors import BridgeError, Conflict, InvalidInput, NotFound, Refused
from smpc.node.consensus import ConsensusNode
from smpc.node.final_chain import replay_chain
from smpc.node.genesis import load_genesis
from smpc.protocol.evidence import parse_bundle
from smpc.protocol.evidence_proof import Conviction, prove_offence
from smpc.protocol.ledger import Ledger
from smpc.protocol.verdict_records import EvidenceRecorded
from smpc.protocol.verdict_state import Penalty

_KNOWN: Final = frozenset({"ALREADY_RECORDED", "SLASHED_ALREADY", "PUNISHED_ALREADY"})
"""What the ledger says of evidence that changes nothing any more."""

app = typer.Typer(help="Offences that were proven: evidence bundles.")

DirectoryOption = Annotated[
    Path | None,
    typer.Option("--directory", help="Where the bundles lie.", show_default="the devnet coordinator's"),
]


@command(
    app, "list", schema="incident list", examples=("peg incident list", "peg incident list --directory DIR --json")
)
async def list_incidents(desk: Desk, *, directory: DirectoryOption = None) -> Answer:
    """List every evidence bundle with its verdict, by the bundle alone, and what the ledger made of it."""
    ledger = await _find_ledger(desk)
    files = EvidenceStore(_find_directory(desk, directory)).list_files()
    incidents = [_describe(path) | describe_judged(ledger, path) for path in files]
    table = build_table("incident", "offence", "accused", "group", "verdict", "ledger")
    for item in incidents:
        group = f"{item['role']} {item['epoch']}" if item["is_proven"] else ""
        verdict = item["reason"] or "proven"
        table.add_row(item["incident"], item["offence"], item["accused"], group, verdict, say_judged(item))
    return Answer({"incidents": incidents}, table if incidents else "no incidents")


@command(
    app, "show", schema="incident show", examples=("peg incident show ID", "peg incident show ID --offline --json")
)
async def show_incident(
    desk: Desk,
    incident: Annotated[str, typer.Argument(help="The incident's id, 64 hex digits.")],
    *,
    directory: DirectoryOption = None,
    offline: OfflineOption = False,
) -> Answer:
    """Show one bundle's verdict, as `peg verify-evidence` gives it; exit code 7 when it proves nothing."""
    name = parse_id(incident, "incident").hex()
    path = _find_directory(desk, directory) / f"{name}{SUFFIX}"
    if not path.is_file():
        raise NotFound(f"there is no incident {name}", remedy="see peg incident list")
    answer = await judge_file(desk, path, offline=offline)
    judged = describe_judged(None if offline else await _find_ledger(desk), path)
    return Answer({**answer.data, **judged}, f"{answer.shown}\nledger   {say_judged(judged)}", answer.exit_code)


@command(
    app, "report", schema="incident report", examples=("peg incident report FILE", "peg incident report FILE --json")
)
async def report_incident(
    desk: Desk, file: Annotated[Path, typer.Argument(help="An evidence bundle, as a coordinator or pod wrote it.")]
) -> Answer:
    """Hand a bundle to the ledger, which slashes the author of a proven offence; twice is the same as once.

    Exit code 7 when it proves nothing: then it is not handed in. 3 when the ledger refuses it.
    """
    before = await judge_file(desk, file, offline=True)
    try:
        # What the bundle shows by itself; whose groups they are, and what records allow, the ledger knows.
        prove_offence(bundle := parse_bundle(file.read_bytes()))
    except Refused:
        return before
    record = EvidenceRecorded(bundle.evidence)
    ledger = await _find_ledger(desk)
    is_known = ledger is not None and ledger.find_record(record.record_id) is not None
    is_new = not is_known and await hand_in(desk.reporting, record, desk.output.note)
    answer, judged = await judge_file(desk, file, offline=False), describe_judged(await _find_ledger(desk), file)
    data = {**answer.data, "record": record.record_id.hex(), "is_new": is_new, **judged}
    return Answer(data, f"{answer.shown}\nledger   {say_judged(judged)}")


async def hand_in(consensus: ConsensusNode, record: EvidenceRecorded, note: Callable[[str], None]) -> bool:
    """Submit evidence and wait until its block is final; False when it, or its author's slashing, stood before.

    Refused as the ledger says; TimedOut when its block does not become final in time.
    """
    try:
        await submit_until_final(consensus, record, note)
    except Conflict as known:
        if known.code not in _KNOWN:
            raise
        return False
    return True


def describe_judged(ledger: Ledger | None, path: Path) -> dict[str, Any]:
    """Return what the ledger did about a bundle; null in every field while it could not be asked.

    `punishments` follow from this very record; `is_slashed` also tells of one whose author was slashed for another.
    """
    nothing: dict[str, Any] = {"is_recorded": None, "is_slashed": None, "punishments": None}
    try:
        bundle = parse_bundle(path.read_bytes())
        conviction = prove_offence(bundle)
    except (InvalidInput, Refused, OSError):
        return nothing
    if ledger is None:
        return nothing
    record = EvidenceRecorded(bundle.evidence).record_id
    known = ledger.judgements.punishments
    own = [item for each in known.values() for item in each if item.evidence == record]
    accused = known.get(conviction.accused, ()) if isinstance(conviction, Conviction) else own
    return {
        "is_recorded": ledger.find_record(record) is not None,
        "is_slashed": any(item.penalty is Penalty.SLASHED for item in accused),
        "punishments": [punishment_to_plain(item) for item in own],
    }


def say_judged(judged: Mapping[str, Any]) -> str:
    """Say in a few words what the ledger did about a bundle."""
    if judged["is_recorded"] is None:
        return "not asked"
    if not judged["is_recorded"]:
        return "slashed for other evidence" if judged["is_slashed"] else "not reported"
    told = [
        f"{item['identity'][:8]} {item['penalty']} in block {item['kaon_height']}" for item in judged["punishments"]
    ]
    return ", ".join(told) or "recorded"


async def _find_ledger(desk: Desk) -> Ledger | None:
    """Return the ledger by the user's own consensus node; None without a profile or while the node is away."""
    if not desk.profile_path.is_file():
        return None
    try:
        genesis = load_genesis(desk.profile.genesis)
        return (await replay_chain(desk.consensus, genesis, desk.params)).ledger
    except BridgeError as error:
        desk.output.note(f"the ledger was not asked: {error.message}")
        return None


def _find_directory(desk: Desk, directory: Path | None) -> Path:
    return directory or DevnetLayout(desk.data_dir).coordinator.directory / DIRECTORY


def _describe(path: Path) -> dict[str, Any]:
    """Return one file's row; also of a file that is damaged, so that nobody overlooks it."""
    found: dict[str, Any] = {
        "incident": path.stem,
        "is_proven": False,
        "offence": "",
        "code": "",
        "accused": "",
        "epoch": None,
        "role": "",
        "session": "",
        "txid": "",
        "reason": "",
    }
    try:
        conviction = prove_offence(parse_bundle(path.read_bytes()))
    except (InvalidInput, Refused, OSError) as error:
        return found | {"reason": str(error)}
    return found | describe_conviction(conviction) | {"is_proven": True}
