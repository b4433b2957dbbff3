"""Reports go from the worker that runs the task to the client that asked, and never in anybody's way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from taskengine import _fastpath
from taskengine.broker.binary import read_package
from taskengine.broker.broker import Broker
from taskengine.broker.package import Message, Package, is_watched, stream_of
from taskengine.client.stream_requests import as_stream
from taskengine.errors import ProtocolError
from taskengine.protocol.credit import Grant
from taskengine.protocol.messages import (
    NOWHERE,
    UNSTAMPED,
    ReplyMode,
    Request,
    RequestKind,
    decode_request,
    encode_request,
    wanting_progress,
)
from taskengine.protocol.progress import MAX_REPORT, Progress, as_reports, write_report
from taskengine.router.progress_relay import KEPT, ProgressRelay
from taskengine.router.tuning import LATE_S, UNREAD_REPORTS
from tests.partial_frames import read_partial

NIL = b"\xc0"


class Relay:
    """A relay with a broker of two workers, and the reports that it sent, by message."""

    def __init__(self) -> None:
        self.broker = Broker(100, {"": 2})
        for name in "w0", "w1":
            self.broker.join(name, "")
        self.sent: list[list[Progress]] = []
        self.has_room = self.is_owed = self.reads = True
        self.looked = 0
        self.relay = ProgressRelay(self.broker, self, self, lambda sender: self.is_owed, lambda: UNSTAMPED)

    def is_full(self, client: bytes, key: str, size: int) -> bool:
        return not self.has_room

    def has_read(self, client: bytes) -> bool:
        self.looked += 1
        return self.reads

    def cut_off(self, client: bytes, reason: str = "") -> None:
        raise AssertionError("nobody is cut off because of progress")

    def send(self, route: Sequence[bytes], frames: Message, key: str = "", size: int = 0) -> None:
        reply, bodies = read_partial(frames)
        assert (reply.reply, reply.first, reply.last) == (ReplyMode.PROGRESS, 0, False)
        self.sent.append(as_reports(_fastpath.unpack(b"".join(bodies), reply.count, bytes)))

    def begin(self, tasks: int = 1, *, asks: bool = True, **how: Any) -> tuple[Package, str, int]:
        """Return a package that runs, its worker and its job."""
        index, body = _fastpath.pack_calls([("survey", (), {})] * tasks, {})
        head = encode_request(Request(RequestKind.PACKAGE, 1, "ARM", ["survey"], **how))
        head = wanting_progress(head) if asks else head
        package = read_package((b"client",), decode_request(head), [head, index, body], {"survey": ""}, 1, NOWHERE)
        assert not self.broker.accept(package)
        batch = self.broker.dispatch()[0]
        return package, batch.worker, package.flight.job

    def tell(self, worker: str, job: int, done: int, position: int = 0) -> None:
        self.relay.take(worker, job, position, write_report(position, Progress(done)))


@pytest.fixture
def made() -> Relay:
    return Relay()


def test_a_report_goes_on_at_once(made: Relay) -> None:
    package, worker, job = made.begin(3)
    assert package.is_watched
    assert is_watched(package.head)
    made.tell(worker, job, 1)
    made.tell(worker, job, 5, position=2)
    assert made.sent == [[Progress(1)], [Progress(5, position=2)]]


def test_who_has_not_asked_gets_none(made: Relay) -> None:
    package, worker, job = made.begin(asks=False)
    assert (package.is_watched, is_watched(package.head)) == (False, False)
    made.tell(worker, job, 1)
    silent, worker, job = made.begin(reply=ReplyMode.NONE)
    assert not silent.is_watched
    made.tell(worker, job, 1)
    assert made.sent == []


@pytest.mark.parametrize("mode", [ReplyMode.ALL, ReplyMode.ERRORS, ReplyMode.EACH])
def test_other_modes_are_told(made: Relay, mode: ReplyMode) -> None:
    _, worker, job = made.begin(reply=mode)
    made.tell(worker, job, 1)
    assert made.sent == [[Progress(1)]]


def test_a_stream_is_told_beside_its_values() -> None:
    index, body = _fastpath.pack_calls([("survey", (), {})], {})
    heads = [
        encode_request(as_stream(Request(RequestKind.PACKAGE, 1, "ARM", ["survey"]), Grant(2, 9), progress=asks))
        for asks in (False, True)
    ]
    packages = [read_package((), decode_request(head), [head, index, body], {}, 1, NOWHERE) for head in heads]
    assert [package.is_watched for package in packages] == [False, True]
    assert [is_watched(package.head) for package in packages] == [False, True]
    assert [stream_of(package.head) for package in packages] == [(Grant(2, 9), False)] * 2


def test_a_report_of_what_has_ended_or_runs_elsewhere_has_no_effect(made: Relay) -> None:
    _, worker, job = made.begin()
    made.tell("w0" if worker == "w1" else "w1", job, 1)
    made.tell(worker, job + 1, 1)
    [whole] = made.broker.finish(worker, [(job, 0, 1, 0, 1000, NIL)])
    made.tell(worker, job, 1)
    assert made.sent == []
    assert whole.is_watched


def test_a_report_on_a_task_that_the_package_has_not_has_no_effect(made: Relay) -> None:
    _, worker, job = made.begin(2)
    made.tell(worker, job, 1, position=2)
    assert made.sent == []


def test_what_no_worker_of_ours_would_send_is_refused(made: Relay) -> None:
    _, worker, job = made.begin(2)
    for report in b"", bytes(MAX_REPORT + 1):
        with pytest.raises(ProtocolError, match=f"a report of {len(report)} bytes"):
            made.relay.take(worker, job, 0, report)


def test_a_client_that_does_not_read_gets_the_newest_once_it_has(made: Relay) -> None:
    _, worker, job = made.begin(3)
    made.reads = False
    for done in range(UNREAD_REPORTS + 9):
        made.tell(worker, job, done)
    assert len(made.sent) == UNREAD_REPORTS
    made.tell(worker, job, 7, position=1)
    made.reads = True
    made.tell(worker, job, 8, position=2)
    assert made.sent[UNREAD_REPORTS:] == [
        [Progress(UNREAD_REPORTS + 8), Progress(7, position=1), Progress(8, position=2)]
    ]


def test_the_newest_comes_though_the_task_says_nothing_more(made: Relay) -> None:
    _, worker, job = made.begin(2)
    made.has_room = False
    for done in 1, 2:
        made.tell(worker, job, done)
    made.tell(worker, job, 3, position=1)
    made.relay.settle(1.0)
    assert (made.sent, len(made.relay.late)) == ([], 1)
    made.has_room = True
    made.relay.settle(1.0 + LATE_S)
    assert (made.sent, made.relay.late) == ([[Progress(2), Progress(3, position=1)]], {})


def test_it_looks_seldom_and_once_at_each_client(made: Relay) -> None:
    made.reads = False
    for _ in range(2):
        _, worker, job = made.begin()
        for done in range(UNREAD_REPORTS + 1):
            made.tell(worker, job, done)
    assert len(made.relay.late) == 2
    made.looked = 0
    for part in range(4):
        made.relay.settle(1.0 + part * LATE_S / 4)
    assert made.looked == 1
    made.reads = True
    made.relay.settle(1.0 + LATE_S)
    assert (made.relay.late, len(made.sent)) == ({}, UNREAD_REPORTS + 2)


def test_what_is_late_of_an_ended_package_is_forgotten(made: Relay) -> None:
    package, worker, job = made.begin()
    made.relay.end(package)
    made.has_room = False
    made.tell(worker, job, 1)
    made.relay.end(package)
    made.has_room = True
    made.relay.settle(1.0)
    assert (made.sent, made.relay.late) == ([], {})


def test_so_many_tasks_are_kept_at_most(made: Relay) -> None:
    _, worker, job = made.begin(KEPT + 5)
    made.has_room = False
    for position in range(KEPT + 5):
        made.tell(worker, job, position, position=position)
    made.has_room = True
    made.tell(worker, job, 0, position=KEPT)
    assert [progress.position for progress in made.sent[0]] == [*range(5, KEPT), *range(KEPT + 1, KEPT + 5), KEPT]


def test_a_client_that_is_not_let_in_any_more_gets_none(made: Relay) -> None:
    _, worker, job = made.begin()
    made.is_owed = False
    made.tell(worker, job, 1)
    assert made.sent == []
