"""The way of a package through the real code of each role, without sockets or processes, so that it can be counted.

A trip is recorded first; each role then does its part of it again with the same messages. What a clock would decide is
fixed: every task takes what it takes on the Pi, so that the router makes the batches that it would make there.
"""

from __future__ import annotations

import os
import time
from collections import deque
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, cast

import msgspec

from bench.budget import PACKAGE
from bench.span import RESULT
from bench.system import ARGUMENTS, CHUNK, TASK, WORKERS
from taskengine import _fastpath
from taskengine._socket import Debt, Port
from taskengine.broker.origins import Moment, Origins
from taskengine.broker.package import DEFAULT_LANE, Message
from taskengine.client.blocking import TOKEN_BYTES
from taskengine.client.requests import Options, OutgoingRequest
from taskengine.client.session import CAPABILITIES, Session
from taskengine.client.task_future import settle
from taskengine.config.settings import Settings
from taskengine.protocol.layouts import BATCH, COUNT, ENTRY
from taskengine.protocol.messages import Info, Reply, TaskInfo, encode_reply
from taskengine.registry.registry import Registry
from taskengine.router.router import Router
from taskengine.runtime.clocks import MachineClock
from taskengine.runtime.control_channel import ControlChannel, new_channel
from taskengine.runtime.log_buffer import LogBuffer
from taskengine.runtime.memory import new_page
from taskengine.runtime.topology import Topology
from taskengine.security import credentials
from taskengine.worker.worker import BatchRunner

NAME = "BUDGET"
SETTINGS = Settings(chunking_size=CHUNK, task_workers=WORKERS, enable_stdout=False)
TASK_NS = 1500
"""About the time of a task on a Pi 3 B+: 1000 instructions at 0.7 a ns."""
CALLED, ANSWERED = 2**47, 2**47 + 1_000_000
"""When each package is called and answered, in ns of the client's clock,"""
NOW, BOOT = 2**48, 2**62
"""and when that is by the engine's, all along; and its boot."""
INFO = Info(2, 0.005, CHUNK, WORKERS, [], 1, CAPABILITIES)
COLUMNS = [[argument] * PACKAGE for argument in ARGUMENTS]


class WrongTrip(Exception):
    """A package ended in other results, or a role made other messages than when the trip was recorded."""


class Trip(msgspec.Struct, frozen=True, kw_only=True):
    """The messages on the way of one package, made by the client, the router, the workers, the router, the client.

    Batches are unhurried, answers in the Pi's time. What one role made alone has only that role's messages.
    """

    request: list[bytes] = []
    batches: list[tuple[bytes, bytes]] = []
    answers: list[bytes] = []
    reply: list[bytes] = []
    results: list[Any] = []


def check(made: Trip, recorded: Trip) -> None:
    """That what was made is what was recorded. Raises WrongTrip."""
    batches = [(name, unhurried(batch)) for name, batch in made.batches]
    answers = [in_pi_time(answer) for answer in made.answers]
    made = msgspec.structs.replace(made, batches=batches, answers=answers)
    for name in Trip.__struct_fields__:
        now = getattr(made, name)
        if now and now != getattr(recorded, name):
            raise WrongTrip(f"the {name} of a package differ from those of the same package before")


def unhurried(batch: bytes) -> bytes:
    """The batch without its limit of time, so that a worker that is being counted hands nothing back."""
    _, sections, _ = BATCH.unpack_from(batch)
    return BATCH.pack(1, sections, 0) + batch[BATCH.size :]


def in_pi_time(answer: bytes) -> bytes:
    """The answer with the times that the tasks take on the Pi."""
    timed = bytearray(answer)
    at = COUNT.size
    for _ in range(COUNT.unpack_from(answer)[0]):
        job, first, count, failed, _, body = ENTRY.unpack_from(answer, at)
        ENTRY.pack_into(timed, at, job, first, count, failed, count * TASK_NS, body)
        at += ENTRY.size + body
    return bytes(timed)


class Sent:
    """Takes the place of a socket's port, and keeps what is sent."""

    descriptor = -1
    user = ""

    def __init__(self) -> None:
        self._messages: list[list[bytes]] = []

    def send(self, frames: Message, debt: Debt | None = None) -> None:
        # the port would lay the pieces of a frame end to end too
        self._messages.append([b"".join(frame) if isinstance(frame, list) else frame for frame in frames])

    def taken(self) -> list[list[bytes]]:
        """Return the messages sent since the last call."""
        messages, self._messages = self._messages, []
        return messages


class StillClock(MachineClock):
    """A clock that stands."""

    def __init__(self) -> None:
        self.boot = BOOT

    def now(self) -> Moment:
        return Moment(NOW, NOW)

    def told(self) -> int:
        return NOW


def welcome(serial: int) -> list[bytes]:
    """The engine's answer to a hello."""
    reply = Reply(serial, 1, clock=NOW, boot=BOOT)
    return [encode_reply(reply), _fastpath.encode(msgspec.to_builtins(INFO))]


def greeted() -> Session:
    """The session of a client over a connection whose hello was answered: a package costs none."""
    session = Session(NAME, "nowhere", bytes(TOKEN_BYTES), CALLED)
    hello = session.greet(CALLED)
    if hello is None:
        raise WrongTrip("a connection begins with a hello")
    session.write(hello, CALLED)
    session.greeted(hello, CALLED)
    settle(session.receive(welcome(hello.serial), ANSWERED))
    return session


class SteppedRouter(Router):
    """The router without sockets: each call is one turn of its loop, for one message."""

    def __init__(self, tasks: list[TaskInfo]) -> None:
        self._replies, self._batches = Sent(), Sent()
        self._supervisor, end = new_channel()
        journal = LogBuffer(2, enabled=False)
        control = ControlChannel(end, journal.say)
        pages = [new_page() for _ in range(WORKERS)]
        backplane = Topology(address="nowhere", token=b"", security=None, pages=pages)
        super().__init__(SETTINGS, [], [], backplane, {DEFAULT_LANE: WORKERS}, tasks, control, journal)
        # the bytes of a package tell when it came, and those of a reply when it went
        self._frontend.clock, self._frontend.origins = StillClock(), Origins(bytes(8))
        for number in range(WORKERS):
            name = f"TASK-{number}"
            self._expect(name, number, os.getpid(), is_online=True)
            self._from_worker([name.encode(), *backplane.hello(name, DEFAULT_LANE, number)])

    def _bind(self, domain: str, addresses: list[str], unsent: int, untaken: int) -> Port:
        # a Port is final, and the router only sends by it
        return cast(Port, self._replies if domain == credentials.FRONTEND else self._batches)

    def take_request(self, frames: list[bytes]) -> None:
        """Take a message of the client."""
        requests = [([NAME.encode(), *frames], b"", b"")]
        self._take(lambda: requests.pop() if requests else None)
        self._end_turn()

    def take_answer(self, name: bytes, answer: bytes) -> None:
        """Take an answer of worker `name`."""
        self._from_worker([name, answer])
        self._end_turn()

    def batches(self) -> list[tuple[bytes, bytes]]:
        """The batches since the last time: (name of the worker, batch)."""
        return [(name, batch) for name, batch in self._batches.taken()]

    def reply(self) -> list[bytes]:
        """The one reply since the last time. Raises WrongTrip where there is another number of them."""
        replies = self._replies.taken()
        if len(replies) != 1:
            raise WrongTrip(f"a package had {len(replies)} replies")
        return replies[0][1:]

    def close(self) -> None:
        """Close what a router without sockets has open."""
        self._context.term()
        self._control.close()
        self._supervisor.close()

    def _end_turn(self) -> None:
        now = time.monotonic()
        self._broker.counters.tick(now)
        settled = self._broker.settle(now)
        if settled:
            self._frontend.deliver(settled)
        self._dispatch()


class Roles:
    """A client, a router and a worker. Each plays trips in the order in which others have recorded them."""

    def __init__(self) -> None:
        registry = Registry.load(SETTINGS.tasks)
        self._session = greeted()
        self._options = Options()
        self._router = SteppedRouter([task.info() for task in registry.tasks.values()])
        self._turn = BatchRunner(registry, new_page())

    def record(self) -> Trip:
        """Send a package all the way. Raises WrongTrip."""
        future, parcel = self._request()
        request = self._written(parcel)
        self._router.take_request(request)
        batches: list[tuple[bytes, bytes]] = []
        answers: list[bytes] = []
        waiting = deque(self._router.batches())
        while waiting:
            name, batch = waiting.popleft()
            batch = unhurried(batch)
            answer = in_pi_time(self._turn.run(batch))
            self._router.take_answer(name, answer)
            waiting += self._router.batches()
            batches.append((name, batch))
            answers.append(answer)
        reply = self._router.reply()
        results = self._results(future, reply)
        if results != [RESULT] * PACKAGE:
            raise WrongTrip("the results are wrong")
        return Trip(request=request, batches=batches, answers=answers, reply=reply, results=results)

    def client(self, trip: Trip) -> Trip:
        """Encode the package, decode the reply."""
        future, parcel = self._request()
        return Trip(request=self._written(parcel), results=self._results(future, trip.reply))

    def router(self, trip: Trip) -> Trip:
        """Cut and dispatch the package, join the answers."""
        self._router.take_request(trip.request)
        for (name, _), answer in zip(trip.batches, trip.answers, strict=True):
            self._router.take_answer(name, answer)
        return Trip(batches=self._router.batches(), reply=self._router.reply())

    def workers(self, trip: Trip) -> Trip:
        """Run the batches."""
        return Trip(answers=[self._turn.run(batch) for _, batch in trip.batches])

    def sequence(self, trip: Trip) -> Trip:
        """All of these, one after the other."""
        future, parcel = self._request()
        request = self._written(parcel)
        self._router.take_request(request)
        answers = []
        for (name, batch), answer in zip(trip.batches, trip.answers, strict=True):
            answers.append(self._turn.run(batch))
            self._router.take_answer(name, answer)
        batches, reply = self._router.batches(), self._router.reply()
        return Trip(
            request=request,
            batches=batches,
            answers=answers,
            reply=reply,
            results=self._results(future, reply),
        )

    def close(self) -> None:
        """Give back what the router holds."""
        self._router.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _request(self) -> tuple[Future[Any], OutgoingRequest]:
        future: Future[Any] = Future()
        return future, self._session.mapped(TASK, COLUMNS, future, self._options, CALLED)

    def _written(self, parcel: OutgoingRequest) -> list[bytes]:
        return self._session.write(parcel, CALLED)

    def _results(self, future: Future[Any], reply: list[bytes]) -> list[Any]:
        settle(self._session.receive(reply, ANSWERED))
        results: list[Any] = future.result(timeout=0)
        return results
