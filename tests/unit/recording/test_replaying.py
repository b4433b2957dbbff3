"""Commands that are played again to a client that only notes them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from taskengine.client.blocking import Client
from taskengine.errors import NotAllowed
from taskengine.recording.channels import COMMAND
from taskengine.recording.reading import Recorded
from taskengine.recording.replaying import ReplayPace, command_again


class Lease:
    seconds = 0.5

    def __init__(self, name: str, called: list[str]) -> None:
        self._name, self._called = name, called

    def renew(self) -> None:
        self._called.append(f"renew {self._name}")

    def release(self) -> None:
        self._called.append(f"release {self._name}")


class Engine:
    """An engine with two servos; somebody else holds those in `taken`."""

    def __init__(self, *taken: str) -> None:
        self.taken = taken
        self.called: list[str] = []

    def tasks(self) -> list[Any]:
        return [SimpleNamespace(name="devices.state")]

    def lease(self, device: str, *, exclusive: bool, lane: str) -> Lease:
        assert exclusive
        if device in self.taken:
            raise NotAllowed(f"another client holds {device} exclusively")
        return Lease(device, self.called)

    def call(self, task: str, *args: Any) -> Any:
        if task == "devices.state":
            return {"pan": {}, "tilt": {}}
        self.called.append(" ".join(map(str, (task, *args))))
        return None


def recorded(*calls: tuple[str, str]) -> list[Recorded]:
    found = []
    for number, (task, device) in enumerate(calls):
        data = msgspec.json.encode({"task": task, "args": [device, 1], "kwargs": {}})
        message = SimpleNamespace(data=data, publish_time=number, log_time=number)
        found.append(Recorded("taskengine.commands", COMMAND, cast("Any", message)))
    return found


def play(engine: Engine, *calls: tuple[str, str]) -> None:
    command_again(cast("Client", engine), recorded(*calls), ReplayPace(speed=1000.0))


def test_what_was_played_comes_to_rest_and_is_free_again() -> None:
    engine = Engine()
    play(engine, ("servo.set", "pan"), ("servo.set", "tilt"))
    ends = ["device.rest pan", "device.rest tilt", "release pan", "release tilt"]
    assert engine.called == ["servo.set pan 1", "servo.set tilt 1", *ends]


def test_a_refused_replay_leaves_the_devices_of_others_alone() -> None:
    """It brought somebody's arm to rest, which fell."""
    engine = Engine("tilt")
    with pytest.raises(NotAllowed):
        play(engine, ("servo.set", "pan"), ("servo.set", "tilt"))
    assert engine.called == ["device.rest pan", "release pan"]


def test_tasks_of_users_are_not_played() -> None:
    engine = Engine()
    play(engine, ("servo.set", "pan"), ("wave", "pan"), ("devices.write", "pan"), ("lease.renew", "pan"))
    assert [line for line in engine.called if line.endswith(" 1")] == ["servo.set pan 1"]
