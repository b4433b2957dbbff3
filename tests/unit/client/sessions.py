"""Sessions as tests of several modules of the client want them: with packages in flight, and greeted by an engine."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import msgspec

from taskengine import _fastpath
from taskengine.client.requests import Options
from taskengine.client.session import Session
from taskengine.client.task_future import settle
from taskengine.errors import TaskEngineError, TaskFailed, to_wire
from taskengine.protocol.messages import Info, Reply, encode_reply

ADDRESS = "tcp://127.0.0.1:9000"
FAILED = TaskFailed("RuntimeError: boom", type="RuntimeError", traceback="…")


def submitted(number: int, **options: Any) -> tuple[Session, list[Future[Any]]]:
    """A session with one package of calls in flight, one future each."""
    session = Session("ARM", ADDRESS)
    futures: list[Future[Any]] = [Future() for _ in range(number)]
    session.package([("task_count", (2, 3), {})] * number, futures, Options(**options), each=True)
    return session, futures


MS = 10**6
S = 10**9
TOKEN = b"t" * 16
TIMED_INFO = Info(2, 0.03, 3, 2, [], 1, ["clock", "stop"])


def greeted(info: Any, *, engine_clock: int = 500 * S, now: int = 100 * S) -> Session:
    """A session that has sent its hello at `now`, and got `info` or an error for it 2 ms later."""
    session = Session("ARM", ADDRESS, TOKEN, since=90 * S)
    hello = session.greet(now)
    assert hello is not None
    session.write(hello, now)
    session.greeted(hello, now)
    error = to_wire(info) if isinstance(info, TaskEngineError) else None
    body = b"" if error else _fastpath.encode(msgspec.to_builtins(info))
    reply = Reply(hello.serial, 0 if error else 1, error=error, clock=engine_clock, boot=7)
    settle(session.receive([encode_reply(reply), body], now + 2 * MS))
    return session
