"""A process without its supervisor: real processes, whose parent is killed."""

from __future__ import annotations

import contextlib
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import IO

import pytest

from taskengine.runtime.orphan import LAST_MS, Orphan
from tests.engine import alive, deadline, wait_until

CHILD = """
import os, sys, time
from taskengine.runtime.orphan import Orphan

watched = os.getpid()
child = os.fork()
if child:
    print(child, flush=True)
    time.sleep(60)
orphan = Orphan()
orphan.first(lambda: os.write(1, b"safe"))
orphan.watch(watched)
{busy}
"""
SLEEPS = "time.sleep(60)"
HAS_THE_INTERPRETER = "import re; re.match('(a*)*b', 'a' * 40)"
"""One call in C that takes years, and lets no other thread run."""


@contextlib.contextmanager
def watched(busy: str) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes], int]]:
    """A process, what it and its child print, and the child, which watches it."""
    with subprocess.Popen([sys.executable, "-c", CHILD.format(busy=busy)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        yield parent, parent.stdout, child
    wait_until(lambda: not alive(child), 5, "the child's end")


def test_its_deeds_are_done_and_it_ends() -> None:
    with watched(SLEEPS) as (parent, said, child):
        assert not select.select([said], [], [], 0.2)[0]
        assert alive(child)
        parent.kill()
        assert said.read() == b"safe"


def test_it_ends_although_a_task_keeps_the_interpreter() -> None:
    with watched(HAS_THE_INTERPRETER) as (parent, said, _):
        assert not select.select([said], [], [], 0.2)[0]
        began = time.monotonic()
        parent.kill()
        assert said.read() == b""
        assert LAST_MS / 1000 * 0.9 <= time.monotonic() - began < deadline(5)


def test_who_is_gone_already_cannot_be_watched() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    with pytest.raises(ProcessLookupError):
        Orphan().watch(gone.pid)
