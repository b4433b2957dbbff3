"""What a lane's outputs do: commands and `now` go in, values for pins come out. Pure.

Theory of operation. Before anything else a command has stops, calls to rest and leases that are over acted on; then it
is admitted (`admission.py`), written, and its lease begins anew. What brings an output to its own safe value passes
where others have it for themselves, and ends their lease. `tick` is to be called at `due` at the latest: it does the
same, moves what is on its way and tells what has changed. An output's `write` is given each value for its pins, `tell`
each to publish, which is told again where that gives False.

Motions go by a clock of their output's own, which a pause holds up: it goes on by two frames at most, and, where the
acceleration has a limit, from standing still. So a motion that was held up takes longer, and nothing leaps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import cast

from taskengine import BadArguments, NotAllowed, Origin, TaskFailed

from .admission import Admission, stopped_text
from .device_config import EXCLUSIVE_S, HOLD, Device, DeviceLimits, Value
from .device_types import Role
from .motion import EASINGS, FRAME_S, Motion, Plan, Pulse, Ramp, State, Sweep, Then, Trapezoid, go, least_duration
from .outputs import NS, Output, safe_value, start_value
from .shared_state import NEVER, SharedState
from .values import checked, numbers_of, seconds

__all__ = ["Control", "Output", "checked", "safe_value", "seconds", "start_value", "stopped_text"]

PAUSE_S = 2 * FRAME_S
"""What is longer between two looks at a motion holds it up."""


class Control:
    """The outputs of a lane; `exclusive` and `position` as for `Admission`."""

    def __init__(
        self,
        lane: str,
        devices: Iterable[Device],
        panel: SharedState,
        tell: Callable[[Output, float], bool],
        *,
        exclusive: float = EXCLUSIVE_S,
        position: Callable[[], int] = lambda: 0,
    ) -> None:
        self._lane = lane
        self.outputs = {device.name: Output(device) for device in devices if device.kind.is_output}
        self.admission = Admission(lane, panel, exclusive, position)
        self._panel = panel
        self._numbers, self._rest_orders = panel.numbers, panel.rest_orders
        self._ends, self._values, self._told_at = panel.ends, panel.values, panel.told_at
        self._tell = tell
        self._number = panel.number
        """The latest stop that was heeded."""
        self._moving: dict[Output, None] = {}
        self._changed: dict[Output, None] = {}
        self._frame = 0.0
        """When what is on its way moves next."""
        self.due = math.inf
        """When `tick` is to be called at the latest, in s."""

    def begin(self, at: Mapping[int, Value], now: float = 0.0) -> None:
        """The pins are open, and outputs have these values, by their places."""
        number = self._panel.number
        for output in self.outputs.values():
            output.value = at[output.place]
            output.rest_order = self._rest_orders[output.place]
            self._panel.note(output.place, output.value, int(now * NS))
            self._ends[output.place] = NEVER
        self._number = number
        self._panel.confirm(self._lane, number)

    def find(self, name: str, *roles: Role) -> Output:
        """Return an output by its name. Raises BadArguments where there is none, or it has none of these roles."""
        try:
            output = self.outputs.get(name)
        except TypeError:  # not even a name
            output = None
        if output is None:
            raise BadArguments(f"no output is named {name!r:.100}; devices.list shows those that there are")
        if output.role not in roles and roles:
            raise BadArguments(f"{name} is a {output.device.type}, not a {' or '.join(role.value for role in roles)}")
        return output

    # Commands --------------------------------------------------------------------------------------------------------

    def command(self, output: Output, value: Value, origin: Origin, now: float) -> None:
        """Have an output take a value that it can. Raises what `Admission.check` does."""
        if (
            origin is output.granted
            and now < output.granted_until
            and now < self.admission.due
            and self._numbers[0] == self._number
            and self._rest_orders[output.place] == output.rest_order
        ) or self._let(output, value, origin, now):
            self._take(output, value, now)

    def check(self, output: Output, value: Value, origin: Origin, now: float) -> None:
        """Whether a client may have an output take a value. Raises what `Admission.check` does."""
        self._heed(output, now)
        try:
            self.admission.check(output, origin, now)
        except NotAllowed:
            if not output.is_safe_at(value):
                raise

    def _let(self, output: Output, value: Value, origin: Origin, now: float) -> bool:
        """Whether an output is to take the value; what it may not, but is safe, brings it to rest."""
        self._heed(output, now)
        is_safe = output.is_safe_at(value)
        try:
            self.admission.check(output, origin, now)
        except NotAllowed:
            if not is_safe:
                raise
        else:
            if not (is_safe and self.admission.is_strange(output, origin)):
                self.admission.grant(output, origin, now)
                return True
        self._bring_to_rest(output, now)
        return False

    def _take(self, output: Output, value: Value, now: float) -> None:
        """Drive an output, whose lease runs before and begins anew after: a write that fails extends nothing."""
        is_new = output.lease_ns and self._ends[output.place] == NEVER
        if is_new:
            self._extend(output, now)
        if output.limits is not None and value is not None and output.position is not None:
            self._set_off(output, partial(_set, cast(float, value), output.limits), now)
        elif output.ramp:
            self._ramp(output, value, now)
        else:
            if output.motion is not None:
                self._drop(output)
            self._drive(output, value, now)
        if not is_new and output.lease_ns:
            self._ends[output.place] = (output.word_ns or int(now * NS)) + output.lease_ns
            if output.holder is not None:
                self.admission.extend(output, now)

    def _extend(self, output: Output, now: float) -> None:
        self.admission.extend(output, now)
        self.due = min(self.due, self.admission.due)

    def _admit(self, output: Output, origin: Origin, now: float) -> None:
        """Let a client move an output; as for `_take`, what is written comes between the two ends of its lease."""
        self._heed(output, now)
        self.admission.check(output, origin, now)
        self.admission.grant(output, origin, now)
        if self._ends[output.place] == NEVER:
            self._extend(output, now)

    def move(self, output: Output, target: float, duration: float, easing: str, origin: Origin, now: float) -> float:
        """Have an output go to a position within `duration` s, or as soon as its limits allow: in how many seconds.

        Raises BadArguments, and what `Admission.check` does.
        """
        way = EASINGS.get(easing) if isinstance(easing, str) else None
        if way is None:
            raise BadArguments(f"an easing is one of {', '.join(EASINGS)}, not {easing!r:.100}")
        duration = seconds(duration, 0.0)
        limits = output.limits
        if limits is not None and limits.acceleration < math.inf and math.isinf(way.acceleration):
            raise BadArguments(f"{easing} has no bounded acceleration, and that of {output.device.name} has a limit")
        self._admit(output, origin, now)
        if output.position is None:  # nobody knows where it stands
            self._drop(output)
            self._drive(output, target, now)
            self._extend(output, now)
            return 0.0
        state = self._state(output, now)
        end = output.clock + duration

        def plan(state: State, clock: float) -> Motion:
            return go(state, target, clock, limits, max(0.0, end - clock), way)

        self._set_off(output, plan, now)
        self._extend(output, now)
        took: float = go(state, target, output.clock, limits, duration, way).end - output.clock
        return took

    def sweep(
        self, output: Output, low: float, high: float, period: float, cycles: int | None, origin: Origin, now: float
    ) -> None:
        """Have an output go to and fro. Raises BadArguments where its limits forbid that, and as `Admission.check`."""
        way, limits = EASINGS["sine"], output.limits
        least = 2 * least_duration(high - low, way, limits) if limits is not None else 0.0
        period = seconds(period, max(least, 2 * FRAME_S), "period")
        self._admit(output, origin, now)
        is_known = output.position is not None
        swept: list[Sweep] = []

        def plan(state: State, clock: float) -> Motion:
            left = swept[-1].left(clock) if swept else cycles
            reach = go(state if is_known or swept else State(low), low, clock, limits, 0.0, way)
            swept.append(Sweep(low, high, reach.end, period, left))
            return Then(reach, swept[-1])

        self._set_off(output, plan, now)
        self._extend(output, now)

    def pulse(self, output: Output, value: Value, after: Value, duration: float, origin: Origin, now: float) -> None:
        """Have an output take a value for so many seconds, and another one then. Raises what `Admission.check` does."""
        self._admit(output, origin, now)
        self._drop(output)
        motion = output.motion = Pulse(value, after, now + duration)
        self._moving[output] = None
        self._drive(output, value, now)
        self._extend(output, now)
        self.due = min(self.due, motion.end)

    def halt(self, output: Output, origin: Origin, now: float) -> None:
        """Have an output stay where it is, or as near as its limits allow. Raises what `Admission.check` does."""
        try:
            self._admit(output, origin, now)
        except NotAllowed:
            if output.device.safe != HOLD:
                raise
            self._bring_to_rest(output, now)
            return
        self._extend(output, now)
        limits, motion = output.limits, output.motion
        if limits is None or math.isinf(limits.acceleration) or motion is None or isinstance(motion, Pulse):
            self._drop(output)
            return
        position, speed = self._state(output, now)
        self._set_off(output, partial(_set, position + speed * abs(speed) / (2 * limits.acceleration), limits), now)

    def bring_to_rest(self, output: Output, origin: Origin, position: int, now: float) -> None:
        """Bring an output to its safe state at once, whoever has it; calls from before move it no more."""
        self._heed(output, now)
        number = (origin.received, position) if origin.received else (int(now * NS), 0)
        if number > self._panel.rested(output.place):
            self._panel.rest(self._lane, output.place, *number)
        self._bring_to_rest(output, now)
        output.rest_order = self._rest_orders[output.place]

    # Leases ----------------------------------------------------------------------------------------------------------

    def acquire(
        self, outputs: list[Output], origin: Origin, now: float, *, exclusive: bool = False, take_over: bool = False
    ) -> None:
        """See `Admission.acquire`; what is over ends first."""
        self._heed_all(now)
        self.admission.acquire(outputs, origin, now, exclusive=exclusive, take_over=take_over)
        self.due = min(self.due, self.admission.due)

    def renew(self, outputs: list[Output], origin: Origin, now: float) -> None:
        """See `Admission.renew`; what is over ends first."""
        self._heed_all(now)
        self.admission.renew(outputs, origin, now)
        self.due = min(self.due, self.admission.due)

    # Stops -----------------------------------------------------------------------------------------------------------

    def stop(self, now: float, *, by: str = "", why: str = "", id: bytes = b"") -> None:
        """Bring every output to where it is safe, and accept nothing until `arm`."""
        self._panel.stop(int(now * NS), by=by, why=why, id=id)
        self._heed_stop(now)

    def arm(self, origin: Origin, now: float, number: int | None = None) -> None:
        """Accept commands again; see `Admission.arm`."""
        self._heed_stop(now)
        self.admission.arm(origin, number, now)
        self._heed_stop(now)

    def rest(self, now: float = 0.0) -> None:
        """Bring every output to where it is safe."""
        self._rest_all(self.outputs.values(), now)
        # of the owner's beginning and end nobody is told
        self._changed.clear()

    def tick(self, now: float) -> None:
        """Do what is due."""
        self._heed_all(now)
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
        moves = [output.motion.end if isinstance(output.motion, Pulse) else self._frame for output in self._moving]
        tells = [output.next_tell for output in self._changed]
        due: float = min([self.admission.due, *moves, *tells])
        return due

    # What goes before everything -------------------------------------------------------------------------------------

    def _heed_all(self, now: float) -> None:
        self._heed_stop(now)
        for output in self.outputs.values():
            if self._rest_orders[output.place] != output.rest_order:
                self._heed_rest(output, now)
        self._end_leases(now)

    def _heed(self, output: Output, now: float) -> None:
        """As far as it concerns one output. Raises TaskFailed where its pins could not be had."""
        if output.failure:
            raise TaskFailed(f"{output.device.name} was left out: {output.failure}", type="DeviceFailed")
        if self._numbers[0] != self._number:
            self._heed_stop(now)
        if self._rest_orders[output.place] != output.rest_order:
            self._heed_rest(output, now)
        if now >= self.admission.due:
            self._end_leases(now)

    def _heed_stop(self, now: float) -> None:
        number = self._panel.number
        if number != self._number:
            self.admission.forget(self.outputs.values())
            self._rest_all(self.outputs.values(), now)
            self._number = number
            self._panel.confirm(self._lane, number)

    def _heed_rest(self, output: Output, now: float) -> None:
        order = self._rest_orders[output.place]
        self._bring_to_rest(output, now)
        output.rest_order = order

    def _end_leases(self, now: float) -> None:
        over = self.admission.over(self.outputs.values(), now)
        if over:
            self._rest_all(over, now)
            self.admission.over(self.outputs.values(), now)

    def _rest_all(self, outputs: Iterable[Output], now: float) -> None:
        """Bring these outputs to where they are safe, also where one of them fails; raises its error then."""
        failed: Exception | None = None
        for output in outputs:
            try:
                self._rest(output, now)
            except Exception as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def _rest(self, output: Output, now: float) -> None:
        last = output.motion.after if isinstance(output.motion, Pulse) else output.value
        self._drop(output)
        self._drive(output, safe_value(output.device, last), now)
        self.admission.end(output)

    def _bring_to_rest(self, output: Output, now: float) -> None:
        """As `_rest`, where it is not at rest already."""
        is_there = output.motion is None and output.value == safe_value(output.device, output.value)
        if is_there:
            self.admission.end(output)
        else:
            self._rest(output, now)

    # Motions ---------------------------------------------------------------------------------------------------------

    def _go_on(self, now: float) -> None:
        """Move what is on its way, at 50 Hz and no faster."""
        is_frame = not self._frame - FRAME_S < now < self._frame
        if is_frame:
            self._frame = now + FRAME_S
        for output in list(self._moving):
            motion = output.motion
            if isinstance(motion, Pulse):
                position, is_over = motion.at(now)
                if not is_over:
                    continue
            elif is_frame and motion is not None:
                self._advance(output, now)
                motion = output.motion or motion
                position, is_over = motion.at(output.clock)
            else:
                continue
            if is_over:
                self._drop(output)
            self._drive(output, position, now)

    def _advance(self, output: Output, now: float) -> None:
        """Have the clock of what is on its way go on; after a pause it starts anew from where it stands."""
        passed, output.seen = now - output.seen, now
        limits = output.limits
        if passed > PAUSE_S and output.plan is not None and limits is not None and limits.acceleration < math.inf:
            output.motion = output.plan(State(output.position or 0.0), output.clock)
        output.clock += min(max(passed, 0.0), PAUSE_S)

    def _state(self, output: Output, now: float) -> State:
        """Return where an output is, and how fast, as far as anybody knows."""
        motion = output.motion
        if motion is None or isinstance(motion, (Pulse, Ramp)):
            output.seen = now
            return State(output.position or 0.0)
        self._advance(output, now)
        return (output.motion or motion).state(output.clock)

    def _set_off(self, output: Output, plan: Plan, now: float) -> None:
        state = self._state(output, now)
        output.plan = plan
        self._start(output, plan(state, output.clock), now)

    def _ramp(self, output: Output, value: Value, now: float) -> None:
        if isinstance(output.motion, Ramp):
            self._advance(output, now)
            there = numbers_of(output.motion.at(output.clock)[0])
        else:
            output.seen, there = now, numbers_of(output.value)
        self._drop(output)
        ramp = Ramp(there, numbers_of(value), output.clock, 1 / output.ramp)
        value, is_over = ramp.at(output.clock)
        self._drive(output, value, now)
        if not is_over:
            self._start(output, ramp, now)

    def _start(self, output: Output, motion: Motion, now: float) -> None:
        output.motion = motion
        self._moving[output] = None
        if self._frame > now + FRAME_S:
            self._frame = now
        self._frame = max(self._frame, now)
        self.due = min(self.due, self._frame)

    def _note(self, output: Output, value: Value, now: float) -> None:
        if isinstance(value, float):
            self._values[output.channel] = value
            self._told_at[output.place] = int(now * NS)
        else:
            self._panel.note(output.place, value, int(now * NS))

    def _drop(self, output: Output) -> None:
        output.motion = output.plan = None
        self._moving.pop(output, None)

    def _drive(self, output: Output, value: Value, now: float) -> None:
        limits = output.limits
        if limits is not None and value is not None:
            value = min(max(cast(float, value), limits.least), limits.most)
        # where we hang in between, the guardian takes the output for what it may be, and not for safe too early
        is_rest = value == output.rest
        if not is_rest:
            self._note(output, value, now)
        output.write(value)
        output.value = value
        if is_rest:
            self._note(output, value, now)
        if output not in self._changed and value != output.told:
            self._changed[output] = None
            if output.next_tell < self.due:
                self.due = output.next_tell


def _set(target: float, limits: DeviceLimits, state: State, clock: float) -> Motion:
    """Return a plan: as fast as the limits allow."""
    return Trapezoid(state, target, clock, limits)
