"""`peg coordinator run`, `peg explain`, `peg doctor`: for who runs the bridge, and for who wants to know why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType

from coordinator.cli.checks import Check, check_own_side
from coordinator.cli.command import command
from coordinator.cli.desk import Desk
from coordinator.cli.ids import parse_id
from coordinator.cli.output import Answer, build_table
from pegbridge.v1 import operator_pb2 as pb
from smpc.errors import BridgeError, ExitCode

coordinator_app = typer.Typer(help="The coordinator's own process.")

DOCTOR_SECONDS = 30.0
"""It asks every pod and every node."""


def add_commands(app: typer.Typer) -> None:
    """Add the commands that stand directly under `peg`."""
    command(app, "explain", examples=("peg explain ID", "peg explain TXID --json"))(explain)
    command(app, "doctor", examples=("peg doctor", "peg doctor --json"))(examine)


@command(
    coordinator_app,
    "run",
    schema="coordinator run",
    examples=("peg coordinator run --config coordinator/config.toml",),
)
async def run(
    desk: Desk,
    *,
    config: Annotated[Path, typer.Option(help="The coordinator's config.toml.")],
    parent: Annotated[int | None, typer.Option(help="End when this process, our parent, ends.")] = None,
) -> None:
    """Run a coordinator until SIGTERM. Its log goes to stderr, one JSON object a line."""
    from coordinator.app import run_coordinator
    from coordinator.config import ENV_PREFIX, CoordinatorConfig
    from smpc.host.config import load_config
    from smpc.host.log import configure_logging
    from smpc.host.process import die_with_parent, harden_process

    if parent is not None:
        die_with_parent(parent)
    harden_process(secrets=True)
    loaded = load_config(CoordinatorConfig, config, ENV_PREFIX)
    desk.output.network = loaded.network
    configure_logging(loaded.log_level, process="coordinator")
    await run_coordinator(loaded)


async def explain(
    desk: Desk,
    subject: Annotated[str, typer.Argument(help="A peg-in, peg-out, intent or transaction id, 64 hex digits.")],
) -> Answer:
    """Show every check that every pod made for a subject, with its verdict, and which pods did not answer."""
    wanted = parse_id(subject, "peg-in, peg-out, intent or transaction")
    reply = await _fetch_checks(desk, wanted)
    if not reply.checks:
        # A transaction id is shown reversed.
        reply = await _fetch_checks(desk, wanted[::-1])
    plain = [_to_plain(check) for check in reply.checks]
    silent = [{"pod": item.pod.hex(), "reason": item.reason} for item in reply.silent]
    data = {"subject": subject, "checks": plain, "silent": silent}
    return Answer(data, Group(_build_verdicts(plain), *(_say_silent(item) for item in silent)))


async def examine(desk: Desk) -> Answer:
    """Check everything the bridge needs: nodes, store, consensus layer, pods, certificates; exit code 7 on a fault."""
    checks = [*await check_own_side(desk), *await _ask_operator(desk)]
    data = {
        "is_ok": all(check.is_ok for check in checks),
        "findings": [
            {"name": check.name, "is_ok": check.is_ok, "detail": check.detail, "remedy": check.remedy}
            for check in checks
        ],
    }
    return Answer(data, _build_findings(checks), ExitCode.DONE if data["is_ok"] else ExitCode.CHECK_FAILED)


async def _fetch_checks(desk: Desk, subject: bytes) -> pb.OperatorServiceExplainResponse:
    request = pb.OperatorServiceExplainRequest(subject=subject)
    return await desk.operator.call(lambda stub: stub.Explain, request, seconds=DOCTOR_SECONDS)


async def _ask_operator(desk: Desk) -> list[Check]:
    try:
        reply = await desk.operator.call(lambda stub: stub.Doctor, pb.DoctorRequest(), seconds=DOCTOR_SECONDS)
    except BridgeError as error:
        return [Check("coordinator.reachable", False, error.message, error.remedy)]
    found = [Check(item.name, item.is_ok, item.detail, item.remedy) for item in reply.findings]
    return [
        Check("coordinator.reachable", True, desk.profile.operator.endpoint if desk.profile.operator else ""),
        *found,
    ]


def _to_plain(check: pb.PodCheck) -> dict[str, Any]:
    return {
        "pod": check.pod.hex(),
        "rule": check.rule,
        "is_ok": check.is_ok,
        "reason": check.reason,
        "detail": check.detail,
        "stage": check.stage,
        "kaon_height": check.kaon_height,
    }


def _build_verdicts(checks: Sequence[dict[str, Any]]) -> RenderableType:
    if not checks:
        return "no pod has judged this yet"
    table = build_table("rule", "stage", "pods that agree", "refused by", "reason")
    for rule, stage in sorted({(check["rule"], check["stage"]) for check in checks}):
        of_rule = [check for check in checks if (check["rule"], check["stage"]) == (rule, stage)]
        refused = [check for check in of_rule if not check["is_ok"]]
        table.add_row(
            rule,
            stage,
            str(len({check["pod"] for check in of_rule if check["is_ok"]})),
            " ".join(sorted({check["pod"][:8] for check in refused})),
            "; ".join(sorted({f"{check['reason']}: {check['detail']}" for check in refused})),
        )
    pods = len({check["pod"] for check in checks})
    return Group(table, f"{pods} pods, {len(checks)} checks; every single one with --json")


def _say_silent(item: Mapping[str, str]) -> str:
    reason = " ".join(item["reason"].split())  # on one line: nobody else's words look like a line of ours
    return f"pod {item['pod'][:8]} did not answer, its checks are missing: {reason}"


def _build_findings(checks: Sequence[Check]) -> RenderableType:
    table = build_table("check", "verdict", "seen", "what to do")
    for check in checks:
        table.add_row(check.name, "ok" if check.is_ok else "FAULT", check.detail, "" if check.is_ok else check.remedy)
    return table
