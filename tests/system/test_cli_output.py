"""Output of the commands to a script, to a full disk, and without a terminal."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import Engine, deadline, wait_until

pytestmark = pytest.mark.system
ROBOT = """
import numpy as np
def task_scan(): return np.array([1.5, 2.5])
def task_map(): return {b"k": np.array([1])}
def task_nan(): return [float("nan")]
def task_with_a_name_that_is_quite_long(first: str = "so that no line of eighty columns holds it", second: int = 5):
    '''Says what it does in a line that is long, too.'''
"""
COMMAND = [sys.executable, "-m", "taskengine"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("robot")
    folder.chmod(0o755)
    (folder / "robot.py").write_text(ROBOT)
    return folder


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    with Engine(tasks=folder / "robot.py") as engine:
        (folder / "taskengine.toml").write_text(f"ROUTER_FRONTEND = {engine.settings['router_frontend']}\n")
        yield engine


def run(folder: Path, *arguments: str, output: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command in the folder of the engine, whose address no argument says; its output may go to a file."""
    with open(output or os.devnull, "w") as file:
        return subprocess.run(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file if output else subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=deadline(30),
            check=False,
            cwd=folder,
        )


def test_the_engine_of_the_folder_is_found_and_its_values_are_json(engine: Engine, folder: Path) -> None:
    assert json.loads(run(folder, "call", "task_scan").stdout) == [1.5, 2.5]
    assert json.loads(run(folder, "call", "task_map").stdout) == {"aw==": [1]}
    assert math.isnan(json.loads(run(folder, "call", "task_nan").stdout)[0])


def test_a_list_in_a_pipe_has_one_line_a_task(engine: Engine, folder: Path) -> None:
    lines = run(folder, "tasks").stdout.splitlines()
    assert len(lines) == 5
    assert any("second: int = 5)" in line and "that is long, too." in line for line in lines)


@pytest.mark.parametrize("command", [["call", "task_scan"], ["tasks"], ["top", "--once"], ["pins"], ["--help"]])
def test_a_full_disk_is_one_line(engine: Engine, folder: Path, command: list[str]) -> None:
    done = run(folder, *command, output="/dev/full")
    assert (done.returncode, done.stderr) == (
        1,
        "taskengine: the output cannot be written: No space left on device\n",
    )


def test_top_in_a_pipe_prints_each_look(engine: Engine, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "looks"
    with output.open("wb") as file:
        looks = subprocess.Popen([*COMMAND, "top", "--interval", "0.05"], stdout=file, cwd=folder)
    try:
        wait_until(lambda: output.read_text().count("accepted") >= 2, 20, "two looks")
    finally:
        looks.send_signal(signal.SIGINT)
        assert looks.wait(deadline(20)) == 130


def test_keys_new_without_a_terminal_says_what_it_wants(folder: Path, tmp_path: Path) -> None:
    for command in (["new", "desk"], ["accept"], ["accept", "tcp://robot:9000"]):
        done = run(folder, "keys", *command, "--keys", str(tmp_path / "keys"))
        (line,) = done.stderr.splitlines()
        assert (done.returncode, done.stdout) == (2, "")
        assert "nothing came on stdin; expected one line: The " in line
