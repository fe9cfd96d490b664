"""What a run cost: fees of its transactions from the node, durations of its ceremonies and rounds from the logs."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from coordinator.demo.stage import Stage
from smpc.bitcoin.amount import parse_btc

_LOG_LINES: Final = "20000"


@dataclass(frozen=True, slots=True)
class TransactionCost:
    """One transaction: its kind, size in virtual bytes, fee in satoshi."""

    txid: str
    kind: str
    vbytes: int
    fee_sats: int

    @property
    def milli_rate(self) -> int:
        """Fee rate in thousandths of a satoshi per virtual byte."""
        return self.fee_sats * 1_000 // self.vbytes


@dataclass(frozen=True, slots=True)
class Duration:
    """How long a ceremony or a signing round took."""

    what: str
    millis: int


def fetch_costs(stage: Stage, transactions: Mapping[str, str]) -> tuple[TransactionCost, ...]:
    """Ask the node what every transaction weighed and paid."""
    costs = []
    for txid, kind in transactions.items():
        found = stage.bitcoin("getrawtransaction", txid, 2)
        costs.append(TransactionCost(txid, kind, int(found["vsize"]), parse_btc(found["fee"])))
    return tuple(costs)


def read_ceremonies(stage: Stage, pods: Iterable[str]) -> tuple[Duration, ...]:
    """Return every finished key ceremony: from the first member that began to the last that holds its share."""
    begun: dict[tuple[Any, ...], dt.datetime] = {}
    ended: dict[tuple[Any, ...], dt.datetime] = {}
    for pod in pods:
        for event in _read_events(stage, pod):
            key = (event.get("epoch"), event.get("role"), event.get("attempt"))
            if event.get("event") == "ceremony.begun":
                begun[key] = min(begun.get(key, _time(event)), _time(event))
            elif event.get("event") == "ceremony.certified":
                ended[key] = max(ended.get(key, _time(event)), _time(event))
    return tuple(
        Duration(f"key ceremony of epoch {epoch} {role}", _millis(ended[epoch, role, attempt] - start))
        for (epoch, role, attempt), start in sorted(begun.items(), key=lambda item: str(item[0]))
        if (epoch, role, attempt) in ended
    )


def read_rounds(stage: Stage) -> tuple[Duration, ...]:
    """Return every signing round the coordinator finished, in order."""
    return tuple(
        Duration(f"signing {event['purpose']} by {event['role']}", int(event["millis"]))
        for event in _read_events(stage, "coordinator")
        if event.get("event") == "round.finished"
    )


def _read_events(stage: Stage, process: str) -> Iterator[dict[str, Any]]:
    for line in stage.peg("devnet", "logs", process, "--lines", _LOG_LINES, quiet=True)["lines"]:
        if line.startswith("{"):
            event = json.loads(line)
            if isinstance(event, dict):
                yield event


def _time(event: Mapping[str, Any]) -> dt.datetime:
    return dt.datetime.fromisoformat(event["timestamp"])


def _millis(length: dt.timedelta) -> int:
    return length // dt.timedelta(milliseconds=1)
