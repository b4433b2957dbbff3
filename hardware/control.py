"""Controls a lane's outputs: commands and `now` go in, values for pins come out. Pure.

Theory of operation. A command first acts on pending stops, calls to rest and ended leases. Then it is admitted
(`admission.py`) and written, and its lease begins again. A command that brings an output to its own safe value passes
even if others hold the output, and ends their lease. `tick` must be called at `due` at the latest: it acts on the same
things, moves the outputs in motion, and publishes changes. An output's `write` gets each value for its pins, and `tell`
each value to publish; a value is published again later if `tell` returns False.

Each motion follows its output's own clock. A pause delays that clock: it advances by at most two frames at a time, and,
if the acceleration is limited, restarts from standing still. So a delayed motion takes longer, and no output leaps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import cast

from taskengine import BadArguments, NotAllowed, Origin

from .admission import Admission, stopped_text
from .device_config import EXCLUSIVE_S, HOLD, Device, DeviceLimits, Value
from .device_types import Role
from .effects import Effect, Pulse, Sink
from .motion import EASINGS, FRAME_S, Motion, State, Sweep, Then, Trapezoid, go, least_duration
from .outputs import NS, Output, left_out, safe_value, start_value
from .plausibility import Measurement
from .restraints import Hands, Restraints, check
from .rules import Rules
from .sending import Sending
from .shared_state import NEVER, SharedState
from .values import checked, seconds

__all__ = ["Control", "Output", "checked", "safe_value", "seconds", "start_value", "stopped_text"]


class Control(Sending):
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
        rules: Rules | None = None,
    ) -> None:
        super().__init__(panel)
        self._lane = lane
        self.outputs = {device.name: Output(device) for device in devices if device.kind.is_output}
        self.admission = Admission(lane, panel, exclusive, position)
        hands = Hands(self._drive, self._hold_back, self._bring_to_rest)
        self.restraints = Restraints(lane, rules or Rules(), panel, self.admission, self.outputs, hands)
        self._numbers, self._rest_orders, self._ends = panel.numbers, panel.rest_orders, panel.ends
        self._tell = tell
        self._number = panel.number
        """The number of the latest stop that was acted on."""
        self._is_stopping = False
        """Whether that stop is to be confirmed yet."""

    def begin(self, at: Mapping[int, Value], now: float = 0.0) -> None:
        """Start with open pins; `at` has the values of outputs by their places."""
        number = self._panel.number
        for output in self.outputs.values():
            output.value = at[output.place]
            output.rest_order = self._rest_orders[output.place]
            if output.boards:
                self.begin_lost(output, now)
            else:
                self._panel.note(output.place, output.value, int(now * NS))
            self._ends[output.place] = NEVER
        self._number, self._is_stopping = number, True
        self._confirm()
        self.restraints.begin(now)
        self._act_on_all(now)

    def find(self, name: str, *roles: Role) -> Output:
        """Return an output by its name. Raises BadArguments for an unknown one, or one with none of these roles."""
        try:
            output = self.outputs.get(name)
        except TypeError:  # no name at all
            output = None
        if output is None:
            raise BadArguments(f"no output is named {name!r:.100}; devices.list shows the names")
        if output.role not in roles and roles:
            raise BadArguments(f"{name} is a {output.device.type}, not a {' or '.join(role.value for role in roles)}")
        return output

    # Commands --------------------------------------------------------------------------------------------------------

    def command(self, output: Output, value: Value, origin: Origin, now: float) -> None:
        """Set an output to a possible value. Raises the errors of `Admission.check`."""
        if (
            origin is output.granted
            and now < output.granted_until
            and now < self.admission.due
            and self._numbers[0] == self._number
            and self._rest_orders[output.place] == output.rest_order
        ) or self._let(output, value, origin, now):
            self._take(output, value, now)

    def check(self, output: Output, value: Value, origin: Origin, now: float) -> None:
        """Check that a client may set an output to a value. Raises the errors of `Admission.check`."""
        self._act_on_due(output, now)
        try:
            self.admission.check(output, origin, now)
            check(output, value)
        except NotAllowed:
            if not output.is_safe_at(value):
                raise

    def _let(self, output: Output, value: Value, origin: Origin, now: float) -> bool:
        """Return whether an output is to take the value.

        A safe value that is not admitted brings it to rest instead.
        """
        self._act_on_due(output, now)
        is_safe = output.is_safe_at(value)
        try:
            self.admission.check(output, origin, now)
            check(output, value)
        except NotAllowed:
            if not is_safe:
                self.restraints.note_refusal(output, origin, now)
                raise
        else:
            if not (is_safe and self.admission.is_strange(output, origin)):
                self.admission.grant(output, origin, now)
                return True
        self._bring_to_rest(output, now)
        return False

    def _take(self, output: Output, value: Value, now: float) -> None:
        """Write a value between the old lease and the new one: a failed write extends no lease."""
        is_new = output.lease_ns and self._ends[output.place] == NEVER
        if is_new:
            self._extend(output, now)
        if output.limits is not None and value is not None and output.position is not None:
            if output.boards:
                # nothing is written yet
                self.heed(now)
            if not output.is_lost:
                self._set_off(output, partial(_set, cast(float, value), output.limits), now)
        elif output.is_shaped:
            self._shape(output, value, now)
        else:
            if output.motion is not None:
                self._drop(output)
            self._drive(output, value, now)
        if output.is_lost:
            raise left_out(output)
        if not is_new and output.lease_ns:
            self._ends[output.place] = (output.word_ns or int(now * NS)) + output.lease_ns
            if output.holder is not None:
                self.admission.extend(output, now)

    def _extend(self, output: Output, now: float) -> None:
        self.admission.extend(output, now)
        self.due = min(self.due, self.admission.due)

    def _admit(self, output: Output, origin: Origin, now: float) -> None:
        """Admit a client's motion of an output between the old lease and the new one, as `_take` does."""
        self._act_on_due(output, now)
        try:
            self.admission.check(output, origin, now)
            check(output, None)
        except NotAllowed:
            self.restraints.note_refusal(output, origin, now)
            raise
        self.admission.grant(output, origin, now)
        if self._ends[output.place] == NEVER:
            self._extend(output, now)

    def move(self, output: Output, target: float, duration: float, easing: str, origin: Origin, now: float) -> float:
        """Move an output within `duration` s, or as fast as its limits allow; return how many seconds it takes.

        Raises BadArguments, and the errors of `Admission.check`.
        """
        way = EASINGS.get(easing) if isinstance(easing, str) else None
        if way is None:
            raise BadArguments(f"an easing is one of {', '.join(EASINGS)}, not {easing!r:.100}")
        duration = seconds(duration, 0.0)
        limits = output.limits
        if limits is not None and limits.acceleration < math.inf and math.isinf(way.acceleration):
            raise BadArguments(f"{easing} has no bounded acceleration, and that of {output.device.name} has a limit")
        self._admit(output, origin, now)
        if output.position is None:  # the position is not known
            self._drop(output)
            self._drive(output, target, now)
            if output.is_lost:
                raise left_out(output)
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
        """Move an output to and fro.

        Raises BadArguments if its limits forbid that, and the errors of `Admission.check`.
        """
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
        """Set an output to a value for so many seconds, and to `after` then. Raises the errors of `Admission.check`."""
        self.play([(output, Pulse(value, after, now + duration))], origin, now)

    def play(self, effects: Sequence[tuple[Output, Effect]], origin: Origin, now: float) -> None:
        """Begin effects together: all are admitted, or none begins. Raises the errors of `Admission.check`."""
        for output, _ in effects:
            if output.beat:
                raise BadArguments(f"{output.device.name} beats while it is on, and plays nothing else")
            self._act_on_due(output, now)
            self.admission.check(output, origin, now)
            check(output, None)
        for output, effect in effects:
            self._admit(output, origin, now)
            self._play(output, effect, now)
            self._drive(output, effect.at(now)[0], now)
            if output.is_lost:
                raise left_out(output)
            self._extend(output, now)

    def halt(self, output: Output, origin: Origin, now: float) -> None:
        """Stop an output where it is, or as near as its limits allow. Raises the errors of `Admission.check`."""
        try:
            self._admit(output, origin, now)
        except NotAllowed:
            if output.device.safe != HOLD:
                raise
            self._bring_to_rest(output, now)
            return
        self._extend(output, now)
        limits, motion = output.limits, output.motion
        if limits is None or math.isinf(limits.acceleration) or motion is None or isinstance(motion, Effect):
            self._drop(output)
            return
        position, speed = self._state(output, now)
        self._set_off(output, partial(_set, position + speed * abs(speed) / (2 * limits.acceleration), limits), now)

    def bring_to_rest(self, output: Output, origin: Origin, position: int, now: float) -> None:
        """Bring an output to its safe state at once, whoever holds it; earlier calls move it no more."""
        self._act_on_due(output, now)
        number = (origin.received, position) if origin.received else (int(now * NS), 0)
        if number > self._panel.rested(output.place):
            self._panel.rest(self._lane, output.place, *number)
        self._retire(output, now)
        output.rest_order = self._rest_orders[output.place]

    # Leases ----------------------------------------------------------------------------------------------------------

    def acquire(
        self, outputs: list[Output], origin: Origin, now: float, *, exclusive: bool = False, take_over: bool = False
    ) -> None:
        """Acquire outputs as `Admission.acquire` does, after ending the leases that are over."""
        self._act_on_all(now)
        self.admission.acquire(outputs, origin, now, exclusive=exclusive, take_over=take_over)
        self._go_on_if_in_time(outputs, now)
        self.due = min(self.due, self.admission.due)

    def renew(self, outputs: list[Output], origin: Origin, now: float) -> None:
        """Renew outputs as `Admission.renew` does, after ending the leases that are over."""
        self._act_on_all(now)
        self.admission.renew(outputs, origin, now)
        self._go_on_if_in_time(outputs, now)
        self.due = min(self.due, self.admission.due)

    # Stops -----------------------------------------------------------------------------------------------------------

    def stop(self, now: float, *, by: str = "", why: str = "", id: bytes = b"") -> None:
        """Bring every output to its safe state, and accept nothing until `arm`."""
        self._panel.stop(int(now * NS), by=by, why=why, id=id)
        self._act_on_stop(now)

    def sense(self, name: str, reading: Measurement, now: float) -> None:
        """Act on a reading of an input, or of the supply, if rules are about it."""
        if self.restraints.sense(name, reading, now):
            self._restrain(now)
        self.due = min(self.due, self.admission.due)

    def arm(self, origin: Origin, now: float, number: int | None = None) -> None:
        """Accept commands again; see `Admission.arm`. Raises NotAllowed with the reasons against it."""
        self._act_on_all(now)
        if reasons := self.restraints.unready(now):
            raise NotAllowed(f"the machine cannot be armed: {'; '.join(reasons)}")
        self.admission.arm(origin, number, now)
        self._act_on_all(now)

    def rest(self, now: float = 0.0) -> None:
        """Bring every output to its safe state."""
        self._rest_all(self.outputs.values(), now, self._rest)
        self._ask_all(now)
        # the beginning and the end of an owner are not published
        self._changed.clear()

    def tick(self, now: float) -> None:
        """Do everything that is due."""
        self._act_on_all(now)
        self.heed(now)
        self._go_on(now)
        if self._is_stopping:
            self._confirm()
        for output in [output for output in self._changed if output.next_tell <= now]:
            del self._changed[output]
            output.next_tell = now + 1 / output.device.rate
            if self._tell(output, now):
                output.told = output.value
            else:  # it was not published, and may be the last one
                self._changed[output] = None
        self.due = self._next(now)

    def _next(self, now: float) -> float:
        moves = [
            output.motion.due(now) if isinstance(output.motion, Effect) else self._frame for output in self._moving
        ]
        tells = [output.next_tell for output in self._changed]
        due: float = min([self.admission.due, self._boards_due, *moves, *tells])
        return due

    # Stops, calls to rest, ended leases -----------------------------------------------------------------------------

    def _act_on_all(self, now: float) -> None:
        self._act_on_stop(now)
        for output in self.outputs.values():
            if self._rest_orders[output.place] != output.rest_order:
                self._act_on_rest(output, now)
        self._restrain(now)
        self._end_leases(now)

    def _act_on_due(self, output: Output, now: float) -> None:
        """Act on what is pending for one output. Raises TaskFailed if its pins could not be had."""
        if output.boards:
            self.heed(now)
        if output.failure:
            raise left_out(output)
        if self._numbers[0] != self._number:
            self._act_on_stop(now)
        if self._rest_orders[output.place] != output.rest_order:
            self._act_on_rest(output, now)
        if now >= self.admission.due:
            self._restrain(now)
            self._end_leases(now)

    def _act_on_stop(self, now: float) -> None:
        number = self._panel.number
        if number != self._number:
            self.admission.forget(self.outputs.values())
            self._rest_all(self.outputs.values(), now, self._stop)
            self._ask_all(now)
            self._number = number
            self._is_stopping = True
        if self._is_stopping:
            self._confirm()

    def _confirm(self) -> None:
        """Confirm a stop when no output is on its way to rest any more, and all boards have confirmed it."""
        sinks = [output.motion for output in self._moving if isinstance(output.motion, Sink)]
        if not all(sink.is_late for sink in sinks):
            return
        # the guardian waits for no board
        self._panel.act(self._lane, self._number)
        if self._is_carried_out():
            self._is_stopping = False
            self._panel.confirm(self._lane, self._number, is_read=not self.has_unread)

    def _act_on_rest(self, output: Output, now: float) -> None:
        order = self._rest_orders[output.place]
        self._retire(output, now)
        output.rest_order = order

    def _end_leases(self, now: float) -> None:
        over = self.admission.over(self.outputs.values(), now)
        for output in self.admission.late:
            self._ramps_down(output, now, is_late=True)
        for output in over:
            self._lose(output)
        if over:
            self._rest_all(over, now, self._rest)
            self._restrain(now)
            self.admission.over(self.outputs.values(), now)

    def _lose(self, output: Output) -> None:
        """Note that the lease of an output has ended, or will before its ramp to rest does."""
        is_ramping = isinstance(output.motion, Sink)
        if is_ramping or output.value != safe_value(output.device, output.value):
            self.restraints.lose(output)

    def _restrain(self, now: float) -> None:
        """Act on the rules that hold, and on a stop that they ask for."""
        self.restraints.act(now)
        if self._numbers[0] != self._number:
            self._act_on_stop(now)
        self.due = min(self.due, self.admission.due)

    def _rest_all(self, outputs: Iterable[Output], now: float, rest: Callable[[Output, float], object]) -> None:
        """Bring these outputs to their safe states, even if one of them fails; raise its error afterwards."""
        failed: Exception | None = None
        for output in outputs:
            try:
                rest(output, now)
            except Exception as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def _rest(self, output: Output, now: float) -> None:
        last = output.motion.after if isinstance(output.motion, Effect) else output.value
        self._drop(output)
        self._drive(output, safe_value(output.device, last), now)
        if output.boards:
            self._hasten(output, now)
        self.admission.end(output)

    def _bring_to_rest(self, output: Output, now: float) -> None:
        """Bring an output to rest unless it is at rest already."""
        is_there = output.motion is None and output.value == safe_value(output.device, output.value)
        if is_there:
            self.admission.end(output)
        else:
            self._rest(output, now)

    def _ramps_down(self, output: Output, now: float, *, is_late: bool = False) -> bool:
        """Begin a stop by a ramp, whose end `_sink` sees, or go on with it; return whether the output has such."""
        motion = output.motion
        if isinstance(motion, Sink):
            output.motion = motion._replace(is_late=motion.is_late and is_late)
        elif output.stop_ns and not output.is_lost and output.value != output.rest:
            self._play(output, Sink(output.value, output.rest, output.stop_ns / NS, now, is_late), now)
        else:
            return False
        return True

    def _stop(self, output: Output, now: float) -> None:
        """Bring an output to rest as its settings say: at once, or by a ramp."""
        if not self._ramps_down(output, now):
            self._rest(output, now)

    def _retire(self, output: Output, now: float) -> None:
        """Do so unless it is at rest already."""
        if not self._ramps_down(output, now):
            self._bring_to_rest(output, now)

    def _go_on_if_in_time(self, outputs: Iterable[Output], now: float) -> None:
        """Have outputs go on that ramp to rest only because a renewal was late, and has come now."""
        for output in outputs:
            sink = output.motion
            is_in_time = self._ends[output.place] - output.stop_ns > now * NS
            if isinstance(sink, Sink) and sink.may_end and is_in_time:
                self._drop(output)
                if output.limits is not None:
                    self._set_off(output, partial(_set, cast(float, sink.start), output.limits), now)
                elif output.is_shaped:
                    self._shape(output, sink.start, now)
                else:
                    self._drive(output, sink.start, now)


def _set(target: float, limits: DeviceLimits, state: State, clock: float) -> Motion:
    """Plan a motion as fast as the limits allow."""
    return Trapezoid(state, target, clock, limits)
