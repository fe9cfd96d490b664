"""Watches an emergency from outside, as anybody could, and notes when each of its steps was first seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from coordinator.demo.stage import Stage

SLASHED: Final = "slashed"
BOOKED: Final = "booked"


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that was seen for the first time."""

    seconds: float
    what: str


@dataclass(slots=True)
class Timeline:
    """What `peg jail list` and `peg emergency status` showed of one epoch, in the order in which it came."""

    epoch: int
    moments: list[Moment] = field(default_factory=list)
    slashed: list[dict[str, Any]] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)
    """Of the released epoch, as last seen."""
    _seen: set[str] = field(default_factory=set)

    def look(self, stage: Stage) -> bool:
        """Look once, mine a block where only a block brings it on; True when every output is booked."""
        verdicts = stage.peg("emergency", "status", str(self.epoch), quiet=True)["verdicts"]
        if not self.outputs:  # every look replays the ledger: what is settled is not asked for again
            self._look_at_jail(stage)
        for verdict in verdicts:
            self._note(stage, f"verdict on the {verdict['role']} group: {verdict['cause']}, {verdict['detail']}")
            if verdict["is_preimage_known"]:
                self._note(stage, "release: a member of the Emergency group publishes the preimage")
            self.outputs = verdict["outputs"] or self.outputs
        self._look_at_outputs(stage)
        return bool(self.outputs) and all(item["state"] == BOOKED for item in self.outputs)

    def note(self, stage: Stage, what: str) -> None:
        """Note something that the acts themselves saw."""
        self._note(stage, what)

    def _look_at_jail(self, stage: Stage) -> None:
        for item in stage.peg("jail", "list", quiet=True)["punishments"]:
            key = f"{item['identity']}/{item['penalty']}"
            if item["penalty"] == SLASHED and key not in self._seen:
                self._seen.add(key)
                self.slashed.append(item)
                text = f"{item['identity'][:16]} is slashed for {item['detail']}, proven by its own signatures"
                self._note(stage, text)

    def _look_at_outputs(self, stage: Stage) -> None:
        is_waiting = False
        for item in self.outputs:
            place = item["outpoint"][:12]
            if item["is_witness_signed"]:
                self._note(stage, f"rejection of {place}…: the Witness group signs what E had pre-signed")
            if item["txid"] is not None:
                self._note(
                    stage, f"emergency of {place}… is sent: {item['txid'][:16]}… to epoch {item['target_epoch']}"
                )
            if item["confirmations"]:
                self._note(stage, f"emergency of {place}… is confirmed")
            if item["state"] == BOOKED:
                self._note(stage, f"emergency of {place}… is booked")
            is_waiting = is_waiting or item["confirmations"] is not None
        if is_waiting:
            stage.peg("devnet", "mine", "1", quiet=True)

    def _note(self, stage: Stage, what: str) -> None:
        if what in self._seen:
            return
        self._seen.add(what)
        self.moments.append(Moment(round(stage.elapsed, 1), what))
        stage.console.print(f"{stage.elapsed:6.1f} s  {what}", style="green", markup=False)
