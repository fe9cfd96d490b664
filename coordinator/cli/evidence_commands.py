"""`peg verify-evidence`: judges an evidence bundle offline, and with a profile by the user's own consensus node too."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Final, Protocol, TypeVar

import typer

from coordinator.cli.command import command
from coordinator.cli.desk import Desk
from coordinator.cli.output import Answer
from smpc.errors import BridgeError, ExitCode, InvalidInput, NotFound, Refused
from smpc.node.genesis import load_genesis
from smpc.params import Params
from smpc.protocol.ceremony_records import HostKeyAnnounced
from smpc.protocol.evidence import MAX_BUNDLE_SIZE, Evidence, EvidenceBundle, parse_bundle
from smpc.protocol.evidence_anchor import Anchor, SpendAnchor, find_doubts, find_spend_doubts, read_header
from smpc.protocol.evidence_proof import Conviction, prove_offence
from smpc.protocol.ledger_views import EpochView, RecordsPage
from smpc.protocol.pod_messages import compute_protocol_hash
from smpc.protocol.records import Genesis, Record
from smpc.protocol.spend_evidence import UnauthorisedSpend
from smpc.protocol.spend_proof import GroupConviction
from smpc.protocol.verdict_records import EvidenceRecorded
from smpc.types import EpochNumber, GroupId, KaonHeight, Role, to_display_hex


class LedgerNode(Protocol):
    """What is asked of the user's own consensus node (`smpc.node.consensus`)."""

    async def fetch_epoch(self, number: EpochNumber | None = None) -> EpochView:
        """Return an epoch; NotFound when there is none."""
        ...

    async def list_records(self, after: KaonHeight, kinds: Collection[type[Record]] = ()) -> RecordsPage:
        """Return the records of blocks above `after`, of the kinds named."""
        ...


R = TypeVar("R", HostKeyAnnounced, EvidenceRecorded)

OfflineOption = Annotated[bool, typer.Option("--offline", help="Ask no node, also with a profile.")]

CONSISTENT: Final = "consistent"
VERIFIED: Final = "verified"


def add_commands(app: typer.Typer) -> None:
    """Add the commands that stand directly under `peg`."""
    examples = ("peg verify-evidence FILE", "peg verify-evidence FILE --offline --json")
    command(app, "verify-evidence", examples=examples)(verify)


async def verify(
    desk: Desk,
    file: Annotated[Path, typer.Argument(help="An evidence bundle, as a coordinator or pod wrote it.")],
    *,
    offline: OfflineOption = False,
) -> Answer:
    """Say what an evidence bundle proves against whom; exit code 7 when it proves nothing, 2 for a damaged file.

    *proven* rests on the accused's own signatures alone and is the same everywhere. *verified*: the user's own
    consensus node knows the accused's group; without it the verdict is *consistent*.
    """
    return await judge_file(desk, file, offline=offline)


async def judge_file(desk: Desk, file: Path, *, offline: bool) -> Answer:
    """Return the verdict on a file; InvalidInput when it is damaged."""
    bundle = parse_bundle(_read(file))
    anchor, note = (None, "no node was asked") if offline else await _find_anchor(desk, bundle)
    return judge_bundle(bundle, anchor, note)


def judge_bundle(bundle: EvidenceBundle, anchor: Anchor | SpendAnchor | None, note: str = "") -> Answer:
    """Return the verdict: by the bundle alone, and by what the user's own node knows where it was asked."""
    data: dict[str, Any] = {"bundle": bundle.bundle_id.hex(), "reporter": bundle.reporter.hex()}
    try:
        conviction = prove_offence(bundle)
    except Refused as refusal:
        data |= {"is_proven": False, "code": refusal.code, "reason": refusal.message}
        return Answer(data, f"not proven: {refusal.message} ({refusal.code})", ExitCode.CHECK_FAILED)
    doubts = () if anchor is None else _list_doubts(bundle.evidence, anchor)
    reason = "; ".join(doubts)
    if anchor is None and conviction.rests_on:
        reason = f"it rests on the group's {conviction.rests_on}, which only a consensus node knows"
    standing = VERIFIED if anchor is not None and not doubts else CONSISTENT
    return _show(data, conviction, standing=standing, note=note, reason=reason)


def _list_doubts(evidence: Evidence, anchor: Anchor | SpendAnchor) -> tuple[str, ...]:
    if isinstance(evidence, UnauthorisedSpend):
        assert isinstance(anchor, SpendAnchor)  # fetched for this evidence
        return find_spend_doubts(evidence, anchor)
    assert isinstance(anchor, Anchor)
    return find_doubts(evidence, anchor)


async def fetch_spend_anchor(node: LedgerNode, params: Params, evidence: UnauthorisedSpend) -> SpendAnchor:
    """Return what a consensus node knows of an epoch's keys, and whether its ledger judged the spend already.

    Which records allow a transaction only the ledger can say; where it took the evidence, none did.
    """
    record_id = EvidenceRecorded(evidence).record_id
    records = await _fetch_records(node, EvidenceRecorded)
    is_judged = any(item.record_id == record_id for item in records)
    doubt = "" if is_judged else "my node's ledger has not judged this evidence: a record may allow the transaction"
    try:
        view = await node.fetch_epoch(evidence.output.epoch)
    except NotFound:
        return SpendAnchor(params.network, None, b"", doubt)
    keys = {group.role: group.info.group_key for group in view.groups if group.info is not None}
    if keys.keys() != set(Role):
        return SpendAnchor(params.network, None, b"", doubt)
    named = (keys[Role.VALIDATOR], keys[Role.WITNESS], keys[Role.EMERGENCY])
    return SpendAnchor(params.network, named, view.preimage_hash, doubt)


async def fetch_anchor(node: LedgerNode, genesis: Genesis, params: Params, group: GroupId) -> Anchor:
    """Return what a consensus node knows of a group, epoch and members."""
    try:
        view = await node.fetch_epoch(group.epoch)
        (found,) = (each for each in view.groups if each.role is group.role)
        threshold, info = found.threshold, found.info
    except NotFound:
        threshold, info = None, None
    return Anchor(
        protocol=compute_protocol_hash(params),
        coordinators=frozenset(genesis.coordinators),
        validators=frozenset(item.identity for item in genesis.validators),
        announced=await _fetch_announced(node, group),
        threshold=threshold,
        info=info,
    )


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_BUNDLE_SIZE + 1)
    except OSError as error:
        raise InvalidInput(f"cannot read {file}: {error.strerror}", remedy="check the path") from error


async def _find_anchor(desk: Desk, bundle: EvidenceBundle) -> tuple[Anchor | SpendAnchor | None, str]:
    """Return what the user's own node knows of the group, or why it was not asked; never raises."""
    if not desk.profile_path.is_file():
        return None, "there is no profile that names a consensus node"
    try:
        evidence = bundle.evidence
        header = evidence if isinstance(evidence, UnauthorisedSpend) else read_header(evidence)
        if desk.profile.network is not header.network:
            return None, f"the profile is for {desk.profile.network}, the evidence of {header.network}"
        if isinstance(header, UnauthorisedSpend):
            return await fetch_spend_anchor(desk.consensus, desk.params, header), ""
        genesis = load_genesis(desk.profile.genesis)
        return await fetch_anchor(desk.consensus, genesis, desk.params, header.group), ""
    except BridgeError as error:
        return None, f"no consensus node was asked: {error.message}"


async def _fetch_announced(node: LedgerNode, group: GroupId) -> frozenset[HostKeyAnnounced]:
    return frozenset(each for each in await _fetch_records(node, HostKeyAnnounced) if each.group == group)


async def _fetch_records(node: LedgerNode, kind: type[R]) -> list[R]:
    found: list[R] = []
    seen, is_complete = KaonHeight(0), False
    while not is_complete:
        page = await node.list_records(seen, (kind,))
        found += [entry.record for entry in page.entries if isinstance(entry.record, kind)]
        seen, is_complete = page.through, page.through <= seen
    return found


def describe_conviction(conviction: Conviction | GroupConviction) -> dict[str, Any]:
    """Return who is accused of what, as JSON; groups have no single accused and no session but a transaction."""
    told = {"offence": conviction.offence.value, "code": conviction.code, "accused": "", "session": "", "txid": ""}
    if isinstance(conviction, GroupConviction):
        roles = " and ".join(conviction.roles)
        return told | {"epoch": conviction.epoch, "role": roles, "txid": to_display_hex(conviction.txid)}
    group = conviction.group
    named = {"accused": conviction.accused.hex(), "session": conviction.session.hex()}
    return told | {"epoch": group.epoch, "role": group.role.value, **named}


def _show(
    data: dict[str, Any], conviction: Conviction | GroupConviction, *, standing: str, note: str, reason: str
) -> Answer:
    told = describe_conviction(conviction)
    data |= {
        "is_proven": not reason,
        **told,
        "rule": conviction.rule,
        "standing": standing,
        "reason": reason,
        "note": note,
    }
    head = f"not proven: {reason}" if reason else f"proven: {conviction.offence.value} ({conviction.code})"
    who = f"{told['accused']}, {told['role']}" if told["accused"] else told["role"]
    lines = (
        head,
        f"accused  {who} of epoch {told['epoch']}",
        f"session  {told['session']}" if told["session"] else f"spend    {told['txid']}",
        f"rule     {conviction.rule}",
        f"standing {standing}" + (f": {note}" if note else ""),
    )
    return Answer(data, "\n".join(lines), ExitCode.CHECK_FAILED if reason else ExitCode.DONE)
