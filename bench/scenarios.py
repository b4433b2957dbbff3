"""The scenarios, for any system, and the run that plays them in turns.

W1: 4000 tasks as one package, all results back and checked. W2: one task there and back, one at a time. W3: tasks
offered one by one at an even rate, latency from the instant at which each was due. `bench.submits` has W4,
`bench.early` W5, and `bench.streaming` W6.

The systems that are compared take turns, a block of repetitions each in every round, in an order drawn anew. A block is
long enough to be warm: a system that was idle while others ran starts cold. A disturbance of the machine that lasts
hits all of a round alike, so the ratios of a round mean something, and their median more.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence

import msgspec

from bench.figures import Rounds, beyond_p99, percentile
from bench.quiet import Quiet
from bench.span import RESULT, Block, in_a_row, timed_call, timed_package
from bench.system import PACKAGE, System

RATE = 4000
P99_SAMPLES = 100


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured.

    Of W1 to W6: rounds, and the block of each system in a round, for W3 in s. For the headline: `repetitions` of each
    size of package up to `most_tasks`, `rate_s` of each rate up to `most_rate`. An idle engine is watched for `rest_s`.
    `patience_s` is how long it may wait in all for others to leave the machine alone.
    """

    rounds: int = 30
    block: Block = Block(5, 20)
    call_rounds: int = 20
    call_block: Block = Block(50, 200)
    offer_rounds: int = 6
    offer_s: float = 1.0
    submit_rounds: int = 10
    submit_block: Block = Block(1, 2)
    early_rounds: int = 5
    stream_rounds: int = 6
    stream_block: Block = Block(1, 2)
    repetitions: int = P99_SAMPLES
    rate_s: float = 1.0
    most_tasks: int = 1_000_000
    most_rate: int = 1_000_000
    rest_s: float = 5.0
    patience_s: float = 45.0


FULL = Plan()
QUICK = Plan(
    rounds=2,
    block=Block(1, 2),
    call_rounds=2,
    call_block=Block(1, 20),
    offer_rounds=1,
    offer_s=0.2,
    submit_rounds=1,
    submit_block=Block(0, 1),
    early_rounds=1,
    stream_rounds=1,
    stream_block=Block(0, 1),
    repetitions=10,
    rate_s=0.2,
    most_tasks=8000,
    most_rate=10_000,
    rest_s=0.1,
    patience_s=0.0,
)

Measure = Callable[[], list[float]]
"""Gives the samples of a block, in s."""
Offering = Callable[[float, float], list[float]]
"""Offers at a rate a second for so many s, and gives the latencies in s."""


def in_turns(measures: Mapping[str, Measure], rounds: int, quiet: Quiet) -> Rounds:
    """So many rounds, in each of which every system has a block, in an order drawn anew; begun when it is quiet."""
    samples: Rounds = {name: [] for name in measures}
    order = list(measures)
    shuffle = random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        quiet.wait()
        for name in order:
            samples[name].append(measures[name]())
    return samples


def package_measure(system: System, tasks: int, block: Block) -> Measure:
    """Blocks of packages of so many tasks. Measuring raises WrongResult."""
    job, expected = system.package(tasks), [RESULT] * tasks
    return lambda: in_a_row(lambda: timed_package(system.name, job, expected), block)


def w1(systems: Sequence[System], plan: Plan, quiet: Quiet) -> Rounds:
    """Seconds for each repetition of W1. Raises WrongResult."""
    measures = {system.name: package_measure(system, PACKAGE, plan.block) for system in systems}
    return in_turns(measures, plan.rounds, quiet)


def w2(systems: Sequence[System], plan: Plan, quiet: Quiet) -> Rounds:
    """Seconds for each call of W2. Raises WrongResult."""

    def measure(system: System) -> Measure:
        return lambda: in_a_row(lambda: timed_call(system.name, system.one), plan.call_block)

    return in_turns({system.name: measure(system) for system in systems}, plan.call_rounds, quiet)


def w3(offerings: Mapping[str, Offering], plan: Plan, quiet: Quiet) -> Rounds:
    """Latencies of W3 in s. Each system has its seconds to itself: offered together they would collide."""

    def measure(offering: Offering) -> Measure:
        return lambda: offering(RATE, plan.offer_s)

    return in_turns({name: measure(offering) for name, offering in offerings.items()}, plan.offer_rounds, quiet)


def package_p99(system: System, tasks: int, limit: float, repetitions: int) -> float:
    """The p99 in s of packages of so many tasks; infinite as soon as it is sure to be beyond `limit` s."""
    allowed = beyond_p99(repetitions)
    job, expected = system.package(tasks), [RESULT] * tasks
    samples: list[float] = []
    timed_package(system.name, job, expected)
    while len(samples) < repetitions:
        samples.append(timed_package(system.name, job, expected))
        if sum(sample > limit for sample in samples) > allowed:
            return math.inf
    return percentile(samples, 99)
