"""The types of devices, as one table: what gpiozero calls them, which pins they take, what can be done with them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple


class Role(enum.Enum):
    """What a device takes or gives."""

    SERVO = "servo"
    """A position, or None for no pulses."""
    SWITCH = "switch"
    """On or off."""
    LEVEL = "level"
    """A duty cycle, 0 to 1."""
    COLOUR = "colour"
    """Red, green and blue, each 0 to 1."""
    MOTOR = "motor"
    """A speed, -1 to 1."""
    DRIVE = "drive"
    """The speeds of the left and the right motor, each -1 to 1."""
    TONE = "tone"
    """A frequency in Hz, or None for silence."""
    INPUT = "input"
    """Something to read."""


class Kind(NamedTuple):
    """A type of device.

    `pins` are the parameters that are a pin, `spare` those that may be left out, `groups` those that are several.
    Devices of one `bus` share their pins, `bus_pins`. `options` are the other parameters and their types. An input is
    read from `reads`, in `unit`, and says that it has changed by calling what is set on `events`.
    """

    name: str
    role: Role
    pins: tuple[str, ...] = ("pin",)
    spare: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    options: Mapping[str, type] = {}
    gpiozero: str = ""
    is_leased: bool = False
    reads: str = "value"
    unit: str = ""
    events: tuple[str, ...] = ()
    bus: str = ""
    bus_pins: tuple[int, ...] = ()

    @property
    def class_name(self) -> str:
        """The class of gpiozero."""
        return self.gpiozero or self.name

    @property
    def is_output(self) -> bool:
        """It can be commanded."""
        return self.role is not Role.INPUT


_PULSE = {"min_pulse_width": float, "max_pulse_width": float, "frame_width": float}
_ACTIVE = {"active_high": bool}
_SMOOTHED = {
    "pull_up": bool,
    "active_state": bool,
    "queue_len": int,
    "sample_rate": float,
    "threshold": float,
    "partial": bool,
}
_SPI_PINS = ("clock_pin", "mosi_pin", "miso_pin", "select_pin")
_CONVERTER = {"max_voltage": float, "port": int, "device": int}
_CHANNEL = {"channel": int, "differential": bool, **_CONVERTER}
_OF_ONE_CHANNEL = (3001, 3201, 3301)
_EDGES = ("when_activated", "when_deactivated")
_TURNS = {"bounce_time": float, "max_steps": int, "wrap": bool}


def _converter(number: int) -> Kind:
    """An MCP3xxx: its channels share the SPI bus."""
    options = _CONVERTER if number in _OF_ONE_CHANNEL else _CHANNEL
    name, unit = f"MCP{number}", "of max_voltage"
    return Kind(name, Role.INPUT, (), _SPI_PINS, options=options, unit=unit, bus="spi", bus_pins=(8, 9, 10, 11))


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("Servo", Role.SERVO, options=_PULSE, is_leased=True),
        Kind("AngularServo", Role.SERVO, options={**_PULSE, "min_angle": float, "max_angle": float}, is_leased=True),
        Kind("LED", Role.SWITCH, options=_ACTIVE),
        Kind("DigitalOutput", Role.SWITCH, options=_ACTIVE, gpiozero="DigitalOutputDevice"),
        Kind("Buzzer", Role.SWITCH, options=_ACTIVE),
        Kind("PWMLED", Role.LEVEL, options={**_ACTIVE, "frequency": int}),
        Kind("PWMOutput", Role.LEVEL, options={**_ACTIVE, "frequency": int}, gpiozero="PWMOutputDevice"),
        Kind("RGBLED", Role.COLOUR, ("red", "green", "blue"), options=_ACTIVE),
        Kind("Motor", Role.MOTOR, ("forward", "backward"), ("enable",), options={"pwm": bool}, is_leased=True),
        Kind("PhaseEnableMotor", Role.MOTOR, ("phase", "enable"), options={"pwm": bool}, is_leased=True),
        Kind("Robot", Role.DRIVE, (), groups=("left", "right"), is_leased=True),
        Kind("TonalBuzzer", Role.TONE, options={"octaves": int}),
        Kind(
            "Button",
            Role.INPUT,
            options={"pull_up": bool, "active_state": bool, "bounce_time": float},
            events=_EDGES,
        ),
        Kind(
            "DigitalInput",
            Role.INPUT,
            options={"pull_up": bool, "active_state": bool, "bounce_time": float},
            gpiozero="DigitalInputDevice",
            events=_EDGES,
        ),
        Kind("MotionSensor", Role.INPUT, options=_SMOOTHED, events=_EDGES),
        Kind("LineSensor", Role.INPUT, options=_SMOOTHED, events=_EDGES),
        Kind(
            "LightSensor",
            Role.INPUT,
            options={"queue_len": int, "charge_time_limit": float, "threshold": float, "partial": bool},
        ),
        Kind(
            "DistanceSensor",
            Role.INPUT,
            ("echo", "trigger"),
            options={"queue_len": int, "max_distance": float, "threshold_distance": float, "partial": bool},
            reads="distance",
            unit="m",
        ),
        Kind(
            "RotaryEncoder",
            Role.INPUT,
            ("a", "b"),
            options=_TURNS,
            reads="steps",
            unit="steps",
            events=("when_rotated",),
        ),
        *map(_converter, (3001, 3002, 3004, 3008, 3201, 3202, 3204, 3208, 3301, 3302, 3304)),
        Kind(
            "CPUTemperature",
            Role.INPUT,
            (),
            options={"sensor_file": str, "min_temp": float, "max_temp": float, "threshold": float},
            reads="temperature",
            unit="°C",
        ),
        Kind("DiskUsage", Role.INPUT, (), options={"filesystem": str, "threshold": float}, reads="usage", unit="%"),
        Kind(
            "LoadAverage",
            Role.INPUT,
            (),
            options={"load_average_file": str, "minutes": int, "min_load_average": float, "max_load_average": float},
            reads="load_average",
        ),
    )
}
