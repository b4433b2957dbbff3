"""The sample tasks, which an engine serves until TASKS names others."""

from __future__ import annotations

import time
from typing import Any

from taskengine import task


@task
def task_count(a: float, b: float) -> float:
    """Return the mean of two numbers."""
    return (a + b) / 2


@task
def task_echo(*args: Any, **kwargs: Any) -> Any:
    """Return the arguments: one as it is, several as a list, keywords as an object."""
    if kwargs:
        return {**kwargs, "args": list(args)} if args else kwargs
    return args[0] if len(args) == 1 else list(args)


@task
def task_sleep(seconds: float) -> float:
    """Sleep for this many seconds, and return the number."""
    time.sleep(seconds)
    return seconds


@task
def task_fail(message: str = "as asked") -> None:
    """Raise a RuntimeError with the message."""
    raise RuntimeError(message)
