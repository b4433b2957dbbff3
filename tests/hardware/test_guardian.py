"""The guardian beside pins that stay driven when their owner dies, as pigpiod's do, and those of a Pi's own kernels."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zmq

from taskengine import Client, NotAllowed, TaskEngineError
from taskengine.protocol.messages import Request, RequestKind, decode_reply, encode_request
from taskengine.runtime.control import StrangersMayStop, packets
from taskengine.runtime.control_channel import ControlChannel, new_channel
from taskengine.runtime.procfs import is_stopped
from taskengine.runtime.rundir import stop_path
from taskengine.supervisor.guardian_link import GuardianLink
from taskengine_hardware import SharedState, read
from taskengine_hardware.guardian import Guardian, Links
from tests.engine import Engine, alive, deadline, wait_until
from tests.hardware.pigpiod import Daemon

pytestmark = pytest.mark.alone

DEVICES = """
[hardware.devices.pan]
type = "Servo"
pin = 18
lease = 3600

[hardware.devices.wheel]
type = "Motor"
forward = 20
backward = 21
lease = 3600

[hardware.devices.brake]
type = "LED"
pin = 16
safe = true
"""


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    daemon = Daemon()
    yield daemon
    daemon.close()


@pytest.fixture
def engine(daemon: Daemon, tmp_path: Path) -> Iterator[Engine]:
    (tmp_path / "taskengine.toml").write_text(DEVICES)
    environ = {"PIGPIO_ADDR": "127.0.0.1", "PIGPIO_PORT": str(daemon.port)}
    with Engine(cwd=tmp_path, env=environ, pins="pigpio", enable_stdout="false") as engine:
        yield engine


@pytest.fixture
def client(engine: Engine, daemon: Daemon) -> Iterator[Client]:
    with Client(engine.address, timeout=deadline(20)) as client:
        client.call("devices.write", {"pan": 0.5, "wheel": 1.0, "brake": False})
        assert not is_safe(daemon)
        yield client


def is_safe(daemon: Daemon) -> bool:
    """No pulses, and the wheel stands."""
    return not daemon.level(18) and not daemon.level(20)


def test_what_the_daemon_would_go_on_driving_is_made_safe(client: Client, engine: Engine, daemon: Daemon) -> None:
    (owner,) = engine.pids("pin")
    os.kill(owner, signal.SIGKILL)
    wait_until(lambda: is_safe(daemon) and daemon.level(16) == 1, 5, "the guardian")
    with pytest.raises(NotAllowed, match="stopped by guardian"):
        client.call("motor.forward", "wheel")
    wait_until(lambda: _drives(client), 10, "another owner")
    assert daemon.level(20) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_service_that_ends_leaves_nothing_driven(
    client: Client, engine: Engine, daemon: Daemon, number: signal.Signals
) -> None:
    os.kill(engine.process.pid, number)
    wait_until(lambda: is_safe(daemon), 5, "the guardian")
    wait_until(lambda: daemon.clients == 0, 5, "the end of all who had pins")
    assert is_safe(daemon)


def test_a_service_whose_router_hangs_is_safe_within_a_second_and_ends_soon(
    client: Client, engine: Engine, daemon: Daemon
) -> None:
    (router,) = engine.pids("router")
    os.kill(router, signal.SIGSTOP)
    began = time.monotonic()
    engine.process.send_signal(signal.SIGTERM)
    wait_until(lambda: is_safe(daemon), 5, "the supervisor")
    assert time.monotonic() - began < deadline(1)
    assert engine.process.wait(deadline(5)) == 0


@pytest.mark.parametrize("freezes", [False, True])
def test_owners_rest_where_supervisor_and_guardian_are_killed_at_once(
    client: Client, engine: Engine, daemon: Daemon, freezes: bool
) -> None:
    (guardian,), (owner,) = engine.pids("guard"), engine.pids("pin")
    if freezes:
        os.kill(owner, signal.SIGSTOP)
        # the kernel wakes those that it finds stopped when the supervisor has ended
        wait_until(lambda: is_stopped(owner), 5, "a stopped owner")
    os.kill(guardian, signal.SIGKILL)
    os.kill(engine.process.pid, signal.SIGKILL)
    wait_until(lambda: is_safe(daemon) and daemon.level(16) == 1, 5, "the owner")
    wait_until(lambda: not alive(owner), 5, "its end")


def test_a_signal_to_the_supervisor_stops_the_machine(client: Client, engine: Engine, daemon: Daemon) -> None:
    engine.process.send_signal(signal.SIGUSR1)
    wait_until(lambda: is_safe(daemon), 5, "the stop")
    with pytest.raises(NotAllowed):
        client.call("devices.write", {"wheel": 1.0})
    wait_until(lambda: "Stopped the machine (SIGUSR1), stop 1" in engine.output(), 5, "the supervisor's word")
    client.call("system.arm")
    client.call("devices.write", {"wheel": 1.0})


def test_the_guardians_socket_stops_it_although_the_router_hangs(
    client: Client, engine: Engine, daemon: Daemon
) -> None:
    path = stop_path(engine.address)
    assert path is not None
    (router,) = engine.pids("router")
    os.kill(router, signal.SIGSTOP)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as guardian:
        guardian.settimeout(deadline(5))
        guardian.connect(str(path))
        guardian.send(msgspec.msgpack.encode((bytes(16), "smoke")))
        assert msgspec.msgpack.decode(guardian.recv(4096)) == [1, []]
    assert is_safe(daemon)
    os.kill(router, signal.SIGCONT)


def test_a_guardian_that_dies_leaves_the_socket_to_the_next(engine: Engine) -> None:
    (guardian,) = engine.pids("guard")
    os.kill(guardian, signal.SIGKILL)
    path = stop_path(engine.address)
    assert path is not None
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
        caller.settimeout(deadline(10))
        caller.connect(str(path))
        caller.send(msgspec.msgpack.encode((bytes(16), "smoke")))
        assert msgspec.msgpack.decode(caller.recv(4096))[0] == 1


def test_the_port_of_its_own_stops_it_although_the_router_hangs(client: Client, engine: Engine, daemon: Daemon) -> None:
    (router,) = engine.pids("router")
    os.kill(router, signal.SIGSTOP)
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.rcvtimeo, dealer.linger = int(1000 * deadline(5)), 0
        dealer.connect(f"tcp://127.0.0.1:{engine.settings['stop_port']}")
        head = encode_request(Request(RequestKind.STOP, 7, "test"))
        dealer.send_multipart([head, msgspec.msgpack.encode((bytes(16), "smoke"))])
        reply = decode_reply(dealer.recv_multipart()[0])
    assert (reply.serial, reply.error, reply.stop) == (7, None, 1)
    assert is_safe(daemon)
    os.kill(router, signal.SIGCONT)


def test_an_owner_that_is_stopped_is_ended(engine: Engine, daemon: Daemon, client: Client, tmp_path: Path) -> None:
    (owner,) = engine.pids("pin")
    os.kill(owner, signal.SIGSTOP)
    # its leases are long: it is the router that ends it, and the guardian that makes its pins safe
    wait_until(lambda: is_safe(daemon), 15, "the end of a worker that stands still")


def _drives(client: Client) -> bool:
    try:
        client.call("system.arm")
        client.call("devices.write", {"pan": 0.5, "wheel": 1.0, "brake": False})
    except TaskEngineError:
        return False
    return True


def test_it_is_told_whether_strangers_may_stop_the_machine_by_another_policy() -> None:
    layout = read({"devices": {"pan": {"type": "Servo", "pin": 2}}})
    supervisor, control = new_channel()
    with supervisor, control, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        links = Links(
            GuardianLink(ControlChannel(control, print)), 1.0, print, print, print, print, listener, strangers_may=True
        )
        guardian = Guardian(layout, SharedState(layout), "mock", links)
        assert guardian._stops is not None
        for may in (False, True):
            supervisor.send(packets(StrangersMayStop(may))[0])
            guardian._handle_control()
            assert guardian._stops.strangers_may is may
