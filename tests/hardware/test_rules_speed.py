"""Commands cost with rules what they cost without, as long as no rule holds for their device."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.hardware.lane import Lane, call

pytestmark = pytest.mark.alone
SERVOS: dict[str, Any] = {f"servo{number}": {"type": "Servo", "pin": 4 + number, "lease": 60} for number in range(16)}
INPUTS: dict[str, Any] = {
    "estop": {"type": "Button", "pin": 22, "stops": True},
    "heat": {"type": "CPUTemperature"},
}
RULES = {
    f"rule{number}": {"when": f"heat > {80 + number}", "then": "stop", "devices": [*SERVOS]} for number in range(9)
}
COMMANDS, ROUNDS, BEGIN = 4000, 40, 100.0
LIMIT = 1.05


def seconds(lane: Lane) -> float:
    """Processor time of a package of commands."""
    origin = call("me", BEGIN)
    outputs = [lane.output(name) for name in SERVOS]
    command, now = lane.control.command, BEGIN
    start = time.process_time()
    for number in range(COMMANDS):
        now += 1e-6
        command(outputs[number & 15], (number % 201 - 100) / 100, origin, now)
    return time.process_time() - start


def test_commands_under_ten_rules_take_as_long_as_without() -> None:
    without, ruled = Lane(SERVOS), Lane({**SERVOS, **INPUTS}, rules=RULES)
    for now in (0.1, BEGIN):
        ruled.sense("estop", True, now)
        ruled.sense("heat", 40.0, now)
    assert ruled.panel.report()["rules"] == {}
    pairs = [(seconds(without), seconds(ruled)) for _ in range(ROUNDS)]
    assert ruled.writes == without.writes
    least, most = (min(column) for column in zip(*pairs, strict=True))
    assert most < LIMIT * least
