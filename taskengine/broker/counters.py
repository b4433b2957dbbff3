"""Counts what the router does, in tasks: how many came, how they ended, and how long they took. Pure.

Every accepted task waits in a lane, is at a worker, or is answered; so accepted = answered + in flight, always. Each
count is of a package, a slice or an entry of an answer, never of one task, and the time is read once in a turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from taskengine._fastpath import Tally
from taskengine.errors import TaskEngineError
from taskengine.protocol.messages import LaneStats, Latency, Stats

AT_A_WORKER = "failed"
"""The type of errors made by workers: workers report how many there are, and the router does not decode them."""


class Counters(Tally):
    """The counters of one router's life."""

    def __init__(self) -> None:
        self.retried = 0
        self.refused = 0
        self.late = 0
        self._errors: Counter[str] = Counter()

    def fail(self, tasks: int, error: TaskEngineError) -> None:
        """Count tasks that the router has answered with an error."""
        self.answered += tasks
        self._errors[type(error).__name__] += tasks

    def stats(
        self, lanes: Sequence[LaneStats], packages: int, bytes_in_flight: int, restarts: Mapping[str, int]
    ) -> Stats:
        """Return all counters, with values known elsewhere: lanes, packages in flight and their bytes, restarts."""
        waiting, running, total = (Latency(tasks, seconds) for tasks, seconds in self.stages())
        return Stats(
            self.accepted,
            self.answered,
            sum(lane.queued + lane.running for lane in lanes),
            {**self._errors, **({AT_A_WORKER: self.failed} if self.failed else {})},
            self.retried,
            self.refused,
            self.late,
            dict(restarts),
            packages,
            bytes_in_flight,
            list(lanes),
            waiting,
            running,
            total,
        )
