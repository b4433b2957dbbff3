"""The name of the task that a function is."""

from __future__ import annotations

import functools

from taskengine import source, task
from taskengine.protocol.marks import task_name
from taskengine.tasks import task_count


@task
def wave() -> None: ...


@task(name="arm.wave")
def waved() -> None: ...


@source("arm.state")
def state() -> None: ...


@functools.wraps(waved)
def wrapped() -> None: ...


def test_a_task_has_its_own_name_or_the_one_that_it_was_given() -> None:
    assert [task_name(function) for function in (wave, waved, wrapped)] == ["wave", "arm.wave", "arm.wave"]


def test_a_function_named_task_is_one() -> None:
    assert task_name(task_count) == "task_count"


def test_nothing_else_is_a_task() -> None:
    assert [task_name(function) for function in (state, pow, lambda: None, functools.partial(wave))] == [""] * 4
