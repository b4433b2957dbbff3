"""What calls periodic tasks, without an engine: the calls go to a stand-in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest

from taskengine import _fastpath
from taskengine.broker.binary import error_entry
from taskengine.broker.origins import Origins
from taskengine.broker.package import DataRequest, Package
from taskengine.errors import Overloaded, TaskEngineError, TaskFailed
from taskengine.protocol.limits import FEED_BYTES
from taskengine.protocol.messages import ScheduleState, TaskInfo
from taskengine.router.schedule import NS
from taskengine.router.scheduler import BRIEF, OwnClient, Scheduler, brief, published, text_of_failure
from taskengine.runtime.clocks import MachineClock
from taskengine.runtime.wall_clock import WallClock


class Calls:
    """Takes packages like the router's frontend, and keeps them."""

    def __init__(self) -> None:
        self.clock = MachineClock()
        self.origins = Origins(b"epoch")
        self.taken: list[tuple[str | None, Package]] = []
        self.error: TaskEngineError | None = None

    def admit_own(self, read: Callable[[Mapping[str, str]], Package], name: str | None, now: float) -> None:
        if self.error is not None:
            raise self.error
        self.taken.append((name, read({"tick": "arm"})))

    def answer(self, place: int, body: bytes, *, failed: int = 0) -> None:
        package = self.taken[place][1]
        package.results.failed = failed
        package.results.put(0, 1, body)
        assert package.taker is not None
        package.taker(package)


class Bench:
    """A scheduler with one task of a period, and what it does."""

    def __init__(self, data_workers: int = 1, schedule: ScheduleState | None = None) -> None:
        self.calls = Calls()
        self.said: list[str] = []
        self.now = 1000 * NS
        client = OwnClient(self.calls, data_workers)
        self.scheduler = Scheduler(client, WallClock(), self.said.append, lambda: False, lambda: self.now)
        state = schedule or ScheduleState("tick", every=1.0)
        self.scheduler.learn([TaskInfo("tick", "arm", "()", "", None, False, "m", schedule=state)])

    def run(self) -> None:
        """Go on to the next time."""
        self.now += NS
        self.scheduler.run(self.now / NS)

    @property
    def state(self) -> ScheduleState:
        return self.scheduler.states()["tick"]

    def published(self, place: int) -> list[Any]:
        found: list[Any] = msgspec.msgpack.decode(self.calls.taken[place][1].body)
        return found


def test_a_task_is_called_as_the_client_of_the_schedule_and_its_result_is_published() -> None:
    bench = Bench()
    bench.run()
    [(name, package)] = bench.calls.taken
    sender = package.sender
    assert (name, package.lanes, sender.origin.client, sender.route) == ("schedule", [("arm", 1)], "schedule", ())
    assert sender.origin.connection == b"epoch"
    assert bench.state.is_running
    bench.calls.answer(0, _fastpath.encode([1, "two"]))
    name, told = bench.calls.taken[1]
    assert (name, told.data_request) == (None, DataRequest("schedule.tick", publishes=True))
    topic, value = bench.published(1)
    assert (topic, value["ok"], value["result"], value["runs"]) == ("schedule.tick", True, [1, "two"], 1)
    assert bench.state.last == "6 bytes"


def test_a_failure_is_said_once_until_the_task_works_again() -> None:
    bench = Bench()
    entry = error_entry(TaskFailed("OSError: no battery", type="OSError"))
    for place in (0, 2):
        bench.run()
        bench.calls.answer(place, entry, failed=1)
        bench.calls.answer(place + 1, _fastpath.encode(None))
    assert [line.rpartition("] ")[2] for line in bench.said] == ["tick fails: OSError: no battery"]
    assert bench.published(1)[1]["error"] == {"type": "OSError", "message": "OSError: no battery"}
    bench.run()
    bench.calls.answer(4, _fastpath.encode(1))
    bench.calls.answer(5, _fastpath.encode(None))
    bench.run()
    bench.calls.answer(6, entry, failed=1)
    assert len(bench.said) == 2
    assert (bench.state.runs, bench.state.failed) == (4, 3)


def test_a_result_that_the_data_worker_has_not_taken_is_not_followed_by_another() -> None:
    bench = Bench()
    bench.run()
    bench.calls.answer(0, _fastpath.encode(1))
    bench.run()
    bench.calls.answer(2, _fastpath.encode(2))
    assert [package.data_request is not None for _, package in bench.calls.taken] == [False, True, False]
    bench.calls.answer(1, _fastpath.encode(None))
    bench.run()
    bench.calls.answer(3, _fastpath.encode(3))
    assert bench.published(4)[1]["result"] == 3


def test_a_call_that_is_refused_is_a_run_that_failed() -> None:
    bench = Bench()
    bench.calls.error = Overloaded("there is no room", retry_after=None)
    bench.run()
    assert (bench.state.runs, bench.state.failed, bench.state.is_running) == (1, 1, False)
    assert bench.state.last == "Overloaded: there is no room"


def test_without_a_data_worker_nothing_is_published_and_the_task_runs() -> None:
    bench = Bench(data_workers=0)
    bench.run()
    bench.calls.answer(0, _fastpath.encode("done"))
    assert len(bench.calls.taken) == 1
    assert bench.state.last == "done"


def test_an_engine_that_stops_begins_no_run() -> None:
    bench = Bench()
    bench.run()
    bench.scheduler.stop()
    assert bench.scheduler.due == float("inf")
    bench.run()
    bench.calls.answer(0, _fastpath.encode(1))
    assert len(bench.calls.taken) == 1


def test_a_clock_that_is_not_set_is_waited_for_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[float | None] = [None, None, None, 1.0e9]
    monkeypatch.setattr(WallClock, "now", lambda clock: times.pop(0) if len(times) > 1 else times[0])
    bench = Bench(schedule=ScheduleState("tick", at="07:30"))
    assert bench.scheduler.due == float("inf")
    assert bench.state.due is None
    for _ in range(3):
        bench.run()
    assert bench.scheduler.due < float("inf")
    assert [line.rpartition("] ")[2] for line in bench.said] == [
        "Tasks with at or cron wait until the machine's clock is set",
        "The clock is set",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (True, "True"),
        (-3, "-3"),
        (2**40, str(2**40)),
        (7.4, "7.4"),
        ("ok", "ok"),
        ([1, 2], "3 bytes"),
        ({"a": 1}, "4 bytes"),
        (b"ab", "4 bytes"),
    ],
)
def test_a_result_is_told_in_brief(value: Any, text: str) -> None:
    assert brief(_fastpath.encode(value)) == text


def test_a_long_text_is_shortened() -> None:
    assert len(brief(_fastpath.encode("x" * 10_000))) <= BRIEF + 3


def test_a_large_result_is_left_out_of_what_is_published() -> None:
    value = published(ScheduleState("tick"), _fastpath.encode("x" * (FEED_BYTES + 1)), None)
    assert (value["ok"], value["result"]) == (True, None)


def test_an_error_is_told_with_its_type() -> None:
    assert text_of_failure(TaskFailed("OSError: gone", type="OSError")) == "OSError: gone"
    assert text_of_failure(Overloaded("full", retry_after=None)) == "Overloaded: full"
