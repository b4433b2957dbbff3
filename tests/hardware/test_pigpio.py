"""gpiozero over pigpio's protocol: its real factory, on a daemon that is ours."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pigpio
import pytest
from gpiozero import LED, PWMLED, AngularServo, Button, Servo
from gpiozero.pins.pigpio import PiGPIOFactory

from taskengine_hardware import read
from taskengine_hardware.backends import BACKENDS
from taskengine_hardware.device_config import Value
from taskengine_hardware.device_set import DeviceSet
from tests.engine import deadline, wait_until
from tests.hardware.pigpiod import INPUT, OUTPUT, PULL_UP, Command, Daemon

RESOLUTION = 5e-6
MOVES = [(-1, 0.001), (0, 0.0015), (1, 0.002)]
ROOT = Path(__file__).resolve().parents[2]
CLIENT = """
import sys, threading
from gpiozero import LED, Servo
from gpiozero.pins.pigpio import PiGPIOFactory
factory = PiGPIOFactory("127.0.0.1", int(sys.argv[1]))
devices = [LED(17, initial_value=True, pin_factory=factory), Servo(18, initial_value=1, pin_factory=factory)]
print("driving", flush=True)
threading.Event().wait()
"""


@contextmanager
def program(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process, which does not outlive the test."""
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, cwd=ROOT) as started:
        try:
            yield started
        finally:
            started.kill()


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """A daemon that has no client any more when the test ends."""
    with Daemon() as running:
        yield running
        wait_until(lambda: running.clients == 0, 5.0, "the clients' end")


@pytest.fixture
def connect(daemon: Daemon) -> Iterator[Callable[[], Any]]:
    """Makes factories on `daemon`, which are closed at the end."""
    with ExitStack() as factories:
        yield lambda: factories.enter_context(PiGPIOFactory("127.0.0.1", daemon.port))


@pytest.fixture
def pi(connect: Callable[[], Any]) -> Any:
    """A factory on `daemon`."""
    return connect()


def test_it_is_a_pi(pi: Any) -> None:
    assert pi.board_info.model == "3B+"


def test_a_led_reaches_its_level(pi: Any, daemon: Daemon) -> None:
    before = time.monotonic()
    led = LED(17, pin_factory=pi)
    for on in (True, False, True):
        led.value = on
        assert daemon.level(17) == on
        assert led.value == on
    writes = [write for write in daemon.history(17) if write.command is Command.WRITE]
    assert [write.level for write in writes] == [0, 1, 0, 1]
    times = [before, *(write.at for write in writes), time.monotonic()]
    assert times == sorted(times)


@pytest.mark.parametrize(("value", "seconds"), MOVES)
def test_a_servo_reaches_its_pulse_width(pi: Any, daemon: Daemon, value: float, seconds: float) -> None:
    servo = Servo(18, initial_value=None, pin_factory=pi)
    assert daemon.pulse_width(18) == 0
    servo.value = value
    assert daemon.pulse_width(18) == pytest.approx(seconds, abs=RESOLUTION)
    assert daemon.gpio(18).frequency == 50


@pytest.mark.parametrize(("value", "seconds"), MOVES)
def test_an_angular_servo_reaches_its_pulse_width(pi: Any, daemon: Daemon, value: float, seconds: float) -> None:
    servo = AngularServo(18, initial_angle=None, pin_factory=pi)
    servo.angle = 90 * value
    assert daemon.pulse_width(18) == pytest.approx(seconds, abs=RESOLUTION)


def test_pulses_end_when_a_servo_is_detached(pi: Any, daemon: Daemon) -> None:
    servo = Servo(18, pin_factory=pi)
    assert daemon.pulse_width(18) > 0
    servo.detach()
    assert daemon.pulse_width(18) == 0
    assert daemon.level(18) == 0
    assert daemon.gpio(18).mode == OUTPUT


def test_a_dimmed_led_is_high_for_its_share_of_the_time(pi: Any, daemon: Daemon) -> None:
    led = PWMLED(12, pin_factory=pi)
    for share in (0.25, 1, 0.5, 0):
        led.value = share
        assert daemon.level(12) == share
        assert led.value == share


def test_a_button_calls_back(pi: Any, daemon: Daemon) -> None:
    pressed, released = Event(), Event()
    button = Button(27, pin_factory=pi)
    button.when_pressed, button.when_released = pressed.set, released.set
    assert daemon.gpio(27).pull == PULL_UP
    assert not button.is_pressed
    daemon.drive(27, 0)
    assert pressed.wait(deadline(5.0))
    assert button.is_pressed
    assert not released.is_set()
    daemon.drive(27, None)
    assert released.wait(deadline(5.0))
    assert not button.is_pressed


def test_a_factory_that_is_closed_lets_go_of_its_pins(pi: Any, daemon: Daemon) -> None:
    devices = LED(17, initial_value=True, pin_factory=pi), Servo(18, pin_factory=pi)
    assert [daemon.gpio(gpio).mode for gpio in (17, 18)] == [OUTPUT, OUTPUT]
    pi.close()
    assert [daemon.gpio(gpio).mode for gpio in (17, 18)] == [INPUT, INPUT]
    assert [daemon.level(gpio) for gpio in (17, 18)] == [0, 0]
    for device in devices:
        device.close()


def test_what_is_driven_stays_driven_without_a_connection(pi: Any, daemon: Daemon) -> None:
    led = LED(17, initial_value=True, pin_factory=pi)
    pi.connection.stop()
    wait_until(lambda: daemon.clients == 0, 5.0, "the connection's end")
    led.close()
    assert daemon.level(17) == 1


def test_what_a_killed_client_drives_stays_driven_until_another_takes_it_over(
    daemon: Daemon, connect: Callable[[], Any]
) -> None:
    with program("-c", CLIENT, str(daemon.port)) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"driving\n"
        client.kill()
    wait_until(lambda: daemon.clients == 0, 5.0, "the client's end")
    assert daemon.level(17) == 1
    assert daemon.pulse_width(18) == pytest.approx(0.002, abs=RESOLUTION)

    heir = connect()
    leds = [LED(gpio, initial_value=False, pin_factory=heir) for gpio in (17, 18)]
    assert [daemon.gpio(gpio).mode for gpio in (17, 18)] == [OUTPUT, OUTPUT]
    assert [daemon.level(gpio) for gpio in (17, 18)] == [0, 0]
    assert not any(led.is_lit for led in leds)


def test_two_clients_drive_and_watch_at_once(daemon: Daemon, connect: Callable[[], Any]) -> None:
    daemon.drive(27, 1)
    one, other = connect(), connect()
    pressed, released = [Event(), Event()], [Event(), Event()]
    buttons = [Button(27, pin_factory=factory) for factory in (one, other)]
    for button, down, up in zip(buttons, pressed, released, strict=True):
        button.when_pressed, button.when_released = down.set, up.set
    led, servo = LED(17, pin_factory=one), Servo(18, pin_factory=other)
    led.on()
    servo.max()
    assert not any(event.is_set() for event in pressed)
    for level, events in ((0, pressed), (1, released)):
        daemon.drive(27, level)
        assert all(event.wait(deadline(5.0)) for event in events)
    other.close()
    assert daemon.level(17) == 1
    assert daemon.level(18) == 0


def test_to_make_a_device_on_another_clients_pin_ends_what_drives_it(
    daemon: Daemon, connect: Callable[[], Any]
) -> None:
    led = LED(17, initial_value=True, pin_factory=connect())
    connect().pin(17)
    assert daemon.gpio(17).mode == INPUT
    assert daemon.level(17) == 0
    assert not led.is_lit


def test_a_led_without_an_initial_value_takes_up_what_was_left(daemon: Daemon, connect: Callable[[], Any]) -> None:
    one = connect()
    led = LED(17, initial_value=True, pin_factory=one)
    one.connection.stop()
    heir = LED(17, initial_value=None, pin_factory=connect())
    assert daemon.level(17) == 1
    assert heir.is_lit
    led.close()


def test_a_device_that_nobody_holds_lets_go_of_its_pin(pi: Any, daemon: Daemon) -> None:
    LED(17, initial_value=True, pin_factory=pi)
    assert daemon.level(17) == 0
    assert [write.level for write in daemon.history(17) if write.command is Command.WRITE] == [1]


@pytest.fixture
def rig(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., DeviceSet]]:
    """Makes rigs of one device on `daemon`, by the backend that the engine has."""
    monkeypatch.setenv("PIGPIO_ADDR", "127.0.0.1")
    monkeypatch.setenv("PIGPIO_PORT", str(daemon.port))
    with ExitStack() as made:

        def make(value: Value, **device: Any) -> DeviceSet:
            layout = read({"devices": {"x": device}})
            one = DeviceSet(layout.devices.values(), BACKENDS["pigpio"](layout), lambda device: value)
            made.callback(one.close)
            return one

        yield make


@pytest.mark.parametrize(
    ("device", "off", "on", "level"),
    [
        ({"type": "DigitalOutput", "pin": 17}, False, True, 0),
        ({"type": "PWMLED", "pin": 17}, 0.0, 0.25, 0.75),
        ({"type": "RGBLED", "red": 17, "green": 18, "blue": 19}, (0.0, 0.0, 0.0), (0.25, 1.0, 0.0), 0.75),
    ],
)
def test_an_output_that_is_off_while_high_is_never_driven_low(
    daemon: Daemon, rig: Callable[..., DeviceSet], device: dict[str, Any], off: Value, on: Value, level: float
) -> None:
    made = rig(off, active_high=False, **device)
    assert daemon.level(17) == 1
    made.writers[0](on)
    made.writers[0](off)
    made.close()
    driven = [write.level for write in daemon.history(17) if write.command in (Command.WRITE, Command.PWM)]
    assert [share for share, _ in itertools.groupby(driven)] == [1, level, 1]
    assert daemon.gpio(17).mode == INPUT


def test_a_line_that_is_driven_is_taken_over_without_a_gap(daemon: Daemon, rig: Callable[..., DeviceSet]) -> None:
    """The daemon goes on with what a killed owner has left; gpiozero's own pin would make it an input first."""
    first = rig(True, type="DigitalOutput", pin=17)
    first.factory.connection.stop()
    rig(True, type="DigitalOutput", pin=17)
    assert {write.level for write in daemon.history(17)} == {1}
    assert daemon.gpio(17).mode == OUTPUT


def test_a_button_of_the_backend_has_its_pull(daemon: Daemon, rig: Callable[..., DeviceSet]) -> None:
    made = rig(None, type="Button", pin=27)
    assert daemon.gpio(27).pull == PULL_UP
    daemon.drive(27, 0)
    wait_until(lambda: made.opened[0].is_pressed, 5.0, "the button")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (lambda pi: pi.spi_open(0, 500_000), "unknown command"),
        (lambda pi: pi.write(17, 2), "level not 0-1"),
        (lambda pi: pi.set_PWM_dutycycle(17, 256), "dutycycle not 0-range"),
        (lambda pi: pi.set_servo_pulsewidth(17, 499), "pulsewidth"),
        (lambda pi: pi.get_servo_pulsewidth(17), "not in use for servo pulses"),
        (lambda pi: pi.set_PWM_frequency(32, 50), "GPIO not 0-31"),
    ],
)
def test_what_it_does_not_do_is_refused_and_moves_nothing(
    pi: Any, daemon: Daemon, command: Callable[[Any], object], reason: str
) -> None:
    with pytest.raises(pigpio.error, match=reason):
        command(pi.connection)
    assert daemon.history(17) == []
    pi.connection.write(17, 1)
    assert daemon.level(17) == 1


def test_pigpios_own_servo_pulses(pi: Any, daemon: Daemon) -> None:
    pi.connection.set_servo_pulsewidth(18, 1500)
    assert pi.connection.get_servo_pulsewidth(18) == 1500
    assert daemon.pulse_width(18) == 0.0015
    pi.connection.write(18, 0)
    assert daemon.pulse_width(18) == 0


def test_it_serves_as_a_program() -> None:
    with program("-m", "tests.hardware.pigpiod", "0") as served:
        assert served.stdout is not None
        with PiGPIOFactory("127.0.0.1", int(served.stdout.readline())) as factory:
            led = LED(17, initial_value=True, pin_factory=factory)
            assert factory.connection.read(17) == 1
            led.close()
        served.send_signal(signal.SIGTERM)
        assert served.wait(deadline(5.0)) == 0
