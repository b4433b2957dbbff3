"""Ends the processes that tasks have started, together with the worker that ran the tasks.

Theory of operation. Each worker is a child subreaper (prctl(2)): every process that a task starts, also by a double
fork or in a new session, stays a descendant of the worker as long as the worker lives. The supervisor is a subreaper
too. So when a worker ends, for whatever reason, its descendants become children of the supervisor, which knows the
engine's own processes and kills the others (`Orphans`). When the supervisor ends, a thread of each worker, which needs
no interpreter, kills the descendants and then the worker. When a worker is killed in the same moment as the supervisor,
its descendants stay: only a control group, such as systemd's, ends them.
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
"""The first and the longest pause, in s, before the next look whether killed processes have ended."""
MOST_PASSES = 100
"""The most looks in one hunt."""
LOOK_S = 1.0
"""The pause, in s, between two looks for orphans that are not the engine's."""
MOST_ENDED = 32
"""A worker keeps up to so many ended processes without asking whether they are still needed."""


def adopt() -> None:
    """Make this process a subreaper: a descendant becomes its child when the descendant's own parent ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel has no PR_SET_CHILD_SUBREAPER")


class Orphans:
    """Kills the processes that ended processes of the engine leave to this one, their parent.

    Nothing is killed before `begin`. Strangers are only reaped: children that existed at `begin` and, for PID 1, those
    that come from elsewhere in its container.
    """

    def __init__(self) -> None:
        self.due = math.inf
        """The time, in s, when `look` has something to do."""
        self.is_hunting = False
        """Whether processes were left that may still live."""
        self._has_begun = False
        self._ours: set[int] = set()
        self._strangers: set[int] = set()
        self._looks_for_strangers = False
        self._pause = AGAIN_S[0]

    def begin(self, *, is_init: bool) -> None:
        """Adopt and kill orphans from here on. `is_init`: this process is PID 1, as in a container."""
        adopt()
        self._has_begun = True
        self._strangers = _children() - self._ours
        self._looks_for_strangers = is_init or bool(self._strangers)
        if self._looks_for_strangers:
            self.due = 0.0

    def add(self, pid: int) -> None:
        """Note that this child is a process of the engine."""
        self._ours.add(pid)

    def remove(self, pid: int, now: float) -> None:
        """Note that this process of the engine has ended and is reaped, and kill the orphans that it has left."""
        self._ours.discard(pid)
        self.is_hunting = self._has_begun
        self._pause = AGAIN_S[0]
        self.due = now
        self.look(now)

    def look(self, now: float) -> None:
        """Kill orphans that were left, and reap those that have ended."""
        if now < self.due or not self._has_begun:
            return
        left = self._left()
        if self.is_hunting:
            self._hunt(left)
        elif all(map(_is_running, self._ours)):  # else one of ours may have left them
            self._strangers |= left
        pause = self._pause if self.is_hunting else LOOK_S if self._looks_for_strangers else math.inf
        self.due = now + pause

    def _left(self) -> set[int]:
        """Return the living children that are neither the engine's nor strangers; reap those that have ended."""
        found = _children()
        self._strangers &= found
        return {pid for pid in found - self._ours if not _reap(pid)} - self._strangers

    def _hunt(self, left: set[int]) -> None:
        """Kill these, and at once the orphans that they leave in turn: they may fork faster than `look` is called."""
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
    """Return the children of this process, ended ones too."""
    try:
        text = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()
    except OSError:  # not all kernels have it
        return {pid for pid, _ in children_of(os.getpid())}
    return set(map(int, text.split()))


def _reap(pid: int) -> bool:
    """Reap a child if it has ended; return whether it is gone."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _is_running(pid: int) -> bool:
    """Return whether a child has not ended; do not reap it."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


class Adopted:
    """Reaps, in a worker, processes that tasks have left running and that have ended since.

    A task may still ask how a child ended, and the kernel does not say which children it will ask for. So a few ended
    ones are kept, and those for which there is a Python object, such as a `subprocess.Popen`.
    """

    def __init__(self) -> None:
        self._most = MOST_ENDED

    def tidy(self) -> None:
        """Reap ended children if there are too many."""
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
    """Return the processes for which there are Python objects, which may ask how they ended."""
    classes = _popen_classes()
    return {one.pid for one in gc.get_objects() if issubclass(type(one), classes) and hasattr(one, "pid")}


def _popen_classes() -> tuple[type, ...]:
    """Return the classes of such objects, as far as their modules are loaded."""
    modules = [sys.modules.get(name) for name in ("subprocess", "multiprocessing.popen_fork")]
    return tuple(module.Popen for module in modules if module is not None)


orphans = Orphans()
"""The orphans of this process."""
