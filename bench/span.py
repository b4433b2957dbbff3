"""A span of time, and what it is of. Only the standard library: the peers' processes use it, in their own environment.

A span times a `Job`, whose arguments were made before; its results are read, checked and freed after the clock has
stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

RESULT = 2.5
"""The result of task_count(2, 3)."""


class WrongResult(Exception):
    """A system lost a task or gave a wrong answer, so its times mean nothing."""


def as_it_is(answer: Any) -> Any:
    """The results where `run` gives them."""
    return answer


class Job(NamedTuple):
    """A package ready to be run: `run` is timed, `results` makes the list of results of what it gave, and is not."""

    run: Callable[[], Any]
    results: Callable[[Any], Sequence[Any]] = as_it_is


class Block(NamedTuple):
    """Repetitions in a row: `warm_up` that do not count, then `times` that do; none is begun after `most_s` s.

    One always counts, however slow.
    """

    warm_up: int
    times: int
    most_s: float = 2.0


def timed_package(name: str, job: Job, expected: list[Any]) -> float:
    """Seconds for the job of the system `name`. Raises WrongResult."""
    start = time.perf_counter()
    answer = job.run()
    elapsed = time.perf_counter() - start
    results = job.results(answer)
    if results != expected:
        right = sum(result == wanted for result, wanted in zip(results, expected, strict=False))
        raise WrongResult(f"{name}: {right} of {len(expected)} results are right")
    return elapsed


def timed_call(name: str, call: Callable[[], Any]) -> float:
    """Seconds for one task there and back. Raises WrongResult."""
    start = time.perf_counter()
    result = call()
    elapsed = time.perf_counter() - start
    if result != RESULT:
        raise WrongResult(f"{name}: {result!r} is not {RESULT}")
    return elapsed


def in_a_row(measure: Callable[[], float], block: Block) -> list[float]:
    """The samples of a block."""
    end = time.monotonic() + block.most_s
    for _ in range(block.warm_up):
        if time.monotonic() < end:
            measure()
    samples = [measure()]
    while len(samples) < block.times and time.monotonic() < end:
        samples.append(measure())
    return samples
