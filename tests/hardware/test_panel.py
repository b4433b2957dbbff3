from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from typing import Any

import pytest

from taskengine_hardware import Panel, read
from taskengine_hardware.kinds import Role
from taskengine_hardware.layout import LANE
from taskengine_hardware.panel import NOBODY

DEVICES: dict[str, Any] = {
    "pan": {"type": "Servo", "pin": 2},
    "lamp": {"type": "LED", "pin": 3},
    "glow": {"type": "RGBLED", "red": 4, "green": 5, "blue": 6},
    "leg": {"type": "Servo", "pin": 7, "lane": "legs"},
}


@pytest.fixture
def panel() -> Panel:
    return Panel(read({"devices": DEVICES}))


@pytest.mark.parametrize(
    ("place", "role", "value"),
    [
        (0, Role.SERVO, -0.5),
        (0, Role.SERVO, None),
        (1, Role.SWITCH, True),
        (1, Role.SWITCH, False),
        (2, Role.COLOUR, (0.5, 0.25, 1.0)),
        (3, Role.SERVO, 1.0),
    ],
)
def test_what_was_told_is_remembered(panel: Panel, place: int, role: Role, value: Any) -> None:
    assert panel.last(place, role) is None
    panel.note(place, value)
    assert panel.last(place, role) == value
    assert type(panel.last(place, role)) is type(value)


def test_stopping_latches(panel: Panel) -> None:
    assert not panel.is_stopped
    assert panel.unconfirmed() == []
    panel.stop(5)
    panel.stop(5)
    assert panel.is_stopped
    assert panel.unconfirmed() == [LANE, "legs"]
    panel.confirm("legs", panel.number)
    assert panel.unconfirmed() == [LANE]
    panel.arm()
    panel.arm()
    assert not panel.is_stopped
    panel.stop(5)
    assert panel.is_stopped


def test_the_owner_is_known(panel: Panel) -> None:
    assert panel.owner(LANE) == NOBODY
    panel.begin(LANE, 17)
    panel.begin("legs", 19)
    assert (panel.owner(LANE), panel.owner("legs")) == (17, 19)


def test_owners_are_rung_for(panel: Panel) -> None:
    panel.stop(5)
    assert panel.stopped_at == 5
    for lane in (LANE, "legs"):
        assert os.eventfd_read(panel.bell(lane)) == 1
    panel.stop(6)
    assert panel.stopped_at == 5
    assert os.eventfd_read(panel.bell(LANE)) == 1
    panel.arm()
    assert os.eventfd_read(panel.bell("legs")) == 2


def _ask(work: Callable[[], Any]) -> Any:
    """The answer of a process that is forked, and dies then."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=lambda: theirs.send(work()))
    process.start()
    answer = ours.recv()
    process.join()
    return answer


def test_a_lock_is_one_processs_and_goes_with_it(panel: Panel) -> None:
    assert _ask(lambda: panel.take(LANE)) is True
    assert panel.take(LANE)  # that one is dead
    assert _ask(lambda: panel.take(LANE)) is False
    assert _ask(lambda: panel.take("legs")) is True
    panel.give(LANE)
    assert _ask(lambda: panel.take(LANE)) is True


def test_memory_is_shared(panel: Panel) -> None:
    def work() -> bool:
        panel.want("legs", 17)
        panel.ends[1] = 2**62 + 1
        panel.note(0, 0.25)
        panel.stop(5)
        return True

    _ask(work)
    assert panel.wanted_by("legs") == 17
    assert panel.wanted_by(LANE) == NOBODY
    assert panel.ends[1] == 2**62 + 1
    assert panel.last(0, Role.SERVO) == 0.25
    assert panel.is_stopped
