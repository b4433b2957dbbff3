"""The scenarios, for any `System`, and the run that plays them all in turns.

W1: 4000 tasks as one package, all results back and checked. W2: one task there and back, one at a time. W3: tasks
offered one by one at an even rate, latency from the instant at which each was due.

What is compared is taken in turns, a few repetitions of each system in each round and the order drawn anew, so that
a disturbance of the machine hits all alike and ratios of medians mean something.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from bench.figures import beyond_p99, percentile
from bench.peers import RESULT, System

PACKAGE = 4000
RATE = 4000
BLOCK = 3
WARM_UP = 1
CALLS_A_ROUND = 100
ANSWER_S = 30.0
POLL_S = 0.002
RUN_OUT_S = 0.1
GIVE_UP_LATE_S = 1.0
MOST_TASKS = 1_000_000
MOST_RATE = 1_000_000
P99_SAMPLES = 100


class WrongResult(Exception):
    """A system lost a task or gave a wrong answer, so its times mean nothing."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured. `offer_s`, `rate_s` are seconds of offering; `repetitions` is per size of package."""

    rounds: int = 34
    call_rounds: int = 20
    offer_s: float = 5.0
    rate_s: float = 1.0
    repetitions: int = P99_SAMPLES


FULL = Plan()
QUICK = Plan(rounds=3, call_rounds=2, offer_s=0.5, rate_s=0.2, repetitions=10)

Samples = dict[str, list[float]]


def timed_package(system: System, tasks: int) -> float:
    """Seconds for a package of so many tasks. Raises WrongResult."""
    start = time.perf_counter()
    results = system.package(tasks)
    elapsed = time.perf_counter() - start
    if results != [RESULT] * tasks:
        raise WrongResult(f"{system.name}: {results.count(RESULT)} of {tasks} results are right")
    return elapsed


def timed_call(system: System) -> float:
    """Seconds for one task there and back. Raises WrongResult."""
    start = time.perf_counter()
    result = system.one()
    elapsed = time.perf_counter() - start
    if result != RESULT:
        raise WrongResult(f"{system.name}: {result!r} is not {RESULT}")
    return elapsed


class Offer:
    """Tasks offered to `system` at `rate` a second for `seconds`; `latencies` in s, in order of arrival.

    Offering goes on for RUN_OUT_S that count for nothing but being answered: the last tasks of all wait in a queue that
    nothing more fills.
    """

    def __init__(self, system: System, rate: float, seconds: float) -> None:
        self.latencies: list[float] = []
        self._system = system
        self._rate = rate
        self._counted = max(1, int(rate * seconds))
        self._total = self._counted + int(rate * RUN_OUT_S)
        self._answers = 0
        self._wrong = 0

    def run(self) -> bool:
        """Offer all and wait for the answers; False where the offering fell behind so far that it was given up.

        Raises WrongResult, also for tasks that are not answered.
        """
        offered = self._offer()
        end = time.monotonic() + ANSWER_S
        while self._answers < offered and time.monotonic() < end:
            time.sleep(POLL_S)
        if self._wrong or self._answers != offered:
            answered = f"{self._answers} were answered, {self._wrong} of them wrongly"
            raise WrongResult(f"{self._system.name}: of {offered} tasks {answered}")
        return offered == self._total

    def _offer(self) -> int:
        """Offer task by task as each is due, and say how many."""
        start = time.perf_counter()
        for number in range(self._total):
            due = start + number / self._rate
            ahead = due - time.perf_counter()
            if ahead > 0:
                time.sleep(ahead)
            elif ahead < -GIVE_UP_LATE_S:
                return number
            self._system.offer(partial(self._answered, due, number < self._counted))
        return self._total

    def _answered(self, due: float, counts: bool, result: object) -> None:
        if counts:
            self.latencies.append(time.perf_counter() - due)
        self._wrong += result != RESULT
        self._answers += 1


def in_turns(systems: Sequence[System], rounds: int, block: int, measure: Callable[[System], float]) -> Samples:
    """`rounds` times `block` samples of each system, after a warm-up in each round."""
    samples: Samples = {system.name: [] for system in systems}
    order = list(systems)
    shuffle = random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        for system in order:
            for _ in range(WARM_UP):
                measure(system)
            samples[system.name] += [measure(system) for _ in range(block)]
    return samples


def w1(systems: Sequence[System], plan: Plan) -> Samples:
    """Seconds for each repetition of W1."""
    return in_turns(systems, plan.rounds, BLOCK, lambda system: timed_package(system, PACKAGE))


def w2(systems: Sequence[System], plan: Plan) -> Samples:
    """Seconds for each call of W2."""
    return in_turns(systems, plan.call_rounds, CALLS_A_ROUND, timed_call)


def w3(systems: Sequence[System], plan: Plan) -> Samples:
    """Latencies of W3 in s. Each system has its seconds to itself, in a row: offered together they would collide."""
    samples: Samples = {}
    for system in systems:
        timed_call(system)
        offer = Offer(system, RATE, plan.offer_s)
        offer.run()
        samples[system.name] = offer.latencies
    return samples


def package_p99(system: System, tasks: int, limit: float, repetitions: int) -> float:
    """The p99 in s of packages of so many tasks; infinite as soon as it is sure to be beyond `limit` s."""
    allowed = beyond_p99(repetitions)
    samples: list[float] = []
    timed_package(system, tasks)
    while len(samples) < repetitions:
        samples.append(timed_package(system, tasks))
        if sum(sample > limit for sample in samples) > allowed:
            return math.inf
    return percentile(samples, 99)


def offered_p99(system: System, rate: int, seconds: float) -> float:
    """The p99 in s of tasks offered at `rate` a second; infinite where they could not even be offered so fast."""
    offer = Offer(system, rate, seconds)
    if not offer.run():
        return math.inf
    return percentile(offer.latencies, 99)
