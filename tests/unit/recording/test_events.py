from __future__ import annotations

import json

from msgspec.structs import replace

from taskengine.recording.channels import RecordingEntry
from taskengine.recording.events import EventWatch
from tests.vectors import STATS


def names(entries: list[RecordingEntry]) -> list[tuple[str, dict[str, object]]]:
    told = [json.loads(entry.data) for entry in entries]
    return [(each["event"], each["details"]) for each in told]


def test_what_counters_tell_since_the_last_look() -> None:
    watch = EventWatch()
    assert list(watch.seen(STATS, 1)) == [], "what was before is no news"
    assert list(watch.seen(STATS, 2)) == []
    later = replace(STATS, restarts={"task": 2, "data": 1}, refused=STATS.refused + 3, errors={"failed": 5})
    assert names(list(watch.seen(later, 3))) == [
        ("restart", {"role": "task", "count": 1}),
        ("restart", {"role": "data", "count": 1}),
        ("errors", {"type": "failed", "count": 4}),
        ("refused", {"count": 3}),
    ]


def test_another_router_counts_anew() -> None:
    watch = EventWatch()
    list(watch.seen(STATS, 1))
    fresh = replace(STATS, accepted=0, errors={}, restarts={"task": 1, "router": 1})
    assert names(list(watch.seen(fresh, 2))) == [("restart", {"role": "router", "count": 1})]


def test_an_engine_that_is_lost_is_told_once_until_it_is_back() -> None:
    watch = EventWatch()
    list(watch.seen(STATS, 1))
    assert [len(list(watch.lost("no engine answers", at))) for at in (2, 3)] == [1, 0]
    assert names(list(watch.seen(STATS, 4))) == [("engine back", {})]
    assert len(list(watch.lost("again", 5))) == 1
