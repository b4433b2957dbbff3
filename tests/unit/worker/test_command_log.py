from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from taskengine.errors import Overloaded
from taskengine.protocol.layouts import COMMANDS_TOPIC
from taskengine.protocol.messages import Origin
from taskengine.registry.registry import Task
from taskengine.worker.command_log import MAX_CALL_BYTES, CommandLog
from taskengine.worker.context import set_origin


class Published:
    """What a log publishes; refused while it `is_full`."""

    def __init__(self) -> None:
        self.values: list[dict[str, Any]] = []
        self.is_full = False

    def __call__(self, topic: str, value: Any) -> None:
        assert topic == COMMANDS_TOPIC
        if self.is_full:
            raise Overloaded("the data worker has not taken what was published before")
        self.values.append(value)

    def commands(self) -> list[dict[str, Any]]:
        return [command for value in self.values for command in value["commands"]]


def half(a: float, b: float = 0.0) -> float:
    if a < 0:
        raise ValueError("no negative halves")
    return (a + b) / 2


async def half_later(a: float) -> float:
    await asyncio.sleep(0)
    return a / 2


def halves(a: float):  # type: ignore[no-untyped-def]
    yield a / 2


def task(function: Any) -> Task:
    return Task(function.__name__, function, "", None, False)


def test_a_call_is_told_with_its_client_times_and_result() -> None:
    published = Published()
    log = CommandLog("arm", published)
    now = time.monotonic_ns()
    set_origin(Origin("tablet", b"7", b"\x01", received=now - 2_000, sent=now - 9_000))
    try:
        assert log.told(task(half)).callable(3, b=2) == 2.5
        assert published.values == [], "no answer waits for it"
        log.flush()
        log.flush()
    finally:
        set_origin(Origin())
    [value] = published.values
    [command] = value["commands"]
    assert value["missed"] == 0
    assert (command["task"], command["lane"], command["client"], command["holder"]) == ("half", "arm", "tablet", "01")
    assert (command["args"], command["kwargs"], command["result"]) == ([3], {"b": 2}, 2.5)
    assert command["sent"] < command["received"] < command["began"] <= command["ended"]
    assert abs(command["ended"] - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) < 60 * 10**9
    assert "error" not in command


def test_an_error_is_told_and_raised() -> None:
    published = Published()
    log = CommandLog("", published)
    with pytest.raises(ValueError, match="no negative halves"):
        log.told(task(half)).callable(-1)
    log.flush()
    [command] = published.commands()
    assert command["error"] == {"type": "ValueError", "message": "no negative halves"}
    assert command["received"] is None


def test_coroutines_and_generators_are_told_too() -> None:
    published = Published()
    log = CommandLog("", published)
    assert asyncio.run(log.told(task(half_later)).callable(3)) == 1.5
    generator = log.told(task(halves))
    assert generator.is_generator
    assert list(generator.callable(3)) == [1.5]
    log.flush()
    assert [(each["task"], each["result"]) for each in published.commands()] == [("half_later", 1.5), ("halves", None)]


def test_what_is_large_or_no_json_is_left_out() -> None:
    published = Published()
    log = CommandLog("", published)
    call = log.told(task(lambda value: 1j)).callable
    call("x" * MAX_CALL_BYTES)
    call({None: 1})
    log.flush()
    first, second = published.commands()
    assert (first["args"], first["result"], first["left_out"]) == (None, None, ["args", "result"])
    assert second["left_out"] == ["args", "result"]


def test_what_the_data_worker_does_not_take_is_counted() -> None:
    published = Published()
    log = CommandLog("", published)
    call = log.told(task(half)).callable
    published.is_full = True
    for _ in range(3):
        call(1)
    log.flush()
    published.is_full = False
    for _ in range(200):
        call(1)
    log.flush()
    assert [value["missed"] for value in published.values][:2] == [3, 0]
    assert len(published.values) > 1, "one message of a feed is bounded"
    assert len(published.commands()) == 200
