"""Messages of router and workers: any batch is run as the model runs it, any answer read as the model reads it."""

from __future__ import annotations

import itertools
import struct

from taskengine import _fastpath
from taskengine.protocol import layouts
from tests import model
from tests.batches import join_frames, section_of, task
from tests.fuzz.inputs import number
from tests.twins import same, turn

MAX_BYTES = 192
TOKENS = [
    *(struct.pack("<I", value) for value in (0, 1, 2, 3, 8, 2**31, 2**32 - 1)),
    *(b"\x92\x00\x90", b"\x92\x01\x92\x02\x03", b"\x93\x00\x90\x81\xa1a\x01", b"\x92\xcd\x00\x01", b"fi", bytes(8)),
]
BATCH, ANSWER, NUMBERED = range(3)
"""Kinds of input: a batch; an answer; a batch that the one byte behind the first picks tasks for."""


def seeds() -> list[bytes]:
    """Batches of each format and reply mode, in chunks or not, and an answer."""
    tasks = [task(0, 1, [2.5]), task(1, 2, b=3), task(2), task(7, a=1), task(6, 1), task(3), task(9)]
    package = join_frames(tasks)
    odd = join_frames(
        [b"\x92\xc0\x90", b"\x93\x00\x90\x82\xa1a\x01\xa1a\x02", b"\x92\x00\x91", b"\x94\x00", b"\x92\x05\x90"]
    )
    batches = [
        [section_of(package, head=b"h")],
        [section_of(package, 1, 5, sizes=(1, 1, 1), reply=layouts.Format.LEGACY_JSON)],
        [section_of(package, reply=2), section_of(package, 2, 4, job=2**64 - 1)],
        [section_of(package, deadline=1)],
        [section_of(package, deadline=2**63, reply=1)],
        [section_of(odd)],
        [section_of(package, format=1, sizes=(2, 1, 2), head=b"x")],
        [section_of(package, format=2, sizes=(7, 0, 0))],
        [section_of((b"if", bytes(range(64))), 1, 3, format=3, sizes=(1, 0, 1))],
        [section_of((b"ff", bytes(32)), 0, 2, format=3, sizes=(2, 0, 0), reply=1)],
        [],
    ]
    answer = (
        layouts.COUNT.pack(2)
        + layouts.ENTRY.pack(1, 0, 3, 1, 9, 4)
        + b"\x01\x02\x03\xc0"
        + layouts.ENTRY.pack(2, 7, 1, 0, 9, 0)
    )
    return [
        *(bytes([BATCH]) + model.pack_batch(1, 0, sections) for sections in batches),
        bytes([ANSWER]) + answer,
        bytes([ANSWER]) + layouts.COUNT.pack(0),
        *(bytes([NUMBERED, pick]) + b"".join(tasks) for pick in (0, 0x19, 0xFF)),
    ]


def fuzz(data: bytes) -> None:
    """A batch or an answer."""
    kind, data = number(data) % 3, data[1:]
    if kind == ANSWER:
        same("read_answer", data)
        return
    if kind == NUMBERED:
        data = _numbered(data)
    # the model knows no limit of time
    batch = data[:12] + bytes(len(data[12:20])) + data[20:]
    same("read_batch", batch)
    assert turn(_fastpath, batch) == turn(model, batch)


def _numbered(data: bytes) -> bytes:
    """A batch that is one, whatever its tasks are: they are cut where a byte in them could begin one."""
    pick, body = number(data), data[1:]
    starts = [0, *(at for at in range(1, len(body)) if body[at] in (0x92, 0x93)), len(body)]
    tasks = [body[start:stop] for start, stop in itertools.pairwise(starts) if start < stop]
    if not tasks:
        return b""
    sizes = (1 + pick % len(tasks), pick >> 3 & 3, 1 + (pick >> 5))
    return model.pack_batch(1, 0, [section_of(join_frames(tasks), sizes=sizes, reply=(pick >> 2) % 3, head=b"h")])
