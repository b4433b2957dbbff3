"""Reports of progress at the client: futures know the newest, and functions hear of each."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

import pytest

from taskengine.client.call_queue import Calls
from taskengine.client.reports import Announcement, announce
from taskengine.client.requests import Options, OutgoingRequest
from taskengine.client.session import Session
from taskengine.client.task_future import TaskFuture, settle
from taskengine.errors import BadArguments, ProtocolError
from taskengine.protocol.messages import (
    Info,
    PartialReply,
    Reply,
    ReplyMode,
    RequestKind,
    WatchedRequest,
    decode_request,
    encode_reply,
)
from taskengine.protocol.progress import Progress, write_report

CALL: Any = ("survey", (), {})
NEW = ["clock", "each", "values", "progress"]


def future() -> TaskFuture:
    made = TaskFuture(lambda serial, position: None)
    made.is_sent = True
    return made


def session(capabilities: Sequence[str] = NEW) -> Session:
    """A session whose engine has answered the hello."""
    made = Session("ARM", "tcp://127.0.0.1:9000", b"token")
    hello = made.greet(1)
    assert hello is not None
    made.greeted(hello, 1)
    info = Info(2, 0.005, 10, 2, [], 1, list(capabilities))
    made._learn(info)
    made.forget(hello.serial)
    return made


def submitted(made: Session, futures: list[TaskFuture], options: Options | None = None) -> OutgoingRequest:
    calls = Calls(options or Options(), 0)
    calls.entries += [(CALL, each) for each in futures]
    [outgoing] = calls.pack(made)
    return outgoing


def told(serial: int, *said: Progress) -> list[bytes]:
    head = PartialReply(serial, len(said), ReplyMode.PROGRESS, last=False)
    return [encode_reply(head), b"".join(write_report(each.position, each) for each in said)]


def asks(made: Session, outgoing: OutgoingRequest) -> bool:
    request = decode_request(made.write(outgoing, 5)[0])
    return isinstance(request, WatchedRequest) and request.progress


def test_who_asks(capsys: pytest.CaptureFixture[str]) -> None:
    made = session()
    assert asks(made, submitted(made, [future()]))
    assert asks(made, submitted(made, [future(), future()]))
    assert not asks(made, submitted(made, [future()], Options(reply="none")))
    assert not asks(made, made.package([CALL], [future()], Options(), each=True))
    assert not asks(made, made.mapped("survey", [[1]], future(), Options()))
    heard = Options(progress=print)
    assert asks(made, made.package([CALL], [future()], heard, each=True))
    assert asks(made, made.mapped("survey", [[1]], future(), heard))
    assert not asks(made, made.request(RequestKind.STATS, future(), heard))


@pytest.mark.parametrize("capabilities", [[], ["clock"], ["clock", "each", "values", "streams"]])
def test_an_older_engine_is_not_asked(capabilities: list[str]) -> None:
    made = session(capabilities)
    assert not asks(made, submitted(made, [future(), future()], Options(progress=print)))


def test_a_new_connection_may_lead_to_an_older_engine() -> None:
    made = session()
    outgoing = submitted(made, [future()], Options(idempotent=True))
    assert asks(made, outgoing)
    assert made.lose([outgoing.serial]) == [outgoing]
    made._learn(Info(2, 0.005, 10, 2, [], 1, ["clock"]))
    assert not asks(made, outgoing)


def test_each_future_knows_its_own_newest() -> None:
    made, futures = session(), [future(), future()]
    serial = submitted(made, futures).serial
    made.receive(told(serial, Progress(1, 4, "", 0), Progress(2, 4, "", 1)))
    made.receive(told(serial, Progress(3, 4, "", 1)))
    assert [each.progress() for each in futures] == [Progress(1, 4), Progress(3, 4)]
    assert [made.pending[serial].answered, len(made.outcomes), len(made.reports)] == [0, 0, 0]
    assert all(each.is_bare for each in futures)


def test_functions_hear_of_each_and_of_the_last_before() -> None:
    made, waited, heard = session(), future(), list[tuple[str, Progress]]()
    options = Options(progress=lambda progress: heard.append(("option", progress)))
    serial = submitted(made, [waited], options).serial
    made.receive(told(serial, Progress(1)))
    announce(made.reports)
    waited.add_progress_callback(lambda progress: heard.append(("future", progress)))
    made.receive(told(serial, Progress(2), Progress(3)))
    announce(made.reports)
    names = ["option", "future", "future", "option", "future", "option"]
    assert heard == list(zip(names, map(Progress, [1, 1, 2, 2, 3, 3]), strict=True))


def test_of_a_package_with_one_future_they_hear_which_task_it_is() -> None:
    made, heard = session(), list[Progress]()
    outgoing = made.mapped("survey", [range(3)], future(), Options(progress=heard.append))
    made.receive(told(outgoing.serial, Progress(1, None, "", 2)))
    announce(made.reports)
    assert heard == [Progress(1, position=2)]
    made.receive([encode_reply(Reply(outgoing.serial, 3)), b"\x01\x02\x03"])
    assert made.outcomes.pop()[1] == [1, 2, 3]


def test_what_has_ended_hears_no_more() -> None:
    made, ended = session(), future()
    serial = submitted(made, [ended]).serial
    made.receive(told(serial, Progress(1)))
    settle(made.receive([encode_reply(Reply(serial, 1)), b"\x05"]))
    made.receive(told(serial, Progress(2)))
    assert (ended.result(), ended.progress()) == (5, Progress(1))
    assert ended.hear(Progress(2)) == ()


@pytest.mark.parametrize(
    "frames", [told(1, Progress(1, position=1)), [told(1, Progress(1))[0], b"\x05"], [told(1, Progress(1))[0], b""]]
)
def test_a_malformed_report_changes_nothing(frames: list[bytes]) -> None:
    made, waited = session(), future()
    serial = submitted(made, [waited]).serial
    assert serial == 2
    frames = [encode_reply(PartialReply(serial, 1, ReplyMode.PROGRESS, last=False)), frames[1]]
    with pytest.raises(ProtocolError):
        made.receive(frames)
    assert waited.progress() is None
    assert serial in made.pending


def test_what_a_function_raises_is_printed_unless_it_may_be_a_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda told: printed.append(repr(told.exc_value)))

    def fail(error: BaseException) -> None:
        raise error

    heard: list[Any] = []
    waiting: deque[Announcement] = deque([(fail, ValueError("no")), (fail, KeyboardInterrupt()), (heard.append, 3)])
    with pytest.raises(KeyboardInterrupt):
        announce(waiting)
    assert (printed, heard) == (["ValueError('no')"], [])
    announce(waiting)
    waiting.append((fail, KeyboardInterrupt()))
    thread = threading.Thread(target=announce, args=(waiting,))
    thread.start()
    thread.join()
    assert (printed[1:], heard) == (["KeyboardInterrupt()"], [3])


def test_what_cannot_be_called_is_no_listener() -> None:
    with pytest.raises(BadArguments, match="progress is a function or None, not True"):
        Options(progress=True)  # type: ignore[arg-type]
