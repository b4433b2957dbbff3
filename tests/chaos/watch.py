"""Reads from the engine's lines which process died of what, and when it was replaced. Pure."""

from __future__ import annotations

import re
from collections import Counter

_STARTED = re.compile(r"Starting process \[(\d+)\]: (.+)$")
_ONLINE = re.compile(r"\[WORKER-(\d+)\((?:TASK|DATA)\)\] Listener online$")
_ENDED = re.compile(r"\[SUPERVISOR\] Process \[(\d+)\] ended \((.+?)\): (.+?); starting another$")
_WRONG = re.compile(r"Traceback|Dropped a message of (?:TASK|DATA)-|Assertion|Not online after")


class Watch:
    """Takes the engine's lines as they come.

    `recoveries` are the seconds from each noted kill of a worker until its place had another that was online, `deaths`
    counts the ends by role and cause, and `wrong` has the lines that no engine should print.
    """

    def __init__(self) -> None:
        self.recoveries: list[float] = []
        self.deaths: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._killed: dict[int, float] = {}
        self._roles: dict[int, str] = {}
        self._down: dict[str, float] = {}

    def killed(self, pid: int, now: float) -> None:
        """A worker was killed, or is about to be."""
        self._killed.setdefault(pid, now)

    def take(self, line: str, now: float) -> None:
        """A line was printed."""
        if match := _STARTED.search(line):
            self._roles[int(match[1])] = match[2]
        elif match := _ENDED.search(line):
            self._end(int(match[1]), match[2], match[3])
        elif match := _ONLINE.search(line):
            since = self._down.pop(self._roles.get(int(match[1]), ""), None)
            if since is not None:
                self.recoveries.append(now - since)
        elif _WRONG.search(line):
            self.wrong.append(line)

    def _end(self, pid: int, cause: str, role: str) -> None:
        kind = role.split()[0]
        self.deaths[f"{kind}: {cause}"] += 1
        if pid in self._killed:
            self._down.setdefault(role, self._killed[pid])
