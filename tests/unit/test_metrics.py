from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from taskengine.messages import LaneStats, Latency, SourceStats, Stats
from taskengine.metrics import families

STATS = Stats(
    accepted=40,
    answered=30,
    in_flight=10,
    errors={"failed": 1, "WorkerLost": 2},
    retried=3,
    refused=4,
    late=5,
    restarts={"task": 6},
    packages=7,
    bytes_in_flight=8,
    lanes=[LaneStats("", 2, 2, 1, 0, 10), LaneStats("arm", 1, 0, 0, 0, 0)],
    waiting=Latency([30], 0.0),
    running=Latency([28, 2], 0.25),
    total=Latency([], 0.0),
    sources=[SourceStats("volts", 0.5, 1.5, 3)],
)


class Once(Collector):
    def collect(self) -> Iterable[Metric]:
        return families(STATS)


def test_every_count_is_a_metric() -> None:
    registry = CollectorRegistry()
    registry.register(Once())
    lines = generate_latest(registry).decode().splitlines()
    for line in (
        "taskengine_tasks_accepted_total 40.0",
        "taskengine_tasks_answered_total 30.0",
        "taskengine_tasks_in_flight 10.0",
        'taskengine_task_errors_total{error="WorkerLost"} 2.0',
        "taskengine_tasks_retried_total 3.0",
        "taskengine_tasks_refused_total 4.0",
        "taskengine_messages_late_total 5.0",
        'taskengine_restarts_total{role="task"} 6.0',
        "taskengine_packages_in_flight 7.0",
        "taskengine_bytes_in_flight 8.0",
        'taskengine_lane_running{lane=""} 10.0',
        'taskengine_lane_online{lane="arm"} 0.0',
        'taskengine_source_overrun_seconds{topic="volts"} 1.5',
        'taskengine_task_seconds_bucket{le="1.024e-06",stage="running"} 28.0',
        'taskengine_task_seconds_bucket{le="2.048e-06",stage="running"} 30.0',
        'taskengine_task_seconds_bucket{le="+Inf",stage="running"} 30.0',
        'taskengine_task_seconds_count{stage="running"} 30.0',
        'taskengine_task_seconds_sum{stage="running"} 0.25',
    ):
        assert line in lines
