"""An engine whose processes send and receive by nothing but pyzmq's own methods; `make test-plain` tries more of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from taskengine import Client, aio
from tests.engine import Engine, deadline


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(env={"TASKENGINE_PLAIN_PYZMQ": "1"}) as running:
        yield running


def test_calls_packages_and_publications_go_and_come(client: Client) -> None:
    assert client.call("task_count", 2, 3) == 2.5
    assert client.map("task_count", range(5000), range(5000)) == [float(number) for number in range(5000)]
    assert client.submit("task_count", 1, 1).result(deadline(20)) == 1
    with client.subscribe("plain") as values:
        client.publish("plain", "x" * 100_000)
        assert values.get(deadline(20)).value == "x" * 100_000
    assert client.stats().accepted >= 5002


async def _count(address: str) -> object:
    async with aio.Client(address, timeout=deadline(20)) as client:
        return await client.call("task_count", 2, 3)


def test_a_client_for_asyncio_is_answered(engine: Engine) -> None:
    assert asyncio.run(_count(engine.address)) == 2.5
