"""The times at which the messages of a recording are due in a replay, and which are wanted. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Final, Protocol, TypeVar

NS: Final = 10**9
LATE_NS: Final = NS
"""A message that was made so long before it came is due when it came: a new subscriber gets values of long ago."""


class Timed(Protocol):
    """The times of a message in ns: when it was recorded, and when it was made."""

    @property
    def log_time(self) -> int: ...
    @property
    def publish_time(self) -> int: ...


T = TypeVar("T")


def moment(message: Timed) -> int:
    """Return when a message counts as having happened, in ns of the recording's clock."""
    made, came = message.publish_time, message.log_time
    return made if 0 <= came - made < LATE_NS else came


def due(
    moments: Iterable[tuple[int, T]], begin: float | datetime = 0.0, speed: float = 1.0
) -> Iterator[tuple[float, T]]:
    """Yield what is wanted with the s after the replay's beginning at which it is due; it never goes back.

    `moments` are in ns, in the order of the recording. `begin` is where to begin: so many s after the first, or a time.
    """
    first: int | None = None
    latest = 0.0
    for at, what in moments:
        if first is None:
            first = at + int(begin * NS) if isinstance(begin, float) else int(begin.timestamp() * NS)
        if at >= first:
            latest = max(latest, (at - first) / NS / speed)
            yield latest, what


def begin_of(text: str) -> float | datetime:
    """Return where a replay is to begin: s after the first message, or a time in ISO 8601, UTC without a zone.

    Raises ValueError for any other text.
    """
    try:
        seconds = float(text)
    except ValueError:
        when = datetime.fromisoformat(text)
        return when if when.tzinfo else when.replace(tzinfo=UTC)
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{text} is no number of seconds")
    return seconds


def is_wanted(topic: str, patterns: Sequence[str]) -> bool:
    """Return whether a topic is one of those that are wanted, such as `arm.*`; without any, all are."""
    return not patterns or any(fnmatchcase(topic, pattern) for pattern in patterns)
