"""Stops of a real machine on mock pins, by clients whose engine, queue or own code is in the way."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from taskengine import Client, NotAllowed
from tests.engine import Engine, deadline, wait_until

pytestmark = pytest.mark.alone

DEVICES = """
[hardware.devices.base]
type = "Motor"
forward = 5
backward = 6
lease = 3600
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("robot")
    (folder / "taskengine.toml").write_text(DEVICES)
    with Engine(cwd=folder, pins="mock") as running:
        yield running


@pytest.fixture
def driver(engine: Engine) -> Iterator[Client]:
    """A client that has armed the machine and drives it."""
    with Client(engine.address, timeout=deadline(20)) as client:
        client.arm()
        client.call("lease.acquire", ["base"])
        client.call("motor.forward", "base", 0.5)
        assert wheel(client) == 0.5
        yield client


def wheel(client: Client) -> Any:
    return client.call("devices.state", "base")["base"]["value"]


def stops(client: Client) -> int:
    """How often the machine has been stopped."""
    number: int = client.call("system.state")["stop"]
    return number


@pytest.mark.parametrize(
    "stop",
    [
        lambda client: client.stop(),
        lambda client: client.call("system.stop"),
        lambda client: client.call("system.stop", why="smoke"),
        lambda client: client.submit("system.stop").result(deadline(10)),
        lambda client: client.send("system.stop"),
    ],
    ids=["stop", "call", "why", "submit", "send"],
)
def test_a_stop_counts_once_by_all_its_ways(driver: Client, stop: Callable[[Client], object]) -> None:
    before = stops(driver)
    driver._queue._response_time = 1e9  # it is not sent by itself
    driver.send("motor.forward", "base", 1.0)
    stop(driver)
    wait_until(lambda: driver.call("system.state")["armed"] is False, 5, "the stop")
    assert wheel(driver) == 0.0
    assert stops(driver) == before + 1
    # nor does a repetition that comes late
    driver.arm()
    time.sleep(0.3)
    assert driver.call("system.state")["armed"] is True
    assert wheel(driver) == 0.0


@pytest.mark.parametrize(
    "stop",
    [
        lambda client: client.call("system.stop"),
        lambda client: client.submit("system.stop").result(deadline(10)),
        lambda client: client.run([("system.stop", (), {})] * 3),
        lambda client: client.run([("system.state", (), {}), ("system.stop", (), {})]),
        lambda client: client.submit_all([("system.stop", (), {"why": "smoke"})]).result(deadline(10)),
    ],
    ids=["call", "submit", "run", "with others", "all"],
)
@pytest.mark.parametrize("is_known", [False, True], ids=["at once", "after a call"])
def test_a_stop_counts_once_also_as_the_first_word_of_a_client(
    engine: Engine, driver: Client, stop: Callable[[Client], object], *, is_known: bool
) -> None:
    """An arm after it is not undone by what is still on its way by another route."""
    before = stops(driver)
    for count in range(1, 6):
        with Client(engine.address, timeout=deadline(20)) as client:
            if is_known:
                client.call("system.state")
            stop(client)
            client.arm()
        assert stops(driver) == before + count
    assert driver.call("system.state")["armed"] is True


def test_an_older_arm_does_not_undo_a_newer_stop(driver: Client) -> None:
    driver.stop("first")
    driver.info()
    first = driver.stop_in_force
    driver.stop("second")
    with pytest.raises(NotAllowed):
        driver.call("system.arm", stop=first)
    assert driver.stop_in_force == first + 1
    driver.arm()
    assert driver.stop_in_force == 0


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_router_that_hangs_or_dies_is_in_nobodys_way(engine: Engine, driver: Client, number: int) -> None:
    (router,) = engine.pids("router")
    os.kill(router, number)
    try:
        began = time.monotonic()
        driver.call("system.stop")
        assert time.monotonic() - began < deadline(1.5)
    finally:
        if number == signal.SIGSTOP:
            os.kill(router, signal.SIGCONT)
    patient = driver.options(idempotent=True)  # the connection may just be lost
    assert patient.call("system.state")["armed"] is False
    assert wheel(patient) == 0.0


def test_a_script_that_fails_starts_no_wheel(engine: Engine, driver: Client) -> None:
    def fail() -> None:
        with Client(engine.address, timeout=deadline(20)) as client:
            client.call("lease.acquire", ["base"])
            client._queue._response_time = 1e9
            client.send("motor.forward", "base", 1.0)
            raise KeyError("the script fails")

    driver.call("motor.stop", "base")
    with pytest.raises(KeyError):
        fail()
    assert wheel(driver) == 0.0


def test_a_motor_is_stopped_behind_what_the_same_client_had_queued(driver: Client) -> None:
    driver._queue._response_time = 1e9
    driver.send("motor.forward", "base", 1.0)
    driver.send("motor.stop", "base")
    driver.info()
    assert wheel(driver) == 0.0


def test_the_command_stops_what_the_folder_holds(engine: Engine, driver: Client) -> None:
    from tests.system.test_cli import run

    assert run("stop", "--address", engine.address, "--why", "by hand").returncode == 0
    assert driver.call("system.state")["why"] == "by hand"
    assert run("call", "system.arm", "--address", engine.address).returncode == 0
    assert driver.call("system.state")["armed"] is True


def test_other_programs_of_the_same_key_take_over(engine: Engine, driver: Client) -> None:
    with driver.lease("base", exclusive=True), Client(engine.address, timeout=deadline(20)) as other:
        with pytest.raises(NotAllowed):
            other.lease("base", exclusive=True)
        with other.lease("base", exclusive=True, take_over=True), pytest.raises(NotAllowed):
            driver.call("motor.forward", "base", 0.1)
