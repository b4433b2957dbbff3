"""Which task module is left out since processes end while they import it. Pure."""

from __future__ import annotations

from taskengine.runtime.intervals import IMPORT_TIMEOUT_S

KILLS = 3
"""How often a process is killed while it loads a module until it is started without that module."""


class ImportCrashes:
    """Counts how often the process in a role has ended while it loaded a module, in a row."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}

    def online(self, role: str) -> None:
        """Note that a process has loaded its modules."""
        self._counts = {key: count for key, count in self._counts.items() if key[0] != role}

    def verdict(self, role: str, module: str, how: str, seconds: float) -> str:
        """Return why the next process is to leave a module out, "" where it may try again.

        The last one ended as `how` says, after so many seconds. A process that was killed may have been killed by a
        user, or for want of memory, unless that happens again.
        """
        key = role, module
        self._counts[key] = self._counts.get(key, 0) + 1
        if seconds >= IMPORT_TIMEOUT_S:
            return f"its import takes longer than {IMPORT_TIMEOUT_S:g} s"
        if how == "SIGKILL" and self._counts[key] < KILLS:
            return ""
        return f"it ended the process that loaded it ({how})"
