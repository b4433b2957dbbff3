"""The broker under any interleaving of submits, answers, deaths, deadlines and cancels, against a table of states.

A task is where the table says that it can come from where it was; nothing else may happen to it. What became of it must
be what happened to it: a result is of one whole run, `Cancelled` and `TaskTimeout` of none, `WorkerLost` of a death.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from taskengine.broker.broker import Broker
from taskengine.broker.lane import Batch, Slice, tasks_in
from taskengine.broker.looks import PageLook, Piece
from taskengine.broker.package import Package
from taskengine.broker.partials import PartialResults
from taskengine.broker.quota import QuotaLimits
from taskengine.broker.recovery import Account, Answered
from taskengine.broker.tuning import BATCH_NS, DEATHS
from taskengine.errors import Overloaded
from taskengine.protocol.layouts import MODULE_MARK, NO_DEADLINE
from taskengine.protocol.messages import Priority, TaskInfo
from tests.emulation import examples
from tests.packages import answer, package
from tests.property.broker_books import PINNED, Books, Event, State, after, between, first_of, positions_of

LANES = {"": 3, "arm": 1, "io": 2}
LIMITS = QuotaLimits(300, 2**40, 500, 2**40)
CLIENTS = [b"a", b"b", b"c"]
MODULES = {
    (lane, module): TaskInfo(f"{lane}.{module}", lane, "()", "", None, False, module)
    for lane in LANES
    for module in ("robot", "sums")
}
"""A task of each module in each lane."""


class BrokerStates(RuleBasedStateMachine):
    """The broker, its workers, and books of every task."""

    def __init__(self) -> None:
        super().__init__()
        self.broker = Broker(7, LANES, limits=LIMITS, pinned=PINNED)
        self.broker.availability.learn(MODULES.values())
        self.books: dict[Package, Books] = {}
        self.workers: dict[str, list[list[Slice]]] = {}
        self.lane_of: dict[str, str] = {}
        self.is_excluded: set[str] = set()
        self.is_retired: set[str] = set()
        self.recalled: dict[str, int] = {}
        self.is_handing_back: set[str] = set()
        self.last_begun = (0, 0)
        """Of the lane with one worker: job and position of the last task that was not urgent."""
        self.over: dict[Package, Books] = {}
        """Packages that are answered; workers may still have tasks of them that were answered early."""
        self.ran: Counter[str] = Counter()
        """How many tasks of its oldest batch each worker has run, and nobody knows,"""
        self.seen: Counter[str] = Counter()
        """and how many of them the router has seen."""
        self.now = 0.0
        self.made = 0
        self.turns = 0

    def take(self, whole: Iterable[Package]) -> None:
        """Packages are answered, and so is what is not wanted any more, as at the end of a turn of the router."""
        for answered in [*whole, *self.broker.revoke()]:
            books = self.books[answered]
            assert not books.is_answered, "answered twice"
            books.is_answered = True

    def revoke(self) -> None:
        """Note as answered waiting tasks that must not start: each when it is their turn, or all that is left."""
        for books in self.books.values():
            owed = [task for task in enumerate(books.tasks) if task[1].state is not State.ANSWERED]
            is_over = all(books.is_revoked(position) for position, _ in owed)
            for position, task in owed:
                if task.state is State.WAITS and books.is_revoked(position):
                    answered = not books.package.results.lacks(position)
                    assert answered or not is_over
                    if answered:
                        task.step(Event.REVOKE)

    @rule(
        runs=st.lists(st.tuples(st.sampled_from(sorted(MODULES)), st.integers(1, 40)), max_size=4),
        client=st.sampled_from(CLIENTS),
        priority=st.sampled_from(Priority),
        idempotent=st.booleans(),
        kind=st.sampled_from(["light", "heavy"]),
        patience=st.sampled_from([0.5, 3.0, NO_DEADLINE]),
        wants_each=st.booleans(),
    )
    def submit(
        self,
        runs: list[tuple[tuple[str, str], int]],
        client: bytes,
        priority: Priority,
        idempotent: bool,
        kind: str,
        patience: float,
        wants_each: bool,
    ) -> None:
        route = self.broker.availability.route
        lanes = [(route(MODULES[task]), count) for task, count in runs]
        made = package(sum(count for _, count in runs), kind=kind, lanes=lanes, client=client)
        self.made += 1
        made.serial, made.priority, made.idempotent = str(self.made), priority, idempotent
        made.is_awaited = idempotent
        if wants_each:
            made.results = PartialResults(made.count)
        made.deadline = self.now + patience
        mine = sum(len(books.tasks) for books in self.in_flight() if books.package.sender.client == client)
        everybody = sum(len(books.tasks) for books in self.in_flight())
        fits = mine + made.count <= min(LIMITS.client_tasks, LIMITS.queue_tasks - everybody)
        try:
            is_whole = self.broker.accept(made)
        except Overloaded:
            assert not fits
            return
        assert fits or not made.count
        self.books[made] = Books(made, made.serial)
        assert is_whole == (made.count == 0)
        if is_whole:
            self.take([made])

    @precondition(lambda self: len(self.workers) < 8)
    @rule(lane=st.sampled_from(sorted(LANES)), missing=st.sampled_from([(), (), ("robot",), ("robot", "sums")]))
    def join(self, lane: str, missing: tuple[str, ...]) -> None:
        if LANES[lane] == 1 and lane in [self.lane_of[name] for name in self.workers]:
            return
        self.made += 1
        name = f"w{self.made}"
        self.broker.join(name, lane, missing)
        self.workers[name], self.lane_of[name] = [], lane

    @rule()
    def dispatch(self) -> None:
        self.broker.availability.settle()
        batches = self.broker.dispatch()
        self.revoke()
        for batch in batches:
            self.check_batch(batch)
            self.workers[batch.worker].append(list(batch.slices))
        for name, last in self.broker.recalls():
            assert last in self.broker.workers.held(name)
            self.recalled[name] = last

    def check_batch(self, batch: Batch) -> None:
        assert batch.worker not in self.is_excluded, "work for a worker that is as good as dead"
        for slice in batch.slices:
            books = self.books[slice.package]
            for position in range(slice.first, slice.stop):
                assert not books.is_revoked(position), "what is not to start was handed out"
                assert books.tasks[position].lane == self.lane_of[batch.worker]
                books.tasks[position].step(Event.DISPATCH)

    def run(self, slices: list[Slice], tasks: int, *, dies: bool) -> tuple[list[Answered], tuple[int, int] | None]:
        """Run so many tasks of a batch, and begin one more where the worker dies of it: (entries, what ran)."""
        entries = []
        for slice in slices:
            stop = min(slice.stop, slice.first + tasks)
            tasks -= stop - slice.first
            for position in range(slice.first, stop):
                self.end(slice, position)
                task = self.book(slice.package).tasks[position]
                if task.state is State.FINISHED:
                    task.step(Event.ANSWER)
            if stop > slice.first:
                cost = 100 if slice.package.kind == ("light",) else BATCH_NS
                entries.append(answer(slice, slice.first, stop, cost))
            if stop < slice.stop:
                if not dies:
                    return entries, None
                self.begin(slice, stop)
                return entries, (slice.package.flight.job, stop)
        return entries, None

    def book(self, package: Package) -> Books:
        """The books of a package, which may be over."""
        return self.books.get(package) or self.over[package]

    def end(self, slice: Slice, position: int) -> None:
        """A task runs, unless it has."""
        task = self.book(slice.package).tasks[position]
        if task.state is State.HELD:
            self.begin(slice, position)
            task.step(Event.END)

    @precondition(lambda self: any(self.workers.values()))
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        """A worker goes on in its oldest batch, and the router looks at the workers' pages."""
        name = data.draw(st.sampled_from([name for name, batches in self.workers.items() if batches]))
        slices = self.workers[name][0]
        _, most = self.most(name, sum(slice.stop - slice.first for slice in slices))
        if most:
            self.ran[name] = data.draw(st.integers(self.ran[name], most))
            for slice, first, stop in between(slices, 0, self.ran[name]):
                for position in range(first, stop):
                    self.end(slice, position)
        self.turns += 1
        for look in self.broker.looks.due(self.turns):
            self.take_early(look, data.draw(st.integers(self.seen[look.worker], self.ran[look.worker])))

    def take_early(self, look: PageLook, stop: int) -> None:
        """Take what a worker has finished, up to so many tasks of its batch."""
        assert look.number == self.broker.workers.held(look.worker)[0]
        pieces: list[Piece] = []
        for slice, first, end in between(self.workers[look.worker][0], self.seen[look.worker], stop):
            is_wanted = slice.package.flight.job in look.jobs
            assert is_wanted == isinstance(slice.package.results, PartialResults)
            pieces.append(
                (slice.package.flight.job, first, end, 0, answer(slice, first, end)[5] if is_wanted else None)
            )
            for task in self.books[slice.package].tasks[first:end] if is_wanted else ():
                task.step(Event.ANSWER)
        self.seen[look.worker] = stop
        if pieces:
            self.take(self.broker.looks.take(look, pieces, (stop, 0, 0, 0, 0)))
            self.revoke()

    @rule()
    def send(self) -> None:
        """What has come is sent."""
        for made in self.broker.take_progressed():
            self.books[made].send(self.broker.take_parts(made))

    def begin(self, slice: Slice, position: int) -> None:
        """In a lane with one worker the order is that of reception, but for what is urgent."""
        self.books[slice.package].tasks[position].step(Event.BEGIN)
        if LANES[slice.run.lane.partition(MODULE_MARK)[0]] == 1 and slice.package.priority != Priority.URGENT:
            assert self.last_begun <= (slice.package.flight.job, position), "out of order"
            self.last_begun = (slice.package.flight.job, position)

    def most(self, name: str, total: int) -> tuple[int, int]:
        """How many tasks of its oldest batch a worker does at the least, and at the most."""
        if self.broker.workers.held(name)[0] > self.recalled.get(name, 0):
            self.is_handing_back.discard(name)
            # one with others to share with may end its slice, one without does not
            return (total if LANES[self.lane_of[name]] == 1 else self.ran[name]), total
        return self.ran[name], 0 if name in self.is_handing_back else total

    def put_back(self, slices: list[Slice], done: int) -> None:
        """Let the tasks of a batch wait again, except the first `done` and those that have begun."""
        for made, position in positions_of(slices)[done:]:
            task = self.book(made).tasks[position]
            if task.state is State.HELD:
                task.step(Event.HAND_BACK)

    def forget(self, name: str) -> int:
        """A worker's oldest batch is over: how many tasks of it have run so far."""
        self.seen.pop(name, None)
        return self.ran.pop(name, 0)

    @precondition(lambda self: any(self.workers.values()))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([name for name, batches in self.workers.items() if batches]))
        slices = self.workers[name].pop(0)
        total = sum(slice.stop - slice.first for slice in slices)
        least, most = self.most(name, total)
        done = data.draw(st.one_of(st.just(most), st.integers(least, most)))
        self.forget(name)
        if done < total:
            self.is_handing_back.add(name)
        entries, _ = self.run(slices, done, dies=False)
        self.put_back(slices, done)
        whole = self.broker.finish(name, entries)
        self.take(whole)
        self.revoke()

    @precondition(lambda self: any(self.workers.values()))
    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        """Leave a worker some tasks of one of its batches: it has begun none of the others, as its claims say."""
        name = data.draw(st.sampled_from([name for name, batches in self.workers.items() if batches]))
        place = data.draw(st.integers(0, len(self.workers[name]) - 1))
        slices = self.workers[name][place]
        left = data.draw(st.integers(0 if place else self.ran[name], tasks_in(slices)))
        for made, position in positions_of(slices)[left:]:
            self.books[made].tasks[position].step(Event.TAKE_BACK)
        self.workers[name][place] = first_of(slices, left)
        self.take(self.broker.take_back(name, self.broker.workers.held(name)[place], left))
        self.revoke()

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), part=st.booleans(), dies_running=st.booleans())
    def die(self, data: st.DataObject, part: bool, dies_running: bool) -> None:
        name = data.draw(st.sampled_from(list(self.workers)))
        batches = self.workers.pop(name)
        self.is_excluded.discard(name)
        accounts: list[Account | None] = []
        is_over = name in self.is_handing_back
        next_up: tuple[Slice, int] | None = None
        is_blamed = name in self.is_retired
        for slices in batches:
            if is_over:
                accounts.append(None)
                self.put_back(slices, 0)
                next_up = next_up or after(slices, 0)
                continue
            total = sum(slice.stop - slice.first for slice in slices)
            done = data.draw(st.integers(self.forget(name), total))
            is_over = done < total
            entries, running = self.run(slices, done, dies=dies_running and is_over)
            self.bury(running)
            self.put_back(slices, done)
            is_blamed = is_blamed or running is not None
            next_up = next_up or after(slices, done)
            last = entries.pop() if part and entries else None
            accounts.append(Account(entries, last, running))
        if next_up is not None and not is_blamed:
            self.blame(*next_up)
        whole = self.broker.leave(name, accounts)
        self.bereave(name)
        self.take(whole)
        self.revoke()

    def blame(self, slice: Slice, position: int) -> None:
        """A worker died before any task had begun: the chunk that was next is lost with the second."""
        books = self.books[slice.package]
        part, _, stop = next(slice.package.flight.chunks.between(position, slice.stop))
        books.deaths[part] += 1
        for task in books.tasks[position:stop] if books.deaths[part] >= DEATHS else ():
            task.step(Event.BLAME)

    def bereave(self, name: str) -> None:
        """Note as lost the tasks that wait for an owner of pins that has died, unless it was told to end."""
        if self.lane_of[name] in PINNED and name not in self.is_retired:
            for books in self.in_flight():
                for task in books.tasks:
                    if task.lane == self.lane_of[name] and task.state is State.WAITS:
                        task.step(Event.LOSE)

    def bury(self, running: tuple[int, int] | None) -> None:
        """The task that ran was lost, or is run again."""
        if running is None:
            return
        job, position = running
        books = next(books for books in self.in_flight() if books.package.flight.job == job)
        task = books.tasks[position]
        again = books.package.idempotent and task.events[Event.REPEAT] + 1 < DEATHS
        task.step(Event.REPEAT if again else Event.DEATH)

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), retires=st.booleans())
    def exclude(self, data: st.DataObject, retires: bool) -> None:
        name = data.draw(st.sampled_from(list(self.workers)))
        (self.broker.workers.retire if retires else self.broker.workers.exclude)(name)
        self.is_excluded.add(name)
        if retires:
            self.is_retired.add(name)

    @rule(client=st.sampled_from(CLIENTS))
    def part(self, client: bytes) -> None:
        self.broker.withdrawals.client_left(client)
        for books in self.in_flight():
            if books.package.sender.client == client:
                owed = {position for position, task in enumerate(books.tasks) if task.state is not State.ANSWERED}
                books.is_unwanted = books.is_unwanted or books.package.is_awaited
                books.cancelled |= {position for position in owed if books.tasks[position].lane in PINNED}
        self.take([])
        self.revoke()

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0]))
    def expire(self, seconds: float) -> None:
        self.now += seconds
        for books in self.in_flight():
            books.is_late = books.is_late or books.package.deadline <= self.now
        whole = self.broker.expire(self.now)
        self.take(whole)
        self.revoke()

    @rule(data=st.data(), everything=st.booleans())
    def cancel(self, data: st.DataObject, everything: bool) -> None:
        client = data.draw(st.sampled_from(CLIENTS))
        mine = [books for books in self.in_flight() if books.package.sender.client == client]
        if everything or not mine:
            self.broker.withdrawals.cancel(client)
            for books in mine:
                books.is_unwanted = True
        else:
            books = data.draw(st.sampled_from(mine))
            positions = data.draw(st.lists(st.integers(-3, len(books.tasks) + 3), max_size=9))
            self.broker.withdrawals.cancel(client, books.serial, positions)
            books.cancelled |= set(positions)
        self.take([])
        self.revoke()

    def in_flight(self) -> list[Books]:
        return [books for books in self.books.values() if not books.is_answered]

    @invariant()
    def what_is_accepted_is_answered_or_in_flight(self) -> None:
        flying = self.in_flight()
        assert set(self.broker.packages.values()) == {books.package for books in flying}
        assert self.broker.idle() == (not flying)
        stats = self.broker.stats({})
        assert stats.accepted == stats.answered + stats.in_flight
        for books in flying:
            owed = sum(task.state is not State.ANSWERED for task in books.tasks)
            assert books.package.results.missing == owed > 0

    @invariant()
    def who_is_answered_knows_what_happened(self) -> None:
        for made, books in list(self.books.items()):
            if books.is_answered:
                books.check_answer()
                self.over[made] = self.books.pop(made)

    def teardown(self) -> None:
        """Whatever happened before, everything is answered in the end."""
        for name in list(self.is_excluded):
            batches = self.workers.pop(name)
            accounts: list[Account | None] = []
            for slices in batches:
                ran = self.forget(name)
                accounts.append(Account(self.run(slices, ran, dies=False)[0], None, None) if ran else None)
                self.put_back(slices, ran)
            whole = self.broker.leave(name, accounts)
            self.bereave(name)
            self.take(whole)
            self.revoke()
        for lane in LANES:
            self.join(lane, ())
        while self.broker.packages:
            self.dispatch()
            busy = [name for name, batches in self.workers.items() if batches]
            assert busy, "what waits is given to nobody"
            for name in busy:
                slices = self.workers[name].pop(0)
                _, done = self.most(name, sum(slice.stop - slice.first for slice in slices))
                self.forget(name)
                entries, _ = self.run(slices, done, dies=False)
                self.put_back(slices, done)
                whole = self.broker.finish(name, entries)
                self.take(whole)
                self.revoke()
        self.who_is_answered_knows_what_happened()


TestBrokerStates: Any = BrokerStates.TestCase
TestBrokerStates.settings = settings(max_examples=examples(300), stateful_step_count=60, deadline=None)
