"""Whatever happens in whatever order, each accepted task is answered or in flight, and the lanes know where."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from taskengine.broker.broker import Broker
from taskengine.broker.quota import QuotaLimits
from taskengine.broker.recovery import SENSELESS, Account, Answered
from taskengine.errors import Overloaded, TaskFailed
from taskengine.protocol.messages import Priority
from tests.packages import answers, package

LANES = {"": 3, "arm": 1}
CHEAP_NS, HEAVY_NS = 100, 10**9


class Life:
    """A broker, what it handed out, and what happens to it as `draw` says."""

    def __init__(self, data: st.DataObject) -> None:
        self.draw = data.draw
        limits = QuotaLimits(80, 2**30, 100, self.draw(st.sampled_from([2**13, 2**30])))
        self.broker = Broker(self.draw(st.sampled_from([None, 1, 10])), LANES, limits=limits)
        self.now = 0
        self.names = 0
        self.held: dict[str, list[list[Answered]]] = {}

    def join(self) -> None:
        name = f"w{self.names}"
        self.names += 1
        self.broker.join(name, self.draw(st.sampled_from(sorted(LANES))))
        self.held[name] = []

    def accept(self) -> None:
        runs = self.draw(st.lists(st.tuples(st.sampled_from(sorted(LANES)), st.integers(1, 40)), max_size=3))
        made = package(sum(tasks for _, tasks in runs), kind=self.draw(st.sampled_from("kl")), lanes=runs)
        made.priority = self.draw(st.sampled_from(Priority))
        made.idempotent = self.draw(st.booleans())
        if self.draw(st.booleans()):
            made.deadline = float(self.now + 3)
        self.names += 1
        made.serial = f"s{self.names}"
        with contextlib.suppress(Overloaded):
            self.broker.accept(made)

    def dispatch(self) -> None:
        ns = self.draw(st.sampled_from([CHEAP_NS, HEAVY_NS]))
        self.broker.revoke()
        for batch in self.broker.dispatch():
            self.held[batch.worker].append(answers(batch, ns))
        self.broker.recalls()

    def answer(self) -> None:
        busy = [name for name, batches in self.held.items() if batches]
        if busy:
            name = self.draw(st.sampled_from(busy))
            entries = self.held[name].pop(0)
            if self.draw(st.booleans()):
                self.broker.finish(name, entries[: self.draw(st.integers(0, len(entries)))])
            else:
                self.broker.give_up(name, TaskFailed("too large"))

    def die(self) -> None:
        if self.held:
            name = self.draw(st.sampled_from(sorted(self.held)))
            self.broker.workers.exclude(name)
            self.broker.leave(name, [self._account(entries) for entries in self.held.pop(name)])

    def _account(self, entries: list[Answered]) -> Account | None:
        kind = self.draw(st.sampled_from(["not begun", "senseless", "running"]))
        if kind != "running":
            return SENSELESS if kind == "senseless" else None
        done = self.draw(st.integers(0, len(entries) - 1))
        return Account(entries[:done], None, entries[done][:2])

    def expire(self) -> None:
        self.now += 1
        self.broker.tick(self.now)
        self.broker.expire(float(self.now))

    def cancel(self) -> None:
        packages = list(self.broker.packages.values())
        if packages:
            chosen = self.draw(st.sampled_from(packages))
            positions = self.draw(st.none() | st.lists(st.integers(0, chosen.count - 1), max_size=5))
            self.broker.withdrawals.cancel(chosen.sender.client, chosen.serial, positions)

    def retire(self) -> None:
        if self.held:
            self.broker.workers.retire(self.draw(st.sampled_from(sorted(self.held))))

    def refuse_unserved(self) -> None:
        self.broker.refuse_unserved()

    def check(self) -> None:
        stats = self.broker.stats({})
        missing = sum(package.results.missing for package in self.broker.packages.values())
        assert stats.accepted - stats.answered == stats.in_flight == missing
        assert stats.packages == len(self.broker.packages)


@given(st.data())
def test_accepted_is_answered_and_in_flight(data: st.DataObject) -> None:
    life = Life(data)
    usual = [life.join, life.accept, life.dispatch, life.answer, life.die, life.expire, life.cancel]
    events = [*usual, *usual, life.retire, life.refuse_unserved]
    life.join()
    for _ in range(data.draw(st.integers(0, 40))):
        data.draw(st.sampled_from(events))()
        life.check()
    life.broker.abandon(Overloaded("the end", retry_after=None))
    assert life.broker.counters.accepted == life.broker.counters.answered
    assert life.broker.stats({}).bytes_in_flight == 0
    assert life.broker.idle()
