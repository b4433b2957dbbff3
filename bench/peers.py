"""What the engine is measured beside, in the same run: a loop in this process, and the standard library's two pools.

`System` is what every one of them, ours too, can do for a scenario.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, Protocol

from taskengine.tasks import task_count

TASK = "task_count"
ARGUMENTS = (2, 3)
RESULT = 2.5
CHUNK = 50
WORKERS = 2

Done = Callable[[Any], None]


class System(Protocol):
    """Something that runs `task_count(2, 3)`."""

    name: str

    def package(self, tasks: int) -> list[Any]:
        """Run so many at once and give all results."""

    def one(self) -> Any:
        """Run one, there and back."""

    def offer(self, done: Done) -> None:
        """Have one run; `done` gets its result, or its exception, from any thread."""

    def close(self) -> None:
        """Stop what was started."""


def report(future: Future[Any], done: Done) -> None:
    """Give `done` the result of a future that is done, or its exception."""
    error = future.exception()
    done(future.result() if error is None else error)


class Loop:
    """The limit of one core: no transport at all."""

    name = "in-process loop"

    def package(self, tasks: int) -> list[Any]:
        return [task_count(2, 3) for _ in range(tasks)]

    def one(self) -> Any:
        return task_count(*ARGUMENTS)

    def offer(self, done: Done) -> None:
        done(task_count(*ARGUMENTS))

    def close(self) -> None:
        """Nothing was started."""


class Pool:
    """`multiprocessing.Pool`."""

    name = "multiprocessing.Pool"

    def __init__(self) -> None:
        # forked children would share the sockets of this process
        self._pool = multiprocessing.get_context("spawn").Pool(WORKERS)

    def package(self, tasks: int) -> list[Any]:
        return self._pool.starmap(task_count, [ARGUMENTS] * tasks, chunksize=CHUNK)

    def one(self) -> Any:
        return self._pool.apply(task_count, ARGUMENTS)

    def offer(self, done: Done) -> None:
        self._pool.apply_async(task_count, ARGUMENTS, callback=done, error_callback=done)

    def close(self) -> None:
        self._pool.close()
        self._pool.join()


class Executor:
    """`concurrent.futures.ProcessPoolExecutor`."""

    name = "ProcessPoolExecutor"

    def __init__(self) -> None:
        self._executor = ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn"))

    def package(self, tasks: int) -> list[Any]:
        return list(self._executor.map(task_count, [2] * tasks, [3] * tasks, chunksize=CHUNK))

    def one(self) -> Any:
        return self._executor.submit(task_count, *ARGUMENTS).result()

    def offer(self, done: Done) -> None:
        self._executor.submit(task_count, *ARGUMENTS).add_done_callback(lambda future: report(future, done))

    def close(self) -> None:
        self._executor.shutdown()
