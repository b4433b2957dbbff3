"""Items 14 to 19: no blips, no value taken for another, and no false words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from taskengine import BadArguments, Client, NotAllowed, TaskEngineError, TaskFailed
from tests.engine import deadline, wait_until
from tests.hardware.safety.site import BRAKE, LAMP, TABLE, WHEEL, Site
from tests.hardware.safety.stops import check
from tests.hardware.safety.table import plays

MENDED = '[hardware.devices.{}]\ntype = "{}"\n{}\n'
WRONG = {
    "pull_up": ("Button", "pin = 2\npull_up = false"),
    "channel": ("MCP3008", "channel = 8"),
    "active_state": ("Button", "pin = 4\npull_up = true\nactive_state = true"),
    "octaves": ("TonalBuzzer", "pin = 4\noctaves = 0"),
    "queue_len": ("LineSensor", "pin = 4\nqueue_len = 0"),
    "frame_width": ("Servo", "pin = 4\nframe_width = 2.5"),
    "port": ("MCP3008", "channel = 0\nport = 7"),
}
NOBODY_STOPS = """
[policy.visitor]
tasks = ["task_count"]
"""


@plays(14)
def a_brake_is_on_from_the_first_moment_and_over_a_hand_over(site: Site) -> None:
    """Whose level no pulse leads to the wrong side: `tests/gpio/test_blips.py` reads it from the chip."""
    with site.client() as client:
        client.reload()
        client.call("devices.state")
    edges = site.edges(BRAKE)
    assert edges
    assert all(edge.value == 1.0 for edge in edges)


@plays(15)
def values_are_not_converted(site: Site) -> None:
    start = time.monotonic()
    with site.client() as client:
        for name, args in (
            ("gpio.write", ("lamp", [False])),
            ("gpio.write", ("lamp", [0])),
            ("gpio.write", ("lamp", 1)),
            ("gpio.write", ("lamp", "on")),
            ("devices.write", ({"lamp": [0]},)),
            ("devices.write", ({"wheel": True},)),
            ("motor.forward", ("wheel", True)),
            ("robot.drive", ("robot", True, False)),
            ("pwm.set", ("heater", True)),
            ("motor.forward", ("wheel", float("nan"))),
        ):
            with pytest.raises(BadArguments):
                client.call(name, *args)
    assert not site.turned_on(LAMP, start)
    assert not site.turned_on(WHEEL, start)


@plays(16)
def all_is_checked_before_anything_is_written(site: Site) -> None:
    with site.client() as client:
        client.call("motor.forward", "wheel")
        called = time.monotonic()
        while site.level(WHEEL):
            with pytest.raises(BadArguments):
                client.call("devices.write", {"lamp": True, "wheel": 2.0})
            assert time.monotonic() < called + deadline(5), "the lease of the wheel goes on"
    assert not site.turned_on(LAMP, called)


@plays(16)
def a_motor_that_is_only_on_or_off_has_no_limits(site: Site) -> None:
    pins = "forward = 20\nbackward = 21\npwm = false\nlimits = { value = [-1, 1], speed = 1 }"
    code, said = check(site.folder, MENDED.format("wheel", "Motor", pins))
    assert code == 2
    assert "hardware.devices.wheel" in said


@plays(17)
def a_sensor_that_hears_no_echo_has_no_value(site: Site) -> None:
    with site.client() as client:
        with pytest.raises(TaskFailed):
            client.call("sensor.read", "sonar")
        state = client.call("devices.state", "sonar")["sonar"]
        published = client.latest("hardware.sonar")
    for one in (state, published):
        assert one["value"] is None
        assert one["reason"]


@plays(17)
def an_encoder_counts_without_end_and_over_its_owners_death(site: Site) -> None:
    with site.client() as client:
        before = client.call("sensor.read", "knob")
        client.call("lane.turn", 26, 27, 40)
        wait_until(lambda: abs(client.call("sensor.read", "knob") - before) >= 40, 5, "forty steps")
        count = client.call("sensor.read", "knob")
        os.kill(site.owner, signal.SIGKILL)
        wait_until(lambda: _reads(client) is not None, 20, "another owner")
        assert _reads(client) == count


def _reads(client: Client) -> object:
    try:
        return client.call("sensor.read", "knob")
    except TaskEngineError:
        return None


@plays(18)
def after_an_owners_death_everybody_is_told_what_the_pins_are_at(site: Site) -> None:
    with site.client() as client:
        client.call("gpio.write", "lamp", True)
        client.call("motor.forward", "drill")
        wait_until(lambda: _latest(client, "hardware.lamp").get("value") is True, 5, "the lamp's publication")
        os.kill(site.owner, signal.SIGKILL)
        wait_until(lambda: _latest(client, "hardware.lamp").get("value") is False, 5, "the guardian's publication")
        wait_until(lambda: _latest(client, "hardware.drill").get("value") == 0, 5, "the guardian's publication")
        assert _latest(client, "hardware.lamp")["source"] == "guardian"
        wait_until(lambda: _latest(client, "hardware.system").get("armed") is False, 5, "the system's publication")
        system = _latest(client, "hardware.system")
        assert system["by"] == "guardian"
        assert "died" in system["why"]
        assert system["lanes"]["hardware"]["faults"] >= 1


def _latest(client: Client, topic: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = client.latest(topic)
    except TaskEngineError:
        return {}
    return found


@plays(18)
def nobody_else_publishes_on_the_engines_own_topics(site: Site) -> None:
    with site.client() as client:
        before = client.latest("hardware.system")
        for topic in ("hardware.lamp", "hardware.system", "hardware.x"):
            with pytest.raises(NotAllowed):
                client.publish(topic, {"value": True})
            with pytest.raises((NotAllowed, BadArguments)):
                client.call("tell", topic, {"value": True})
        assert client.latest("hardware.system") == before


@plays(18)
def a_stop_is_told_with_who_and_why(site: Site) -> None:
    with site.client() as client, site.client() as watching, watching.subscribe("hardware.system") as feed:
        client.stop(why="a test")
        told = next(sample.value for sample in feed if not sample.value["armed"])
        assert told["why"] == "a test"
        assert told["since"] > 0
        client.arm()
        assert next(sample.value for sample in feed if sample.value["armed"])["stop"] == told["stop"]


@plays(19)
def what_would_end_the_engine_does_not_pass_the_check(site: Site) -> None:
    for option, (kind, text) in WRONG.items():
        code, said = check(site.folder, MENDED.format("thing", kind, text))
        assert code == 2, (option, said)
        assert "hardware.devices.thing" in said


@plays(19)
def a_policy_that_lets_nobody_stop_is_warned_of(site: Site) -> None:
    code, said = check(site.folder, TABLE + NOBODY_STOPS)
    assert code == 0
    assert "system.stop" in said


@plays(19)
def a_changed_table_takes_a_restart_and_says_so(site: Site) -> None:
    file = site.folder / "taskengine.toml"
    file.write_text(TABLE.replace(f"pin = {LAMP}", "pin = 7"))
    try:
        command = [sys.executable, "-m", "taskengine", "reload", "--address", site.address]
        done = subprocess.run(command, cwd=site.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "restart" in done.stderr
    finally:
        file.write_text(TABLE)
