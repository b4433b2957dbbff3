"""The tasks of the engine that a laptop calls."""

from __future__ import annotations

from typing import Any

from taskengine import source, task


@task
def task_count(a: float, b: float) -> float:
    return (a + b) / 2


@task
def echo(value: Any) -> Any:
    return value


@task
def fails() -> None:
    raise ValueError("on purpose")


@source("beat", period=0.05)
def beat() -> str:
    return "beats"
