"""A folder that somebody has prepared for whoever runs a command in it: no file of it is taken for one of Python's."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import Engine, deadline

pytestmark = pytest.mark.system
ROOT = os.geteuid() == 0
HIDDEN = ("grp", "ctypes", "tomllib", "typing", "socket", "json", "click", "zmq", "msgspec")
"""Modules of Python and of what is installed that the commands import."""
WAYS = ([sys.executable, "-m", "taskengine"], [str(Path(sys.executable).with_name("taskengine"))])


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of one user, or where we are root of another one, which notes what is imported from it."""
    path = Path(tempfile.mkdtemp())
    for name in HIDDEN:
        (path / f"{name}.py").write_text(f"open({str(path / 'caught')!r}, 'a').write({name!r})\nraise SystemExit(9)\n")
    (path / "robot.py").write_text("from taskengine import task\n\n@task\ndef wave():\n    return 1\n")
    path.chmod(0o755)
    if ROOT:
        for part in (path, *path.iterdir()):
            os.chown(part, pwd.getpwnam("nobody").pw_uid, -1)
    yield path
    shutil.rmtree(path)


def run(way: list[str], *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*way, *arguments], capture_output=True, text=True, timeout=deadline(60), check=False, cwd=folder
    )


@pytest.mark.parametrize("way", WAYS, ids=["-m", "script"])
def test_nothing_of_it_is_imported(way: list[str], folder: Path, tmp_path: Path) -> None:
    keys = str(tmp_path / "keys")
    for command in (["check"], ["serve", "--host", "?"], ["pins"], ["keys", "show", "--keys", keys], ["--version"]):
        done = run(way, *command, folder=folder)
        assert not (folder / "caught").exists(), f"{command} imported {(folder / 'caught').read_text()}"
        assert done.returncode == (2 if "serve" in command else 0), done.stderr


@pytest.mark.parametrize("way", WAYS, ids=["-m", "script"])
def test_a_task_module_may_lie_in_it_but_not_for_root(way: list[str], folder: Path) -> None:
    done = run(way, "check", "--tasks", "robot", folder=folder)
    if not ROOT:
        assert "task wave()" in done.stdout
        return
    (line,) = done.stderr.splitlines()
    assert (done.returncode, line.endswith(f"run `chown root {folder}`")) == (2, True), line
    shutil.chown(folder, "root")
    shutil.chown(folder / "robot.py", "root")
    assert "task wave()" in run(way, "check", "--tasks", "robot", folder=folder).stdout


def test_root_reads_no_settings_that_others_can_change(folder: Path) -> None:
    (folder / "taskengine.toml").write_text('tasks = ["robot"]\n')
    if not ROOT:
        return
    for command in ("check", "serve", "pins"):
        done = run(WAYS[0], command, folder=folder)
        (line,) = done.stderr.splitlines()
        assert done.returncode == 2
        assert line.startswith("taskengine: the settings: ")
        assert "chown root" in line


def test_serve_warns_of_modes_as_check_does(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    keys.chmod(0o755)
    said = f"taskengine: warning: others can read {keys}: `chmod 700`"
    assert said in run(WAYS[0], "check", "--keys", str(keys), folder=tmp_path).stderr
    with Engine(keys=keys) as engine:
        assert said in engine.output()
