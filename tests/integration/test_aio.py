"""The asyncio client against a real engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from taskengine import BadArguments, Cancelled, EngineUnreachable, TaskFailed, TaskTimeout
from taskengine.aio import Client
from tests.engine import Engine, deadline, free_ports


def play(engine: Engine, script: Callable[[Client], Awaitable[None]]) -> None:
    """Run a script with a client of the engine."""

    async def main() -> None:
        async with Client(engine.address, timeout=deadline(20)) as client:
            await script(client)

    asyncio.run(main())


def test_the_verbs(engine: Engine) -> None:
    async def script(client: Client) -> None:
        assert await client.call("task_count", 2, 3) == 2.5
        assert await client.map("task_count", range(4001), range(4001)) == list(map(float, range(4001)))
        results = await client.run([("task_count", (2, 3), {}), ("task_fail", (), {})])
        assert results[0] == 2.5
        assert isinstance(results[1], TaskFailed)
        assert "task_count" in {task.name for task in await client.tasks()}
        assert (await client.info()).chunking_size == 10
        assert await client.progress() == []
        stats = await client.stats()
        assert stats.accepted == stats.answered + stats.in_flight >= 4004
        await client.publish("aio", [1])
        assert await client.latest("aio") == [1]

    play(engine, script)


def test_submitted_calls_travel_together(engine: Engine) -> None:
    async def script(client: Client) -> None:
        futures = [client.submit("task_count", i, i) for i in range(500)]
        failing, bad = client.submit("task_fail"), client.submit("task_echo", object())
        client.send("task_fail")
        assert await asyncio.gather(*futures) == list(range(500))
        with pytest.raises(TaskFailed):
            await failing
        with pytest.raises(BadArguments):
            await bad

    play(engine, script)


def test_many_at_once(engine: Engine) -> None:
    async def script(client: Client) -> None:
        results = await asyncio.gather(*(client.map("task_echo", [f"{n}/{i}" for i in range(50)]) for n in range(20)))
        assert results == [[f"{n}/{i}" for i in range(50)] for n in range(20)]

    play(engine, script)


def test_a_subscription(engine: Engine) -> None:
    async def script(client: Client) -> None:
        await client.publish("aio.feed", 1)
        seen: list[Any] = []
        async for sample in client.subscribe("aio.feed"):
            seen.append(sample.value)
            if len(seen) == 3:
                break
            await client.publish("aio.feed", len(seen) + 1)
        assert seen == [1, 2, 3]

    play(engine, script)


def test_timeouts_and_cancelled_futures(engine: Engine) -> None:
    async def script(client: Client) -> None:
        await client.info()  # so that it is connected
        with pytest.raises(TaskTimeout):
            await client.options(timeout=0.05).call("task_sleep", 0.3)
        cancelled = client.submit("task_count", 1, 1)
        cancelled.cancel()
        assert await client.call("task_count", 2, 3) == 2.5

    play(engine, script)


def test_a_call_takes_what_is_queued_along(engine: Engine) -> None:
    async def script(client: Client) -> None:
        await client.info()
        client._queue._response_time = 1e9  # it is not sent by itself
        future = client.submit("task_count", 1, 1)
        assert await client.call("task_count", 2, 3) == 2.5
        assert await future == 1.0

    play(engine, script)


def test_closing(engine: Engine) -> None:
    async def main() -> None:
        client = Client(engine.address)
        done, late = client.submit("task_sleep", 0.1), client.submit("task_count", 1, 1)
        await client.close()
        await client.close()
        assert (await done, await late) == (0.1, 1.0)
        with pytest.raises(Cancelled):
            await client.call("task_count", 2, 3)
        with pytest.raises(Cancelled):
            client.submit("task_count", 2, 3)

    asyncio.run(main())


def test_no_engine_is_said_so() -> None:
    async def main() -> None:
        async with Client(f"tcp://127.0.0.1:{free_ports(1)}", timeout=0.1) as client:
            with pytest.raises(EngineUnreachable):
                await client.call("task_count", 2, 3)

    asyncio.run(main())
