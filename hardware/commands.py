"""The tasks of a lane that owns pins: methods here, registered by `tasks_of`.

Devices are named as in the settings file. Whoever commands one extends its lease. Every task raises BadArguments for
what does not fit, and NotAllowed where the machine is stopped, the policy does not let the caller use the device, or
another client has it for itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

from taskengine import BadArguments, TaskFailed, caller_id, check_device
from taskengine_hardware.control import STOPPED, Output, checked, seconds
from taskengine_hardware.kinds import Role
from taskengine_hardware.layout import Device, Layout, Limits, Value, prefix_of
from taskengine_hardware.panel import NEVER

if TYPE_CHECKING:  # importing gpiozero costs a Pi a quarter of a second, which only the owner is to pay
    from taskengine_hardware.owner import Owner

STOP_S = 0.2
"""How long `system.stop` waits for other lanes."""
POLL_S = 0.001
SHORTEST_S = 0.001


class Commands:
    """What a lane's tasks do, once `start` has given it an owner that is open."""

    def __init__(self, layout: Layout, lane: str) -> None:
        self._devices = {device.name: device for device in layout.of(lane)}
        self._owner: Owner | None = None

    def start(self, owner: Owner) -> None:
        """From here on tasks act."""
        self._owner = owner

    # Servos ----------------------------------------------------------------------------------------------------------

    def servo_set(self, device: str, value: float | None = None, angle: float | None = None) -> None:
        """Turn a servo to an angle in degrees, or a value from -1 to 1, as fast as its limits allow."""
        if value is None and angle is None:
            raise BadArguments("servo.set needs a value, or an angle in degrees; servo.detach lets a servo go")
        self._command(device, Role.SERVO, _position, value, angle)

    def servo_move(
        self,
        device: str,
        angle: float | None = None,
        duration: float = 1.0,
        easing: str = "smooth",
        value: float | None = None,
    ) -> float:
        """Turn a servo within `duration` s, or as soon as its limits allow; answers at once, with the seconds it takes.

        `easing` is linear, sine or smooth. The next command takes over. Its lease ends on the way, too.
        """
        with _Turn(self._open(), device, Role.SERVO) as (owner, output, now):
            goal = _goal(output, value, angle)
            seconds: float = owner.control.move(output, goal, duration, easing, caller_id(), now)
            return seconds

    def servo_sweep(
        self,
        device: str,
        low: float | None = None,
        high: float | None = None,
        period: float = 2.0,
        cycles: int | None = None,
    ) -> None:
        """Turn a servo to and fro between two positions, `period` s for both ways, `cycles` times or for ever."""
        with _Turn(self._open(), device, Role.SERVO) as (owner, output, now):
            limits = _limits(output)
            ends = (limits.least if low is None else low), (limits.most if high is None else high)
            first, last = (_number(checked(output, end, _unit(output))) for end in ends)
            if not (cycles is None or (isinstance(cycles, int) and cycles > 0)):
                raise BadArguments(f"cycles are a whole number from 1, or null, not {cycles!r}")
            owner.control.sweep(output, first, last, period, cycles, caller_id(), now)

    def servo_halt(self, device: str) -> None:
        """Have a servo that is on its way stay where it is."""
        with _Turn(self._open(), device, Role.SERVO) as (owner, output, now):
            owner.control.admit(output, caller_id(), now)
            owner.control.halt(output)

    def servo_detach(self, device: str) -> None:
        """Send a servo no more pulses, so that it holds nothing."""
        self._command(device, Role.SERVO, _as_is, None)

    # Switches, lights, sounds ----------------------------------------------------------------------------------------

    def gpio_write(self, device: str, on: bool) -> None:
        """Switch an output on or off."""
        self._command(device, Role.SWITCH, checked, on)

    def gpio_read(self, device: str) -> Any:
        """What an input says, or an output was told last."""
        return self.sensor_read(device)

    def gpio_toggle(self, device: str) -> bool:
        """Switch an output on if it is off, and off if it is on; which it is now."""
        with _Turn(self._open(), device, Role.SWITCH) as (owner, output, now):
            value = not output.value
            owner.control.command(output, value, caller_id(), now)
            return value

    def gpio_pulse(self, device: str, duration: float) -> None:
        """Switch an output on for `duration` s, from 0.001, to 20 ms; answers at once."""
        duration = seconds(duration, SHORTEST_S)
        with _Turn(self._open(), device, Role.SWITCH) as (owner, output, now):
            owner.control.pulse(output, True, False, duration, caller_id(), now)

    def pwm_set(self, device: str, duty: float) -> None:
        """Have an output be on for this part of each cycle, from 0 to 1."""
        self._command(device, Role.LEVEL, checked, duty, "duty cycle")

    def colour_set(self, device: str, red: float, green: float, blue: float) -> None:
        """Light an RGB LED, each colour from 0 to 1."""
        self._command(device, Role.COLOUR, checked, (red, green, blue))

    def tone_play(self, device: str, frequency: float, duration: float | None = None) -> None:
        """Play a tone of so many Hz for `duration` s, or until told else; answers at once."""
        if duration is not None:
            duration = seconds(duration, SHORTEST_S)
        with _Turn(self._open(), device, Role.TONE) as (owner, output, now):
            tone = _number(checked(output, frequency, "frequency in Hz"))
            if duration is None:
                owner.control.command(output, tone, caller_id(), now)
            else:
                owner.control.pulse(output, tone, None, duration, caller_id(), now)

    def tone_stop(self, device: str) -> None:
        """Be silent."""
        self._command(device, Role.TONE, _as_is, None)

    # Motors ----------------------------------------------------------------------------------------------------------

    def motor_forward(self, device: str, speed: float = 1.0) -> None:
        """Run a motor forward, at a speed from 0 to 1."""
        self._command(device, Role.MOTOR, _speed, speed, 1.0)

    def motor_backward(self, device: str, speed: float = 1.0) -> None:
        """Run a motor backward, at a speed from 0 to 1."""
        self._command(device, Role.MOTOR, _speed, speed, -1.0)

    def motor_stop(self, device: str) -> None:
        """Stop a motor at once, whatever its limits."""
        with _Turn(self._open(), device, Role.MOTOR, Role.DRIVE) as (owner, output, now):
            owner.control.admit(output, caller_id(), now)
            owner.control.cease(output)

    def robot_drive(self, device: str, left: float, right: float) -> None:
        """Run the left and the right motor of a robot, at speeds from -1 to 1."""
        self._command(device, Role.DRIVE, checked, (left, right))

    # All devices -----------------------------------------------------------------------------------------------------

    def sensor_read(self, device: str) -> Any:
        """What an input says, in its unit; what an output was told last."""
        check_device(device)
        owner = self._open()
        if device in owner.sensors.known or device in owner.left_out:
            return owner.read(device)
        return owner.control.find(device).value

    def devices_list(self) -> list[dict[str, Any]]:
        """The lane's devices that the caller may use: name, type, role (what they take), unit, limits, lease."""
        return [_described(self._devices[name]) for name in self._usable()]

    def devices_state(self, *devices: str) -> dict[str, Any]:
        """Of these devices, or all that the caller may use: the last value, and how many seconds a lease still runs."""
        owner = self._open()
        now_ns = time.monotonic_ns()
        return {name: self._state(owner, name, now_ns) for name in devices or self._usable()}

    def devices_write(self, values: dict[str, Any]) -> None:
        """Have many outputs take values, an AngularServo an angle, together: all are checked before one moves."""
        if not (isinstance(values, dict) and values):
            raise BadArguments("devices.write takes a map of devices to values")
        for name in values:
            check_device(name)
        owner = self._open()
        now, client = time.monotonic(), caller_id()
        with owner.lock:
            control = owner.control
            pairs = [(output, checked(output, values[output.device.name])) for output in map(control.find, values)]
            for output, _ in pairs:
                control.check(output, client, now)
            try:
                for output, value in pairs:
                    control.command(output, value, client, now)
            finally:
                owner.hurry()

    # Leases and stopping ---------------------------------------------------------------------------------------------

    def lease_acquire(self, devices: list[str], exclusive: bool = False) -> float:
        """Begin leases anew, and, with `exclusive`, keep others out while they run; the seconds of the shortest."""
        return self._lease(devices, exclusive=exclusive)

    def lease_renew(self, devices: list[str]) -> float:
        """Begin leases anew; the seconds of the shortest."""
        return self._lease(devices, exclusive=False)

    def lease_release(self, devices: list[str]) -> None:
        """Let others have devices again that were the caller's alone. Their leases run on."""
        for name in devices:
            check_device(name)
        owner = self._open()
        with owner.lock:
            owner.control.release([owner.control.find(name) for name in devices], caller_id())

    def system_stop(self) -> None:
        """Emergency stop: bring every output of every lane to its safe state, and accept no command until `system.arm`.

        It overtakes all that waits, and is answered when the pins are safe. Raises TaskFailed where a lane has not said
        so in 0.2 s.
        """
        owner = self._open()
        with owner.lock:
            owner.stop()
        end = time.monotonic() + STOP_S
        while late := owner.panel.unconfirmed():
            if time.monotonic() > end:
                raise TaskFailed(f"{STOPPED}; not confirmed by lane {', '.join(late)}", type="NotConfirmed")
            time.sleep(POLL_S)

    def system_arm(self) -> None:
        """Accept commands again after `system.stop`."""
        owner = self._open()
        with owner.lock:
            owner.control.arm()
            owner.hurry()

    # -----------------------------------------------------------------------------------------------------------------

    def _open(self) -> Owner:
        if self._owner is None:
            raise TaskFailed("this process has no pins: hardware tasks run in their lane only", type="RuntimeError")
        return self._owner

    def _command(self, device: str, role: Role, read: Callable[..., Value], *given: Any) -> None:
        check_device(device)
        owner = self._owner or self._open()
        with owner.lock:
            control = owner.control
            output = control.find(device, role)
            now = time.monotonic()
            try:
                control.command(output, read(output, *given), caller_id(), now)
            finally:
                if control.due < owner.asleep_until or control.due <= now:
                    owner.hurry()

    def _lease(self, devices: list[str], *, exclusive: bool) -> float:
        if not (isinstance(devices, list) and devices):
            raise BadArguments(f"leases are of a list of devices, not of {devices!r}")
        for name in devices:
            check_device(name)
        owner = self._open()
        with owner.lock:
            outputs = [owner.control.find(name) for name in devices]
            owner.control.lease(outputs, caller_id(), time.monotonic(), exclusive=exclusive)
            owner.hurry()
        shortest: int = min(output.lease_ns for output in outputs)
        return shortest / 1e9

    def _usable(self) -> Iterator[str]:
        for name in self._devices:
            try:
                check_device(name)
            except PermissionError:
                continue
            yield name

    def _state(self, owner: Owner, name: str, now_ns: int) -> dict[str, Any]:
        check_device(name)
        sensor = owner.sensors.known.get(name)
        if sensor is not None or name in owner.left_out:
            return {"value": None if sensor is None else sensor.value}
        output = owner.control.find(name)
        if not output.lease_ns:
            return {"value": output.value}
        end = owner.panel.ends[output.place]
        return {"value": output.value, "lease": None if end == NEVER else max(0.0, (end - now_ns) / 1e9)}


class _Turn:
    """A command on one output: the lock, the output, and the time."""

    def __init__(self, owner: Owner, device: str, *roles: Role) -> None:
        check_device(device)
        self._owner, self._device, self._roles = owner, device, roles

    def __enter__(self) -> tuple[Owner, Output, float]:
        self._owner.lock.acquire()
        try:
            return self._owner, self._owner.control.find(self._device, *self._roles), time.monotonic()
        except BaseException:
            self._owner.lock.release()
            raise

    def __exit__(self, *exception: object) -> None:
        self._owner.hurry()
        self._owner.lock.release()


def _as_is(output: Output, value: Value) -> Value:
    return value


def _unit(output: Output) -> str:
    return "angle" if output.device.angles else "value"


def _number(value: Value) -> float:
    """A position, of an output that has some."""
    return cast(float, value)


def _limits(output: Output) -> Limits:
    """The limits, of an output that has some."""
    return cast(Limits, output.device.limits)


def _position(output: Output, value: Any, angle: Any) -> Value:
    """The position in the servo's own unit."""
    angles = output.device.angles
    if angles is None:
        if angle is not None:
            raise BadArguments(f"{output.device.name} has no angles: a Servo takes a value, an AngularServo an angle")
        return checked(output, value)
    if angle is None:
        least, most = angles
        if not (isinstance(value, (int, float)) and -1 <= value <= 1):
            raise BadArguments(f"{output.device.name} takes a value from -1 to 1, not {value!r}")
        angle = least + (value + 1) / 2 * (most - least)
    elif value is not None:
        raise BadArguments("either a value or an angle, not both")
    return checked(output, angle, "angle")


def _goal(output: Output, value: float | None, angle: float | None) -> float:
    if output.device.angles is None and angle is not None and value is None:
        value, angle = angle, None  # by its place among the arguments
    if value is None and angle is None:
        raise BadArguments("servo.move needs an angle in degrees, or a value")
    return _number(_position(output, value, angle))


def _speed(output: Output, speed: Any, sign: float) -> Value:
    if not (isinstance(speed, (int, float)) and 0 <= speed <= 1):
        raise BadArguments(f"{output.device.name} takes a speed from 0 to 1, not {speed!r}")
    return checked(output, sign * speed, "speed")


def _described(device: Device) -> dict[str, Any]:
    kind = device.kind
    found = {"name": device.name, "type": device.type, "role": kind.role.value, "pins": device.pins}
    found["unit"] = "degrees" if device.angles else kind.unit
    if kind.is_output:
        found["lease"] = device.lease
        found["safe"] = device.safe
    if device.limits is not None:
        limits = device.limits
        found["limits"] = {
            "range": [limits.least, limits.most],
            **{key: value for key in ("speed", "acceleration") if (value := getattr(limits, key)) != float("inf")},
        }
    return found


NAMES: dict[str, Callable[..., Any]] = {
    name.replace("_", ".", 1): method
    for name, method in vars(Commands).items()
    if not name.startswith("_") and name != "start"
}
"""The methods that are tasks, by the tasks' names."""
HARMLESS = frozenset({"gpio.read", "sensor.read", "devices.list", "devices.state", "lease.release", "system.stop"})
"""Tasks that may run twice. A command may not: its owner has died, the machine is safe, and is not to move again."""
OLD = "servo."
"""Tasks that have a second name, for clients of wire 0.1."""
URGENT = frozenset({"system.stop"})


def tasks_of(commands: Commands, lane: str) -> Iterator[tuple[Callable[..., Any], dict[str, Any]]]:
    """The tasks of a lane, each with what `taskengine.task` takes: `servo.set` and so on, and by wire 0.1's habit
    `task_servo_set`; where the lane is not the usual one, with its name before."""
    prefix = prefix_of(lane)
    for name in NAMES:
        method = getattr(commands, NAMES[name].__name__)
        olds = [f"task_{prefix}{name}".replace(".", "_")] if name.startswith(OLD) else []
        for known in (prefix + name, *olds):
            yield method, {"name": known, "lane": lane, "idempotent": name in HARMLESS, "urgent": name in URGENT}
