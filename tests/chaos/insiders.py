"""Attacks by clients whose keys are allowed and may do little.

An attack is a generator: it opens what it needs, and each `next` is one round. `Assault` repeats rounds in a process of
its own until it is told to stop.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import msgspec
import zmq

from taskengine.protocol.messages import Request, RequestKind, encode_request
from taskengine.security.credentials import present
from taskengine.security.keys import KeyRing, Pair
from tests.chaos.poison import call, poison
from tests.integration.seedclient import meta

MIB = 2**20
PATIENCE_MS = 1000
"""How long an insider waits for replies before it goes on."""
FIRST_IDS = 0x6B8B4567, 0xE43C9869, 0xF4B0DC51
"""The number from which libzmq counts the peers of a process's first sockets if nobody has seeded its generator."""
NO_ARGUMENTS = b"\x92\x00\x90"
STOP_TASK = "system.stop"

POLICY = """
[policy.insiders]
members = ["insider-*"]
tasks = [
    "loot_*", "task_echo", "devices.list", "x*a", "x*b", "x*c", "x*d", "x*e", "x*f", "x*g", "x*h", "x*i", "x*j", "x*k",
    "x*l", "x*m", "x*n", "x*o", "x*p", "x*q",
]
publish = ["loot.*"]
subscribe = ["loot.*"]
"""
"""The rights of insiders: 20 patterns of tasks, topics and a lane of their own."""
TASKS = '''
import time

from taskengine import task


@task(lane="loot")
def loot_nap(seconds: float) -> None:
    """Sleep."""
    time.sleep(seconds)


@task(lane="loot")
def loot_bytes(size: int) -> bytes:
    """Return so many bytes."""
    return bytes(size)


@task(lane="loot")
def loot_size(value: object) -> int:
    """Return how much that is."""
    return 0 if value is None else 1
'''


class Target(NamedTuple):
    """Where an engine listens, and its public key."""

    frontend: str
    data: str
    engine: str


class Insider(NamedTuple):
    """A client of `target` with an allowed key."""

    name: str
    target: Target
    own: Pair

    @classmethod
    def admit(cls, name: str, folder: Path, address: str, data: str) -> Insider:
        """Have the engine whose keys lie in `folder` let in a new client."""
        membership = KeyRing(folder.parent / name).accept(KeyRing(folder).pair(name, address))
        return cls(name, Target(address, data, membership.engine), membership.own)

    def socket(self, context: zmq.Context[Any], kind: int = zmq.DEALER, **options: Any) -> zmq.Socket[bytes]:
        """A connected socket that shows the key."""
        made: zmq.Socket[bytes] = context.socket(kind)
        made.linger, made.sndhwm, made.sndtimeo = 0, 64, PATIENCE_MS
        for name, value in options.items():
            setattr(made, name, value)
        present(made, self.target.engine, self.own)
        made.connect(self.target.data if kind in (zmq.SUB, zmq.XSUB) else self.target.frontend)
        return made


_NAMES = [f"x{number:04}y" for number in range(4096)]
Message = list[bytes]
Rounds = Generator[None, None, None]
Attack = Callable[[Insider, zmq.Context[Any]], Rounds]


def _package(serial: int, names: Sequence[str], tasks: Sequence[bytes]) -> Message:
    """A package of wire 0.2."""
    head = encode_request(Request(RequestKind.PACKAGE, serial, "insider", list(names)))
    ends = itertools.accumulate(map(len, tasks))
    return [head, b"".join(end.to_bytes(4, "little") for end in ends), b"".join(tasks)]


def _publication(topic: str, value: object) -> Message:
    return [encode_request(Request(RequestKind.PUBLISH, 1, "insider")), msgspec.msgpack.encode([topic, value])]


def _exchange(socket: zmq.Socket[bytes], messages: Sequence[Message]) -> None:
    """Send messages, and wait a while for as many replies."""
    with contextlib.suppress(zmq.Again):
        for message in messages:
            socket.send_multipart(message, copy=False)
        for _ in messages:
            if not socket.poll(PATIENCE_MS):
                return
            socket.recv_multipart()


def _repeated(messages: Sequence[Message]) -> Attack:
    """The attack that sends these messages again and again by one connection."""

    def attack(insider: Insider, context: zmq.Context[Any]) -> Rounds:
        with insider.socket(context) as socket:
            while True:
                _exchange(socket, messages)
                yield

    return attack


def _cancels(insider: Insider, context: zmq.Context[Any]) -> Rounds:
    """One serial for many packages, and CANCEL messages that name it with very many positions."""
    naps = _package(7, ["loot_nap"], [call(msgspec.msgpack.encode(0.2))] * 10)
    head = encode_request(Request(RequestKind.CANCEL, 7, "insider"))
    cancel = [head, msgspec.msgpack.encode([7, [1] * 60_000])]
    with insider.socket(context, sndhwm=0) as socket:
        while True:
            for _ in range(500):
                socket.send_multipart(naps)
            _exchange(socket, [cancel] * 8)
            yield


def _one_serial(insider: Insider, context: zmq.Context[Any]) -> Rounds:
    """One serial that is always in flight, for packages whose tasks change from lane to lane."""
    large = _in_turns(9, 2000)
    with insider.socket(context, sndhwm=0) as socket:
        for _ in range(8):
            socket.send_multipart(large)
        while True:
            if socket.poll(PATIENCE_MS):
                socket.recv_multipart()
            socket.send_multipart(large)
            yield


def _in_turns(serial: int, times: int) -> Message:
    """A package whose tasks change so often from lane to lane and back."""
    return _package(serial, ["task_echo", "loot_size"], [NO_ARGUMENTS, b"\x92\x01\x91\xc0"] * times)


def _unread(insider: Insider, context: zmq.Context[Any]) -> Rounds:
    """30 connections that ask for large replies and read none."""
    large = _package(1, ["loot_bytes"], [call(msgspec.msgpack.encode(7 * MIB))])
    while True:
        with contextlib.ExitStack() as held:
            for _ in range(30):
                socket = held.enter_context(insider.socket(context, rcvhwm=1, rcvbuf=4096))
                for _ in range(3):
                    socket.send_multipart(large)
                yield
            for _ in range(20):
                time.sleep(0.1)
                yield


def _seed_get(insider: Insider, context: zmq.Context[Any]) -> Rounds:
    """A large last value, asked for in the format of wire 0.1."""
    get = [b"", meta(type="GET"), b'{"data": {"topic": "loot.big"}}']
    with insider.socket(context) as socket:
        _exchange(socket, [_publication("loot.big", list(range(2_000_000)))])
        while True:
            _exchange(socket, [get])
            yield


def _idle_subscriber(insider: Insider, context: zmq.Context[Any]) -> Rounds:
    """Subscribers that read nothing of what is published."""
    film = _publication("loot.film", "x" * MIB)
    with contextlib.ExitStack() as held:
        for _ in range(4):
            held.enter_context(insider.socket(context, zmq.SUB, rcvhwm=1, rcvbuf=4096)).subscribe("loot.film")
        publisher = held.enter_context(insider.socket(context))
        while True:
            _exchange(publisher, [film] * 4)
            yield


def _churn(insider: Insider, context: zmq.Context[Any]) -> Rounds:
    """Subscribe and unsubscribe, each time for a large last value."""
    with insider.socket(context) as publisher, insider.socket(context, zmq.XSUB, sndhwm=0) as socket:
        _exchange(publisher, [_publication("loot.map", "x" * MIB)])
        while True:
            for _ in range(20):
                socket.send(b"\x01loot.map")
                socket.send(b"\0loot.map")
            while socket.poll(5):
                socket.recv_multipart()
            yield


def _many_subscriptions(insider: Insider, context: zmq.Context[Any]) -> Rounds:
    """Subscriptions without end, each of 200 bytes."""
    with insider.socket(context, zmq.XSUB, sndhwm=0) as socket:
        while True:
            for _ in range(500):
                socket.send(b"\x01loot." + os.urandom(100).hex().encode())
            time.sleep(0.01)
            yield


_INFO = [encode_request(Request(RequestKind.INFO, 1, "insider"))]


def _connections(insider: Insider, context: zmq.Context[Any]) -> Rounds:
    """Hold as many connections as there are."""
    with contextlib.ExitStack() as held:
        for number in itertools.count():
            if number < 200:
                held.enter_context(insider.socket(context, reconnect_ivl=200)).send_multipart(_INFO)
            else:
                time.sleep(0.05)
            yield


def _handshakes(insider: Insider, context: zmq.Context[Any]) -> Rounds:
    """Connect, say who one is, and leave."""
    while True:
        with contextlib.ExitStack() as held:
            sockets = [held.enter_context(insider.socket(context)) for _ in range(8)]
            for socket in sockets:
                socket.send_multipart(_INFO)
            for socket in sockets:
                socket.poll(PATIENCE_MS)
        yield


def _publishing(insider: Insider, context: zmq.Context[Any]) -> Rounds:
    """Very many topics, each with a value that is to be kept."""
    value = "x" * 2**16
    with insider.socket(context) as socket:
        for first in itertools.count(step=16):
            _exchange(socket, [_publication(f"loot.{(first + n) % 20_000}", value) for n in range(16)])
            yield


def _routing_ids(insider: Insider, context: zmq.Context[Any]) -> Rounds:
    """Announce the ids that libzmq would give next, and connect more often."""
    with contextlib.ExitStack() as held:
        for number in itertools.count():
            if number < 60:
                identity = b"\0" + (FIRST_IDS[number % 3] + 20 + number).to_bytes(4)
                socket = held.enter_context(insider.socket(context, routing_id=identity, reconnect_ivl=200))
                _exchange(socket, [_INFO])
            else:
                with insider.socket(context) as other:
                    _exchange(other, [_INFO])
                time.sleep(0.02)
            yield


def _questions(insider: Insider, context: zmq.Context[Any]) -> Rounds:
    """Ask what the engine has to look up, with many packages in flight."""
    kinds = (RequestKind.PROGRESS, RequestKind.TASKS, RequestKind.INFO, RequestKind.STATS)
    asked = [[encode_request(Request(kind, 1, "insider"))] for kind in kinds]
    nap = [call(msgspec.msgpack.encode(3.0))]
    with insider.socket(context, sndhwm=0) as socket:
        for serial in range(2, 1002):
            socket.send_multipart(_package(serial, ["loot_nap"], nap))
        while True:
            _exchange(socket, asked * 16)
            yield


ATTACKS: dict[str, Attack] = {
    "system.stop in heads": _repeated([_package(1, [STOP_TASK] * 2, [NO_ARGUMENTS, b"\x92\x01\x90"] * 50_000)] * 2),
    "CANCEL storm": _cancels,
    "one serial in flight": _one_serial,
    "lanes in turns": _repeated([_in_turns(1, 5000)] * 2),
    "names x policy": _repeated([_package(1, _NAMES, [NO_ARGUMENTS])] * 16),
    "empty packages": _repeated([_package(1, _NAMES, [])] * 16),
    "unread replies": _unread,
    "GET of wire 0.1": _seed_get,
    "PUB of wire 0.1": _repeated(
        [[b"", meta(type="PUB"), msgspec.json.encode({"data": {"topic": "loot.p", "value": [0] * 500_000}})]] * 4
    ),
    "poison for a task": _repeated([_package(1, ["task_echo"], [call(poison(8000))])]),
    "poison for pins": _repeated([_package(1, ["devices.list"], [call(poison(keys))]) for keys in (8000, 900)]),
    "idle subscriber": _idle_subscriber,
    "SUB/UNSUB": _churn,
    "subscriptions": _many_subscriptions,
    "connections": _connections,
    "handshakes": _handshakes,
    "publishing": _publishing,
    "routing ids": _routing_ids,
    "questions": _questions,
}


def _besiege(orders: Connection, insiders: Sequence[Insider]) -> None:
    """Run the attacks that are ordered, in turn, one for each insider, and count the rounds."""
    os.nice(19)
    while True:
        names = orders.recv()
        if not names:
            return
        is_over = threading.Event()
        rounds = [0] * len(insiders)
        with zmq.Context() as context:
            context.max_sockets = 4096
            threads = [
                threading.Thread(target=_repeat, args=(ATTACKS[name], insider, context, is_over, rounds, place))
                for place, (name, insider) in enumerate(zip(itertools.cycle(names), insiders, strict=False))
            ]
            for thread in threads:
                thread.start()
            orders.recv()
            is_over.set()
            for thread in threads:
                thread.join()
        orders.send(rounds)


def _repeat(
    attack: Attack, insider: Insider, context: zmq.Context[Any], is_over: threading.Event, rounds: list[int], place: int
) -> None:
    with contextlib.closing(attack(insider, context)) as going:
        for _ in going:
            rounds[place] += 1
            if is_over.is_set():
                return


class Assault:
    """A process that attacks for `insiders`, at the lowest priority: on other machines it would cost us no time."""

    def __init__(self, insiders: Sequence[Insider]) -> None:
        context = multiprocessing.get_context("spawn")
        self._orders, theirs = context.Pipe()
        self._process = context.Process(target=_besiege, args=(theirs, list(insiders)), daemon=True)
        self._process.start()

    @contextlib.contextmanager
    def by(self, *names: str) -> Iterator[list[int]]:
        """Attack by these means in turn, one for each insider; the rounds of each are in the list afterwards."""
        rounds: list[int] = []
        self._orders.send(names)
        try:
            yield rounds
        finally:
            self._orders.send(())
            rounds += self._orders.recv()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()

    def __enter__(self) -> Assault:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
