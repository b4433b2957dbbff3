"""By pyzmq's own methods the same is sent and received; they stand in where libzmq's functions are not found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLAIN = {"TASKENGINE_PLAIN_PYZMQ": "1"}
SAY = "from taskengine._socket import Debt, Port, Waiter; print(*(it.__module__ for it in (Debt, Port, Waiter)))"
HIDE = "import zmq.backend.cython._zmq as extension; extension.__file__ = '/nowhere'; "


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    without = {name: value for name, value in os.environ.items() if name not in PLAIN}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=without | variables, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("tests", "expected"), [("socket", 14), ("socket_requests", 10)])
def test_what_is_asked_of_the_compiled_classes_holds_for_the_plain_ones(tests: str, expected: int) -> None:
    ran = python(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"tests/unit/test_{tests}.py", **PLAIN
    )
    assert ran.returncode == 0, ran.stdout
    passed = int(ran.stdout.rsplit(" passed", 1)[0].rsplit(maxsplit=1)[-1])
    assert passed >= expected


def test_they_stand_in_with_one_warning_where_a_pyzmq_shows_no_libzmq() -> None:
    ran = python("-c", HIDE + SAY)
    assert ran.stdout.split() == ["taskengine._plain_socket"] * 3
    assert ran.stderr.count("RuntimeWarning") == 1
    assert "taskengine is slower than it could be" in ran.stderr
    assert "pip install 'pyzmq>=25,<28'" in ran.stderr


def test_they_stand_in_without_a_warning_where_that_is_asked_for() -> None:
    ran = python("-W", "error", "-c", SAY, **PLAIN)
    assert ran.stdout.split() == ["taskengine._plain_socket"] * 3
    assert ran.stderr == ""


def test_else_the_compiled_ones_are_used() -> None:
    ran = python("-W", "error", "-c", SAY)
    assert ran.stdout.split() == ["taskengine._socket"] * 3
    assert ran.stderr == ""
