"""A machine on mock pins for every test in this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import taskengine_hardware
from taskengine_hardware import SharedState
from taskengine_hardware.backends import warm_up
from taskengine_hardware.commands import Commands
from taskengine_hardware.device_config import LANE
from taskengine_hardware.owner import Owner

Table = dict[str, Any]
# lgpio goes to another folder where it is imported, and this brings us back
warm_up("lgpio")


class Bench:
    """A lane's owner and its commands, in this process; `said` is what it has printed."""

    def __init__(self, devices: dict[str, Table], **table: Any) -> None:
        self.said: list[str] = []
        self.layout = taskengine_hardware.read({"devices": devices, **table})
        self.panel = SharedState(self.layout)
        list(taskengine_hardware.tasks(self.layout))
        self.owner: Owner = taskengine_hardware.own(self.layout, LANE, self.panel, "mock", self.said.append)
        self.commands: Commands = taskengine_hardware.robot()

    def pin(self, number: int) -> Any:
        """A mock pin."""
        assert self.owner.device_set is not None
        return self.owner.device_set.factory.pin(number)


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    """Makes a bench of devices."""
    made: list[Bench] = []

    def make(devices: dict[str, Table], **table: Any) -> Bench:
        made.append(Bench(devices, **table))
        return made[-1]

    yield make
    for one in made:
        one.owner.close()
