"""Random schedules of readings, faults, times and commands: `python -m tests.hardware.rule_schedules [COUNT]`.

The real `Control` keeps the rules. A judge beside it has its own account of what each input has said, says by plain
arithmetic which rules hold, and looks at each value that is written to a pin: none is against a rule that holds, and
none grows without a command. It also finds rules that hold too much: a command that no rule forbids is carried out.
"""

from __future__ import annotations

import multiprocessing
import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from taskengine import NotAllowed, Origin, TaskEngineError
from taskengine_hardware import SharedState, read
from taskengine_hardware.control import Control, checked, start_value
from taskengine_hardware.device_config import LANE, Value
from taskengine_hardware.motion import FRAME_S
from taskengine_hardware.outputs import NS
from taskengine_hardware.plausibility import Measurement
from taskengine_hardware.restraints import rules_of
from taskengine_hardware.rules import LATCH_S

STEPS = 32
PART = 10_000
"""Schedules that a process plays before it takes others."""
SLACK = 1e-9
AGE_S = 0.3
STUCK_S = 0.8
RATE = 20.0
RAMP_S = 0.2
LEASE_S = 0.5
SOFT_S = 0.4
DEVICES: dict[str, dict[str, Any]] = {
    "base": {"type": "Robot", "left": [5, 6], "right": [12, 13], "lease": LEASE_S},
    "wheel": {"type": "Motor", "forward": 20, "backward": 21, "lease": LEASE_S, "soft_start": SOFT_S},
    "fan": {"type": "PWMLED", "pin": 19},
    "lamp": {"type": "LED", "pin": 17, "safe": True},
    "nose": {
        "type": "DistanceSensor",
        "echo": 24,
        "trigger": 23,
        "range": [0.05, 1],
        "max_age": AGE_S,
        "max_rate": RATE,
        "stuck_after": STUCK_S,
    },
    "load": {"type": "MCP3008", "max_age": AGE_S},
    "bumper": {"type": "Button", "pin": 4, "blocks": {"base": "forward", "wheel": "forward"}, "max_age": AGE_S},
    "estop": {"type": "Button", "pin": 22, "stops": True, "max_age": AGE_S},
}
RULES: dict[str, dict[str, Any]] = {
    "near": {"when": "nose < 0.5", "then": {"limit": 0.3}, "devices": ["base", "wheel", "fan"]},
    "touch": {"when": "nose < 0.2", "then": "stop"},
    "heavy": {"when": "load > 0.8", "then": {"ramp": RAMP_S}, "devices": ["base", "fan"]},
    "both": {"when": "load > 0.5 and not bumper", "then": "stop", "devices": ["lamp", "wheel"]},
    "either": {"when": "load < 0.1 or nose > 0.9", "then": {"refuse": "backward"}, "devices": ["base", "wheel"]},
}
ALL = ("base", "wheel", "fan", "lamp")
Values = Mapping[str, float | None]
Holds = Callable[[Values], bool]


def _term(name: str, test: Callable[[float], bool]) -> Holds:
    def holds(values: Values) -> bool:
        value = values[name]
        return value is None or test(value)

    return holds


NEAR, TOUCH = _term("nose", lambda nose: nose < 0.5), _term("nose", lambda nose: nose < 0.2)
HEAVY, LOADED = _term("load", lambda load: load > 0.8), _term("load", lambda load: load > 0.5)
LIGHT, FAR = _term("load", lambda load: load < 0.1), _term("nose", lambda nose: nose > 0.9)
PRESSED, STOPPED = _term("bumper", lambda on: not on), _term("estop", lambda on: not on)
LIMITS: tuple[tuple[Holds, tuple[str, ...], float], ...] = ((NEAR, ("base", "wheel", "fan"), 0.3),)
REFUSED: tuple[tuple[Holds, tuple[str, ...], float], ...] = (
    (PRESSED, ("base", "wheel"), 1.0),
    (lambda values: LIGHT(values) or FAR(values), ("base", "wheel"), -1.0),
)
STOPS: tuple[tuple[Holds, tuple[str, ...]], ...] = (
    (TOUCH, ("base", "wheel")),
    (lambda values: LOADED(values) and PRESSED(values), ("lamp", "wheel")),
    (STOPPED, ALL),
)
RAMPED = ("base", "fan")
SAFE: dict[str, Value] = {"base": (0.0, 0.0), "wheel": 0.0, "fan": 0.0, "lamp": True}
COMMANDS: dict[str, tuple[Value, ...]] = {
    "base": ((1.0, 1.0), (0.5, -0.5), (-0.4, -0.8), (0.1, 0.2), (0.0, 0.0)),
    "wheel": (1.0, 0.2, -0.7, 0.0),
    "fan": (1.0, 0.2, 0.0),
    "lamp": (True, False),
}
READINGS: dict[str, tuple[Any, ...]] = {
    "nose": (0.7, 0.7, 0.71, 0.4, 0.1, 0.95, 0.01, None),
    "load": (0.3, 0.3, 0.6, 0.9, 0.05, None),
    "bumper": (True, True, True, False, None),
    "estop": (*[True] * 15, False, None),
}
PAUSES_S = (0.0, 0.001, 0.001, 0.02, 0.02, 0.05, 0.05, 0.1, 0.1, 0.29, 0.31, 1.1)
DEEDS = (
    *("say", "say", "say", "well", "well", "go_on", "go_on", "wait"),
    *("set", "set", "set", "set", "again", "again", "arm", "stop"),
)


class RuleBroken(Exception):
    """A value was written against a rule that holds, or a command was refused that no rule forbids."""


def numbers(value: Value) -> tuple[float, ...]:
    """The numbers of a value."""
    return tuple(map(float, value)) if isinstance(value, tuple) else (float(value or 0.0),)


def amount(value: Value) -> float:
    """The largest of them, without its sign."""
    return max(map(abs, numbers(value)))


class Input:
    """What an input has said, in the judge's account."""

    def __init__(self) -> None:
        self.said: list[tuple[float, float | None]] = []

    def trusted(self, name: str, now: float) -> float | None:
        """Return its value if it can be trusted."""
        if not self.said or now >= self.said[-1][0] + AGE_S:
            return None
        at, value = self.said[-1]
        if name != "nose" or value is None:
            return value
        valued = [(when, one) for when, one in self.said if one is not None]
        same_since = at
        for when, one in reversed(valued):
            if one != value:
                break
            same_since = when
        if not 0.05 <= value <= 1 or now >= same_since + STUCK_S:
            return None
        if len(valued) > 1 and abs(value - valued[-2][1]) > RATE * (at - valued[-2][0]):
            return None
        return value


class RuleWorld:
    """A lane with these rules, and its judge; `rng` draws what happens."""

    def __init__(self, rng: random.Random, panel: SharedState | None = None) -> None:
        self.rng = rng
        self.layout = LAYOUT
        self.panel = panel or SharedState(LAYOUT)
        self.now = 1.0 + max(self.panel.stopped_at, self.panel.armed_at) // NS
        self.inputs = {name: Input() for name in READINGS}
        self.written: dict[str, Value] = {}
        self.ramps: dict[str, tuple[float, float]] = {}
        """When a ramp of an output began, and at which amount."""
        self.commanded = ""
        self.origin: Origin | None = None
        self.words = 0
        """How often an input has said something."""
        self._known_of = -1.0, -1
        self._known: Values = {}
        self.faulty_since: float | None = None
        """Since when the stop input has a fault."""
        self.log: list[str] = []
        self.seen: Counter[str] = Counter()
        self.control = Control(
            LANE, LAYOUT.of(LANE), self.panel, lambda output, now: True, rules=rules_of(LAYOUT, LANE, self.now)
        )
        for name, output in self.control.outputs.items():
            self.written[name] = start_value(output.device)
            output.write = self.writer(name)
        places = {output.place: self.written[name] for name, output in self.control.outputs.items()}
        self.control.begin(places, self.now)

    def writer(self, name: str) -> Callable[[Value], None]:
        """Judges each value that an output is told."""

        def write(value: Value) -> None:
            self.judge(name, value)
            self.written[name] = value

        return write

    def values(self) -> Values:
        """What the inputs say now, as far as it can be trusted."""
        key = self.now, self.words
        if key != self._known_of:
            self._known = {name: one.trusted(name, self.now) for name, one in self.inputs.items()}
            self._known_of = key
        return self._known

    def judge(self, name: str, value: Value) -> None:
        """Look at a value against the rules that hold now."""
        values, was = self.values(), self.written[name]
        has_grown = value != SAFE[name] and amount(value) > amount(was) + SLACK
        if has_grown and name == "wheel":
            # its soft start goes on after its command, by a frame and as much as a frame may be late
            most = 3 * FRAME_S / SOFT_S
            if amount(value) > amount(was) + most + SLACK:
                raise RuleBroken(f"{name} leaps from {was} to {value}")
        elif has_grown and name != self.commanded:
            raise RuleBroken(f"{name} grows from {was} to {value} without a command")
        self.look(name, value, values)

    def look(self, name: str, value: Value, values: Values) -> None:
        """Find a rule that holds and forbids a value."""
        if value == SAFE[name]:
            return
        for holds, outputs, limit in LIMITS:
            if name in outputs and amount(value) > limit + SLACK and holds(values):
                raise RuleBroken(f"{name} is at {value}, above its limit {limit}")
        for holds, outputs, sign in REFUSED:
            if name in outputs and any(one * sign > 0 for one in numbers(value)) and holds(values):
                raise RuleBroken(f"{name} is at {value}, in a refused direction")
        for holds, outputs in STOPS:
            if name in outputs and holds(values):
                raise RuleBroken(f"{name} is at {value}, and should be stopped")
        if name in self.ramps and HEAVY(values):
            began, first = self.ramps[name]
            passed = max(0.0, self.now - began - FRAME_S - SLACK)
            if amount(value) > first * max(0.0, 1 - passed / RAMP_S) + SLACK:
                raise RuleBroken(f"{name} is at {value}, above its ramp from {first}")

    def look_at_all(self) -> None:
        """Look at what every output is at."""
        values = self.values()
        for name in RAMPED:
            if not HEAVY(values):
                self.ramps.pop(name, None)
            elif name not in self.ramps:
                self.ramps[name] = self.now, amount(self.written[name])
        for name, value in self.written.items():
            self.look(name, value, values)
        if self.is_latched() and not self.panel.is_stopped:
            raise RuleBroken("a stop input is open, and the machine is not stopped")

    def is_latched(self) -> bool:
        """Return whether the stop input is open, or has had a fault for long enough."""
        value = self.values()["estop"]
        if value is not None:
            self.faulty_since = None
            return not value
        if self.faulty_since is None:
            self.faulty_since = self.now
        return self.now >= self.faulty_since + LATCH_S

    def forbids(self, name: str, value: Value) -> bool:
        """Return whether a rule refuses a command."""
        values = self.values()
        return (
            any(name in outputs and holds(values) for holds, outputs in STOPS)
            or (name in RAMPED and HEAVY(values))
            or any(
                name in outputs and any(one * sign > 0 for one in numbers(value)) and holds(values)
                for holds, outputs, sign in REFUSED
            )
        )

    # What happens ----------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Something happens."""
        deed = self.rng.choice(DEEDS)
        self.seen[deed] += 1
        getattr(self, deed)()
        self.look_at_all()

    def wait(self) -> None:
        """Time passes, in which no input says anything."""
        self.pass_time(self.rng.choice(PAUSES_S))

    def go_on(self) -> None:
        """Time passes, in which the inputs go on saying the same."""
        for _ in range(self.rng.choice((1, 2, 4))):
            for name, one in self.inputs.items():
                if one.said:
                    self.tell(name, one.said[-1][1], self.now)
            self.pass_time(0.1)

    def pass_time(self, seconds: float) -> None:
        """Time passes, in which the control looks when something is due."""
        end = self.now + seconds
        self.log.append(f"wait until {end:.4f}")
        for _ in range(10_000):
            if self.control.due > end:
                break
            self.now = max(self.now, self.control.due)
            before = self.control.due
            self.control.tick(self.now)
            self.look_at_all()
            assert self.control.due > before, self.control.due
        self.now = end

    def say(self) -> None:
        """An input says something, or has failed; sometimes it says what it has measured a while ago."""
        name = self.rng.choice(list(READINGS))
        at = self.now - self.rng.choice((0.0, 0.0, 0.0, 0.05))
        self.tell(name, self.rng.choice(READINGS[name]), at)

    def well(self) -> None:
        """All inputs say that all is well."""
        for name, value in {"nose": self.rng.choice((0.7, 0.72)), "load": 0.3, "bumper": True, "estop": True}.items():
            self.tell(name, value, self.now)

    def tell(self, name: str, value: Any, at: float) -> None:
        """An input says this."""
        self.log.append(f"{name} says {value} of {at:.4f}")
        said = self.inputs[name].said
        self.words += 1
        if not said or at >= said[-1][0]:
            said.append((at, None if value is None else float(value)))
        self.look_for_ramps()
        self.control.sense(name, Measurement(at, value, "" if value is not None else "no answer"), self.now)

    def look_for_ramps(self) -> None:
        """Note where ramps begin, before the control acts."""
        if HEAVY(self.values()):
            for name in RAMPED:
                self.ramps.setdefault(name, (self.now, amount(self.written[name])))

    def set(self) -> None:
        """A client commands an output, by a call of its own."""
        self.origin = Origin("me", b"me", b"me", int(self.now * NS) + 1, int(self.now * NS) + 1, 0, 0, True)
        self.again()

    def again(self) -> None:
        """A client commands an output, by the same package as before if there was one."""
        if self.origin is None:
            return
        name = self.commanded = self.rng.choice(list(COMMANDS))
        value = self.rng.choice(COMMANDS[name])
        self.log.append(f"set {name} to {value} at {self.now:.4f}")
        output = self.control.find(name)
        self.look_for_ramps()
        forbids = self.forbids(name, value)
        is_free = not forbids and not self.panel.is_stopped
        try:
            self.control.command(output, checked(output, value), self.origin, self.now)
        except NotAllowed as error:
            self.seen["refused"] += 1
            if is_free and "held by" in str(error):
                raise RuleBroken(f"{name} is not allowed {value}, which no rule forbids: {error}") from None
        except TaskEngineError:
            self.seen["too old"] += 1
        else:
            self.seen["carried out"] += value != SAFE[name]
            self.carried_out(name, value, is_free=is_free)
        self.commanded = ""

    def carried_out(self, name: str, value: Value, *, is_free: bool) -> None:
        """Look at a command that was carried out."""
        if value != SAFE[name] and not is_free:
            raise RuleBroken(f"{name} was set to {value}, which a rule refuses")
        limited = name in LIMITS[0][1] and NEAR(self.values())
        if name != "wheel" and is_free and not limited and self.written[name] != value:
            raise RuleBroken(f"{name} is at {self.written[name]}, and not at {value}, which no rule forbids")

    def arm(self) -> None:
        """A client arms the machine."""
        origin = Origin("me", b"me", b"me", int(self.now * NS) + 1, int(self.now * NS) + 1, 0, 0, True)
        values = self.values()
        try:
            self.control.arm(origin, self.now, self.panel.number)
        except NotAllowed:
            self.seen["not armed"] += 1
        else:
            self.seen["armed"] += 1
            if any(value is None for value in values.values()) or STOPPED(values):
                raise RuleBroken(f"the machine was armed, and its inputs say {values}")

    def stop(self) -> None:
        """Somebody stops the machine, seldom."""
        if self.rng.random() < 0.2:
            self.control.stop(self.now)


LAYOUT = read({"devices": DEVICES, "rules": RULES})


def run(rng: random.Random, panel: SharedState | None = None) -> Counter[str]:
    """Play one schedule; return what happened. Raises RuleBroken with the schedule."""
    world = RuleWorld(rng, panel)
    try:
        world.well()
        world.arm()
        for _ in range(STEPS):
            world.step()
    except RuleBroken as error:
        raise RuleBroken(f"{error}, at {world.now:.4f}; {'; '.join(world.log)}") from error
    return world.seen


def play(count: int, seed: int) -> tuple[list[str], Counter[str]]:
    """Play so many schedules; return those that broke a rule, and how often things happened."""
    broken: list[str] = []
    seen: Counter[str] = Counter()
    panel = SharedState(LAYOUT)
    rng = random.Random(seed)
    for _ in range(count):
        try:
            seen += run(rng, panel)
        except RuleBroken as error:
            broken.append(str(error))
            if len(broken) > 3:
                break
    panel.close()
    return broken, seen


def main(count: int, seed: int = 17) -> int:
    """Play so many schedules on all processors; return the exit code."""
    broken: list[str] = []
    seen: Counter[str] = Counter()
    parts = [(min(PART, count - first), seed + first) for first in range(0, count, PART)]
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        for found, counted in pool.map(play, *zip(*parts, strict=True)):
            broken += found
            seen += counted
    print(f"{count} schedules of rules, {STEPS} steps each: {len(broken)} broken; {dict(seen.most_common())}")
    print("".join(f"{line}\n" for line in broken), end="")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
