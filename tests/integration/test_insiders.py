"""Attacks of a client that is let in on the router, and through it on everybody else: each of these has worked once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from taskengine import Client, NotAllowed
from taskengine.protocol.limits import MAX_NAMES
from taskengine.protocol.messages import Request, RequestKind, decode_reply, encode_request
from taskengine.security.credentials import present
from taskengine.security.keys import KeyRing
from tests.engine import Engine, deadline, resident, wait_until
from tests.integration.seedclient import meta, task

pytestmark = pytest.mark.alone

MIB = 2**20
FIRST_ID = 0x6B8B4567
"""The number from which libzmq counts its peers if nobody has seeded its generator."""


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    with zmq.Context() as context:
        yield context


def test_nobody_guesses_the_routing_id_that_is_next(engine: Engine, context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """libzmq ends its process where it gives a peer an id that another has announced."""
    [router] = engine.pids("router")
    with contextlib.ExitStack() as held:
        for number in range(60):
            hostile = held.enter_context(context.socket(zmq.DEALER))
            hostile.linger, hostile.routing_id = 0, b"\0" + (FIRST_ID + number).to_bytes(4)
            hostile.connect(engine.address)
            hostile.send_multipart([b"", b"{"])
            assert hostile.poll(int(deadline(20) * 1000))
        for _ in range(60):
            with Client(engine.address, timeout=deadline(20)) as client:
                assert client.call("task_echo", 1) == 1
    wait_until(lambda: engine.pids("router") == [router], 2, "the router that was there")


def test_a_plain_client_may_say_who_it_is(engine: Engine, context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """On a plain loopback wire 0.1 clients set their identity, and come again with it."""

    def is_answered() -> bool:
        with context.socket(zmq.REQ) as socket:
            socket.linger, socket.routing_id = 0, b"REQ-1"
            socket.connect(engine.address)
            socket.send_multipart([meta(), task("task_echo", 7)])
            # it is nobody's while the one before has not left
            return bool(socket.poll(int(deadline(0.5) * 1000))) and b": 7" in socket.recv_multipart()[1]

    for _ in range(2):
        wait_until(is_answered, 20, "an answer")


POLICY = """
[policy.tablet]
tasks = ["task_echo"]
publish = ["battery"]
subscribe = ["battery*"]

[policy.insider]
tasks = ["task_count"]
rate = 5.0

[policy.viewer]
tasks = ["big"]
calls = ["stats"]
"""
URGENT = """
from taskengine import task

@task(urgent=True)
def halt() -> None:
    "What must not wait."

@task
def big(size: int) -> bytes:
    return bytes(size)
"""


class Site:
    """An engine under a policy, with two clients that have keys."""

    def __init__(self, folder: Path, **settings: int) -> None:
        self.folder = folder
        (folder / "taskengine.toml").write_text(POLICY)
        (folder / "stops.py").write_text(URGENT)
        tasks = f"taskengine.tasks,{folder / 'stops.py'}"
        wanted: dict[str, Any] = {"keys": folder / "keys", "tasks": tasks, **settings}
        self.engine = Engine(cwd=folder, **wanted)
        self.ring = KeyRing(folder / "keys")
        self.members = {
            name: KeyRing(folder / name).accept(self.ring.pair(name, self.engine.address))
            for name in ("tablet", "insider", "viewer")
        }

    def client(self, name: str) -> Client:
        return Client(self.engine.address, timeout=deadline(20), keys=self.folder / name)

    def dealer(self, context: zmq.Context[zmq.Socket[bytes]], name: str, routing_id: bytes = b"") -> zmq.Socket[bytes]:
        """A socket that shows a key."""
        made: zmq.Socket[bytes] = context.socket(zmq.DEALER)
        made.linger, made.sndhwm = 0, 0
        made.reconnect_ivl = -1
        if routing_id:
            made.routing_id = routing_id
        present(made, self.members[name].engine, self.members[name].own)
        made.connect(self.engine.address)
        return made

    def audit(self) -> str:
        return (self.folder / "keys" / "audit.jsonl").read_text()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"), connections=24)
    with site.engine:
        yield site


def error_of(socket: zmq.Socket[bytes]) -> tuple[int, str, dict[str, Any]] | None:
    """Return the error of the next reply of wire 0.2."""
    assert socket.poll(int(deadline(20) * 1000))
    return decode_reply(socket.recv_multipart()[0]).error


@pytest.mark.parametrize("routing_id", [b"\0abc", b"\0" * 6, b"\0" + bytes(200)])
def test_an_id_that_libzmq_does_not_give_is_refused(
    site: Site, context: zmq.Context[zmq.Socket[bytes]], routing_id: bytes
) -> None:
    with site.dealer(context, "insider", routing_id) as hostile:
        hostile.send(encode_request(Request(RequestKind.INFO, 1, "x")))
        error = error_of(hostile)
    assert error is not None
    assert "ZMQ_ROUTING_ID" in error[1]


def test_what_may_not_be_called_is_not_urgent(site: Site, context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """No rate held for packages of small stops that the policy denied, and they went before all others."""
    call = b"\x92\x00\x90"
    with site.dealer(context, "insider") as hostile:
        for serial in range(1, 65):
            head = encode_request(Request(RequestKind.PACKAGE, serial, "x", ["halt"]))
            hostile.send_multipart([head, len(call).to_bytes(4, "little"), call])
        errors = [error_of(hostile) for _ in range(64)]
    refused = [error for error in errors if error is not None]
    assert refused
    assert all("5 tasks a second" in error[1] for error in refused)


def test_one_key_does_not_keep_the_router_busy_while_others_wait(
    site: Site, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    """Names alone, which no quota counts, took the router as long as they came."""
    call = b"\x92\x00\x90"
    names = [f"nobody.{number:x}" for number in range(MAX_NAMES)]
    refused: list[tuple[int, str, dict[str, Any]]] = []
    with site.client("tablet") as tablet, site.dealer(context, "insider") as hostile:
        hostile.reconnect_ivl = 100
        hostile.sndhwm = 50

        def is_cut_off() -> bool:
            head = encode_request(Request(RequestKind.PACKAGE, 1, "x", names))
            with contextlib.suppress(zmq.Again):
                for _ in range(50):
                    hostile.send_multipart([head, len(call).to_bytes(4, "little"), call], zmq.NOBLOCK)
            while hostile.poll(0):
                error = decode_reply(hostile.recv_multipart()[0]).error
                if error is not None and "while others wait" in error[1]:
                    refused.append(error)
            assert tablet.call("task_echo", 1) == 1
            return "while others wait" in site.audit() and bool(refused)

        wait_until(is_cut_off, 60, "its refusal")
    assert all(error[2]["retry_after"] > 0 for error in refused)
    told = [line for line in site.audit().splitlines() if "while others wait" in line]
    assert len(told) <= 2
    assert all('"client":"insider"' in line for line in told)


def test_what_one_key_leaves_unread_is_bounded_over_all_its_connections(
    site: Site, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    """30 connections that did not read held 1.8 GB, of which STATS said nothing."""
    [router] = site.engine.pids("router")
    before = resident(router)
    call = b"\x92\x00\x91\xce" + (7 * MIB).to_bytes(4)
    with contextlib.ExitStack() as held, site.client("viewer") as viewer:
        assert len(viewer.call("big", 1)) == 1
        for _ in range(9):
            lazy = held.enter_context(site.dealer(context, "viewer"))
            lazy.rcvhwm = 1
            for serial in (1, 2, 3):
                head = encode_request(Request(RequestKind.PACKAGE, serial, "x", ["big"]))
                lazy.send_multipart([head, len(call).to_bytes(4, "little"), call])
            assert lazy.poll(int(deadline(20) * 1000))
        wait_until(lambda: viewer.stats().in_flight == 0, 20, "the packages")
        grown, told = resident(router) - before, viewer.stats().bytes_in_flight
    assert 16 * MIB < told < 72 * MIB, f"{told / MIB:.0f} MiB"
    assert grown < 1.5 * told + 32 * MIB, f"{grown / MIB:.0f} MiB, of which {told / MIB:.0f} are told"


def test_one_key_does_not_take_all_connections(site: Site, context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """A client that had all descriptors kept revocations from being read, and others out."""
    [router] = site.engine.pids("router")
    with contextlib.ExitStack() as held:
        for _ in range(300):
            hostile = held.enter_context(site.dealer(context, "insider"))
            hostile.send(encode_request(Request(RequestKind.INFO, 1, "x")))
        wait_until(lambda: '"event":"cut off"' in site.audit(), 20, "their end")
        with site.client("tablet") as tablet:
            assert tablet.call("task_echo", 1) == 1
        site.ring.revoke("insider")
        wait_until(lambda: '"event":"key revoked"' in site.audit(), 5, "the revocation")
        with site.client("insider") as insider, pytest.raises(NotAllowed):
            insider.call("task_count", 1, 2)
    assert site.engine.pids("router") == [router]


def test_one_key_does_not_take_all_connections_of_a_data_worker(
    site: Site, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    """A client that subscribed often enough had all descriptors of the data worker."""
    [worker] = site.engine.pids("data")
    port = f"tcp://127.0.0.1:{int(site.engine.settings['starting_port']) + 2}"
    ends = "too many connections"
    before = site.audit().count(ends)
    with contextlib.ExitStack() as held:
        for _ in range(100):
            hostile: zmq.Socket[bytes] = held.enter_context(context.socket(zmq.SUB))
            hostile.linger, hostile.reconnect_ivl = 0, -1
            present(hostile, site.members["viewer"].engine, site.members["viewer"].own)
            hostile.connect(port)
            hostile.subscribe("x")
        wait_until(lambda: site.audit().count(ends) > before, 20, "their end")
        wait_until(lambda: len(list(Path(f"/proc/{worker}/fd").iterdir())) < 80, 20, "their descriptors")
        with site.client("tablet") as tablet, tablet.subscribe("battery*") as feed:
            tablet.publish("battery", 1)
            assert feed.get(deadline(20)).value == 1
