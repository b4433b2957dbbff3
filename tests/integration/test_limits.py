"""What is too long, too late or too large is refused, and costs nobody else anything."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq

from taskengine import Client, TaskFailed, UnknownTask, _fastpath
from taskengine.messages import Kind, Request, encode_request
from taskengine.wire import MAGIC
from tests.engine import Engine, deadline
from tests.integration.seedclient import SeedClient


def ask(engine: Engine, *frames: bytes) -> list[bytes]:
    """The reply to a message that no client would send."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(engine.address)
        dealer.send_multipart(frames)
        assert dealer.poll(int(deadline(20) * 1000))
        return dealer.recv_multipart()


@pytest.mark.parametrize("deadline_s", [float("nan"), float("inf"), -1.0, 1e12, 1e300])
def test_no_deadline_stops_the_router(engine: Engine, client: Client, deadline_s: float) -> None:
    pid = engine.pids("router")
    index, body = _fastpath.pack_calls([("task_count", (2, 3), {})], {})
    ask(engine, encode_request(Request(Kind.PACKAGE, 1, "x", ["task_count"], deadline=deadline_s)), index, body)
    assert client.call("task_count", 2, 3) == 2.5
    assert engine.pids("router") == pid


@pytest.mark.parametrize("frames", [[MAGIC + bytes(2**17)], [b'{"serial": "%b"}' % (b"x" * 2**17)]])
def test_a_first_frame_that_is_too_long_is_refused(engine: Engine, frames: list[bytes]) -> None:
    assert b"at most 65536 bytes" in b"".join(ask(engine, *frames))


def test_long_names_kill_no_worker(engine: Engine, client: Client) -> None:
    """Each error names its task; ten that are megabytes long made an answer too large to be sent."""
    before = engine.pids("task")
    calls: list[tuple[str, tuple[()], dict[str, object]]] = [(f"{n}" * 6_000, (), {}) for n in range(10)]
    errors = client.options(errors="return").run(calls * 1000)
    assert {type(error) for error in errors} == {UnknownTask}
    long = b'{"task": "%b"}' % (b"\x7f" * 4_000_000)
    with SeedClient(engine.address) as seed:
        _, *frames = seed.ask(b"{}", *[long] * 10)
    assert sum("no task is named" in entry for frame in frames for entry in frame["data"]) == 10
    assert engine.pids("task") == before


def test_what_cannot_be_answered_is_told(tmp_path: Path) -> None:
    module = tmp_path / "big.py"
    module.write_text("def task_big(n): raise ValueError('x' * 3000)\n")
    with Engine(tasks=module, chunking="false") as engine, Client(engine.address, timeout=deadline(60)) as client:
        before = engine.pids("task")
        errors = client.options(errors="return").map("task_big", range(30_000))
        assert {type(error) for error in errors} == {TaskFailed}
        assert engine.pids("task") == before
