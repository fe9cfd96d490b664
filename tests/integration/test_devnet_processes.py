"""A devnet's processes: named, counted, stopped and started one by one, killed and brought back."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.devnet import RunningDevnet

MEBI = 1024


def _process(devnet: RunningDevnet, name: str) -> dict[str, Any]:
    (found,) = [item for item in devnet.peg("devnet", "status")["processes"] if item["name"] == name]
    return dict(found)


def _wait_ready(devnet: RunningDevnet) -> None:
    devnet.wait(lambda: bool(devnet.peg("devnet", "status")["ready"]), "a ready devnet")


def _resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(f"process {pid} has no resident memory")


def test_the_status_says_where_everything_is(devnet: RunningDevnet) -> None:
    status = devnet.peg("devnet", "status")

    assert status["ready"]
    assert set(status["bitcoind"]) == {"rpc_url", "cookie_file"}
    assert set(status["tls"]) == {"ca", "cert", "key"}
    assert status["consensus"]["endpoint"]
    assert status["coordinator"]["peg"] != status["coordinator"]["operator"]
    assert status["store"]["url"].startswith("redis://127.0.0.1:")
    kinds = [process["kind"] for process in status["processes"]]
    assert sorted(set(kinds)) == ["bitcoind", "consensus", "coordinator", "pod", "store"]
    assert kinds.count("pod") == 16
    for process in status["processes"]:
        assert process["state"] == "running"
        os.kill(process["pid"], 0)
        assert Path(process["data_dir"]).is_dir()


def test_a_pod_keeps_its_secrets_in_private_files(devnet: RunningDevnet) -> None:
    pod = Path(_process(devnet, "pod-01")["data_dir"])
    for name in ("keystore.json", "passphrase", "rpc-password", "tls/tls.key"):
        assert (pod / name).stat().st_mode & 0o077 == 0
    assert (pod / "log.sqlite").is_file()


def test_the_whole_devnet_stays_under_two_gigabytes_and_a_pod_under_one_hundred_megabytes(
    devnet: RunningDevnet,
) -> None:
    processes = devnet.peg("devnet", "status")["processes"]
    resident = {process["name"]: _resident_kib(process["pid"]) for process in processes}

    assert max(size for name, size in resident.items() if name.startswith("pod-")) < 100 * MEBI
    assert sum(resident.values()) < 2 * MEBI * MEBI


def test_a_stopped_pod_is_missed_and_comes_back(devnet: RunningDevnet) -> None:
    devnet.peg("devnet", "stop", "pod-16")

    status = devnet.peg("devnet", "status")
    assert not status["ready"]
    assert "pod-16 stopped" in status["waiting_for"]
    assert _process(devnet, "pod-16")["pid"] is None

    devnet.peg("devnet", "start", "pod-16")
    _wait_ready(devnet)


def test_up_brings_back_whatever_was_killed_from_outside(devnet: RunningDevnet) -> None:
    os.kill(_process(devnet, "pod-15")["pid"], signal.SIGKILL)
    devnet.wait(lambda: _process(devnet, "pod-15")["state"] == "exited", "the death of pod-15")
    assert _process(devnet, "pod-15")["exit_code"] == -signal.SIGKILL

    assert devnet.peg("devnet", "up")["ready"]
    assert _process(devnet, "pod-15")["starts"] == 2


def test_a_killed_node_comes_back_with_the_same_blocks(devnet: RunningDevnet) -> None:
    hashes = devnet.peg("devnet", "mine", "3")["blocks"]

    devnet.peg("devnet", "kill", "bitcoind")
    assert devnet.peg("devnet", "up")["ready"]

    height = devnet.bitcoin("getblockcount")
    assert devnet.bitcoin("getblockhash", height) == hashes[-1]
    assert devnet.peg("devnet", "mine")["btc_height"] == height + 1


def test_a_devnet_that_runs_is_not_made_anew_with_other_options(devnet: RunningDevnet) -> None:
    heard = devnet.try_peg("devnet", "up", "--pods", "13")
    assert heard.code == 2
    assert "16" in heard.error["message"]


@pytest.mark.parametrize("verb", ["start", "stop", "kill"])
def test_an_unknown_process_is_not_found(devnet: RunningDevnet, verb: str) -> None:
    heard = devnet.try_peg("devnet", verb, "pod-99")
    assert (heard.code, heard.error["code"]) == (4, "NOT_FOUND")
    assert "pod-16" in heard.error["remedy"]


def test_the_faucet_pays_exactly(devnet: RunningDevnet) -> None:
    devnet.bitcoin("createwallet", "faucet-test")
    address = str(devnet.bitcoin("getnewaddress", wallet="faucet-test"))

    given = devnet.peg("devnet", "faucet", address, "123456789sat")

    assert given["amount_sats"] == 123_456_789
    assert str(devnet.bitcoin("getreceivedbyaddress", address, 1, wallet="faucet-test")) == "1.23456789"


def test_logs_are_shown_by_name(devnet: RunningDevnet) -> None:
    assert any("pod.started" in line for line in devnet.peg("devnet", "logs", "pod-01", "--lines", "1000")["lines"])
    assert len(devnet.peg("devnet", "logs", "supervisor", "--lines", "1")["lines"]) == 1
    assert devnet.try_peg("devnet", "logs", "nobody").code == 4


def test_no_secret_is_in_any_log(devnet: RunningDevnet) -> None:
    for process in devnet.peg("devnet", "status")["processes"]:
        directory = Path(process["data_dir"])
        secrets = [
            path.read_text().strip() for name in ("passphrase", "rpc-password") if (path := directory / name).exists()
        ]
        text = Path(process["log"]).read_text(errors="replace")
        assert not any(secret in text for secret in secrets)
