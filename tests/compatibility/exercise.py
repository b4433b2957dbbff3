"""A program that uses all that version 0.1.0 offers to clients, and prints what it found as JSON.

`python exercise.py ADDRESS [KEYS]` runs with the client of whichever version has been installed for that Python, so it
uses nothing that 0.1.0 had not.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import timedelta
from decimal import Decimal
from typing import Any

import numpy

import taskengine.aio
from taskengine import Client, NotAllowed, TaskEngineError, TaskFailed, UnknownTask

PATIENCE_S = 20.0


def name_of(error: type[TaskEngineError], client: Client, task: str, *args: Any) -> str:
    """The error that a call ends in, which is to be of that type."""
    try:
        client.call(task, *args)
    except error as found:
        return type(found).__name__
    return "no error"


def tasks(client: Client) -> dict[str, Any]:
    """Calls by each verb, and what the engine tells of itself."""
    futures = [client.submit("task_count", number, 3) for number in range(3)]
    found: dict[str, Any] = {
        "call": client.call("task_count", 2, 3),
        "map": client.map("task_count", [2, 4], [3, 5]),
        "run": client.run([("task_count", (2,), {"b": 3}), ("task_echo", ("x",), {})]),
        "submit": [future.result(PATIENCE_S) for future in futures],
        "array": list(client.map("task_count", numpy.arange(3.0), numpy.arange(3.0))),
        "deadline": client.options(deadline=PATIENCE_S, priority="high", idempotent=True).call("task_count", 1, 1),
        "unknown": name_of(UnknownTask, client, "task_nothing"),
        "failed": name_of(TaskFailed, client, "task_fail"),
        "listed": sorted({"servo.set", "system.stop", "task_count"} & {task.name for task in client.tasks()}),
        "version": client.info().version,
        "values": client.call("task_echo", [(1, (2,)), {3}, Decimal("1.10"), timedelta(days=1), {"k": ()}]),
    }
    waiting = client.submit("task_count", 1, 1)
    found["cancelled"] = waiting.cancel()
    client.publish("arm.mood", "glad")
    found["latest"] = client.latest("arm.mood")
    stats = client.stats()
    found["counts"] = stats.accepted == stats.answered + stats.in_flight
    return found


def devices(client: Client) -> dict[str, Any]:
    """Commands, leases, and stopping."""
    client.send("gpio.write", "lamp", True)
    client.flush()
    found: dict[str, Any] = {"lamp": eventually(client, "lamp", True)}
    with client.subscribe("hardware.lamp") as feed:
        client.call("gpio.write", "lamp", False)
        found["published"] = next(sample.value["value"] for sample in feed if sample.value["value"] is False)
    with client.lease("wheel", exclusive=True) as lease:
        client.call("motor.forward", "wheel", 0.5)
        lease.renew()
        found["driven"], found["lease"] = value(client, "wheel"), lease.seconds
    found["lapsed"] = eventually(client, "wheel", 0.0)
    client.call("motor.forward", "wheel", 0.5)
    client.call("system.stop")
    found["stopped"] = [value(client, "wheel"), name_of(NotAllowed, client, "motor.forward", "wheel")]
    client.call("system.arm")
    client.call("motor.forward", "wheel", 0.25)
    found["armed"] = value(client, "wheel")
    client.call("motor.stop", "wheel")
    found["ceased"] = value(client, "wheel")
    return found


def value(client: Client, device: str) -> Any:
    """Return the last value of a device."""
    return client.call("devices.state", device)[device]["value"]


def eventually(client: Client, device: str, wanted: Any) -> Any:
    """Return the last value of a device, once it is the expected one or the time is over."""
    end = time.monotonic() + PATIENCE_S
    while (found := value(client, device)) != wanted and time.monotonic() < end:
        time.sleep(0.01)
    return found


async def by_asyncio(address: str, keys: str | None) -> dict[str, Any]:
    """The same by asyncio, in short."""
    async with taskengine.aio.Client(address, timeout=PATIENCE_S, keys=keys) as client:
        calls = [client.call("task_count", number, 3) for number in range(3)]
        found: dict[str, Any] = {"aio": await asyncio.gather(*calls)}
        async with await client.lease("wheel") as lease:
            await client.call("motor.backward", "wheel", 0.5)
            await lease.renew()
            state = await client.call("devices.state", "wheel")
            found["aio_driven"] = state["wheel"]["value"]
        return found


def main(address: str, keys: str | None = None) -> dict[str, Any]:
    """All that was found."""
    with Client(address, timeout=PATIENCE_S, keys=keys) as client:
        found = tasks(client) | devices(client)
    return found | asyncio.run(by_asyncio(address, keys))


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
