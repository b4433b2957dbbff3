"""Decides which task modules are left out because processes end while they import them. Pure."""

from __future__ import annotations

from taskengine.runtime.intervals import IMPORT_TIMEOUT_S

KILLS = 3
"""So many kills in a row, while a process imports a module, have the next one leave the module out."""


class ImportCrashes:
    """Counts how often the process in a role has ended while it loaded a module, in a row."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}

    def online(self, role: str) -> None:
        """Note that a process has loaded its modules."""
        self._counts = {key: count for key, count in self._counts.items() if key[0] != role}

    def verdict(self, role: str, module: str, how: str, seconds: float) -> str:
        """Return why the next process has to leave a module out, "" if it may try again.

        The last one ended as `how` says, after `seconds`. A SIGKILL may come from a user, or from a lack of memory: it
        takes KILLS ends in a row.
        """
        key = role, module
        self._counts[key] = self._counts.get(key, 0) + 1
        if seconds >= IMPORT_TIMEOUT_S:
            return f"its import takes longer than {IMPORT_TIMEOUT_S:g} s"
        if how == "SIGKILL" and self._counts[key] < KILLS:
            return ""
        return f"it ended the process that loaded it ({how})"
