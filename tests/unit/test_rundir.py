from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from taskengine.rundir import LONGEST_PATH, RunDir


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def test_only_its_user_gets_in_and_it_is_gone_when_closed(base: Path) -> None:
    rundir = RunDir()
    assert rundir.path.parent == base
    assert rundir.path.stat().st_mode & 0o777 == 0o700
    assert rundir.address("backend", "tcp://x") == f"ipc://{rundir.path}/backend"
    rundir.close()
    rundir.close()
    assert list(base.iterdir()) == []


def test_what_killed_engines_left_is_swept_and_nothing_else(base: Path) -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    for name in (f"taskengine-{ended.pid}-x", f"taskengine-{os.getpid()}-y", "taskengine-notes", "other"):
        (base / name).mkdir()
    RunDir().close()
    assert sorted(path.name for path in base.iterdir()) == ["other", f"taskengine-{os.getpid()}-y", "taskengine-notes"]


def test_a_path_that_is_too_long_for_a_socket_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("x" * LONGEST_PATH)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    rundir = RunDir()
    assert rundir.address("backend", "tcp://127.0.0.1:9001") == "tcp://127.0.0.1:9001"
    rundir.close()
