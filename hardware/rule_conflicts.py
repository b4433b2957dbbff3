"""Finds rules that contradict each other, what their inputs can say, or their devices. Errors name the rules. Pure.

A condition changes at the numbers that it compares with, and at nothing else. So it is enough to try these numbers, the
values beside them, and the ends of what an input can say.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from taskengine import SettingsError

from .conditions import LINK, Condition
from .options import wrong
from .plausibility import Plausibility
from .rules import DIRECTIONS, Rule, RuleAction

if TYPE_CHECKING:
    from .device_config import Device

MAX_TRIALS = 20_000
"""How many combinations of values are tried for one rule."""


def check_conflicts(rules: Sequence[Rule], devices: Mapping[str, Device]) -> None:
    """Refuse a rule that never holds, or always does, and rules that never let an output move. Raises SettingsError."""
    for rule in rules:
        _check_condition(rule, devices)
    for device in devices.values():
        if device.kind.is_output:
            _check_device(device, [rule for rule in rules if _is_about(rule, device)], devices)


def _is_about(rule: Rule, device: Device) -> bool:
    return device.name in rule.outputs or (rule.action is RuleAction.LATCH and not rule.outputs)


def _check_condition(rule: Rule, devices: Mapping[str, Device]) -> None:
    if LINK in rule.when.sources:
        return
    sources = rule.when.sources
    trials = [_trials(source, [rule.when], devices) for source in sources]
    if math.prod(map(len, trials)) > MAX_TRIALS:
        raise _error(rule, "its condition is too long: write several rules")
    found = {bool(rule.when.holding(dict(zip(sources, one, strict=True)))) for one in itertools.product(*trials)}
    if found == {False}:
        raise _error(rule, f"`{rule.when}` can never hold: {_spans(sources, devices)}")
    if found == {True}:
        raise _error(rule, f"`{rule.when}` always holds: {_spans(sources, devices)}")


def _check_device(device: Device, rules: Sequence[Rule], devices: Mapping[str, Device]) -> None:
    """Refuse rules over one input that stop an output, or refuse both of its directions, whatever that input says."""
    by_source: dict[str, list[Rule]] = {}
    for rule in rules:
        if len(rule.when.sources) == 1 and LINK not in rule.when.sources:
            by_source.setdefault(rule.when.sources[0], []).append(rule)
    for source, group in by_source.items():
        trials = _trials(source, [rule.when for rule in group], devices)
        if all(_is_held(group, source, value) for value in trials):
            names = " and ".join(rule.name for rule in group)
            text = f"{names} together never let {device.name} move: one of them holds whatever {source} says"
            raise _error(group[-1], text)


def _is_held(rules: Iterable[Rule], source: str, value: float) -> bool:
    """Return whether rules let an output do nothing while their source has this value."""
    holding = [rule for rule in rules if rule.when.holding({source: value})]
    directions = {rule.direction for rule in holding if rule.action is RuleAction.REFUSE}
    rests = (RuleAction.STOP, RuleAction.RAMP, RuleAction.LATCH)
    return directions >= DIRECTIONS.keys() or any(rule.action in rests for rule in holding)


def _trials(source: str, conditions: Iterable[Condition], devices: Mapping[str, Device]) -> list[float]:
    least, most = values_of(source, devices)
    numbers = [term.number for when in conditions for term in when.terms if term.source == source]
    found = {least, most}
    for one in numbers:
        found |= {one, math.nextafter(one, -math.inf), math.nextafter(one, math.inf)}
    return sorted(one for one in found if least <= one <= most)


def values_of(source: str, devices: Mapping[str, Device]) -> tuple[float, float]:
    """Return the least and the most that an input or a cause can say, and still be trusted."""
    device = devices.get(source)
    if device is None:
        return 0.0, 1.0
    bounds = device.plausibility or Plausibility()
    least, most = _natural(device)
    return max(least, bounds.least), min(most, bounds.most)


def _natural(device: Device) -> tuple[float, float]:
    """Return the ends of what a type of input can say."""
    kind, options = device.kind, device.options
    if kind.reads == "distance":
        return 0.0, float(options.get("max_distance", kind.options["max_distance"].default))
    if kind.unit == "of max_voltage":
        is_signed = options.get("differential") or device.type == "MCP3301"
        return (-1.0 if is_signed else 0.0), 1.0
    if kind.unit == "%":
        return 0.0, 100.0
    if kind.reads == "load_average":
        return 0.0, math.inf
    return (0.0, 1.0) if kind.reads == "value" else (-math.inf, math.inf)


def _spans(sources: Iterable[str], devices: Mapping[str, Device]) -> str:
    pairs = [(source, *values_of(source, devices)) for source in sources]
    return ", ".join(f"{source} says {least:g} to {most:g}" for source, least, most in pairs)


def _error(rule: Rule, text: str) -> SettingsError:
    """Return the error at the key of a rule."""
    return wrong(["devices", rule.of] if rule.of else ["rules", rule.name, "when"], text)
