"""What a lane's outputs do: commands and `now` go in, values for pins come out. Pure.

Theory of operation. A command is read first, then admitted: the machine must not be stopped, the device not be another
client's; that extends the device's lease. `tick` is to be called at `due` at the latest: it ends leases, moves what is
on its way and tells what has changed. An output's `write` is given each value for its pins, `tell` each to publish,
which is told again where that gives False.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import cast

from taskengine import BadArguments, NotAllowed
from taskengine_hardware.kinds import Role
from taskengine_hardware.layout import DETACH, HOLD, Device, Value, channels
from taskengine_hardware.motion import (
    EASINGS,
    FRAME_S,
    Approach,
    Motion,
    Move,
    Pulse,
    Sweep,
    Then,
    least_duration,
    speed_of,
)
from taskengine_hardware.panel import NEVER, Panel

STOPPED = "the machine was stopped; system.arm lets it move again"
NS = 1_000_000_000
LONGEST_S = 86400.0
"""How long anything that a client asks for may take: a day."""
_OFF: Mapping[Role, Value] = {
    Role.SWITCH: False,
    Role.LEVEL: 0.0,
    Role.COLOUR: (0.0, 0.0, 0.0),
    Role.MOTOR: 0.0,
    Role.DRIVE: (0.0, 0.0),
}
"""What an output is told to let go; None for the others."""


class Output:
    """An output, and what it is about."""

    __slots__ = ("device", "holder", "lease_ns", "motion", "next_tell", "place", "role", "told", "value", "write")

    def __init__(self, device: Device) -> None:
        self.device = device
        self.place = device.place
        self.role = device.kind.role
        self.lease_ns = 0 if device.lease is None else int(device.lease * NS)
        self.value: Value = None
        self.motion: Motion | None = None
        self.holder: bytes | None = None
        """The client that keeps others out."""
        self.write: Callable[[Value], object] = _nowhere
        """Drives its pins."""
        self.told: Value = None
        self.next_tell = 0.0


def _nowhere(value: Value) -> None:
    """Where the pins are not open."""


def safe_value(device: Device, last: Value) -> Value:
    """What an output is told to be safe, which was told `last` before, or None for nothing."""
    off = _OFF.get(device.kind.role)
    if device.safe == DETACH:
        return off
    if device.safe == HOLD:
        return off if last is None else last
    return cast(Value, device.safe)


class Control:
    """The outputs of a lane."""

    def __init__(
        self,
        lane: str,
        devices: Iterable[Device],
        panel: Panel,
        tell: Callable[[Output, float], bool],
    ) -> None:
        self._lane = lane
        self.outputs = {device.name: Output(device) for device in devices if device.kind.is_output}
        self._panel = panel
        self._ends = panel.ends
        self._tell = tell
        self._seen = panel.number, panel.armed
        self._moving: dict[Output, None] = {}
        self._changed: dict[Output, None] = {}
        self._frame = 0.0
        """When what is on its way moves next."""
        self.due = math.inf
        """When `tick` is to be called at the latest, in s."""

    def begin(self, *, is_first: bool) -> None:
        """The pins are open, and off. Where another owner had them before, bring them to where they are safe."""
        for output in self.outputs.values():
            output.value = _OFF.get(output.role) if is_first else self._panel.last(output.place, output.role)
            self._panel.note(output.place, output.value)
        if not is_first:
            self.rest()
        self._seen = self._panel.number, self._panel.armed
        self._panel.confirm(self._lane, self._panel.number)

    def find(self, name: str, *roles: Role) -> Output:
        """An output by its name. Raises BadArguments where there is none, or it has none of these roles."""
        try:
            output = self.outputs.get(name)
        except TypeError:  # not even a name
            output = None
        if output is None:
            raise BadArguments(f"no output is named {name!r}; devices.list shows those that there are")
        if output.role not in roles and roles:
            raise BadArguments(f"{name} is a {output.device.type}, not a {' or '.join(role.value for role in roles)}")
        return output

    def command(self, output: Output, value: Value, client: bytes, now: float) -> None:
        """Have an output take a value that it can. Raises NotAllowed."""
        self.admit(output, client, now)
        limits = output.device.limits
        if limits is not None and limits.speed < math.inf and value is not None and output.value is not None:
            self._approach(output, value, now)
            return
        if output.motion is not None:
            self.halt(output)
        self._drive(output, value)

    def check(self, output: Output, client: bytes, now: float) -> None:
        """Whether a client may command an output. Raises NotAllowed."""
        self._heed_stop()
        if self._panel.is_stopped:
            raise NotAllowed(STOPPED)
        if output.holder is not None:
            self._check_holder(output, client, now)

    def admit(self, output: Output, client: bytes, now: float) -> None:
        """Let a client command an output, whose lease begins anew. Raises NotAllowed."""
        self.check(output, client, now)
        self._extend(output, now)

    def _extend(self, output: Output, now: float) -> None:
        if output.lease_ns:
            end = int(now * NS) + output.lease_ns
            self._ends[output.place] = end
            if end < self.due * NS:
                self.due = end / NS

    def _check_holder(self, output: Output, client: bytes, now: float) -> None:
        if output.holder != client and self._ends[output.place] > now * NS:
            raise NotAllowed(f"another client has {output.device.name} for itself")
        if output.holder != client:
            output.holder = None

    def lease(self, outputs: list[Output], client: bytes, now: float, *, exclusive: bool) -> None:
        """Begin the leases of these outputs anew; with `exclusive` other clients are kept out while they run.

        Raises BadArguments for one that has none, NotAllowed.
        """
        for output in outputs:
            if not output.lease_ns:
                raise BadArguments(f"{output.device.name} has no lease (its setting lease is false)")
            self.check(output, client, now)
        for output in outputs:
            self._extend(output, now)
            if exclusive:
                output.holder = client

    def release(self, outputs: list[Output], client: bytes) -> None:
        """Let others have these outputs, if they are the client's; their leases run on."""
        for output in outputs:
            if output.holder == client:
                output.holder = None

    def move(self, output: Output, target: float, duration: float, easing: str, client: bytes, now: float) -> float:
        """Have an output go to a position within `duration` s, or as soon as its limits allow: in how many seconds.

        Raises BadArguments, NotAllowed.
        """
        way = EASINGS.get(easing)
        if way is None:
            raise BadArguments(f"an easing is one of {', '.join(EASINGS)}, not {easing!r}")
        duration = seconds(duration, 0.0)
        limits = output.device.limits
        if limits is not None and limits.acceleration < math.inf and math.isinf(way.acceleration):
            raise BadArguments(f"{easing} has no bounded acceleration, and that of {output.device.name} has a limit")
        self.admit(output, client, now)
        if output.value is None:  # nobody knows where it stands
            self.halt(output)
            self._drive(output, target)
            return 0.0
        start = _position(output)
        if limits is not None:
            duration = max(duration, least_duration(target - start, way, limits))
        self._set_off(output, Move(start, target, now, duration, way), now)
        return duration

    def sweep(
        self, output: Output, low: float, high: float, period: float, cycles: int | None, client: bytes, now: float
    ) -> None:
        """Have an output go to and fro. Raises BadArguments where its limits do not allow that, NotAllowed."""
        way, limits = EASINGS["sine"], output.device.limits
        least = 2 * least_duration(high - low, way, limits) if limits is not None else 0.0
        period = seconds(period, max(least, 2 * FRAME_S), "period")
        self.admit(output, client, now)
        if output.value is None:  # nobody knows where it stands
            self._set_off(output, Sweep(low, high, now, period, cycles), now)
            return
        start = _position(output)
        reach = least_duration(low - start, way, limits) if limits is not None else 0.0
        move = Move(start, low, now, reach, way)
        self._set_off(output, Then(move, Sweep(low, high, now + reach, period, cycles)), now)

    def pulse(self, output: Output, value: Value, after: Value, duration: float, client: bytes, now: float) -> None:
        """Have an output take a value for so many seconds, and another one then. Raises NotAllowed."""
        self.admit(output, client, now)
        self._set_off(output, Pulse(value, after, now + duration), now)

    def halt(self, output: Output) -> None:
        """Have an output stay where it is."""
        output.motion = None
        self._moving.pop(output, None)

    def cease(self, output: Output) -> None:
        """Have an output be off at once."""
        self.halt(output)
        self._drive(output, _OFF.get(output.role))

    def stop(self, now: float) -> None:
        """Bring every output to where it is safe, and accept nothing until `arm`."""
        self._panel.stop(int(now * NS))
        self._heed_stop()

    def arm(self, holder: bytes = b"", now: float = 0.0) -> None:
        """Accept commands again. Raises NotAllowed where a lane has not stopped yet."""
        self._heed_stop()
        if not self._panel.is_stopped:
            return
        late = self._panel.unconfirmed()
        if late:
            raise NotAllowed(f"lane {', '.join(late)} has not stopped yet")
        self._panel.arm(self._panel.number, holder, int(now * NS))
        self._heed_stop()

    def rest(self) -> None:
        """Bring every output to where it is safe."""
        self._rest_all(self.outputs.values())
        # of the owner's beginning and end nobody is told
        self._changed.clear()

    def tick(self, now: float) -> None:
        """Do what is due."""
        self._heed_stop()
        self._end_leases(now)
        self._go_on(now)
        for output in [output for output in self._changed if output.next_tell <= now]:
            del self._changed[output]
            output.next_tell = now + 1 / output.device.rate
            if self._tell(output, now):
                output.told = output.value
            else:  # nobody took it, and it may be the last one
                self._changed[output] = None
        self.due = self._next(now)

    def _next(self, now: float) -> float:
        ends = [self._ends[output.place] for output in self.outputs.values() if self._ends[output.place] != NEVER]
        lease = min(ends) / NS if ends else math.inf
        moves = [output.motion.end if isinstance(output.motion, Pulse) else self._frame for output in self._moving]
        tells = [output.next_tell for output in self._changed]
        return min([lease, *moves, *tells])

    def _go_on(self, now: float) -> None:
        """Move what is on its way, at 50 Hz and no faster."""
        is_frame = now >= self._frame
        if is_frame:
            self._frame = now + FRAME_S
        for output in list(self._moving):
            if output.motion is not None and (is_frame or isinstance(output.motion, Pulse)):
                position, is_over = output.motion.at(now)
                if is_over:
                    self.halt(output)
                if is_over or not isinstance(output.motion, Pulse):
                    self._drive(output, position)

    def _heed_stop(self) -> None:
        number, armed = self._panel.number, self._panel.armed
        if (number, armed) == self._seen:
            return
        if number > self._seen[0]:
            self._rest_all(self.outputs.values())
        self._seen = number, armed
        self._panel.confirm(self._lane, number)

    def _end_leases(self, now: float) -> None:
        now_ns = int(now * NS)
        over = [output for output in self.outputs.values() if NEVER < self._ends[output.place] <= now_ns]
        if over:
            self._rest_all(over)

    def _rest_all(self, outputs: Iterable[Output]) -> None:
        """Bring these outputs to where they are safe, also where one of them fails; raises its error then."""
        failed: Exception | None = None
        for output in outputs:
            try:
                self._rest(output)
            except Exception as error:
                failed = failed or error
                continue
            output.holder = None
            # only now: whoever watches goes by it
            self._ends[output.place] = NEVER
        if failed is not None:
            raise failed

    def _rest(self, output: Output) -> None:
        last = output.motion.after if isinstance(output.motion, Pulse) else output.value
        self.halt(output)
        self._drive(output, safe_value(output.device, last))

    def _approach(self, output: Output, value: Value, now: float) -> None:
        limits, target = output.device.limits, cast(float, value)
        if isinstance(output.motion, Approach):
            output.motion.target = target
        elif limits is not None:
            speed = 0.0 if output.motion is None else speed_of(output.motion, now)
            self._set_off(output, Approach(_position(output), target, now, limits, speed), now)

    def _set_off(self, output: Output, motion: Motion, now: float) -> None:
        output.motion = motion
        self._moving[output] = None
        if isinstance(motion, Pulse):
            self._drive(output, motion.value)
            self.due = min(self.due, motion.end)
        else:
            self._frame = max(self._frame, now)
            self.due = min(self.due, self._frame)

    def _drive(self, output: Output, value: Value) -> None:
        output.write(value)
        output.value = value
        self._panel.note(output.place, value)
        if output not in self._changed and value != output.told:
            self._changed[output] = None
            if output.next_tell < self.due:
                self.due = output.next_tell


def _position(output: Output) -> float:
    """Where an output stands, which has been told."""
    return cast(float, output.value)


def seconds(value: object, least: float, what: str = "duration") -> float:
    """A time that somebody gave. Raises BadArguments where it is none, or shorter than that, or longer than a day."""
    if not (isinstance(value, (int, float)) and least <= value <= LONGEST_S):
        raise BadArguments(
            f"a {what} is a number of seconds, here from {least:.3g} to {LONGEST_S:g}, not {value!r:.100}"
        )
    return float(value)


def checked(output: Output, value: object, what: str = "value") -> Value:
    """A value as the output takes it. Raises BadArguments."""
    role, name = output.role, output.device.name
    if role is Role.SWITCH and value in (True, False):
        return bool(value)
    limits = output.device.limits
    if limits is not None:
        if value is None and role in (Role.SERVO, Role.TONE):
            return None
        if (
            isinstance(value, (int, float))
            and value is not True
            and value is not False
            and limits.least <= value <= limits.most
        ):
            return float(value)
        raise BadArguments(f"{name} takes a {what} from {limits.least:g} to {limits.most:g}, not {value!r}")
    least = 0.0 if role is Role.COLOUR else -1.0
    numbers = value if isinstance(value, (list, tuple)) and len(value) == channels(role) else [None]
    if all(isinstance(number, (int, float)) and least <= number <= 1 for number in numbers):
        return tuple(map(float, numbers))
    raise BadArguments(f"{name} takes {_wanted(role)}, not {value!r}")


def _wanted(role: Role) -> str:
    return {
        Role.SWITCH: "true or false",
        Role.COLOUR: "three numbers from 0 to 1, red, green and blue",
        Role.DRIVE: "two speeds from -1 to 1, left and right",
    }[role]
