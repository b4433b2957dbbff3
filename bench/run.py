"""The run: start engines and peers, play the scenarios, report."""

from __future__ import annotations

import math
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from bench import report, scenarios
from bench.engine import Engine, EngineFailed
from bench.figures import largest_within, percentile
from bench.machine import this_machine
from bench.ours import NoReply, Ours, Seed
from bench.peers import Executor, Loop, Pool, System
from bench.report import FLUSH_5, MS, OURS, STDOUT, US, WIRE_1, Headline, Results
from bench.scenarios import FULL, MOST_RATE, MOST_TASKS, PACKAGE, QUICK, RATE, Plan, Samples, WrongResult

RESPONSE_TIME = 0.030
CHUNKING_SIZE = 50
SETTINGS: dict[str, object] = {"response_time": RESPONSE_TIME, "chunking_size": CHUNKING_SIZE, "enable_stdout": False}
JSON_FILE = "bench.json"
PICTURE_FILE = "latency.png"


def run(out: Path, *, quick: bool, as_json: bool) -> int:
    """Measure, report, and write to the folder `out`; the exit code."""
    start = time.monotonic()
    plan = QUICK if quick else FULL
    try:
        w1, w2, w3, headline = measure(plan)
    except (EngineFailed, WrongResult, NoReply) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    results = Results(
        machine=this_machine(),
        settings={**SETTINGS, "task_workers": 2},
        rows=report.rows(w1, w2, w3),
        stdout_cost=percentile(w1[STDOUT], 50) / percentile(w1[OURS], 50),
        headline=headline,
        seconds=time.monotonic() - start,
    )
    report.write_json(results, out / JSON_FILE)
    panels = [
        (f"W1: {PACKAGE} tasks as one package", MS, w1),
        ("W2: one there and back", US, w2),
        (f"W3: {RATE} tasks/s offered evenly", MS, w3),
    ]
    written = [out / JSON_FILE]
    try:
        report.draw(results, panels, out / PICTURE_FILE)
        written.append(out / PICTURE_FILE)
    except ImportError as error:
        print(f"bench: no picture: {error}; `pip install matplotlib`", file=sys.stderr)
    if as_json:
        sys.stdout.write((out / JSON_FILE).read_text())
    else:
        print(f"Written: {', '.join(map(str, written))}", flush=True)
        console = Console()
        console.width = max(console.width, report.WIDTH)
        report.print_report(results, console)
    return 0


def measure(plan: Plan) -> tuple[Samples, Samples, Samples, Headline]:
    """The samples of W1, W2 and W3, and the headline. Raises EngineFailed, WrongResult or NoReply."""
    with ExitStack() as stack:

        def keep(system: System) -> System:
            stack.callback(system.close)
            return system

        pool, executor = keep(Pool()), keep(Executor())
        quiet = stack.enter_context(Engine(**SETTINGS))
        loud = stack.enter_context(Engine(**{**SETTINGS, "enable_stdout": True}))
        brisk = stack.enter_context(Engine(**{**SETTINGS, "response_time": 0.005}))
        ours = keep(Ours(OURS, quiet.address))
        noisy, short = keep(Ours(STDOUT, loud.address)), keep(Ours(FLUSH_5, brisk.address))
        seed = keep(Seed(WIRE_1, quiet.address))
        _say("W1")
        w1 = scenarios.w1([Loop(), ours, noisy, seed, pool, executor], plan)
        _say("W2")
        w2 = scenarios.w2([Loop(), ours, seed, pool, executor], plan)
        _say("W3")
        w3 = scenarios.w3([ours, short, pool, executor], plan)
        return w1, w2, w3, find_headline(ours, plan)


def find_headline(system: System, plan: Plan) -> Headline:
    """Search for the largest package and the highest rate whose p99 stays within RESPONSE_TIME.

    The rate is searched from twice that of W3 on: a slow trickle fills no load, and so waits for RESPONSE_TIME anyway.
    """

    def package_p99(tasks: int) -> float:
        p99 = scenarios.package_p99(system, tasks, RESPONSE_TIME, plan.repetitions)
        _say(f"a package of {tasks}: {_p99_text(p99)}")
        return p99

    def offered_p99(rate: int) -> float:
        p99 = scenarios.offered_p99(system, rate, plan.rate_s)
        _say(f"{rate} tasks/s: {_p99_text(p99)}")
        return p99

    return Headline(
        package=largest_within(package_p99, RESPONSE_TIME, PACKAGE, MOST_TASKS),
        rate=largest_within(offered_p99, RESPONSE_TIME, 2 * RATE, MOST_RATE),
        response_time=RESPONSE_TIME,
        chunking_size=CHUNKING_SIZE,
    )


def _p99_text(p99: float) -> str:
    return f"p99 {p99 * MS:.1f} ms" if p99 < math.inf else "too slow, given up"


def _say(what: str) -> None:
    print(f"bench: {what}", file=sys.stderr, flush=True)
