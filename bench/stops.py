"""`python -m bench.stops`: measure how soon pins are safe by each way to stop the machine, beside a load, on mock pins.

The load: 4000 tasks a second at the engine's other workers, and a package of 100 000 in the lane that has the pins. The
time is from the call to the pin, which notes when it was driven low, not to the answer. With the router stopped
(SIGSTOP) only the ways past it are measured. Ends with 1 where a p99 is beyond its bound.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import zmq
from rich.console import Console
from rich.table import Table

from bench.compiled import NotCompiled, check_compiled
from bench.figures import percentile
from bench.quiet import Quiet

if TYPE_CHECKING:
    from taskengine import Client

ROUNDS = 100
LOAD = 4000
"""Tasks a second at the other workers."""
BATCH_S = 0.05
LARGE = 100_000
"""Tasks of the package in the lane."""
BESIDE_S, PAST_S = 0.020, 0.050
"""Within which pins are to be safe in 99 of 100 cases: beside the load, and with the router stopped."""
PATIENCE_S = 20.0
POLL_S = 0.001
PIN = 20
WHEEL = "wheel"
TABLE = f'[hardware.devices.{WHEEL}]\ntype = "Motor"\nforward = {PIN}\nbackward = 21\nlease = 60\n'
TASKS = '''
from gpiozero import Device
from taskengine import task
from taskengine_hardware import robot


@task(name="bench.drive", lane="hardware", urgent=True)
def drive(stop):
    """Undo a stop, and run the wheel, past what waits in the lane."""
    if stop:
        robot().system_arm(stop)
    robot().motor_forward("wheel")


@task(name="bench.fell", lane="hardware", urgent=True, idempotent=True)
def fell(number):
    """When the pin was driven low last, monotonic s, or None where it is high."""
    pin = Device.pin_factory.pin(number)
    return None if pin.state else pin._last_change


@task(name="bench.step", lane="hardware")
def step():
    """Take a little of the lane's time."""
    return sum(range(1000))
'''


class Site(NamedTuple):
    """A running engine, and who stops it."""

    client: Client
    address: str
    pid: int
    stop_port: int


def by_client(site: Site) -> None:
    """All ways at once, as a program does."""
    site.client.stop(timeout=PATIENCE_S)


def by_call(site: Site) -> object:
    """A call, which goes by all ways as well."""
    return site.client.call("system.stop")


def by_submit(site: Site) -> object:
    """As any other task, beside others in the client's queue."""
    return site.client.submit("system.stop").result(PATIENCE_S)


def by_send(site: Site) -> None:
    """With no answer."""
    site.client.send("system.stop")


def by_guardian(site: Site) -> object:
    """The guardian's socket, as `docs/protocol.md` has it."""
    from taskengine.rundir import stop_path

    path = stop_path(site.address)
    if path is None:
        raise SystemExit("bench: the guardian serves no socket")
    return ask_guardian(path, secrets.token_bytes(16), "bench")


def ask_guardian(path: Path, id: bytes, why: str) -> Any:
    """The guardian's answer to a stop: its number, and the lanes that are late."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as guardian:
        guardian.settimeout(PATIENCE_S)
        guardian.connect(os.fspath(path))
        guardian.send(msgspec.msgpack.encode([id, why]))
        return msgspec.msgpack.decode(guardian.recv(4096))


def by_port(site: Site) -> object:
    """The port past the router."""
    return _by_socket(f"tcp://127.0.0.1:{site.stop_port}")


def by_router(site: Site) -> object:
    """The router's port, a STOP message and no task."""
    return _by_socket(site.address)


def _by_socket(address: str) -> object:
    from taskengine.messages import Kind, Request, encode_request

    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(address)
        body = msgspec.msgpack.encode([secrets.token_bytes(16), "bench"])
        socket.send_multipart([encode_request(Request(Kind.STOP, 1, "bench")), body])
        if not socket.poll(int(1000 * PATIENCE_S)):
            raise SystemExit(f"bench: {address} does not answer a stop")
        return socket.recv_multipart()


def by_signal(site: Site) -> None:
    """SIGUSR1 to the supervisor."""
    os.kill(site.pid, signal.SIGUSR1)


WAYS: Mapping[str, Callable[[Site], object]] = {
    "Client.stop()": by_client,
    "call": by_call,
    "submit": by_submit,
    "send": by_send,
    "STOP at the router": by_router,
    "the guardian's socket": by_guardian,
    "the stop's port": by_port,
    "SIGUSR1": by_signal,
}
PAST = ("Client.stop()", "call", "submit", "send", "the guardian's socket", "the stop's port", "SIGUSR1")
"""The ways that need no router."""


@contextlib.contextmanager
def load(address: str) -> Iterator[None]:
    """Tasks are offered at the other workers, and a large package waits in the lane, by a process of its own."""
    process = subprocess.Popen([sys.executable, "-m", "bench.stops", "--load", address])
    try:
        yield
        if process.poll() is not None:
            raise SystemExit("bench: the load has ended")
    finally:
        process.kill()
        process.wait()


def be_load(address: str) -> None:
    """Load the engine until killed."""
    from taskengine import TaskEngineError

    thread = threading.Thread(target=_fill, args=(address,), daemon=True)
    thread.start()
    with _unread(address) as client:
        due = time.monotonic()
        while True:
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due + BATCH_S, time.monotonic())
            with contextlib.suppress(TaskEngineError):
                client.run([("task_count", (2, 3), {})] * int(LOAD * BATCH_S))


def _fill(address: str) -> None:
    from taskengine import TaskEngineError

    with _unread(address) as client:
        package: list[Any] = [("bench.step", (), {})] * LARGE
        while True:
            with contextlib.suppress(TaskEngineError):
                client.run(package)


@contextlib.contextmanager
def _unread(address: str) -> Iterator[Client]:
    """A client that wants no results."""
    from taskengine import Client

    with Client(address, timeout=PATIENCE_S) as client:
        yield client.options(reply="none")


def measure(site: Site, way: Callable[[Site], object], rounds: int, router: int | None = None) -> Iterator[float]:
    """Seconds from the call until the wheel's pin is low, so often; with `router` that process stands still then."""
    client = site.client
    for _ in range(rounds):
        client.info()
        client.call("bench.drive", client.stop_in_force)
        if router is not None:
            os.kill(router, signal.SIGSTOP)
        start = time.monotonic()
        try:
            way(site)
            _settle(site, start)
        finally:
            if router is not None:
                os.kill(router, signal.SIGCONT)
        yield _fell(client) - start


def _settle(site: Site, start: float) -> None:
    """Give a way that does not say when it is done its time, before the router goes on."""
    time.sleep(max(0.0, start + 2 * PAST_S - time.monotonic()))


def _fell(client: Client) -> float:
    """When the wheel's pin was driven low."""
    end = time.monotonic() + PATIENCE_S
    while (found := client.call("bench.fell", PIN)) is None:
        if time.monotonic() > end:
            raise SystemExit("bench: the wheel's pin stays high")
        time.sleep(POLL_S)
    return float(found)


def rows(site: Site, rounds: int, router: int, quiet: Quiet) -> Iterator[tuple[str, list[float], float]]:
    """Each way, its times, and its bound."""
    with load(site.address):
        for name, way in WAYS.items():
            before, start = site.client.stats().answered, time.monotonic()
            took = list(measure(site, way, rounds))
            rate = (site.client.stats().answered - before) / (time.monotonic() - start)
            yield f"{name}, beside {rate:,.0f} tasks a second", took, BESIDE_S
    for name in PAST:
        quiet.wait()
        yield f"{name}, router stopped", list(measure(site, WAYS[name], rounds, router)), PAST_S


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.stops", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each way is measured")
    parser.add_argument("--load", metavar="ADDRESS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        be_load(options.load)
    try:
        check_compiled()
    except NotCompiled as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    from bench.engine import Engine, free_ports
    from bench.machine import this_machine
    from bench.processes import family
    from taskengine import Client

    console = Console(width=110)
    machine = this_machine()
    console.print(f"{machine.name}; {machine.system}; mock pins; {options.rounds} rounds a way", markup=False)
    shown = Table("way to stop", "median", "p99", "worst", "bound", "", box=None, pad_edge=False)
    (port,) = free_ports(1)
    is_good = True
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder, "own.py")
        own.write_text(TASKS)
        settings: dict[str, object] = {"tasks": f"taskengine.tasks,{own}", "stop_port": port, "enable_stdout": False}
        with (
            Engine(config=TABLE, pins="mock", **settings) as engine,
            Client(engine.address, timeout=PATIENCE_S) as client,
        ):
            client.call("devices.state")
            (router,) = (pid for pid, name in family(engine.pid).items() if "router" in name)
            site = Site(client, engine.address, engine.pid, port)
            for name, took, bound in rows(site, options.rounds, router, Quiet(PATIENCE_S)):
                p99 = percentile(took, 99)
                is_good &= p99 <= bound
                figures = [f"{figure * 1000:.2f} ms" for figure in (statistics.median(took), p99, max(took), bound)]
                shown.add_row(name, *figures, "" if p99 <= bound else "too late")
    console.print(shown)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
