"""The name under which a Python function is a task, for the engine, which registers it, and for its callers. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

MARK: Final = "__taskengine__"
"""The attribute of a function in which `@task` and `@source` keep their options."""
PREFIX: Final = "task_"
"""A function of a task module whose name begins so is a task without `@task`."""


def task_name(function: Callable[..., Any]) -> str:
    """Return the name of the task that a function is, "" if it is none."""
    own = getattr(function, "__name__", "")
    mark = getattr(function, MARK, None)
    if mark is None:
        return own if own.startswith(PREFIX) else ""
    # the options of a source have no name
    return getattr(mark, "name", "") or (own if hasattr(mark, "name") else "")
