"""Shows the engine's counters, for people and for scripts."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from taskengine.errors import EngineUnreachable, TaskTimeout, printable
from taskengine.protocol.messages import Latency, ScheduleState, Stats, TaskInfo

STAGES = ("waiting", "running", "total")
WIDEST = 400
"""Width of the output, in columns, without a terminal."""
SHARES = (50, 90, 99)


class Look(NamedTuple):
    """The counters at the monotonic time `at`, in s; None if no engine answered."""

    at: float
    stats: Stats | None


class _Told(Protocol):
    def stats(self) -> Stats: ...


def looks(client: _Told, interval: float) -> Iterator[Look]:
    """Yield the counters now and every `interval` s; a restart of the engine does not end it."""
    while True:
        try:
            stats = client.stats()
        except (EngineUnreachable, TaskTimeout):
            stats = None
        yield Look(time.monotonic(), stats)
        time.sleep(interval)


def quantile_s(latency: Latency, percent: float) -> float | None:
    """Return the time, in s, within which so many percent of the tasks ended, by the buckets; None without tasks."""
    wanted = sum(latency.tasks) * percent / 100
    low, before = 0.0, 0
    for bound, below in latency.below():
        if below > before and below >= wanted:
            return low if math.isinf(bound) else low + (bound - low) * (wanted - before) / (below - before)
        low, before = bound, below
    return None


def plain(stats: Stats) -> dict[str, Any]:
    """Return the counters as JSON values: every field by its name, latencies in s."""
    fields = msgspec.structs.asdict(stats)
    for listed in ("lanes", "sources", "schedules"):
        fields[listed] = [msgspec.structs.asdict(each) for each in fields[listed]]
    for stage in STAGES:
        latency = fields[stage]
        quantiles = {f"p{percent}": quantile_s(latency, percent) for percent in SHARES}
        fields[stage] = {**msgspec.structs.asdict(latency), **quantiles}
    return fields


def plain_task(task: TaskInfo) -> dict[str, Any]:
    """Return a task as JSON values: every field by its name."""
    fields = msgspec.structs.asdict(task)
    for name in ("retry", "schedule"):
        fields[name] = None if fields[name] is None else msgspec.structs.asdict(fields[name])
    return fields


def console() -> Console:
    """Return standard output; without a terminal no line is broken, because a program may read it."""
    made = Console()
    return made if made.is_terminal else Console(width=WIDEST, soft_wrap=True)


def show(seen: Iterable[Look]) -> None:
    """Print each look: in place of the last one on a terminal, below it otherwise."""
    before, output = None, console()
    if not output.is_terminal:
        for look in seen:
            output.print(view(look, before), Text())
            output.file.flush()
            before = look
        return
    with Live(console=output, auto_refresh=False) as live:
        for look in seen:
            live.update(view(look, before), refresh=True)
            before = look


def view(now: Look, before: Look | None = None) -> RenderableType:
    """Return the counters as tables; rates and latencies are since the look before, or since the router began."""
    if now.stats is None:
        return Text("no engine answers")
    stats, last = now.stats, before.stats if before else None
    if last is not None and last.accepted > stats.accepted:  # counted by another router
        last = None
    seconds = now.at - before.at if before and last else 0.0
    more: list[RenderableType] = [Text(), _sources(stats)] if stats.sources else []
    more += [Text(), schedules(stats.schedules)] if stats.schedules else []
    return Group(_sums(stats, last, seconds), Text(), _lanes(stats), Text(), _latencies(stats, last), *more)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _sums(stats: Stats, last: Stats | None, seconds: float) -> Text:
    rate = f" ({(stats.answered - last.answered) / seconds:,.0f}/s)" if last and seconds else ""
    errors = ", ".join(f"{number:,} {kind}" for kind, number in sorted(stats.errors.items())) or "none"
    restarts = ", ".join(f"{number:,} {role}" for role, number in sorted(stats.restarts.items())) or "none"
    lines = [
        f"tasks     {stats.accepted:,} accepted, {stats.answered:,} answered{rate}, {stats.in_flight:,} in flight",
        f"packages  {stats.packages:,} in flight, {stats.bytes_in_flight / 2**20:,.1f} MiB",
        f"errors    {errors}",
        f"          {stats.retried:,} retried, {stats.refused:,} refused, {stats.late:,} late",
        f"restarts  {restarts}",
    ]
    return Text("\n".join(lines))


def _lanes(stats: Stats) -> Table:
    table = _table("lane", "workers", "online", "busy", "queued", "at workers")
    for lane in stats.lanes:
        numbers = (lane.workers, lane.online, lane.busy, lane.queued, lane.running)
        table.add_row(Text(printable(lane.name) or "(default)"), *(f"{number:,}" for number in numbers))
    return table


def _sources(stats: Stats) -> Table:
    table = _table("source that overruns", "period", "takes", "samples skipped")
    for source in stats.sources:
        times = _duration(source.period), _duration(source.longest)
        table.add_row(Text(printable(source.topic)), *times, f"{source.skipped:,}")
    return table


def schedules(states: Sequence[ScheduleState]) -> Table:
    """Return the periodic tasks as a table."""
    table = _table("periodic task", "runs", "next in", "last", "took", "done", "failed", "skipped", "result")
    table.columns[1].justify = table.columns[-1].justify = "left"
    for state in states:
        began = "runs" if state.is_running else "-" if state.ago is None else f"{_wait(state.ago)} ago"
        times = "-" if state.due is None else _wait(state.due), began, _duration(state.took)
        counts = (f"{count:,}" for count in (state.runs, state.failed, state.skipped))
        names = Text(printable(state.task)), Text(printable(state.timing))
        table.add_row(*names, *times, *counts, Text(printable(state.last)))
    return table


def _latencies(stats: Stats, last: Stats | None) -> Table:
    table = _table("latency", "tasks", *(f"{percent} %" for percent in SHARES), "mean")
    for stage in STAGES:
        latency = _since(getattr(stats, stage), getattr(last, stage) if last else Latency([], 0.0))
        tasks = sum(latency.tasks)
        times = [*(quantile_s(latency, percent) for percent in SHARES), latency.seconds / tasks if tasks else None]
        table.add_row(stage, f"{tasks:,}", *map(_duration, times))
    return table


def _since(latency: Latency, before: Latency) -> Latency:
    earlier = before.tasks + [0] * (len(latency.tasks) - len(before.tasks))
    tasks = [now - then for now, then in zip(latency.tasks, earlier, strict=True)]
    return Latency(tasks, latency.seconds - before.seconds)


def _wait(seconds: float) -> str:
    """Return how long a time is, in the units of a clock where it is long."""
    minutes, days = int(seconds // 60), int(seconds // 86400)
    if minutes < 2:
        return _duration(seconds)
    if days:
        return f"{days} d {minutes // 60 % 24} h"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
