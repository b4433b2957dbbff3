"""Whatever passes `check` can be opened, and driven to its limits: every option of every type at its ends and between.

The types and their options come from the table that `check` goes by; the device is gpiozero's, on mock pins.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskengine import SettingsError
from taskengine_hardware import read
from taskengine_hardware.backends import mock
from taskengine_hardware.device_config import Device, channels
from taskengine_hardware.device_set import DeviceSet
from taskengine_hardware.device_types import KINDS, DeviceType, Option, Role
from tests.hardware.test_device_set import entry_of

FILES = {
    "sensor_file": str(Path(__file__).with_name("thermometer")),
    "filesystem": "/",
    "load_average_file": "/proc/loadavg",
}
SLOW = ("LightSensor", "DistanceSensor")
"""Their threads take a tenth of a second to end."""


def values_of(name: str, option: Option) -> st.SearchStrategy[Any]:
    """Draw a value that the table allows, its ends often."""
    if option.choices:
        return st.sampled_from(option.choices)
    if option.type is bool:
        return st.booleans()
    if option.type is str:
        return st.just(FILES[name])
    least, most = option.type(option.least), option.type(option.most)
    between: Any = st.integers(least, most) if option.type is int else st.floats(least, most)
    return st.one_of(st.sampled_from([least, most]), between)


def entries_of(kind: DeviceType) -> st.SearchStrategy[dict[str, Any]]:
    """Devices of a type on any pins, with any of its options."""
    pins = (*kind.pins, *kind.spare)
    gpios = st.lists(st.integers(0, 27), min_size=len(pins), max_size=len(pins), unique=True)
    given_pins = gpios.map(lambda numbers: dict(zip(pins, numbers, strict=True)))
    # some without the pins that may be left out
    spare = st.sets(st.sampled_from(kind.spare)) if kind.spare else st.just(set())
    options = st.fixed_dictionaries({}, optional={name: values_of(name, one) for name, one in kind.options.items()})

    def entry(numbers: dict[str, int], left_out: set[str], chosen: dict[str, Any]) -> dict[str, Any]:
        whole = entry_of(kind)
        whole |= {key: number for key, number in numbers.items() if key not in left_out}
        return whole | chosen

    return st.builds(entry, given_pins, spare, options)


@contextlib.contextmanager
def opened(table: dict[str, Any]) -> Iterator[tuple[DeviceSet, Device]]:
    layout = read({"devices": {"x": table}})
    factory = mock(layout)
    rig = DeviceSet(layout.devices.values(), factory)
    try:
        yield rig, layout.devices["x"]
    finally:
        rig.close()
        factory.reset()


def ends_of(device: Device) -> list[Any]:
    """Return the largest value that it may be told."""
    if device.kind.role is Role.SWITCH:
        return [True, False]
    if device.limits is not None:
        ends: list[Any] = [device.limits.least, device.limits.most]
        return [*ends, None] if device.kind.role in (Role.SERVO, Role.TONE) else ends
    least = 0.0 if device.kind.role is Role.COLOUR else -1.0
    return [(end,) * channels(device.kind.role) for end in (least, 1.0)]


@pytest.mark.filterwarnings("ignore:no echo received")  # nothing answers here
@pytest.mark.parametrize("name", KINDS)
def test_what_passes_the_check_opens(name: str) -> None:
    @settings(
        max_examples=15 if name in SLOW else 60,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.filter_too_much],
    )
    @given(entries_of(KINDS[name]))
    def play(table: dict[str, Any]) -> None:
        try:
            read({"devices": {"x": table}})
        except SettingsError:
            return
        with opened(table) as (rig, device):
            assert not rig.failed
            if device.kind.is_output:
                for value in ends_of(device):
                    rig.writers[0](value)

    play()


@pytest.mark.parametrize("board", ["0010", "0015", "900092", "a020d3", "c03111", "d04170", "abcdef", "fffffff"])
def test_a_board_that_passes_the_check_has_all_pins(board: str) -> None:
    leds = {f"led{gpio}": {"type": "LED", "pin": gpio} for gpio in range(28)}
    layout = read({"devices": leds, "board": board})
    factory = mock(layout)
    DeviceSet(layout.devices.values(), factory).close()
    factory.reset()


def ends(option: Option) -> list[Any]:
    if option.choices or option.type not in (int, float):
        return []
    return [option.type(option.least), option.type(option.most)]


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [(kind.name, key, value) for kind in KINDS.values() for key, one in kind.options.items() for value in ends(one)],
)
def test_one_beyond_the_end_is_refused(name: str, key: str, value: Any) -> None:
    option = KINDS[name].options[key]
    beyond = value - 1 if value == option.least else value + 1
    with pytest.raises(SettingsError, match=f"x.{key}: expected a"):
        read({"devices": {"x": entry_of(KINDS[name]) | {key: beyond}}})
