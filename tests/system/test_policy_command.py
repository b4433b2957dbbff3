"""`taskengine policy can`, as whoever writes a policy uses it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from taskengine.security.keys import KeyRing, new_pair
from tests.engine import deadline

pytestmark = pytest.mark.system
SETTINGS = """
pins = "mock"
keys = "keys"

[hardware.devices.pan]
type = "Servo"
pin = 18

[policy.laptop]
tasks = ["servo.*"]
devices = ["pan", "tilt"]

[policy.everybody]
members = ["*"]
tasks = ["task_echo", "system.stop"]
deny_tasks = ["servo.sweep"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "taskengine.toml").write_text(SETTINGS)
    KeyRing(tmp_path / "keys").allow("laptop", new_pair().public)
    return tmp_path


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [
        (
            "laptop do servo.set pan",
            0,
            'yes: laptop may call servo.set: [policy.laptop] has "servo.*" in tasks; may use',
        ),
        (
            "laptop do servo.sweep pan",
            1,
            'no: laptop may not call servo.sweep: [policy.everybody] has "servo.sweep" in deny_tasks',
        ),
        ("laptop do servo.set lamp", 1, "may not use lamp: none of [policy.laptop], [policy.everybody]"),
        ("tablet do servo.set", 1, "no: tablet may not call servo.set: none of [policy.everybody]"),
        ("tablet do system.stop", 0, 'yes: tablet may call system.stop: [policy.everybody] has "system.stop" in tasks'),
        ("laptop do servo.sett", 1, "no: no task is named servo.sett"),
    ],
)
def test_it_answers_and_says_why(folder: Path, asked: str, code: int, said: str) -> None:
    done = ask(folder, asked)
    assert (done.returncode, said in done.stdout) == (code, True), done.stdout
    warned = {name for name in ("tablet", "lamp", "tilt") if name in asked}
    assert warned == {name for name in ("tablet", "lamp", "tilt") if name in done.stderr}


def test_without_a_policy_everybody_may(folder: Path) -> None:
    (folder / "taskengine.toml").write_text("")
    assert ask(folder, "x do task_echo").stdout == "yes: there is no policy, and x may do everything\n"
    assert ask(folder, "x might task_echo").returncode == 2


def ask(folder: Path, asked: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "taskengine", "policy", "can", *asked.split()]
    return subprocess.run(command, capture_output=True, text=True, timeout=deadline(60), check=False, cwd=folder)
