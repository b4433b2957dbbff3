from __future__ import annotations

from typing import Any

import pytest

from taskengine import BadArguments, Overloaded
from taskengine_hardware import SharedState, read
from taskengine_hardware.bulletin import SYSTEM, Bulletin

LAYOUT = read({"devices": {"lamp": {"type": "LED", "pin": 2}}})
LAMP = LAYOUT.devices["lamp"]


class Air:
    """Records what is published and what is said; `error` is raised instead."""

    def __init__(self) -> None:
        self.published: list[tuple[str, Any]] = []
        self.said: list[str] = []
        self.error: Exception | None = None

    def publish(self, topic: str, value: Any) -> None:
        if self.error is not None:
            raise self.error
        self.published.append((topic, value))

    def take(self) -> list[tuple[str, Any]]:
        taken, self.published = self.published, []
        return taken


@pytest.fixture
def panel() -> SharedState:
    return SharedState(LAYOUT)


@pytest.fixture
def air() -> Air:
    return Air()


def test_how_the_machine_is_is_told_at_first_and_on_each_change(panel: SharedState, air: Air) -> None:
    bulletin = Bulletin(panel, air.publish, air.said.append)
    bulletin.tell()
    assert air.take() == [(SYSTEM, panel.report())]
    bulletin.tell()
    assert air.take() == []
    panel.stop(5 * 10**9, by="anna", why="smoke")
    bulletin.tell()
    [(topic, value)] = air.take()
    assert (topic, value["armed"], value["by"], value["why"], value["since"]) == (SYSTEM, False, "anna", "smoke", 5)
    panel.begin("hardware", 17)
    bulletin.tell()
    assert air.take()[0][1]["lanes"] == {"hardware": {"owner": 17, "generation": 1, "faults": 0, "refused": 0}}


def test_what_was_made_safe_is_told(panel: SharedState, air: Air) -> None:
    bulletin = Bulletin(panel, air.publish, air.said.append)
    bulletin.tell()
    air.take()
    bulletin.made_safe(LAMP, False, 7.5)
    bulletin.tell()
    assert air.take() == [("hardware.lamp", {"time": 7.5, "value": False, "source": "guardian"})]
    bulletin.tell()
    assert air.take() == []


def test_what_nobody_took_is_told_again_as_it_is_then(panel: SharedState, air: Air) -> None:
    bulletin = Bulletin(panel, air.publish, air.said.append)
    air.error = Overloaded("later", retry_after=None)
    panel.stop(5)
    bulletin.tell()
    panel.stop(6)
    bulletin.tell()
    air.error = None
    bulletin.tell()
    assert [value["stop"] for _, value in air.take()] == [2]


def test_what_cannot_be_published_is_said_once(panel: SharedState, air: Air) -> None:
    bulletin = Bulletin(panel, air.publish, air.said.append)
    air.error = BadArguments("too large")
    bulletin.tell()
    panel.stop(5)
    bulletin.tell()
    assert air.said == ["[GUARDIAN] hardware.system cannot be published: too large"]
