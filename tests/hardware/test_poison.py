"""Values that kill whoever reads them, or hold it up: they are refused, and what a worker reads is a task's."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
import zmq

from taskengine import BadArguments, Client, TaskEngineError
from taskengine.client.calls import Call
from taskengine.errors import ProtocolError, from_wire
from taskengine.protocol.messages import Request, RequestKind, decode_reply, encode_request
from tests.chaos.poison import call, poison
from tests.engine import Engine, deadline
from tests.integration.seedclient import SeedClient, meta, task

DEVICES = """
[hardware.devices.lamp]
type = "LED"
pin = 17
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("poison")
    (folder / "taskengine.toml").write_text(DEVICES)
    with Engine(cwd=folder, pins="mock", enable_stdout="false", data_workers=1) as engine:
        yield engine


@pytest.fixture
def client(engine: Engine) -> Iterator[Client]:
    with Client(engine.address, timeout=deadline(20)) as client:
        yield client


def ask(engine: Engine, names: Sequence[str], tasks: Sequence[bytes], kind: RequestKind = RequestKind.PACKAGE) -> Any:
    """Send what no client of ours would: the first entry of the reply, or the error that refuses it."""
    request = encode_request(Request(kind, 1, "hostile", list(names)))
    ends = [sum(map(len, tasks[: k + 1])) for k in range(len(tasks))]
    index = b"".join(end.to_bytes(4, "little") for end in ends)
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(engine.address)
        dealer.send_multipart([request, *([index] if kind == RequestKind.PACKAGE else []), b"".join(tasks)])
        assert dealer.poll(int(deadline(30) * 1000))
        head, *body = dealer.recv_multipart()
    reply = decode_reply(head)
    if reply.error is not None:
        return from_wire(*reply.error)
    entry = msgspec.msgpack.decode(body[0])
    return from_wire(*msgspec.msgpack.decode(entry.data)) if isinstance(entry, msgspec.msgpack.Ext) else entry


@pytest.mark.parametrize("name", ["task_echo", "devices.list"])
def test_a_map_whose_keys_collide_is_an_error_at_once_and_kills_nobody(
    engine: Engine, client: Client, name: str
) -> None:
    """9 s for 447 KB, and whoever read it was killed as silent, one after the other."""
    pids = engine.pids()
    begun = time.monotonic()
    error = ask(engine, [name], [call(poison(8000))])
    assert time.monotonic() - begun < deadline(2)
    assert isinstance(error, (BadArguments, ProtocolError))
    small = ask(engine, [name], [call(b"\x81\x92\x01\x02\xc0")])
    assert isinstance(small, ProtocolError)
    assert "the key of a map is" in str(small)
    assert client.call("devices.list")
    assert engine.pids() == pids


def test_a_publication_whose_keys_collide_hangs_no_data_worker(engine: Engine, client: Client) -> None:
    [data] = engine.pids("data")
    error = ask(engine, [], [b"\x92\xa1t" + poison(8000)], RequestKind.PUBLISH)
    assert isinstance(error, ProtocolError)
    client.publish("t", 1)
    assert client.latest("t") == 1
    assert engine.pids("data") == [data]


def test_an_owner_is_given_no_large_value_and_a_small_one_that_can_be_read(engine: Engine, client: Client) -> None:
    [owner] = engine.pids("pin")
    mixed: list[Call] = [("task_echo", ("x" * 2**17,), {}), ("gpio.write", ("lamp", True), {})]
    assert client.run(mixed) == ["x" * 2**17, None]
    for value in ("x" * 2**16, list(range(2**16))):
        with pytest.raises(BadArguments, match="a lane with pins takes 65536 \\(PIN_BYTES\\)"):
            client.call("gpio.write", "lamp", value)
        with pytest.raises(BadArguments, match="PIN_BYTES"):
            client.run([*mixed, ("gpio.write", ("lamp", value), {})])
    assert isinstance(ask(engine, ["gpio.write"], [call(b"\xc1")]), ProtocolError)
    with SeedClient(engine.address) as seed:
        head, *_ = seed.ask(meta(), task("gpio.write", "lamp", "x" * 2**16))
        assert "PIN_BYTES" in head["error"]
    with pytest.raises(TaskEngineError):
        client.call("gpio.write", "lamp", "x" * 2**10)
    assert engine.pids("pin") == [owner]
