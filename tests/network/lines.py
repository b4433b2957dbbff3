"""A line between two network namespaces, one with the engine and one with the drivers, that can be cut and mended.

`veth` is a pair of the kernel's own, whose end at the drivers is set down and up. The others lead through a relay
(`relay.py`), which does what netem(8) does where a kernel has it: it delays, reorders, and keeps for 2 s what is sent
while the line is cut.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

ENGINE_HOST, DRIVER_HOST = "10.77.0.1", "10.77.0.2"
DEVICE = "line"
NETNS = Path("/run/netns")
_CLONE_NEWNET = 0x40000000


class Make(NamedTuple):
    """How a line behaves: one way takes from `least` to `most` s; what is sent while it is cut is kept for `keeps` s.

    The messages sent first are kept, and come first, once the line is mended.
    """

    least: float = 0.0
    most: float = 0.0
    keeps: float = 0.0


MAKES: Mapping[str, Make | None] = {
    "veth": None,
    "delay": Make(least=0.06, most=0.06),
    "jitter": Make(least=0.01, most=0.11),
    "buffer": Make(least=0.02, most=0.02, keeps=2.0),
}
"""The lines by their names; None for the kernel's own."""


def transit(make: str) -> float:
    """How many seconds a word is on its way at most, while the line is whole."""
    known = MAKES[make]
    return 0.0 if known is None else known.most


def enter(namespace: str) -> None:
    """Have this thread be in a network namespace. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(NETNS / namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), namespace)
    finally:
        os.close(descriptor)


def ip(*arguments: str) -> None:
    """Have iproute2 do something. Raises CalledProcessError."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Line:
    """A line of a make, between two namespaces of its own; enter it before the first socket is made."""

    def __init__(self, make: str) -> None:
        self.make = MAKES[make]
        self.engine, self.driver = (f"te-{os.getpid()}-{end}" for end in ("engine", "driver"))
        self._relay: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        for namespace in (self.engine, self.driver):
            ip("netns", "add", namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
        if self.make is None:
            pair = ["link", "add", DEVICE, "netns", self.engine, "type", "veth"]
            ip(*pair, "peer", "name", DEVICE, "netns", self.driver)
        else:
            for namespace in (self.engine, self.driver):
                ip("-n", namespace, "tuntap", "add", "dev", DEVICE, "mode", "tun")
        for namespace, host in ((self.engine, ENGINE_HOST), (self.driver, DRIVER_HOST)):
            ip("-n", namespace, "address", "add", f"{host}/24", "dev", DEVICE)
            ip("-n", namespace, "link", "set", DEVICE, "up")
        if self.make is not None:
            numbers = [str(number) for number in self.make]
            self._relay = subprocess.Popen(
                [sys.executable, "-m", "tests.network.relay", self.engine, self.driver, *numbers],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            self._told(self._relay.stdout)
        enter(self.engine)
        return self

    def cut(self) -> float:
        """Nothing comes through from here on, monotonic s."""
        if self._relay is None:
            ip("-n", self.driver, "link", "set", DEVICE, "down")
        else:
            self._tell("cut")
        return time.monotonic()

    def mend(self) -> float:
        """All comes through again, not before this, monotonic s."""
        now = time.monotonic()
        if self._relay is None:
            ip("-n", self.driver, "link", "set", DEVICE, "up")
        else:
            self._tell("mend")
        return now

    def _tell(self, what: str) -> None:
        assert self._relay is not None
        assert self._relay.stdin is not None
        print(what, file=self._relay.stdin, flush=True)
        self._told(self._relay.stdout)

    def _told(self, output: IO[str] | None) -> None:
        """The relay has done it."""
        assert output is not None
        assert output.readline() == "done\n", "the relay ended"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._relay is not None:
            self._relay.kill()
            self._relay.communicate()
        for namespace in (self.engine, self.driver):
            subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)
