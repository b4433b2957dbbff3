"""The table of device types: their class in gpiozero, their pins, and what can be done with them.

Every option has its default and its range here, and every type the combinations of options that it does not take, so
that a configuration that passes `taskengine check` can be opened.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from typing import Any, NamedTuple


class Role(enum.Enum):
    """The kind of value that a device takes or gives."""

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
    """A value to read."""


class Option(NamedTuple):
    """A parameter of gpiozero that is no pin: its type, its default, and its range, or its possible values.

    The default is None if there is none, or if it does not matter.
    """

    type: type
    default: Any = None
    least: float = -math.inf
    most: float = math.inf
    choices: tuple[int, ...] = ()


class DeviceType(NamedTuple):
    """A type of device.

    `pins` are the parameters that are a pin, `spare` those that may be left out, `groups` those that are several.
    Devices of one `bus` share their pins, which are `bus_pins` if no others are given. `options` are the other
    parameters; those in `defaults` have another default than gpiozero's. An input is read from the attribute `reads`,
    in `unit`, and calls the functions set on `events` when it has changed.

    In each row of `rising` the options have increasing values. In a row of `excluding` the first one excludes the
    others. An option in `needing` has no use without the option that it names. `pulls` says for parameters that are
    inputs whether their pin is pulled up, unless `pull_up` says otherwise.

    `missing` is why an input has no value if the device is not there; `null_bit` is the bit that a converter sends
    as 0 before its result. An input that `counts` continues from its last owner's count.
    """

    name: str
    role: Role
    pins: tuple[str, ...] = ("pin",)
    spare: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    options: Mapping[str, Option] = {}
    gpiozero: str = ""
    is_leased: bool = False
    reads: str = "value"
    unit: str = ""
    events: tuple[str, ...] = ()
    bus: str = ""
    bus_pins: Mapping[str, int] = {}
    defaults: Mapping[str, Any] = {}
    rising: tuple[tuple[str, ...], ...] = ()
    excluding: tuple[tuple[str, ...], ...] = ()
    needing: tuple[tuple[str, str], ...] = ()
    pulls: Mapping[str, bool] = {}
    missing: str = ""
    null_bit: int | None = None
    counts: bool = False

    @property
    def class_name(self) -> str:
        """The class of gpiozero."""
        return self.gpiozero or self.name

    @property
    def is_output(self) -> bool:
        """Whether it can be commanded."""
        return self.role is not Role.INPUT

    @property
    def drives(self) -> bool:
        """Whether it moves something as long as it is on."""
        return self.role in (Role.MOTOR, Role.DRIVE)


# the limits of the kernel and lgpio: pulses of up to 10 kHz, debouncing of up to 5 s
_FREQUENCY = Option(int, 100, 1, 10_000)
_BOUNCE = Option(float, None, 0.0, 5.0)
_PULSES = ("min_pulse_width", "max_pulse_width", "frame_width")
_PULSE = {
    "min_pulse_width": Option(float, 0.001, 0.00001, 0.1),
    "max_pulse_width": Option(float, 0.002, 0.00001, 0.1),
    "frame_width": Option(float, 0.02, 0.001, 1.0),
}
_ANGLES = {"min_angle": Option(float, -90.0, -3600.0, 3600.0), "max_angle": Option(float, 90.0, -3600.0, 3600.0)}
_ACTIVE = {"active_high": Option(bool, True)}
_PWM = {"pwm": Option(bool, True)}
# a tone of gpiozero is one of MIDI; the highest is five octaves above 440 Hz less a third
_OCTAVES = Option(int, 1, 1, 4)
_PULL = {"pull_up": Option(bool), "active_state": Option(bool)}
_PULL_EXCLUDES = (("active_state", "pull_up"),)
_QUEUE_LEN = Option(int, None, 1, 1000)
_PARTIAL = Option(bool, True)
_THRESHOLD = Option(float, None, 0.001, 0.999)
_SMOOTHED = {
    **_PULL,
    "queue_len": _QUEUE_LEN,
    "sample_rate": Option(float, None, 0.01, 1000.0),
    "threshold": _THRESHOLD,
    "partial": _PARTIAL,
}
_SPI_PINS = {"clock_pin": 11, "mosi_pin": 10, "miso_pin": 9, "select_pin": 8}
# gpiozero takes the pins of port 0 as those of every port
_CONVERTER = {
    "max_voltage": Option(float, 3.3, 0.001, 1000.0),
    "port": Option(int, 0, 0, 0),
    "device": Option(int, 0, 0, 1),
}
_EDGES = ("when_activated", "when_deactivated")
_TURNS = {
    "bounce_time": _BOUNCE,
    "max_steps": Option(int, 0, 0, 1_000_000_000),
    "wrap": Option(bool, False),
}
_TEMPERATURE = Option(float, None, -1000.0, 1000.0)
_LOAD = Option(float, None, 0.0, 10_000.0)


def _converter(number: int, channels: int, null_bit: int) -> DeviceType:
    """Return an MCP3xxx: its channels share the SPI bus. The bit before its result is 0, see its data sheet."""
    channel = {"channel": Option(int, 0, 0, channels - 1), "differential": Option(bool, False)}
    return DeviceType(
        f"MCP{number}",
        Role.INPUT,
        (),
        tuple(_SPI_PINS),
        options={**(channel if channels > 1 else {}), **_CONVERTER},
        unit="of max_voltage",
        bus="spi",
        bus_pins=_SPI_PINS,
        excluding=(("port", *_SPI_PINS), ("device", *_SPI_PINS)),
        pulls={"miso_pin": False},
        missing="no chip answers",
        null_bit=null_bit,
    )


_CONVERTERS = (
    *((3001, 1, 13), (3002, 2, 10), (3004, 4, 10), (3008, 8, 10)),
    *((3201, 1, 13), (3202, 2, 12), (3204, 4, 12), (3208, 8, 12)),
    *((3301, 1, 13), (3302, 4, 13), (3304, 8, 13)),
)

KINDS: Mapping[str, DeviceType] = {
    kind.name: kind
    for kind in (
        DeviceType("Servo", Role.SERVO, options=_PULSE, is_leased=True, rising=(_PULSES,)),
        DeviceType("AngularServo", Role.SERVO, options={**_PULSE, **_ANGLES}, is_leased=True, rising=(_PULSES,)),
        DeviceType("LED", Role.SWITCH, options=_ACTIVE),
        DeviceType("DigitalOutput", Role.SWITCH, options=_ACTIVE, gpiozero="DigitalOutputDevice"),
        DeviceType("Buzzer", Role.SWITCH, options=_ACTIVE),
        DeviceType("PWMLED", Role.LEVEL, options={**_ACTIVE, "frequency": _FREQUENCY}),
        DeviceType("PWMOutput", Role.LEVEL, options={**_ACTIVE, "frequency": _FREQUENCY}, gpiozero="PWMOutputDevice"),
        DeviceType("RGBLED", Role.COLOUR, ("red", "green", "blue"), options=_ACTIVE),
        DeviceType("Motor", Role.MOTOR, ("forward", "backward"), ("enable",), options=_PWM, is_leased=True),
        DeviceType("PhaseEnableMotor", Role.MOTOR, ("phase", "enable"), options=_PWM, is_leased=True),
        DeviceType("Robot", Role.DRIVE, (), groups=("left", "right"), is_leased=True),
        DeviceType("TonalBuzzer", Role.TONE, options={"octaves": _OCTAVES}),
        DeviceType(
            "Button",
            Role.INPUT,
            options={
                **_PULL,
                "bounce_time": _BOUNCE,
                "hold_time": Option(float, None, 0.01, 3600.0),
                "hold_repeat": Option(bool, False),
            },
            events=_EDGES,
            excluding=_PULL_EXCLUDES,
            needing=(("hold_repeat", "hold_time"),),
            pulls={"pin": True},
        ),
        DeviceType(
            "DigitalInput",
            Role.INPUT,
            options={**_PULL, "bounce_time": _BOUNCE},
            gpiozero="DigitalInputDevice",
            events=_EDGES,
            excluding=_PULL_EXCLUDES,
            pulls={"pin": False},
        ),
        DeviceType(
            "MotionSensor",
            Role.INPUT,
            options=_SMOOTHED,
            events=_EDGES,
            excluding=_PULL_EXCLUDES,
            pulls={"pin": False},
        ),
        DeviceType(
            "LineSensor",
            Role.INPUT,
            options=_SMOOTHED,
            events=_EDGES,
            excluding=_PULL_EXCLUDES,
            pulls={"pin": False},
        ),
        DeviceType(
            "LightSensor",
            Role.INPUT,
            options={
                "queue_len": _QUEUE_LEN,
                "charge_time_limit": Option(float, 0.01, 0.0001, 1.0),
                "threshold": _THRESHOLD,
                "partial": _PARTIAL,
            },
            pulls={"pin": False},
        ),
        DeviceType(
            "DistanceSensor",
            Role.INPUT,
            ("echo", "trigger"),
            options={
                "queue_len": _QUEUE_LEN,
                "max_distance": Option(float, 1.0, 0.01, 100.0),
                "threshold_distance": Option(float, 0.3, 0.001, 100.0),
                "partial": _PARTIAL,
            },
            reads="distance",
            unit="m",
            rising=(("threshold_distance", "max_distance"),),
            pulls={"echo": False},
            missing="no echo",
        ),
        DeviceType(
            "RotaryEncoder",
            Role.INPUT,
            ("a", "b"),
            options=_TURNS,
            reads="steps",
            unit="steps",
            events=("when_rotated",),
            defaults={"max_steps": 0},
            needing=(("wrap", "max_steps"),),
            pulls={"a": True, "b": True},
            counts=True,
        ),
        *(_converter(*row) for row in _CONVERTERS),
        DeviceType(
            "CPUTemperature",
            Role.INPUT,
            (),
            options={
                "sensor_file": Option(str),
                "min_temp": _TEMPERATURE._replace(default=0.0),
                "max_temp": _TEMPERATURE._replace(default=100.0),
                "threshold": _TEMPERATURE,
            },
            reads="temperature",
            unit="°C",
            rising=(("min_temp", "max_temp"),),
        ),
        DeviceType(
            "DiskUsage",
            Role.INPUT,
            (),
            options={"filesystem": Option(str, "/"), "threshold": Option(float, 90.0, 0.0, 100.0)},
            reads="usage",
            unit="%",
        ),
        DeviceType(
            "LoadAverage",
            Role.INPUT,
            (),
            options={
                "load_average_file": Option(str),
                "minutes": Option(int, 5, choices=(1, 5, 15)),
                "min_load_average": _LOAD._replace(default=0.0),
                "max_load_average": _LOAD._replace(default=1.0),
            },
            reads="load_average",
            rising=(("min_load_average", "max_load_average"),),
        ),
    )
}
