"""The memory that STATS gives for the router's clients is the memory that they take, whatever they send."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from taskengine.protocol.limits import MAX_CHANGES, MAX_NAMES
from taskengine.protocol.messages import Request, RequestKind, Stats, decode_reply, encode_request
from tests.engine import Engine, deadline, resident
from tests.integration.seedclient import meta, task

MIB = 2**20
HELD = 100 * MIB
ALLOWANCE = 24 * MIB
"""Bytes that are not the clients': buffers of ZeroMQ, and memory that Python keeps for the next."""
TASKS = """
import time
from pathlib import Path
from taskengine import task

@task(lane="still")
def still(*args):
    while not Path(__file__).with_name("over").exists():
        time.sleep(0.01)

@task(lane="calm")
def calm(*args):
    still()
"""
_serials = itertools.count(1)
Frames = list[bytes]


def package(names: list[str], calls: list[bytes]) -> Frames:
    """A package of wire 0.2."""
    ends = itertools.accumulate(map(len, calls))
    index = b"".join(end.to_bytes(4, "little") for end in ends)
    return [encode_request(Request(RequestKind.PACKAGE, next(_serials), "x", names)), index, b"".join(calls)]


def large() -> Frames:
    return package(["still"], [b"\x92\x00\x91\xc6" + MIB.to_bytes(4) + bytes(MIB)])


def tiny() -> Frames:
    return package(["still"], [b"\x92\x00\x90"])


def many_tasks() -> Frames:
    return package(["still"], [b"\x92\x00\x90"] * 4000)


def in_turns() -> Frames:
    """Tasks that change from lane to lane, each a run of its own."""
    return package(["still", "calm"], [b"\x92\x00\x90", b"\x92\x01\x90"] * (MAX_CHANGES // 2))


def many_names() -> Frames:
    return package(["still", *(f"{number:x}" for number in range(MAX_NAMES - 1))], [b"\x92\x00\x90"])


def seed() -> Frames:
    return [b"", meta(serial=f"{next(_serials)}"), *[task("still", 1)] * 3]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    (tmp_path / "held.py").write_text(TASKS)
    most: dict[str, Any] = {
        f"{whose}_{what}": 2**31 for whose in ("queue", "client") for what in ("bytes", "tasks", "packages")
    }
    with Engine(cwd=tmp_path, tasks="held.py", enable_stdout="false", **most) as engine:
        yield engine
        (tmp_path / "over").touch()


def bytes_in_flight(socket: zmq.Socket[bytes]) -> int:
    """Ask by the connection that sends the requests: beside another client it might be refused as too busy."""
    socket.send(encode_request(Request(RequestKind.STATS, next(_serials), "x")))
    assert socket.poll(int(deadline(60) * 1000)), "no reply"
    head, *body = socket.recv_multipart()
    assert decode_reply(head).error is None, decode_reply(head).error
    return msgspec.msgpack.decode(body[0], type=Stats).bytes_in_flight


@pytest.mark.parametrize("made", [large, tiny, many_tasks, in_turns, many_names, seed])
def test_requests_in_flight_take_what_is_told(engine: Engine, made: Callable[[], Frames]) -> None:
    [router] = engine.pids("router")
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger, socket.sndhwm = 0, 100
        socket.connect(engine.address)
        told_before, before = bytes_in_flight(socket), resident(router)
        told = 0
        while told < HELD:
            socket.send_multipart(made())
            for _ in range(200 if made in (tiny, seed, many_tasks) else 8):
                socket.send_multipart(made())
            told = bytes_in_flight(socket) - told_before
        grown = resident(router) - before
        assert grown < 1.5 * told + ALLOWANCE, f"{grown / MIB:.0f} MiB, of which {told / MIB:.0f} are told"


def test_requests_that_were_not_read_yet_take_little(engine: Engine) -> None:
    """No quota counts them, so ZeroMQ is not to read ahead of the router for as long as it likes."""
    [router] = engine.pids("router")
    published = [b"", meta(type="PUB"), msgspec.json.encode({"data": {"topic": "x", "value": [0] * 500_000}})]
    with zmq.Context() as context, contextlib.ExitStack() as held:
        sockets = [held.enter_context(context.socket(zmq.DEALER)) for _ in range(5)]
        for socket in sockets:
            socket.linger = socket.sndhwm = 0
            socket.connect(engine.address)
        asking, *pouring = sockets
        told, most = [bytes_in_flight(asking)], [resident(router)]
        for _ in range(60):
            for socket in pouring:
                socket.send_multipart(published)
        waiting = dict.fromkeys(pouring, 60)
        while any(waiting.values()):
            for socket in waiting:
                while waiting[socket] and socket.poll(1):
                    socket.recv_multipart()
                    waiting[socket] -= 1
            most.append(resident(router))
            told.append(bytes_in_flight(asking))
    grown, counted = max(most) - most[0], max(told) - told[0]
    assert grown < 1.5 * counted + 96 * MIB, f"{grown / MIB:.0f} MiB, of which {counted / MIB:.0f} are told"
