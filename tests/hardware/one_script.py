"""What a client does with a servo, whatever it is connected to: the settings alone say that."""

from __future__ import annotations

from collections.abc import Callable

from taskengine import Client

ANGLES = {-90: 0.001, 0: 0.0015, 30: 0.0016667, 90: 0.002}
"""The pulses of an AngularServo by gpiozero, in s."""
STEP_S = 0.02 / 4096
"""A step of a PCA9685 at 50 Hz."""


def drive(client: Client, width: Callable[[], float]) -> dict[int, float]:
    """Turn the servo pan to each angle, and return what `width` reads back there, in s; it is at rest then."""
    found = {}
    with client.lease("pan") as lease:
        for angle in ANGLES:
            client.call("servo.set", "pan", angle=angle)
            found[angle] = width()
            lease.renew()
    client.call("servo.detach", "pan")
    return found
