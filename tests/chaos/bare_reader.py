"""Streams with nothing but a ZeroMQ socket: every message of the engine is seen, those too many as well."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future

import msgspec
import zmq

from taskengine import _fastpath
from taskengine.client.requests import Options
from taskengine.client.session import Session
from taskengine.client.stream_requests import as_stream
from taskengine.errors import from_wire
from taskengine.protocol.credit import Credit, Grant
from taskengine.protocol.messages import PartialReply, ReplyMode, RequestKind, decode_reply, encode_request
from tests.chaos.clients import ANSWER_S, PAUSE_S
from tests.chaos.ledger import Book
from tests.chaos.readers import Plan, note_end, note_leaving, plan_stream

BYTES = 500
"""The bytes of a window."""
MOST_PAUSE_S = 0.1
"""How long a client grants nothing, so that generators pause."""


class _Open:
    """A stream that has not ended, and the credit that its client has granted."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.credit = Credit(Grant(plan.ahead, BYTES))
        self.grant_at = 0.0
        self.is_left = False


class BareReader:
    """Opens some streams on a connection of its own, reads them, and leaves: by CANCEL, or by closing the socket."""

    def __init__(self, address: str, name: str, seed: int) -> None:
        self.book = Book(name, loses_with_router=True)
        self._chance = random.Random(f"{seed} {name}")
        self._address = address
        self._session = Session(name, address)
        self._open: dict[int, _Open] = {}
        self._asked: set[int] = set()
        """Requests of other kinds that are not answered."""

    def run(self, stop: threading.Event) -> None:
        """Until it is told to stop."""
        with zmq.Context() as context:
            while not stop.wait(PAUSE_S):
                with context.socket(zmq.DEALER) as socket:
                    socket.linger = 0
                    monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
                    socket.connect(self._address)
                    self._visit(socket, monitor)
                    socket.disable_monitor()
                    monitor.close()

    def _visit(self, socket: zmq.Socket[bytes], monitor: zmq.Socket[bytes]) -> None:
        """Read some streams, until all have ended, the router has died, or the time to leave has come."""
        for _ in range(self._chance.randrange(1, 4)):
            self._begin(socket)
        now = heard = time.monotonic()
        leaves_at = now + self._chance.uniform(0.0, 0.1) if self._chance.random() < 0.2 else math.inf
        while self._open and now < min(leaves_at, heard + ANSWER_S) and not monitor.poll(0):
            if socket.poll(5):
                self._take(socket, socket.recv_multipart()[1:])
                heard = now
            for serial, opened in self._open.items():
                self._extend(socket, serial, opened, now)
            now = time.monotonic()
        for opened in self._open.values():
            if now >= leaves_at:
                note_leaving(self.book, opened.plan)
            else:  # the engine is silent, or the router has died
                self.book.give_up(opened.plan.id, now)
        self._open.clear()
        self._asked.clear()

    def _begin(self, socket: zmq.Socket[bytes]) -> None:
        plan = plan_stream(self.book, self._chance)
        opened = _Open(plan)
        outgoing = self._session.package([(plan.task, plan.args, {})], [Future()], Options(), each=True)
        self._open[outgoing.serial] = opened
        head = encode_request(as_stream(outgoing.request, opened.credit.grant))
        socket.send_multipart([b"", head, *outgoing.body])

    def _take(self, socket: zmq.Socket[bytes], frames: Sequence[bytes]) -> None:
        """Take a message of the engine."""
        reply = decode_reply(frames[0])
        if reply.serial in self._asked:
            self._asked.remove(reply.serial)
        elif reply.serial not in self._open:
            self.book.stray(f"{self.book.client}, serial {reply.serial}: {reply}")
        elif isinstance(reply, PartialReply) and reply.reply is ReplyMode.STREAM:
            self._read(socket, self._open[reply.serial], reply, frames[1] if len(frames) > 1 else b"")
        elif reply.error is not None:  # it was refused
            note_end(self.book, self._open.pop(reply.serial).plan, from_wire(*reply.error))
        else:
            self.book.stray(f"{self.book.client}, serial {reply.serial} is no stream's: {reply}")

    def _read(self, socket: zmq.Socket[bytes], opened: _Open, reply: PartialReply, body: bytes) -> None:
        plan, credit, wrong = opened.plan, opened.credit, opened.plan.reading.wrong
        if reply.first != plan.reading.came:
            wrong.append(f"{plan.id}: number {reply.first} came where {plan.reading.came} was due")
        for value in _fastpath.unpack(body, reply.count, _refuse) if reply.count else ():
            if not credit.may_send():
                wrong.append(f"{plan.id}: {value!r} came without credit")
            credit.send(1, len(msgspec.msgpack.encode(value)))
            plan.reading.take(value)
        if reply.last:
            del self._open[reply.serial]
            note_end(self.book, plan, None if reply.error is None else from_wire(*reply.error))
        elif plan.reading.came >= plan.most and not opened.is_left:
            opened.is_left = True
            self._ask(socket, RequestKind.CANCEL, [reply.serial, None])

    def _extend(self, socket: zmq.Socket[bytes], serial: int, opened: _Open, now: float) -> None:
        """Grant more, sometimes only after a pause."""
        if opened.credit.may_send():
            return
        if not opened.grant_at:
            opened.grant_at = now + self._chance.choice((0.0, 0.0, self._chance.uniform(0.0, MOST_PAUSE_S)))
        elif now >= opened.grant_at:
            opened.grant_at = 0.0
            grant = Grant(opened.credit.values + opened.plan.ahead, opened.credit.bytes + BYTES)
            opened.credit.extend(grant)
            self._ask(socket, RequestKind.CREDIT, [serial, *grant])

    def _ask(self, socket: zmq.Socket[bytes], kind: RequestKind, value: list[object]) -> None:
        outgoing = self._session.request(kind, Future(), Options(), value)
        self._asked.add(outgoing.serial)
        socket.send_multipart([b"", *outgoing.frames])


def _refuse(data: bytes) -> object:
    raise ValueError(f"an error came as a value: {data!r}")
