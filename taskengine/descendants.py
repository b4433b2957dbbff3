"""What tasks start ends with the worker that started it.

Theory of operation. Workers are child subreapers (prctl(2)): whatever a task starts, also by a double fork or in a new
session, stays below its worker for as long as that lives. The supervisor is one too. So when a worker ends, for
whatever reason, what was below it becomes the supervisor's child, which knows its own and kills the rest (`Orphans`).
When the supervisor ends, a thread of each worker, which needs no interpreter, kills what is below and then the worker.
What is below a worker that is killed in the same moment as the supervisor belongs to nobody: only a control group, as
systemd's, ends that.
"""

from __future__ import annotations

import ctypes
import gc
import math
import os
import signal
import sys
import threading
from pathlib import Path

from taskengine._descendants import children_of

_PR_SET_CHILD_SUBREAPER = 36
AGAIN_S = (0.001, 0.5)
"""How soon it is looked again whether what was killed has ended, at first and at the longest."""
MOST_PASSES = 100
"""How often it is looked in one go."""
LOOK_S = 1.0
"""How often is looked for orphans that are not the engine's."""
MOST_ENDED = 32
"""So many ended processes that nobody asks for a worker keeps at least."""


def adopt() -> None:
    """Have what descends from this process become its child when what started it ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel has no PR_SET_CHILD_SUBREAPER")


class Orphans:
    """What ended processes of the engine leave to this one, their parent, kills.

    Nothing is killed before `begin`. Children that were there then, and, for PID 1, those that come from elsewhere in
    its container, are strangers: they are only reaped.
    """

    def __init__(self) -> None:
        self.due = math.inf
        """When `look` has something to do."""
        self.is_hunting = False
        """Something was left, and may live."""
        self._has_begun = False
        self._ours: set[int] = set()
        self._strangers: set[int] = set()
        self._looks_for_strangers = False
        self._pause = AGAIN_S[0]

    def begin(self, *, is_init: bool) -> None:
        """Adopt what ended processes leave from here on, and kill it. `is_init`: we are PID 1, as in a container."""
        adopt()
        self._has_begun = True
        self._strangers = _children() - self._ours
        self._looks_for_strangers = is_init or bool(self._strangers)
        if self._looks_for_strangers:
            self.due = 0.0

    def add(self, pid: int) -> None:
        """That child is a process of the engine."""
        self._ours.add(pid)

    def remove(self, pid: int, now: float) -> None:
        """That one has ended, and is reaped: kill what it has left."""
        self._ours.discard(pid)
        self.is_hunting = self._has_begun
        self._pause = AGAIN_S[0]
        self.due = now
        self.look(now)

    def look(self, now: float) -> None:
        """Kill what was left, and reap what has ended."""
        if now < self.due or not self._has_begun:
            return
        left = self._left()
        if self.is_hunting:
            self._hunt(left)
        elif all(map(_is_running, self._ours)):  # or it is one of ours that has left them
            self._strangers |= left
        pause = self._pause if self.is_hunting else LOOK_S if self._looks_for_strangers else math.inf
        self.due = now + pause

    def _left(self) -> set[int]:
        """What is neither ours nor a stranger, and lives; what has ended is reaped."""
        found = _children()
        self._strangers &= found
        return {pid for pid in found - self._ours if not _reap(pid)} - self._strangers

    def _hunt(self, left: set[int]) -> None:
        """Kill it, and at once what that leaves in turn: it may fork faster than we are called."""
        killed: set[int] = set()
        for _ in range(MOST_PASSES):
            if left <= killed:
                break
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            killed |= left
            left = self._left()
        self.is_hunting = bool(left)
        self._pause = min(2 * self._pause, AGAIN_S[1])


def _children() -> set[int]:
    """Our children, the ended ones too."""
    try:
        text = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()
    except OSError:  # not all kernels have it
        return {pid for pid, _ in children_of(os.getpid())}
    return set(map(int, text.split()))


def _reap(pid: int) -> bool:
    """Reap a child if it has ended; whether it is gone."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _is_running(pid: int) -> bool:
    """A child has not ended; it is not reaped."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


class Adopted:
    """Reaps, in a worker, what tasks have left running and what has ended since.

    The kernel does not tell those from children that a task will ask for. So ended ones are kept, a few, and for as
    long as there is an object of Python's that stands for them, as `subprocess.Popen` is.
    """

    def __init__(self) -> None:
        self._most = MOST_ENDED

    def tidy(self) -> None:
        """Reap, if there are too many."""
        try:
            if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return
        except ChildProcessError:
            return
        ended = {pid for pid, has_ended in children_of(os.getpid()) if has_ended}
        if len(ended) <= self._most:
            return
        kept = ended & _waited_for()
        for pid in ended - kept:
            _reap(pid)
        self._most = max(MOST_ENDED, 2 * len(kept))


def _waited_for() -> set[int]:
    """The processes that objects of Python's stand for, which may ask how they ended."""
    classes = _popen_classes()
    return {one.pid for one in gc.get_objects() if issubclass(type(one), classes) and hasattr(one, "pid")}


def _popen_classes() -> tuple[type, ...]:
    """As far as they are loaded."""
    modules = [sys.modules.get(name) for name in ("subprocess", "multiprocessing.popen_fork")]
    return tuple(module.Popen for module in modules if module is not None)


orphans = Orphans()
"""Of this process."""
