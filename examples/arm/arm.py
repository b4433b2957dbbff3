"""The arm's own tasks. They run in the lane that has its pins, thus between other commands and never beside them."""

from __future__ import annotations

from taskengine import BadArguments, NotAllowed, task
from taskengine_hardware import robot

POSES = {
    "rest": {"base": 0.0, "shoulder": -50.0, "elbow": 150.0},
    "ready": {"base": 0.0, "shoulder": 0.0, "elbow": 90.0},
    "left": {"base": -60.0, "shoulder": 30.0, "elbow": 60.0},
    "right": {"base": 60.0, "shoulder": 30.0, "elbow": 60.0},
}
"""Degrees, by joint."""
WAVE = 20.0
"""How far the elbow swings, in degrees."""


@task(name="arm.pose", lane="hardware")
def pose(name: str, duration: float = 1.0) -> float:
    """Move all joints to a pose (rest, ready, left, right), within `duration` s; answers at once, with the seconds."""
    if name not in POSES:
        raise BadArguments(f"a pose is one of {', '.join(POSES)}, not {name!r}")
    _look_at_the_button()
    arm = robot()
    arm.gpio_write("status", True)
    seconds: float = max(arm.servo_move(joint, angle, duration) for joint, angle in POSES[name].items())
    return seconds


@task(name="arm.wave", lane="hardware")
def wave(times: int = 3, period: float = 1.0) -> float:
    """Swing the elbow from where it stands, so many times, each `period` s; answers at once, with the seconds."""
    _look_at_the_button()
    arm = robot()
    start = arm.sensor_read("elbow")  # what it was told last
    if start is None:
        raise BadArguments("nobody knows where the elbow stands; arm.pose takes it somewhere")
    arm.gpio_write("status", True)
    arm.servo_sweep("elbow", start, start + WAVE, period, times)
    return times * period


def _look_at_the_button() -> None:
    arm = robot()
    if arm.gpio_read("stop"):
        arm.system_stop()
        raise NotAllowed("the stop button is pressed; system.arm lets the arm move again")
