"""What the router charges a client for a message beside the time that it takes to read it."""

from __future__ import annotations

import gc
import itertools
import os
import sys
from collections.abc import Iterator
from typing import Any, cast

import pytest

from taskengine.broker.binary import read_package
from taskengine.broker.broker import Broker
from taskengine.config.settings import Settings
from taskengine.protocol.messages import NOWHERE, Request, RequestKind, TaskInfo, encode_request
from taskengine.router.frontend import Frontend
from taskengine.router.tuning import RUN_S
from taskengine.runtime.log_buffer import LogBuffer
from taskengine.security.audit import Audit

CLIENT = b"\0abcd"
LANES = {"task_count": "", "arm.wave": "arm"}
COUNT, WAVE = b"\x92\x00\x90", b"\x92\x01\x90"


class Silence:
    """A port at which nothing is sent."""

    user, peer, descriptor = "", "127.0.0.1", -1

    def send(self, frames: object, debt: object = None) -> None:
        """Forget it."""


@pytest.fixture
def frontend() -> Iterator[Frontend]:
    with open(os.devnull, "wb") as nowhere:
        log = LogBuffer(nowhere.fileno(), enabled=False)
        settings = Settings(enable_stdout=False)
        broker = Broker(10, settings.lanes_with(LANES.values()))
        made = Frontend(settings, broker, cast(Any, Silence()), None, Audit(None, log.say), log, lambda _: None)
        made.learn([TaskInfo(name, lane, "()", "", None, False, "x", False) for name, lane in LANES.items()])
        yield made


def frames_of(calls: list[bytes]) -> list[bytes]:
    head = encode_request(Request(RequestKind.PACKAGE, 1, "x", list(LANES)))
    ends = b"".join(end.to_bytes(4, "little") for end in itertools.accumulate(map(len, calls)))
    return [head, ends, b"".join(calls)]


def charged(frontend: Frontend, calls: list[bytes]) -> float:
    """The time, in s, that a package is charged for which is read in no time."""
    before = frontend._work._spent.get(CLIENT, 0.0)
    frontend.take([CLIENT, *frames_of(calls)], b"", b"", 0.0)
    frontend.charge(0.0, 0.0)
    return frontend._work._spent[CLIENT] - before


def test_changes_from_lane_to_lane_are_charged_before_they_are_handed_out(frontend: Frontend) -> None:
    """A client whose packages took the router longer to hand out than to read had others wait 700 ms."""
    assert charged(frontend, [COUNT] * 1000) == 0.0
    assert charged(frontend, [COUNT, WAVE] * 500) == pytest.approx(999 * RUN_S)
    assert charged(frontend, [COUNT, WAVE] * 5000) == 0.0, "it is refused"
    assert charged(frontend, [COUNT]) == 0.0


def test_the_engine_s_own_packages_are_charged_to_nobody(frontend: Frontend) -> None:
    request = Request(RequestKind.PACKAGE, 1, "x", list(LANES))
    frontend.take([CLIENT, *frames_of([COUNT])], b"", b"", 0.0)
    before = frontend._work._spent.get(CLIENT, 0.0)
    frames = frames_of([COUNT, WAVE] * 500)
    frontend.admit_own(lambda lanes: read_package((b"",), request, frames, lanes, 1, NOWHERE), None, 0.0)
    frontend.charge(0.0, 0.0)
    assert frontend._work._spent.get(CLIENT, 0.0) == before


def test_a_malformed_message_of_wire_0_1_is_gone_with_its_answer(frontend: Frontend) -> None:
    """Its error kept it, 60 MB each, until all garbage was collected."""
    body = os.urandom(100)
    before = sys.getrefcount(body)
    gc.disable()
    try:
        frontend.take([CLIENT, b"", b'{"bad'], b"", body, 0.0)
        assert sys.getrefcount(body) == before
    finally:
        gc.enable()
