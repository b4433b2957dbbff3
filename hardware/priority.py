"""Asks the kernel for priority, so that pins become safe in time on a machine that is busy, or short of memory.

The process gets what it is allowed: more as root, or with systemd's LimitRTPRIO=, LimitNICE= and LimitMEMLOCK=. Only
the speed depends on it. `hurry` and `keep_memory` return the names of what was refused.
"""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path

NICE = -10
REALTIME = 10
"""The priority among real-time processes, 1 to 99."""
OOM_SCORE = -900
"""From -1000 (never ended when memory runs out) to 1000 (ended first)."""
_CURRENT, _FUTURE, _ON_FAULT = 1, 2, 4
_CAP_IPC_LOCK = 14


def hurry() -> list[str]:
    """Give this thread priority over the others of the machine; what it starts does not inherit it."""
    refused = []
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    except OSError:
        refused.append("nice")
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(REALTIME))
    except OSError:
        refused.append("SCHED_RR")
    return refused


def keep_memory() -> list[str]:
    """Ask the kernel to end this process last when memory runs out, and to keep its memory from being swapped."""
    refused = []
    try:
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
    except OSError:
        refused.append("oom_score_adj")
    # within a limit it would work, until some later allocation failed because of it
    libc = ctypes.CDLL(None)
    if not _may_lock_all() or libc.mlockall(_CURRENT | _FUTURE | _ON_FAULT):
        refused.append("mlockall")
    return refused


def is_starved(pid: int, thread: int) -> bool:
    """Return whether a thread would work if the machine let it: it neither hangs nor is stopped.

    It is ready to run; or, with more ready threads than processors, another thread of its process is, which it may have
    to wait for.
    """
    if _wants_to_run(Path(f"/proc/{pid}/task/{thread}/stat")):
        return True
    return _is_crowded() and any(map(_wants_to_run, Path(f"/proc/{pid}/task").glob("*/stat")))


def _wants_to_run(stat: Path) -> bool:
    try:
        return stat.read_text().rpartition(") ")[2].startswith("R")
    except OSError:  # it is gone
        return False


def _is_crowded() -> bool:
    running = Path("/proc/loadavg").read_text().split()[3].partition("/")[0]
    return int(running) > len(os.sched_getaffinity(0))


def _may_lock_all() -> bool:
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        return True
    status = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> _CAP_IPC_LOCK & 1)
