"""The run of `make bench`: start engines and what they are compared with, play the scenarios, report."""

from __future__ import annotations

import datetime
import platform
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from bench import early, picture, report, rest, scenarios, streaming
from bench.echo import Echo, EchoFailed
from bench.engine import Engine, EngineFailed
from bench.figures import Rounds
from bench.headline import MS, RESPONSE_TIME, Headline, find_headline, headline_text
from bench.machine import busy_elsewhere, this_machine
from bench.offer import offered
from bench.ours import TIMEOUT_S, AtOnce, Columns, NoReply, Ours, Seed, over_tcp
from bench.pi_line import ASK, is_pi, pi_line
from bench.picture import Panel
from bench.pools import Executor, Loop, Pool
from bench.quiet import Quiet
from bench.report import (
    COLUMNS,
    ECHO,
    ECHO_TCP,
    ECHO_WHOLE,
    FLUSH_5,
    FLUSH_30,
    OURS,
    OVER_TCP,
    STDOUT,
    US,
    WIRE_1,
    Results,
)
from bench.scenarios import FULL, QUICK, RATE, Plan
from bench.span import WrongResult
from bench.submits import Spans, submitting
from bench.submits import w4 as submitted
from bench.system import CHUNK, PACKAGE, WORKERS, Offered, System
from taskengine import Executor as OurExecutor
from taskengine import TaskEngineError

SETTINGS: dict[str, object] = {"response_time": RESPONSE_TIME, "chunking_size": CHUNK, "enable_stdout": False}
JSON_FILE = "bench.json"
PICTURE_FILE = "latency.png"
LOOK_S = 0.5
FAILURES = (EngineFailed, EchoFailed, WrongResult, NoReply, TaskEngineError)
Kept = TypeVar("Kept", bound=System)


def run(out: Path, *, quick: bool, as_json: bool) -> int:
    """Measure, report, and write to the folder `out`; the exit code."""
    try:
        results, panels = measure(QUICK if quick else FULL)
    except FAILURES as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    report.write_json(results, out / JSON_FILE)
    written = [out / JSON_FILE]
    try:
        draw(results, panels, out / PICTURE_FILE)
        written.append(out / PICTURE_FILE)
    except ImportError as error:
        print(f"bench: no picture: {error}; `pip install matplotlib`", file=sys.stderr)
    if as_json:
        sys.stdout.write((out / JSON_FILE).read_text())
    else:
        print(f"Written: {', '.join(map(str, written))}", flush=True)
        report.print_report(results, wide_console())
        if is_pi(results.machine):
            print(f"\n{ASK}\n{pi_line(results, platform.machine())}")
    return 0


def wide_console() -> Console:
    """The terminal, taken as wide enough."""
    console = Console()
    console.width = max(console.width, report.WIDTH)
    return console


def draw(results: Results, panels: list[Panel], path: Path) -> None:
    """The picture of the headline scenarios. Raises ImportError where matplotlib is missing."""
    picture.draw_spread(headline_text(results.headline, results.machine), panels, path)


def measure(plan: Plan) -> tuple[Results, list[Panel]]:
    """The headline scenarios, and their samples for the picture. Raises one of FAILURES."""
    start = time.monotonic()
    when = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC"
    before = busy_elsewhere(LOOK_S)
    quiet = Quiet(plan.patience_s)
    quiet.wait()
    say("at rest")
    at_rest = rest.measure(plan.rest_s)
    w1, w2, w3, w4, headline = _play(plan, quiet)
    say("W5")
    w5 = early.measure(plan, quiet)
    say("W6")
    w6 = streaming.measure(plan, quiet)
    results = Results(
        machine=this_machine(),
        settings={**SETTINGS, "task_workers": WORKERS},
        when=when,
        busy_before=before,
        busy_after=busy_elsewhere(LOOK_S),
        waited=quiet.waited,
        rows=report.rows(w1, w2, w3, w4),
        early=w5,
        streams=w6,
        rest=at_rest,
        headline=headline,
        seconds=time.monotonic() - start,
    )
    panels = [
        Panel(f"W1: {PACKAGE} tasks as one package", MS, w1),
        Panel("W2: one there and back", US, w2),
        Panel(f"W3: {RATE} tasks/s offered evenly", MS, w3),
    ]
    return results, panels


def _play(plan: Plan, quiet: Quiet) -> tuple[Rounds, Rounds, Rounds, Spans, Headline]:
    with ExitStack() as stack:

        def keep(system: Kept) -> Kept:
            stack.callback(system.close)
            return system

        pool, executor = keep(Pool()), keep(Executor())
        engine = stack.enter_context(Engine(**SETTINGS))
        loud = stack.enter_context(Engine(**{**SETTINGS, "enable_stdout": True}))
        brisk = stack.enter_context(Engine(**{**SETTINGS, "response_time": 0.005}))
        ours, tcp = keep(AtOnce(OURS, engine.address)), keep(Ours(OVER_TCP, over_tcp(engine.address)))
        noisy, short = keep(Ours(STDOUT, loud.address)), keep(Ours(FLUSH_5, brisk.address))
        coalescing, seed = keep(Ours(FLUSH_30, engine.address)), keep(Seed(WIRE_1, engine.address))
        columns = [keep(Columns(COLUMNS, engine.address))]
        policy = ours.policy()
        echo, tcp_echo = keep(Echo(ECHO, "ipc", policy)), keep(Echo(ECHO_TCP, "tcp", policy))
        whole = keep(Echo(ECHO_WHOLE, "ipc", policy, PACKAGE // WORKERS))
        others: list[System] = [pool, executor]
        say("W1")
        w1 = scenarios.w1([Loop(), echo, tcp_echo, whole, ours, *columns, tcp, noisy, seed, *others], plan, quiet)
        say("W2")
        w2 = scenarios.w2([Loop(), echo, tcp_echo, ours, tcp, seed, *others], plan, quiet)
        say("W3")
        offering: list[Offered] = [ours, short, coalescing, pool, executor]
        offerings = {system.name: partial(offered, system) for system in offering}
        w3 = scenarios.w3({echo.name: echo.offered, **offerings}, plan, quiet)
        say("W4")
        with OurExecutor(brisk.address, timeout=TIMEOUT_S) as submits:
            w4 = submitted(submitting(short, submits, executor), plan, quiet)
        quiet.wait()
        return w1, w2, w3, w4, find_headline(coalescing, plan)


def say(what: str) -> None:
    """Tell on stderr what is measured now."""
    print(f"bench: {what}", file=sys.stderr, flush=True)
