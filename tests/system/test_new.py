"""`taskengine new`: in each folder that it makes the tests pass, and the commands of its README work."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from taskengine.cli.new import ROBOTS
from taskengine.config.loading import load
from tests.engine import Engine, deadline
from tests.system.test_cli_output import run

pytestmark = pytest.mark.system


def made(folder: Path, robot: str) -> Path:
    """A folder that the command has made, named after the robot."""
    folder.chmod(0o755)
    done = run(folder, "new", f"my {robot}", "--robot", robot)
    assert (done.returncode, done.stderr) == (0, "")
    assert "taskengine serve" in done.stdout
    return folder / f"my {robot}"


def pytest_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a folder, as its user would: without our settings and plug-ins."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TASKENGINE_"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *arguments],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=deadline(90),
        check=False,
    )


@pytest.mark.parametrize("robot", ROBOTS)
def test_its_tests_pass(robot: str, tmp_path: Path) -> None:
    folder = made(tmp_path, robot)
    done = pytest_in(folder)
    assert done.returncode == 0, done.stdout
    assert re.search(r"\b[4-9] passed in", done.stdout), done.stdout
    assert "warning" not in done.stdout


def test_the_commands_of_its_readme_work(tmp_path: Path) -> None:
    folder = made(tmp_path, "arm")
    blocks = re.findall(r"^```bash\n(.*?)^```$", (folder / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    commands = [shlex.split(line, comments=True)[1:] for block in blocks for line in block.splitlines()]
    told = [command for command in commands if command and command[0] != "serve"]
    assert ["call", "servo.set", "base", "-k", "angle=30"] in told
    with Engine(cwd=folder) as engine:
        for command in told:
            ends = ["--count", "1"] if command[0] == "subscribe" else []
            where = [] if command[0] == "pins" else ["--address", engine.address]
            done = run(folder, *command, *ends, *where)
            assert (done.returncode, done.stderr) == (0, ""), command


@pytest.mark.parametrize("robot", ROBOTS)
def test_its_settings_begin_with_simulated_pins_and_explain_themselves(robot: str, tmp_path: Path) -> None:
    folder = made(tmp_path, robot)
    file = folder / "taskengine.toml"
    settings = load(file, {}, {})
    assert (settings.pins, settings.on_loopback) == ("mock", True)
    assert any(device["type"] == "AngularServo" for device in settings.hardware["devices"].values())
    lines = file.read_text().splitlines()
    keys = [number for number, line in enumerate(lines) if re.match(r"(tasks|pins|host) =", line)]
    assert keys
    assert all(lines[number - 1].startswith("#") for number in keys)
    assert "$" not in "".join(path.read_text() for path in folder.iterdir() if path.is_file())


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "robot").mkdir()
    (tmp_path / "robot/robot.py").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, says in (("robot", "is there already, and not empty"), ("file", "no folder"), ("a$b", "letters")):
        done = run(tmp_path, "new", name)
        assert (done.returncode, done.stdout) == (2, "")
        assert says in done.stderr
    assert [path.name for path in (tmp_path / "robot").iterdir()] == ["robot.py"]
