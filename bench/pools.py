"""The systems that need no installation: a loop in this process, and the standard library's two pools."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

from bench.span import Job
from bench.system import ARGUMENTS, CHUNK, WORKERS, Done, report
from taskengine.tasks import task_count

LOOP = "in-process loop"
POOL = "multiprocessing.Pool"
EXECUTOR = "ProcessPoolExecutor"


class Loop:
    """The limit of one core: no transport at all."""

    name = LOOP

    def package(self, tasks: int) -> Job:
        first, second = [ARGUMENTS[0]] * tasks, [ARGUMENTS[1]] * tasks
        return Job(lambda: [task_count(a, b) for a, b in zip(first, second, strict=True)])

    def one(self) -> Any:
        return task_count(*ARGUMENTS)

    def close(self) -> None:
        """Nothing was started."""


class Pool:
    """`multiprocessing.Pool`."""

    name = POOL

    def __init__(self, workers: int = WORKERS) -> None:
        # forked children would share the sockets of this process
        self.pool = multiprocessing.get_context("spawn").Pool(workers)

    def package(self, tasks: int) -> Job:
        arguments = [ARGUMENTS] * tasks
        return Job(lambda: self.pool.starmap(task_count, arguments, chunksize=CHUNK))

    def one(self) -> Any:
        return self.pool.apply(task_count, ARGUMENTS)

    def offer(self, done: Done) -> None:
        self.pool.apply_async(task_count, ARGUMENTS, callback=done, error_callback=done)

    def close(self) -> None:
        self.pool.close()
        self.pool.join()


class Executor:
    """`concurrent.futures.ProcessPoolExecutor`."""

    name = EXECUTOR

    def __init__(self) -> None:
        self._executor = ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn"))

    def package(self, tasks: int) -> Job:
        first, second = [ARGUMENTS[0]] * tasks, [ARGUMENTS[1]] * tasks
        return Job(lambda: list(self._executor.map(task_count, first, second, chunksize=CHUNK)))

    def one(self) -> Any:
        return self._executor.submit(task_count, *ARGUMENTS).result()

    def submit(self) -> Future[Any]:
        """Submit one, as a user does."""
        return self._executor.submit(task_count, *ARGUMENTS)

    def offer(self, done: Done) -> None:
        self.submit().add_done_callback(lambda future: report(future, done))

    def close(self) -> None:
        self._executor.shutdown()
