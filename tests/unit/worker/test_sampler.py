"""Sources in threads of their own."""

from __future__ import annotations

import mmap
import select
import threading
from collections.abc import Callable
from typing import Any

import pytest

from taskengine._fastpath import ProgressPage
from taskengine.protocol.layouts import PROGRESS_BYTES
from taskengine.registry.registry import Source
from taskengine.worker.sampler import Sampled, Samplers
from tests.engine import deadline, wait_until


def samplers(**functions: Callable[[], Any]) -> tuple[Samplers, ProgressPage]:
    page = ProgressPage(mmap.mmap(-1, PROGRESS_BYTES))
    return Samplers([Source(topic, function, 0.001) for topic, function in functions.items()], page), page


def sampled(made: Samplers) -> list[Sampled]:
    """Return the samples, once there are any."""
    assert select.select([made.descriptor], [], [], deadline(20))[0]
    return made.take()


def once(value: Any) -> Callable[[], Any]:
    """A source that gives a value once, and hangs from then on."""
    values = [value]

    def function() -> Any:
        return values.pop() if values else threading.Event().wait()

    return function


def test_one_that_hangs_holds_up_no_other_and_the_slate_says_that_it_runs() -> None:
    numbers = iter(range(5))
    done = threading.Event()
    made, page = samplers(hung=once(None), counts=lambda: next(numbers, None) if not done.is_set() else done.wait())
    assert made.take() == []
    assert made.start() == []
    found: list[Any] = []
    while len(found) < 5:
        for each in sampled(made):
            found += [each.value] if each.topic == "counts" else []
            each.taken.set()
    assert found == [0, 1, 2, 3, 4]
    wait_until(lambda: page.running, 20, "the progress page's word")
    assert {rhythm.topic for rhythm in made.rhythms} == {"hung", "counts"}


def test_the_slate_says_when_none_runs() -> None:
    made, page = samplers(x=lambda: 1)
    made.start()
    [first] = sampled(made)
    wait_until(lambda: not page.running, 20, "its end: it is not asked again before its sample is taken")
    assert made.take() == []
    first.taken.set()
    [second] = sampled(made)
    assert second.made > first.made


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(3), KeyboardInterrupt()])
def test_what_a_source_raises_is_told_and_it_is_asked_again(error: BaseException) -> None:
    answers: list[Any] = [error, 7]

    def function() -> Any:
        answer = answers.pop(0) if answers else None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    made, _ = samplers(x=function)
    made.start()
    [failed] = sampled(made)
    assert (failed.topic, failed.value, failed.error) == ("x", None, error)
    failed.taken.set()
    [fine] = sampled(made)
    assert (fine.value, fine.error) == (7, None)


def test_a_source_for_which_there_is_no_thread_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    made, _ = samplers(x=lambda: 1)
    monkeypatch.setattr(threading.Thread, "start", fail)
    assert made.start() == ["x"]
    assert made.rhythms == []
