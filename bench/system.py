"""The interface of every system that is measured, ours too, and the task that it runs: `task_count(2, 3)`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from bench.span import Job

TASK = "task_count"
ARGUMENTS = (2, 3)
PACKAGE = 4000
CHUNK = 50
WORKERS = 2

Done = Callable[[Any], None]


class System(Protocol):
    """Something that runs tasks."""

    name: str

    def package(self, tasks: int) -> Job:
        """So many at once, the arguments made."""

    def one(self) -> Any:
        """Run one, there and back."""

    def close(self) -> None:
        """Stop what was started."""


class Offered(Protocol):
    """Something that takes a task without waiting for it."""

    name: str

    def offer(self, done: Done) -> None:
        """Have one run; `done` gets its result, or its exception, from any thread."""


def report(future: Future[Any], done: Done) -> None:
    """Give `done` the result of a future that is done, or its exception."""
    error = future.exception()
    done(future.result() if error is None else error)
