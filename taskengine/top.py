"""What the engine has counted, for people and for scripts."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from taskengine.errors import EngineUnreachable, TaskTimeout, printable
from taskengine.messages import Latency, Stats

STAGES = ("waiting", "running", "total")
WIDEST = 400
"""Columns of what is printed where there is no terminal."""
SHARES = (50, 90, 99)


class Look(NamedTuple):
    """What was seen `at` so many s, monotonic; None where no engine answered."""

    at: float
    stats: Stats | None


class _Told(Protocol):
    def stats(self) -> Stats: ...


def looks(client: _Told, interval: float) -> Iterator[Look]:
    """A look now, and one every `interval` s; a restart of the engine does not end it."""
    while True:
        try:
            stats = client.stats()
        except (EngineUnreachable, TaskTimeout):
            stats = None
        yield Look(time.monotonic(), stats)
        time.sleep(interval)


def quantile_s(latency: Latency, percent: float) -> float | None:
    """What so many percent of the tasks took at most, in s, as far as the buckets tell; None where there were none."""
    wanted = sum(latency.tasks) * percent / 100
    low, before = 0.0, 0
    for bound, below in latency.below():
        if below > before and below >= wanted:
            return low if math.isinf(bound) else low + (bound - low) * (wanted - before) / (below - before)
        low, before = bound, below
    return None


def plain(stats: Stats) -> dict[str, Any]:
    """As JSON: every field by its name, latencies in s."""
    fields = msgspec.structs.asdict(stats)
    for listed in ("lanes", "sources"):
        fields[listed] = [msgspec.structs.asdict(each) for each in fields[listed]]
    for stage in STAGES:
        latency = fields[stage]
        quantiles = {f"p{percent}": quantile_s(latency, percent) for percent in SHARES}
        fields[stage] = {**msgspec.structs.asdict(latency), **quantiles}
    return fields


def console() -> Console:
    """Standard output; where that is no terminal, no line is broken, since a program may read it."""
    made = Console()
    return made if made.is_terminal else Console(width=WIDEST, soft_wrap=True)


def show(seen: Iterable[Look]) -> None:
    """Print looks, each in the place of the one before where that is a terminal, else one below the other."""
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
    """As tables; rates and latencies are since the look before, or since the router began."""
    if now.stats is None:
        return Text("no engine answers")
    stats, last = now.stats, before.stats if before else None
    if last is not None and last.accepted > stats.accepted:  # another router's
        last = None
    seconds = now.at - before.at if before and last else 0.0
    sources: list[RenderableType] = [Text(), _sources(stats)] if stats.sources else []
    return Group(_sums(stats, last, seconds), Text(), _lanes(stats), Text(), _latencies(stats, last), *sources)


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


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
