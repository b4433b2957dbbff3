"""What a client does with a servo, whatever it is connected to: the settings alone say that."""

from __future__ import annotations

import time
from collections.abc import Callable

from taskengine import Client
from tests.engine import deadline

ANGLES = {-90: 0.001, 0: 0.0015, 30: 0.0016667, 90: 0.002}
"""The pulses of an AngularServo by gpiozero, in s."""
STEP_S = 0.02 / 4096
"""A step of a PCA9685 at 50 Hz."""


def drive(client: Client, width: Callable[[], float], near: float = STEP_S) -> dict[int, float]:
    """Turn the servo pan to each angle, and return what `width` reads back there, in s; it is at rest then.

    A board is told within some ms after the command, so it is read again until it is `near`, for some seconds at most.
    """
    found = {}
    with client.lease("pan") as lease:
        for angle, wanted in ANGLES.items():
            client.call("servo.set", "pan", angle=angle)
            end = time.monotonic() + deadline(5.0)
            found[angle] = width()
            while abs(found[angle] - wanted) > near and time.monotonic() < end:
                found[angle] = width()
            lease.renew()
    client.call("servo.detach", "pan")
    return found
