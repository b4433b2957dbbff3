"""What a process with pins does when the supervisor is gone: it brings them to their safe state, and ends.

The kernel could kill it at once, but then nobody may be left to make the pins safe: the guardian can die in the same
moment. So a thread waits for the supervisor's end, without the interpreter, which a task may keep; and where it does
not get that either, the kernel ends the process shortly after. What a task has started ends after the pins are safe.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from taskengine._descendants import await_end, end_descendants

LAST_MS = 200
"""How long the process lives at most when the supervisor is gone."""


class Orphan:
    """What this process does then."""

    def __init__(self) -> None:
        self._deeds: list[Callable[[], object]] = []

    def first(self, deed: Callable[[], object]) -> None:
        """Do this before the process ends, in a thread of its own, whatever the others do."""
        self._deeds.append(deed)

    def watch(self, pid: int) -> None:
        """Wait for the end of the supervisor from here on. Raises ProcessLookupError where it is gone already."""
        fd = os.pidfd_open(pid)
        threading.Thread(target=self._wait, args=(fd,), name="orphan", daemon=True).start()

    def _wait(self, fd: int) -> None:
        await_end(fd, LAST_MS)
        try:
            for deed in self._deeds:
                deed()
        finally:
            end_descendants(os.getpid())
            os._exit(1)


orphan = Orphan()
"""Of this process."""
