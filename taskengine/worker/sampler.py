"""Samples the sources of a data worker, each in a thread of its own, so that a slow one delays no other."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from taskengine._fastpath import ProgressPage
from taskengine.registry.registry import Source
from taskengine.worker.rhythm import Rhythm

_SOURCE = "source "
"""The names of their threads begin with this."""
STACK_BYTES = 2**21
"""The stack of each thread. The memory of a process is limited, on a small board to little."""


def sampling() -> tuple[str, str]:
    """Return the name of the source that this thread samples, and "" for the client; see `LogBuffer.running`."""
    name = threading.current_thread().name
    return (name if name.startswith(_SOURCE) else ""), ""


class Sampled(NamedTuple):
    """A sample of a source, or the error that it raised, and when: by the engine's clock, in ns."""

    topic: str
    value: Any
    error: BaseException | None
    made: int
    taken: threading.Event
    """To be set when the sample is published: the source is not asked again before."""


class Samplers:
    """A thread for each source; `start` starts them. `descriptor` is readable if there is a sample to `take`.

    While a source runs, the progress page says so: it may hold the interpreter, and with it the whole process.
    """

    def __init__(self, sources: Iterable[Source], page: ProgressPage) -> None:
        self._sources = list(sources)
        self._page = page
        self._lock = threading.Lock()
        self._running = 0
        self._sampled: deque[Sampled] = deque()
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.rhythms: list[Rhythm] = []

    def start(self) -> list[str]:
        """Begin to sample; return the topics of sources for which the system had no thread."""
        left_out = []
        threading.stack_size(STACK_BYTES)
        try:
            for source in self._sources:
                rhythm = Rhythm(source.topic, source.period, time.monotonic())
                name = _SOURCE + source.topic
                thread = threading.Thread(target=self._sample, args=(source, rhythm), name=name, daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    left_out.append(source.topic)
                else:
                    self.rhythms.append(rhythm)
        finally:
            threading.stack_size(0)
        return left_out

    def take(self) -> list[Sampled]:
        """Return the samples since the last call."""
        try:
            os.eventfd_read(self.descriptor)
        except BlockingIOError:
            return []
        return [self._sampled.popleft() for _ in range(len(self._sampled))]

    def _sample(self, source: Source, rhythm: Rhythm) -> None:
        """Sample a source again and again, in its thread."""
        taken = threading.Event()
        while True:
            time.sleep(max(0.0, rhythm.due - time.monotonic()))
            value, error = None, None
            self._count(1)
            rhythm.begin(time.monotonic())
            try:
                value = source.function()
            except BaseException as raised:  # also SystemExit, which would end the thread in silence
                error = raised
            finally:
                rhythm.end(time.monotonic())
                self._count(-1)
            taken.clear()
            self._sampled.append(Sampled(source.topic, value, error, time.clock_gettime_ns(time.CLOCK_BOOTTIME), taken))
            os.eventfd_write(self.descriptor, 1)
            del value, error
            taken.wait()

    def _count(self, change: int) -> None:
        with self._lock:
            self._running += change
            self._page.busy(busy=self._running > 0)
