"""The classes of `taskengine._socket` in Python, by public methods of pyzmq alone: slower, but without its symbols.

`_socket` gives these in place of its own where it does not find libzmq's functions in pyzmq, or where the environment
variable TASKENGINE_PLAIN_PYZMQ is set, as the tests set it. Its stub, `_socket.pyi`, describes both.
"""

from __future__ import annotations

import ctypes
import struct
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import zmq

from taskengine.protocol import limits

COUNTED = 34
FRAME_BYTES = 128
FIRST_KEPT = 1024
UNJOINED = 16
"""The same as in `_socket.pyx`."""
MOST_SOURCES = 30
LONGEST_MS = 250
"""The longest wait, in ms: pyzmq goes on waiting after a signal, but the loops have to act on it."""


class PlainDebt:
    """Counts the bytes of messages that ZeroMQ still holds because their receiver does not read.

    Its bytes count for the `whole`, too. Only the sending thread uses it; pyzmq's own thread only notes what is paid.
    """

    def __init__(self, whole: PlainDebt | None = None) -> None:
        self._whole = whole
        self._owed = 0
        self._paid: deque[int] = deque()

    @property
    def unsent(self) -> int:
        """The bytes that ZeroMQ holds, of frames from COUNTED bytes on, with FRAME_BYTES more for each."""
        while self._paid:
            self._owed -= self._paid.popleft()
        return self._owed

    def owe(self, size: int) -> None:
        """Count so many bytes as sent, here and in the `whole`."""
        debt: PlainDebt | None = self
        while debt is not None:
            debt._owed += size
            debt = debt._whole

    def pay(self, size: int) -> None:
        """Note that ZeroMQ has let go of so many bytes. May be called from any thread, at any time."""
        debt: PlainDebt | None = self
        while debt is not None:
            debt._paid.append(size)
            debt = debt._whole


class _CountedFrame(bytes):
    """A frame that counts until it is freed, when neither ZeroMQ nor this process holds it any more."""

    debt: PlainDebt | None = None

    def __del__(self) -> None:
        if self.debt is not None:
            self.debt.pay(len(self) + FRAME_BYTES)


class PlainPort:
    """A socket of pyzmq, for the thread that has it; `user` is as in `_socket.pyx`."""

    def __init__(self, socket: zmq.Socket[Any], *, is_gated: bool = False) -> None:
        self.socket = socket
        self.user = ""
        self._is_gated = is_gated
        self._first: zmq.Frame | None = None

    @property
    def peer(self) -> str:
        """The IP address that the last message came from; no IP address for a Unix socket; "" where it is not known."""
        return _property(self._first, "Peer-Address")

    @property
    def descriptor(self) -> int:
        """The file descriptor by which the last message came; -1 where it is not known."""
        return int(_property(self._first, "__fd") or -1)

    def receive(self) -> list[bytes] | None:
        """Return the frames of the next message, None where there is none. Raises ZMQError."""
        frame = self._begin()
        if frame is None:
            return None
        frames = [frame.bytes]
        while frame.more:
            frame = self._next()
            frames.append(frame.bytes)
        self._end(frame)
        return frames

    def receive_request(self, unjoined: bytes, most: int) -> tuple[list[bytes], bytes, bytes] | None:
        """Return the next message of a client at a ROUTER as (frames, index, body), or None; see `_socket.pyx`."""
        frame = self._begin()
        if frame is None:
            return None
        frames, count = [frame.bytes], 1
        ends: list[int] | None = None
        body, size = bytearray(), 0
        while frame.more:
            frame = self._next()
            count += 1
            if count > most or (ends is None and count > UNJOINED):
                continue
            data = frame.bytes
            if ends is not None:
                size += len(data)
                if size <= limits.MAX_MESSAGE:
                    body += data
                ends.append(min(size, 0xFFFFFFFF))
                continue
            frames.append(data)
            is_head = bool(data) if len(frames) == 2 else len(frames) == 3 and not frames[1]
            if is_head and not data.startswith(unjoined):
                ends = []
        self._end(frame)
        if ends is None:
            return frames, b"", b""
        return frames, struct.pack(f"<{len(ends)}I", *ends), bytes(body) if size <= limits.MAX_MESSAGE else b""

    def send(self, frames: Sequence[bytes | list[bytes]], debt: PlainDebt | None = None) -> None:
        """Send a message, counted by `debt` if given; a frame is bytes, or a list of bytes that are joined.

        Raises ZMQError, Again where there is nobody to take it.
        """
        whole = [_joined(frame) for frame in frames]  # raises before anything is sent
        for number, data in enumerate(whole, 1):
            flags = zmq.DONTWAIT | (zmq.SNDMORE if number < len(whole) else 0)
            if debt is None or len(data) < COUNTED:
                self.socket.send(data, flags)
                continue
            counted = _CountedFrame(data)
            counted.debt = debt
            debt.owe(len(data) + FRAME_BYTES)
            self.socket.send(zmq.Frame(counted, copy=False), flags, copy=False)

    def _begin(self) -> zmq.Frame | None:
        """Receive the first frame of a message, and keep it for its properties."""
        try:
            self._first = self._next()
        except zmq.Again:
            return None
        return self._first

    def _next(self) -> zmq.Frame:
        return self.socket.recv(zmq.DONTWAIT, copy=False)

    def _end(self, last: zmq.Frame) -> None:
        """Note the sender, which the last frame has, and release a first frame that is large."""
        if self._is_gated:
            self.user = _property(last, "User-Id")
        if self._first is not None and len(self._first) > FIRST_KEPT:
            self._first = None


class PlainWaiter:
    """Waits until any of its sources can be read. Sources are ports and file descriptors, at most 30."""

    def __init__(self, *sources: PlainPort | int) -> None:
        if len(sources) > MOST_SOURCES:
            raise ValueError(f"a waiter has at most {MOST_SOURCES} sources, not {len(sources)}")
        waited = [source.socket if isinstance(source, PlainPort) else source for source in sources]
        self._items = [(source, zmq.POLLIN) for source in waited]
        self._bits: dict[Any, int] = {}
        for number, source in enumerate(waited):
            self._bits[source] = self._bits.get(source, 0) | 1 << number

    def wait(self, timeout_ms: int) -> int:
        """Return a number in which bit i is set where source i is ready; 0 after `timeout_ms` ms, or LONGEST_MS.

        Raises ZMQError.
        """
        shortly = LONGEST_MS if timeout_ms < 0 else min(timeout_ms, LONGEST_MS)
        if not self._items:  # pyzmq would return at once
            time.sleep(shortly / 1000)
            return 0
        ready = 0
        for source, _ in zmq.zmq_poll(self._items, shortly):
            ready |= self._bits[source]
        return ready


def seed_ids(seed: int) -> None:
    """Have the routing ids of this process's ROUTERs begin at `seed`. Call this before the first one is made."""
    ctypes.CDLL(None).srand(ctypes.c_uint(seed))


def _joined(frame: bytes | list[bytes]) -> bytes:
    if type(frame) is bytes:
        return frame
    if type(frame) is not list:
        raise TypeError(f"a frame is bytes or a list of bytes, not {type(frame).__name__}")
    for piece in frame:
        if type(piece) is not bytes:
            raise TypeError(f"a piece of a frame is bytes, not {type(piece).__name__}")
    return b"".join(frame)


def _property(frame: zmq.Frame | None, name: str) -> str:
    """Return a property of the connection by which a frame came, "" where ZeroMQ does not know it."""
    if frame is None:
        return ""
    try:
        return str(frame.get(name))
    except zmq.ZMQError:
        return ""
