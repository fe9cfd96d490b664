"""Losing the store loses nothing: `peg rebuild` brings the same peg-ins and peg-outs back from the two chains."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import redis

from tests.support.devnet import RunningDevnet


def _list_transfers(devnet: RunningDevnet) -> dict[str, Any]:
    pegins = devnet.peg("pegin", "list", "--limit", "1000")["pegins"]
    pegouts = devnet.peg("pegout", "list", "--limit", "1000")["pegouts"]
    settled = [item for item in pegins if item["state"] == "booked"]
    return {"pegins": {item["id"]: item for item in settled}, "pegouts": {item["id"]: item for item in pegouts}}


def _move_money(devnet: RunningDevnet) -> None:
    user = devnet.enter_user()
    devnet.credit(user, "0.2")
    address = str(devnet.bitcoin("getnewaddress", wallet=user))
    burn = devnet.peg("pegout", "request", "--from", user, "--to", address, "--amount", "0.05")
    devnet.wait_state(("pegout", "status", burn["id"]), "booked", mine=True)


def _wait_ready(devnet: RunningDevnet) -> None:
    devnet.wait(lambda: bool(devnet.peg("devnet", "status")["ready"]), "a ready devnet")


def test_an_emptied_store_is_rebuilt_to_the_same_transfers(devnet: RunningDevnet) -> None:
    _move_money(devnet)
    before = _list_transfers(devnet)
    client = redis.Redis.from_url(devnet.peg("devnet", "status")["store"]["url"])
    client.flushall()
    client.close()

    rebuilt = devnet.peg("rebuild")
    _wait_ready(devnet)

    assert rebuilt["deposits"] >= 1
    assert rebuilt["pegouts"] >= 1
    assert _list_transfers(devnet) == before
    _move_money(devnet)


def test_a_store_that_lost_the_end_of_its_file_refuses_to_start_until_it_is_rebuilt(devnet: RunningDevnet) -> None:
    _move_money(devnet)
    before = _list_transfers(devnet)
    (store,) = [item for item in devnet.peg("devnet", "status")["processes"] if item["kind"] == "store"]
    os.kill(store["pid"], signal.SIGKILL)
    files = sorted((Path(store["data_dir"]) / "appendonlydir").glob("*.incr.aof"))
    files[-1].write_bytes(files[-1].read_bytes()[:-7])

    refused = devnet.try_peg("devnet", "up")
    assert refused.code == 5
    assert "store failed" in refused.error["message"]
    assert "rebuild" in refused.error["remedy"]

    rebuilt = devnet.peg("rebuild")
    assert Path(rebuilt["set_aside"]).is_dir()
    _wait_ready(devnet)
    assert _list_transfers(devnet) == before
