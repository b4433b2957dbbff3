"""The tasks of motors and robots, with the names and arguments of gpiozero's `Motor` and `Robot`."""

from __future__ import annotations

from typing import Any

from taskengine import BadArguments

from .device_config import Value
from .device_types import Role
from .lane_commands import LaneCommands
from .outputs import Output
from .values import checked, is_number


class Drives(LaneCommands):
    """The tasks of motors and robots."""

    def motor_forward(self, device: str, speed: float = 1.0) -> None:
        """Run a motor forward, at a speed from 0 to 1."""
        self._command(device, Role.MOTOR, _speed, speed, 1.0)

    def motor_backward(self, device: str, speed: float = 1.0) -> None:
        """Run a motor backward, at a speed from 0 to 1."""
        self._command(device, Role.MOTOR, _speed, speed, -1.0)

    def motor_stop(self, device: str) -> None:
        """Stop a motor, or both of a robot, at once, whatever its limits and whoever holds it exclusively.

        It overtakes waiting tasks; earlier commands end in Cancelled.
        """
        self._bring_to_rest(device, Role.MOTOR, Role.DRIVE)

    def robot_drive(self, device: str, left: float, right: float) -> None:
        """Run the left and the right motor of a robot, at speeds from -1 to 1."""
        self._command(device, Role.DRIVE, checked, (left, right))

    def robot_forward(self, device: str, speed: float = 1.0, curve_left: float = 0.0, curve_right: float = 0.0) -> None:
        """Run a robot forward, at a speed from 0 to 1; a curve, from 0 to 1, slows down the wheel on its side."""
        self._command(device, Role.DRIVE, _straight, 1.0, speed, curve_left, curve_right)

    def robot_backward(
        self, device: str, speed: float = 1.0, curve_left: float = 0.0, curve_right: float = 0.0
    ) -> None:
        """Run a robot backward; see robot.forward."""
        self._command(device, Role.DRIVE, _straight, -1.0, speed, curve_left, curve_right)

    def robot_left(self, device: str, speed: float = 1.0) -> None:
        """Turn a robot left on the spot, at a speed from 0 to 1."""
        self._command(device, Role.DRIVE, _turn, -1.0, speed)

    def robot_right(self, device: str, speed: float = 1.0) -> None:
        """Turn a robot right on the spot, at a speed from 0 to 1."""
        self._command(device, Role.DRIVE, _turn, 1.0, speed)

    def robot_stop(self, device: str) -> None:
        """Stop both motors of a robot; see motor.stop."""
        self._bring_to_rest(device, Role.DRIVE)


def _speed(output: Output, speed: Any, sign: float) -> Value:
    return checked(output, sign * _part(output, speed), "speed")


def _straight(output: Output, sign: float, speed: Any, left: Any, right: Any) -> Value:
    curves = [_part(output, curve, "curve") for curve in (left, right)]
    if all(curves):
        raise BadArguments("either curve_left or curve_right, not both")
    pace = sign * _part(output, speed)
    return checked(output, [pace * (1.0 - curve) for curve in curves])


def _turn(output: Output, sign: float, speed: Any) -> Value:
    pace = sign * _part(output, speed)
    return checked(output, [pace, -pace])


def _part(output: Output, value: Any, what: str = "speed") -> float:
    if not is_number(value, 0.0, 1.0):
        raise BadArguments(f"{output.device.name} takes a {what} from 0 to 1, not {value!r:.100}")
    return float(value)
