"""The relay of a line: takes packets at one end and gives them to the other, when they are due.

`python -m tests.network.relay ENGINE DRIVER LEAST MOST KEEPS` connects the devices of two namespaces, and obeys `cut`
and `mend` on its input. Packets are the kernel's, whole, so that TCP on both ends is the kernel's too.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import sys
import time

from tests.network.lines import DEVICE, Make, enter

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
MTU = 65536


class Way:
    """Packets in one direction: when each is due, and which of them wait for the line to be mended. Pure."""

    def __init__(self, make: Make, rng: random.Random) -> None:
        self._make = make
        self._rng = rng
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, bytes]] = []
        self._kept: list[bytes] = []
        self._cut_at: float | None = None

    def take(self, packet: bytes, now: float) -> None:
        """A packet has come."""
        if self._cut_at is None:
            due = now + self._rng.uniform(self._make.least, self._make.most)
            heapq.heappush(self._due, (due, next(self._numbers), packet))
        elif now < self._cut_at + self._make.keeps:
            self._kept.append(packet)

    def cut(self, now: float) -> None:
        """The line is cut; what is on its way is kept, or lost."""
        on_their_way = [packet for _, _, packet in sorted(self._due)]
        self._due.clear()
        self._kept = on_their_way if self._make.keeps else []
        self._cut_at = now

    def mend(self, now: float) -> None:
        """The line is whole; what was kept comes first."""
        self._cut_at = None
        for packet in self._kept:
            heapq.heappush(self._due, (now, next(self._numbers), packet))
        self._kept = []

    def give(self, now: float) -> list[bytes]:
        """The packets that are due."""
        found = []
        while self._due and self._due[0][0] <= now:
            found.append(heapq.heappop(self._due)[2])
        return found

    def due(self) -> float | None:
        """When the next packet is."""
        return self._due[0][0] if self._due else None


def tunnel(namespace: str) -> int:
    """The descriptor of a namespace's device."""
    enter(namespace)
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    return descriptor


def relay(ends: list[int], make: Make) -> None:
    """Relay until the input ends."""
    rng = random.Random(7)
    ways = {end: Way(make, rng) for end in ends}
    others = dict(zip(ends, reversed(ends), strict=True))
    poll = select.poll()
    for descriptor in (*ends, sys.stdin.fileno()):
        poll.register(descriptor, select.POLLIN)
    print("done", flush=True)
    while True:
        dues = [due for way in ways.values() if (due := way.due()) is not None]
        pause = max(0.0, min(dues) - time.monotonic()) * 1000 if dues else None
        for descriptor, _ in poll.poll(pause):
            if descriptor in ways:
                with contextlib.suppress(BlockingIOError):
                    ways[descriptor].take(os.read(descriptor, MTU), time.monotonic())
                continue
            word = sys.stdin.readline().strip()
            if not word:
                return
            for way in ways.values():
                (way.cut if word == "cut" else way.mend)(time.monotonic())
            print("done", flush=True)
        for end, way in ways.items():
            for packet in way.give(time.monotonic()):
                os.write(others[end], packet)


if __name__ == "__main__":
    engine, driver, *numbers = sys.argv[1:]
    relay([tunnel(engine), tunnel(driver)], Make(*map(float, numbers)))
