"""Tasks that run beside each other in a worker of a concurrent lane.

Each batch is one task. It runs through the worker's turn twice. The first time its function is a starter, which makes
the coroutine and starts it. When that has ended, the batch runs once more, and the starter gives what the coroutine
gave: so the turn makes the answer as for any task, in whatever format and reply mode. A plain function runs in the
first turn, in the loop's thread.
"""

from __future__ import annotations

import inspect
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from taskengine._fastpath import CallTable
from taskengine.broker.workers import UnwantedTasks
from taskengine.protocol.layouts import BATCH, COUNT, ENTRY, NO_ANSWER, SECTION
from taskengine.registry.registry import Task
from taskengine.worker.context import coroutine_position
from taskengine.worker.event_loop import EventLoop, RunningCoroutine
from taskengine.worker.tuning import CANCEL_GRACE_S

_DEADLINE_AT = BATCH.size + 8
_ELAPSED_AT = COUNT.size + ENTRY.size - 12


class Call:
    """A task between its start and its answer."""

    __slots__ = ("batch", "began_ns", "is_awaited", "job", "number", "place", "position", "running")

    def __init__(self, batch: bytes, place: int) -> None:
        self.batch = batch
        self.number: int = BATCH.unpack_from(batch)[0]
        self.job: int
        self.job, deadline, _, self.position, *_ = SECTION.unpack_from(batch, BATCH.size)
        if deadline:  # it has begun in time, or it fails in the first turn
            self.batch = batch[:_DEADLINE_AT] + bytes(8) + batch[_DEADLINE_AT + 8 :]
        self.place = place
        self.began_ns = time.monotonic_ns()
        self.running: RunningCoroutine | None = None
        self.is_awaited = True
        """Whether the router that sent it is there to take its answer."""


class ConcurrentCalls:
    """The calls of a worker that runs up to `most` at once on its loop. The `table` has what it began and answered."""

    def __init__(self, loop: EventLoop, table: CallTable, most: int) -> None:
        self._loop = loop
        self._table = table
        self._most = most
        self._turn: Callable[[bytes], bytes] = _unconnected
        self._answer: Callable[[Call, bytes], None] = _unconnected
        self._free = deque(range(2 * most))
        """Places in the table, the one that was left longest ago first."""
        self._calls: dict[int, Call] = {}
        """By the numbers of their batches."""
        self._at_hand: Call | None = None
        """The call that the turn runs."""
        self.count = 0
        """How many coroutines run."""

    def connect(self, turn: Callable[[bytes], bytes], answer: Callable[[Call, bytes], None]) -> None:
        """Run batches by `turn`, whose functions are starters, and give each call to `answer` with its answer."""
        self._turn, self._answer = turn, answer

    def starter(self, task: Task) -> Callable[..., Any]:
        """Return the function by which the turn starts the task, and later gets what the task gave."""
        function, name, seconds = task.callable, task.name, task.timeout
        grace = CANCEL_GRACE_S if task.can_end_early else 0.0
        kill_ns = int((seconds + grace) * 1e9) if seconds else 0

        def start(*args: Any, **kwargs: Any) -> Any:
            call = self._at_hand
            if call is None:
                raise RuntimeError("a starter is called by the turn alone")
            if call.running is not None:
                return call.running.result()
            if kill_ns:
                self._table.limit(call.place, kill_ns)
            coroutine_position.set(call.position)
            made = function(*args, **kwargs)
            if not inspect.isawaitable(made):
                return made
            call.running = self._loop.start(made, name, seconds)
            return None

        return start

    def start(self, batch: bytes) -> None:
        """Start the task of a batch; it is answered now or later."""
        call = Call(batch, self._free.popleft())
        self._table.begin(call.place, call.number)
        answer = self._run(call, batch)
        if call.running is None:
            self._end(call, answer)
            return
        self.count += 1
        self._calls[call.number] = call
        call.running.task.add_done_callback(self._loop.guarded(partial(self._finish, call)))

    def task_at_hand(self) -> tuple[int, int] | None:
        """Return the job and the position of the task that the turn runs."""
        call = self._at_hand
        return None if call is None else (call.job, call.position)

    def cancel(self, unwanted: UnwantedTasks) -> None:
        """Cancel those of the calls that are among these tasks."""
        for call in list(self._calls.values()):
            if call.running and any(job == call.job and first <= call.position < stop for job, first, stop in unwanted):
                call.running.cancel()

    def forget(self) -> None:
        """Answer none of the calls: the router does not wait for them any more. They run to their end.

        The router clears the table before it sends others; until then it may ask which of these had begun.
        """
        for call in self._calls.values():
            call.is_awaited = False
        self._calls.clear()
        self._free = deque(range(2 * self._most))

    def names(self) -> list[str]:
        """Return the names of the tasks that run, each once, in order."""
        return sorted({call.running.name for call in self._calls.values() if call.running})

    def _finish(self, call: Call) -> None:
        """Answer a call whose coroutine has ended."""
        self.count -= 1
        answer = self._run(call, call.batch)
        if call.is_awaited:
            del self._calls[call.number]
            elapsed = (time.monotonic_ns() - call.began_ns).to_bytes(8, "little")
            if answer != NO_ANSWER:
                answer = answer[:_ELAPSED_AT] + elapsed + answer[_ELAPSED_AT + 8 :]
            self._end(call, answer)

    def _run(self, call: Call, batch: bytes) -> bytes:
        """Run the batch of a call through the turn; return the answer."""
        self._at_hand = call
        try:
            return self._turn(batch)
        finally:
            self._at_hand = None

    def _end(self, call: Call, answer: bytes) -> None:
        self._table.end(call.place, answer)
        self._free.append(call.place)
        self._answer(call, answer)


def _unconnected(*_: object) -> Any:
    raise RuntimeError("the calls are not connected to a turn")
