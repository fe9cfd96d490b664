"""Rounds among real processes: pods that hang, are killed and come back while money is on its way."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.devnet import RunningDevnet


def _pods_of(devnet: RunningDevnet, role: str) -> list[dict[str, Any]]:
    """Return the processes of a group's members, in the group's order."""
    pods = {}
    for process in devnet.peg("devnet", "status")["processes"]:
        if process["kind"] == "pod":
            keystore = json.loads((Path(process["data_dir"]) / "keystore.json").read_text(encoding="utf-8"))
            pods[keystore["public_key"]] = process
    (group,) = [each for each in devnet.peg("epoch", "show")["groups"] if each["role"] == role]
    return [pods[member] for member in group["members"]]


@contextmanager
def _frozen(*pods: dict[str, Any]) -> Iterator[None]:
    """Let processes hang: their sockets take questions and nothing ever comes back."""
    for pod in pods:
        os.kill(pod["pid"], signal.SIGSTOP)
    try:
        yield
    finally:
        for pod in pods:
            os.kill(pod["pid"], signal.SIGCONT)


def test_money_moves_while_one_pod_of_each_group_hangs(devnet: RunningDevnet) -> None:
    user = devnet.enter_user()
    validators, witnesses = _pods_of(devnet, "validator"), _pods_of(devnet, "witness")
    with _frozen(validators[0], witnesses[1]):
        assert devnet.credit(user, "0.02")["state"] == "booked"


def test_one_pod_too_many_hangs_and_the_same_peg_in_is_credited_once_it_is_back(devnet: RunningDevnet) -> None:
    """Nothing is broadcast in part, whoever is missing is named, and no one has to ask again (B12, G8)."""
    user = devnet.enter_user()
    validators = _pods_of(devnet, "validator")
    names = {validators[1]["name"], validators[2]["name"]}
    order = devnet.order(user, "0.03")
    devnet.pay(user, order["outputs"][0]["address"], "0.03")
    status = ("pegin", "status", order["id"])
    with _frozen(validators[1], validators[2]):
        for _ in range(4):
            devnet.mine()

        def is_named() -> bool:
            return any(name in str(devnet.peg(*status)["waiting_for"]) for name in names)

        devnet.wait(is_named, f"a line that names {' or '.join(sorted(names))}")
        assert devnet.peg(*status)["outputs"][0]["transfer_txid"] is None
    assert devnet.wait_state(status, "booked", mine=True)["state"] == "booked"


def test_a_pod_killed_in_the_middle_is_not_needed_and_signs_again_after_its_restart(devnet: RunningDevnet) -> None:
    user = devnet.enter_user()
    (first, second) = _pods_of(devnet, "validator")[:2]
    order = devnet.order(user, "0.02")
    devnet.pay(user, order["outputs"][0]["address"], "0.02")
    devnet.mine(3)
    devnet.peg("devnet", "kill", first["name"])
    assert devnet.wait_state(("pegin", "status", order["id"]), "booked", mine=True)["state"] == "booked"
    devnet.peg("devnet", "start", first["name"])
    devnet.peg("devnet", "stop", second["name"])
    try:
        assert devnet.credit(user, "0.02")["state"] == "booked", "the restarted pod is one of the three left"
    finally:
        devnet.peg("devnet", "start", second["name"])
