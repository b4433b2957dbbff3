"""An input that does not answer has no value on real lines either, and devices that pass `check` open there too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import taskengine_hardware
from taskengine import SettingsError, TaskFailed
from taskengine_hardware import SharedState
from taskengine_hardware.backends import lgpio
from taskengine_hardware.device_config import LANE
from taskengine_hardware.device_set import DeviceSet
from taskengine_hardware.device_types import KINDS
from taskengine_hardware.owner import Owner
from tests.engine import wait_until
from tests.gpio import chip
from tests.hardware.test_device_set import entry_of
from tests.hardware.test_options import FILES, ends, ends_of

INPUTS = {
    "volts": {"type": "MCP3008", "rate": 50},
    "nose": {"type": "DistanceSensor", "echo": 23, "trigger": 24},
    "dial": {"type": "RotaryEncoder", "a": 5, "b": 6},
}


def table_of(devices: dict[str, Any]) -> dict[str, Any]:
    return {"board": chip.BOARD, "devices": devices}


@pytest.fixture
def owner() -> Iterator[Owner]:
    layout = taskengine_hardware.read(table_of(INPUTS))
    panel = SharedState(layout)
    list(taskengine_hardware.tasks(layout))
    owner: Owner = taskengine_hardware.own(layout, LANE, panel, "lgpio", print)
    yield owner
    owner.close()


@pytest.mark.parametrize(("name", "reason"), [("volts", "no chip answers"), ("nose", "no echo")])
def test_what_nobody_answers_has_no_value(owner: Owner, name: str, reason: str) -> None:
    wait_until(lambda: owner.sensors.state(name).get("reason") == reason, 10, "the reason")
    with pytest.raises(TaskFailed, match=reason):
        owner.read(name)


def test_an_encoder_counts(owner: Owner) -> None:
    assert owner.device_set is not None
    encoder = owner.device_set.opened[list(INPUTS).index("dial")]
    for _ in range(20):
        for number, up, edge in ((5, False, 2), (6, False, 3), (5, True, 1), (6, True, 0)):
            chip.pull(number, up=up)
            # lgpio does not tell edges of two lines in their order where they come faster than it looks
            wait_until(lambda edge=edge: encoder._edge == edge, 5, "the edge")  # type: ignore[misc]
    wait_until(lambda: owner.read("dial") == 20, 10, "the last step")


def chosen() -> Iterator[tuple[str, str, Any]]:
    """Each option of each type that moves its lines at each of its ends, by itself."""
    for kind in KINDS.values():
        for key, option in kind.options.items():
            values = [True, False] if option.type is bool else [*ends(option), *option.choices]
            for value in values if key not in FILES else ():
                if kind.pins or kind.groups:
                    yield kind.name, key, value


@pytest.mark.parametrize(("name", "key", "value"), list(chosen()))
def test_what_passes_the_check_opens(name: str, key: str, value: Any) -> None:
    entry = entry_of(KINDS[name]) | {key: value}
    try:
        layout = taskengine_hardware.read(table_of({"x": entry}))
    except SettingsError:  # it needs another option beside it
        return
    (device,) = layout.devices.values()
    rig = DeviceSet([device], lgpio(layout))
    try:
        assert not rig.failed
        if device.kind.is_output:
            for end in ends_of(device):
                rig.writers[0](end)
    finally:
        rig.close()
