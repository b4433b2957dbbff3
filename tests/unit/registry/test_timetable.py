"""When periodic tasks run by the wall clock."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import pytest

from taskengine.errors import TaskModuleError
from taskengine.protocol.messages import ScheduleState
from taskengine.registry import timetable
from taskengine.registry.timetable import NextTime, check_timing, next_time

BERLIN = ZoneInfo("Europe/Berlin")
SPRING, AUTUMN = "2027-03-28", "2026-10-25"
"""Berlin leaves out 02:00 to 03:00, and has it twice."""


def at(text: str, zone: tzinfo = BERLIN) -> NextTime:
    return next_time(ScheduleState("x", at=text), zone)


def cron(text: str, zone: tzinfo = BERLIN) -> NextTime:
    return next_time(ScheduleState("x", cron=text), zone)


def times(following: NextTime, after: str, count: int, zone: tzinfo = BERLIN) -> list[str]:
    """The next times, with how far the zone is ahead."""

    now, found = datetime.fromisoformat(after).replace(tzinfo=zone).timestamp(), []
    for _ in range(count):
        now = following(now) or 0.0
        found.append(datetime.fromtimestamp(now, zone).isoformat(timespec="minutes"))
    return found


@pytest.mark.parametrize("following", [at("07:30"), cron("30 7 * * *")])
def test_a_time_of_day_comes_once_a_day_at_the_same_time_of_the_clock(following: NextTime) -> None:
    expected = ["2027-03-27T07:30+01:00", "2027-03-28T07:30+02:00", "2027-03-29T07:30+02:00"]
    assert times(following, "2027-03-26T07:30:01", 3) == expected


@pytest.mark.parametrize("following", [at("02:30"), cron("30 2 * * *")])
def test_a_time_that_the_clock_leaves_out_comes_at_the_first_minute_that_there_is(following: NextTime) -> None:
    expected = ["2027-03-28T03:00+02:00", "2027-03-29T02:30+02:00"]
    assert times(following, f"{SPRING}T00:00", 2) == expected


@pytest.mark.parametrize("following", [at("02:30"), cron("30 2 * * *")])
def test_a_time_that_comes_twice_counts_once(following: NextTime) -> None:
    expected = ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]
    assert times(following, f"{AUTUMN}T00:00", 2) == expected


@pytest.mark.parametrize("following", [at("02:30"), cron("30 2 * * *")])
def test_what_begins_in_the_second_of_the_two_hours_waits_for_the_next_day(following: NextTime) -> None:
    second = datetime.fromisoformat(f"{AUTUMN}T02:10").replace(tzinfo=BERLIN, fold=1).timestamp()
    found = following(second)
    assert found is not None
    assert datetime.fromtimestamp(found, BERLIN).isoformat(timespec="minutes") == "2026-10-26T02:30+01:00"


def test_every_half_hour_goes_on_through_both_hours() -> None:
    found = times(cron("*/30 * * * *"), f"{AUTUMN}T01:59", 4)
    assert found == [
        f"{AUTUMN}T0{hour}+0{ahead}:00" for hour, ahead in (("2:00", 2), ("2:30", 2), ("2:00", 1), ("2:30", 1))
    ]


def test_seconds_are_taken_by_both() -> None:
    now = datetime(2026, 11, 30, 12, 0, tzinfo=UTC).timestamp()
    assert at("12:00:05", UTC)(now) == now + 5
    assert cron("*/20 * * * * *", UTC)(now + 0.5) == now + 20


def test_a_day_that_never_comes_is_refused() -> None:
    with pytest.raises(TaskModuleError, match="Bad day-of-month"):
        check_timing(None, None, "0 0 31 2 *")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"every": 10.0, "at": "07:30"}, "one of every, at and cron"),
        ({"every": 0}, "a number of seconds from 0.01"),
        ({"every": "10"}, "a number of seconds from 0.01"),
        ({"every": True}, "a number of seconds from 0.01"),
        ({"every": float("nan")}, "a number of seconds from 0.01"),
        ({"at": "7:30"}, "a time of day"),
        ({"at": "24:00"}, "a time of day"),
        ({"at": 730}, "a time of day"),
        ({"cron": "30 7 * *"}, "Wrong number of fields"),
        ({"cron": "61 * * * *"}, "Bad minute"),
        ({"cron": 5}, "a text"),
    ],
)
def test_what_is_no_time_is_refused(options: dict[str, object], said: str) -> None:
    given = {"every": None, "at": None, "cron": None, **options}
    with pytest.raises(TaskModuleError, match=said):
        check_timing(**given)


def test_without_cronsim_only_cron_fails_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)
    check_timing(None, "07:30", None)
    with pytest.raises(TaskModuleError, match=r"'taskengine-robot\[schedule\]'"):
        check_timing(None, None, "0 7 * * *")


def test_cronsim_is_imported_only_for_a_cron_text() -> None:
    script = (
        "import sys; from taskengine import task\n"
        "task(at='07:30')(lambda: None); print('cronsim' in sys.modules)\n"
        "task(cron='0 7 * * *')(lambda: None); print('cronsim' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "True"]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "CET-1CEST,M3.5.0,M10.5.0/3"])
def test_the_zone_of_the_machine_is_that_of_the_c_library(zone: str) -> None:
    script = (
        "from datetime import datetime\n"
        "from taskengine.protocol.messages import ScheduleState\n"
        "from taskengine.registry.timetable import LocalZone, next_time\n"
        f"zone, now = LocalZone(), datetime.fromisoformat('{SPRING}T00:00+01:00').timestamp()\n"
        "for state in ScheduleState('x', at='02:30'), ScheduleState('x', cron='30 2 * * *'):\n"
        "    first = next_time(state, zone)(now)\n"
        "    print(first, next_time(state, zone)(first), datetime.fromtimestamp(first, zone))"
    )
    env = os.environ | {"TZ": zone}
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env)
    first = datetime.fromisoformat(f"{SPRING}T03:00+02:00").timestamp()
    line = f"{first} {first + 23.5 * 3600} 2027-03-28 03:00:00+02:00"
    assert ran.stdout.splitlines() == [line, line]


def test_names_of_the_zone_are_known() -> None:
    zone = timetable.LocalZone()
    moment = datetime(2026, 11, 30, 12, 0, tzinfo=zone)
    assert moment.tzname() == datetime(2026, 11, 30, 12, 0).astimezone().tzname()
    assert moment.dst() is None
