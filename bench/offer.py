"""W3: tasks offered at an even rate, each latency from the instant at which the task was due."""

from __future__ import annotations

import math
import threading
import time
from functools import partial

from bench.figures import percentile
from bench.span import RESULT, WrongResult, timed_package
from bench.system import Offered, System

ANSWER_S = 30.0
POLL_S = 0.002
RUN_OUT_S = 0.1
GIVE_UP_LATE_S = 1.0
THREADS = 4


class Offer:
    """Tasks offered to `system` at `rate` a second for `seconds`; `latencies` in s, in order of arrival.

    Offering goes on for RUN_OUT_S that count for nothing but being answered: the last tasks of all wait in a queue that
    nothing more fills.
    """

    def __init__(self, system: Offered, rate: float, seconds: float) -> None:
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


def offered(system: Offered, rate: float, seconds: float) -> list[float]:
    """The latencies of so much offering. Raises WrongResult."""
    offer = Offer(system, rate, seconds)
    offer.run()
    return offer.latencies


def offered_p99(system: Offered, rate: float, seconds: float) -> float:
    """The p99 in s of tasks offered at `rate` a second; infinite where they could not even be offered so fast."""
    offer = Offer(system, rate, seconds)
    if not offer.run():
        return math.inf
    return percentile(offer.latencies, 99)


def offered_packages(system: System, tasks: int, rate: float, seconds: float) -> list[float]:
    """The latencies of packages of so many tasks, `rate` packages a second, by THREADS threads in turn.

    Raises WrongResult.
    """
    packages = max(1, int(rate * seconds))
    latencies: list[float] = []
    failures: list[BaseException] = []
    expected = [RESULT] * tasks
    begin = time.perf_counter() + POLL_S

    def run(first: int) -> None:
        job = system.package(tasks)
        try:
            for number in range(first, packages, THREADS):
                due = begin + number / rate
                time.sleep(max(0.0, due - time.perf_counter()))
                late = time.perf_counter() - due
                latencies.append(late + timed_package(system.name, job, expected))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(first,)) for first in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return latencies
