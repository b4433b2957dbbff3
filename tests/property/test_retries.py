"""Tasks that fail and run again: each is answered once, after no more tries than it has, whatever happens meanwhile."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from taskengine.broker.broker import Broker
from taskengine.broker.lane import Batch, Slice
from taskengine.broker.package import Package
from taskengine.broker.recovery import Account, Answered
from taskengine.protocol.layouts import MAY_RETRY
from taskengine.protocol.messages import RetryPolicy
from tests.packages import answer, package

LANES = {"": 2, "arm": 1}
RETRIES = 2


class Life:
    """A broker whose tasks fail as `draw` says."""

    def __init__(self, data: st.DataObject) -> None:
        self.draw = data.draw
        self.broker = Broker(self.draw(st.sampled_from([None, 1, 4])), LANES)
        self.broker.retries._draw = lambda: 0.5
        self.broker.retries.learn({"plain": RetryPolicy(RETRIES, 1.0)})
        self.now = 0.0
        self.names = 0
        self.held: dict[str, list[Batch]] = {}
        self.accepted: list[Package] = []
        self.answered: Counter[int] = Counter()
        self.runs: Counter[tuple[int, int]] = Counter()

    def join(self) -> None:
        if sum(name.startswith("w") for name in self.held) < 3:
            name = f"w{self.names}"
            self.names += 1
            self.broker.join(name, self.draw(st.sampled_from(sorted(LANES))))
            self.held[name] = []

    def accept(self) -> None:
        made = package(self.draw(st.integers(1, 9)))
        made.lanes = [(self.draw(st.sampled_from(sorted(LANES))), made.count)]
        self.names += 1
        made.serial = f"s{self.names}"
        if self.draw(st.booleans()):
            made.deadline = self.now + self.draw(st.floats(0.5, 6.0))
        self.broker.accept(made)
        self.accepted.append(made)

    def turn(self) -> None:
        self.now += self.draw(st.floats(0.0, 2.5))
        self.broker.tick(self.now)
        self.take(self.broker.settle(self.now))
        for batch in self.broker.dispatch():
            self.held[batch.worker].append(batch)

    def entries(self, slice: Slice, stop: int) -> list[Answered]:
        found = []
        for position in range(slice.first, stop):
            self.runs[slice.package.flight.job, position] += 1
            if self.draw(st.booleans()):
                found.append(answer(slice, position, position + 1))
            else:
                found.append((slice.package.flight.job, position, position + 1, MAY_RETRY | 1, 1, b"<failed>"))
        return found

    def finish(self) -> None:
        name = self.draw(st.sampled_from(sorted(self.held)))
        if self.held[name]:
            batch = self.held[name].pop(0)
            self.take(self.broker.finish(name, [e for slice in batch.slices for e in self.entries(slice, slice.stop)]))

    def die(self) -> None:
        name = self.draw(st.sampled_from(sorted(self.held)))
        accounts: list[Account | None] = [None] * len(self.held[name])
        if accounts:
            slice = self.held[name][0].slices[0]
            done = self.draw(st.integers(slice.first, slice.stop - 1))
            accounts[0] = Account(self.entries(slice, done), None, (slice.package.flight.job, done))
            self.runs[slice.package.flight.job, done] += 1
        del self.held[name]
        self.take(self.broker.leave(name, accounts))

    def cancel(self) -> None:
        if self.accepted:
            made = self.draw(st.sampled_from(self.accepted))
            positions = self.draw(st.none() | st.lists(st.integers(0, made.count - 1), max_size=3))
            self.broker.withdrawals.cancel(b"client", made.serial, positions)

    def take(self, whole: list[Package]) -> None:
        for made in whole:
            self.answered[made.flight.job] += 1
            assert made.results.missing == 0

    def check(self) -> None:
        stats = self.broker.stats({})
        assert stats.accepted == stats.answered + stats.in_flight
        assert max(self.runs.values(), default=0) <= RETRIES + 1
        assert max(self.answered.values(), default=0) <= 1

    def end(self) -> None:
        """Nothing fails any more."""
        for lane in sorted(LANES):
            self.broker.join(f"last {lane}", lane)
            self.held[f"last {lane}"] = []
        for _ in range(1000):
            if self.broker.idle():
                break
            self.now += 10.0
            self.broker.tick(self.now)
            self.take(self.broker.settle(self.now))
            for batch in self.broker.dispatch():
                self.held[batch.worker].append(batch)
            for name, batches in self.held.items():
                while batches:
                    batch = batches.pop(0)
                    self.take(self.broker.finish(name, [answer(s, s.first, s.stop) for s in batch.slices]))
        assert self.answered == Counter(made.flight.job for made in self.accepted)
        assert self.broker.retries.due == float("inf")
        assert all(lane.postponed == 0 for lane in self.broker._lanes.values())


@given(st.data())
def test_each_task_is_answered_once_after_no_more_tries_than_it_has(data: st.DataObject) -> None:
    life = Life(data)
    life.join()
    for _ in range(data.draw(st.integers(1, 30))):
        steps = [life.join, life.accept, life.turn, life.turn]
        steps += [life.finish, life.finish, life.die, life.cancel] if life.held else []
        data.draw(st.sampled_from(steps))()
        life.check()
    life.end()
