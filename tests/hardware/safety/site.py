"""A real engine on mock pins whose edges are all noted, and what the plays of the table do with it."""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from taskengine import Client, TaskEngineError
from tests.engine import Engine, deadline, wait_until

LEASE_S = 0.5
GRACE_S = 0.05
"""How long after a lease has ended its output may still be on."""
KNOWN_S = 0.1
"""How well a client of this machine knows the engine's clock, also where others keep it busy."""
AT_ONCE_S = 0.25
"""Within which a stop has to act on a machine that others use, too."""
EXCLUSIVE_S = 3.0
WHEEL, DRILL, LAMP, HEATER, PAN, TILT, BRAKE, LEFT = 20, 22, 17, 13, 18, 14, 16, 5
TABLE = f"""
[hardware]
exclusive = {EXCLUSIVE_S:g}

[hardware.devices.wheel]
type = "Motor"
forward = {WHEEL}
backward = 21

[hardware.devices.drill]
type = "Motor"
forward = {DRILL}
backward = 23
lease = 3600
on_fault = "resume"

[hardware.devices.lamp]
type = "LED"
pin = {LAMP}

[hardware.devices.heater]
type = "PWMLED"
pin = {HEATER}

[hardware.devices.pan]
type = "AngularServo"
pin = {PAN}
lease = 60
home = 0
limits = {{ angle = [-90, 90], speed = 120, acceleration = 200 }}

[hardware.devices.tilt]
type = "AngularServo"
pin = {TILT}
limits = {{ angle = [-90, 90], speed = 120 }}

[hardware.devices.brake]
type = "DigitalOutput"
pin = {BRAKE}
safe = true

[hardware.devices.robot]
type = "Robot"
left = [{LEFT}, 6]
right = [12, 19]

[hardware.devices.sonar]
type = "DistanceSensor"
echo = 24
trigger = 25
rate = 20

[hardware.devices.knob]
type = "RotaryEncoder"
a = 26
b = 27
"""
TASKS = '''
import os
import time
from pathlib import Path

from gpiozero import Device
from gpiozero.pins.mock import MockPin
from taskengine import publish, task

EDGES = os.open(Path(__file__).with_name("edges"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
known = MockPin._change_state


def noted(pin, value):
    """Note each change of a pin for whoever reads the file."""
    is_new = known(pin, value)
    if is_new:
        os.write(EDGES, f"{time.monotonic()} {pin.info.name} {float(value)}\\n".encode())
    return is_new


MockPin._change_state = noted


@task(name="lane.hold", lane="hardware")
def hold(seconds):
    """Keep the lane busy; others run meanwhile."""
    publish("lane.holds", seconds)
    time.sleep(seconds)


@task(name="lane.grind", lane="hardware")
def grind(seconds):
    """Keep the process busy in C, where no other thread of it runs."""
    publish("lane.grinds", seconds)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(2_000_000))


@task(name="lane.numb", lane="hardware")
def numb(seconds):
    """One call of C, in which no other thread of the process runs."""
    publish("lane.numbs", seconds)
    start = time.monotonic()
    sum(range(1_000_000))
    sum(range(int(1_000_000 * seconds / (time.monotonic() - start))))


@task(name="lane.turn", lane="hardware")
def turn(a, b, steps):
    """Turn an encoder."""
    first, second = (Device.pin_factory.pin(number) for number in (a, b))
    for _ in range(steps):
        for pin in (first, second):
            pin.drive_low()
        for pin in (first, second):
            pin.drive_high()


@task(name="tell")
def tell(topic, value):
    """Publish anything."""
    publish(topic, value)
'''


class Edge(NamedTuple):
    """A pin was driven to a level, or a duty cycle, at a time, monotonic s."""

    at: float
    value: float


class Site:
    """An engine with the table above, in a folder of its own; `settings` are the engine's, `exclusive` the table's."""

    def __init__(self, folder: Path, exclusive: float = EXCLUSIVE_S, **settings: Any) -> None:
        self.folder = folder
        table = TABLE.replace(f"exclusive = {EXCLUSIVE_S:g}", f"exclusive = {exclusive:g}")
        (folder / "taskengine.toml").write_text(table)
        (folder / "own.py").write_text(TASKS)
        settings = {"pins": "mock", "tasks": "taskengine.tasks,own.py", "enable_stdout": "false", **settings}
        self.engine = Engine(cwd=folder, task_workers=1, **settings)
        with self.client() as client:
            client.call("devices.state")

    @property
    def address(self) -> str:
        """The engine's."""
        return self.engine.address

    def client(self, address: str = "", **options: Any) -> Client:
        """A program that has just been started."""
        return Client(address or self.address, **{"timeout": deadline(20), **options})

    def arm(self) -> None:
        """Have the machine move again, whatever has been: a stop ends what anybody holds."""
        with self.client() as client:
            wait_until(lambda: _answers(client), 20, "the lane")
            client.stop()
            client.arm()
        armed = time.monotonic()
        # whoever appears from here on has done so after the arm for sure, as far as its clock is known
        wait_until(lambda: time.monotonic() > armed + KNOWN_S, 5, "a moment")

    # Pins ------------------------------------------------------------------------------------------------------------

    def edges(self, pin: int) -> list[Edge]:
        """Return the levels that a pin had."""
        found = re.findall(rf"^(\S+) GPIO{pin} (\S+)$", (self.folder / "edges").read_text(), re.MULTILINE)
        return [Edge(float(at), float(value)) for at, value in found]

    def level(self, pin: int) -> float:
        """Return the level of a pin."""
        edges = self.edges(pin)
        return edges[-1].value if edges else 0.0

    def await_level(self, pin: int, *, on: bool, seconds: float = 5.0) -> None:
        """Wait until a pin is on, or off."""
        wait_until(lambda: bool(self.level(pin)) == on, seconds, f"GPIO{pin} to be {'on' if on else 'off'}")

    def turned_on(self, pin: int, since: float) -> list[float]:
        """When a pin was driven up after that."""
        return [edge.at for edge in self.edges(pin) if edge.at > since and edge.value]

    def fell(self, pin: int) -> float:
        """When a pin was driven down last; it is down."""
        self.await_level(pin, on=False)
        return self.edges(pin)[-1].at

    # Processes -------------------------------------------------------------------------------------------------------

    def pid(self, role: str) -> int:
        """The only process of a role."""
        (found,) = self.engine.pids(role)
        return found

    @property
    def owner(self) -> int:
        """The process that has the pins."""
        return self.pid("pin worker")

    @contextlib.contextmanager
    def program(self, text: str, *arguments: str, address: str = "") -> Iterator[subprocess.Popen[str]]:
        """Another program with a `client`, which prints; killed in the end."""
        head = "import sys, threading, time\nfrom taskengine import Client\nclient = Client(sys.argv[1], timeout=20)\n"
        command = [sys.executable, "-c", head + text, address or self.address, *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    # The lane --------------------------------------------------------------------------------------------------------

    def settle(self, client: Client) -> None:
        """Wait until all that the engine has accepted is done."""
        wait_until(lambda: client.stats().in_flight == 0, 30, "all that is in flight")
        client.call("devices.state")

    @contextlib.contextmanager
    def held(self, client: Client, seconds: float, how: str = "hold") -> Iterator[None]:
        """The lane is busy for that long."""
        with self.client() as watching, watching.subscribe(f"lane.{how}s") as feed:
            holding = client.submit(f"lane.{how}", seconds)
            # others may have held it before, for as long
            next(sample for sample in feed if sample.value == seconds)
            yield
        with contextlib.suppress(TaskEngineError):
            holding.result(deadline(20))

    def close(self) -> None:
        """Stop the engine."""
        self.engine.close()


def _answers(client: Client) -> bool:
    try:
        client.call("devices.state")
    except TaskEngineError:
        return False
    return True


class Relay:
    """A TCP line to a port, which can stand still: what is sent meanwhile comes later, whoever sent it.

    The port does not see that a sender has ended, as where its last packet is lost.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._flows = threading.Event()
        self._flows.set()
        self.passed = threading.Event()
        """Set once a sender has ended, and all that it sent has come through."""
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def _begin(self, work: Callable[..., object], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                there = socket.create_connection(("127.0.0.1", self._port))
                self._ends += [here, there]
                for one, other in ((here, there), (there, here)):
                    self._begin(self._pass, one, other)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while True:
                select.select([source], [], [])
                self._flows.wait()
                data = source.recv(65536)
                if not data:
                    self.passed.set()
                    return
                target.sendall(data)

    def freeze(self) -> float:
        """Nothing comes through from here on, monotonic s."""
        self._flows.clear()
        return time.monotonic()

    def thaw(self) -> float:
        """All comes through, what was held up first; not before this, monotonic s."""
        now = time.monotonic()
        self._flows.set()
        return now

    def close(self) -> None:
        """Cut the line."""
        self._flows.set()
        self._listener.close()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def relay(site: Site) -> Relay:
    """A line to an engine's frontend."""
    return Relay(int(site.engine.settings["router_frontend"]))


def signal_all(pids: list[int], number: int) -> None:
    """Send many processes a signal."""
    for pid in pids:
        os.kill(pid, number)
