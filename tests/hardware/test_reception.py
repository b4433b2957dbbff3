"""Calls that act as soon as the router receives them, at a real engine with mock pins, in the bytes of wire 0.2."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import pytest
import zmq

from taskengine import BadArguments, Client, NotAllowed, TaskFailed, _fastpath
from taskengine.client.calls import Call
from taskengine.errors import TaskEngineError, from_wire
from taskengine.protocol.messages import (
    Info,
    Reply,
    ReplyMode,
    Request,
    RequestKind,
    Stop,
    decode_reply,
    encode_request,
)
from tests.engine import Engine, deadline, wait_until
from tests.integration.seedclient import SeedClient, entries, meta, task

SETTINGS = """
client_packages = 20

[hardware.devices.pan]
type = "Servo"
pin = 18
lease = 3600

[hardware.devices.lamp]
type = "LED"
pin = 17
"""
OWN_TASKS = """
import time

import msgspec
from taskengine import origin, position, publish, source, task

@task(name="arm.sleep", lane="hardware")
def sleep(seconds):
    publish("arm.sleeps", seconds)
    time.sleep(seconds)

@task(name="whence")
def whence():
    return [*msgspec.structs.astuple(origin()), position(), time.monotonic_ns()]

@task(name="tell")
def tell(topic):
    publish(topic, 1)

@source(topic="hardware.lamp", period=0.01)
def lamp():
    return "a lie"
"""


class Raw:
    """A client that sends what it is told, at `address`."""

    def __init__(self, address: str) -> None:
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self._socket.linger = 1000
        self._socket.connect(address)

    def send(self, request: Request, *frames: bytes) -> None:
        self._socket.send_multipart([encode_request(request), *frames])

    def call(self, calls: list[Call], **head: Any) -> None:
        names: dict[str, int] = {}
        frames = _fastpath.pack_calls(calls, names)
        self.send(Request(RequestKind.PACKAGE, 1, "raw", list(names), **head), *frames)

    def receive(self) -> tuple[Reply, list[Any]]:
        assert self._socket.poll(int(deadline(20) * 1000)), "no reply came"
        head, *body = self._socket.recv_multipart()
        reply = decode_reply(head)
        if reply.error is not None:
            return reply, [from_wire(*reply.error)]
        count = reply.count if reply.reply == ReplyMode.ALL else 0
        return reply, _fastpath.unpack(body[0], count, _error) if body else []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._context.term()


def _error(data: bytes) -> TaskEngineError:
    return from_wire(*_fastpath.unpack(data, 1, bytes)[0])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("reception")
    (folder / "taskengine.toml").write_text(SETTINGS)
    (folder / "own.py").write_text(OWN_TASKS)
    with Engine(cwd=folder, pins="mock", tasks="own.py", enable_stdout="false") as engine:
        yield engine


@pytest.fixture
def client(shared: Engine) -> Iterator[Client]:
    with Client(shared.address, timeout=deadline(20)) as client:
        client.call("lease.acquire", ["pan"])  # on a busy machine it is not surely younger than the last arm
        client.call("servo.detach", "pan")
        yield client


@pytest.fixture
def raw(shared: Engine) -> Iterator[Raw]:
    with Raw(shared.address) as raw:
        yield raw


def pan(client: Client) -> object:
    return client.call("devices.state", "pan")["pan"]["value"]


def keep_busy(client: Client, seconds: float) -> None:
    """Have the owner run a task that takes so long."""
    client.call("devices.state")
    client.submit("arm.sleep", seconds)
    wait_until(lambda: _sleeps(client) == seconds, 10, "the task")


def _sleeps(client: Client) -> Any:
    """How long the owner's task takes, None where no such task has begun yet."""
    try:
        return client.latest("arm.sleeps")
    except TaskFailed:  # nothing was published
        return None


def stands_still(pid: int) -> bool:
    """Every thread of the process is stopped."""
    stats = [stat.read_text().rpartition(")")[2].split() for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(fields[0] == "T" for fields in stats)


def number(reply: Reply) -> int:
    assert reply.boot > 0
    return reply.stop


def test_every_reply_tells_the_engines_clock(raw: Raw) -> None:
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    clocks = []
    raw.call([("whence", (), {})])
    raw.send(Request(RequestKind.INFO, 2, "raw"), _fastpath.encode([["clock"]]))
    raw.send(Request(RequestKind.PROGRESS, 3, "raw"), b"too many frames are none of its business")
    raw.send(Request(RequestKind.CANCEL, 4, "raw"))
    for _ in range(4):
        reply, _ = raw.receive()
        clocks.append(reply.clock)
        assert reply.boot > 0
        assert reply.stop == 0
    after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert all(before < clock < after for clock in clocks)


def test_info_says_what_the_engine_can(raw: Raw) -> None:
    raw.send(Request(RequestKind.INFO, 1, "raw"))
    info = msgspec.convert(raw.receive()[1][0], Info)
    assert info.capabilities == ["clock", "stop", "each", "values", "streams", "progress", "publications"]
    assert "system.stop" in info.stop_tasks


def test_a_task_knows_where_its_call_came_from(raw: Raw) -> None:
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    said: dict[str, Any] = {"sent": now - 10**9, "bound": 10**8, "token": b"mine", "since": now - 5 * 10**9}
    raw.call([("whence", (), {})] * 3, **said)
    places = [result[8] for result in raw.receive()[1]]
    assert places == [0, 1, 2]
    raw.call([("whence", (), {})], **said)
    name, connection, holder, received, sent, bound, since, is_local, _, ran = raw.receive()[1][0]
    assert (name, holder, bound, is_local) == ("", b"\0mine", 10**8, True)
    assert len(connection) == 8 + 5
    assert sent < received <= ran
    assert (received - sent) / 1e9 == pytest.approx(1.1, abs=deadline(1))
    assert (received - since) / 1e9 == pytest.approx(5.1, abs=deadline(1))


def test_a_deadline_counts_from_sending(raw: Raw) -> None:
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    raw.call([("whence", (), {})], sent=now - 100 * 10**9, deadline=50.0)
    assert type(raw.receive()[1][0]).__name__ == "TaskTimeout"
    raw.call([("whence", (), {})], sent=now - 100 * 10**9, bound=100 * 10**9, deadline=50.0)
    assert type(raw.receive()[1][0]) is list


def test_a_stop_at_the_end_of_a_package_acts_at_once(client: Client, raw: Raw) -> None:
    client.call("servo.set", "pan", 0.5)
    keep_busy(client, 0.7)
    calls: list[Call] = [("devices.list", (), {})] * 3000
    raw.call([*calls, ("system.stop", (), {})])
    raw.send(Request(RequestKind.INFO, 2, "raw"))
    reply, _ = raw.receive()
    assert reply.serial == 2, "its tasks wait"
    assert number(reply) > 0
    assert number(raw.receive()[0]) == number(reply)
    assert pan(client) is None
    client.call("system.arm", stop=number(reply))


def test_stop_is_answered_when_the_pins_are_safe(client: Client, raw: Raw) -> None:
    client.call("servo.set", "pan", 0.5)
    keep_busy(client, 1.1)
    began = time.monotonic()
    raw.send(Request(RequestKind.STOP, 7, "raw"), _fastpath.encode(Stop(b"the same", "a hand")))
    reply, values = raw.receive()
    assert (reply.serial, values) == (7, [None])
    assert time.monotonic() - began < deadline(1), "not after the task that runs"
    first = number(reply)
    raw.send(Request(RequestKind.STOP, 8, "raw"), _fastpath.encode(Stop(b"the same", "a hand")))
    assert number(raw.receive()[0]) == first
    client.call("system.arm", stop=first)
    raw.send(Request(RequestKind.STOP, 9, "raw"), _fastpath.encode(Stop(b"the same", "a hand")))
    assert number(raw.receive()[0]) == 0, "it was undone"
    raw.send(Request(RequestKind.STOP, 10, "raw"))
    last = number(raw.receive()[0])
    assert last == first + 1
    client.call("system.arm", stop=last)


def test_a_stop_that_nobody_confirms(client: Client, raw: Raw, shared: Engine) -> None:
    (owner,) = shared.pids("pin")
    (guardian,) = shared.pids("guardian")
    for pid in (owner, guardian):
        os.kill(pid, signal.SIGSTOP)
        wait_until(partial(stands_still, pid), 10, "every thread of it")
    try:
        raw.send(Request(RequestKind.STOP, 7, "raw"))
        _, (error,) = raw.receive()
    finally:
        for pid in (owner, guardian):
            os.kill(pid, signal.SIGCONT)
    assert isinstance(error, TaskFailed)
    assert error.type == "NotConfirmed"
    raw.send(Request(RequestKind.STOP, 8, "raw"))
    reply, _ = raw.receive()
    client.call("system.arm", stop=reply.stop)


def test_nothing_is_too_full_for_a_stop(client: Client, raw: Raw) -> None:
    keep_busy(client, deadline(1.0))
    for _ in range(25):
        raw.call([("arm.sleep", (0,), {})])
    raw.call([("system.stop", (), {})])
    kinds = [type(raw.receive()[1][0]).__name__ for _ in range(26)]
    assert kinds.count("Overloaded") == 5
    raw.send(Request(RequestKind.INFO, 2, "raw"))
    client.call("system.arm", stop=number(raw.receive()[0]))
    assert kinds[-1] != "Overloaded"


@pytest.mark.parametrize("mode", [mode for mode in ReplyMode if mode < ReplyMode.STREAM])
def test_what_a_dead_client_queued_does_not_move_anything(client: Client, shared: Engine, mode: ReplyMode) -> None:
    client.call("servo.set", "pan", 0.0)
    keep_busy(client, deadline(1.0) + mode / 100)  # a value of its own, which it waits for
    accepted = client.stats().accepted
    with Raw(shared.address) as dead:
        dead.call([("servo.set", ("pan", 0.75), {})] * 10, reply=mode)
        wait_until(lambda: client.stats().accepted > accepted, 10, "its package")
    wait_until(lambda: not client.stats().lanes[1].queued or client.stats().in_flight < 2, 10, "the end of its queue")
    client.call("devices.list")
    assert pan(client) == 0.0


def test_nobody_but_the_owners_tells_what_the_pins_do(client: Client, shared: Engine) -> None:
    with pytest.raises(NotAllowed, match="the engine's own"):
        client.publish("hardware.pan", 1)
    with pytest.raises(BadArguments, match="the engine's own"):
        client.call("tell", "hardware.pan")
    client.publish("hardwareless", 1)
    client.call("tell", "hardwareless")
    client.call("gpio.write", "lamp", True)
    wait_until(lambda: client.latest("hardware.lamp"), 10, "the owner's word")
    assert client.latest("hardware.lamp") != "a lie"
    assert "Left out: source hardware.lamp" in shared.output()


def test_without_pins_there_is_nothing_to_stop_and_any_topic(tmp_path: Path) -> None:
    with Engine(cwd=tmp_path, enable_stdout="false") as engine, Raw(engine.address) as raw:
        raw.send(Request(RequestKind.STOP, 7, "raw"))
        reply, (error,) = raw.receive()
        assert (reply.serial, type(error).__name__) == (7, "UnknownTask")
        with Client(engine.address, timeout=deadline(20)) as client:
            client.publish("hardware.pan", 1)


def test_wire_0_1_says_no_time_and_its_holder_is_its_connection(shared: Engine) -> None:
    with SeedClient(shared.address) as seed:
        (entry,) = entries(seed.ask(meta(), task("whence")))
    name, connection, holder, received, sent, bound, since, is_local, *_ = json.loads(entry.removeprefix("job-p: "))
    assert (name, sent, bound, since, is_local) == ("", 0, 0, 0, True)
    assert connection == holder
    assert received > 0


def test_another_router_has_other_connections(client: Client, shared: Engine) -> None:
    def epoch() -> bytes:
        connection: bytes = client.call("whence")[1]
        return connection[:8]

    before = epoch()
    (router,) = shared.pids("router")
    os.kill(router, signal.SIGKILL)
    wait_until(lambda: shared.pids("router") not in ([], [router]), 20, "another router")
    assert epoch() != before
