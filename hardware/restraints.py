"""Applies the rules of a lane to its outputs, through the hands of its control. Pure.

A limit lowers what an output has; a refused direction and a stop bring it to rest. Each change also ends the grant by
which commands skip checks, so that a command is checked as long as a restriction holds. A ramp is a limit that sinks to
zero. Its output still has the lease of its last command, whose end brings it to rest at the latest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from taskengine import NotAllowed, Origin

from .admission import Admission
from .arming import Attempts
from .conditions import FAULT
from .device_config import HardwareConfig, Value
from .effects import Sink
from .lane_notes import LaneNote
from .motion import FRAME_S
from .outputs import NS, Output
from .plausibility import Measurement
from .rules import Rules
from .shared_state import SharedState
from .values import amount_of, numbers_of

RULE = "a rule"
"""The origin of a stop by a rule."""


class Hands(NamedTuple):
    """The ways in which a control acts on an output: drive it to a value, drop its motion, bring it to rest."""

    drive: Callable[[Output, Value, float], None]
    drop: Callable[[Output], None]
    rest: Callable[[Output, float], None]


class _Sinking(NamedTuple):
    """A ramp: the amount that an output had when it began, and until when it is to rest."""

    amount: float
    began: float
    ramp: float

    def limit(self, now: float) -> float:
        """Return the largest amount at this time."""
        return self.amount * max(0.0, 1 - (now - self.began) / self.ramp)


class Restraints:
    """Keeps the restrictions of a lane's outputs by its rules."""

    def __init__(
        self,
        lane: str,
        rules: Rules,
        panel: SharedState,
        admission: Admission,
        outputs: Mapping[str, Output],
        hands: Hands,
    ) -> None:
        self._lane = lane
        self.rules = rules
        self._panel = panel
        self._admission = admission
        self._outputs = outputs
        self._hands = hands
        self._attempts = Attempts()
        self._sinking: dict[Output, _Sinking] = {}
        self._next_step = 0.0
        """When ramps go on."""
        self._lost: dict[str, str] = {}
        """The reasons for which lost links stop the machine, by rules."""
        self._latched: set[str] = set()
        """The rules for which it was stopped, as long as they hold."""
        self._is_news = False
        """Whether the rules have changed since `act`."""

    def begin(self, now: float) -> None:
        """Begin with inputs that have not been measured, and outputs that have not been moved."""
        self.rules.begin(now)
        for name in self.rules.take_changed() & self._outputs.keys():
            self._outputs[name].restrict(self.rules.restriction(name))
        self._is_news = True

    # Events ----------------------------------------------------------------------------------------------------------

    def sense(self, name: str, reading: Measurement, now: float) -> bool:
        """Take a reading of an input, or of the supply; return whether `act` has to be called."""
        self._is_news |= self.rules.sense(name, reading, now)
        self._plan()
        return self._is_news

    def lose(self, output: Output) -> None:
        """Note that the lease of an output that was moving or on has ended: the link to its client is lost."""
        for rule in self.rules.lost(output.device.name):
            self._lost[rule.name] = f"{rule.name}: {rule.text or rule.when}: {output.device.name}"
        self._plan()

    def note_refusal(self, output: Output, origin: Origin, now: float) -> None:
        """Note that a command was refused: while the machine is stopped, many of them speak against arming it."""
        if self._panel.is_stopped:
            self._attempts.note(output.device.name, origin, now)
            self._plan()

    # Actions ---------------------------------------------------------------------------------------------------------

    def act(self, now: float) -> None:
        """Restrict outputs by the rules that hold now, and stop the machine where one says so.

        It does so even if an output fails, and raises its error afterwards.
        """
        rules, panel = self.rules, self._panel
        has_changed = rules.note(FAULT, panel.has_fault(self._lane), now)
        if now >= rules.due:
            has_changed |= rules.tick(now)
        failed = None
        if has_changed or self._is_news:
            self._is_news = False
            failed = self._restrict_all(now)
            self._write(now)
        elif now >= self._attempts.due:
            self._write(now)
        if self._sinking:
            self._sink(now)
        if rules.latches or self._lost or self._latched:
            self._latch(now)
        self._plan()
        if failed is not None:
            raise failed

    def unready(self, now: float) -> list[str]:
        """Return what speaks against arming in all lanes."""
        self._write(now)
        late = self._panel.untold() if self._panel.is_stopped else []
        unread = self._admission.unread()
        return [*self._panel.notes.all().reasons, *unread, *(f"lane {lane} has not stopped yet" for lane in late)]

    def _plan(self) -> None:
        """Have the next command, and the control, look when something is due."""
        due = -math.inf if self._is_news or self._lost else min(self.rules.due, self._attempts.due)
        if self._sinking:
            due = min(due, self._next_step)
        self._admission.other_due = due
        self._admission.due = min(self._admission.due, due)

    def _write(self, now: float) -> None:
        """Tell other processes which rules hold, and what speaks against arming."""
        reasons = [*self.rules.reasons(), *self._attempts.reasons(now)]
        self._panel.write_note(self._lane, LaneNote(dict(self.rules.holding), reasons))

    def _latch(self, now: float) -> None:
        """Stop the machine for rules that ask for it, once, or again if it was armed since."""
        latches, is_stopped = self.rules.latches, self._panel.is_stopped
        found = [reason for name, reason in latches.items() if not (is_stopped and name in self._latched)]
        self._latched = set(latches)
        for reason in [*found, *self._lost.values()]:
            self._panel.stop(int(now * NS), by=RULE, why=reason)
        self._lost.clear()

    def _restrict_all(self, now: float) -> Exception | None:
        failed: Exception | None = None
        for name in self.rules.take_changed():
            output = self._outputs.get(name)
            if output is not None:
                before = output.restriction
                try:
                    self._restrict(output, now)
                except Exception as error:
                    failed = failed or error
                    # at once, again: if that fails too, the owner ends
                    output.restriction = before
                    self.rules.changed.add(name)
                    self._is_news = True
        return failed

    def _restrict(self, output: Output, now: float) -> None:
        before, after = output.restriction, self.rules.restriction(output.device.name)
        if before == after:
            return
        output.restrict(after)
        if isinstance(output.motion, Sink):
            output.motion = output.motion._replace(is_final=True)
        if after is not None and after.is_stopped:
            if before is None or not before.is_stopped or after.ramp < before.ramp:
                self._stop(output, after.ramp, now)
            else:
                self._hold(output, now)
            return
        self._sinking.pop(output, None)
        if after is None or after.is_looser(before):
            # a motion that was held back would go on faster, without a command
            self._hands.drop(output)
        self._hold(output, now)

    def _stop(self, output: Output, ramp: float, now: float) -> None:
        if ramp:
            self._hands.drop(output)
            self._hold(output, now)
        amount = amount_of(output.value)
        if not (ramp and amount):
            self._sinking.pop(output, None)
            self._hands.rest(output, now)
            return
        if not self._sinking:
            self._next_step = now + FRAME_S
        self._sinking[output] = _Sinking(amount, now, ramp)

    def _hold(self, output: Output, now: float) -> None:
        """Lower an output to what it may have."""
        value = output.bound(output.value)
        if value != output.value:
            self._hands.drive(output, value, now)

    def _sink(self, now: float) -> None:
        """Go on with ramps."""
        if now < self._next_step:
            return
        self._next_step = now + FRAME_S
        for output, sinking in list(self._sinking.items()):
            limit = sinking.limit(now)
            if limit <= 0 or not amount_of(output.value):
                del self._sinking[output]
                self._hands.rest(output, now)
            else:
                self._hands.drive(output, _lowered(output.value, limit), now)


def rules_of(layout: HardwareConfig, lane: str, now: float = 0.0, *, is_power_watched: bool = False) -> Rules:
    """Return the rules of a lane."""
    outputs = [device.name for device in layout.of(lane) if device.kind.is_output]
    return Rules(layout.rules_of(lane), layout.judged(lane), outputs, now, is_power_watched=is_power_watched)


def check(output: Output, value: Value) -> None:
    """Check a command by the restriction of its output. Raises NotAllowed."""
    restriction = output.restriction
    if restriction is not None and restriction.refuses(value):
        raise NotAllowed(f"{output.device.name} is held by {'; '.join(restriction.refusals)}")


def _lowered(value: Value, limit: float) -> Value:
    """Return a value in proportion, of `limit` at most."""
    numbers = numbers_of(value)
    largest = max(map(abs, numbers))
    if largest <= limit:
        return value
    found = tuple(number * limit / largest for number in numbers)
    return found if isinstance(value, tuple) else found[0]
