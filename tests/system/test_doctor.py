"""`taskengine doctor` on this machine: the table, JSON and exit code, with an engine and without."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.engine import Engine, free_ports
from tests.system.test_cli_output import run

pytestmark = pytest.mark.system
ROBOT = """
pins = "mock"
router_frontend = {first}
router_backend = {second}
starting_port = {third}
stop_port = {fourth}
[hardware.devices.pan]
type = "AngularServo"
pin = 18
"""


def write(folder: Path, **settings: Any) -> None:
    folder.chmod(0o755)
    (folder / "taskengine.toml").write_text(ROBOT.format(**settings))


def rows(folder: Path) -> dict[str, dict[str, str]]:
    """Return the rows by their names; the exit code goes by them, whatever else is wrong with this machine."""
    done = run(folder, "doctor", "--json")
    assert done.stderr == ""
    seen = json.loads(done.stdout)
    assert done.returncode == any(row["state"] == "wrong" for row in seen)
    return {row["check"]: row for row in seen}


def test_the_engine_of_the_folder_is_looked_at(tmp_path: Path) -> None:
    first = free_ports(6)
    write(tmp_path, first=first, second=first + 1, third=first + 2, fourth=first + 5)
    seen = rows(tmp_path)
    assert seen["engine"] == {
        "check": "engine",
        "state": "ok",
        "found": f"none answers at tcp://127.0.0.1:{first}: nobody answers",
        "line": "taskengine serve",
    }
    assert seen["pins"]["found"] == "1 named, driven by PINS = mock"
    assert {seen[check]["state"] for check in ("python", "packages", "compiled", "ports")} == {"ok"}
    with Engine(cwd=tmp_path, router_frontend=first):
        seen = rows(tmp_path)
        assert seen["ports"]["found"] == f"the engine listens on 127.0.0.1:{first}"
        assert f"tcp://127.0.0.1:{first} answers in " in seen["engine"]["found"]
    with socket.create_server(("127.0.0.1", first)):
        seen = rows(tmp_path)
        assert seen["ports"]["state"] == "wrong"
        assert seen["ports"]["line"] == f"sudo ss -ltnp 'sport = :{first}'"


def test_settings_that_cannot_be_read_are_one_row_of_many(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "taskengine.toml").write_text("hots = 1\n")
    done = run(tmp_path, "doctor")
    assert done.returncode == 1
    assert any(
        line.startswith("wrong") and "hots in taskengine.toml, line 1: no such setting" in line
        for line in done.stdout.splitlines()
    )
    assert "libzmq" in done.stdout
    assert done.stdout.splitlines()[-1].endswith(" wrong")
