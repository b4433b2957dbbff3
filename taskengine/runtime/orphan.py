"""Ends a process with pins when the supervisor is gone, after it has brought the pins to their safe state.

The kernel could kill the process at once, but then nobody may be left to make the pins safe: the guardian can die in
the same moment. So a thread waits for the supervisor's end. It waits without the interpreter, which a task may hold. If
it does not get the interpreter afterwards, the kernel ends the process LAST_MS later. Processes that a task has started
end after the pins are safe.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from taskengine._descendants import await_end, end_descendants

LAST_MS = 200
"""The longest time, in ms, that the process lives when the supervisor is gone."""


class Orphan:
    """The actions of this process at the supervisor's end."""

    def __init__(self) -> None:
        self._actions: list[Callable[[], object]] = []

    def first(self, action: Callable[[], object]) -> None:
        """Call `action` before the process ends, in a thread of its own, whatever the other threads do."""
        self._actions.append(action)

    def watch(self, pid: int) -> None:
        """Begin to wait for the end of the supervisor, process `pid`. Raises ProcessLookupError where it is gone."""
        fd = os.pidfd_open(pid)
        threading.Thread(target=self._wait, args=(fd,), name="orphan", daemon=True).start()

    def _wait(self, fd: int) -> None:
        await_end(fd, LAST_MS)
        try:
            for action in self._actions:
                action()
        finally:
            end_descendants(os.getpid())
            os._exit(1)


orphan = Orphan()
"""The actions of this process."""
