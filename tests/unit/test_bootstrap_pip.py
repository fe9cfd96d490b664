"""Set-up begins with a pip that is already somewhere on the machine."""

from __future__ import annotations

from pathlib import Path

from deploy.bootstrap.pip_wheel import find_pip_wheel


def test_begins_with_a_wheel_that_exists(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "pip-1.0-py3-none-any.whl").touch()

    assert find_pip_wheel(tmp_path, wheels).is_file()
