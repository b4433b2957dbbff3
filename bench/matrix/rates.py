"""W3 from 4000 to 400 000 tasks a second; from 40 000 on in packages."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from bench.echo import Echo
from bench.engine import Engine
from bench.figures import Blocks, ratio, summary, together
from bench.headline import MS
from bench.matrix.extent import Extent
from bench.offer import offered, offered_packages
from bench.ours import AtOnce, Ours
from bench.pools import POOL, Pool
from bench.quiet import Quiet
from bench.report import ECHO, FLUSH_30, OURS
from bench.scenarios import Measure, in_turns
from bench.table import Cell, Table

PACKAGES_S = 400


def measure(extent: Extent, settings: dict[str, object], quiet: Quiet) -> Table:
    """Latencies at each rate, the systems in turns. Raises EngineFailed, EchoFailed or WrongResult."""
    rows: list[Sequence[Cell]] = []
    with ExitStack() as stack:
        pool = Pool()
        stack.callback(pool.close)
        engine = stack.enter_context(Engine(**settings))
        ours, coalescing = AtOnce(OURS, engine.address), Ours(FLUSH_30, engine.address)
        for client in (ours, coalescing):
            stack.callback(client.close)
        echo = Echo(ECHO, "ipc", ours.policy())
        stack.callback(echo.close)
        for rate in extent.rates:
            tasks = max(1, rate // PACKAGES_S) if rate > extent.rates[0] else 1
            measures: dict[str, Measure] = {ECHO: partial(echo.offered, rate / tasks, extent.offer_s, tasks)}
            if tasks == 1:
                for single in (ours, coalescing, pool):
                    measures[POOL if single is pool else single.name] = partial(offered, single, rate, extent.offer_s)
            else:
                for name, system in ((OURS, ours), (POOL, pool)):
                    measures[name] = partial(offered_packages, system, tasks, rate / tasks, extent.offer_s)
            samples = in_turns(measures, extent.offer_rounds, quiet)
            how = "one by one" if tasks == 1 else f"packages of {tasks}"
            rows += [_row(rate, how, name, samples[name], samples[ECHO]) for name in measures]
    return Table(
        name="rates",
        title="Tasks offered at an even rate",
        note="A latency counts from the moment at which its task or package was due. Task Engine sends each at once; "
        "in the row with `flushed` it collects tasks for RESPONSE_TIME. Packages leave at once, from four threads. Raw "
        "libzmq sends as many bytes, from one loop in C.",
        heads=["tasks/s", "offered", "system", "ms p50", "p99", "max", "p99 x raw"],
        rows=rows,
    )


def _row(rate: int, how: str, name: str, blocks: Blocks, raw: Blocks) -> list[Cell]:
    found = summary(together(blocks))
    compared = None if name == FLUSH_30 else ratio(blocks, raw, 99).paired
    return [rate, how, name, found.p50 * MS, found.p99 * MS, found.max * MS, compared]
