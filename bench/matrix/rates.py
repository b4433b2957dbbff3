"""W3 from 4000 to 400 000 tasks a second; from 40 000 on in packages."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from bench.echo import Echo
from bench.engine import Engine
from bench.figures import Blocks, Ratio, ratio, summary, together
from bench.headline import MS
from bench.matrix.extent import Extent
from bench.offer import offered, offered_packages
from bench.ours import AtOnce, Ours
from bench.pools import Pool
from bench.quiet import Quiet
from bench.report import AT_ONCE, ECHO, OURS
from bench.scenarios import Measure, in_turns
from bench.table import Cell, Table

PACKAGES_S = 400
POOL = "multiprocessing.Pool"


def measure(extent: Extent, settings: dict[str, object], quiet: Quiet) -> Table:
    """Latencies at each rate, the systems in turns. Raises EngineFailed, EchoFailed or WrongResult."""
    rows: list[Sequence[Cell]] = []
    with ExitStack() as stack:
        pool = Pool()
        stack.callback(pool.close)
        engine = stack.enter_context(Engine(**settings))
        ours, at_once = Ours(OURS, engine.address), AtOnce(AT_ONCE, engine.address)
        for client in (ours, at_once):
            stack.callback(client.close)
        echo = Echo(ECHO, "ipc", ours.policy())
        stack.callback(echo.close)
        for rate in extent.rates:
            tasks = max(1, rate // PACKAGES_S) if rate > extent.rates[0] else 1
            measures: dict[str, Measure] = {ECHO: partial(echo.offered, rate / tasks, extent.offer_s, tasks)}
            if tasks == 1:
                for single in (at_once, ours, pool):
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
        note="Latency from the instant at which a task or package was due. One by one, the engine's client coalesces "
        f"for RESPONSE_TIME, {settings['response_time']} s, or sends each at once; packages leave at once, from four "
        "threads. Raw libzmq sends as many bytes, from one loop in C.",
        heads=["tasks/s", "offered", "system", "ms p50", "p99", "max", "p99 x raw"],
        rows=rows,
    )


def _row(rate: int, how: str, name: str, blocks: Blocks, raw: Blocks) -> list[Cell]:
    found = summary(together(blocks))
    compared: Ratio = ratio(blocks, raw, 99)
    return [rate, how, name, found.p50 * MS, found.p99 * MS, found.max * MS, compared.paired]
