"""joblib's `Parallel` on an engine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from joblib import Parallel, delayed, effective_n_jobs, parallel_config

import taskengine.joblib
from taskengine import BadArguments, TaskFailed
from taskengine.tasks import task_count, task_fail
from tests.engine import Engine, deadline, wait_until


@pytest.fixture(autouse=True)
def backend(engine: Engine) -> Iterator[None]:
    before = set(threading.enumerate())
    with parallel_config(backend=taskengine.joblib.NAME, address=engine.address, timeout=deadline(20)):
        yield
    wait_until(lambda: set(threading.enumerate()) <= before, 5.0, "the end of the connections' threads")


def by_name(task: str, *args: Any, **kwargs: Any) -> Any:
    """A delayed call of a task by its name, which joblib's types do not foresee."""
    name: Any = task
    return delayed(name)(*args, **kwargs)


def test_tasks_and_names_of_tasks() -> None:
    assert Parallel()(delayed(task_count)(i, i) for i in range(100)) == list(range(100))
    assert Parallel()(by_name("task_count", i, b=i) for i in range(5)) == list(range(5))


def test_even_a_single_job_goes_to_the_engine() -> None:
    assert Parallel(n_jobs=1)(by_name("task_count", i, i) for i in range(3)) == [0.0, 1.0, 2.0]


def test_as_many_jobs_as_the_engine_has_workers(engine: Engine) -> None:
    backend = taskengine.joblib.TaskEngineBackend(engine.address)
    assert [backend.effective_n_jobs(count) for count in (None, -1, 1, 7)] == [2, 2, 2, 7]
    assert effective_n_jobs(-1) == 2
    with pytest.raises(ValueError, match="n_jobs == 0"):
        backend.effective_n_jobs(0)


def test_results_as_they_come() -> None:
    sleeps = (by_name("task_sleep", seconds) for seconds in (1.5, 0.01))
    assert list(Parallel(return_as="generator_unordered")(sleeps)) == [0.01, 1.5]


def test_an_error_is_raised_and_the_next_run_works() -> None:
    # each has a Parallel of its own: one that has failed runs what it still held, with any backend (joblib 1.6)
    with pytest.raises(TaskFailed, match="boom"):
        Parallel()(delayed(task_fail)("boom") if i == 7 else delayed(task_count)(1, 2) for i in range(20))
    assert Parallel()([delayed(task_count)(1, 2)]) == [1.5]


def test_code_is_never_sent() -> None:
    with pytest.raises(BadArguments, match="abs is no task"):
        Parallel()(delayed(abs)(i) for i in range(3))
