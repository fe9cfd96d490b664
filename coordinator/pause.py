"""Which flows the operator paused: kept in a file, so that a restart changes nothing about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import structlog

from coordinator.planner import PEGIN_FLOW, PEGOUT_FLOW, RECOVERY_FLOW, SWEEP_FLOW
from smpc.errors import ConfigError, InvalidInput, Refused
from smpc.host.private_file import read_private_file, replace_private_file

FLOWS: Final = frozenset({PEGIN_FLOW, PEGOUT_FLOW, RECOVERY_FLOW, SWEEP_FLOW})
FILE_NAME: Final = "paused.json"

log = structlog.get_logger()


class PauseSwitch:
    """The paused flows of this coordinator. `paused` is live: the driver holds it and sees every change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.paused: Final[set[str]] = _read(path)

    def turn(self, flow: str, *, is_paused: bool) -> None:
        """Pause or resume a flow, on disk first; InvalidInput when there is no such flow."""
        require_flow(flow)
        wanted = self.paused | {flow} if is_paused else self.paused - {flow}
        if wanted == self.paused:
            return
        replace_private_file(self._path, json.dumps(sorted(wanted)).encode() + b"\n")
        self.paused.clear()
        self.paused.update(wanted)
        log.warning("flow.turned", flow=flow, is_paused=is_paused)

    def require_running(self, flow: str, remedy: str = "try again when it is resumed") -> None:
        """Refuse while the operator paused the flow."""
        if flow in self.paused:
            raise Refused(f"the operator paused {flow}", code="PAUSED", rule="V05", remedy=remedy)


def require_flow(flow: str) -> None:
    """InvalidInput when there is no such flow."""
    if flow not in FLOWS:
        raise InvalidInput(f"there is no flow {flow[:40]!r}", remedy=f"name one of: {', '.join(sorted(FLOWS))}")


def _read(path: Path) -> set[str]:
    if not path.exists():
        return set()
    try:
        flows = json.loads(read_private_file(path))
    except ValueError:
        flows = None
    if not isinstance(flows, list) or any(flow not in FLOWS for flow in map(str, flows)):
        raise ConfigError(f"{path} does not list paused flows", remedy="write [] into it, or remove it")
    return set(flows)
