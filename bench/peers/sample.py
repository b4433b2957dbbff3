"""The functions that the peers run: the sample task, and bags of it for those that have no chunks of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

ARGUMENTS = (2, 3)
CHUNK = 50
WORKERS = 2


def task_count(a: float, b: float) -> float:
    """The mean of two numbers."""
    return (a + b) / 2


def run_bag(pairs: Sequence[Sequence[float]]) -> list[float]:
    """Many calls in one."""
    return [task_count(a, b) for a, b in pairs]


def bags(tasks: int) -> list[list[tuple[int, int]]]:
    """The arguments of so many tasks, CHUNK of them in a bag."""
    return [[ARGUMENTS] * min(CHUNK, tasks - first) for first in range(0, tasks, CHUNK)]


def flat(answer: Iterable[Iterable[Any]]) -> list[Any]:
    """The results that are in bags."""
    return [result for bag in answer for result in bag]
