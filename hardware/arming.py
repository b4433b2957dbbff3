"""What speaks against arming a stopped machine, beside rules: a client that goes on commanding outputs. Pure.

Such commands are refused while the machine is stopped. If it were armed then, an output would move at once, before
anybody let go of a joystick. ArduPilot likewise refuses to arm while the throttle is up.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from taskengine import Origin

STREAM = 3
"""So many refused commands of one client for one output are a stream"""
STREAM_S = 1.0
"""within so many s;"""
FRESH_S = 0.5
"""it is over after so many s without a command: the usual lease."""
MAX_STREAMS = 64


class _CommandStream(NamedTuple):
    client: str
    times: tuple[float, ...]

    @property
    def end(self) -> float:
        """The time at which it is over."""
        return self.times[-1] + FRESH_S

    @property
    def is_one(self) -> bool:
        """Return whether these commands are enough."""
        return len(self.times) == STREAM and self.times[-1] - self.times[0] <= STREAM_S


class Attempts:
    """The commands that were refused because the machine is stopped."""

    def __init__(self) -> None:
        self._streams: dict[tuple[str, bytes], _CommandStream] = {}
        self.due = math.inf
        """When `reasons` changes without an event."""

    def note(self, output: str, origin: Origin, now: float) -> None:
        """Note a command that would have moved an output."""
        key = output, origin.holder
        stream = self._streams.pop(key, _CommandStream(origin.client, ()))
        self._streams[key] = found = stream._replace(times=(*stream.times, now)[-STREAM:])
        if len(self._streams) > MAX_STREAMS:
            del self._streams[next(iter(self._streams))]
        if found.is_one:
            self.due = min(self.due, found.end)

    def reasons(self, now: float) -> list[str]:
        """Return the reasons against arming."""
        self._streams = {key: stream for key, stream in self._streams.items() if stream.end > now}
        found = {key: stream for key, stream in self._streams.items() if stream.is_one}
        self.due = min((stream.end for stream in found.values()), default=math.inf)
        return [f"client {stream.client or 'without a name'} is commanding {key[0]}" for key, stream in found.items()]
