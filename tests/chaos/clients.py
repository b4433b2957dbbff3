"""Clients that keep the ledger: each offers tasks until it is told to stop, and writes down every answer."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

from taskengine import Cancelled, Client, TaskEngineError, TaskTimeout, aio
from taskengine.client.calls import Call
from tests.chaos.ledger import Book
from tests.engine import deadline

ANSWER_S = deadline(40.0)
"""How long a client waits: a reply that has not come then is lost."""
CANCEL_S = 1.0
PAUSE_S = 0.002
_SHARES = {
    "chaos.note": 50,
    "chaos.again": 20,
    "chaos.lane": 10,
    "chaos.fail": 1,
    "chaos.turn": 6,
    "chaos.beside": 6,
    "chaos.beside.again": 4,
}
"""How many of a hundred calls or so are of each task."""


def note_outcome(book: Book, id: str, outcome: object) -> None:
    """Write down a result or an error of the Python clients."""
    now = time.monotonic()
    if isinstance(outcome, TaskTimeout) and outcome.seconds == ANSWER_S:  # the client's own: nothing came
        book.give_up(id, now)
    elif isinstance(outcome, TaskEngineError):
        kind = "Cancelled" if isinstance(outcome, Cancelled) else type(outcome).__name__
        book.fail(id, now, kind, outcome.fields.get("worker") or "")
    else:
        book.answer(id, now, outcome)


def make_calls(book: Book, chance: random.Random, count: int) -> tuple[list[str], list[Call]]:
    """So many calls of tasks of all kinds, offered in the book."""
    ids: list[str] = []
    calls: list[Call] = []
    for _ in range(count):
        name = chance.choices(list(_SHARES), list(_SHARES.values()))[0]
        expected = "TaskFailed" if name == "chaos.fail" else ""
        id = book.offer(time.monotonic(), name, idempotent=name.endswith("again"), expected=expected)
        seconds = () if expected or chance.random() < 0.7 else (chance.uniform(0.0, 0.003),)
        ids.append(id)
        calls.append((name, (id, *seconds), {}))
    return ids, calls


class SyncClient:
    """Single calls, maps, mixed packages, and values published and read again, one after the other."""

    def __init__(self, address: str, name: str, seed: int) -> None:
        self.book = Book(name)
        self._chance = random.Random(f"{seed} {name}")
        self._address = address

    def run(self, stop: threading.Event) -> None:
        """Until it is told to stop."""
        deeds = (self._call, self._map, self._mix, self._data)
        with Client(self._address, self.book.client, timeout=ANSWER_S) as client:
            while not stop.wait(PAUSE_S):
                self._chance.choices(deeds, (60, 20, 10, 10))[0](client)

    def _call(self, client: Client) -> None:
        (id,), ((name, args, _),) = make_calls(self.book, self._chance, 1)
        note_outcome(self.book, id, _outcome(partial(client.call, name, *args)))

    def _map(self, client: Client) -> None:
        again = self._chance.random() < 0.3
        name, count = "chaos.again" if again else "chaos.note", self._chance.randrange(1, 300)
        ids = [self.book.offer(time.monotonic(), name, idempotent=again) for _ in range(count)]
        view = client.options(errors="return")
        note_all(self.book, ids, _outcome(partial(view.map, name, ids)))

    def _mix(self, client: Client) -> None:
        ids, calls = make_calls(self.book, self._chance, self._chance.randrange(1, 60))
        note_all(self.book, ids, _outcome(partial(client.run, calls)))

    def _data(self, client: Client) -> None:
        topic = f"chaos.{self.book.client}"
        id = self.book.offer(time.monotonic(), "publish", writes=False)
        outcome = _outcome(partial(client.publish, topic, id))
        note_outcome(self.book, id, id if outcome is None else outcome)


class Coroutines:
    """A client of asyncio that works in turns, each of which is `_turn`."""

    def __init__(self, address: str, name: str, seed: int) -> None:
        self.book = Book(name)
        self._chance = random.Random(f"{seed} {name}")
        self._address = address

    def run(self, stop: threading.Event) -> None:
        """Until it is told to stop."""
        asyncio.run(self._serve(stop))

    async def _serve(self, stop: threading.Event) -> None:
        async with aio.Client(self._address, self.book.client, timeout=ANSWER_S) as client:
            while not stop.is_set():
                await self._turn(client)
                await asyncio.sleep(PAUSE_S)

    async def _turn(self, client: aio.Client) -> None:
        raise NotImplementedError


class AsyncClient(Coroutines):
    """Many calls at once, and packages beside them."""

    async def _turn(self, client: aio.Client) -> None:
        ids, calls = make_calls(self.book, self._chance, self._chance.randrange(1, 12))
        package_ids, package = make_calls(self.book, self._chance, self._chance.randrange(0, 100))
        answers = [client.call(name, *args) for name, args, _ in calls]
        *outcomes, whole = await asyncio.gather(*answers, client.run(package), return_exceptions=True)
        note_all(self.book, ids, outcomes)
        note_all(self.book, package_ids, whole)


class Crowd:
    """Futures without end: floods, and tasks that end their worker. Used by the thread that does the deeds."""

    def __init__(self, address: str, name: str) -> None:
        self.book = Book(name)
        self._client = Client(address, name, timeout=ANSWER_S)

    def flood(self, count: int) -> None:
        """Offer far more than is worked off, and wait for nothing."""
        for _ in range(count):
            id = self.book.offer(time.monotonic(), "chaos.note")
            self._submit("chaos.note", id, 0.001)

    def poison(self, kind: str) -> None:
        """Offer a task that ends its worker, or raises."""
        name = f"chaos.{kind}"
        expected = "TaskFailed" if kind == "fail" else ""
        id = self.book.offer(time.monotonic(), name, idempotent=kind == "exit.again", expected=expected)
        self._submit(name, id)

    def cancel(self) -> None:
        """Want nothing any more of what was offered so far."""
        with suppress(TaskEngineError):
            self._client.options(timeout=CANCEL_S).cancel()

    def close(self) -> None:
        """Wait for what is pending, as long as a client waits."""
        self._client.close(ANSWER_S)

    def _submit(self, name: str, id: str, *args: Any) -> None:
        try:
            future: Future[Any] = self._client.submit(name, id, *args)
        except TaskEngineError as error:
            note_outcome(self.book, id, error)
            return
        future.add_done_callback(lambda done: note_outcome(self.book, id, done.exception() or done.result()))


def _outcome(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except TaskEngineError as error:
        return error


def note_all(book: Book, ids: Sequence[str], outcome: Any) -> None:
    """Write down a list of results and errors, or the one error that stands for all."""
    if not isinstance(outcome, list):
        outcome = [outcome] * len(ids)
    if len(outcome) != len(ids):
        book.stray(f"{len(outcome)} results for {len(ids)} tasks from {ids[0]} on")
    for id, one in zip(ids, outcome, strict=False):
        note_outcome(book, id, one)
