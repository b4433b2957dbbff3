"""examples/rover on mock pins: a real engine, its client as a program of its own, and a world that gets in its way."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taskengine import Client, NotAllowed
from taskengine.config.loading import load
from taskengine_hardware import read
from tests.engine import Engine, deadline, wait_until
from tests.system.test_docs import ROOT, blocks

ROVER = ROOT / "examples" / "rover"
CONTACTS = ("estop", "front", "rear", "deadman")
PAGE = "docs/safety.md"
STANDS = (0.0, 0.0)

system = pytest.mark.system


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(cwd=ROVER, pins="mock", tasks="mock_world.py") as engine:
        yield engine


@pytest.fixture
def client(engine: Engine) -> Iterator[Client]:
    """Return a client of a rover that is armed, with everything in order and nothing in its way."""
    with Client(engine.address, timeout=deadline(5.0)) as client:
        client.call("mock.close", *CONTACTS)
        client.call("mock.wall", 0.9)
        wait_until(lambda: client.call("system.check")["reasons"] == [], 10.0, "a machine that can be armed")
        if not client.call("system.state")["armed"]:
            client.arm()
        wait_until(lambda: client.call("system.state")["rules"] == {}, 5.0, "the end of every rule")
        yield client


@pytest.fixture
def driver(engine: Engine, client: Client) -> Iterator[subprocess.Popen[str]]:
    """Return patrol.py, which has begun to drive."""
    program = [sys.executable, str(ROVER / "patrol.py"), engine.address]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as driver:
        wait_until(lambda: base(client)["value"] == (0.8, 0.8), 20.0, "the first metres")
        yield driver
        driver.kill()
    stands(client, "the end of the lease")


def base(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = client.call("devices.state", "base")["base"]
    return found


def stands(client: Client, why: str) -> None:
    wait_until(lambda: base(client)["value"] == STANDS, 5.0, why)


def heard(driver: subprocess.Popen[str], text: str) -> None:
    """Read what the driver says, up to a line with this text."""
    assert driver.stdout is not None
    for line in driver.stdout:
        if text in line:
            return
    raise AssertionError(f"the driver never said {text!r}")


@system
def test_nothing_moves_before_the_contacts_are_closed_and_somebody_arms_it(engine: Engine) -> None:
    with Client(engine.address, timeout=deadline(5.0)) as client:
        wait_until(lambda: not client.call("system.state")["armed"], 5.0, "the stop by the open contact")
        assert "estop: the stop input is open" in client.call("system.check")["reasons"]
        with pytest.raises(NotAllowed, match="the stop input is open"):
            client.arm()
        client.call("mock.close", *CONTACTS)
        wait_until(
            lambda: client.call("system.check")["reasons"] == ["distance has no value: no echo"], 5.0, "the closed stop"
        )
        with pytest.raises(NotAllowed, match="distance has no value"):
            client.arm()
        with pytest.raises(NotAllowed, match="the machine was stopped"):
            client.call("robot.drive", "base", 0.5, 0.5)


@system
def test_it_drives_under_its_lease_and_ctrl_c_ends_it(client: Client, driver: subprocess.Popen[str]) -> None:
    state = client.call("devices.state", "base", "awake")
    assert state["base"]["lease"] > 0
    assert (state["awake"]["value"], state["awake"]["effect"]) == (True, "beat")
    with pytest.raises(NotAllowed, match="another client holds"):
        client.call("robot.drive", "base", 0.1, 0.1)
    driver.send_signal(signal.SIGINT)
    printed, complaints = driver.communicate(timeout=deadline(10.0))
    assert (driver.returncode, complaints) == (0, "")
    assert printed.endswith("let go: the rover stands within half a second\n")
    stands(client, "the end of the lease")
    wait_until(lambda: client.call("devices.state", "awake")["awake"]["value"] is False, 5.0, "the end of the beat")


@system
@pytest.mark.parametrize(("bumper", "away"), [("front", -0.5), ("rear", 0.5)])
def test_a_bumper_blocks_its_direction_only(client: Client, bumper: str, away: float) -> None:
    with client.lease("base") as lease:
        client.call("robot.drive", "base", -away, -away)
        client.call("mock.open", bumper)
        wait_until(lambda: base(client)["value"] == STANDS, 5.0, "the stop")
        with pytest.raises(NotAllowed, match=f"{bumper} blocks"):
            client.call("robot.drive", "base", -away, -away)
        with pytest.raises(NotAllowed, match=f"{bumper} blocks"):
            client.call("robot.drive", "base", -away, away)  # a turn on the spot takes one wheel that way
        client.call("robot.drive", "base", away, away)
        assert base(client)["value"] == (away, away)
        lease.renew()
    stands(client, "the end of the lease")
    client.call("mock.close", bumper)


@system
def test_the_driver_backs_off_from_what_it_bumps_into(client: Client, driver: subprocess.Popen[str]) -> None:
    client.call("mock.open", "front")
    heard(driver, "held: base is held by front: front blocks forward")
    heard(driver, "going (-0.4, -0.4)")
    client.call("mock.close", "front")
    heard(driver, "going (0.8, 0.8)")


@system
def test_a_wall_slows_it_down_and_then_refuses_the_way_ahead(client: Client, driver: subprocess.Popen[str]) -> None:
    client.call("mock.wall", 0.4)
    heard(driver, "going (0.3, 0.3), near: something is near")
    client.call("mock.wall", 0.03)
    heard(driver, "held: base is held by close: something is in front")
    heard(driver, "going (-0.3, -0.3)")


@system
def test_a_sensor_without_an_echo_counts_as_a_wall(client: Client, driver: subprocess.Popen[str]) -> None:
    client.call("mock.wall")
    heard(driver, "close: distance has no value: no echo")
    assert "no echo" in str(client.call("devices.state", "distance")["distance"])
    client.call("mock.wall", 0.9)
    heard(driver, "going (0.8, 0.8)")


@system
def test_letting_go_of_the_switch_stops_it_and_pressing_it_moves_nothing(client: Client) -> None:
    client.call("robot.drive", "base", 0.5, 0.5)
    client.call("mock.open", "deadman")
    stands(client, "the end of the ramp")
    for speeds in (0.5, 0.5), (-0.5, -0.5):
        with pytest.raises(NotAllowed, match="deadman is released"):
            client.call("robot.drive", "base", *speeds)
    client.call("mock.close", "deadman")
    wait_until(lambda: "rules" not in base(client), 5.0, "the pressed switch")
    assert base(client)["value"] == STANDS
    client.call("robot.drive", "base", 0.5, 0.5)
    assert base(client)["value"] == (0.5, 0.5)


@system
def test_the_stop_button_stops_it_until_it_is_armed(client: Client, driver: subprocess.Popen[str]) -> None:
    client.call("mock.open", "estop")
    _, complaints = driver.communicate(timeout=deadline(10.0))
    assert driver.returncode == 1
    assert "estop: the stop input is open" in complaints
    assert base(client)["value"] == STANDS
    assert client.call("devices.state", "awake")["awake"]["value"] is False
    with pytest.raises(NotAllowed, match="the stop input is open"):
        client.arm()
    client.call("mock.close", "estop")
    wait_until(lambda: client.call("system.check")["reasons"] == [], 5.0, "the closed contact")
    with pytest.raises(NotAllowed, match="the machine was stopped"):
        client.call("robot.drive", "base", 0.5, 0.5)
    client.arm()
    client.call("robot.drive", "base", 0.5, 0.5)


def test_the_page_has_the_rovers_settings() -> None:
    (told,) = [block for block in blocks(PAGE, "toml") if "[hardware.devices.estop]" in block]
    assert told == (ROVER / "taskengine.toml").read_text()


def test_the_tables_of_wires_are_the_settings() -> None:
    layout = read(load(ROVER / "taskengine.toml", {}, {}).hardware)
    rows = re.findall(r"^\| `(\w+)` \| ([\d, ]+) \|", (ROVER / "README.md").read_text(), re.MULTILINE)
    told = {name: [int(pin) for pin in pins.split(", ")] for name, pins in rows}
    wired = {
        name: [pin for pins in device.pins.values() for pin in (pins if isinstance(pins, list | tuple) else [pins])]
        for name, device in layout.devices.items()
    }
    assert told == wired
    picture = Path(ROOT / "docs/images/rover-contacts.svg").read_text()
    picture += Path(ROOT / "docs/images/rover-power.svg").read_text()
    drawn = {int(pin) for pin in re.findall(r"GPIO(\d+)", picture)}
    assert drawn == {pin for pins in wired.values() for pin in pins}
