"""Rules and what inputs may say, as the settings have them; what contradicts itself is named by its key."""

from __future__ import annotations

import math
from typing import Any

import pytest

from taskengine import SettingsError
from taskengine_hardware import HardwareConfig, SharedState, read
from taskengine_hardware.conditions import parse
from taskengine_hardware.device_config import LANE
from taskengine_hardware.plausibility import Plausibility
from taskengine_hardware.rules import Rule, RuleAction

DEVICES: dict[str, dict[str, Any]] = {
    "base": {"type": "Robot", "left": [5, 6], "right": [12, 13]},
    "wheel": {"type": "Motor", "forward": 16, "backward": 20, "pwm": False},
    "fan": {"type": "PWMLED", "pin": 19, "safe": 0.5},
    "lamp": {"type": "LED", "pin": 21},
    "pan": {"type": "Servo", "pin": 26, "lane": "legs"},
    "nose": {"type": "DistanceSensor", "echo": 24, "trigger": 23},
    "volts": {"type": "MCP3008"},
    "cpu": {"type": "CPUTemperature"},
    "bumper": {"type": "Button", "pin": 4},
    "estop": {"type": "Button", "pin": 22},
    "far": {"type": "Button", "pin": 27, "lane": "legs"},
}


def config(rules: dict[str, Any], **changes: dict[str, Any]) -> HardwareConfig:
    devices = {name: {**entry, **changes.get(name, {})} for name, entry in DEVICES.items()}
    layout: HardwareConfig = read({"devices": devices, "rules": rules})
    return layout


def refused(rules: dict[str, Any], **changes: dict[str, Any]) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        config(rules, **changes)
    return caught.value


def test_rules_of_contacts_and_of_their_own() -> None:
    layout = config(
        {
            "near": {"when": "nose < 0.5", "then": {"limit": 0.3}, "devices": "base", "text": "something is near"},
            "gone": {"when": "link lost", "then": "latch"},
            "weak": {"when": "undervoltage", "then": {"refuse": "forward"}},
        },
        estop={"stops": True},
        bumper={"blocks": {"base": "forward", "wheel": "backward"}, "normally": "open"},
    )
    bumper: dict[str, Any] = {"when": parse("bumper"), "action": RuleAction.REFUSE, "of": "bumper"}
    assert {rule.name: rule for rule in layout.rules} == {
        rule.name: rule
        for rule in (
            Rule("bumper-forward", outputs=("base",), direction="forward", text="bumper blocks forward", **bumper),
            Rule("bumper-backward", outputs=("wheel",), direction="backward", text="bumper blocks backward", **bumper),
            Rule("estop", parse("not estop"), RuleAction.LATCH, text="the stop input is open", of="estop"),
            Rule("near", parse("nose < 0.5"), RuleAction.LIMIT, ("base",), limit=0.3, text="something is near"),
            Rule("gone", parse("link lost"), RuleAction.LATCH, ("base", "wheel")),
            Rule("weak", parse("undervoltage"), RuleAction.REFUSE, ("base", "wheel"), direction="forward"),
        )
    }


def test_each_lane_keeps_its_own_rules() -> None:
    layout = config(
        {
            "weak": {"when": "undervoltage", "then": "stop", "devices": ["base", "pan"]},
            "hot": {"when": "cpu > 80", "then": "latch"},
        },
        far={"stops": True},
        bumper={"required": True},
    )
    assert [(rule.name, rule.outputs) for rule in layout.rules_of(LANE)] == [("weak", ("base",)), ("hot", ())]
    assert [(rule.name, rule.outputs) for rule in layout.rules_of("legs")] == [("far", ()), ("weak", ("pan",))]
    assert layout.judged(LANE).keys() == {"cpu", "bumper"}
    assert layout.judged("legs").keys() == {"far"}


def test_a_lane_whose_input_stops_the_machine_stops_it_when_its_owner_dies() -> None:
    """Nobody reads the stop input then."""
    panel = SharedState(read({"devices": {"estop": {"type": "Button", "pin": 22, "stops": True}}}))
    panel.begin(LANE, 17)
    assert panel.note_exit(LANE, 17, 5, "died")
    assert panel.is_stopped


def test_what_inputs_may_say() -> None:
    given = {"range": [0.02, 1], "max_age": 0.2, "max_rate": 5, "stuck_after": 10}
    layout = config({}, nose=given, estop={"stops": True}, volts={"rate": 1})
    assert layout.devices["nose"].plausibility == Plausibility(0.02, 1.0, 0.2, 5.0, 10.0)
    assert layout.devices["estop"].plausibility == Plausibility(max_age=0.3)
    assert layout.devices["volts"].plausibility == Plausibility(max_age=3.0)
    assert layout.devices["base"].plausibility is None
    assert layout.devices["base"].max_age is None
    assert (layout.devices["estop"].rate, layout.devices["bumper"].rate) == (100.0, 10.0)
    assert layout.devices["volts"].plausibility.most == math.inf


NEAR = {"when": "nose < 0.5", "then": "stop"}


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (3, "", "expected a table"),
        ({"then": "stop"}, "", 'a rule needs a condition, such as when = "distance < 0.2"'),
        ({"when": "nose near", "then": "stop"}, "when", "'nose near' is no term"),
        ({"when": "nose < 0.5 and bumper or estop", "then": "stop"}, "when", "write two rules"),
        ({"when": "nase < 0.5", "then": "stop"}, "when", "'nase' is no input; the nearest is nose"),
        ({"when": "base < 0.5", "then": "stop"}, "when", "'base' is no input"),
        ({"when": "nose", "then": "stop"}, "when", "nose is a DistanceSensor: expected `nose < …`, not `nose`"),
        ({"when": "not nose", "then": "stop"}, "when", "expected `nose < …`"),
        ({"when": "bumper < 1", "then": "stop"}, "when", "bumper is a Button: expected `bumper` or `not bumper`"),
        ({"when": "bumper < 0", "then": "stop"}, "when", "bumper is a Button: expected `bumper` or `not bumper`"),
        ({"when": "link lost or bumper", "then": "latch"}, "when", "stands alone"),
        (NEAR | {"than": "stop"}, "than", "a rule has no such key; the nearest is then"),
        (NEAR | {"then": "halt"}, "then", "expected one of"),
        (NEAR | {"then": {"limit": 0.1, "ramp": 1}}, "then", "expected one of"),
        (NEAR | {"then": {"speed": 0.1}}, "then.speed", "expected one of"),
        (NEAR | {"then": {"limit": 0}}, "then.limit", "expected a number"),
        (NEAR | {"then": {"ramp": 0.4}, "devices": ["wheel"]}, "then.ramp", "it has no amount to lower"),
        (NEAR | {"then": {"limit": 0.4}, "devices": ["lamp"]}, "then.limit", "it has no amount to lower"),
        (NEAR | {"then": {"refuse": "forward"}, "devices": ["lamp"]}, "then.refuse", "runs in no direction"),
        (NEAR | {"then": {"refuse": "up"}, "devices": ["base"]}, "then.refuse", "expected one of forward, backward"),
        (NEAR | {"devices": []}, "devices", "expected a list of devices"),
        (NEAR | {"devices": ["bass"]}, "devices", "'bass' is no output; the nearest is base"),
        (NEAR | {"devices": ["nose"]}, "devices", "'nose' is no output"),
        (NEAR | {"then": "latch", "devices": ["base"]}, "devices", "stops the whole machine"),
        (NEAR | {"text": 3}, "text", "expected up to 200 letters"),
        ({"when": "link lost", "then": "stop"}, "then", 'takes then = "latch" only'),
        ({"when": "link lost", "then": "latch", "devices": ["lamp"]}, "devices", "lamp has no lease"),
    ],
)
def test_what_is_wrong_with_a_rule_names_its_key(rule: Any, path: str, text: str) -> None:
    error = refused({"near": rule})
    assert ".".join(error.path) == ".".join(["hardware.rules.near", *([path] if path else [])])
    assert text in str(error)


@pytest.mark.parametrize(
    ("rules", "path", "text"),
    [
        ({"x": {"when": "nose < 0", "then": "stop"}}, "x.when", "`nose < 0` can never hold: nose says 0 to 1"),
        ({"x": {"when": "nose <= 1", "then": "stop"}}, "x.when", "`nose <= 1` always holds: nose says 0 to 1"),
        ({"x": {"when": "volts < 0.2 and volts > 0.4", "then": "stop"}}, "x.when", "can never hold: volts says 0 to 1"),
        ({"x": {"when": "nose < 0.4 or nose > 0.3", "then": "stop"}}, "x.when", "always holds"),
        ({"x": {"when": "bumper and not bumper", "then": "stop"}}, "x.when", "can never hold"),
        (
            {"low": {"when": "volts < 0.5", "then": "stop"}, "high": {"when": "volts >= 0.5", "then": {"ramp": 0.1}}},
            "high",
            "low and high together never let base move: one of them holds whatever volts says",
        ),
        (
            {
                "a": {"when": "bumper", "then": {"refuse": "forward"}},
                "b": {"when": "bumper", "then": {"refuse": "backward"}},
                "c": {"when": "not bumper", "then": "stop"},
            },
            "c.when",
            "a and b and c together never let base move",
        ),
        ({"x": NEAR | {"devices": ["pan"]}}, "x.when", "nose is in lane hardware, pan in lane legs: the rule x has to"),
        ({"x": {"when": "nose < 0.5 and far", "then": "stop"}}, "x.when", "give both the same lane"),
        ({"x": NEAR | {"then": {"limit": 1}, "devices": ["base"]}}, "x.then.limit", "base never exceeds 1"),
        ({"x": NEAR | {"then": {"limit": 0.4}, "devices": ["fan"]}}, "x.then.limit", "safe state of fan is 0.5, which"),
        ({"x": NEAR | {"then": {"ramp": 0.6}, "devices": ["base"]}}, "x.then.ramp", "lease of base ends after 0.5 s"),
        ({"bumper": NEAR}, "bumper", "bumper is the name of a device already"),
        ({"1": NEAR}, "1", "a rule's name is a letter"),
    ],
)
def test_rules_that_contradict_each_other_or_their_devices_are_named(
    rules: dict[str, Any], path: str, text: str
) -> None:
    if "base" in text and "high" in rules:
        rules = {name: {**rule, "devices": ["base"]} for name, rule in rules.items()}
    error = refused(rules)
    assert ".".join(error.path).startswith(f"hardware.rules.{path}")
    assert text in str(error)


@pytest.mark.parametrize(
    ("device", "entry", "key", "text"),
    [
        ("nose", {"range": 3}, "range", "expected [least, most]"),
        ("nose", {"range": [1, 1]}, "range", "expected [least, most]"),
        ("nose", {"max_age": 0.05}, "max_age", "it is read every 0.1 s, and would be too old each time"),
        ("nose", {"stuck_after": 0.1}, "stuck_after", "would be stuck each time"),
        ("nose", {"max_rate": 0}, "max_rate", "expected a number"),
        ("nose", {"required": 1}, "required", "expected true or false"),
        ("nose", {"stops": True}, "stops", "a DistanceSensor is no switch: write a rule"),
        ("nose", {"normally": "open"}, "normally", "only an input that stops or blocks"),
        ("bumper", {"range": [0, 1]}, "range", "has no range"),
        ("bumper", {"stuck_after": 9}, "stuck_after", "has no stuck_after"),
        ("bumper", {"stops": 1}, "stops", "expected true or false"),
        ("bumper", {"stops": True, "blocks": {"base": "forward"}}, "blocks", "there is nothing left for it to block"),
        ("bumper", {"stops": True, "bounce_time": 0.05}, "bounce_time", "acts within 20 ms: at most 0.01"),
        ("bumper", {"stops": True, "normally": "shut"}, "normally", 'expected "closed" or "open"'),
        ("bumper", {"blocks": {"bass": "forward"}}, "blocks.bass", "'bass' is no output; the nearest is base"),
        ("bumper", {"blocks": {"base": "left"}}, "blocks.base", "expected one of forward, backward"),
        ("bumper", {"blocks": {"lamp": "forward"}}, "blocks.lamp", "runs in no direction"),
        ("bumper", {"blocks": "base"}, "blocks", 'expected such as { base = "forward" }'),
        ("far", {"blocks": {"base": "forward"}}, "blocks", "far is in lane legs, base in lane hardware"),
        ("base", {"stops": True}, "stops", "a Robot is commanded, and has no stops"),
        ("base", {"range": [0, 1]}, "range", "is commanded"),
    ],
)
def test_what_is_wrong_with_an_input_names_its_key(device: str, entry: dict[str, Any], key: str, text: str) -> None:
    error = refused({}, **{device: entry})
    assert ".".join(error.path) == f"hardware.devices.{device}.{key}"
    assert text in str(error)


def test_tables_that_are_none() -> None:
    with pytest.raises(SettingsError, match=r"expected tables \[hardware.rules.NAME\]"):
        read({"devices": DEVICES, "rules": [NEAR]})
    many = {f"r{number}": NEAR for number in range(65)}
    assert "at most 64 rules" in str(refused(many))
    long = {"when": " or ".join(f"{name} > 0.{digit}" for name in ("nose", "volts", "cpu") for digit in range(1, 10))}
    assert "its condition is too long" in str(refused({"x": long | {"then": "stop"}}))
