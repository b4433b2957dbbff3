"""W6: the values of a stream, one by one, as a task yields them, all read and checked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import msgspec

from bench.busy import values
from bench.engine import Engine
from bench.figures import Ratio, Rounds, Summary, ratio, summary, together
from bench.matrix.loads import TASKS
from bench.ours import NAME, TIMEOUT_S
from bench.quiet import Quiet
from bench.scenarios import Plan, in_turns
from bench.span import Job, in_a_row, timed_package
from bench.table import Cell, Table, text
from taskengine import Client, aio

VALUES = 20_000
GENERATOR = "generator in this process"
PIPE = "multiprocessing.Pipe"
OURS = NAME
ASYNC = f"{NAME}, asyncio"
US = 1e6


class Streamed(msgspec.Struct, frozen=True, kw_only=True):
    """A system: s for each value, how many times those of the plain generator, and those of the pipe."""

    system: str
    value: Summary
    generator: Ratio
    pipe: Ratio


class Pipe:
    """A process that sends each value by itself through a pipe, as it is yielded: no credit, no end before the last."""

    def __init__(self) -> None:
        context = get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=serve, args=(there,))
        self._process.start()
        there.close()

    def stream(self, number: int) -> Iterator[Any]:
        """Yield so many values."""
        self._here.send(number)
        for _ in range(number):
            yield self._here.recv()

    def close(self) -> None:
        """End the process."""
        self._here.send(0)
        self._process.join()
        self._here.close()


def serve(connection: Connection) -> None:
    """Send as many values as are asked for, until that is 0."""
    while number := connection.recv():
        for value in values(number):
            connection.send(value)


def measure(plan: Plan, quiet: Quiet) -> list[Streamed]:
    """Stream from all systems in turns. Raises EngineFailed, WrongResult."""
    with ExitStack() as stack:
        pipe = Pipe()
        stack.callback(pipe.close)
        engine = stack.enter_context(Engine(tasks=TASKS, enable_stdout=False))
        client = stack.enter_context(Client(engine.address, timeout=TIMEOUT_S))
        runner = stack.enter_context(asyncio.Runner())
        later = aio.Client(engine.address, timeout=TIMEOUT_S)
        stack.callback(lambda: runner.run(later.close()))
        return compare(
            {
                GENERATOR: lambda: list(values(VALUES)),
                PIPE: lambda: list(pipe.stream(VALUES)),
                OURS: lambda: list(client.stream("bench.values", VALUES)),
                ASYNC: lambda: runner.run(_read(later)),
            },
            plan,
            quiet,
        )


async def _read(client: aio.Client) -> list[Any]:
    async with client.stream("bench.values", VALUES) as stream:
        return [value async for value in stream]


def compare(reads: dict[str, Callable[[], list[Any]]], plan: Plan, quiet: Quiet) -> list[Streamed]:
    """Read all values of each system in turns. Raises WrongResult."""
    expected = list(range(VALUES))
    spans = {name: partial(timed_package, name, Job(read), expected) for name, read in reads.items()}
    measures = {name: partial(in_a_row, span, plan.stream_block) for name, span in spans.items()}
    took: Rounds = {
        name: [[seconds / VALUES for seconds in block] for block in rounds]
        for name, rounds in in_turns(measures, plan.stream_rounds, quiet).items()
    }
    return [
        Streamed(
            system=name,
            value=summary(together(rounds)),
            generator=ratio(rounds, took[GENERATOR]),
            pipe=ratio(rounds, took[PIPE]),
        )
        for name, rounds in took.items()
    ]


def table(found: Sequence[Streamed]) -> Table:
    """Return the table."""
    return Table(
        name="w6",
        title=f"W6: a stream of {VALUES} values",
        note="Each value is an int, yielded by a task and read in a loop; all are checked. The pipe is that of two "
        "processes, with one `send` a value; nothing holds back its sender, nor tells it that the reader is gone. The "
        "ratios are medians of the rounds' ratios, with the quartiles of x pipe.",
        heads=["system", "µs a value", "values a second", "x generator", "x pipe", "quartiles"],
        rows=[_cells(row) for row in found],
        bold=OURS,
    )


def _cells(row: Streamed) -> list[Cell]:
    pipe, value = row.pipe, row.value.p50
    quartiles = f"{text(pipe.low)}-{text(pipe.high)}"
    return [row.system, value * US, round(1 / value), row.generator.paired, pipe.paired, quartiles]
