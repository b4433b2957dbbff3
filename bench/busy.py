"""A task module for the benchmark: tasks that take as long, or yield as many values, as they are told."""

from __future__ import annotations

import time
from collections.abc import Iterator

from taskengine import task


@task
def busy(us: float) -> float:
    """Keep a core busy for so many µs of its time."""
    # the thread's own time: a core that two share does not do the work of two
    end = time.thread_time_ns() + int(us * 1000)
    while time.thread_time_ns() < end:
        pass
    return us


@task(name="bench.values")
def values(number: int) -> Iterator[int]:
    """Yield so many values."""
    yield from range(number)
