"""The headline in the seed's form: the most that a response time of 30 ms holds."""

from __future__ import annotations

import math
import sys

import msgspec

from bench.figures import largest_within
from bench.machine import Machine
from bench.offer import offered_p99
from bench.ours import Ours
from bench.scenarios import RATE, Plan, package_p99
from bench.system import CHUNK, PACKAGE

RESPONSE_TIME = 0.030
MS = 1e3


class Headline(msgspec.Struct, frozen=True, kw_only=True):
    """The largest package, and the highest rate in tasks/s, whose p99 is within `response_time` s; 0 for none."""

    package: int
    rate: int
    response_time: float
    chunking_size: int


def find_headline(system: Ours, plan: Plan) -> Headline:
    """Search for the largest package and the highest rate whose p99 stays within RESPONSE_TIME.

    The rate is searched from twice that of W3 on: a slow trickle fills no load, and so waits for RESPONSE_TIME anyway.
    """

    def probe_package(tasks: int) -> float:
        p99 = package_p99(system, tasks, RESPONSE_TIME, plan.repetitions)
        _say(f"a package of {tasks}: {_p99_text(p99)}")
        return p99

    def probe_rate(rate: int) -> float:
        p99 = offered_p99(system, rate, plan.rate_s)
        _say(f"{rate} tasks/s: {_p99_text(p99)}")
        return p99

    return Headline(
        package=largest_within(probe_package, RESPONSE_TIME, PACKAGE, plan.most_tasks),
        rate=largest_within(probe_rate, RESPONSE_TIME, 2 * RATE, plan.most_rate),
        response_time=RESPONSE_TIME,
        chunking_size=CHUNK,
    )


def headline_text(headline: Headline, machine: Machine) -> str:
    """The headline in the seed's form, and the rate beside it."""
    limit = f"{headline.response_time * MS:g}ms response-time & {headline.chunking_size} chunk-size"
    rate = f"{headline.rate} tasks/s held" if headline.rate else "no rate held"
    return f"IO = {headline.package} @ {limit}, on {machine.name} ({rate} at that response time)"


def _p99_text(p99: float) -> str:
    return f"p99 {p99 * MS:.1f} ms" if p99 < math.inf else "too slow, given up"


def _say(what: str) -> None:
    print(f"bench: {what}", file=sys.stderr, flush=True)
