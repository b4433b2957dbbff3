"""What a user's program does on a laptop: `program.py ADDRESS`. Prints what it finds, a line each."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import taskengine
from taskengine import BadArguments, Client, Executor, TaskFailed, UnknownTask, aio

address = sys.argv[1]


@taskengine.task
def served_elsewhere(a: int) -> int:
    """A task module can be imported on a laptop too, and its functions called."""
    return a + 1


async def ask() -> None:
    async with aio.Client(address) as engine:
        print("asyncio", await engine.call("task_count", 2, 3), await asyncio.gather(engine.call("task_count", 4, 2)))


def stopped(engine: Client, stop: Callable[[], Any]) -> tuple[Any, list[float]]:
    """Return what a stop gives, and how fast the wheel turned before and after it."""
    engine.call("motor.forward", "wheel", 0.5)
    before = engine.call("devices.state", "wheel")["wheel"]["value"]
    given = stop()
    after = engine.call("devices.state", "wheel")["wheel"]["value"]
    engine.arm()
    return given, [before, after]


with Client(address, name="LAPTOP") as engine:
    print("call", engine.call("task_count", 2, 3))
    print("map", engine.map("task_count", range(200), range(200)) == [(a + a) / 2 for a in range(200)])
    futures = [engine.submit("task_count", number, 2) for number in range(50)]
    print("submit", sum(future.result(timeout=20) for future in futures))
    print("value", engine.call("echo", (1, {Decimal("1.5")}, 2**70, b"x", "é", None)))
    print("tasks", "echo" in [found.name for found in engine.tasks()])
    for name, args in (("fails", ()), ("nobody", ()), ("echo", (object(),))):
        try:
            engine.call(name, *args)
        except (BadArguments, TaskFailed, UnknownTask) as error:
            print("error", type(error).__name__, error)
    for sample in engine.subscribe("beat"):
        print("sample", sample.value)
        break
    print("run", *stopped(engine, lambda: engine.run([("system.stop", (), {"why": "smoke"})])))
    print("mixed", *stopped(engine, lambda: engine.run([("task_count", (2, 3), {}), ("system.stop", (), {})])))
    print("map", *stopped(engine, lambda: engine.map("system.stop", [b"own"], ["smoke"])))
    print("submit_all", *stopped(engine, lambda: engine.submit_all([("system.stop", (), {})]).result(timeout=20)))
with Executor(address) as pool:
    print("executor", list(pool.map("task_count", [1, 2], [3, 4])))
asyncio.run(ask())
print("own task", served_elsewhere(1))
