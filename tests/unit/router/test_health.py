from __future__ import annotations

from typing import Any, cast

import pytest

from taskengine.router.health import Diagnosis, WorkerHealth
from taskengine.router.worker_table import WorkerTable

INTERVAL, LIMIT, JOIN_LIMIT = 1.0, 3.0, 10.0
NS = 10**9


class StillSlate:
    """The state that a worker shows of itself."""

    def __init__(self) -> None:
        self.progress: tuple[int, ...] = (0,)
        self.running = False
        self.until_ns = 0

    def clear(self) -> None:
        self.until_ns = 0


class Ward:
    """Two workers, and a clock that is looked at every interval."""

    def __init__(self) -> None:
        self.pages = [StillSlate(), StillSlate()]
        self.table = WorkerTable(cast(Any, self.pages))
        self.health = WorkerHealth(self.table, INTERVAL, LIMIT, JOIN_LIMIT, 0.0)
        self.now = 0.0
        self.stopped: set[int] = set()

    def start(self, name: str, place: int) -> None:
        self.table.expect(name, place, 100 + place, is_fresh=True)
        self.health.expect(name, self.now, joins=True)

    def join(self, name: str, place: int) -> None:
        self.table.enlist(name, name.encode(), place)
        self.health.joined(name, self.now)

    def look(self, seconds: float) -> list[Diagnosis]:
        """Look at every interval for so long; what was found, until the first diagnosis."""
        end = self.now + seconds
        while self.now < end:
            self.now += INTERVAL
            found = self.health.silent(self.now, self.stopped.__contains__) + self.health.late_to_join(self.now)
            if found:
                return found
        return []


@pytest.fixture
def ward() -> Ward:
    made = Ward()
    for place, name in enumerate(["a", "b"]):
        made.start(name, place)
        made.join(name, place)
    return made


def test_a_silent_worker_is_found_after_the_limit(ward: Ward) -> None:
    assert ward.look(LIMIT) == []
    ward.health.heard("b", ward.now)
    assert ward.look(1.0) == [Diagnosis("a", "a has been silent for more than 3 s")]


def test_a_worker_that_is_being_killed_is_not_found_again(ward: Ward) -> None:
    ward.health.condemned("a")
    ward.health.condemned("b")
    assert ward.look(100.0) == []


def test_progress_counts_as_a_sign_of_life(ward: Ward) -> None:
    ward.health.condemned("b")
    ward.table.has_progressed("a")
    ward.look(LIMIT)
    ward.pages[0].progress = (1,)
    assert ward.look(LIMIT) == []
    assert [diagnosis.worker for diagnosis in ward.look(3.0)] == ["a"]


def test_a_worker_in_a_task_may_take_its_time_unless_its_process_is_stopped(ward: Ward) -> None:
    ward.health.condemned("b")
    ward.pages[0].running = True
    assert ward.look(50.0) == []
    ward.stopped = {100}
    begun = ward.now
    assert ward.look(50.0) == [Diagnosis("a", "a has been stopped in a task for more than 3 s")]
    assert ward.now - begun > LIMIT


def test_a_process_that_goes_on_is_not_frozen(ward: Ward) -> None:
    ward.health.condemned("b")
    ward.pages[0].running = True
    for _ in range(9):
        ward.stopped = {100}
        assert ward.look(LIMIT) == []
        ward.stopped = set()
        assert ward.look(INTERVAL) == []


def test_a_worker_that_does_not_join_is_found_once() -> None:
    ward = Ward()
    ward.start("a", 0)
    found = ward.look(50.0)
    assert found == [Diagnosis("a", "a has not joined in 10 s")]
    assert ward.now > JOIN_LIMIT
    assert ward.look(50.0) == []


def test_a_worker_that_joined_an_earlier_router_is_not_late() -> None:
    ward = Ward()
    ward.table.expect("a", 0, 100, is_fresh=False)
    ward.health.expect("a", 0.0, joins=False)
    assert ward.look(50.0) == [Diagnosis("a", "a has been silent for more than 3 s")]


def test_our_own_absence_counts_against_nobody(ward: Ward) -> None:
    ward.now += 1000.0
    assert ward.look(LIMIT - INTERVAL) == []


def test_an_overdue_worker_is_found_once(ward: Ward) -> None:
    ward.pages[0].until_ns = 5 * NS
    assert ward.health.newly_overdue(4 * NS) == []
    assert ward.health.newly_overdue(5 * NS) == ["a"]
    assert ward.health.newly_overdue(6 * NS) == []


def test_a_worker_that_died_overdue_is_told_from_one_that_ended_its_task_in_time(ward: Ward) -> None:
    for page in ward.pages:
        page.until_ns = 5 * NS
    assert ward.health.newly_overdue(5 * NS) == ["a", "b"]
    ward.pages[1].until_ns = 9 * NS  # another task has begun
    found = {name: ward.health.buried(name, ward.table.dismiss(name), 6 * NS) for name in ("a", "b")}
    assert found == {"a": True, "b": False}


def test_a_worker_that_dies_by_itself_was_not_overdue(ward: Ward) -> None:
    ward.pages[0].until_ns = 5 * NS
    assert not ward.health.buried("a", ward.table.dismiss("a"), 6 * NS)
    assert not ward.health.buried("c", None, 6 * NS)
    assert [diagnosis.worker for diagnosis in ward.look(50.0)] == ["b"]


def test_a_timeout_is_told_also_after_a_reload_that_left_the_task_out(ward: Ward) -> None:
    assert not ward.health.timeouts
    ward.health.learn([("add", 1.5), ("idle", None)])
    ward.health.learn([("idle", None)])
    assert ward.health.timeouts == {"add": 1.5}
    error = ward.health.timed_out("add")
    assert (error.seconds, str(error)) == (
        1.5,
        "add took longer than its timeout of 1.5 s, and was ended with its worker",
    )
    assert "its timeout, and" in str(ward.health.timed_out("gone"))
