"""Devices on emulated boards, and what tests ask of them."""

from __future__ import annotations

from collections.abc import Callable

from taskengine_hardware.emulated_bus import EmulatedBus
from tests.engine import deadline
from tests.hardware.conftest import Bench, Table

MakeBench = Callable[..., Bench]
STEP_S = 0.02 / 4096
HAT: dict[str, Table] = {"hat": {"type": "PCA9685"}}
DEVICES: dict[str, Table] = {
    "pan": {"type": "AngularServo", "board": "hat", "channel": 3, "lease": 60},
    "tilt": {"type": "Servo", "pin": "hat:4", "lease": 60},
    "base": {"type": "Robot", "board": "hat", "left": [8, 9], "right": [10, 11], "lease": 60},
    "wheel": {"type": "Motor", "board": "hat", "forward": 5, "backward": 6, "enable": 7, "lease": 60},
    "eye": {"type": "RGBLED", "board": "hat", "red": 0, "green": 1, "blue": 2},
    "lamp": {"type": "LED", "board": "hat", "channel": 15},
    "led": {"type": "LED", "pin": 17},
}


def bus_of(one: Bench) -> EmulatedBus:
    assert one.owner.device_set is not None
    bus: EmulatedBus = one.owner.device_set.factory.buses["hat"]
    return bus


def settle(one: Bench) -> None:
    """Wait until the boards do what they were told."""
    device_set = one.owner.device_set
    assert device_set is not None
    assert device_set.wait_for_boards(lambda station: station.machine.is_settled, deadline(5))
    one.owner.heed_boards()


def widths(bus: EmulatedBus) -> list[float]:
    """The pulses of all channels, in s."""
    return [bus.share(channel) * 0.02 for channel in range(16)]


def cut(bus: EmulatedBus) -> EmulatedBus:
    bus.reason = "no chip answers"
    return bus
