"""An output of a lane: its value, its motion, and the client that commanded it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

from taskengine import Origin, TaskFailed

from .device_config import CHANNELS, DETACH, HOLD, Device, DeviceLimits, Value
from .device_types import Role
from .motion import Motion, Plan

if TYPE_CHECKING:
    from .rules import Restriction
    from .sending import Board

NS = 1_000_000_000
_OFF: Mapping[Role, Value] = {
    Role.SWITCH: False,
    Role.LEVEL: 0.0,
    Role.COLOUR: (0.0, 0.0, 0.0),
    Role.MOTOR: 0.0,
    Role.DRIVE: (0.0, 0.0),
}
"""The value that turns an output off; None for the others."""
_RAMPED = (Role.LEVEL, Role.MOTOR, Role.DRIVE)


def safe_value(device: Device, last: Value) -> Value:
    """Return the safe value of an output whose last value was `last`, or None for nothing.

    Outputs that drive something are off then, even if their settings say otherwise.
    """
    role = device.kind.role
    off = _OFF.get(role)
    if device.safe == DETACH or role in (Role.MOTOR, Role.DRIVE):
        return off
    if device.safe == HOLD:
        return off if last is None else last
    return cast(Value, device.safe)


def holds(device: Device) -> bool:
    """Return whether the safe state of an output is its last value."""
    return device.safe == HOLD and device.kind.role not in (Role.MOTOR, Role.DRIVE)


def start_value(device: Device) -> Value:
    """Return the value of an output when the engine starts: its safe value, except that a servo is not moved."""
    return None if device.kind.role is Role.SERVO else safe_value(device, None)


def left_out(output: Output) -> TaskFailed:
    """Return the error of an output whose pins could not be had, or whose board is lost."""
    return TaskFailed(f"{output.device.name} was left out: {output.failure}", type="DeviceFailed")


class Output:
    """An output and its state. Times without `_ns` are in s, monotonic."""

    __slots__ = (
        "age",
        "author",
        "beat",
        "boards",
        "channel",
        "claims",
        "clock",
        "device",
        "failure",
        "granted",
        "granted_until",
        "held_until",
        "holder",
        "holder_client",
        "is_bounded",
        "is_lost",
        "is_shaped",
        "lease_ns",
        "limits",
        "motion",
        "next_tell",
        "place",
        "plan",
        "ramp",
        "rest",
        "rest_order",
        "restriction",
        "role",
        "seen",
        "stop_ns",
        "told",
        "value",
        "word_ns",
        "write",
    )

    def __init__(self, device: Device) -> None:
        self.device = device
        self.place = device.place
        self.channel = CHANNELS * device.place
        self.role = device.kind.role
        self.lease_ns = 0 if device.lease is None else int(device.lease * NS)
        self.age = device.lease if device.max_age is None else device.max_age
        """How old a command may be, in s; None for any age."""
        self.limits = _paced(device)
        """The limits of its speed; None without limits."""
        self.restriction: Restriction | None = None
        """The restriction that rules put on it."""
        self.is_bounded = self.limits is not None
        """Whether `bound` does anything."""
        self.ramp = device.soft_start if self.limits is None and self.role in _RAMPED else 0.0
        self.beat = device.beat
        self.is_shaped = bool(self.ramp or self.beat)
        """Whether its values take their time, or are more than a level."""
        self.stop_ns = int(device.stop_ramp * NS)
        """How long it takes to come to rest; 0 for at once."""
        self.rest = safe_value(device, None)
        """Its safe value, if it has one of its own."""
        self.value: Value = None
        self.write: Callable[[Value], object] = _nowhere
        """Writes a value to its pins."""
        self.failure = ""
        """Why its pins could not be had, or its board is lost."""
        self.boards: tuple[Board, ...] = ()
        """The boards that carry out its values, if its pins are channels."""
        self.is_lost = False
        """Whether nobody knows what one of them does."""
        self.told: Value = None
        self.next_tell = 0.0
        self.motion: Motion | None = None
        self.plan: Plan | None = None
        """Plans the motion again, from standing still."""
        self.clock = 0.0
        """The time by which it moves; a pause does not make it leap."""
        self.seen = 0.0
        """When that clock advanced last."""
        self.author = b""
        """The client that commanded the present value (`Origin.holder`); meaningless without a running lease."""
        self.word_ns = 0
        """When the author sent its command, from which its lease counts; 0 for when the command runs."""
        self.claims: dict[bytes, float] = {}
        """Until when other clients may renew that have acquired it, or were its author before."""
        self.holder: bytes | None = None
        """The client that keeps others out, until `held_until`."""
        self.holder_client = ""
        self.held_until = 0.0
        self.granted: Origin | None = None
        """The origin whose commands are admitted without checks, until `granted_until`."""
        self.granted_until = 0.0
        self.rest_order = 0
        """The number of the last call to bring it to rest that was acted on."""

    def restrict(self, restriction: Restriction | None) -> None:
        """Have its commands checked, and its values bounded, by another restriction."""
        self.restriction = restriction
        self.is_bounded = restriction is not None or self.limits is not None
        self.granted = None

    def bound(self, value: Value) -> Value:
        """Return the nearest value within its limits and its restriction; its safe value is always one of them."""
        limits = self.limits
        if value == self.rest:
            return value
        if limits is not None and value is not None:
            value = min(max(cast(float, value), limits.least), limits.most)
        return value if self.restriction is None else self.restriction.bound(value)

    def is_safe_at(self, value: Value) -> bool:
        """Return whether a value is the output's own safe state; outputs that hold their last value have none."""
        if holds(self.device):
            return False
        return bool(value == self.rest)

    @property
    def position(self) -> float | None:
        """Its position; None if it is not known."""
        return self.device.home if self.value is None else cast(float, self.value)


def _paced(device: Device) -> DeviceLimits | None:
    limits = device.limits
    if limits is None or limits.speed == float("inf"):
        return None
    if device.soft_start and device.kind.role in _RAMPED:
        return DeviceLimits(limits.least, limits.most, min(limits.speed, 1 / device.soft_start), limits.acceleration)
    return limits


def _nowhere(value: Value) -> None:
    """Ignore a value while the pins are not open."""
