"""What is asked of a server, and what its errors mean."""

from __future__ import annotations

import pytest
from redis import exceptions as foreign

from coordinator.mempool.faults import StoreMisconfigured
from coordinator.mempool.server_check import REQUIRED_SETTINGS, require_no_findings, review_server, review_settings
from coordinator.mempool.server_errors import from_foreign

GOOD = {"redis_version": "7.2.4", "role": "master", "connected_slaves": 0}


def test_finds_nothing_wrong_with_the_required_settings() -> None:
    assert review_settings(REQUIRED_SETTINGS) == ()


@pytest.mark.parametrize("name", list(REQUIRED_SETTINGS))
def test_finds_every_setting_that_differs_or_is_missing(name: str) -> None:
    (differs,) = review_settings({**REQUIRED_SETTINGS, name: "other"})
    (missing,) = review_settings({key: value for key, value in REQUIRED_SETTINGS.items() if key != name})
    assert f"`{name}`" in differs
    assert "not readable" in missing


@pytest.mark.parametrize(
    ("change", "replicas", "finding"),
    [
        ({"redis_version": "6.2.14"}, 0, "version 6.2"),
        ({"redis_version": "nonsense"}, 0, "version nonsense"),
        ({"role": "slave"}, 0, "role is slave"),
        ({"connected_slaves": 1}, 2, "1 replicas; 2"),
    ],
)
def test_finds_an_unfit_server(change: dict[str, object], replicas: int, finding: str) -> None:
    assert review_server(GOOD, 0) == ()
    (found,) = review_server(GOOD | change, replicas)
    assert finding in found


@pytest.mark.parametrize("version", ["7.0.0", "7.0", "8.8.1", "10.0.0"])
def test_takes_every_version_from_seven_on(version: str) -> None:
    assert review_server(GOOD | {"redis_version": version}, 0) == ()


def test_lists_every_finding() -> None:
    require_no_findings((), "redis://host")
    with pytest.raises(StoreMisconfigured, match=r"redis://host.*first; second"):
        require_no_findings(("first", "second"), "redis://host")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (foreign.ConnectionError("refused"), "STORE_UNREACHABLE"),
        (ConnectionResetError("reset"), "STORE_UNREACHABLE"),
        (foreign.TimeoutError("slow"), "STORE_TIMED_OUT"),
        (foreign.BusyLoadingError("loading"), "STORE_LOADING"),
        (foreign.AuthenticationError("who?"), "STORE_NO_ACCESS"),
        (foreign.NoPermissionError("no"), "STORE_NO_ACCESS"),
        (foreign.OutOfMemoryError("full"), "STORE_FULL"),
        (foreign.ReadOnlyError("replica"), "STORE_READ_ONLY"),
        (foreign.ResponseError("OOM allow-oom flag is not set on the script"), "STORE_FULL"),
        (foreign.ResponseError("MISCONF Errors writing to the AOF file"), "STORE_CANNOT_PERSIST"),
        (foreign.ResponseError("BUSY a script runs"), "STORE_BUSY"),
        (foreign.ResponseError("UNKILLABLE a script has written"), "STORE_BUSY"),
        (foreign.ResponseError("NOREPLICAS not enough"), "STORE_NOT_REPLICATED"),
        (foreign.ResponseError("unheard of"), "STORE_REFUSED"),
        (foreign.InvalidResponse("garbage"), "STORE_REFUSED"),
    ],
)
def test_types_every_foreign_error(error: foreign.RedisError | OSError, code: str) -> None:
    fault = from_foreign(error, "redis://host")
    assert (fault.code, bool(fault.remedy)) == (code, True)
    assert "redis://host" in fault.message
