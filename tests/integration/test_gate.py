"""Admission of clients: every kind of key at every socket, plain and encrypted, and what got through."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import zmq

from taskengine import Client, NotAllowed
from taskengine.protocol.messages import Request, RequestKind, decode_reply, encode_request
from taskengine.security.credentials import present
from taskengine.security.keys import KeyRing, Membership, new_pair
from tests.engine import Engine, deadline, wait_until
from tests.summary import DOOR

KEYS = ["no key", "unknown key", "revoked key", "allowed key"]
SOCKETS = ["frontend", "backend", "data port"]


class Guarded(NamedTuple):
    """A running engine with CURVE, and the keys of those who knock."""

    engine: Engine
    ring: KeyRing
    memberships: dict[str, Membership | None]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("keys")
    ring = KeyRing(folder)
    with Engine(curve="on", keys=folder) as engine:
        allowed = ring.accept(ring.pair("allowed", engine.address))
        revoked = KeyRing(folder / "other").accept(ring.pair("revoked", engine.address))
        ring.revoke("revoked")
        unknown = Membership(engine.address, ring.engine().public, "unknown", new_pair())
        keys = dict(zip(KEYS, (None, unknown, revoked, allowed), strict=True))
        yield Guarded(engine, ring, keys)


def knock(engine: Engine, where: str, membership: Membership | None, patience: float) -> bool:
    """Whether anything gets through in `patience` s: of the engine to a stranger, or of the stranger to it."""
    addresses = {
        "frontend": engine.address,
        "backend": engine.backend,
        "data port": f"tcp://127.0.0.1:{int(engine.settings['starting_port']) + 2}",
    }
    with zmq.Context() as context, context.socket(zmq.SUB if where == "data port" else zmq.DEALER) as socket:
        socket.linger = 0
        if membership is not None:
            present(socket, membership.engine, membership.own)
        if where == "data port":
            socket.subscribe("")
        socket.connect(addresses[where])
        if where == "frontend":
            with contextlib.suppress(zmq.Again):  # libzmq may have given the connection up already
                socket.send_multipart([encode_request(Request(RequestKind.INFO, 1, "stranger"))], zmq.NOBLOCK)
        elif where == "backend":
            # every worker must be told from this one: it would get chunks, or its own would be answered
            socket.send_multipart([b"HELLO", b"", b"x" * 32])
            with Client(engine.address, timeout=deadline(20), keys=engine.settings.get("keys")) as client:
                for _ in range(5):
                    assert client.map("task_count", range(100), range(100)) == list(range(100))
        return bool(socket.poll(int(deadline(patience) * 1000)))


@pytest.mark.parametrize("where", SOCKETS)
@pytest.mark.parametrize("key", KEYS)
def test_only_who_is_allowed_gets_through_with_curve(
    guarded: Guarded, record_property: Callable[[str, object], None], where: str, key: str
) -> None:
    expected = key == "allowed key" and where != "backend"
    got_through = knock(guarded.engine, where, guarded.memberships[key], 20 if expected else 0.3)
    record_property(DOOR, ("CURVE", where, key, got_through))
    assert got_through is expected


@pytest.mark.parametrize("where", SOCKETS)
@pytest.mark.parametrize("key", KEYS)
def test_on_a_plain_loopback_nobody_is_a_worker_either(
    engine: Engine, guarded: Guarded, record_property: Callable[[str, object], None], where: str, key: str
) -> None:
    # who shows a key expects the other side to have one too, so only those without get through
    expected = key == "no key" and where != "backend"
    got_through = knock(engine, where, guarded.memberships[key], 20 if expected else 0.3)
    record_property(DOOR, ("plain", where, key, got_through))
    assert got_through is expected


def test_the_clients_verbs_with_a_key(guarded: Guarded) -> None:
    with Client(guarded.engine.address, timeout=deadline(20), keys=guarded.ring.folder) as client:
        assert client.map("task_count", range(4001), range(4001)) == list(map(float, range(4001)))
        client.publish("x", 1)
        assert client.latest("x") == 1
        with client.subscribe("x") as feed:
            assert feed.get(deadline(20)).value == 1


@pytest.mark.parametrize("text", [None, "{"])
def test_a_file_that_is_no_good_costs_nobody_else_the_door(guarded: Guarded, text: str | None) -> None:
    routers = guarded.engine.pids("router")
    bad = guarded.ring.folder / "clients" / "bad.json"
    bad.write_text("{}" if text is None else text)
    bad.chmod(0o644 if text is None else 0o600)
    try:
        assert knock(guarded.engine, "frontend", guarded.memberships["allowed key"], 20)
        assert not knock(guarded.engine, "frontend", guarded.memberships["unknown key"], 0.3)
        wait_until(lambda: "Left out: " in guarded.engine.output(), 20, "the line that tells of it")
        assert guarded.engine.pids("router") == routers
    finally:
        bad.unlink()


def test_who_is_not_let_in_is_told_at_once(guarded: Guarded, tmp_path: Path) -> None:
    with Client(guarded.engine.address, timeout=deadline(20)) as plain, pytest.raises(NotAllowed, match="keys pair"):
        plain.call("task_count", 2, 3)
    with (
        Client(guarded.engine.address, timeout=deadline(20), keys=guarded.ring.folder / "other") as revoked,
        pytest.raises(NotAllowed, match="keys pair"),
    ):
        revoked.call("task_count", 2, 3)


def test_nobody_takes_the_name_of_a_connection(guarded: Guarded) -> None:
    """A client that has left may have replies to come, which another client with its routing id would get."""
    membership = guarded.memberships["allowed key"]
    assert membership is not None
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger, socket.routing_id = 0, b"someone"
        present(socket, membership.engine, membership.own)
        socket.connect(guarded.engine.address)
        socket.send_multipart([encode_request(Request(RequestKind.INFO, 1, "someone"))])
        assert socket.poll(int(deadline(20) * 1000))
        error = decode_reply(socket.recv_multipart()[0]).error
    assert error is not None
    assert "ZMQ_ROUTING_ID" in error[1]
