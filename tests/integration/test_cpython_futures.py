"""CPython's own tests of `concurrent.futures`, run against `taskengine.Executor`.

The tests are those of the interpreter at hand, in its package `test`, or Debian's (libpython3.X-testsuite). Where they
submit a function of their own, the task of that name is called. `LEFT_OUT` names the tests that are not run, with the
reason. Tests of `Future` itself, of initializers and of the threads and processes of pools are not about executors.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import unittest
import weakref
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from taskengine import Executor
from tests.engine import Engine

SUITE = "test.test_concurrent_futures"
PARTS = ("util", "executor", "test_wait", "test_as_completed", "test_shutdown", "test_process_pool")
CODE = "it sends code: a method of an object that only the caller has"
PROGRAM = "it starts a program that imports a pool by its name; test_executor.py has its like"
LEFT_OUT = {
    "test_no_stale_references": CODE,
    "test_max_workers_negative": "an engine's settings say how many workers it has",
    "test_interpreter_shutdown": PROGRAM,
    "test_submit_after_interpreter_shutdown": PROGRAM,
    "test_hang_gh83386": PROGRAM,
}
MIXINS = ("ExecutorTest", "WaitTests", "AsCompletedTests", "ExecutorShutdownTest")
WORKERS = 5
TASKS = """
import time
import numpy
from taskengine import task

@task(name="pow")
def _pow(*args): return pow(*args)

@task(name="divmod")
def _divmod(*args): return divmod(*args)

@task(name="str")
def _str(*args): return str(*args)

@task(name="int")
def _int(*args): return int(*args)

@task(name="sleep")
def _sleep(seconds): time.sleep(seconds)

@task
def mul(x, y): return x * y

@task
def capture(*args, **kwargs): return args, kwargs

@task
def sleep_and_raise(seconds):
    time.sleep(seconds)
    raise Exception("this is an exception")

@task
def make_dummy_object(_): return numpy.zeros(1)  # a value that a weak reference can have
"""


def suite() -> dict[str, Any]:
    """The names of CPython's tests, from whatever this interpreter has; empty where it has none, which fails a test."""
    try:
        return _names(importlib.import_module(SUITE))
    except ModuleNotFoundError:
        folder = Path(f"/usr/lib/python3.{sys.version_info.minor}/test/test_concurrent_futures")
        file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    if not file.is_file():
        return {}
    spec = importlib.util.spec_from_file_location(
        SUITE, file, submodule_search_locations=[str(folder)] if folder.is_dir() else None
    )
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[SUITE] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return _names(module)


def _names(module: ModuleType) -> dict[str, Any]:
    names = dict(vars(module))
    for part in PARTS if hasattr(module, "__path__") else ():
        names.update(vars(importlib.import_module(f"{SUITE}.{part}")))
    return names


class Pool(Executor):
    """An executor that is made as the tests make a pool, and calls the task that has the name of their function."""

    address = ""

    def __init__(self, max_workers: int = WORKERS) -> None:
        assert max_workers <= WORKERS
        super().__init__(self.address)
        self.submitted: weakref.WeakSet[Future[Any]] = weakref.WeakSet()

    def submit(self, fn: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a call of the task with the function's name."""
        future = super().submit(_named(fn), *args, **kwargs)
        self.submitted.add(future)
        return future

    def map(self, fn: Callable[..., Any] | str, *iterables: Any, **kwargs: Any) -> Iterator[Any]:
        """Map the task with the function's name."""
        return super().map(_named(fn), *iterables, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut down; the test of `cancel_futures` wants that a call has begun, which takes an engine longer."""
        if cancel_futures:
            futures.wait(self.submitted, return_when=futures.FIRST_COMPLETED)
        super().shutdown(wait, cancel_futures=cancel_futures)


def _named(function: Callable[..., Any] | str) -> str:
    return function if isinstance(function, str) else function.__name__


def cases(names: dict[str, Any]) -> Iterator[type[unittest.TestCase]]:
    """CPython's test cases with `Pool` as their executor, less those that are left out.

    One test of any executor's `map` stands among those of pools of processes.
    """
    for mixin in MIXINS:
        left_out = dict.fromkeys(LEFT_OUT.keys() & set(dir(names[mixin])))
        bases = (names[mixin], names["ExecutorMixin"], names["BaseTestCase"])
        yield type(f"Test{mixin}", bases, {"executor_type": Pool, **left_out})
    chunks = {"executor_type": Pool, "test_map_chunksize": names["ProcessPoolExecutorTest"].test_map_chunksize}
    yield type("TestChunks", (names["ExecutorMixin"], names["BaseTestCase"]), chunks)


NAMES = suite()


@pytest.fixture(scope="module", autouse=True)
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Serve the tests' functions as tasks, with as many workers as the tests' pools have."""
    module = tmp_path_factory.mktemp("tasks") / "functions.py"
    module.write_text(TASKS)
    with Engine(tasks=module, task_workers=WORKERS) as engine:
        Pool.address = engine.address
        yield


if NAMES:
    globals().update({case.__name__: case for case in cases(NAMES)})


def test_the_suite_is_there() -> None:
    package = f"libpython3.{sys.version_info.minor}-testsuite"
    assert NAMES, (
        f"this Python has no package test.test_concurrent_futures: apt install {package}, or see docs/testing.md"
    )
    known = {name for mixin in MIXINS for name in dir(NAMES[mixin])}
    assert not LEFT_OUT.keys() - known, "these tests do not exist any more"
