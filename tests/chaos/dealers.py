"""Clients with nothing but a ZeroMQ socket and a timeout of their own: they see every reply, those too many as well."""

from __future__ import annotations

import itertools
import json
import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import zmq

from taskengine.client.calls import Call
from taskengine.client.requests import Options
from taskengine.client.session import Session
from taskengine.client.task_future import settle
from taskengine.protocol.messages import decode_reply
from tests.chaos.clients import PAUSE_S, make_calls, note_all
from tests.chaos.ledger import Book
from tests.engine import deadline
from tests.integration.seedclient import meta, task

ANSWER_S = deadline(3.0)
_ENTRY = re.compile(r"job-(.+?): (.*)", re.DOTALL)
_LOST = re.compile(r"ERROR: worker (TASK-\d+) died")


class Dealer:
    """The part that both wires have in common: an idempotent request without an answer in time is sent again, once."""

    def __init__(self, address: str, name: str, seed: int) -> None:
        self.book = Book(name, loses_with_router=True)
        self._chance = random.Random(f"{seed} {name}")
        self._address = address
        self._open: dict[str, list[str]] = {}

    def run(self, stop: threading.Event) -> None:
        """Until it is told to stop; then it waits for late replies."""
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.connect(self._address)
            while not stop.wait(PAUSE_S):
                count = self._chance.choice((1, 1, 1, self._chance.randrange(1, 80)))
                _, calls = make_calls(self.book, self._chance, count)
                if self._ask(socket, calls):
                    continue
                again = [call for call in calls if call[0] == "chaos.again"]
                self._give_up([call for call in calls if call not in again])
                for _, args, _ in again:
                    self.book.resend(args[0])
                if again and not self._ask(socket, again):
                    self._give_up(again)
            self._await(socket, lambda: not self._open)

    def _pack(self, calls: Sequence[Call]) -> tuple[str, list[bytes]]:
        """The serial and the frames of a package."""
        raise NotImplementedError

    def _serial(self, frames: Sequence[bytes]) -> str:
        """The serial of a reply."""
        raise NotImplementedError

    def _note(self, ids: list[str], frames: Sequence[bytes]) -> None:
        """Write down a reply."""
        raise NotImplementedError

    def _give_up(self, calls: Sequence[Call]) -> None:
        for _, args, _ in calls:
            self.book.give_up(args[0], time.monotonic())

    def _ask(self, socket: zmq.Socket[bytes], calls: Sequence[Call]) -> bool:
        """Send a package; whether its reply came in time."""
        serial, frames = self._pack(calls)
        self._open[serial] = [str(args[0]) for _, args, _ in calls]
        socket.send_multipart([b"", *frames])
        return self._await(socket, lambda: serial not in self._open)

    def _await(self, socket: zmq.Socket[bytes], done: Callable[[], bool]) -> bool:
        end = time.monotonic() + ANSWER_S
        while not done() and time.monotonic() < end:
            if socket.poll(100):
                frames = socket.recv_multipart()[1:]
                serial = self._serial(frames)
                ids = self._open.pop(serial, None)
                if ids is None:
                    self.book.stray(f"{self.book.client}, serial {serial}")
                else:
                    self._note(ids, frames)
        return done()


class SeedClient(Dealer):
    """Wire 0.1."""

    def __init__(self, address: str, name: str, seed: int) -> None:
        super().__init__(address, name, seed)
        self._numbers = itertools.count(1)

    def _pack(self, calls: Sequence[Call]) -> tuple[str, list[bytes]]:
        serial = f"{self.book.client} {next(self._numbers)}"
        return serial, [meta(serial=serial), *[task(name, *args, pack=args[0]) for name, args, _ in calls]]

    def _serial(self, frames: Sequence[bytes]) -> str:
        return str(json.loads(frames[0])["serial"])

    def _note(self, ids: list[str], frames: Sequence[bytes]) -> None:
        head, *data = map(json.loads, frames)
        entries = [str(entry) for frame in data for entry in frame["data"]]
        if "error" in head:
            entries = [f"job-{id}: ERROR: {head['error']}" for id in ids]
        if len(entries) != len(ids):
            self.book.stray(f"{len(entries)} entries for {len(ids)} tasks from {ids[0]} on")
        for id, entry in zip(ids, entries, strict=False):
            self._note_entry(id, entry)

    def _note_entry(self, id: str, entry: str) -> None:
        now, match = time.monotonic(), _ENTRY.fullmatch(entry)
        pack, text = match.groups() if match else ("?", entry)
        lost = _LOST.match(text)
        if pack == id and lost:
            self.book.fail(id, now, "WorkerLost", lost[1])
        elif pack == id and text.startswith("ERROR: "):
            self.book.fail(id, now, "TaskFailed" if text == f"ERROR: ValueError: {id}" else "SeedError")
        else:
            self.book.answer(id, now, text if pack == id else entry)


class PackedClient(Dealer):
    """Wire 0.2, which the Python clients read too, but they pass over a reply that nobody waits for."""

    def __init__(self, address: str, name: str, seed: int) -> None:
        super().__init__(address, name, seed)
        self._session = Session(name, address)
        self._futures: dict[str, Future[Any]] = {}

    def _pack(self, calls: Sequence[Call]) -> tuple[str, list[bytes]]:
        future: Future[Any] = Future()
        parcel = self._session.package(calls, [future], Options(), each=False)
        self._futures[str(parcel.serial)] = future
        return str(parcel.serial), parcel.frames

    def _serial(self, frames: Sequence[bytes]) -> str:
        return str(decode_reply(frames[0]).serial)

    def _note(self, ids: list[str], frames: Sequence[bytes]) -> None:
        future = self._futures.pop(self._serial(frames))
        settle(self._session.receive(frames))
        note_all(self.book, ids, future.exception() or future.result())
