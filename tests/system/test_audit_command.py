"""`taskengine audit verify`, as whoever keeps a log uses it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from taskengine.security.audit import Audit
from tests.engine import deadline

pytestmark = pytest.mark.system


def verify(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "taskengine", "audit", "verify", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=deadline(30), check=False, cwd=folder)


def test_it_says_whether_the_log_is_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "taskengine.toml").write_text('audit = "log.jsonl"\n')
    log = tmp_path / "log.jsonl"
    for client in ("laptop", "tablet", "phone"):
        Audit(log, print).note("refused", client=client)
    done = verify(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("3 sealed lines, 0 things wrong; the last seal is ")
    seal = done.stdout.split()[-1]
    assert verify(tmp_path, str(log), "--kept", seal).returncode == 0
    whole = log.read_text()
    log.write_text("".join(whole.splitlines(keepends=True)[:2]))
    assert verify(tmp_path).returncode == 0, "an end that is cut off shows by no seal that is left"
    done = verify(tmp_path, "--kept", seal)
    assert (done.returncode, f"no line has the seal {seal}" in done.stderr) == (1, True)
    log.write_text(whole.replace("tablet", "nobody"))
    done = verify(tmp_path)
    assert (done.returncode, "log.jsonl, line 2: " in done.stderr) == (1, True)


def test_what_is_no_file_is_one_line(tmp_path: Path) -> None:
    done = verify(tmp_path, "no-such-file")
    assert (done.returncode, done.stderr) == (2, "taskengine: no-such-file: No such file or directory\n")
    (tmp_path / "taskengine.toml").write_text('audit = "journald"\n')
    assert "only a log in a file can be verified" in verify(tmp_path).stderr
