"""Requests for priority to the kernel, made in processes of their own, so that the tests keep theirs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskengine_hardware import priority
from tests.engine import wait_until

ASK = """
import os
from taskengine_hardware.priority import hurry, keep_memory
if {as_nobody} and os.geteuid() == 0:
    os.setgid(65534), os.setuid(65534)
refused = hurry() + keep_memory()
print(*refused, os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK, os.getpriority(os.PRIO_PROCESS, 0))
"""


def ask(*, as_nobody: bool) -> tuple[list[str], int, int]:
    """Return the refused requests, and how the process is scheduled then."""
    command = [sys.executable, "-c", ASK.format(as_nobody=as_nobody)]
    *refused, scheduler, nice = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return refused, int(scheduler), int(nice)


@pytest.mark.parametrize("as_nobody", [False, True])
def test_what_is_refused_is_named_and_what_is_not_holds(as_nobody: bool) -> None:
    refused, scheduler, nice = ask(as_nobody=as_nobody)
    assert set(refused) <= {"nice", "SCHED_RR", "oom_score_adj", "mlockall"}
    assert (scheduler == os.SCHED_RR) is ("SCHED_RR" not in refused)
    assert (nice == priority.NICE) is ("nice" not in refused)
    assert "oom_score_adj" in refused or not as_nobody


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing, as fast as it can."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        yield process
        process.kill()


def test_who_runs_is_told_from_who_waits(busy: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: priority.is_starved(busy.pid, busy.pid), 5, "the loop")
    waits = threading.Event()
    thread = threading.Thread(target=waits.wait)
    thread.start()
    wait_until(lambda: not priority._wants_to_run(stat_of(thread)), 5, "the thread to wait")
    waits.set()
    thread.join()
    busy.kill()
    busy.wait()
    assert not priority.is_starved(busy.pid, busy.pid)


def test_one_that_is_stopped_does_not_want_to_run(busy: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: priority.is_starved(busy.pid, busy.pid), 5, "the loop")
    busy.send_signal(signal.SIGSTOP)
    wait_until(lambda: not priority.is_starved(busy.pid, busy.pid), 5, "its stop")


def stat_of(thread: threading.Thread) -> Path:
    return Path(f"/proc/{os.getpid()}/task/{thread.native_id}/stat")
