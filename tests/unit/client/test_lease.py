from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskengine import BadArguments, EngineUnreachable
from taskengine.client.lease import AsyncLease, Lease


class Calls:
    """Takes calls down, and may fail."""

    def __init__(self) -> None:
        self.made: list[tuple[Any, ...]] = []
        self.fails = False

    def __call__(self, task: str, *args: Any, **kwargs: Any) -> float:
        self.made.append((task, *args, *kwargs.items()))
        if self.fails:
            raise EngineUnreachable("no engine answers")
        return 0.5


def test_a_lease_is_begun_renewed_and_given_back() -> None:
    calls = Calls()
    with Lease(calls, ["pan", "tilt"], exclusive=True, lane="") as lease:
        assert lease.seconds == 0.5
        lease.renew()
    devices = ["pan", "tilt"]
    assert calls.made == [("lease.acquire", devices, True), ("lease.renew", devices), ("lease.release", devices)]


def test_a_lane_of_its_own_has_its_own_tasks() -> None:
    calls = Calls()
    Lease(calls, ["hip"], exclusive=False, lane="legs").renew()
    assert calls.made == [("legs.lease.acquire", ["hip"], False), ("legs.lease.renew", ["hip"])]


def test_taking_over_is_asked_for_only_where_it_is_wanted() -> None:
    """An engine of version 0.1.0 does not know it."""
    calls = Calls()
    Lease(calls, ["pan"], exclusive=True, lane="", take_over=True)
    assert calls.made == [("lease.acquire", ["pan"], True, ("take_over", True))]

    async def call(task: str, *args: Any, **kwargs: Any) -> float:
        return calls(task, *args, **kwargs)

    asyncio.run(AsyncLease(call, ["pan"], "").acquire(exclusive=True, take_over=True))
    asyncio.run(AsyncLease(call, ["pan"], "").acquire(exclusive=True))
    assert calls.made[1:] == [("lease.acquire", ["pan"], True, ("take_over", True)), ("lease.acquire", ["pan"], True)]


def test_what_went_wrong_inside_is_told_where_the_end_fails_too() -> None:
    def drive(calls: Calls, error: Exception | None) -> None:
        with Lease(calls, ["pan"], exclusive=False, lane=""):
            calls.fails = True
            if error is not None:
                raise error

    with pytest.raises(KeyError, match="inside"):
        drive(Calls(), KeyError("inside"))
    with pytest.raises(EngineUnreachable):
        drive(Calls(), None)


def test_a_lease_is_of_something() -> None:
    with pytest.raises(BadArguments, match="one device at least"):
        Lease(Calls(), [], exclusive=False, lane="")
