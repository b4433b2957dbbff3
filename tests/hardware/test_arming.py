"""What speaks against arming: clients that go on commanding."""

from __future__ import annotations

import math

from taskengine_hardware.arming import FRESH_S, MAX_STREAMS, STREAM, Attempts
from tests.hardware.lane import call


def test_a_client_that_goes_on_commanding_is_a_reason_until_it_has_paused() -> None:
    attempts = Attempts()
    for number in range(STREAM):
        assert attempts.reasons(10.0 + number / 10) == []
        attempts.note("wheel", call("joystick", 10.0), 10.0 + number / 10)
    end = 10.0 + (STREAM - 1) / 10 + FRESH_S
    assert attempts.due == end
    assert attempts.reasons(end - 0.01) == ["client joystick is commanding wheel"]
    assert attempts.reasons(end) == []
    assert attempts.due == math.inf


def test_the_clients_that_are_remembered_are_few() -> None:
    attempts = Attempts()
    for _ in range(STREAM - 1):
        attempts.note("wheel", call("early", 10.0), 10.0)
    for number in range(MAX_STREAMS):
        attempts.note("wheel", call(f"client{number}", 10.0), 10.0)
    attempts.note("wheel", call("early", 10.0), 10.0)
    assert attempts.reasons(10.1) == [], "it was forgotten, and began anew"
