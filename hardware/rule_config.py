"""Reads what inputs may say, and the rules about them, from the `[hardware]` table; errors name the key. Pure.

[hardware.devices.estop]
type = "Button"
pin = 5
stops = true                                    # or blocks = { base = "forward" }
normally = "closed"                             # the contact: opened, or cut off, it stops

[hardware.devices.distance]
type = "DistanceSensor"
echo = 24
trigger = 23
range = [0.02, 1]                               # in its unit: what it may say
max_age = 0.2                                   # seconds
max_rate = 5                                    # of its unit per second
stuck_after = 10                                # seconds of the same value

[hardware.rules.near]
when = "distance < 0.2"
then = { limit = 0.3 }                          # or { refuse = "forward" }, { ramp = 0.3 }, "stop", "latch"
devices = ["base"]
text = "something is near"
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .conditions import CAUSES, LINK, Condition, parse
from .device_types import DeviceType, Role
from .options import nearest, number, switch, wrong
from .plausibility import Plausibility
from .rule_conflicts import check_conflicts
from .rules import DIRECTIONS, Rule, RuleAction

if TYPE_CHECKING:
    from .device_config import Device

AGE_S, AGE_PERIODS = 0.3, 3
"""How old the reading of an input in rules may be by default: the longer one of so many s and so many periods."""
AGES_S = (0.01, 3600.0)
STUCKS_S = (0.05, 86400.0)
RAMPS_S = (0.02, 60.0)
STOP_RATE_HZ = 100.0
"""How often an input that stops or blocks is read by default, in Hz, beside its edges: one may be lost."""
MAX_BOUNCE_S = 0.01
"""How long, in s, such an input may ignore changes, so that it acts within 20 ms."""
MAX_RULES = 64
CLOSED, OPEN = "closed", "open"
OF_INPUTS = ("range", "max_rate", "stuck_after", "required", "stops", "normally", "blocks")
STATES: Mapping[str, str] = {CLOSED: "not {}", OPEN: "{}"}
"""The condition by which a contact acts that is normally so."""
_KEYS = ("when", "then", "devices", "text")
_SPEEDS = (Role.LEVEL, Role.COLOUR, Role.MOTOR, Role.DRIVE)
"""Roles whose values have an amount."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_TEXT = 200


def is_contact(kind: DeviceType) -> bool:
    """Return whether an input is a switch: on or off, told by the edges of its line."""
    return "bounce_time" in kind.options and not kind.counts


def plausibility_of(entry: Mapping[str, Any], kind: DeviceType, rate: float, path: list[str]) -> Plausibility | None:
    """Read what an input may say; None for an output. Raises SettingsError."""
    if kind.is_output:
        for key in OF_INPUTS:
            if key in entry:
                raise wrong([*path, key], f"a {kind.name} is commanded, and has no {key}")
        return None
    for key in ("range", "max_rate", "stuck_after"):
        if key in entry and is_contact(kind):
            raise wrong([*path, key], f"a {kind.name} is on or off, for as long as it likes, and has no {key}")
    least, most = _range(entry["range"], [*path, "range"]) if "range" in entry else (-math.inf, math.inf)
    age = max(AGE_S, AGE_PERIODS / rate)
    if "max_age" in entry:
        age = number(entry["max_age"], [*path, "max_age"], *AGES_S)
        if age <= 1 / rate:
            raise wrong([*path, "max_age"], f"it is read every {1 / rate:g} s, and would be too old each time")
    rise = number(entry["max_rate"], [*path, "max_rate"], 1e-9, 1e9) if "max_rate" in entry else math.inf
    stuck = number(entry["stuck_after"], [*path, "stuck_after"], *STUCKS_S) if "stuck_after" in entry else math.inf
    if stuck <= 1 / rate:
        raise wrong([*path, "stuck_after"], f"it is read every {1 / rate:g} s, and would be stuck each time")
    return Plausibility(least, most, age, rise, stuck)


def contact_rate(entry: Mapping[str, Any], rate: float) -> float:
    """Return the default rate of an input: that of a contact which stops or blocks is higher."""
    return max(rate, STOP_RATE_HZ) if "stops" in entry or "blocks" in entry else rate


def _range(value: object, path: list[str]) -> tuple[float, float]:
    if not (isinstance(value, list) and len(value) == 2):
        raise wrong(path, f"expected [least, most], not {value!r}")
    least, most = (number(end, path, -1e12, 1e12) for end in value)
    if least >= most:
        raise wrong(path, f"expected [least, most], not {value!r}")
    return least, most


def rules_of(
    tables: Mapping[str, Any], entries: Mapping[str, Mapping[str, Any]], devices: Mapping[str, Device]
) -> tuple[Rule, ...]:
    """Read all rules: those of contacts, which `entries` has, and those of the table. Raises SettingsError."""
    rules = [rule for name, entry in entries.items() for rule in _contact_rules(name, entry, devices)]
    rules += _enabling_rules(entries, devices)
    if not isinstance(tables, Mapping):
        raise wrong(["rules"], f"expected tables [hardware.rules.NAME], not {tables!r}")
    for name, table in tables.items():
        rules.append(_rule(name, table, devices))
    if len(rules) > MAX_RULES:
        raise wrong(["rules"], f"expected at most {MAX_RULES} rules, not {len(rules)}")
    check_conflicts(rules, devices)
    return tuple(rules)


# Contacts ------------------------------------------------------------------------------------------------------------


def _contact_rules(name: str, entry: Mapping[str, Any], devices: Mapping[str, Device]) -> Iterator[Rule]:
    path, device = ["devices", name], devices[name]
    stops = switch(entry.get("stops", False), [*path, "stops"])
    switch(entry.get("required", False), [*path, "required"])
    blocks = entry.get("blocks", {})
    for key in ("stops", "blocks"):
        if entry.get(key) and not is_contact(device.kind):
            raise wrong([*path, key], f"a {device.type} is no switch: write a rule, [hardware.rules.NAME]")
    state = entry.get("normally", CLOSED)
    if state not in STATES:
        raise wrong([*path, "normally"], f'expected "{CLOSED}" or "{OPEN}", not {state!r}')
    if not (stops or blocks):
        if "normally" in entry:
            raise wrong([*path, "normally"], "only an input that stops or blocks is normally closed or open")
        return
    _check_bounce(device, "an input that stops or blocks")
    when = parse(STATES[state].format(name))
    done = "open" if state == CLOSED else "closed"
    if stops:
        if blocks:
            raise wrong([*path, "blocks"], f"{name} stops the machine, so there is nothing left for it to block")
        yield Rule(name, when, RuleAction.LATCH, text=f"the stop input is {done}", of=name)
        return
    yield from _blocks(name, blocks, when, devices)


def _check_bounce(device: Device, what: str) -> None:
    if (device.options.get("bounce_time") or 0.0) > MAX_BOUNCE_S:
        path = ["devices", device.name, "bounce_time"]
        raise wrong(path, f"{what} acts within 20 ms: at most {MAX_BOUNCE_S:g}")


def _blocks(name: str, blocks: object, when: Condition, devices: Mapping[str, Device]) -> Iterator[Rule]:
    path = ["devices", name, "blocks"]
    if not isinstance(blocks, Mapping):
        raise wrong(path, f'expected such as {{ base = "forward" }}, not {blocks!r}')
    by_direction: dict[str, list[str]] = {}
    for output, direction in blocks.items():
        _check_output(output, devices, [*path, output])
        _check_direction(direction, devices[output], [*path, output])
        by_direction.setdefault(direction, []).append(output)
    for direction, outputs in by_direction.items():
        _check_lanes(name, when, outputs, devices, path)
        rule = f"{name}-{direction}" if len(by_direction) > 1 else name
        text = f"{name} blocks {direction}"
        yield Rule(rule, when, RuleAction.REFUSE, tuple(outputs), direction=direction, text=text, of=name)


def _enabling_rules(entries: Mapping[str, Mapping[str, Any]], devices: Mapping[str, Device]) -> Iterator[Rule]:
    """Yield the rules of enabling switches: what they enable stops while they are released, as its `stop` says."""
    enabled: dict[tuple[str, float], list[Device]] = {}
    for device in devices.values():
        if device.enable:
            _check_switch(device, entries, devices)
            enabled.setdefault((device.enable, device.stop_ramp), []).append(device)
    for (name, ramp), outputs in enabled.items():
        action = RuleAction.RAMP if ramp else RuleAction.STOP
        when, names = parse(f"not {name}"), tuple(output.name for output in outputs)
        _check_lanes(name, when, names, devices, ["devices", names[0], "enable"])
        is_one = sum(switch == name for switch, _ in enabled) == 1
        rule = name if is_one else f"{name}-{names[0]}"
        yield Rule(rule, when, action, names, ramp=ramp, text=f"{name} is released", of=name)


def _check_switch(device: Device, entries: Mapping[str, Mapping[str, Any]], devices: Mapping[str, Device]) -> None:
    name, path = device.enable, ["devices", device.name, "enable"]
    switch_of = devices.get(name)
    if switch_of is None or not is_contact(switch_of.kind):
        contacts = [one.name for one in devices.values() if is_contact(one.kind)]
        raise wrong(path, f"{name!r} is no input that is on or off; {nearest(name, contacts)}")
    for key in ("stops", "blocks"):
        if entries[name].get(key):
            raise wrong(path, f"{name} {key} already: an enabling switch is an input of its own")
    _check_bounce(switch_of, "an input that enables")


# Rules ---------------------------------------------------------------------------------------------------------------


def _rule(name: str, table: object, devices: Mapping[str, Device]) -> Rule:
    path = ["rules", name]
    if not _NAME.fullmatch(name):
        raise wrong(path, f"a rule's name is a letter and up to 63 letters, digits, _ and -, not {name!r}")
    if name in devices:
        raise wrong(path, f"{name} is the name of a device already")
    if not isinstance(table, Mapping):
        raise wrong(path, f"expected a table, not {table!r}")
    for key in table:
        if key not in _KEYS:
            raise wrong([*path, key], f"a rule has no such key; {nearest(key, _KEYS)}")
    when = _condition(table.get("when"), devices, path)
    action, given = _action(table.get("then"), [*path, "then"])
    text = table.get("text", "")
    if not (isinstance(text, str) and len(text) <= _TEXT):
        raise wrong([*path, "text"], f"expected up to {_TEXT} letters, not {text!r:.100}")
    outputs = _outputs(table, when, action, devices, path)
    _check_lanes(name, when, outputs, devices, [*path, "when"])
    for output in outputs:
        _check_action(action, given, devices[output], [*path, "then"])
    return Rule(name, when, action, outputs, text=text, **given)


def _condition(text: object, devices: Mapping[str, Device], path: list[str]) -> Condition:
    path = [*path, "when"] if text is not None else path
    if not isinstance(text, str):
        raise wrong(path, f'a rule needs a condition, such as when = "distance < 0.2", not {text!r}')
    try:
        when: Condition = parse(text)
    except ValueError as error:
        raise wrong(path, str(error)) from None
    for term in when.terms:
        if term.source in CAUSES:
            continue
        device = devices.get(term.source)
        if device is None or device.kind.is_output:
            inputs = [name for name, one in devices.items() if not one.kind.is_output]
            raise wrong(path, f"{term.source!r} is no input; {nearest(term.source, [*inputs, *CAUSES])}")
        if is_contact(device.kind) is not (term.number == 0 and str(term) in (term.source, f"not {term.source}")):
            form = f"`{term.source}` or `not {term.source}`" if is_contact(device.kind) else f"`{term.source} < …`"
            raise wrong(path, f"{term.source} is a {device.type}: expected {form}, not `{term}`")
    if LINK in when.sources and len(when.terms) > 1:
        raise wrong(path, f"`{LINK}` is an event, and stands alone: write two rules")
    return when


def _action(value: object, path: list[str]) -> tuple[RuleAction, dict[str, Any]]:
    """Read what a rule does, and the fields of `Rule` for it."""
    if value in (RuleAction.STOP.value, RuleAction.LATCH.value):
        return RuleAction(value), {}
    wanted = '"stop", "latch", { limit = … }, { refuse = "forward" } or { ramp = seconds }'
    if not (isinstance(value, Mapping) and len(value) == 1):
        raise wrong(path, f"expected one of {wanted}, not {value!r}")
    ((key, given),) = value.items()
    if key == "limit":
        return RuleAction.LIMIT, {"limit": number(given, [*path, key], 1e-6, 1e9)}
    if key == "ramp":
        return RuleAction.RAMP, {"ramp": number(given, [*path, key], *RAMPS_S)}
    if key == "refuse":
        return RuleAction.REFUSE, {"direction": given}
    raise wrong([*path, key], f"expected one of {wanted}, not {key!r}")


def _outputs(
    table: Mapping[str, Any], when: Condition, action: RuleAction, devices: Mapping[str, Device], path: list[str]
) -> tuple[str, ...]:
    """Read for which outputs a rule is: by default those that drive, in the lane of its inputs."""
    if action is RuleAction.LATCH and LINK not in when.sources:
        if "devices" in table:
            raise wrong([*path, "devices"], 'then = "latch" stops the whole machine: leave out devices')
        return ()
    if LINK in when.sources and action is not RuleAction.LATCH:
        cause = "a device without a link is brought to its safe state anyway"
        raise wrong([*path, "then"], f'`{LINK}` takes then = "latch" only: {cause}')
    lanes = {devices[source].lane for source in when.sources if source in devices}
    given = table.get("devices")
    if given is None:
        drives = [one for one in devices.values() if one.kind.drives and (one.lane in lanes or not lanes)]
        if not drives:
            raise wrong(path, "no device drives anything in its lane: name its devices, devices = [...]")
        return tuple(one.name for one in drives)
    names = [given] if isinstance(given, str) else given
    if not (isinstance(names, list) and names):
        raise wrong([*path, "devices"], f"expected a list of devices, not {given!r}")
    for name in names:
        _check_output(name, devices, [*path, "devices"])
        if LINK in when.sources and devices[name].lease is None:
            raise wrong([*path, "devices"], f"{name} has no lease, so its link cannot be lost")
    return tuple(dict.fromkeys(names))


def _check_output(name: object, devices: Mapping[str, Device], path: list[str]) -> None:
    if not isinstance(name, str) or name not in devices or not devices[name].kind.is_output:
        outputs = [one.name for one in devices.values() if one.kind.is_output]
        raise wrong(path, f"{name!r} is no output; {nearest(str(name), outputs)}")


def _check_direction(direction: object, device: Device, path: list[str]) -> None:
    if not device.kind.drives:
        raise wrong(path, f"{device.name} is a {device.type}, which runs in no direction")
    if direction not in DIRECTIONS:
        raise wrong(path, f"expected one of {', '.join(DIRECTIONS)}, not {direction!r}")


def _check_action(action: RuleAction, given: Mapping[str, Any], device: Device, path: list[str]) -> None:
    """Refuse an action that an output cannot do, or that would do nothing."""
    if action is RuleAction.REFUSE:
        _check_direction(given["direction"], device, [*path, "refuse"])
    if action not in (RuleAction.LIMIT, RuleAction.RAMP):
        return
    key = action.value
    if device.kind.role not in _SPEEDS or device.options.get("pwm") is False:
        raise wrong([*path, key], f"{device.name} is on or off, or at a position: it has no amount to lower")
    if action is RuleAction.RAMP:
        if device.lease is not None and given["ramp"] > device.lease:
            raise wrong(
                [*path, key], f"the lease of {device.name} ends after {device.lease:g} s: expected no longer ramp"
            )
        return
    limits = device.limits
    most = 1.0 if limits is None else max(abs(limits.least), abs(limits.most))
    safe = device.safe if isinstance(device.safe, tuple) else (device.safe,)
    if given["limit"] >= most:
        raise wrong([*path, key], f"{device.name} never exceeds {most:g}, so this limits nothing")
    if any(isinstance(one, float) and abs(one) > given["limit"] for one in safe):
        raise wrong([*path, key], f"the safe state of {device.name} is {device.safe!r}, which is above this limit")


def _check_lanes(
    name: str, when: Condition, outputs: Iterable[str], devices: Mapping[str, Device], path: list[str]
) -> None:
    """Refuse a rule over lanes: it must hold without another process."""
    inputs = [devices[source] for source in when.sources if source in devices]
    for one in [*inputs[1:], *(devices[output] for output in outputs)]:
        if inputs and one.lane != inputs[0].lane:
            first = inputs[0]
            raise wrong(
                path,
                f"{first.name} is in lane {first.lane}, {one.name} in lane {one.lane}: the rule {name} has to hold"
                ' without another process, so give both the same lane (only then = "latch" reaches all lanes)',
            )
