"""The whole way of packages over sockets: the public client, and a thread that plays router and workers from trips."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import msgspec
import zmq

from bench.system import TASK
from bench.trips import COLUMNS, NAME, Trip, welcome
from taskengine import Client
from taskengine._socket import Port, Waiter
from taskengine.protocol.messages import decode_reply, decode_request, encode_reply

END_S = 10.0


class End:
    """A socket of the engine, bound or connected."""

    def __init__(self, kind: int, address: str, *, bind: bool, name: bytes = b"") -> None:
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(kind)
        self._socket.linger = 0
        if name:
            self._socket.identity = name
        if bind:
            self._socket.bind(address)
        else:
            self._socket.connect(address)
        self._port = Port(self._socket)
        self._waiter = Waiter(self._port)

    def send(self, frames: Sequence[bytes]) -> None:
        """Send a message."""
        self._port.send(frames)

    def receive(self) -> list[bytes]:
        """Wait for a message."""
        while True:
            self._waiter.wait(-1)
            frames = self._port.receive()
            if frames is not None:
                return frames

    def close(self) -> None:
        """Close, without waiting."""
        self._socket.close()
        self._context.term()


class Exchange:
    """A client, and what answers it: ROUTERs and DEALERs over Unix sockets, each role's with a context of its own."""

    def __init__(self, trips: Sequence[Trip]) -> None:
        self._trips = trips
        self._folder = tempfile.TemporaryDirectory()
        front, back = (f"ipc://{self._folder.name}/{name}" for name in ("front", "back"))
        self._front = End(zmq.ROUTER, front, bind=True)
        self._back = End(zmq.ROUTER, back, bind=True)
        names = dict.fromkeys(name for trip in trips for name, _ in trip.batches)
        self._workers = {name: End(zmq.DEALER, back, bind=False, name=name) for name in names}
        for worker in self._workers.values():  # a ROUTER knows who has spoken
            worker.send([b""])
            self._back.receive()
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()
        self._client = Client(front, name=NAME)
        self._client.info()

    def play(self, trip: Trip) -> Trip:
        """Send the package of the trip, and wait for its results."""
        results: list[Any] = self._client.map(TASK, *COLUMNS)
        return Trip(results=results)

    def _answer(self) -> None:
        # all of this before anything is counted: a package says no hello, and its reply is made by the router, once
        replies = [_numbered(trip.reply, serial) for serial, trip in enumerate(self._trips, self._greet())]
        for trip, reply in zip(self._trips, replies, strict=True):
            route, *_ = self._front.receive()
            for (name, batch), answer in zip(trip.batches, trip.answers, strict=True):
                self._back.send([name, batch])
                worker = self._workers[name]
                worker.receive()
                worker.send([answer])
                self._back.receive()
            self._front.send([route, *reply])

    def _greet(self) -> int:
        """Answer the hello that a connection begins with, and what waits for it; the number of the next request."""
        last = 0
        for _ in range(2):
            route, head, *_ = self._front.receive()
            serial = decode_request(head).serial
            self._front.send([route, *welcome(serial)])
            last = max(last, serial)
        return last + 1

    def close(self) -> None:
        """Close every socket."""
        self._client.close()
        self._thread.join(END_S)
        for end in (self._front, self._back, *self._workers.values()):
            end.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _numbered(reply: Sequence[bytes], serial: int) -> list[bytes]:
    """The reply to the same request under another number."""
    head, *body = reply
    return [encode_reply(msgspec.structs.replace(decode_reply(head), serial=serial)), *body]
