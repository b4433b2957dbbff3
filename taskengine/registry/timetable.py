"""Times at which periodic tasks run: a period, a time of day, or a cron text. Pure.

Times of the wall clock are in s since 1970 (POSIX time), and are reckoned in a time zone. Where the clock goes forward,
a time of day that is left out runs at the first minute that there is; one that comes twice runs the first time. cron
texts go by the same rule, which is that of Debian's cron(8), unless their minutes or hours begin with `*`.

The fields of a cron text are those of crontab(5), read by `cronsim`; six fields begin with seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Final

from taskengine.errors import TaskModuleError
from taskengine.protocol.messages import ScheduleState

SHORTEST_S: Final = 0.01
LONGEST_S: Final = 1e8
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?", re.ASCII)
NextTime = Callable[[float], float | None]
"""The first time after another one at which a task is to run; None where there is none any more."""


class LocalZone(tzinfo):
    """The time zone of this machine, as the C library has it: TZ, or /etc/localtime."""

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        """Return how far local time is ahead at a local moment."""
        return None if moment is None else moment.replace(tzinfo=None).astimezone().utcoffset()

    def dst(self, moment: datetime | None) -> timedelta | None:
        """Return that nobody asks for this."""
        return None

    def tzname(self, moment: datetime | None) -> str | None:
        """Return the abbreviation of the zone at a local moment."""
        return None if moment is None else moment.replace(tzinfo=None).astimezone().tzname()

    def fromutc(self, moment: datetime) -> datetime:
        """Return the local moment of one of UTC."""
        return moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=self)


def check_timing(every: object, at: object, cron: object) -> None:
    """Check the options of a periodic task, at most one of which is given. Raises TaskModuleError."""
    if sum(option is not None for option in (every, at, cron)) > 1:
        raise TaskModuleError("a task runs by one of every, at and cron: register the function under another name too")
    if every is not None:
        is_number = isinstance(every, (int, float)) and not isinstance(every, bool)
        if not (is_number and SHORTEST_S <= every <= LONGEST_S):  # type: ignore[operator]  # it is a number then
            raise TaskModuleError(f"every is a number of seconds from {SHORTEST_S:g} to {LONGEST_S:g}, not {every!r}")
    if at is not None and not (isinstance(at, str) and _TIME.fullmatch(at)):
        raise TaskModuleError(f'at is a time of day, as "07:30" or "23:59:30", not {at!r}')
    if cron is not None:
        if not isinstance(cron, str):
            raise TaskModuleError(f'cron is a text, as "*/15 8-17 * * MON-FRI", not {cron!r}')
        try:
            found = _cron(cron, UTC)(0.0)
        except ValueError as error:
            raise TaskModuleError(f"cron {cron!r}: {error}") from None
        if found is None:
            raise TaskModuleError(f"cron {cron!r}: there is no such day")


def next_time(state: ScheduleState, zone: tzinfo) -> NextTime:
    """Return what tells the next time of a task that runs by the wall clock."""
    return _time_of_day(state.at, zone) if state.at else _cron(state.cron, zone)


def _time_of_day(text: str, zone: tzinfo) -> NextTime:
    wanted = time.fromisoformat(text)

    def following(after: float) -> float:
        day = datetime.fromtimestamp(after, zone).date()
        while True:
            found = _existing(datetime.combine(day, wanted), zone)
            if found > after:
                return found
            day += timedelta(days=1)

    return following


def _existing(local: datetime, zone: tzinfo) -> float:
    """Return a local time in s since 1970; where the clock leaves it out, the first full minute after it."""
    while True:
        moment = local.replace(tzinfo=zone).astimezone(UTC)
        if moment.astimezone(zone).replace(tzinfo=None) == local:
            return moment.timestamp()
        local += timedelta(minutes=1)


def _cron(text: str, zone: tzinfo) -> NextTime:
    """Return what tells the times of a cron text, None after 50 years without one.

    Raises ValueError for a text that is none, TaskModuleError where cronsim is missing.
    """
    try:
        from cronsim import CronSim, CronSimError
    except ImportError:
        raise TaskModuleError("cron needs the package cronsim: `pip install 'taskengine-robot[schedule]'`") from None

    def following(after: float) -> float | None:
        times = (moment.timestamp() for moment in CronSim(text, datetime.fromtimestamp(after, zone)))
        # in an hour that comes twice, or was left out, it may begin with one that is over
        return next((found for found in times if found > after), None)

    try:
        CronSim(text, datetime.fromtimestamp(0.0, zone))
    except CronSimError as error:
        raise ValueError(str(error)) from None
    return following
