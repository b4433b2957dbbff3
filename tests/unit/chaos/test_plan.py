"""The schedule of chaos, and what it reads out of the engine's lines."""

from __future__ import annotations

from itertools import pairwise

from tests.chaos.plan import POISONS, Pace, plan
from tests.chaos.watch import Watch


def test_a_seed_gives_the_same_plan_again_and_another_seed_another() -> None:
    assert plan(7, 60) == plan(7, 60)
    assert plan(7, 60) != plan(8, 60)


def test_a_longer_plan_begins_like_a_shorter_one() -> None:
    assert [deed for deed in plan(7, 60) if deed.at < 20] == plan(7, 20)


def test_deeds_are_in_order_and_of_every_kind() -> None:
    deeds = plan(3, 20)
    assert [deed.at for deed in deeds] == sorted(deed.at for deed in deeds)
    assert {deed.kind for deed in deeds} == set(Pace._fields)
    assert {deed.what for deed in deeds if deed.kind == "poison"} == set(POISONS)


def test_the_pace_is_kept() -> None:
    kills = [deed.at for deed in plan(1, 60, Pace(kill=(1.0, 3.0))) if deed.kind == "kill"]
    assert all(1.0 <= after - before <= 3.0 for before, after in pairwise(kills))


def watched(*lines: tuple[float, str], killed: dict[int, float]) -> Watch:
    watch = Watch()
    watch.take("Starting process [10]: task worker 1", 0.0)
    for pid, at in killed.items():
        watch.killed(pid, at)
    for at, line in lines:
        watch.take(line, at)
    return watch


ENDED = "[SUPERVISOR] Process [10] ended (SIGKILL): task worker 1; starting another"


def test_a_place_is_taken_again_when_the_next_worker_is_online() -> None:
    watch = watched(
        (1.5, ENDED),
        (2.0, "Starting process [11]: task worker 1"),
        (2.5, "[WORKER-12(TASK)] Listener online"),
        (3.0, "[WORKER-11(TASK)] Listener online"),
        killed={10: 1.0},
    )
    assert watch.recoveries == [2.0]
    assert watch.deaths == {"task: SIGKILL": 1}
    assert watch.wrong == []


def test_a_replacement_that_is_killed_too_ends_no_wait() -> None:
    watch = watched(
        (1.5, ENDED),
        (2.0, "Starting process [11]: task worker 1"),
        (2.1, ENDED.replace("10", "11")),
        (2.2, "Starting process [12]: task worker 1"),
        (4.0, "[WORKER-12(TASK)] Listener online"),
        killed={10: 1.0, 11: 2.05},
    )
    assert watch.recoveries == [3.0]


def test_only_a_worker_that_we_killed_is_measured() -> None:
    online = (3.0, "[WORKER-11(TASK)] Listener online")
    started = (2.0, "Starting process [11]: task worker 1")
    assert watched((1.5, ENDED), started, online, killed={}).recoveries == []
    router = (1.6, "[SUPERVISOR] Process [9] ended (SIGKILL): router; starting another")
    assert watched((1.5, ENDED), router, started, online, killed={10: 1.0}).recoveries == [2.0]


def test_complaints_are_kept() -> None:
    complaint = "[ROUTER-9(BACKEND)] Dropped a message of TASK-10: it answers what nobody asked"
    stranger = complaint.replace("TASK-10", "a stranger")
    assert watched((1.0, complaint), (1.1, stranger), killed={}).wrong == [complaint]
