"""Records the requests and replies of clients and the runs of tasks, and judges them. Pure.

A client keeps a `Book`: each task that it offers has an id of its own, which the task gives back and writes into the
tasks' ledger. `judge` holds the books against that ledger and against the guarantees; what breaks one is in `broken`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from tests.chaos.readings import Reading

WORKER_REPEATS = 1
"""How often an idempotent task may be run again because its worker died."""
LEFT = "Left"
LEGITIMATE = frozenset({"WorkerLost", "TaskTimeout", "EngineUnreachable", "Overloaded", "Cancelled", "SeedError", LEFT})
"""Errors that are an answer to any task. SeedError is one of wire 0.1, which has no types.

LEFT stands for the end of a stream whose client has not waited for it.
"""
SHOWN = 5
"""Examples in a line of what is broken."""


class Answer(NamedTuple):
    """A result, or an error's name; `worker` is the one that a WorkerLost names."""

    at: float
    value: Any = None
    error: str = ""
    worker: str = ""


class Offer(msgspec.Struct):
    """A task that a client offered, and every answer to it.

    `writes` says that the task writes its id down, `expected` is an error that it may end in besides the legitimate
    ones, `sends` how often the client sent it, and `gave_up` when the client stopped waiting.
    """

    id: str
    at: float
    task: str
    writes: bool = True
    idempotent: bool = False
    expected: str = ""
    sends: int = 1
    answers: list[Answer] = []
    gave_up: float | None = None


class Book:
    """The ledger of one client; with `loses_with_router` a reply may be missing where the router died meanwhile."""

    def __init__(self, client: str, *, loses_with_router: bool = False) -> None:
        self.client = client
        self.loses_with_router = loses_with_router
        self.offers: dict[str, Offer] = {}
        self.strays: list[str] = []
        self.readings: list[Reading] = []
        self._numbers = itertools.count()

    def offer(self, now: float, task: str, *, writes: bool = True, idempotent: bool = False, expected: str = "") -> str:
        """Note a task that is about to be sent; its id."""
        id = f"{self.client}-{next(self._numbers)}"
        self.offers[id] = Offer(id, now, task, writes, idempotent, expected)
        return id

    def read(self, id: str, count: int) -> Reading:
        """Return what is to be told of a stream that is about to be opened; it has so many values."""
        self.readings.append(Reading(id, count))
        return self.readings[-1]

    def resend(self, id: str) -> None:
        """The task is about to be sent once more."""
        self.offers[id].sends += 1

    def answer(self, id: str, now: float, value: Any) -> None:
        """A result came for the task."""
        self.offers[id].answers.append(Answer(now, value))

    def fail(self, id: str, now: float, error: str, worker: str = "") -> None:
        """An error came for the task."""
        self.offers[id].answers.append(Answer(now, error=error, worker=worker))

    def give_up(self, id: str, now: float) -> None:
        """The client waits no longer; a reply that still comes is late, and not lost."""
        self.offers[id].gave_up = now

    def stray(self, what: str) -> None:
        """A reply came to a request that was never made, or had one already."""
        self.strays.append(what)


class Judgement(msgspec.Struct, kw_only=True):
    """`broken` has a line for each guarantee that did not hold; the rest counts what happened."""

    broken: list[str]
    offered: int
    results: int
    errors: dict[str, int]
    late: int
    excused: int
    """Replies to bare sockets that are missing because the router died."""
    values: int
    """Values of streams that were read."""
    longest_s: dict[str, float]
    """The longest wait of each client for an answer."""


def judge(
    books: Iterable[Book],
    runs: Sequence[Sequence[str]],
    *,
    router_deaths: Sequence[float] = (),
    notice_s: float = 2.0,
    frozen_s: float = 0.0,
    hung: Sequence[str] = (),
    unclosed: Sequence[str] = (),
    in_order: str = "",
    beside: Collection[str] = (),
) -> Judgement:
    """Hold the clients' books against `runs`, the ids that each task process wrote, in its order.

    `hung` are clients that hang, and `unclosed` streams whose generators were not closed.

    A client notices a router's death within `notice_s`, and one that stands still is killed within `frozen_s`. Tasks
    named `in_order` are of a lane with one worker. Those named in `beside` run beside each other, and die together.
    """
    books = list(books)
    offers = {offer.id: (book, offer) for book in books for offer in book.offers.values()}
    ran = Counter(id for process in runs for id in process)
    excused = {
        id
        for id, (book, offer) in offers.items()
        if book.loses_with_router and not offer.answers and _died_meanwhile(offer, router_deaths, notice_s, frozen_s)
    }
    found = {
        "clients that hang": list(hung),
        "tasks without an answer": [id for id, (_, o) in offers.items() if not o.answers and id not in excused],
        "tasks answered more than once": [id for id, (_, o) in offers.items() if len(o.answers) > o.sends],
        "replies that nobody asked for": [stray for book in books for stray in book.strays],
        "values or ends of streams that are wrong": [line for book in books for r in book.readings for line in r.wrong],
        "generators that were never closed": list(unclosed),
        "results of another task": [id for id, (_, o) in offers.items() if _is_foreign(o)],
        "tasks run more often than they may": [id for id, (_, o) in offers.items() if ran[id] > _most_runs(o)],
        "tasks reported done that never ran": [
            id for id, (_, o) in offers.items() if o.writes and not ran[id] and any(not a.error for a in o.answers)
        ],
        "tasks run that nobody offered": [id for id in ran if id not in offers],
        "errors that are no legitimate answer": [
            f"{id} {a.error}" for id, (_, o) in offers.items() for a in o.answers if not _is_legitimate(o, a)
        ],
        "tasks beside the one that a dead worker ran": _collateral(
            offer for _, offer in offers.values() if offer.task not in beside
        ),
        "tasks of a lane with one worker out of order": _disordered(runs, offers, in_order),
    }
    start = min((offer.at for _, offer in offers.values()), default=0.0)
    answers = [(offer, answer) for _, offer in offers.values() for answer in offer.answers]
    return Judgement(
        broken=[_line(what, which, offers, start) for what, which in found.items() if which],
        offered=len(offers),
        results=sum(not answer.error for _, answer in answers),
        errors=dict(Counter(answer.error for _, answer in answers if answer.error).most_common()),
        late=sum(offer.gave_up is not None and answer.at > offer.gave_up for offer, answer in answers),
        excused=len(excused),
        values=sum(reading.came for book in books for reading in book.readings),
        longest_s={book.client: _longest(book) for book in books},
    )


def _died_meanwhile(offer: Offer, deaths: Sequence[float], notice_s: float, frozen_s: float) -> bool:
    """Return whether the router died at or after the offer: a request that is sent to a dead router is lost, too.

    A client may give up on a router that stands still before it is killed for that.
    """
    end = float("inf") if offer.gave_up is None else offer.gave_up + frozen_s
    return any(offer.at - notice_s <= death <= end for death in deaths)


def _longest(book: Book) -> float:
    return max((answer.at - offer.at for offer in book.offers.values() for answer in offer.answers), default=0.0)


def _is_foreign(offer: Offer) -> bool:
    return any(not answer.error and answer.value != offer.id for answer in offer.answers)


def _most_runs(offer: Offer) -> int:
    """Each time that it was sent, an idempotent task may be repeated."""
    return offer.sends * (1 + WORKER_REPEATS) if offer.idempotent else offer.sends


def _is_legitimate(offer: Offer, answer: Answer) -> bool:
    return not answer.error or answer.error in LEGITIMATE or answer.error == offer.expected


def _collateral(offers: Iterable[Offer]) -> list[str]:
    """The tasks that say that a worker died with them, where more than one says so of the same worker."""
    held: dict[str, list[str]] = {}
    for offer in offers:
        for answer in offer.answers:
            if answer.worker:
                held.setdefault(answer.worker, []).append(offer.id)
    return [f"{worker}: {', '.join(ids)}" for worker, ids in held.items() if len(ids) > 1]


def _disordered(runs: Sequence[Sequence[str]], offers: Mapping[str, tuple[Book, Offer]], task: str) -> list[str]:
    """Tasks named `task` that a process ran after a later one of the same client."""
    found = []
    for process in runs:
        last: dict[str, int] = {}
        for id in process:
            if id not in offers or offers[id][1].task != task:
                continue
            client, _, number = id.rpartition("-")
            if int(number) < last.get(client, -1):
                found.append(id)
            last[client] = max(int(number), last.get(client, -1))
    return found


def _line(what: str, which: Sequence[str], offers: Mapping[str, tuple[Book, Offer]], start: float) -> str:
    shown = [f"{id} ({_told(offers[id][1], start)})" if id in offers else id for id in which[:SHOWN]]
    more = f" and {len(which) - SHOWN} more" if len(which) > SHOWN else ""
    return f"{len(which)} {what}: {'; '.join(shown)}{more}"


def _told(offer: Offer, start: float) -> str:
    answers = ", ".join(answer.error or repr(answer.value) for answer in offer.answers) or "no answer"
    return f"{offer.task} at {offer.at - start:.2f} s, sent {offer.sends} times: {answers}"
