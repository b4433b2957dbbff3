"""W4: 4000 tasks submitted one by one, each with a future of its own, all results back and checked.

Two spans: until all results are there, and what the caller is held up for each `submit`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple

from bench.figures import Rounds
from bench.ours import TIMEOUT_S, Ours
from bench.pools import Executor
from bench.quiet import Quiet
from bench.scenarios import Plan, in_turns
from bench.span import RESULT, Job, in_a_row, timed_package
from bench.system import ARGUMENTS, PACKAGE, TASK
from taskengine import Executor as OurExecutor
from taskengine.tasks import task_count

EXECUTOR = "taskengine.Executor"
Submit = Callable[[], Future[Any]]


class Spans(NamedTuple):
    """Of each system: s for all results, and s of the caller's for each submit, by blocks of the same rounds."""

    results: Rounds
    caller: Rounds


class Submitted:
    """A system of the same name, by its `submit`."""

    def __init__(self, name: str, submit: Submit, tasks: int = PACKAGE) -> None:
        self.name = name
        self._submit = submit
        self._tasks = tasks
        self.caller: list[float] = []

    def job(self) -> Job:
        """The package that is timed; what the submits alone take is kept in `caller`."""

        def run() -> list[Any]:
            start = time.perf_counter()
            calls = [self._submit() for _ in range(self._tasks)]
            self.caller.append((time.perf_counter() - start) / self._tasks)
            return [call.result(TIMEOUT_S) for call in calls]

        return Job(run)


def submitting(ours: Ours, executor: OurExecutor, pool: Executor) -> list[Submitted]:
    """The client's `submit`, the executor's with a function, and that of the standard library's pool of processes."""
    return [
        Submitted(ours.name, lambda: ours.client.submit(TASK, *ARGUMENTS)),
        Submitted(EXECUTOR, lambda: executor.submit(task_count, *ARGUMENTS)),
        Submitted(pool.name, pool.submit),
    ]


def w4(systems: Sequence[Submitted], plan: Plan, quiet: Quiet) -> Spans:
    """Play W4 with systems that take turns. Raises WrongResult."""
    expected = [RESULT] * PACKAGE
    caller: Rounds = {system.name: [] for system in systems}

    def measure(system: Submitted) -> list[float]:
        job = system.job()
        samples = in_a_row(lambda: timed_package(system.name, job, expected), plan.submit_block)
        caller[system.name].append(system.caller[-len(samples) :])
        system.caller.clear()
        return samples

    measures = {system.name: partial(measure, system) for system in systems}
    return Spans(in_turns(measures, plan.submit_rounds, quiet), caller)
