"""The tasks of a lane that owns pins: methods here, registered by `tasks_of`.

Devices are named as in the settings file. A command extends the lease of its device. Every task raises BadArguments for
unsuitable values. It raises NotAllowed if the machine is stopped, if the policy does not let the caller use the device,
or if another client holds the device exclusively.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from taskengine import BadArguments, Origin, TaskFailed, check_device, origin

from .admission import stopped_text
from .control import Control
from .device_config import Device, DeviceLimits, Value, prefix_of
from .device_types import Role
from .drives import Drives
from .effects import Effect
from .groups import Group
from .lane_commands import Running
from .lights import Lights
from .outputs import NS, Output, left_out
from .shared_state import NEVER
from .tones import frequency_of
from .values import angle_of, checked, is_number, seconds

if TYPE_CHECKING:
    from .owner import Owner

STOP_S = 0.2
"""How long, in s, `system.stop` waits for other lanes, beside the ramps of their outputs."""
POLL_S = 0.001
UNREAD = "nobody can ask its board what it does, so that no stop is confirmed"
SHORTEST_S = 0.001


class Commands(Lights, Drives):
    """The tasks of a lane; `start` gives them an open owner."""

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
        """Turn a servo within `duration` s, or as fast as its limits allow; answers at once, with the seconds it takes.

        `easing` is linear, sine or smooth. The next command replaces this one. Its lease may end on the way, too.
        """
        with Running(self._open(), device, Role.SERVO) as (owner, output, now):
            goal = _goal(output, value, angle)
            seconds: float = owner.control.move(output, goal, duration, easing, origin(), now)
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
        with Running(self._open(), device, Role.SERVO) as (owner, output, now):
            limits = _limits(output)
            ends = (limits.least if low is None else low), (limits.most if high is None else high)
            first, last = (_number(checked(output, end, _unit(output))) for end in ends)
            if not (cycles is None or (is_number(cycles, 1, math.inf) and isinstance(cycles, int))):
                raise BadArguments(f"cycles are a whole number from 1, or null, not {cycles!r:.100}")
            owner.control.sweep(output, first, last, period, cycles, origin(), now)

    def servo_halt(self, device: str) -> None:
        """Stop a moving servo where it is."""
        with Running(self._open(), device, Role.SERVO) as (owner, output, now):
            owner.control.halt(output, origin(), now)

    def servo_detach(self, device: str) -> None:
        """Stop sending pulses to a servo, so that it holds no position."""
        self._command(device, Role.SERVO, _as_is, None)

    # Switches, lights, sounds ----------------------------------------------------------------------------------------

    def gpio_write(self, device: str, on: bool) -> None:
        """Switch an output on or off."""
        self._command(device, Role.SWITCH, checked, on)

    def gpio_read(self, device: str) -> Any:
        """Return the value of an input, or the last value of an output."""
        return self.sensor_read(device)

    def gpio_toggle(self, device: str) -> bool:
        """Switch an output on if it is off, and off if it is on; return the new state."""
        with Running(self._open(), device, Role.SWITCH) as (owner, output, now):
            value = not output.value
            owner.control.command(output, value, origin(), now)
            return value

    def gpio_pulse(self, device: str, duration: float) -> None:
        """Switch an output on for `duration` s, at least 0.001, accurate to 20 ms; answers at once."""
        duration = seconds(duration, SHORTEST_S)
        with Running(self._open(), device, Role.SWITCH) as (owner, output, now):
            owner.control.pulse(output, True, False, duration, origin(), now)

    def pwm_set(self, device: str, duty: float) -> None:
        """Switch an output on for this part of each cycle, from 0 to 1."""
        self._command(device, Role.LEVEL, checked, duty, "duty cycle")

    def colour_set(self, device: str, red: float, green: float, blue: float) -> None:
        """Light an RGB LED, each colour from 0 to 1."""
        self._command(device, Role.COLOUR, checked, (red, green, blue))

    def tone_play(self, device: str, frequency: float | str, duration: float | None = None) -> None:
        """Play a tone of so many Hz, or a note such as "A4", for `duration` s; answers at once.

        Without a duration it lasts until the next command.
        """
        if isinstance(frequency, str):
            frequency = frequency_of(frequency)
        if duration is not None:
            duration = seconds(duration, SHORTEST_S)
        with Running(self._open(), device, Role.TONE) as (owner, output, now):
            tone = _number(checked(output, frequency, "frequency in Hz"))
            if duration is None:
                owner.control.command(output, tone, origin(), now)
            else:
                owner.control.pulse(output, tone, None, duration, origin(), now)

    def tone_stop(self, device: str) -> None:
        """Silence a tone."""
        self._command(device, Role.TONE, _as_is, None)

    # All devices -----------------------------------------------------------------------------------------------------

    def device_rest(self, device: str) -> None:
        """Bring an output to its safe state at once, whatever its limits and whoever holds it exclusively.

        It overtakes waiting tasks; earlier commands end in Cancelled.
        """
        self._bring_to_rest(device)

    def sensor_read(self, device: str) -> Any:
        """Return the value of an input, in its unit, or the last value of an output."""
        check_device(device)
        owner = self._open()
        owner.heed_boards()
        if device in self._layout.groups:
            return [_last(owner.control.find(name)) for name in self._members(device)]
        if device in owner.sensors.known or device in owner.left_out:
            return owner.read(device)
        return _last(owner.control.find(device))

    def devices_list(self) -> list[dict[str, Any]]:
        """Return the lane's devices that the caller may use: name, type, role, unit, limits, lease."""
        groups = [group for group in self._layout.groups.values() if group.members[0] in self._devices]
        return [
            *(_described(self._devices[name]) for name in self._usable(self._devices)),
            *(_group(self._layout.groups[name]) for name in self._usable(group.name for group in groups)),
        ]

    def devices_state(self, *devices: str) -> dict[str, Any]:
        """Return the last value and the lease's remaining seconds of these devices; without any, of all."""
        owner = self._open()
        now_ns = time.monotonic_ns()
        for name in devices:
            check_device(name)
        names = [name for device in devices for name in self._members(device)]
        owner.heed_boards()
        return {name: self._state(owner, name, now_ns) for name in names or self._usable(self._devices)}

    def devices_write(self, values: dict[str, Any]) -> None:
        """Set many outputs together, an AngularServo to an angle: all values are checked before one output moves."""
        if not (isinstance(values, dict) and values):
            raise BadArguments("devices.write takes a map of devices to values")
        for name in values:
            check_device(name)
        if self._layout.groups:
            values = dict(self._each(values))
        owner = self._open()
        where = origin()
        with owner.lock:
            now, control = time.monotonic(), owner.control
            pairs = [(output, checked(output, values[output.device.name])) for output in map(control.find, values)]
            for output, value in pairs:
                control.check(output, value, where, now)
            try:
                for output, value in pairs:
                    control.command(output, value, where, now)
            finally:
                owner.hurry()

    # Leases and stopping ---------------------------------------------------------------------------------------------

    def lease_acquire(self, devices: list[str], exclusive: bool = False, take_over: bool = False) -> float:
        """Begin leases, and, with `exclusive`, keep others out while they are renewed.

        Return the seconds of the shortest.

        After `system.arm` this says that the caller wants to move things. With `take_over` the caller gets what another
        client of the same name holds.
        """
        if not (isinstance(exclusive, bool) and isinstance(take_over, bool)):
            raise BadArguments("exclusive and take_over are true or false")
        acquire = partial(Control.acquire, exclusive=exclusive, take_over=take_over)
        return self._lease(devices, acquire)

    def lease_renew(self, devices: list[str]) -> float:
        """Renew running leases that the caller has begun, or whose device it has commanded.

        Return the shortest one's seconds.
        """
        return self._lease(devices, Control.renew)

    def lease_release(self, devices: list[str]) -> None:
        """Let others have devices that the caller held exclusively. Their leases run on."""
        for name in devices:
            check_device(name)
        owner = self._open()
        with owner.lock:
            owner.control.admission.release(self._found(owner, _names(devices)), origin())

    def system_stop(self, id: bytes = b"", why: str = "") -> None:
        """Emergency stop: bring every output of every lane to its safe state, and accept no command until `system.arm`.

        It overtakes all waiting tasks, and is answered when the pins are safe. Raises TaskFailed if a lane has not
        confirmed that in 0.2 s, plus the longest ramp. A repeated `id` does not stop the machine again.
        """
        owner = self._open()
        with owner.lock:
            owner.stop(by=origin().client, why=text(why), id=key(id))
        self._confirm(owner)

    def stop_called(self, id: bytes = b"", why: str = "") -> None:
        """Emergency stop: bring every output of every lane to its safe state, and accept no command until `system.arm`.

        This is `system_stop` for a call that waited in the lane: the engine may have acted already when the call came,
        and later stops may have followed.
        """
        owner, where = self._open(), origin()
        with owner.lock:
            if 0 < where.received <= owner.panel.stopped_at:
                owner.hurry()
            else:
                owner.stop(by=where.client, why=text(why), id=key(id))
        self._confirm(owner)

    def system_arm(self, stop: int | None = None) -> None:
        """Accept commands again after `system.stop`: after the stop of this number, which `system.state` returns.

        Without a number it undoes the latest stop, and is refused if that may have come after this was called. Other
        clients move nothing before they have called lease.acquire.
        """
        if not (stop is None or (is_number(stop, 0, math.inf) and isinstance(stop, int))):
            raise BadArguments(f"a stop is a whole number, or null, not {stop!r:.100}")
        owner = self._open()
        with owner.lock:
            owner.control.arm(origin(), time.monotonic(), stop)
            owner.hurry()

    def system_check(self) -> dict[str, Any]:
        """Return what `system.arm` would say: the `stop` to undo, and the `reasons` for which it would be refused."""
        owner = self._open()
        with owner.lock:
            owner.hurry()
            reasons = owner.control.restraints.unready(time.monotonic())
            return {"armed": not owner.panel.is_stopped, "stop": owner.panel.number, "reasons": reasons}

    def system_state(self) -> dict[str, Any]:
        """Return whether the machine is armed, the latest stop, the rules that hold, and the state of each lane."""
        state: dict[str, Any] = self._open().panel.report()
        return state

    # -----------------------------------------------------------------------------------------------------------------

    def _confirm(self, owner: Owner) -> None:
        """Wait until every lane is safe."""
        end = time.monotonic() + STOP_S + owner.panel.ramp_s
        while late := owner.panel.unconfirmed():
            if time.monotonic() > end:
                said = f"{stopped_text(owner.panel)}; not confirmed by lane {', '.join(late)}"
                if not owner.panel.untold():
                    said += ", which has told all of its boards, and cannot read one of them back"
                raise TaskFailed(said, type="NotConfirmed")
            time.sleep(POLL_S)

    def _lease(self, devices: list[str], begin: Callable[[Control, list[Output], Origin, float], None]) -> float:
        for name in _names(devices):
            check_device(name)
        owner = self._open()
        with owner.lock:
            outputs = self._found(owner, devices)
            begin(owner.control, outputs, origin(), time.monotonic())
            owner.hurry()
        shortest: int = min(output.lease_ns for output in outputs)
        return shortest / 1e9

    def _found(self, owner: Owner, devices: list[str]) -> list[Output]:
        return [owner.control.find(name) for device in devices for name in self._members(device)]

    def _each(self, values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """Yield each device and its value; a group takes a list."""
        for device, value in values.items():
            members = self._members(device)
            if members == (device,):
                yield device, value
                continue
            if not (isinstance(value, (list, tuple)) and len(value) == len(members)):
                raise BadArguments(f"{device} takes a list of {len(members)} values, not {value!r:.100}")
            yield from zip(members, value, strict=True)

    def _usable(self, names: Iterable[str]) -> Iterator[str]:
        for name in names:
            try:
                check_device(name)
            except PermissionError:
                continue
            yield name

    def _state(self, owner: Owner, name: str, now_ns: int) -> dict[str, Any]:
        sensed: dict[str, Any] | None = owner.sensed(name)
        if sensed is not None:
            return sensed
        output = owner.control.find(name)
        if output.failure:
            return {"value": None, "error": output.failure}
        told_at, is_guardians = owner.panel.told(output.place)
        source = "guardian" if is_guardians else "owner"
        found: dict[str, Any] = {"value": output.value, "time": told_at / NS, "source": source}
        if owner.control.is_unread(output):
            found["unread"] = UNREAD
        if output.restriction is not None:
            found["rules"] = list(output.restriction.reasons)
        if output.lease_ns:
            end = owner.panel.ends[output.place]
            found["lease"] = None if end == NEVER else max(0.0, (end - now_ns) / NS)
        if isinstance(output.motion, Effect):
            found["effect"] = output.motion.name
        if output.value is None and output.role is Role.SERVO and output.limits is not None:
            found["position"] = "unknown" if output.position is None else "assumed"
        return found


def _last(output: Output) -> Value:
    """Return the last value of an output. Raises TaskFailed if nobody knows what its board does."""
    if output.is_lost:
        raise left_out(output)
    return output.value


def _names(devices: object) -> list[str]:
    if not (isinstance(devices, list) and devices):
        raise BadArguments(f"leases are of a list of devices, not of {devices!r:.100}")
    return devices


def text(why: object) -> str:
    """Return a reason as text; an invalid one must not keep the machine from being stopped."""
    return why if isinstance(why, str) else ""


def key(id: object) -> bytes:
    """Return the id of a stop, b"" for an invalid one."""
    return bytes(id) if isinstance(id, (bytes, bytearray, memoryview)) else b""


def _as_is(output: Output, value: Value) -> Value:
    return value


def _unit(output: Output) -> str:
    return "angle" if output.device.angles else "value"


def _number(value: Value) -> float:
    """Return a position of an output that has positions."""
    return cast(float, value)


def _limits(output: Output) -> DeviceLimits:
    """Return the limits of an output that has limits."""
    return cast(DeviceLimits, output.device.limits)


def _position(output: Output, value: Any, angle: Any) -> Value:
    """Return the position in the servo's own unit."""
    angles = output.device.angles
    if angles is None:
        if angle is not None:
            raise BadArguments(f"{output.device.name} has no angles: a Servo takes a value, an AngularServo an angle")
        return checked(output, value)
    if angle is None:
        angle = angle_of(output, value)
    elif value is not None:
        raise BadArguments("either a value or an angle, not both")
    return checked(output, angle, "angle")


def _goal(output: Output, value: float | None, angle: float | None) -> float:
    if output.device.angles is None and angle is not None and value is None:
        value, angle = angle, None  # given as the first argument
    if value is None and angle is None:
        raise BadArguments("servo.move needs an angle in degrees, or a value")
    return _number(_position(output, value, angle))


def _described(device: Device) -> dict[str, Any]:
    kind = device.kind
    found: dict[str, Any] = {"name": device.name, "type": device.type, "role": kind.role.value, "pins": device.pins}
    found["unit"] = "degrees" if device.angles else kind.unit
    if kind.is_output:
        found["lease"] = device.lease
        found["safe"] = device.safe
        found["stop"] = {"ramp": device.stop_ramp} if device.stop_ramp else "cut"
        found |= {key: value for key in ("enable", "beat") if (value := getattr(device, key))}
    if device.limits is not None:
        limits = device.limits
        found["limits"] = {
            "range": [limits.least, limits.most],
            **{key: value for key in ("speed", "acceleration") if (value := getattr(limits, key)) != float("inf")},
        }
    return found


def _group(group: Group) -> dict[str, Any]:
    return {"name": group.name, "type": group.type, "role": "group", "members": list(group.members)}


NAMES: dict[str, Callable[..., Any]] = {
    name.replace("_", ".", 1): method
    for methods in (Lights, Drives, Commands)
    for name, method in vars(methods).items()
    if not name.startswith("_") and name != "stop_called"
}
"""The methods that are tasks, by the names of the tasks."""
RESTS = frozenset({"motor.stop", "robot.stop", "device.rest"})
"""Tasks that only bring one device to its safe state."""
HARMLESS = RESTS | {
    "gpio.read",
    "sensor.read",
    "devices.list",
    "devices.state",
    "lease.release",
    "system.stop",
    "system.check",
    "system.state",
}
"""Tasks that may run twice. Commands may not: their owner has died, and the safe machine is not to move again."""
OLD = "servo."
"""The prefix of tasks that have a second name, for clients of wire 0.1."""
URGENT = RESTS | {"system.stop"}


def tasks_of(commands: Commands, lane: str) -> Iterator[tuple[Callable[..., Any], dict[str, Any]]]:
    """Yield the tasks of a lane, each with the options of `taskengine.task`: `servo.set` and so on.

    Each also has its name of wire 0.1, `task_servo_set`. In a lane that is not the default one, the lane's name comes
    first.
    """
    prefix = prefix_of(lane)
    for name in NAMES:
        method = commands.stop_called if name == "system.stop" else getattr(commands, NAMES[name].__name__)
        olds = [f"task_{prefix}{name}".replace(".", "_")] if name.startswith(OLD) else []
        for known in (prefix + name, *olds):
            yield method, {"name": known, "lane": lane, "idempotent": name in HARMLESS, "urgent": name in URGENT}
