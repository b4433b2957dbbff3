from __future__ import annotations

from taskengine.broker.deadlines import Deadlines
from taskengine.broker.package import Package
from tests.packages import package


def in_flight(packages: dict[int, Package], job: int, deadline: float) -> Package:
    made = packages[job] = package(1)
    made.flight.job, made.deadline = job, deadline
    return made


def test_what_is_late_is_told_once_and_the_earliest_first() -> None:
    packages: dict[int, Package] = {}
    made = Deadlines(packages)
    late, never, soon = (in_flight(packages, job, at) for job, at in enumerate((5.0, float("inf"), 2.0), 1))
    for each in (late, never, soon):
        made.add(each)
    assert len(made) == 2
    assert made.passed(1.9) == []
    assert made.passed(5.0) == [soon, late]
    assert made.passed(100.0) == []


def test_what_is_over_is_not_late_and_soon_forgotten() -> None:
    packages: dict[int, Package] = {}
    made = Deadlines(packages)
    for job in range(1, 1000):
        made.add(in_flight(packages, job, 1.0))
        del packages[job]
    assert len(made) < 100
    assert made.passed(2.0) == []
    assert not made
