"""A worker's progress page: whatever it wrote there, reading it gives an account or our ProtocolError.

The same goes for what the router takes of it while the worker lives.
"""

from __future__ import annotations

import mmap
import struct
from functools import cache

from taskengine import _fastpath
from taskengine.errors import ProtocolError
from taskengine.protocol import layouts, limits
from tests.batches import Failures, batch_of, no_foreign, task
from tests.fuzz.inputs import number

MAX_BYTES = 700
TOKENS = [struct.pack("<Q", value) for value in (0, 1, 4, 2**32, 2**32 + 36, 2**40, 2**63, 2**64 - 1)]
SHORT = 2**12
_ELAPSED = 20
"""Where an entry of an answer says how long it took."""
HEAD_BYTES, PANE_BYTES = 168, 256
"""So much of an input lies over the head of the progress page, and over the beginning of each slot."""

_ENDS = [24 + 72 * slot + place for slot in range(2) for place in (8, 16, 44)]
"""Where the head of a progress page says, in 32 bits, at which byte of a slot something ends; see _progress.pxi."""


@cache
def _memory() -> mmap.mmap:
    return mmap.mmap(-1, layouts.PROGRESS_BYTES)


@cache
def _page() -> _fastpath.ProgressPage:
    return _fastpath.ProgressPage(_memory())


def _places() -> list[tuple[int, int]]:
    """Where the parts of an input lie: (offset, bytes)."""
    first = layouts.PROGRESS_HEAD
    return [(0, HEAD_BYTES), (first, PANE_BYTES), (first + limits.MAX_MESSAGE, PANE_BYTES)]


def seeds() -> list[bytes]:
    """The progress pages of a worker that ended its batch, of one that never began, and of one that died in a task."""
    inputs = [bytes(HEAD_BYTES)]
    _write(b"")

    def die(*args: object) -> None:
        inputs.append(_held())

    for size in (1, 2, 3):
        batch = batch_of([task(0, 2), task(1), task(0, "x")], reply=size % 3, size=size)
        batch = size.to_bytes(8, "little") + batch[8:]
        _fastpath.run_batch(batch, lambda head: [abs, die], Failures(), no_foreign, page=_page())
        inputs.append(_held())
    return [bytes([1 + place % 3]) + data.rstrip(b"\0") for place, data in enumerate(inputs)]


def _held() -> bytes:
    """Return the content of the progress page, except how long the tasks took."""
    held = bytearray().join(_memory()[at : at + size] for at, size in _places())
    for entry in (HEAD_BYTES + layouts.COUNT.size, HEAD_BYTES + PANE_BYTES + layouts.COUNT.size):
        held[entry + _ELAPSED : entry + _ELAPSED + 8] = bytes(8)
    return bytes(held)


def _write(data: bytes) -> None:
    for at, size in _places():
        _memory()[at : at + size] = data[:size].ljust(size, b"\0")
        data = data[size:]


def fuzz(data: bytes) -> None:
    """The first byte is the batch that the router asks for, what follows lies in the progress page."""
    memory, page = _memory(), _page()
    asked = number(data)
    _write(data[1:])
    for at in _ENDS:
        # what is read is copied, and that would take the time: an answer is short here, or longer than can be
        end = int.from_bytes(memory[at : at + 4], "little")
        if end <= limits.MAX_MESSAGE:
            memory[at : at + 4] = (end % SHORT).to_bytes(4, "little")
    try:
        account = page.read(asked)
    except ProtocolError:
        account = None
    if account is not None:
        entries, part, running = account
        for job, first, stop, _, _, body in [*entries, *([part] if part else [])]:
            assert 0 <= job < 2**64
            assert 0 <= first < 2**32
            assert first <= stop
            assert isinstance(body, bytes)
        assert running is None or 0 <= running[1] < 2**32
    _peek(page, asked)
    assert isinstance(page.running, bool)
    assert page.until_ns >= 0
    assert len(page.progress) == 7
    page.recall_all()


def _peek(page: _fastpath.ProgressPage, asked: int) -> None:
    """Look twice; whatever was seen before, nothing is seen twice."""
    try:
        found = page.peek(asked, _fastpath.FIRST_LOOK, range(2))
        if found is None:
            return
        pieces, cursor = found
        assert page.peek(asked, cursor, range(2)) is None
    except ProtocolError:
        return
    for job, first, stop, failed, body in pieces:
        assert 0 <= job < 2**64
        assert 0 <= first < stop < 2**32
        assert failed & ~layouts.MAY_RETRY <= stop - first
        assert (body is not None) == (job in range(2))
