"""The benchmark harness: it measures real work, judges limits, and says so by table, JSON and exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from smpc.errors import ExitCode
from tests.bench.__main__ import main
from tests.bench.pegin_bench import bench_pod
from tests.bench.report import Measurement, measure_repeatedly, write_report
from tests.bench.rows import BenchRow
from tests.bench.yardstick import measure_multiplication_us


def test_a_pods_own_path_to_its_shares_is_measured_over_real_trees_and_digests() -> None:
    signing, cold, rebuilding = bench_pod(measure_multiplication_us(), inputs=2)
    assert signing.measured_us > 0
    assert cold.measured_us > 0
    assert rebuilding.measured_us > 0


def test_a_limit_holds_at_its_value_and_fails_one_step_beyond() -> None:
    assert Measurement("work", 8.0, "x", 8.0).is_within_limit
    assert not Measurement("work", 8.01, "x", 8.0).is_within_limit


def test_absolute_limits_of_rows_are_told_in_milliseconds() -> None:
    row = BenchRow("block", 150_000.0, None, 150_000.0)
    assert Measurement.from_row(row) == Measurement("block", 150.0, "ms", 150.0, 150_000.0)


def test_what_is_above_its_limit_is_measured_again_and_the_best_counts() -> None:
    values = iter((9.0, 7.0))

    def work() -> list[Measurement]:
        return [Measurement("work", next(values), "x", 8.0)]

    (best,) = measure_repeatedly(work)
    assert best.value == 7.0


def test_what_stays_above_its_limit_fails_in_the_report(tmp_path: Path) -> None:
    measured = measure_repeatedly(lambda: [Measurement("work", 9.0, "x", 8.0)])
    write_report(tmp_path / "build" / "bench.json", measured)
    report = json.loads((tmp_path / "build" / "bench.json").read_text())
    assert report["schema"] == "peg.bench/1"
    assert report["data"]["is_within_limits"] is False
    assert report["data"]["rows"][0]["is_within_limit"] is False


@pytest.mark.slow
def test_one_run_prints_a_table_and_writes_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "bench.json"
    code = main(["--only", "bitcoin", "--report", str(report)])
    written = json.loads(report.read_text())
    names = [row["name"] for row in written["data"]["rows"]]
    assert code is (ExitCode.DONE if written["data"]["is_within_limits"] else ExitCode.CHECK_FAILED)
    assert any(name.startswith("block: 10,000 outputs") for name in names)
    assert "limit" in capsys.readouterr().out
