"""`taskengine record`: a client of the engine that writes what is published, and what happens, into files."""

from __future__ import annotations

import contextlib
import platform
import queue
import threading
import time
from collections.abc import Sequence

from taskengine.client.blocking import Client
from taskengine.client.samples import Sample
from taskengine.client.subscription import BINARY, Subscription
from taskengine.errors import Cancelled, NotAllowed, ProtocolError, TaskEngineError
from taskengine.protocol.layouts import COMMANDS_TOPIC
from taskengine.protocol.messages import Info
from taskengine.protocol.release import release
from taskengine.recording.channels import NS, RecordingEntry, entries, event
from taskengine.recording.events import EventWatch
from taskengine.recording.writing import SYNC_S, RecordingFiles

WAITING = 10_000
"""Samples that wait here; more wait at the subscriptions, which drop the oldest and count them."""
ANSWER_S = 1.0
"""How long the engine may take to answer until it counts as lost."""
Item = Sample | RecordingEntry | BaseException


def about(info: Info, address: str, topics: str) -> dict[str, str]:
    """Return what stands in a recording's metadata."""
    return {
        "engine": info.release,
        "address": address,
        "recorder": release(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "topics": topics,
        "task_workers": str(info.task_workers),
        "chunking_size": str(info.chunking_size),
        "capabilities": ",".join(info.capabilities),
    }


class RecordingClock:
    """The wall clock when it was made, from then on going by the monotonic clock: it never goes back."""

    def __init__(self) -> None:
        wall = time.time_ns()
        self._shift = wall - time.monotonic_ns()

    def now(self) -> int:
        """Return the time, in ns since 1970."""
        return time.monotonic_ns() + self._shift


class Recorder:
    """Records `topics` of the engine of `client` into `files` until `stop`."""

    def __init__(self, client: Client, topics: Sequence[str], files: RecordingFiles) -> None:
        self._client = client
        self._files = files
        self._clock = RecordingClock()
        self._begun = self._clock.now()
        self._items: queue.Queue[Item] = queue.Queue(WAITING)
        self._stopping = threading.Event()
        self._watch = EventWatch()
        binary = BINARY in client.info().capabilities
        self._feeds: list[Subscription] = []
        for topic in _disjoint(topics):
            self._feeds.append(client.subscribe(topic, waiting=WAITING, binary=binary))

    def stop(self) -> None:
        """Have `run` end; a signal handler may call it."""
        self._stopping.set()

    def run(self) -> None:
        """Record until `stop`, and end the file. Raises RecordingError where the disk takes no more."""
        threads = [threading.Thread(target=self._read, args=(feed,), daemon=True) for feed in self._feeds]
        threads.append(threading.Thread(target=self._look, daemon=True))
        for thread in threads:
            thread.start()
        try:
            self._put(event("recording", self._clock.now(), "the recording begins"))
            self._write_all()
            self._files.write(event("end", self._clock.now(), "the recording was ended"), self._clock.now())
        finally:
            self._stopping.set()
            for feed in self._feeds:
                feed.close()
            self._files.close()

    def _write_all(self) -> None:
        synced = time.monotonic()
        while not (self._stopping.is_set() and self._items.empty()):
            left = synced + SYNC_S - time.monotonic()
            with contextlib.suppress(queue.Empty):
                self._write(self._items.get(timeout=max(0.0, min(left, 0.1))))
            if time.monotonic() >= synced + SYNC_S:
                synced = time.monotonic()
                self._files.sync(self._clock.now())

    def _write(self, item: Item) -> None:
        if isinstance(item, BaseException):
            raise item
        now = self._clock.now()
        if isinstance(item, Sample) and self._is_old(item, now):
            return
        for entry in entries(item) if isinstance(item, Sample) else [item]:
            self._files.write(entry, now)

    def _is_old(self, sample: Sample, now: int) -> bool:
        """Return whether these are calls of before the recording, which a new subscriber gets as the last value."""
        made = sample.time * NS if sample.age is None else now - sample.age * NS
        return sample.topic == COMMANDS_TOPIC and made < self._begun

    def _put(self, item: Item) -> None:
        """Hand an item over; wait where too many do already, but not beyond the end."""
        while not self._stopping.is_set():
            with contextlib.suppress(queue.Full):
                self._items.put(item, timeout=SYNC_S)
                return

    def _read(self, feed: Subscription) -> None:
        """Hand over the samples of a subscription, in a thread."""
        dropped = 0
        while not self._stopping.is_set():
            try:
                self._put(feed.get())
            except ProtocolError as error:
                self._put(event("malformed", self._clock.now(), str(error)))
            except (Cancelled, TaskEngineError) as error:
                if not self._stopping.is_set():
                    self._put(error)
                return
            if feed.dropped > dropped:
                count, dropped = feed.dropped - dropped, feed.dropped
                self._put(event("dropped", self._clock.now(), "publications are missing here", count=count))

    def _look(self) -> None:
        """Hand over the events that the engine's counters tell, every SYNC_S, in a thread."""
        client = self._client.options(timeout=ANSWER_S)
        while not self._stopping.wait(SYNC_S):
            try:
                found = list(self._watch.seen(client.stats(), self._clock.now()))
            except NotAllowed:  # then there are no events of that kind
                return
            except TaskEngineError as error:
                found = list(self._watch.lost(str(error), self._clock.now()))
            for each in found:
                self._put(each)


def _disjoint(topics: Sequence[str]) -> list[str]:
    """Return the topics to subscribe to, with that of commands, none twice."""
    wanted = list(dict.fromkeys([*topics, COMMANDS_TOPIC]))
    starts = [topic[:-1] for topic in wanted if topic.endswith("*")]
    return [topic for topic in wanted if not any(topic.startswith(start) and topic != f"{start}*" for start in starts)]
