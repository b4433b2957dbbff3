"""Clients that read streams, and keep the ledger: some read to the end, some leave, some read slowly."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

from taskengine import Client, TaskEngineError, aio
from tests.chaos.clients import ANSWER_S, CANCEL_S, PAUSE_S, Coroutines, note_outcome
from tests.chaos.ledger import LEFT, Book
from tests.chaos.readings import Reading

_SHARES = {"chaos.stream": 40, "chaos.stream.again": 20, "chaos.stream.beside": 40}
"""How many of a hundred streams are of each task."""


class Plan(NamedTuple):
    """A stream that is to be opened. Its client leaves after `most` values, and rests `pause_s` after each value."""

    id: str
    task: str
    seconds: float
    fails: bool
    ahead: int
    most: int
    pause_s: float
    reading: Reading

    @property
    def args(self) -> tuple[str, int, float, bool]:
        """The arguments of the task."""
        return self.id, self.reading.count, self.seconds, self.fails


def plan_stream(book: Book, chance: random.Random) -> Plan:
    """Draw a stream of any kind, offered in the book."""
    task = chance.choices(list(_SHARES), list(_SHARES.values()))[0]
    fails, count = chance.random() < 0.1, chance.choice((0, 1, chance.randrange(2, 30), chance.randrange(30, 400)))
    expected = "TaskFailed" if fails else ""
    id = book.offer(time.monotonic(), task, idempotent=task.endswith("again"), expected=expected)
    return Plan(
        id,
        task,
        seconds=chance.choice((0.0, 0.0, chance.uniform(0.0, 0.003))),
        fails=fails,
        ahead=chance.choice((1, 2, 64, 1024)),
        most=chance.randrange(0, count + 1) if chance.random() < 0.25 else count + 1,
        pause_s=chance.choice((0.0, 0.0, 0.0, 0.002)),
        reading=book.read(id, count),
    )


def note_end(book: Book, plan: Plan, error: TaskEngineError | None = None) -> None:
    """Write down how a stream ended."""
    name = "" if error is None else type(error).__name__
    plan.reading.end(name, after_all=name == "TaskFailed")
    note_outcome(book, plan.id, error or plan.id)


def note_leaving(book: Book, plan: Plan) -> None:
    """Write down that the client has left a stream."""
    book.fail(plan.id, time.monotonic(), LEFT)


class StreamClient:
    """Streams in loops, one after the other or two in turn, left in each way that there is, or cancelled."""

    def __init__(self, address: str, name: str, seed: int) -> None:
        self.book = Book(name)
        self._chance = random.Random(f"{seed} {name}")
        self._address = address

    def run(self, stop: threading.Event) -> None:
        """Until it is told to stop."""
        deeds = (self._read, self._read_two, self._cancel)
        with Client(self._address, self.book.client, timeout=ANSWER_S) as client:
            while not stop.wait(PAUSE_S):
                self._chance.choices(deeds, (70, 20, 10))[0](client)

    def _read(self, client: Client) -> None:
        for _ in self._values(client):
            pass

    def _read_two(self, client: Client) -> None:
        for _ in itertools.zip_longest(self._values(client), self._values(client)):
            pass

    def _cancel(self, client: Client) -> None:
        """Cancel everything that this client has sent after some of the values."""
        after = self._chance.randrange(50)
        for number in self._values(client):
            if number == after:
                client.options(timeout=CANCEL_S).cancel()

    def _values(self, client: Client) -> Iterator[int]:
        """Open a stream, and yield the number of each value that was read."""
        plan = plan_stream(self.book, self._chance)
        try:
            stream = client.options(ahead=plan.ahead).stream(plan.task, *plan.args)
            for value in itertools.islice(stream, plan.most):
                plan.reading.take(value)
                yield plan.reading.came
                time.sleep(plan.pause_s)
        except TaskEngineError as error:
            note_end(self.book, plan, error)
            return
        if plan.most > plan.reading.count:
            note_end(self.book, plan)
            return
        if self._chance.random() < 0.5:  # otherwise it is forgotten
            stream.close()
        note_leaving(self.book, plan)


class AsyncStreamClient(Coroutines):
    """Many streams at once; some are left because their coroutine is cancelled."""

    async def _turn(self, client: aio.Client) -> None:
        await asyncio.gather(*(self._read(client) for _ in range(self._chance.randrange(1, 8))))

    async def _read(self, client: aio.Client) -> None:
        """Read a stream, for a while only if it is to be left."""
        plan = plan_stream(self.book, self._chance)
        try:
            patience = self._chance.uniform(0.0, 0.2) if plan.most <= plan.reading.count else None
            view = client.options(ahead=plan.ahead)
            async with asyncio.timeout(patience), view.stream(plan.task, *plan.args) as stream:
                async for value in stream:
                    plan.reading.take(value)
                    await asyncio.sleep(plan.pause_s)
        except TimeoutError:
            note_leaving(self.book, plan)
        except TaskEngineError as error:
            note_end(self.book, plan, error)
        else:
            note_end(self.book, plan)
