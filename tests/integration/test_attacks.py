"""Attacks on others by a client with a key and no rights, and by a stranger: each of these has worked once."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from taskengine import Client, NotAllowed, TaskTimeout
from taskengine.security.credentials import present
from taskengine.security.keys import KeyRing
from tests.engine import Engine, deadline, resident, wait_until
from tests.integration.seedclient import meta, task

MIB = 2**20
POLICY = """
[policy.tablet]
tasks = ["*"]
publish = ["*"]
subscribe = ["drive.*"]
"""


class Site:
    """An engine under a policy, with an honest client and one that has a key and no rights."""

    def __init__(self, folder: Path, **settings: int) -> None:
        self._folder = folder
        (folder / "taskengine.toml").write_text(POLICY)
        wanted: dict[str, Any] = {"keys": folder / "keys", **settings}
        self.engine = Engine(cwd=folder, **wanted)
        ring = KeyRing(folder / "keys")
        self.members = {
            name: KeyRing(folder / name).accept(ring.pair(name, self.engine.address)) for name in ("tablet", "stranger")
        }

    def client(self, name: str) -> Client:
        return Client(self.engine.address, timeout=deadline(20), keys=self._folder / name)

    def stranger(self, context: zmq.Context[zmq.Socket[bytes]], kind: int, port: str) -> zmq.Socket[bytes]:
        """A socket that shows the key without rights."""
        made: zmq.Socket[bytes] = context.socket(kind)
        made.linger, made.sndhwm = 0, 0
        present(made, self.members["stranger"].engine, self.members["stranger"].own)
        number = int(self.engine.settings[port]) + (2 if port == "starting_port" else 0)
        made.connect(f"tcp://127.0.0.1:{number}")
        return made


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    with site.engine:
        yield site


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    with zmq.Context() as context:
        yield context


@pytest.mark.parametrize("said", [b"\x02drive.", b"", b"zz", b"\x01" + b"x" * 300])
def test_what_is_no_subscription_ends_nobody_elses(
    site: Site, context: zmq.Context[zmq.Socket[bytes]], said: bytes
) -> None:
    with (
        site.client("tablet") as tablet,
        tablet.subscribe("drive.*") as feed,
        site.stranger(context, zmq.XSUB, "starting_port") as hostile,
    ):
        tablet.publish("drive.x", 0)
        assert feed.get(deadline(20)).value == 0
        hostile.send(said)
        for number in range(1, 50):
            tablet.publish("drive.x", number)
            time.sleep(0.01)
        tablet.publish("drive.x", "last")
        wait_until(lambda: feed.get(deadline(20)).value == "last", 20, "what is published behind it")


def test_nobody_gets_the_subscription_of_another(site: Site, context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """Messages that are no subscriptions had ZeroMQ take one connection for another."""
    with site.client("tablet") as tablet, site.stranger(context, zmq.XSUB, "starting_port") as hostile:
        for _ in range(3000):
            hostile.send(b"\x02zz")
        for number in range(300):
            hostile.send(b"\x01zz%d" % number)
        for attempt in range(5):
            with tablet.subscribe("drive.*") as feed:
                for number in range(200):
                    hostile.send(b"\x01q%d" % number)
                tablet.publish("drive.secret", attempt)
                wait_until(lambda feed=feed, n=attempt: feed.get(deadline(20)).value == n, 20, "its own value")  # type: ignore[misc]
        assert not hostile.poll(500)


def test_subscriptions_take_a_data_worker_little_memory(site: Site, context: zmq.Context[zmq.Socket[bytes]]) -> None:
    [worker] = site.engine.pids("data")
    before = resident(worker)
    with site.client("tablet") as tablet, site.stranger(context, zmq.XSUB, "starting_port") as hostile:
        for _ in range(40_000):
            hostile.send(b"\x01" + os.urandom(200))
        tablet.publish("drive.x", 1)
        wait_until(lambda: "cut off" in (site._folder / "keys" / "audit.jsonl").read_text(), 20, "its end")
        wait_until(lambda: resident(worker) - before < 48 * MIB, 20, "the memory back")
        assert tablet.latest("drive.x") == 1
    assert site.engine.pids("data") == [worker]


def test_who_has_too_many_subscriptions_is_cut_off_and_not_who_had_many(
    site: Site, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    audit = site._folder / "keys" / "audit.jsonl"
    with (
        site.client("tablet") as tablet,
        context.socket(zmq.XSUB) as busy,
        site.stranger(context, zmq.XSUB, "starting_port") as hostile,
    ):
        busy.linger, busy.sndhwm = 0, 0
        present(busy, site.members["tablet"].engine, site.members["tablet"].own)
        busy.connect(f"tcp://127.0.0.1:{int(site.engine.settings['starting_port']) + 2}")
        for number in range(2500):  # one after the other, and none of them lives
            busy.send(b"\x01drive.%d" % number)
            busy.send(b"\0drive.%d" % number)
        busy.send(b"\x01drive.x")
        tablet.publish("drive.x", 1)
        assert busy.poll(int(deadline(20) * 1000))
        for number in range(2100):
            hostile.send(b"\x01%d" % number)
        wait_until(lambda: audit.exists() and "cut off" in audit.read_text(), 20, "its end")
        while busy.poll(300):
            busy.recv_multipart()
        tablet.publish("drive.x", 2)
        assert busy.poll(int(deadline(20) * 1000))
        assert b'"data":2' in busy.recv_multipart()[2]
    cut_off = [line for line in audit.read_text().splitlines() if "cut off" in line]
    assert ["stranger" in line for line in cut_off] == [True]


@pytest.mark.parametrize("port", ["router_frontend", "starting_port"])
def test_who_takes_all_descriptors_ends_no_process(tmp_path: Path, port: str) -> None:
    site = Site(tmp_path, connections=16, handshake_time=30)
    with site.engine as engine, site.client("tablet") as tablet, contextlib.ExitStack() as held:
        pids = engine.pids()
        futures = [tablet.submit("task_sleep", 0.05) for _ in range(40)]
        tablet.flush()
        number = int(engine.settings[port]) + (2 if port == "starting_port" else 0)
        for _ in range(320):
            peer = held.enter_context(socket.socket())
            peer.settimeout(0.3)
            with contextlib.suppress(OSError):
                peer.connect(("127.0.0.1", number))
        assert [future.result() for future in futures] == [0.05] * 40
        time.sleep(1.0)
        held.close()
        assert tablet.call("task_echo", 1) == 1
        assert engine.pids() == pids


@pytest.mark.parametrize(("names", "told"), [(("a", "b"), b"change from lane to lane"), (("a",), b"does not let")])
def test_denied_tasks_cost_the_router_little(
    site: Site, context: zmq.Context[zmq.Socket[bytes]], names: tuple[str, ...], told: bytes
) -> None:
    [router] = site.engine.pids("router")
    before = resident(router)
    frames = [task(names[n % len(names)]) for n in range(65_000)]
    with site.client("tablet") as tablet, site.stranger(context, zmq.DEALER, "router_frontend") as hostile:
        hostile.send_multipart([b"", meta(), *frames])
        assert hostile.poll(int(deadline(20) * 1000))
        assert told in hostile.recv_multipart()[1]
        assert tablet.call("task_echo", 1) == 1
        with site.client("stranger") as client, pytest.raises(NotAllowed):
            client.map("x" * 1000, range(2**20))
    assert resident(router) - before < 64 * MIB
    assert site.engine.pids("router") == [router]


def test_a_task_without_a_name_is_denied_too(site: Site) -> None:
    with site.client("stranger") as client, pytest.raises((NotAllowed, TaskTimeout)):
        client.call("")
