"""An LED and a servo by pin number. A device is made when it is first used, by the process that uses it."""

from __future__ import annotations

from typing import Any

from taskengine import BadArguments, task

LANE = "hardware"
_devices: dict[int, Any] = {}


def _device(pin: int, kind: str) -> Any:
    """The device of gpiozero's class `kind` on BCM pin `pin`; making one moves nothing."""
    try:
        import gpiozero  # costs a Pi a quarter of a second, so only the worker that has devices pays
    except ImportError:
        raise RuntimeError("hardware tasks need gpiozero: pip install 'taskengine[hardware]'") from None
    known = _devices.get(pin)
    if known is None:
        known = _devices[pin] = getattr(gpiozero, kind)(pin, initial_value=None)
    if type(known).__name__ != kind:
        raise BadArguments(f"pin {pin} is in use as {type(known).__name__}, not as {kind}")
    return known


@task(name="gpio.led", lane=LANE, idempotent=True)
def set_led(pin: int, on: bool) -> bool:
    """Switch the LED on BCM pin `pin` on or off."""
    _device(pin, "LED").value = int(on)
    return on


@task(name="gpio.read", lane=LANE, idempotent=True)
def read_led(pin: int) -> bool:
    """Whether the LED on BCM pin `pin` is driven."""
    return bool(_device(pin, "LED").value)


@task(name="servo.set", lane=LANE, idempotent=True)
def set_servo(pin: int, value: float | None) -> float | None:
    """Turn the servo on BCM pin `pin` to `value`, from -1 (least pulse width) to 1; None lets it go."""
    if value is not None and not -1 <= value <= 1:
        raise BadArguments(f"a servo's value is from -1 to 1, or null, not {value!r}", name="servo.set")
    _device(pin, "Servo").value = value
    return value


def safe_state() -> None:
    """Let go of every pin. May be called twice, from anywhere."""
    while _devices:
        _devices.popitem()[1].close()
