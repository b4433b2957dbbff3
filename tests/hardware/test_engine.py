"""A real engine with devices on mock pins, and its clients."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import taskengine.aio
from taskengine import BadArguments, Client, NotAllowed, TaskEngineError, WorkerLost
from tests.engine import Engine, alive, deadline, free_ports, wait_until
from tests.integration.seedclient import SeedClient, meta, task

DEVICES = """
[hardware.devices.pan]
type = "AngularServo"
pin = 18

[hardware.devices.grip]
type = "Servo"
pin = 19
lease = 3600
safe = "hold"

[hardware.devices.lamp]
type = "LED"
pin = 17

[hardware.devices.hip]
type = "Servo"
pin = 4
lane = "legs"
lease = 3600

[hardware.devices.load]
type = "LoadAverage"
rate = 100
"""
OWN_TASKS = """
import time
from taskengine import publish, task
from taskengine_hardware import robot

@task(name="arm.nod", lane="hardware")
def nod(angle):
    robot().servo_set("pan", angle=angle)
    return robot().devices_state("pan")["pan"]["value"]

@task(name="arm.sleep", lane="hardware")
def sleep(seconds):
    publish("arm.sleeps", seconds)
    time.sleep(seconds)

@task(name="pins.states", lane="hardware")
def states(number):
    from gpiozero import Device
    return [state.state for state in Device.pin_factory.pin(number).states]

@task(name="tell")
def tell(topic, value):
    publish(topic, value)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("robot")
    (made / "taskengine.toml").write_text(DEVICES)
    (made / "own.py").write_text(OWN_TASKS)
    return made


@pytest.fixture
def engine(folder: Path) -> Iterator[Engine]:
    with Engine(cwd=folder, pins="mock", tasks="own.py", enable_stdout="false") as engine:
        yield engine


@pytest.fixture
def client(engine: Engine) -> Iterator[Client]:
    with Client(engine.address, timeout=deadline(20)) as client:
        client.call("devices.state")  # the owners are there
        client.call("legs.devices.state")
        yield client


def owner_of(engine: Engine) -> int:
    """The owner of lane hardware, which is the first that was started."""
    first: int = int(re.findall(r"Starting process \[(\d+)\]: pin worker hardware 1", engine.output())[-1])
    return first


def value(client: Client, name: str, prefix: str = "") -> object:
    return client.call(f"{prefix}devices.state", name)[name]["value"]


def test_tasks_are_listed_with_their_lanes(client: Client) -> None:
    tasks = {task.name: task for task in client.tasks()}
    assert tasks["servo.set"].lane == "hardware"
    assert tasks["legs.servo.set"].lane == "legs"
    assert tasks["servo.set"].signature.startswith("(device: str, value: float | None = None, angle:")
    assert tasks["system.stop"].urgent
    assert not tasks["servo.set"].idempotent
    assert tasks["task_servo_set"].doc == tasks["servo.set"].doc
    assert all(tasks[name].doc for name in tasks if name.startswith(("servo.", "legs.", "devices.", "system.")))


def test_commands_leases_and_errors(client: Client, engine: Engine) -> None:
    calls: list[Any] = [("servo.set", ("pan",), {"angle": 30}), ("devices.state", ("pan",), {})]
    assert client.run(calls)[-1]["pan"]["value"] == 30  # in one package: the lease may end before the next
    wait_until(lambda: value(client, "pan") is None, 5, "the end of the lease")
    client.call("legs.servo.set", "hip", 0.25)
    assert value(client, "hip", "legs.") == 0.25
    with pytest.raises(BadArguments, match="no output is named 'hip'"):
        client.call("servo.set", "hip", 0)
    with client.lease("grip", exclusive=True) as lease:
        assert lease.seconds == 3600
        client.call("servo.set", "grip", 0.5)
        with Client(engine.address, timeout=deadline(20)) as other, pytest.raises(NotAllowed, match="another client"):
            other.call("servo.set", "grip", 0)
        lease.renew()
    with Client(engine.address, timeout=deadline(20)) as other:
        other.call("servo.set", "grip", 0.25)
    with pytest.raises(BadArguments, match="one device at least"):
        client.lease()
    with client.lease("hip", lane="legs") as lease:
        lease.renew()


def test_leases_of_asyncio(engine: Engine, client: Client) -> None:
    async def drive() -> float:
        async with (
            taskengine.aio.Client(engine.address, timeout=deadline(20)) as there,
            await there.lease("grip", exclusive=True) as lease,
        ):
            await lease.renew()
            with pytest.raises(NotAllowed):
                client.call("servo.set", "grip", 0)
            await there.call("servo.set", "grip", -0.5)
            return lease.seconds

    assert asyncio.run(drive()) == 3600
    assert value(client, "grip") == -0.5


def test_stopping_reaches_every_lane_and_latches(client: Client) -> None:
    client.call("servo.set", "pan", 0.5)
    client.call("legs.servo.set", "hip", 0.5)
    client.call("gpio.write", "lamp", True)
    client.call("system.stop")
    assert (value(client, "pan"), value(client, "hip", "legs."), value(client, "lamp")) == (None, None, False)
    for name in ("servo.set", "legs.servo.set"):
        with pytest.raises(NotAllowed, match=r"system\.arm"):
            client.call(name, "hip" if "legs" in name else "pan", 0)
    client.call("legs.system.arm")
    client.call("servo.set", "pan", 0)
    client.call("legs.servo.set", "hip", 0)


def test_stopping_overtakes_all_that_waits(client: Client) -> None:
    for _ in range(200):
        client.submit("arm.sleep", 0.02)
    client.flush()
    wait_until(lambda: any(done for _, done, _ in client.progress()), 10, "the first of them")
    client.call("system.stop")
    assert sum(count - done for _, done, count in client.progress()) > 100
    client.cancel()


def test_stopping_reaches_a_lane_whose_task_runs_on(client: Client) -> None:
    client.call("gpio.write", "lamp", True)
    sleeping = client.submit("arm.sleep", 3)
    wait_until(lambda: _latest(client, "arm.sleeps") == 3, 10, "the task")
    stopping = client.submit("system.stop")
    wait_until(lambda: client.latest("hardware.lamp")["value"] is False, 2, "the lamp")
    assert not sleeping.done()
    sleeping.result(deadline(20))
    stopping.result(deadline(20))


def test_a_stop_among_other_calls_stops_too(client: Client) -> None:
    client.call("gpio.write", "lamp", True)
    client.submit("arm.sleep", 2)
    wait_until(lambda: _latest(client, "arm.sleeps") == 2, 10, "the task")
    for name, args in (("gpio.write", ("lamp", True)), ("system.stop", ()), ("gpio.write", ("lamp", True))):
        client.submit(name, *args)
    client.flush()
    wait_until(lambda: client.latest("hardware.lamp")["value"] is False, 1.5, "the lamp")


def test_arming_twice_is_no_error(client: Client) -> None:
    client.call("system.stop")
    for _ in range(3):
        client.call("system.arm")
        client.call("legs.system.arm")
    client.call("servo.set", "pan", 0)


def test_an_owner_that_does_not_heed_a_stop_is_ended(client: Client, engine: Engine) -> None:
    client.call("legs.servo.set", "hip", 0.5)  # its lease runs for an hour
    (hung,) = set(engine.pids("pin")) - {owner_of(engine)}
    os.kill(hung, signal.SIGSTOP)
    client.options(errors="return").run([("system.stop", (), {})])
    wait_until(lambda: not alive(hung), 5, "its end")
    assert value(client, "hip", "legs.") is None
    client.call("system.arm")
    client.call("legs.servo.set", "hip", 0)


def test_nobody_stays_as_it_is_for_ctrl_z(client: Client, engine: Engine) -> None:
    client.call("servo.set", "pan", 0.5)
    for pid in engine.pids():
        os.kill(pid, signal.SIGTSTP)
    wait_until(lambda: value(client, "pan") is None, 5, "the end of the lease")
    client.call("servo.set", "pan", 0.5)


def test_a_guardian_that_hangs_is_replaced(folder: Path) -> None:
    quick = {"heartbeat_interval": 0.2, "heartbeat_limit": 0.7}
    with Engine(cwd=folder, env=None, pins="mock", tasks="own.py", enable_stdout="false", **quick) as engine:
        wait_until(lambda: "[GUARDIAN] Watches" in engine.output(), 20, "the guardian")
        (guardian,) = engine.pids("guardian")
        os.kill(guardian, signal.SIGSTOP)
        wait_until(lambda: engine.output().count("[GUARDIAN] Watches") == 2, 40, "another guardian")
        assert not alive(guardian)
        assert "has sent no heartbeat for too long: guardian" in engine.output()


def test_the_latch_outlives_the_owner(client: Client, engine: Engine) -> None:
    client.call("system.stop")
    owner = owner_of(engine)
    os.kill(owner, signal.SIGKILL)
    wait_until(lambda: owner not in engine.pids(), 10, "its end")
    wait_until(lambda: "system.arm" in refusal(client), 10, "an owner that knows of the stop")


def refusal(client: Client) -> str:
    """Why a command is refused; WorkerLost where the router has only then learned of the owner's death."""
    with pytest.raises((NotAllowed, WorkerLost)) as caught:
        client.call("servo.set", "pan", 0)
    return str(caught.value)


def test_an_owner_that_dies_is_replaced_and_what_it_held_is_known(client: Client, engine: Engine) -> None:
    client.call("servo.set", "pan", 0.5)
    client.call("servo.set", "grip", 0.75)
    owner = owner_of(engine)
    running = client.submit("arm.sleep", 30)
    wait_until(lambda: _latest(client, "arm.sleeps") == 30, 10, "the task")
    os.kill(owner, signal.SIGKILL)
    with pytest.raises(WorkerLost):
        running.result(deadline(10))
    assert value(client, "pan") is None
    assert value(client, "grip") == 0.75
    assert "[GUARDIAN] Lane hardware is safe, its owner is dead" in engine.output()


def test_an_owner_that_hangs_is_ended(client: Client, engine: Engine) -> None:
    owner = owner_of(engine)
    client.call("servo.set", "pan", 0.5)
    os.kill(owner, signal.SIGSTOP)
    wait_until(lambda: not alive(owner), 10, "its end")
    assert value(client, "pan") is None
    assert "did not act on a lease or a stop: killing it" in engine.output()


def test_a_guardian_that_dies_is_replaced(client: Client, engine: Engine) -> None:
    (guardian,) = engine.pids("guardian")
    os.kill(guardian, signal.SIGKILL)
    wait_until(lambda: engine.output().count("[GUARDIAN] Watches lane hardware, legs") == 2, 10, "another guardian")
    owner = owner_of(engine)
    os.kill(owner, signal.SIGKILL)
    wait_until(lambda: "Lane hardware is safe" in engine.output(), 10, "its work")
    assert value(client, "pan") is None


def test_nothing_is_left_when_the_supervisor_is_killed(client: Client, engine: Engine) -> None:
    client.call("servo.set", "pan", 0.5)
    pids = engine.pids()
    assert len(engine.pids("guardian")) == 1
    os.kill(engine.process.pid, signal.SIGKILL)
    wait_until(lambda: not any(map(alive, pids)), 2, "the end of all processes")


def test_a_reload_keeps_the_pins(client: Client) -> None:
    client.call("servo.set", "grip", 0.5)
    client.reload()
    assert value(client, "grip") == 0.5
    client.call("servo.set", "grip", 0.25)


def test_sensors_and_outputs_are_published(client: Client) -> None:
    with client.subscribe("hardware.*") as feed:
        client.call("gpio.write", "lamp", True)
        found = {}
        for sample in feed:
            found[sample.topic] = sample.value
            if found.get("hardware.lamp", {}).get("value") is True and "hardware.load" in found:
                break
    assert found["hardware.lamp"].keys() == {"time", "value"}
    assert client.latest("hardware.lamp")["value"] is True


def test_tasks_publish_by_themselves(client: Client) -> None:
    client.call("tell", "arm.mood", {"glad": 1})
    wait_until(lambda: _latest(client, "arm.mood") == {"glad": 1}, 5, "the publication")
    with pytest.raises(BadArguments, match="a topic is text"):
        client.call("tell", "", 1)
    with pytest.raises(BadArguments, match="at most about"):
        client.call("tell", "large", "x" * 2**20)


def _latest(client: Client, topic: str) -> object:
    try:
        return client.latest(topic)
    except TaskEngineError:
        return None


def test_own_tasks_use_the_devices_of_their_lane(client: Client) -> None:
    assert client.call("arm.nod", 12) == 12


def test_an_original_client_turns_a_servo(client: Client, engine: Engine) -> None:
    with SeedClient(engine.address) as seed:
        _, answer = seed.ask(meta(length=1), task("task_servo_set", "grip", 0.5, pack="p"))
        assert answer["data"] == ["job-p: None"]
    assert value(client, "grip") == 0.5


def test_a_frame_of_servos_is_not_mixed_with_anothers(client: Client, engine: Engine) -> None:
    """The tasks of a package run one after the other, whatever another client sends meanwhile."""
    with Client(engine.address, timeout=deadline(20)) as other:
        for _ in range(30):
            mine = client.options(reply="all")
            pending = [other.submit("servo.set", "grip", -1) for _ in range(20)]
            other.flush()
            calls: list[Any] = [("servo.set", ("grip", step / 100), {}) for step in range(15)]
            states = mine.run([*calls, ("devices.state", ("grip",), {})])
            assert states[-1]["grip"]["value"] == 0.14
            for future in pending:
                future.result(deadline(10))


def test_every_value_of_a_package_reaches_its_pin(folder: Path, tmp_path: Path) -> None:
    servos = {f"s{number}": 4 + number for number in range(16)}
    entry = '[hardware.devices.{}]\ntype = "Servo"\npin = {}\nlease = 60\n'
    (tmp_path / "taskengine.toml").write_text("".join(entry.format(*servo) for servo in servos.items()))
    devices = list(servos) * 250
    values = [(number % 201 - 100) / 100 for number in range(4000)]
    with (
        Engine(cwd=tmp_path, pins="mock", tasks=folder / "own.py", chunking_size=50, enable_stdout="false") as engine,
        Client(engine.address, timeout=deadline(30)) as client,
    ):
        client.map("servo.set", devices, values)
        for name, pin in servos.items():
            duties = [0.075 + 0.025 * value for device, value in zip(devices, values, strict=True) if device == name]
            assert client.call("pins.states", pin)[1:] == [pytest.approx(duty) for duty in duties]


@pytest.mark.parametrize(
    ("text", "pins", "code", "said"),
    [
        (DEVICES, "auto", 1, "no /dev/gpiochip"),
        (DEVICES.replace("pin = 18", "pin = 40"), "mock", 2, "hardware.devices.pan.pin: there is no pin 40"),
        (DEVICES.replace("pin = 19", "pin = 18"), "mock", 2, "hardware.devices.grip: GPIO18 is pan's already"),
        (DEVICES, "pigpio", 1, "no pigpiod answers"),
    ],
)
def test_an_engine_that_cannot_have_its_pins_says_why(
    tmp_path: Path, text: str, pins: str, code: int, said: str
) -> None:
    (tmp_path / "taskengine.toml").write_text(text)
    first = free_ports(10)
    ports = ["--router-frontend", str(first), "--router-backend", str(first + 1), "--starting-port", str(first + 2)]
    ports += ["--stop-port", str(first + 9)]
    command = [sys.executable, "-m", "taskengine", "serve", "--pins", pins, *ports]
    environ = {**os.environ, "PIGPIO_PORT": "1"}
    found = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert found.returncode == code
    assert said in found.stderr
    assert len(found.stderr.splitlines()) == 1


def test_outputs_are_made_safe_where_no_engine_runs(folder: Path) -> None:
    command = [sys.executable, "-m", "taskengine", "pins", "--safe", "--pins"]
    assert subprocess.run([*command, "mock"], cwd=folder, check=False).returncode == 0
    found = subprocess.run([*command, "auto"], cwd=folder, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (2, "")
    assert "no /dev/gpiochip" in found.stderr


def test_the_header_is_shown(folder: Path) -> None:
    command = [sys.executable, "-m", "taskengine", "pins", "--pins", "mock"]
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert "GPIO18  pan (AngularServo, lane hardware)" in found.stdout
    assert len(found.stdout.splitlines()) == 20
