"""Rules: while a condition over inputs and causes holds, outputs are limited, refused a direction, or stopped. Pure.

Theory of operation. Readings, causes and `now` go in; out come a restriction for each output (`restriction`), and the
rules that stop the machine (`latches`). Each call that may change them returns whether it did. `tick` must be called at
`due` at the latest, because readings grow old by themselves.

An input without a trusted value (`plausibility.py`) counts as its worst value: every term over it holds. So a rule
holds from the beginning on until its inputs have been measured. A fault restricts outputs at once, but stops the
machine for good only after it has lasted: a busy machine reads its inputs late now and then. Nor does a machine stop
because an input has just been opened, unless its first reading is overdue.

`control.py` applies restrictions: a value beyond a limit is lowered to it, a direction or an output that is refused is
brought to rest, and commands for it are `NotAllowed` with the reason. The end of a restriction moves nothing: the
output waits for the next command.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from .conditions import FAULT, LINK, POWER, Condition
from .plausibility import Judge, Measurement, Plausibility

if TYPE_CHECKING:
    from .device_config import Value

FORWARD, BACKWARD = "forward", "backward"
DIRECTIONS: Mapping[str, float] = {FORWARD: 1.0, BACKWARD: -1.0}
LATCH_S = 0.25
"""How long, in s, an input has to have a fault until that stops the machine."""
POWER_AGE_S = 10.0
"""How old, in s, a reading of the firmware may be."""


class RuleAction(enum.Enum):
    """The actions of rules while their conditions hold."""

    LIMIT = "limit"
    """The amount of its outputs' values is `limit` at most."""
    REFUSE = "refuse"
    """Its outputs do not run in `direction`."""
    RAMP = "ramp"
    """Its outputs come to rest within `ramp` s, and take no command."""
    STOP = "stop"
    """Its outputs go to their safe states at once, and take no command."""
    LATCH = "latch"
    """The machine is stopped, and cannot be armed."""


class Rule(msgspec.Struct, frozen=True):
    """A rule for these outputs; one that latches is for all of its lane.

    `limit` is in the outputs' unit, `ramp` in s. `text` says why, in words for people. `of` is the input whose settings
    have it, "" for a rule of its own.
    """

    name: str
    when: Condition
    action: RuleAction
    outputs: tuple[str, ...] = ()
    limit: float = math.inf
    direction: str = ""
    ramp: float = 0.0
    text: str = ""
    of: str = ""


class Restriction(NamedTuple):
    """The restriction of one output: `refused` are directions, as signs; `ramp` is the time, in s, to come to rest.

    `reasons` are those of all rules, `refusals` those of the rules that do more than to limit.
    """

    limit: float = math.inf
    refused: tuple[float, ...] = ()
    is_stopped: bool = False
    ramp: float = 0.0
    reasons: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()

    def bound(self, value: Value) -> Value:
        """Return the nearest value that is allowed, in proportion for one of several numbers."""
        if value is None or isinstance(value, bool):
            return value
        numbers = value if isinstance(value, tuple) else (value,)
        largest = max(map(abs, numbers))
        if largest > self.limit:
            numbers = tuple(math.copysign(min(abs(one) * self.limit / largest, self.limit), one) for one in numbers)
        for sign in self.refused:
            numbers = tuple(0.0 if one * sign > 0 else one for one in numbers)
        return numbers if isinstance(value, tuple) else numbers[0]

    def refuses(self, value: Value) -> bool:
        """Return whether a command with this value is refused; a limit only lowers values."""
        if self.is_stopped:
            return True
        numbers = value if isinstance(value, tuple) else (0.0 if value is None else value,)
        return any(one * sign > 0 for one in numbers for sign in self.refused)

    def is_looser(self, than: Restriction | None) -> bool:
        """Return whether it allows a value that another one does not."""
        if than is None:
            return False
        return (
            self.limit > than.limit or self.is_stopped < than.is_stopped or not set(than.refused) <= set(self.refused)
        )

    def joined(self, rule: Rule, reason: str) -> Restriction:
        """Return this restriction with that of a rule."""
        refused, ramp, is_stopped = self.refused, self.ramp, self.is_stopped
        refusals = self.refusals if rule.action is RuleAction.LIMIT else (*self.refusals, reason)
        if rule.action is RuleAction.REFUSE:
            refused = tuple(sorted({*refused, DIRECTIONS[rule.direction]}))
        elif rule.action is not RuleAction.LIMIT:
            # of two ways to rest the faster one
            ramp = min(ramp, rule.ramp) if is_stopped else rule.ramp
            is_stopped = True
        reasons = (*self.reasons, reason)
        return Restriction(min(self.limit, rule.limit), refused, is_stopped, ramp, reasons, refusals)


class Rules:
    """The rules of a lane with these `outputs`, from `now` on; `inputs` has the bounds of all inputs in rules.

    All of these inputs have to work before the machine can be armed. So has the supply, with `is_power_watched`.
    """

    def __init__(
        self,
        rules: Sequence[Rule] = (),
        inputs: Mapping[str, Plausibility] = {},
        outputs: Iterable[str] = (),
        now: float = 0.0,
        *,
        is_power_watched: bool = False,
    ) -> None:
        self._rules = rules
        self._all = tuple(outputs)
        self._judges = {name: Judge(name, bounds, now) for name, bounds in inputs.items()}
        self._causes: dict[str, float] = {FAULT: 0.0}
        if is_power_watched or any(POWER in rule.when.sources for rule in rules):
            self._judges[POWER] = Judge(POWER, Plausibility(max_age=POWER_AGE_S), now)
        self._of: dict[str, list[Rule]] = {}
        """The rules by their inputs and causes."""
        self._on: dict[str, list[Rule]] = {}
        """The rules by their outputs."""
        for rule in rules:
            for source in rule.when.sources:
                self._of.setdefault(source, []).append(rule)
            for output in self._outputs(rule):
                self._on.setdefault(output, []).append(rule)
        self._values: dict[str, float | None] = dict(self._causes)
        self._faulty_at: dict[str, float] = {}
        """When inputs got their faults."""
        self.faults: dict[str, str] = {}
        """The faults of inputs, by their names."""
        self.holding: dict[str, str] = {}
        """The rules that hold, by their names, with the reasons."""
        self.latches: dict[str, str] = {}
        """The rules that stop the machine, with the reasons."""
        self.due = math.inf
        """The latest time at which `tick` must be called, in s."""
        self.changed: set[str] = set()
        """Outputs whose restriction may be another one since `take_changed`."""
        self.begin(now)

    @property
    def watched(self) -> frozenset[str]:
        """The inputs that `sense` is for."""
        return frozenset(self._judges)

    def begin(self, now: float) -> None:
        """Begin with inputs that have not been measured."""
        self._faulty_at.clear()
        for judge in self._judges.values():
            judge.restart(now)
        self.tick(now)

    # Events ----------------------------------------------------------------------------------------------------------

    def sense(self, name: str, reading: Measurement, now: float) -> bool:
        """Take a reading of an input, or of the cause `undervoltage`; return whether anything has changed."""
        judge = self._judges.get(name)
        if judge is None:
            return False
        judge.take(reading)
        had = self.faults.get(name)
        has_changed = self._judge(name, judge, now)
        if has_changed:
            # another value alone is no news, except of the supply, which speaks against arming
            has_changed = self._weigh(self._of.get(name, ()), now) or self.faults.get(name) != had or name == POWER
        self.due = min(self.due, judge.due(now))
        if name in self._faulty_at and (sure := self._faulty_at[name] + LATCH_S) > now:
            self.due = min(self.due, sure)
        return has_changed

    def note(self, cause: str, is_on: bool, now: float) -> bool:
        """Note that a cause without readings is there, or not; return whether anything has changed."""
        if self._values[cause] == is_on:
            return False
        self._values[cause] = float(is_on)
        return self._weigh(self._of.get(cause, ()), now)

    def tick(self, now: float) -> bool:
        """Judge all inputs again; return whether anything has changed."""
        found = [self._judge(name, judge, now) for name, judge in self._judges.items()]
        # also where no judgement has changed: an input may be no longer awaited
        has_changed = self._weigh(self._rules, now) or any(found)
        self._plan(now)
        return has_changed

    def lost(self, output: str) -> Iterable[Rule]:
        """Return the rules for an output whose lease has ended while it was moving or on."""
        return [rule for rule in self._of.get(LINK, ()) if output in self._outputs(rule)]

    # Answers ---------------------------------------------------------------------------------------------------------

    def restriction(self, output: str) -> Restriction | None:
        """Return what holds for an output; None for nothing."""
        found = None
        for rule in self._on.get(output, ()):
            if rule.name in self.holding:
                found = (found or Restriction()).joined(rule, self.holding[rule.name])
        return found

    def take_changed(self) -> set[str]:
        """Return the outputs whose restriction may have changed since the last call."""
        changed, self.changed = self.changed, set()
        return changed

    def reasons(self) -> list[str]:
        """Return why the machine cannot be armed: rules that latch, and inputs with a fault."""
        found = [self.holding[rule.name] for rule in self._rules if self._is_latching(rule)]
        if self._values.get(POWER):
            found.append("the firmware reports undervoltage")
        told = " ".join(found)
        return found + [fault for fault in self.faults.values() if fault not in told]

    # -----------------------------------------------------------------------------------------------------------------

    def _outputs(self, rule: Rule) -> tuple[str, ...]:
        if rule.action is RuleAction.LATCH and not rule.outputs:
            return self._all
        return rule.outputs

    def _is_latching(self, rule: Rule) -> bool:
        return rule.action is RuleAction.LATCH and rule.name in self.holding

    def _judge(self, name: str, judge: Judge, now: float) -> bool:
        """Judge one input; return whether its value or its fault has changed."""
        value, fault = judge.judged(now)
        if fault and name not in self._faulty_at:
            self._faulty_at[name] = now
        elif not fault:
            self._faulty_at.pop(name, None)
        if fault == self.faults.get(name, "") and value == self._values.get(name, math.nan):
            return False
        self._values[name] = value
        _put(self.faults, name, fault)
        return True

    def _weigh(self, rules: Iterable[Rule], now: float) -> bool:
        """Look whether these rules hold; return whether anything has changed."""
        has_changed = False
        for rule in rules:
            reason, latches = self._reason(rule, now)
            if reason != self.holding.get(rule.name, ""):
                has_changed = True
                self.changed.update(self._outputs(rule))
                _put(self.holding, rule.name, reason)
            if latches != (rule.name in self.latches):
                has_changed = True
            _put(self.latches, rule.name, reason if latches else "")
        return has_changed

    def _reason(self, rule: Rule, now: float) -> tuple[str, bool]:
        """Return why a rule holds, "" if it does not, and whether it stops the machine."""
        if LINK in rule.when.sources:  # an event, not a state
            return "", False
        terms = rule.when.holding(self._values)
        if not terms:
            return "", False
        faulty = dict.fromkeys(term.source for term in terms if term.source in self.faults)
        is_sure = any(term.source not in faulty for term in terms)
        said = rule.text or str(rule.when) if is_sure else "; ".join(self.faults[source] for source in faulty)
        unsure = sum(self._is_unsure(term.source, now) for term in terms)
        is_due = unsure < len(terms) if rule.when.is_any else not unsure
        return f"{rule.name}: {said}", rule.action is RuleAction.LATCH and is_due

    def _is_unsure(self, source: str, now: float) -> bool:
        """Return whether it is too early to stop the machine for what is wrong with a source."""
        if source not in self.faults:
            return False
        return self._judges[source].is_awaited(now) or now < self._faulty_at[source] + LATCH_S

    def _plan(self, now: float) -> None:
        dues = [judge.due(now) for judge in self._judges.values()]
        dues += [sure for at in self._faulty_at.values() if (sure := at + LATCH_S) > now]
        self.due = min(dues, default=math.inf)


def _put(where: dict[str, str], name: str, text: str) -> None:
    if text:
        where[name] = text
    else:
        where.pop(name, None)
