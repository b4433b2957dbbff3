"""Progress under any interleaving of reports, reads, ends, deaths and clients that do not read.

Each client hears, of each of its tasks, a subsequence of what the task said, in order. What is on its way is bounded.
A client that has read all hears the newest of each task that runs. Nothing is heard after the end of the package.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from taskengine import _fastpath
from taskengine.broker.binary import read_package
from taskengine.broker.broker import Broker
from taskengine.broker.package import Message, Package
from taskengine.client.reports import take_reports
from taskengine.protocol.messages import (
    NOWHERE,
    UNSTAMPED,
    PartialReply,
    Request,
    RequestKind,
    decode_request,
    encode_request,
    wanting_progress,
)
from taskengine.protocol.progress import Progress, write_report
from taskengine.router.progress_relay import KEPT, ProgressRelay
from taskengine.router.tuning import LATE_S, UNREAD_REPORTS
from tests.partial_frames import read_partial

CLIENTS = [b"one", b"two"]


class Reports(RuleBasedStateMachine):
    """The tests are its steps. The workers' messages arrive at once, or after an end, as those of ended tasks do."""

    def __init__(self) -> None:
        super().__init__()
        self.broker = Broker(1, {"": 2})
        self.relay = ProgressRelay(self.broker, self, self, lambda sender: True, lambda: UNSTAMPED)
        self.inboxes: dict[bytes, deque[tuple[PartialReply, bytes]]] = {client: deque() for client in CLIENTS}
        self.sent_unread = dict.fromkeys(CLIENTS, 0)
        self.full: set[bytes] = set()
        self.packages: dict[int, Package] = {}
        """By serial, those in flight."""
        self.said: dict[tuple[int, int], int] = {}
        """The newest that each task said, by serial and position."""
        self.heard: dict[tuple[int, int], int] = {}
        self.ended: list[tuple[str, int, int]] = []
        """Worker, job and position of what has ended."""
        self.born = self.serial = 0
        self.now = 0.0

    def is_full(self, client: bytes, key: str, size: int) -> bool:
        return client in self.full

    def has_read(self, client: bytes) -> bool:
        return not self.inboxes[client]

    def cut_off(self, client: bytes, reason: str = "") -> None:
        raise AssertionError("nobody is cut off because of progress")

    def send(self, route: Sequence[bytes], frames: Message, key: str = "", size: int = 0) -> None:
        reply, bodies = read_partial(frames)
        assert reply.serial in self.packages, "a report behind the end"
        assert 0 < reply.count <= KEPT
        self.inboxes[route[0]].append((reply, b"".join(bodies)))

    @property
    def running(self) -> dict[str, tuple[int, int, int]]:
        """Serial, position and job of what each worker runs."""
        found = {}
        for name, worker in self.broker.workers.items():
            for slice in itertools.chain(*list(worker.batches)[:1]):
                found[name] = int(slice.package.serial), slice.first, slice.package.flight.job
        return found

    @precondition(lambda self: self.born < 4)
    @rule()
    def join(self) -> None:
        self.broker.join(f"w{self.born}", "")
        self.born += 1
        self.broker.dispatch()

    @precondition(lambda self: len(self.packages) < 6)
    @rule(client=st.sampled_from(CLIENTS), tasks=st.integers(1, 3))
    def call(self, client: bytes, tasks: int) -> None:
        self.serial += 1
        serial = self.serial
        index, body = _fastpath.pack_calls([("survey", (), {})] * tasks, {})
        head = wanting_progress(encode_request(Request(RequestKind.PACKAGE, serial, "ARM", ["survey"])))
        package = read_package((client,), decode_request(head), [head, index, body], {"survey": ""}, 1, NOWHERE)
        self.packages[serial] = package
        self.broker.accept(package)
        self.broker.dispatch()

    @precondition(lambda self: self.running)
    @rule(data=st.data(), times=st.integers(1, 2 * UNREAD_REPORTS))
    def report(self, data: st.DataObject, times: int) -> None:
        self.say(data.draw(st.sampled_from(sorted(self.running))), times)

    def say(self, worker: str, times: int) -> None:
        serial, position, job = self.running[worker]
        for _ in range(times):
            self.now += LATE_S / 3
            done = self.said[serial, position] = self.said.get((serial, position), 0) + 1
            self.relay.take(worker, job, position, write_report(position, Progress(done)))
            self.relay.settle(self.now)

    @precondition(lambda self: self.ended)
    @rule(data=st.data())
    def report_late(self, data: st.DataObject) -> None:
        """A report comes behind the end of its task, as from a coroutine that the task has left."""
        worker, job, position = data.draw(st.sampled_from(self.ended))
        package = self.broker.packages.get(job)
        if package is not None and self.broker.workers.holds(worker, package):
            return  # it is taken for one of the others
        self.relay.take(worker, job, position, write_report(position, Progress(-1)))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.running)))
        self.ended.append((worker, self.running[worker][2], self.running[worker][1]))
        batch = next(iter(self.broker.workers[worker].batches))
        entries = [
            (each.package.flight.job, each.first, each.stop, 0, 10**6, b"\xc0" * (each.stop - each.first))
            for each in batch
        ]
        self.take(self.broker.finish(worker, entries))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.running)))
        self.take(self.broker.leave(worker, [None for _ in self.broker.workers.held(worker)]))

    def take(self, whole: list[Package]) -> None:
        for package in whole:
            del self.packages[int(package.serial)]
            self.relay.end(package)
        self.broker.dispatch()

    @rule(client=st.sampled_from(CLIENTS), number=st.integers(1, 2 * UNREAD_REPORTS))
    def read(self, client: bytes, number: int) -> None:
        inbox = self.inboxes[client]
        for _ in range(min(number, len(inbox))):
            reply, body = inbox.popleft()
            found: list[Progress] = [what for _, what in take_reports(reply, body, [], print, each=False)]
            for progress in found:
                task = reply.serial, progress.position
                assert self.heard.get(task, 0) < progress.done <= self.said[task]
                self.heard[task] = int(progress.done)

    @rule(client=st.sampled_from(CLIENTS))
    def fill(self, client: bytes) -> None:
        self.full ^= {client}

    @rule()
    def read_on(self) -> None:
        """The clients read all: they hear the newest of each task that runs, though none says more."""
        self.full.clear()
        for client in CLIENTS:
            self.read(client, 10**6)
        self.now += LATE_S
        self.relay.settle(self.now)
        for client in CLIENTS:
            self.read(client, 10**6)
        for serial, position, _ in self.running.values():
            assert self.heard.get((serial, position)) == self.said.get((serial, position))
        assert not self.relay.late

    @invariant()
    def little_is_on_its_way(self) -> None:
        for inbox in self.inboxes.values():
            # the router looks again after so many, and each look may find all read
            assert len(inbox) <= 2 * UNREAD_REPORTS
        for package, reports in self.relay.late.items():
            assert len(reports) <= KEPT
            assert int(package.serial) in self.packages
            assert package.is_watched


TestReports = Reports.TestCase
TestReports.settings = settings(max_examples=60, stateful_step_count=40)
