"""A user's robot on a booted machine."""

from __future__ import annotations

from tests.booted.machine import USER, BootedMachine


def make_robot(machine: BootedMachine) -> None:
    """Make the user's folder, by `taskengine new`."""
    assert machine.run("mkdir", "/srv/robot").returncode == 0
    made = machine.taskengine("new", "/srv/robot")
    assert made.returncode == 0, made.stderr
    machine.run("chown", "-R", USER, "/srv/robot")


def moves_a_servo(machine: BootedMachine) -> bool:
    """Move a servo, as this user's client, and return whether that was possible."""
    return machine.taskengine("call", "servo.set", "base", "-k", "angle=30", user=USER).returncode == 0
