"""Checks the options of `@task` by which a task runs again, or by itself. Pure."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container
from typing import Any, Final

from taskengine.errors import TaskModuleError
from taskengine.protocol.messages import RetryPolicy, ScheduleState

MAX_RETRIES: Final = 1000
LONGEST_BACKOFF_S: Final = 3600.0
Errors = tuple[type[Exception], ...]
"""The exceptions after which a task runs again."""


def check_retries(retries: object, backoff: object, retry_on: object) -> Errors:
    """Return `retry_on` as a tuple. Raises TaskModuleError for options that do not tell when a task runs again."""
    if not (isinstance(retries, int) and not isinstance(retries, bool) and 0 <= retries <= MAX_RETRIES):
        raise TaskModuleError(f"retries is a whole number from 0 to {MAX_RETRIES}, not {retries!r}")
    if not (isinstance(backoff, (int, float)) and 0 <= backoff <= LONGEST_BACKOFF_S):
        raise TaskModuleError(f"backoff is a number of seconds from 0 to {LONGEST_BACKOFF_S:g}, not {backoff!r}")
    errors = retry_on if isinstance(retry_on, tuple) else (retry_on,)
    for error in errors:
        if not (isinstance(error, type) and issubclass(error, Exception)):
            raise TaskModuleError(f"retry_on is exceptions, as retry_on=(OSError,), not {error!r}")
    return errors


def check_call(function: Callable[..., Any]) -> None:
    """Check that a periodic task can be called without arguments. Raises TaskModuleError."""
    try:
        inspect.signature(function).bind()
    except TypeError:
        raise unfit(getattr(function, "__name__", "it")) from None
    except ValueError:  # a function that does not tell; its calls will
        return


def unfit(name: str) -> TaskModuleError:
    """Return the error of a periodic task that cannot be called without arguments."""
    return TaskModuleError(f"{name} runs by itself, and takes arguments that nobody gives: write defaults for them")


def refuse_pins(
    pinned: Container[str], lane: str, name: str, retry: RetryPolicy | None, schedule: ScheduleState | None
) -> None:
    """Refuse a task of one of the lanes that are `pinned` that would run again, or by itself. Raises TaskModuleError.

    What moves a device has a client that answers for it, and that knows whether it is still to move.
    """
    if lane not in pinned:
        return
    if retry is not None:
        raise TaskModuleError(f"{name} has retries, and lane {lane!r} has pins: no task there runs again by itself")
    if schedule is not None:
        raise TaskModuleError(
            f"{name} runs {schedule.timing}, and lane {lane!r} has pins: nothing there runs by itself. Write a task of "
            "another lane that drives as a client, under a lease"
        )
