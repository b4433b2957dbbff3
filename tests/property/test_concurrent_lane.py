"""A concurrent lane under any interleaving of submits, starts, answers, deaths, deadlines and cancels.

A task that has begun runs once, and is answered once: by its result, by Cancelled where its client cancelled it, or by
WorkerLost where its worker died. A task that has not begun when its worker dies runs elsewhere.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from taskengine.broker.broker import Broker
from taskengine.broker.lane import Slice
from taskengine.broker.package import Package
from taskengine.broker.recovery import BEGUN
from taskengine.protocol.layouts import NO_DEADLINE
from taskengine.protocol.messages import Priority
from tests.emulation import examples
from tests.packages import answer, package

MOST = 3
WORKERS = 2
CLIENTS = [b"a", b"b"]
Task = tuple[Package, int]


class Held:
    """A worker and what it holds, by the numbers of the batches."""

    def __init__(self) -> None:
        self.sent: dict[int, Slice] = {}
        """Batches on their way to it."""
        self.begun: dict[int, Slice] = {}
        """What runs."""
        self.answered: dict[int, Slice] = {}
        """What it has answered, in that order, and the router has not read."""


class ConcurrentLane(RuleBasedStateMachine):
    """The tests are its steps."""

    def __init__(self) -> None:
        super().__init__()
        self.broker = Broker(4, {"": WORKERS}, concurrency={"": MOST})
        self.workers: dict[str, Held] = {}
        self.packages: dict[Package, bool] = {}
        """Those that were accepted, and whether they are whole."""
        self.runs: Counter[Task] = Counter()
        self.deaths: Counter[Task] = Counter()
        self.unwanted: set[Task] = set()
        self.now = 0.0
        self.made = 0

    def take(self, whole: Iterable[Package]) -> None:
        revoked = self.broker.revoke()
        self.check_cancellations()
        for made in [*whole, *revoked]:
            assert not self.packages[made], "answered twice"
            self.packages[made] = True
            self.check(made)

    def check(self, made: Package) -> None:
        entries = re.findall(rb"<(\d+)(?: (\w+))?>", made.results.join())
        assert [int(position) for position, _ in entries] == list(range(made.count))
        for number, error in entries:
            task = made, int(number)
            match error.decode():
                case "":
                    assert self.runs[task] - self.deaths[task] == 1
                case "WorkerLost":
                    assert self.deaths[task] > 0
                case "Cancelled":
                    assert task in self.unwanted
                case kind:
                    assert kind == "TaskTimeout"
                    assert self.runs[task] == self.deaths[task]
            assert self.runs[task] <= (2 if made.idempotent else 1)

    @rule(
        tasks=st.integers(1, 9),
        client=st.sampled_from(CLIENTS),
        priority=st.sampled_from(Priority),
        idempotent=st.booleans(),
        patience=st.sampled_from([1.0, NO_DEADLINE]),
    )
    def submit(self, tasks: int, client: bytes, priority: Priority, idempotent: bool, patience: float) -> None:
        made = package(tasks, client=client)
        self.made += 1
        made.serial, made.priority, made.idempotent = str(self.made), priority, idempotent
        made.is_awaited, made.deadline = True, self.now + patience
        assert not self.broker.accept(made)
        self.packages[made] = False

    @precondition(lambda self: len(self.workers) < WORKERS)
    @rule()
    def join(self) -> None:
        self.made += 1
        name = f"w{self.made}"
        self.broker.join(name, "", cancels=True)
        self.workers[name] = Held()

    @rule()
    def dispatch(self) -> None:
        for batch in self.broker.dispatch():
            [slice] = batch.slices
            assert slice.stop == slice.first + 1
            held = self.workers[batch.worker]
            held.sent[batch.number] = slice
            assert len(held.sent) + len(held.begun) + len(held.answered) <= MOST
        self.broker.recalls()
        rooms = [MOST - len(self.broker.workers[name].batches) for name in self.workers]
        assert not self.workers or sum(rooms) == 0 or not self.waiting(), "a task waits beside a free place"

    def check_cancellations(self) -> None:
        """Only what a worker holds and its client has cancelled is cancelled there."""
        for name, unwanted in self.broker.workers.cancellations():
            held = self.workers[name]
            known = {
                (slice.package.flight.job, slice.first): (slice.package, slice.first)
                for slice in (*held.sent.values(), *held.begun.values(), *held.answered.values())
            }
            asked = {known[job, position] for job, first, stop in unwanted for position in range(first, stop)}
            assert asked <= self.unwanted

    def waiting(self) -> set[Task]:
        held = {
            (slice.package, slice.first)
            for one in self.workers.values()
            for part in (one.sent, one.begun, one.answered)
            for slice in part.values()
        }
        return {
            (made, position)
            for made, is_whole in self.packages.items()
            if not is_whole
            for position in range(made.count)
            if made.results.lacks(position) and (made, position) not in held
        }

    @precondition(lambda self: any(held.sent for held in self.workers.values()))
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from([held for held in self.workers.values() if held.sent]))
        number = next(iter(held.sent))
        slice = held.begun[number] = held.sent.pop(number)
        self.runs[slice.package, slice.first] += 1

    @precondition(lambda self: any(held.begun for held in self.workers.values()))
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from([held for held in self.workers.values() if held.begun]))
        number = data.draw(st.sampled_from(sorted(held.begun)))
        held.answered[number] = held.begun.pop(number)

    @precondition(lambda self: any(held.answered for held in self.workers.values()))
    @rule(data=st.data())
    def receive(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([name for name, held in self.workers.items() if held.answered]))
        held = self.workers[name].answered
        number = next(iter(held))
        slice = held.pop(number)
        self.take(self.broker.finish(name, [answer(slice, slice.first, slice.stop)], number))

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.workers)))
        held = self.workers.pop(name)
        begun = held.begun | held.answered
        for slice in begun.values():
            self.deaths[slice.package, slice.first] += 1
        if not begun and held.sent:  # what it was about to begin is blamed
            slice = held.sent[min(held.sent)]
            self.deaths[slice.package, slice.first] += 1
            self.runs[slice.package, slice.first] += 1
        accounts = [BEGUN if number in begun else None for number in self.broker.workers.held(name)]
        self.take(self.broker.leave(name, accounts))
        if not begun and held.sent and (slice.package, slice.first) in self.waiting():
            self.deaths[slice.package, slice.first] -= 1
            self.runs[slice.package, slice.first] -= 1

    @rule(client=st.sampled_from(CLIENTS), data=st.data(), everything=st.booleans())
    def cancel(self, client: bytes, data: st.DataObject, everything: bool) -> None:
        mine = [made for made, is_whole in self.packages.items() if not is_whole and made.sender.client == client]
        if everything or not mine:
            self.unwanted |= {(made, position) for made in mine for position in range(made.count)}
            self.broker.withdrawals.cancel(client)
        else:
            made = data.draw(st.sampled_from(mine))
            positions = data.draw(st.lists(st.integers(0, made.count - 1), max_size=3))
            self.unwanted |= {(made, position) for position in positions}
            self.broker.withdrawals.cancel(client, made.serial, positions)
        self.take([])

    @rule(seconds=st.sampled_from([0.1, 2.0]))
    def expire(self, seconds: float) -> None:
        self.now += seconds
        self.take(self.broker.expire(self.now))

    @invariant()
    def what_is_accepted_is_answered_or_in_flight(self) -> None:
        flying = {made for made, is_whole in self.packages.items() if not is_whole}
        assert set(self.broker.packages.values()) == flying

    def teardown(self) -> None:
        while len(self.workers) < WORKERS:
            self.join()
        while self.broker.packages:
            self.dispatch()
            assert any(held.sent or held.begun or held.answered for held in self.workers.values()), (
                "work waits for ever"
            )
            for name, held in self.workers.items():
                while held.sent:
                    number = next(iter(held.sent))
                    slice = held.begun[number] = held.sent.pop(number)
                    self.runs[slice.package, slice.first] += 1
                held.answered |= held.begun
                held.begun = {}
                for number, slice in held.answered.items():
                    self.take(self.broker.finish(name, [answer(slice, slice.first, slice.stop)], number))
                held.answered = {}


TestConcurrentLane: Any = ConcurrentLane.TestCase
TestConcurrentLane.settings = settings(max_examples=examples(200), stateful_step_count=50, deadline=None)
