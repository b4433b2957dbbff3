from __future__ import annotations

import itertools
import math

import msgspec
import pytest
from rich.console import Console

from taskengine.cli.top import Look, looks, plain, plain_task, quantile_s, view
from taskengine.errors import EngineUnreachable
from taskengine.protocol.layouts import LATENCY_BUCKETS, LATENCY_SHIFT
from taskengine.protocol.messages import LaneStats, Latency, RetryPolicy, ScheduleState, SourceStats, Stats, TaskInfo

FIRST_S = 2**LATENCY_SHIFT / 1e9


def stats(accepted: int = 40, waiting: Latency | None = None) -> Stats:
    lane = LaneStats("", workers=2, online=2, busy=1, queued=0, running=10)
    none = Latency([], 0.0)
    numbers = (accepted, accepted - 10, 10, {"failed": 1, "WorkerLost": 2}, 3, 4, 5, {"task": 1}, 6, 7 * 2**20)
    return Stats(*numbers, [lane], waiting or none, none, none)


def text_of(now: Look, before: Look | None = None) -> str:
    console = Console(width=100)
    with console.capture() as captured:
        console.print(view(now, before))
    return captured.get()


def test_buckets_double_from_the_first_bound_and_the_last_has_none() -> None:
    bounds = list(Latency([1, 2], 0.0).below())
    assert bounds[:3] == [(FIRST_S, 1), (2 * FIRST_S, 3), (4 * FIRST_S, 3)]
    assert len(bounds) == LATENCY_BUCKETS
    assert bounds[-1] == (math.inf, 3)


@pytest.mark.parametrize(
    ("tasks", "percent", "expected"),
    [
        ([], 50, None),
        ([0, 0], 50, None),
        ([10], 50, FIRST_S / 2),
        ([10], 100, FIRST_S),
        ([0, 0, 10], 50, 3 * FIRST_S),
        ([90, 0, 0, 10], 90, FIRST_S),
        ([90, 0, 0, 10], 95, 6 * FIRST_S),
        ([0] * (LATENCY_BUCKETS - 1) + [1], 50, 2 ** (LATENCY_SHIFT + LATENCY_BUCKETS - 2) / 1e9),
    ],
)
def test_quantiles_lie_within_the_bucket_that_holds_them(
    tasks: list[int], percent: int, expected: float | None
) -> None:
    found = quantile_s(Latency(tasks, 1.0), percent)
    assert found == (None if expected is None else pytest.approx(expected))


def test_json_names_every_field() -> None:
    made = plain(stats(waiting=Latency([4], 2e-6)))
    assert list(made) == list(Stats.__struct_fields__)
    assert made["lanes"] == [{"name": "", "workers": 2, "online": 2, "busy": 1, "queued": 0, "running": 10}]
    assert made["waiting"]["tasks"] == [4]
    assert made["waiting"]["p50"] == pytest.approx(FIRST_S / 2)
    assert made["running"] == {"tasks": [], "seconds": 0.0, "p50": None, "p90": None, "p99": None}


def test_a_look_at_all_since_the_router_began() -> None:
    text = text_of(Look(0.0, stats(1040, Latency([4], 2e-6))))
    for said in ("1,040 accepted, 1,030 answered, 10 in flight", "6 in flight, 7.0 MiB", "2 WorkerLost, 1 failed"):
        assert said in text
    for said in ("3 retried, 4 refused, 5 late", "1 task", "(default)", "0.512 µs", "0.5 µs"):
        assert said in text


def test_rates_and_latencies_are_since_the_look_before() -> None:
    before = Look(1.0, stats(100, Latency([4], 4e-6)))
    text = text_of(Look(3.0, stats(300, Latency([4, 0, 6], 4e-6 + 12.0))), before)
    assert "290 answered (100/s)" in text
    assert [line.split()[1] for line in text.splitlines() if line.startswith("waiting")] == ["6"]
    assert "2 s" in text


def test_another_routers_numbers_are_not_compared() -> None:
    text = text_of(Look(3.0, stats(40, Latency([4], 4e-6))), Look(1.0, stats(100, Latency([400], 4e-6))))
    assert "/s" not in text
    assert text_of(Look(3.0, None), Look(1.0, stats())) == "no engine answers\n"


def test_an_engine_that_is_restarted_is_looked_at_again() -> None:
    class Flaky:
        answers = itertools.cycle([stats(), None])

        def stats(self) -> Stats:
            answer = next(self.answers)
            if answer is None:
                raise EngineUnreachable("gone", address="tcp://nowhere:9000")
            return answer

    seen = [look.stats for look in itertools.islice(looks(Flaky(), 0.0), 3)]
    assert seen == [stats(), None, stats()]


def test_sources_that_overrun_are_named() -> None:
    assert "overruns" not in text_of(Look(0.0, stats()))
    slow = msgspec.structs.replace(stats(), sources=[SourceStats("battery.\x1bvolts", 0.05, 1.5, 2900)])
    [row] = [line for line in text_of(Look(0.0, slow)).splitlines() if "battery" in line]
    assert row.split()[-5:] == ["50", "ms", "1.5", "s", "2,900"]
    assert "\x1b" not in row
    assert plain(slow)["sources"] == [
        {"topic": "battery.\x1bvolts", "period": 0.05, "longest": 1.5, "skipped": 2900},
    ]


def test_periodic_tasks_are_shown_with_their_times_and_the_last_result() -> None:
    states = [
        ScheduleState("tick", every=10.0, due=3.5, runs=7, failed=1, skipped=2, ago=6.5, took=0.25, last="ok"),
        ScheduleState("wake", at="07:30", due=20 * 3600 + 120.0),
        ScheduleState("week", cron="0 7 * * MON", due=5 * 86400 + 7200.0, is_running=True, ago=400.0),
        ScheduleState("late", at="12:00", ago=400.0, took=1.0),
    ]
    rows = text_of(Look(0.0, msgspec.structs.replace(stats(), schedules=states))).splitlines()[-5:]
    assert rows[0].split("  ")[0] == "periodic task"
    assert [" ".join(row.split()) for row in rows[1:]] == [
        "tick every 10 s 3.5 s 6.5 s ago 250 ms 7 1 2 ok",
        "wake at 07:30 20 h 2 min - - 0 0 0",
        "week cron 0 7 * * MON 5 d 2 h runs - 0 0 0",
        "late at 12:00 - 6 min ago 1 s 0 0 0",
    ]


def test_json_of_a_task_names_every_field() -> None:
    plain_one = TaskInfo("a", "", "()", "", None, False, "m")
    assert plain_task(plain_one) == msgspec.structs.asdict(plain_one)
    repeats = RetryPolicy(3, 0.5, 2), ScheduleState("b", at="07:30")
    made = plain_task(TaskInfo("b", "", "()", "", None, False, "m", False, *repeats))
    assert made["retry"] == {"retries": 3, "backoff": 0.5, "retried": 2}
    assert made["schedule"]["at"] == "07:30"


def test_json_of_periodic_tasks_is_an_object_each() -> None:
    made = plain(msgspec.structs.replace(stats(), schedules=[ScheduleState("tick", every=10.0)]))
    assert made["schedules"][0]["task"] == "tick"
    assert made["schedules"][0]["every"] == 10.0
