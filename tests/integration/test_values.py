"""Values, types and errors as the tables on the pages have them: each row is tried on a real engine."""

from __future__ import annotations

import asyncio
import concurrent.futures
import re
import runpy
import tempfile
from collections import OrderedDict, deque, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from threading import Lock
from typing import Annotated, Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import numpy
import pytest
import zmq

from taskengine import BadArguments, Cancelled, Client, TaskFailed, TaskTimeout, aio
from taskengine.protocol.messages import Request, RequestKind, decode_reply, encode_request
from taskengine.registry.arguments import converting
from tests.engine import Engine, deadline
from tests.model import pack_calls, unpack

ROOT = Path(__file__).resolve().parents[2]
Pair = namedtuple("Pair", ["a", "b"])
MODULE = """
from __future__ import annotations
import builtins, dataclasses, threading
from taskengine import task

@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0

class OwnError(ValueError):
    pass

@task
def kind_of(value): return type(value).__name__
@task
def length(point: Point, times: int = 1): return times * (point.x ** 2 + point.y ** 2) ** 0.5
@task
def fail(name, *args): raise getattr(builtins, name)(*args)
@task
def fail_of_own(): raise OwnError("mine")
@task
def fail_to_decode(): b"\\xff".decode()
@task
def fail_in_a_group(): raise ExceptionGroup("x", [OSError()])
@task
def make(text): return eval(text)  # what the test itself has written
"""


@dataclass
class Point:
    x: float
    y: float = 0.0


@dataclass(frozen=True)
class Corner:
    x: int


class Leg(msgspec.Struct):
    angles: tuple[int, ...]


class Color(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 0


NAMES: dict[str, Any] = {
    each.__name__: each
    for each in (
        *(Point, Corner, Leg, Color, Level, Pair, OrderedDict, deque, Decimal, UUID, date, datetime, time, timedelta),
        *(ZoneInfo, Path, msgspec, numpy),
    )
} | {"UTC": UTC, "Lock": Lock, "Callable": Callable, "Annotated": Annotated}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    module = tmp_path_factory.mktemp("tasks") / "values.py"
    module.write_text(MODULE)
    with Engine(tasks=f"taskengine.tasks,{module}") as running:
        yield running


def table(page: str, heading: str) -> list[list[str]]:
    """The cells of the rows below a heading."""
    text = (ROOT / "docs" / page).read_text()
    (found,) = re.findall(rf"^{re.escape(heading)}\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in found.splitlines()]


def expressions(cell: str) -> list[str]:
    """What stands in backticks, but for the notes in brackets."""
    return [text.replace("\\|", "|") for text in re.findall(r"`([^`]+)`", re.sub(r" \(an? [^)]*\)", "", cell))]


def evaluated(text: str) -> Any:
    """The value of an expression, run as a script."""
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(f"value = {text}\n")
        script.flush()
        return runpy.run_path(script.name, NAMES)["value"]


def pairs() -> list[tuple[str, str]]:
    """What is sent, and as what it arrives."""
    found: list[tuple[str, str]] = []
    for value, arrival in table("clients.md", "| value | arrives as |"):
        texts = expressions(value)
        found += zip(texts, texts if arrival.startswith("itself") else expressions(arrival), strict=True)
    return found


def refusals() -> list[tuple[str, str]]:
    """What is not sent, and the advice."""
    rows = table("clients.md", "| value | `BadArguments` |")
    return [(text, advice) for cell, advice in rows for text in expressions(cell)]


def is_same(found: Any, expected: Any) -> bool:
    """Whether they are equal, of the same types, and as precise."""
    if isinstance(expected, numpy.ndarray):
        return bool((found == expected).all()) and found.dtype == expected.dtype
    return bool(type(found) is type(expected) and found == expected and repr(found) == repr(expected))


@pytest.mark.parametrize(("sent", "arrives"), pairs())
def test_what_is_sent_arrives_as_the_table_says(client: Client, sent: str, arrives: str) -> None:
    value, expected = evaluated(sent), evaluated(arrives)
    results = [client.call("task_echo", value), client.submit("task_echo", value).result(deadline(20))]
    results += [*client.map("task_echo", [value]), client.call("task_echo", k=value)["k"]]
    results += client.run([("task_echo", [value], {})])
    assert all(is_same(result, expected) for result in results), results
    assert client.call("kind_of", value) == type(expected).__name__


@pytest.mark.parametrize("kind", ["(1, (2, [3]))", "{1}", "frozenset({1})", "2**70", "1j", "{(1, 2): 3}"])
def test_what_a_task_makes_itself_comes_back(client: Client, kind: str) -> None:
    assert is_same(client.call("make", kind), evaluated(kind))


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        (text, advice)
        for cell, advice in table("clients.md", "| value | `BadArguments` |")
        for text in expressions(cell)
    ],
)
def test_what_is_refused_is_not_sent_and_says_what_to_send(client: Client, text: str, advice: str) -> None:
    value, before = evaluated(text), client.stats().accepted
    for call in (client.call, client.options(reply="none").call):
        with pytest.raises(BadArguments, match=re.escape(advice)):
            call("task_echo", value)
    with pytest.raises(BadArguments, match=re.escape(advice)):
        client.submit("task_echo", [value]).result(deadline(20))
    with pytest.raises(BadArguments, match=re.escape(advice)):
        client.map("task_echo", [1, value])
    assert client.stats().accepted == before


def test_a_result_that_cannot_be_sent_is_the_tasks_failure(client: Client) -> None:
    with pytest.raises(TaskFailed, match=r"the result cannot be sent: .* send list\(…\) of it") as caught:
        client.call("make", "range(3)")
    assert caught.value.type == "BadArguments"


# ---- types


@pytest.mark.parametrize(
    ("kind", "came", "gets"), table("tasks.md", "| the function names | what came | what it gets |")
)
def test_a_task_gets_what_its_function_names(kind: str, came: str, gets: str) -> None:
    def function(value: Any) -> Any:
        return value

    function.__annotations__["value"] = evaluated(*expressions(kind))
    call, (value,) = converting("the.task", function), map(evaluated, expressions(came))
    if gets == "`BadArguments`":
        with pytest.raises(BadArguments, match=r"^the\.task: argument 'value': "):
            call(value)
    else:
        assert is_same(call(value), evaluated(*expressions(gets)))


def test_arguments_are_converted_in_the_engine(client: Client) -> None:
    assert client.call("length", Point(3, 4)) == client.call("length", point={"x": 3, "y": 4}) == 5.0
    for bad, why in (
        (({"x": "3"},), r"argument 'point': Expected `float`, got `str` - at `\$\.x`"),
        ((Point(3, 4), 2.5), "argument 'times': Expected `int`, got `float`"),
        ((), "missing 1 required positional argument: 'point'"),
    ):
        with pytest.raises(BadArguments, match=f"^length: .*{why}") as caught:
            client.call("length", *bad)
        assert caught.value.name == "length"


def test_arguments_of_wire_01_are_converted_too(engine: Engine) -> None:
    frames = [b'{"type": "REQ"}']
    frames += [b'{"task": "length", "args": [{"x": %d, "y": 4}], "pack": "p"}' % x for x in (3, 0)]
    frames.append(b'{"task": "length", "args": [{"y": 4}], "pack": "p"}')
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.connect(engine.address)
        socket.send_multipart(frames)
        assert socket.poll(int(deadline(20_000)))
        data = b"".join(socket.recv_multipart()[1:]).decode()
    assert "job-p: 5.0" in data
    assert "job-p: 4.0" in data
    assert "ERROR: length: argument 'point': Object missing required field `x`" in data


def test_a_type_for_the_result(client: Client) -> None:
    point = Point(1.0, 2.5)
    assert client.call("task_echo", point, returns=Point) == point
    assert client.call("task_echo", [point], returns=list[Point]) == [point]
    assert client.call("task_echo", None, returns=Point | None) is None
    assert client.call("task_echo", Color.RED, returns=Color) is Color.RED
    assert client.submit("task_echo", point, returns=Point).result(deadline(20)) == point
    assert client.map("task_echo", [point, {"x": 1}], returns=Point) == [point, Point(1.0)]
    assert client.map("task_count", numpy.ones(3), numpy.ones(3), returns=Decimal) == [Decimal(1)] * 3
    assert client.options(reply="none").call("task_echo", point, returns=Point) is None
    failing = client.options(errors="return").map("make", ["{'x': 1}", "1 / 0"], returns=Point)
    assert failing[0] == Point(1.0)
    assert isinstance(failing[1], ZeroDivisionError)


def test_a_result_that_is_not_of_the_type(client: Client) -> None:
    why = r"the result of task_echo is no Point: Expected `float`, got `str` - at `\$\.x`"
    future = client.submit("task_echo", {"x": "1"}, returns=Point)
    for ask in (
        lambda: client.call("task_echo", {"x": "1"}, returns=Point),
        lambda: client.map("task_echo", [{"x": "1"}], returns=Point),
        lambda: future.result(deadline(20)),
    ):
        with pytest.raises(BadArguments, match=why):
            ask()
    with pytest.raises(BadArguments, match="results cannot be converted to"):
        client.call("task_echo", 1, returns=Point | Corner)


def test_types_for_results_with_asyncio(engine: Engine) -> None:
    async def script() -> None:
        async with aio.Client(engine.address, timeout=deadline(20)) as client:
            point = Point(1.0, 2.5)
            assert await client.call("task_echo", point, returns=Point) == point
            assert await client.submit("task_echo", point, returns=Point) == point
            assert await client.map("task_echo", [point], returns=Point) == [point]
            assert await client.call("task_echo", (1, {2})) == (1, {2})
            with pytest.raises(BadArguments, match="is no Point"):
                await client.submit("task_echo", 7, returns=Point)

    asyncio.run(script())


# ---- errors


def raised(client: Client, text: str) -> TaskFailed:
    """What the caller gets where a task does what stands in the table."""
    if text == "an exception of your own":
        call = client.submit("fail_of_own")
    elif "decode" in text:
        call = client.submit("fail_to_decode")
    elif "Group" in text:
        call = client.submit("fail_in_a_group")
    else:
        error = evaluated(text)
        call = client.submit("fail", type(error).__name__, *error.args)
    failed = call.exception(deadline(20))
    assert isinstance(failed, TaskFailed)
    return failed


def raisings() -> list[tuple[str, list[str]]]:
    """What a task raises, and the builtins by which that is caught."""
    rows = table("clients.md", "| the task raises | `except` that catches it, beside `TaskFailed` |")
    names = {caught: expressions(caught.partition(";")[0].partition("nothing")[0]) for _, caught in rows}
    return [(text, names[caught]) for cell, caught in rows for text in expressions(cell) or [cell]]


@pytest.mark.parametrize(("text", "names"), raisings())
def test_what_a_task_raises_is_caught_by_its_builtin(client: Client, text: str, names: list[str]) -> None:
    error = raised(client, text)
    caught = {kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"}
    assert {*names, "Exception", "BaseException", "object"} <= caught
    assert {kind.__name__ for kind in type(error).__bases__} <= {*names, "TaskFailed", "TaskEngineError"}


def test_the_calls_own_timeout_is_never_the_tasks_failure(client: Client) -> None:
    assert {TimeoutError, TaskFailed} < {*type(raised(client, "TimeoutError()")).__mro__} - {TaskTimeout}
    with pytest.raises(TaskTimeout) as caught:
        client.options(timeout=0.05).call("task_sleep", 0.5)
    assert TaskFailed not in type(caught.value).__mro__


# ---- cancelling


def test_a_cancelled_future_is_cancelled(client: Client) -> None:
    futures = [client.submit("task_sleep", 0.1) for _ in range(30)]
    client.flush()
    client.info()  # by now they were sent
    assert futures[-1].cancel() is False
    assert not futures[-1].cancelled()
    client.cancel()
    done, _ = concurrent.futures.wait(futures, deadline(20))
    assert len(done) == len(futures)
    cancelled = [future for future in futures if future.cancelled()]
    assert len(cancelled) > 20
    assert [future.result() for future in futures if not future.cancelled()] == [0.1] * (30 - len(cancelled))
    for future in cancelled:
        assert future.cancel()
        assert isinstance(future.exception(), Cancelled)
        with pytest.raises(concurrent.futures.CancelledError):
            future.result()


def test_a_future_that_was_cancelled_before_it_was_sent(client: Client) -> None:
    client.info()
    client._queue._response_time = 1e9  # it is not sent by itself
    future = client.submit("task_echo", 1)
    assert future.cancel()
    assert future.cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()


async def _cancelled(client: aio.Client) -> None:
    call = asyncio.create_task(client.map("task_sleep", [0.3] * 20))
    await asyncio.sleep(0.1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def _waited_for(client: aio.Client) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.map("task_sleep", [0.3] * 20), 0.1)


async def _timed(client: aio.Client) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await asyncio.gather(*(client.submit("task_sleep", 0.3) for _ in range(20)))


@pytest.mark.parametrize("give_up", [_cancelled, _waited_for, _timed])
def test_who_gives_up_with_asyncio_cancels_the_tasks(engine: Engine, give_up: Callable[[Any], Any]) -> None:
    async def script() -> int:
        async with aio.Client(engine.address, timeout=deadline(20)) as client:
            await client.info()
            before = (await client.stats()).errors.get("Cancelled", 0)
            await give_up(client)
            while (await client.stats()).in_flight:
                await asyncio.sleep(0.02)
            return (await client.stats()).errors.get("Cancelled", 0) - before

    assert asyncio.run(script()) > 5


def test_futures_that_the_client_cancels_are_cancelled_with_asyncio_too(engine: Engine) -> None:
    async def script() -> None:
        async with aio.Client(engine.address, timeout=deadline(20)) as client:
            futures = [client.submit("task_sleep", 0.1) for _ in range(30)]
            waiting = asyncio.create_task(client.map("task_sleep", [0.1] * 30))
            await asyncio.sleep(0)
            await client.info()  # by now they were sent
            await client.cancel()
            await asyncio.wait([*futures, waiting])
            assert futures[-1].cancelled()
            assert isinstance(waiting.exception(), Cancelled)

    asyncio.run(script())


# ---- who gets what


def test_a_client_that_does_not_say_values_gets_what_it_got_before(engine: Engine) -> None:
    texts = ["(1, (2,))", "{1}", "__import__('decimal').Decimal('1.10')", "__import__('datetime').date(2026, 11, 30)"]
    head = Request(RequestKind.PACKAGE, 1, "OLD", ["make", "kind_of"])
    names: dict[str, int] = {}
    own = msgspec.msgpack.Ext(5, b"five")
    index, body = pack_calls([*(("make", (text,), {}) for text in texts), ("kind_of", (own,), {})], names)
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.connect(engine.address)
        socket.send_multipart([encode_request(head), index, body])
        assert socket.poll(int(deadline(20_000)))
        reply, values = socket.recv_multipart()
    assert decode_reply(reply).failed == 0
    assert unpack(values, 5, bytes) == [[1, [2]], [1], "1.10", "2026-11-30", "Ext"]


def test_publications_are_json(client: Client) -> None:
    client.publish("values", {"pair": (1, 2), "price": Decimal("1.10")})
    assert client.latest("values") == {"pair": [1, 2], "price": "1.10"}
