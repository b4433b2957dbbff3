"""Streams under any interleaving of yields, reads, cancels, deaths and clients that do not read.

Each client gets a beginning of what its task yielded, in order, and then one end. What is on its way is bounded by the
credit. Whatever has happened, a stream whose client reads on, and whose worker runs on, comes to its end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from taskengine import _fastpath
from taskengine.broker.binary import error_entry, read_package
from taskengine.broker.broker import Broker
from taskengine.broker.package import Message, Package, stream_of
from taskengine.broker.recovery import Account
from taskengine.client.stream_requests import as_stream, take_values
from taskengine.client.values import ValueBuffer
from taskengine.errors import Cancelled, Overloaded, TaskFailed, WorkerLost
from taskengine.protocol.credit import Credit, Grant
from taskengine.protocol.messages import (
    NOWHERE,
    UNSTAMPED,
    PartialReply,
    Request,
    RequestKind,
    StreamCredit,
    decode_reply,
    decode_request,
    encode_request,
)
from taskengine.router.stream_relay import StreamRelay
from tests.emulation import examples

CLIENT = b"client"
WINDOWS = st.builds(Grant, st.integers(1, 5), st.integers(1, 40))
VALUES = st.integers(0, 3).map(lambda size: "x" * 8 * size)
WORKERS = 2


class Reader:
    """A client's stream: what it has read, and what is on its way to it and from it."""

    def __init__(self, serial: int, window: Grant) -> None:
        self.serial = serial
        self.window = window
        self.values = ValueBuffer(window)
        self.inbox: deque[list[bytes]] = deque()
        self.grants: deque[Grant] = deque()
        self.read: list[Any] = []
        self.ends = 0

    def receive(self) -> None:
        """Take a message, as the session does."""
        head, *bodies = self.inbox.popleft()
        reply = decode_reply(head)
        if not isinstance(reply, PartialReply):
            raise TypeError("it is refused")
        for future, error in take_values(reply, b"".join(bodies), self.values):
            self.ends += 1
            future.set_result(error)

    def pop(self) -> None:
        """Read a value."""
        value, grant = self.values.pop()
        self.read.append(value)
        if grant is not None:
            self.grants.append(grant)


class Runner:
    """A worker with the stream that it runs."""

    def __init__(self) -> None:
        self.inbox: deque[tuple[int, Grant | None]] = deque()
        """Credit, and with None that the stream is cancelled."""
        self.outbox: deque[tuple[str, int, bytes]] = deque()
        self.job = 0
        self.credit: Credit | None = None
        self.is_cancelled = False

    def receive(self) -> None:
        job, grant = self.inbox.popleft()
        if job == self.job and self.credit is not None:
            if grant is None:
                self.is_cancelled = True
            else:
                self.credit.extend(grant)

    def end(self, entry: bytes) -> None:
        self.outbox.append(("answer", self.job, entry))
        self.credit, self.is_cancelled = None, False


class Streams(RuleBasedStateMachine):
    """The tests are its steps."""

    def __init__(self) -> None:
        super().__init__()
        self.broker = Broker(4, {"": WORKERS})
        self.has_room = True
        self.relay = StreamRelay(self.broker, self, lambda sender: True, lambda: UNSTAMPED)
        self.readers: dict[int, Reader] = {}
        self.runners: dict[str, Runner] = {}
        self.packages: dict[int, tuple[Package, Reader]] = {}
        """By job."""
        self.yielded: dict[int, list[Any]] = {}
        """By serial."""
        self.born = 0

    def is_full(self, client: bytes, key: str, size: int) -> bool:
        return not self.has_room

    def send(self, route: Sequence[bytes], frames: Message, key: str = "", size: int = 0) -> None:
        plain = [frame if isinstance(frame, bytes) else b"".join(frame) for frame in frames]
        self.readers[decode_reply(plain[0]).serial].inbox.append(plain)

    def take(self, whole: list[Package]) -> None:
        for package in whole:
            self.relay.end(package)

    def turn(self) -> None:
        """Do what the router does at the end of a turn."""
        self.relay.send()
        self.take(self.broker.settle(0.0))
        for batch in self.broker.dispatch():
            [slice] = batch.slices
            job = slice.package.flight.job
            stream = stream_of(slice.package.head)
            assert stream is not None
            runner = self.runners[batch.worker]
            runner.job, runner.credit = job, Credit(stream[0])
            reader = self.packages[job][1]
            assert [len(reader.read), len(reader.inbox)] == [0, 0], "it had sent something, and runs again"
            self.yielded[reader.serial] = []
        self.broker.recalls()
        for name, tasks in self.broker.workers.cancellations():
            self.runners[name].inbox.extend((job, None) for job, _, _ in tasks)
        for name, job, grant in self.relay.take_grants():
            self.runners[name].inbox.append((job, grant))

    @rule(window=WINDOWS)
    def begin(self, window: Grant) -> None:
        serial = len(self.readers) + 1
        reader = self.readers[serial] = Reader(serial, window)
        self.yielded[serial] = []
        index, body = _fastpath.pack_calls([("scan", (), {})], {})
        head = encode_request(as_stream(Request(RequestKind.PACKAGE, serial, "ARM", ["scan"], idempotent=True), window))
        package = read_package((CLIENT,), decode_request(head), [head, index, body], {"scan": ""}, 1, NOWHERE)
        self.take([package] if self.broker.accept(package) else [])
        self.packages[package.flight.job] = package, reader
        self.turn()

    @rule()
    @precondition(lambda self: len(self.runners) < WORKERS)
    def start_worker(self) -> None:
        self.born += 1
        self.broker.join(f"w{self.born}", "", cancels=True)
        self.runners[f"w{self.born}"] = Runner()
        self.turn()

    def runner(self, data: st.DataObject) -> tuple[str, Runner] | None:
        return (
            data.draw(st.sampled_from(sorted(self.runners.items(), key=lambda item: item[0]))) if self.runners else None
        )

    @rule(data=st.data(), value=VALUES)
    def yield_value(self, data: st.DataObject, value: str) -> None:
        found = self.runner(data)
        if found is None or found[1].credit is None:
            return
        runner, credit = found[1], found[1].credit
        if runner.is_cancelled:
            runner.end(error_entry(Cancelled("it was")))
        elif credit.may_send():
            _, reader = self.packages[runner.job]
            numbered = [credit.values, value]
            self.yielded[reader.serial].append(numbered)
            encoded = _fastpath.encode(numbered)
            runner.outbox.append(("value", credit.values, encoded))
            credit.send(1, len(encoded))

    @rule(data=st.data(), fails=st.booleans())
    def return_from_it(self, data: st.DataObject, fails: bool) -> None:
        found = self.runner(data)
        if found is not None and found[1].credit is not None and found[1].credit.may_send():
            found[1].end(error_entry(TaskFailed("so", type="E", traceback="")) if fails else b"\xc0")

    @rule(data=st.data())
    def worker_receives(self, data: st.DataObject) -> None:
        found = self.runner(data)
        if found is not None and found[1].inbox:
            found[1].receive()

    @rule(data=st.data(), most=st.integers(1, 3))
    def router_reads_worker(self, data: st.DataObject, most: int) -> None:
        found = self.runner(data)
        if found is None:
            return
        name, runner = found
        for _ in range(most):
            if runner.outbox:
                self.from_worker(name, *runner.outbox.popleft())
        self.turn()

    def from_worker(self, name: str, kind: str, number: int, body: bytes) -> None:
        [slices] = self.broker.workers[name].batches
        job = slices[0].package.flight.job
        if kind == "value":
            self.relay.take(name, job, number, body)
        else:
            self.take(self.broker.finish(name, [(job, 0, 1, int(body != b"\xc0"), 10**9, body)]))

    @rule(data=st.data())
    def worker_dies(self, data: st.DataObject) -> None:
        found = self.runner(data)
        if found is None:
            return
        name = found[0]
        del self.runners[name]
        held = list(self.broker.workers[name].batches)
        jobs = [slices[0].package.flight.job for slices in held]
        self.take(self.broker.leave(name, [Account([], None, (job, 0)) for job in jobs]))
        self.turn()

    def reader(self, data: st.DataObject) -> Reader | None:
        return data.draw(st.sampled_from(list(self.readers.values()))) if self.readers else None

    @rule(data=st.data())
    def client_receives(self, data: st.DataObject) -> None:
        reader = self.reader(data)
        if reader is not None and reader.inbox:
            reader.receive()

    @rule(data=st.data())
    def client_reads(self, data: st.DataObject) -> None:
        reader = self.reader(data)
        if reader is not None and not reader.values.is_empty:
            reader.pop()

    @rule(data=st.data(), twice=st.booleans())
    def router_reads_credit(self, data: st.DataObject, twice: bool) -> None:
        reader = self.reader(data)
        if reader is not None and reader.grants:
            grant = reader.grants[0] if twice else reader.grants.popleft()
            self.relay.grant(CLIENT, StreamCredit(reader.serial, *grant))
            self.turn()

    @rule(data=st.data())
    def client_cancels(self, data: st.DataObject) -> None:
        reader = self.reader(data)
        if reader is not None:
            self.broker.withdrawals.cancel(CLIENT, str(reader.serial))
            self.turn()

    @rule(full=st.booleans())
    def client_leaves_much_unread(self, full: bool) -> None:
        self.has_room = not full

    @invariant()
    def values_come_in_order_and_one_end(self) -> None:
        for reader in self.readers.values():
            assert reader.read == self.yielded[reader.serial][: len(reader.read)]
            assert reader.ends <= 1

    @invariant()
    def what_is_on_its_way_is_bounded(self) -> None:
        for _, reader in self.packages.values():
            ahead = len(self.yielded[reader.serial]) - len(reader.read)
            assert ahead <= reader.window.values

    def teardown(self) -> None:
        """Let all go on: every stream comes to its end."""
        self.has_room = True
        while len(self.runners) < WORKERS:
            self.start_worker()
        for _ in range(400):
            for name, runner in list(self.runners.items()):
                while runner.inbox:
                    runner.receive()
                if runner.credit is not None and (runner.is_cancelled or runner.credit.may_send()):
                    runner.end(error_entry(Cancelled("it was")) if runner.is_cancelled else b"\xc0")
                while runner.outbox:
                    self.from_worker(name, *runner.outbox.popleft())
                    self.turn()
            for reader in self.readers.values():
                while reader.inbox:
                    reader.receive()
                while not reader.values.is_empty:
                    reader.pop()
                while reader.grants:
                    self.relay.grant(CLIENT, StreamCredit(reader.serial, *reader.grants.popleft()))
            self.turn()
            if not self.broker.packages and all(reader.ends for reader in self.readers.values()):
                break
        for reader in self.readers.values():
            assert reader.ends == 1, f"stream {reader.serial} has no end"
            outcome = reader.values.end.result()
            assert outcome is None or isinstance(outcome, (TaskFailed, Cancelled, WorkerLost, Overloaded))
            assert outcome is not None or reader.read == self.yielded[reader.serial]
        assert not self.broker.packages
        assert self.broker.counters.accepted == self.broker.counters.answered


TestStreams = Streams.TestCase
TestStreams.settings = settings(max_examples=examples(300), stateful_step_count=60, deadline=None)
