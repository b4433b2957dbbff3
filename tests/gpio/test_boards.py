"""A servo on a line of gpio-sim, and on chips of i2c-stub by our driver and the kernel's; registers are read back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import smbus2

from taskengine import Client, TaskFailed
from taskengine_hardware.emulated_bus import POWERED_UP
from tests.engine import Engine, alive, deadline, wait_until
from tests.gpio import chip
from tests.gpio.lateness import Lateness
from tests.gpio.machine import RELAY, SERVO
from tests.hardware.one_script import ANGLES, STEP_S, drive

BUS = "/dev/i2c-0"
DRIVER = Path("/sys/bus/i2c/devices/i2c-0")
HAT, KERNELS = 0x40, 0x41
MODE1, LED3, PRE_SCALE = 0x00, 0x06 + 4 * 3, 0xFE
FULL_OFF = 0x10
LEASE_S, GRACE_S, OWNER_S, SERVICE_S, EMULATED_S = 0.5, 0.05, 0.25, 1.0, 0.1
PAN = """
[hardware]
board = "a020d3"

[hardware.devices.pan]
type = "AngularServo"
lease = 60
"""
OURS = 'board = "hat"\nchannel = 3\n[hardware.boards.hat]\ntype = "PCA9685"\nbus = 0\n'
THEIRS = 'board = "hat"\nchannel = 3\n[hardware.boards.hat]\ntype = "PWM"\nchip = "0-0041"\n'


@pytest.fixture
def lateness() -> Iterator[Lateness]:
    with Lateness() as measured:
        yield measured


def registers(address: int, first: int, count: int) -> list[int]:
    """What a chip of i2c-stub was told."""
    with smbus2.SMBus(BUS, force=True) as bus:
        return [bus.read_byte_data(address, first + one) for one in range(count)]


def width(address: int) -> float:
    """The pulse of channel 3, in s."""
    on_low, on_high, off_low, off_high = registers(address, LED3, 4)
    if off_high & FULL_OFF:
        return 0.0
    assert not on_high & FULL_OFF
    period = 4096 * (registers(address, PRE_SCALE, 1)[0] + 1) / 25e6
    return ((off_low | off_high << 8) - (on_low | on_high << 8)) / 4096 * period


@contextmanager
def kernels_driver() -> Iterator[None]:
    """The kernel's pwm-pca9685 on the second chip, whose registers are as after its power came."""
    with smbus2.SMBus(BUS) as bus:
        for register, value in POWERED_UP.items():
            bus.write_byte_data(KERNELS, register, value)
    (DRIVER / "new_device").write_text(f"pca9685 {KERNELS:#x}")
    try:
        yield
    finally:
        (DRIVER / "delete_device").write_text(f"{KERNELS:#x}")


@contextmanager
def machine(folder: Path, settings: str, lease: str = "lease = 60") -> Iterator[tuple[Engine, Client]]:
    (folder / "taskengine.toml").write_text(PAN.replace("lease = 60", lease) + settings)
    with (
        Engine(cwd=folder, enable_stdout="false") as engine,
        Client(engine.address, timeout=deadline(20)) as client,
    ):
        client.call("devices.state")
        yield engine, client


def test_on_a_line(tmp_path: Path) -> None:
    with machine(tmp_path, f"pin = {SERVO}\n") as (_, client):

        def read() -> float:
            widths = []
            for _ in range(5):
                # measuring takes the only processor, and this gives it back for a moment
                client.call("devices.state")
                widths.append(chip.pulse(SERVO, pulses=9))
            return sorted(widths)[2]

        found = drive(client, read, 0.0002)
    assert found == {angle: pytest.approx(seconds, abs=0.0002) for angle, seconds in ANGLES.items()}


def test_on_a_pca9685_by_our_driver(tmp_path: Path) -> None:
    """The bus has SMBus only, so that frames are blocks."""
    with machine(tmp_path, OURS) as (_, client):
        assert registers(HAT, MODE1, 1) == [0x20]
        assert width(HAT) == 0.0
        found = drive(client, lambda: width(HAT))
        wait_until(lambda: width(HAT) == 0.0, 5, "the end of the pulses")
    assert found == {angle: pytest.approx(seconds, abs=STEP_S) for angle, seconds in ANGLES.items()}


def test_on_a_pca9685_by_the_kernels_driver(tmp_path: Path) -> None:
    with kernels_driver(), machine(tmp_path, THEIRS) as (_, client):
        found = drive(client, lambda: width(KERNELS))
        wait_until(lambda: width(KERNELS) == 0.0, 5, "the end of the pulses")
        client.call("servo.set", "pan", angle=0)
        wait_until(lambda: width(KERNELS) > 0.0, 5, "the pulses")
        # it is off, and nobody can confirm that: the driver drops the errors of a bus that is cut
        assert "unread" in client.call("devices.state")["pan"]
        with pytest.raises(TaskFailed, match="confirmed"):
            client.call("system.stop")
        assert width(KERNELS) == 0.0
        # its off is told again, also to a chip that has lost it
        with smbus2.SMBus(BUS, force=True) as bus:
            bus.write_i2c_block_data(KERNELS, LED3, [0, 0, 0x33, 0x01], force=True)
        assert width(KERNELS) > 0.0
        wait_until(lambda: width(KERNELS) == 0.0, 5, "the off")
        client.call("system.arm")
    assert found == {angle: pytest.approx(seconds, abs=STEP_S) for angle, seconds in ANGLES.items()}


def test_a_chip_of_the_kernels_driver_is_not_taken_by_ours(tmp_path: Path) -> None:
    text = 'a driver of the kernel has it: use type = "PWM"'
    settings = OURS + f"address = {KERNELS}\n"
    with kernels_driver(), machine(tmp_path, settings) as (_, client), pytest.raises(TaskFailed, match=text):
        client.call("servo.set", "pan", angle=0)


@pytest.mark.parametrize("settings", [OURS, THEIRS], ids=["ours", "the kernel's"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_dead_owners_board_is_made_safe(
    tmp_path: Path, settings: str, number: signal.Signals, lateness: Lateness
) -> None:
    address = HAT if settings == OURS else KERNELS
    lease = "lease = 60" if number == signal.SIGKILL else "lease = 0.5"
    with kernels_driver(), machine(tmp_path, settings, lease) as (engine, client):
        client.call("servo.set", "pan", angle=0)
        wait_until(lambda: abs(width(address) - 0.0015) < STEP_S, 5, "the pulses")
        (owner,) = engine.pids("pin")
        os.kill(owner, number)
        began = time.monotonic()
        wait_until(lambda: width(address) == 0.0, 5, "the safe state")
        took = time.monotonic() - began
        print(f"{number.name} {address:#x}: safe after {took:.3f} s")
        bound = OWNER_S if number == signal.SIGKILL else LEASE_S + GRACE_S
        assert took < bound + EMULATED_S + lateness.allowance, engine.output()


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("router", signal.SIGSTOP),
        ("router", signal.SIGKILL),
        ("guardian", signal.SIGSTOP),
        ("guardian", signal.SIGKILL),
        ("supervisor", signal.SIGSTOP),
    ],
)
def test_a_lease_on_a_board_ends_whatever_else_fails(
    tmp_path: Path, name: str, number: signal.Signals, lateness: Lateness
) -> None:
    with machine(tmp_path, OURS, "lease = 0.5") as (engine, client):
        (pid,) = [engine.process.pid] if name == "supervisor" else engine.pids(name)
        turn_to_the_middle(client)
        os.kill(pid, number)
        took = safe_after()
        if number == signal.SIGSTOP:
            os.kill(pid, signal.SIGCONT)
        print(f"{name} {number.name}: safe after {took:.3f} s")
        assert took < LEASE_S + GRACE_S + EMULATED_S + lateness.allowance, engine.output()


def test_a_killed_guardian_moves_nothing_on_a_board_and_the_next_one_guards_it(
    tmp_path: Path, lateness: Lateness
) -> None:
    with machine(tmp_path, OURS) as (engine, client):
        turn_to_the_middle(client)
        (guardian,) = engine.pids("guardian")
        os.kill(guardian, signal.SIGKILL)
        widths = set[float]()

        def is_guarded() -> bool:
            widths.add(width(HAT))
            return engine.output().count("[GUARDIAN] Watches lane hardware") == 2

        wait_until(is_guarded, 20, "the next guardian")
        assert [abs(one - 0.0015) < STEP_S for one in widths] == [True], widths
        # an owner that outlives a stop of the supervisor is guarded too
        (owner,) = engine.pids("pin")
        os.kill(engine.process.pid, signal.SIGSTOP)
        os.kill(owner, signal.SIGKILL)
        took = safe_after()
        os.kill(engine.process.pid, signal.SIGCONT)
        print(f"supervisor stopped, owner killed: safe after {took:.3f} s")
        assert took < OWNER_S + EMULATED_S + lateness.allowance, engine.output()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
def test_a_board_is_safe_at_the_end_of_the_service(tmp_path: Path, number: signal.Signals, lateness: Lateness) -> None:
    with machine(tmp_path, OURS) as (engine, client):
        turn_to_the_middle(client)
        pids = engine.pids()
        engine.process.send_signal(number)
        took = safe_after()
        print(f"supervisor {number.name}: safe after {took:.3f} s")
        assert took < SERVICE_S + EMULATED_S + lateness.allowance
        wait_until(lambda: not any(map(alive, pids)), 10, "the end of all processes")


def test_the_next_owner_makes_a_board_safe_where_owner_and_guardian_are_killed(tmp_path: Path) -> None:
    """Its line is as the kernel leaves it meanwhile, and the board goes on."""
    with machine(tmp_path, OURS + f"output_enable = {RELAY}\n") as (engine, client):
        wait_until(lambda: not chip.level(RELAY), 5, "the line")
        turn_to_the_middle(client)
        for pid in (*engine.pids("guardian"), *engine.pids("pin")):
            os.kill(pid, signal.SIGKILL)
        took = safe_after(20)
        print(f"owner and guardian killed: safe after {took:.3f} s")
        wait_until(lambda: not chip.level(RELAY), 20, "the line of the next owner")


def test_the_guardian_switches_a_board_off_by_its_line(tmp_path: Path, lateness: Lateness) -> None:
    with machine(tmp_path, OURS + f"output_enable = {RELAY}\n", "lease = 0.5") as (engine, client):
        wait_until(lambda: not chip.level(RELAY), 5, "the line")
        turn_to_the_middle(client)
        (owner,) = engine.pids("pin")
        os.kill(owner, signal.SIGSTOP)
        began = time.monotonic()
        # its pulses are off by the line, or by their registers
        wait_until(lambda: bool(chip.level(RELAY)) or width(HAT) == 0.0, 5, "the guardian")
        took = time.monotonic() - began
        print(f"owner stopped: off after {took:.3f} s")
        assert took < LEASE_S + GRACE_S + EMULATED_S + lateness.allowance
        wait_until(lambda: width(HAT) == 0.0 and not chip.level(RELAY), 20, "the safe state")


def turn_to_the_middle(client: Client) -> None:
    """Have the servo on channel 3 of our chip turn there."""
    client.call("servo.set", "pan", angle=0)
    wait_until(lambda: abs(width(HAT) - 0.0015) < STEP_S, 5, "the pulses")


def safe_after(seconds: float = 5.0) -> float:
    """How many s from now on the channel of our chip is off."""
    began = time.monotonic()
    wait_until(lambda: width(HAT) == 0.0, seconds, "the safe state")
    return time.monotonic() - began


def test_two_engines_do_not_share_a_chip(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with machine(tmp_path, OURS) as (engine, first), machine(other, OURS) as (second, client):
        (owner,) = engine.pids("pin")
        with pytest.raises(
            TaskFailed, match=rf"0x40 on /dev/i2c-0 belongs to another process; in use by .*\[{owner}\]"
        ):
            client.call("servo.set", "pan", angle=0)
        turn_to_the_middle(first)
        engine.stop()
        assert width(HAT) == 0.0
        wait_until(lambda: "pan works again" in second.output(), 60, "the chip")
