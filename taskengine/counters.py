"""What the router counts, in tasks: what came, what became of it, and how long it took. Pure.

Every accepted task waits in a lane, is at a worker, or is answered; so accepted = answered + in flight, always. Each
count is of a package, a slice or an entry of an answer, never of one task, and time stands still within a turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from taskengine._fastpath import Tally
from taskengine.errors import TaskEngineError
from taskengine.messages import LaneStats, Latency, Stats

AT_A_WORKER = "failed"
"""The type of the errors that workers made: they tell how many there are, and the router does not decode them."""


class Counters(Tally):
    """Of one router's life."""

    def __init__(self) -> None:
        self.retried = 0
        self.refused = 0
        self.late = 0
        self._errors: Counter[str] = Counter()

    def fail(self, tasks: int, error: TaskEngineError) -> None:
        """The router has answered tasks with an error."""
        self.answered += tasks
        self._errors[type(error).__name__] += tasks

    def stats(
        self, lanes: Sequence[LaneStats], packages: int, bytes_in_flight: int, restarts: Mapping[str, int]
    ) -> Stats:
        """All of it, with what others know: lanes, packages in flight, their bytes, and who was started anew."""
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
