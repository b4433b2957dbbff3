"""Rules on a lane without pins: what outputs do when rules begin and end to hold, and which commands are refused."""

from __future__ import annotations

from typing import Any

import pytest

from taskengine import NotAllowed, TaskTimeout
from taskengine_hardware.restraints import RULE
from tests.hardware.lane import Lane, call

BASE = {"type": "Robot", "left": [5, 6], "right": [12, 13]}
DEVICES: dict[str, Any] = {
    "base": BASE,
    "fan": {"type": "PWMLED", "pin": 19, "lease": 0.5},
    "lamp": {"type": "LED", "pin": 20},
    "arm": {"type": "AngularServo", "pin": 18, "safe": 30},
    "nose": {"type": "DistanceSensor", "echo": 24, "trigger": 23, "range": [0.02, 1]},
    "bumper": {"type": "Button", "pin": 4, "blocks": {"base": "forward"}},
    "estop": {"type": "Button", "pin": 22, "stops": True},
}
RULES: dict[str, Any] = {
    "near": {"when": "nose < 0.5", "then": {"limit": 0.3}},
    "touch": {"when": "nose < 0.1", "then": "stop", "text": "something is in the way"},
    "hot": {"when": "nose > 0.9", "then": {"ramp": 0.2}, "devices": ["base", "fan"]},
}
ME = "me"


class Rig(Lane):
    """A lane whose inputs have said that all is well."""

    def __init__(self, **table: Any) -> None:
        super().__init__(DEVICES, **{"rules": RULES, **table})
        self.now = 0.1
        self.say(nose=0.7, bumper=True, estop=True)
        self.writes.clear()

    def say(self, **values: Any) -> None:
        """Have inputs say something now."""
        for name, value in values.items():
            self.sense(name, value, self.now)

    def drive(self, left: float, right: float, **where: Any) -> None:
        """Command the base now."""
        self.set("base", (left, right), self.now, call(ME, self.now, is_local=True, **where))

    def passes(self, seconds: float, **values: Any) -> None:
        """Let time pass in which the inputs go on saying that, ten times a second, and `tick` is called when due."""
        end = self.now + seconds
        while self.now < end - 1e-9:
            start, self.now = self.now, min(end, self.now + 0.1)
            self.run(start, self.now)
            self.say(**values)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_before_its_inputs_have_said_anything_nothing_moves_and_the_machine_is_not_stopped() -> None:
    lane = Lane(DEVICES, rules=RULES)
    assert lane.writes == []
    with pytest.raises(NotAllowed, match="estop has not been measured yet"):
        lane.set("base", (1.0, 1.0), 0.1, call(ME, 0.1))
    assert lane.panel.latest().number == 0
    lane.run(0.1, 0.5)
    assert lane.panel.latest()[2:] == (RULE, "estop: estop has not been measured in time", True)


def test_a_limit_lowers_what_goes_on_and_what_comes_and_its_end_raises_nothing(rig: Rig) -> None:
    rig.drive(1.0, -0.5)
    rig.say(nose=0.3)
    assert rig.value("base") == (0.3, -0.15)
    rig.drive(0.1, 0.6)
    assert rig.value("base") == pytest.approx((0.05, 0.3))
    rig.drive(0.2, 0.2)
    assert rig.value("base") == (0.2, 0.2)
    rig.drive(1.0, 1.0)
    rig.say(nose=0.7)
    assert rig.value("base") == (0.3, 0.3)
    rig.drive(1.0, 1.0)
    assert rig.value("base") == (1.0, 1.0)


def test_a_direction_is_refused(rig: Rig) -> None:
    rig.drive(0.5, -0.5)
    rig.say(bumper=False)
    assert rig.value("base") == (0.0, -0.5)
    with pytest.raises(NotAllowed, match="bumper: bumper blocks forward"):
        rig.drive(0.5, 0.5)
    assert rig.value("base") == (0.0, -0.5)
    rig.drive(-0.5, -0.5)
    assert rig.value("base") == (-0.5, -0.5)
    rig.say(bumper=True)
    rig.drive(0.5, 0.5)


def test_a_stop_refuses_commands_and_ends_with_its_condition(rig: Rig) -> None:
    rig.drive(0.5, 0.5)
    rig.say(nose=0.05)
    assert rig.value("base") == (0.0, 0.0)
    with pytest.raises(NotAllowed, match="base is held by touch: something is in the way"):
        rig.drive(-0.5, -0.5)
    rig.drive(0.0, 0.0)  # what makes it safe is always taken
    assert not rig.panel.is_stopped
    rig.set("lamp", True, rig.now, call(ME, rig.now))
    rig.say(nose=0.7)
    rig.passes(0.2, nose=0.7, bumper=True, estop=True)
    assert rig.value("base") == (0.0, 0.0)
    rig.drive(-0.5, -0.5)
    assert rig.value("base") == (-0.5, -0.5)


def test_the_commands_of_one_package_are_checked_too(rig: Rig) -> None:
    origin = call(ME, rig.now)
    rig.set("base", (0.5, 0.5), rig.now, origin)
    assert rig.output("base").granted is origin
    rig.say(nose=0.05)
    with pytest.raises(NotAllowed):
        rig.set("base", (0.5, 0.5), rig.now, origin)
    rig.say(nose=0.3)
    rig.set("base", (0.5, 0.5), rig.now, origin)
    assert rig.output("base").granted is None
    assert rig.value("base") == (0.3, 0.3)


def test_a_reading_that_grows_too_old_holds_between_the_commands_of_one_package(rig: Rig) -> None:
    """No thread has to run for that."""
    origin = call(ME, rig.now)
    rig.set("base", (0.5, 0.5), rig.now, origin)
    rig.now += 0.25
    rig.say(bumper=True, estop=True)
    rig.now += 0.06
    with pytest.raises(NotAllowed, match=r"nose was measured longer than 0.3 s ago"):
        rig.set("base", (0.5, 0.5), rig.now, origin)
    assert rig.value("base") == (0.0, 0.0)


@pytest.mark.parametrize("reading", [{"value": None, "reason": "no echo"}, {"value": 0.01}])
def test_a_sensor_that_fails_stops_what_its_rules_hold(rig: Rig, reading: dict[str, Any]) -> None:
    rig.drive(0.5, 0.5)
    rig.sense("nose", now=rig.now, **reading)
    assert rig.value("base") == (0.0, 0.0)


def test_a_ramp_sinks_to_rest_and_refuses_commands(rig: Rig) -> None:
    rig.drive(1.0, 0.5)
    rig.set("fan", 0.8, rig.now, call(ME, rig.now))
    rig.say(nose=0.95)
    assert rig.value("base") == (1.0, 0.5)
    start = rig.now
    rig.run(start, start + 0.1)
    left, right = rig.value("base")  # type: ignore[misc]
    assert left == pytest.approx(0.5, abs=0.11)
    assert right == pytest.approx(left / 2)
    rig.now += 0.1
    with pytest.raises(NotAllowed, match=r"hot: nose > 0\.9"):
        rig.drive(1.0, 1.0)
    rig.run(rig.now, start + 0.23)
    assert rig.value("base") == (0.0, 0.0)
    assert rig.value("fan") == 0.0
    speeds = [max(value) for name, value in rig.writes if name == "base" and isinstance(value, tuple)]
    assert speeds == sorted(speeds, reverse=True)
    assert len(speeds) > 8


def test_a_stop_in_a_ramp_is_at_once(rig: Rig) -> None:
    rig.drive(1.0, 0.5)
    rig.say(nose=0.95)
    rig.run(rig.now, rig.now + 0.05)
    rig.now += 0.05
    rig.sense("nose", None, rig.now, "no echo")
    assert rig.value("base") == (0.0, 0.0)


def test_the_end_of_a_lease_ends_a_ramp(rig: Rig) -> None:
    rig.drive(1.0, 1.0)
    rig.passes(0.4, nose=0.7, bumper=True, estop=True)
    rig.say(nose=0.95)
    rig.run(rig.now, rig.now + 0.11)
    assert rig.value("base") == (0.0, 0.0)


def test_a_soft_start_goes_on_below_a_limit_and_does_not_jump_when_it_ends() -> None:
    devices = {"base": BASE | {"soft_start": 1.0}, "nose": DEVICES["nose"]}
    lane = Lane(devices, rules={"near": RULES["near"]})
    lane.sense("nose", 0.3, 0.0)
    lane.set("base", (1.0, 1.0), 0.0, call(ME, 0.0))
    for step in range(1, 5):
        lane.run((step - 1) / 10, step / 10)
        lane.sense("nose", 0.3, step / 10)
    assert lane.value("base") == pytest.approx((0.3, 0.3), abs=0.03)
    lane.sense("nose", 0.7, 0.41)
    lane.run(0.41, 0.45)
    assert lane.value("base") == pytest.approx((0.3, 0.3), abs=0.03)


def test_a_stop_input_stops_the_machine_until_it_is_closed_and_armed(rig: Rig) -> None:
    rig.drive(0.5, 0.5)
    rig.set("lamp", True, rig.now, call(ME, rig.now))
    rig.say(estop=False)
    assert rig.value("base") == (0.0, 0.0)
    assert rig.value("lamp") is False
    assert rig.panel.unconfirmed() == []
    assert rig.panel.latest()[2:] == (RULE, "estop: the stop input is open", True)
    me = call(ME, rig.now + 0.1)
    with pytest.raises(NotAllowed, match="cannot be armed: estop: the stop input is open"):
        rig.control.arm(me, rig.now + 0.1, 1)
    assert rig.panel.is_stopped
    rig.now += 0.2
    rig.say(estop=True, nose=0.7, bumper=True)
    assert rig.panel.is_stopped
    rig.control.arm(call(ME, rig.now), rig.now, 1)
    assert rig.value("base") == (0.0, 0.0)
    rig.drive(0.5, 0.5)


def test_a_bouncing_stop_input_stops_a_stopped_machine_again(rig: Rig) -> None:
    """So that an arm which names the first stop, and has not heard of the second one, is refused."""
    for value in (False, False, True, False):
        rig.say(estop=value)
    assert rig.panel.number == 2
    rig.say(estop=True)
    with pytest.raises(NotAllowed, match="the latest is 2"):
        rig.control.arm(call(ME, rig.now + 0.1), rig.now + 0.1, 1)


def test_a_machine_that_was_armed_elsewhere_is_stopped_again_while_a_rule_says_so(rig: Rig) -> None:
    rig.say(estop=False)
    assert rig.panel.arm(1, b"x", int(rig.now * 1e9))
    rig.passes(0.2, estop=False)
    assert rig.panel.is_stopped
    assert rig.panel.number == 2


def test_what_a_rule_has_stopped_is_told_with_all_reasons(rig: Rig) -> None:
    rig.say(estop=False, bumper=False, nose=0.05)
    report = rig.panel.report()
    assert report["rules"] == {
        "estop": "estop: the stop input is open",
        "bumper": "bumper: bumper blocks forward",
        "near": "near: nose < 0.5",
        "touch": "touch: something is in the way",
    }
    assert report["reasons"] == ["estop: the stop input is open"]
    rig.sense("nose", None, rig.now, "no echo")
    assert rig.panel.report()["reasons"] == ["estop: the stop input is open", "nose has no value: no echo"]


def test_a_client_that_goes_on_commanding_keeps_the_machine_from_being_armed(rig: Rig) -> None:
    rig.control.stop(rig.now)
    for _ in range(3):
        rig.passes(0.1, nose=0.7, bumper=True, estop=True)
        with pytest.raises(NotAllowed, match="the machine was stopped"):
            rig.drive(0.5, 0.5)
    with pytest.raises(NotAllowed, match="cannot be armed: client me is commanding base"):
        rig.control.arm(call("you", rig.now), rig.now, 1)
    assert rig.panel.report()["reasons"] == ["client me is commanding base"]
    rig.passes(0.7, nose=0.7, bumper=True, estop=True)
    assert rig.panel.report()["reasons"] == []
    rig.control.arm(call("you", rig.now), rig.now, 1)


def test_one_refused_command_and_those_that_make_safe_speak_against_nothing(rig: Rig) -> None:
    rig.control.stop(rig.now)
    with pytest.raises(NotAllowed):
        rig.drive(0.5, 0.5)
    for _ in range(5):
        rig.drive(0.0, 0.0)
    rig.control.arm(call(ME, rig.now + 0.1), rig.now + 0.1, 1)


def test_a_lost_link_stops_the_machine_where_a_rule_says_so() -> None:
    rig = Rig(rules={"gone": {"when": "link lost", "then": "latch", "text": "the driver is gone"}})
    rig.drive(0.0, 0.0)
    rig.passes(0.7, bumper=True, estop=True)
    assert not rig.panel.is_stopped
    rig.drive(0.5, 0.5)
    rig.passes(0.6, bumper=True, estop=True)
    assert rig.value("base") == (0.0, 0.0)
    assert rig.panel.latest()[2:] == (RULE, "gone: the driver is gone: base", True)
    rig.control.arm(call(ME, rig.now), rig.now, 1)
    assert not rig.panel.is_stopped


@pytest.mark.parametrize("stop", ["cut", {"ramp": 0.05}, {"ramp": 0.25}])
def test_a_lost_link_is_noticed_however_the_device_stops(stop: Any) -> None:
    lane = Lane({"base": BASE | {"stop": stop}}, rules={"gone": {"when": "link lost", "then": "latch"}})
    lane.set("base", (0.5, 0.5), 0.1, call(ME, 0.1))
    lane.run(0.1, 0.5)
    lane.set("base", (0.5, 0.5), 0.5, call(ME, 0.5))
    lane.run(0.5, 0.95)
    lane.set("base", (0.4, 0.4), 0.95, call(ME, 0.95))  # late for a ramp, and yet in time
    lane.run(0.95, 1.05)
    assert not lane.panel.is_stopped
    lane.run(1.05, 1.6)
    assert lane.value("base") == (0.0, 0.0)
    assert lane.panel.latest()[2:] == (RULE, "gone: link lost: base", True)


RAMPS = {"base": BASE | {"stop": {"ramp": 0.2}, "lease": 0.5}, "bumper": DEVICES["bumper"]}


def test_a_renewal_does_not_move_again_what_a_rule_has_stopped_on_its_ramp() -> None:
    lane = Lane(RAMPS)
    lane.sense("bumper", True, 0.0)
    lane.set("base", (1.0, 1.0), 0.0, call(ME, 0.0))
    for moment in (0.1, 0.2, 0.3):
        lane.run(moment - 0.1, moment)
        lane.sense("bumper", True, moment)
    lane.run(0.3, 0.35)
    late: Any = lane.value("base")
    assert (0.0, 0.0) < late < (1.0, 1.0)  # the next command is late
    lane.sense("bumper", False, 0.35)
    assert lane.value("base") == (0.0, 0.0)
    lane.sense("bumper", True, 0.38)
    lane.writes.clear()
    lane.control.renew([lane.control.find("base")], call(ME, 0.4), 0.4)
    lane.run(0.4, 0.49)
    assert lane.writes == []


def test_the_end_of_a_limit_ends_no_way_to_rest() -> None:
    wheel = {"type": "Motor", "forward": 4, "backward": 14, "limits": {"speed": 1.0}, "lease": 3600}
    rules = {"slow": {"when": "near < 0.5", "then": {"limit": 0.7}, "devices": ["wheel"]}}
    devices = {"wheel": wheel, "near": DEVICES["nose"] | {"max_age": 60}}
    lane = Lane(devices, rules=rules)
    lane.sense("near", 0.9, 0.0)
    lane.set("wheel", 1.0, 0.0, call(ME, 0.0))
    lane.run(0.0, 1.5)
    assert lane.value("wheel") == 1.0
    lane.set("wheel", 0.0, 1.5, call(ME, 1.5))
    lane.run(1.5, 1.6)
    lane.sense("near", 0.4, 1.6)
    assert lane.value("wheel") == 0.7
    lane.run(1.6, 1.63)
    lane.sense("near", 0.9, 1.63)
    lane.writes.clear()
    lane.run(1.63, 2.6)
    values: list[Any] = [value for _, value in lane.writes]
    assert values == sorted(values, reverse=True)
    assert lane.value("wheel") == 0.0


def test_nothing_moves_and_nobody_arms_while_the_stop_inputs_of_another_lane_are_not_read() -> None:
    lane = Lane({"base": BASE | {"lease": 60}, "estop": DEVICES["estop"] | {"lane": "inputs"}})
    with pytest.raises(NotAllowed, match="nobody reads the stop inputs of lane inputs"):
        lane.set("base", (1.0, 1.0), 0.1, call(ME, 0.1))
    lane.panel.begin("inputs", 17)
    lane.set("base", (1.0, 1.0), 0.2, call(ME, 0.2))
    lane.control.stop(0.3)
    lane.panel.confirm("inputs", 1)
    assert lane.panel.note_exit("inputs", 17, int(0.4e9), "died")
    lane.control.tick(0.4)
    lane.panel.confirm("inputs", 2)
    with pytest.raises(NotAllowed, match="nobody reads the stop inputs of lane inputs"):
        lane.control.arm(call(ME, 0.5), 0.5, 2)
    lane.panel.begin("inputs", 18)
    lane.control.arm(call(ME, 0.6), 0.6, lane.panel.number)
    lane.set("base", (1.0, 1.0), 0.7, call(ME, 0.7))


def test_a_fault_of_the_lane_lasts_until_an_arm() -> None:
    rule = {"when": "lane fault", "then": {"limit": 0.2}, "text": "the owner has died"}
    lane = Lane({"base": BASE | {"on_fault": "resume"}}, rules={"careful": rule})
    lane.set("base", (1.0, 1.0), 0.1, call(ME, 0.1))
    assert lane.value("base") == (1.0, 1.0)
    lane.panel.begin("hardware", 17)
    assert lane.panel.note_exit("hardware", 17, int(0.2e9), "died")
    lane.control.tick(0.3)
    assert lane.value("base") == (0.2, 0.2)
    assert lane.panel.report()["rules"] == {"careful": "careful: the owner has died"}
    lane.control.arm(call(ME, 0.4), 0.4, 0)
    assert lane.panel.report()["rules"] == {}


def test_a_command_that_is_too_old_is_still_too_old(rig: Rig) -> None:
    with pytest.raises(TaskTimeout):
        rig.drive(0.5, 0.5, sent=rig.now - 2)


def test_an_output_that_fails_to_stop_is_stopped_again_and_does_not_keep_others_from_it(rig: Rig) -> None:
    rig.drive(0.5, 0.5)
    rig.set("fan", 0.8, rig.now, call(ME, rig.now))
    base = rig.output("base")
    write, tries = base.write, []

    def fails(value: Any) -> None:
        tries.append(value)
        if len(tries) < 3:
            raise OSError("no such line")
        write(value)

    base.write = fails
    with pytest.raises(OSError, match="no such line"):
        rig.say(estop=False)
    assert rig.value("fan") == 0.0
    assert rig.control.due <= rig.now
    with pytest.raises(OSError, match="no such line"):
        rig.control.tick(rig.now)
    rig.control.tick(rig.now)
    assert rig.value("base") == (0.0, 0.0)
    assert rig.panel.is_stopped
    assert rig.panel.unconfirmed() == []
    assert rig.control.due > rig.now
