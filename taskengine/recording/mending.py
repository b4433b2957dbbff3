"""Mends MCAP files that were cut off, in place: cuts what is not whole, and appends the summary and the footer.

Every reader opens such a file then, and finds what it has by its index, as in a file that was ended properly.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import zlib
from pathlib import Path
from typing import IO, NamedTuple

from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.records import (
    Channel,
    Chunk,
    ChunkIndex,
    DataEnd,
    Footer,
    Message,
    MessageIndex,
    Schema,
    Statistics,
    SummaryOffset,
)
from mcap.writer import MCAP0_MAGIC

from taskengine.recording.reading import RECORD, SUFFIX, Record, RecordingError, parts_of, records


class Mended(NamedTuple):
    """What was done for a file: bytes that were cut off at its end, and messages that it has."""

    path: Path
    cut: int
    messages: int


class _Contents:
    """The contents of a file, up to the offset `end` behind its last whole record."""

    def __init__(self) -> None:
        self.end = len(MCAP0_MAGIC)
        self.is_finished = False
        self.has_header = False
        self.schemas: dict[int, Schema] = {}
        self.channels: dict[int, Channel] = {}
        self.chunks: list[ChunkIndex] = []
        self.counts: dict[int, int] = {}
        self.metadata = 0

    def read(self, record: Record) -> bool:
        """Take the next record in; return whether it is whole, and others may follow it."""
        if record.kind == Opcode.DATA_END:
            return False
        if record.kind == Opcode.CHUNK and not self._read_chunk(record):
            return False
        if record.kind == Opcode.MESSAGE_INDEX and self.chunks:
            index, chunk = MessageIndex.read(record.stream()), self.chunks[-1]
            chunk.message_index_offsets[index.channel_id] = record.start
            chunk.message_index_length = record.end - chunk.chunk_start_offset - chunk.chunk_length
        self.has_header = self.has_header or record.kind == Opcode.HEADER
        self.metadata += record.kind == Opcode.METADATA
        self.end = record.end
        return True

    def _read_chunk(self, record: Record) -> bool:
        chunk = Chunk.read(record.stream())
        parts = parts_of(chunk)
        if parts is None:
            return False
        for part in parts:
            if isinstance(part, Schema):
                self.schemas[part.id] = part
            elif isinstance(part, Channel):
                self.channels[part.id] = part
            else:
                self.counts[part.channel_id] = self.counts.get(part.channel_id, 0) + isinstance(part, Message)
        self.chunks.append(
            ChunkIndex(
                chunk_length=record.end - record.start,
                chunk_start_offset=record.start,
                compression=chunk.compression,
                compressed_size=len(chunk.data),
                message_end_time=chunk.message_end_time,
                message_index_length=0,
                message_index_offsets={},
                message_start_time=chunk.message_start_time,
                uncompressed_size=chunk.uncompressed_size,
            )
        )
        return True

    def statistics(self) -> Statistics:
        """Return the record of what is in the file."""
        return Statistics(
            attachment_count=0,
            channel_count=len(self.channels),
            channel_message_counts=self.counts,
            chunk_count=len(self.chunks),
            message_count=sum(self.counts.values()),
            message_end_time=max((chunk.message_end_time for chunk in self.chunks), default=0),
            message_start_time=min((chunk.message_start_time for chunk in self.chunks), default=0),
            metadata_count=self.metadata,
            schema_count=len(self.schemas),
        )


def mend(path: Path) -> Mended | None:
    """Mend a file; None where it is whole, or somebody is writing it. Raises RecordingError, OSError.

    On a full disk the last chunks make room for the ending: without it most readers open nothing.
    """
    with path.open("r+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        if _is_finished(file):
            return None
        size = os.fstat(file.fileno()).st_size
        contents = _contents(file, path, size)
        while True:
            try:
                _end(file, contents)
                return Mended(path, size - contents.end, sum(contents.counts.values()))
            except OSError:
                if not contents.chunks:
                    raise
                contents = _contents(file, path, contents.chunks[-1].chunk_start_offset)


def _contents(file: IO[bytes], path: Path, before: int) -> _Contents:
    """Return what is whole in a file before an offset. Raises RecordingError."""
    file.seek(0)
    contents = _Contents()
    for record in records(file, path):
        if record.end > before or not contents.read(record):
            break
    if not contents.has_header:
        raise RecordingError(f"{path} has nothing in it")
    return contents


def _end(file: IO[bytes], contents: _Contents) -> None:
    """Cut the file behind its contents, and write what belongs there. Raises OSError."""
    file.truncate(contents.end)
    file.seek(contents.end)
    left = memoryview(_ending(contents))
    while left:
        left = left[file.write(left) :]
    os.fsync(file.fileno())


def _is_finished(file: IO[bytes]) -> bool:
    """Return whether a file ends as it should: with a footer, and the magic bytes behind it."""
    footer = RECORD.size + 20 + len(MCAP0_MAGIC)
    if file.seek(0, os.SEEK_END) < footer + len(MCAP0_MAGIC):
        return False
    file.seek(-footer, os.SEEK_END)
    tail = file.read(footer)
    return tail.endswith(MCAP0_MAGIC) and RECORD.unpack_from(tail) == (Opcode.FOOTER, 20)


def _ending(contents: _Contents) -> bytes:
    """Return what belongs behind the data: its end, the summary, the footer."""
    data_end = RecordBuilder()
    DataEnd(0).write(data_end)
    before: bytes = data_end.end()
    start = contents.end + len(before)
    summary = RecordBuilder()
    offsets = []
    groups = (
        (Opcode.SCHEMA, list(contents.schemas.values())),
        (Opcode.CHANNEL, list(contents.channels.values())),
        (Opcode.STATISTICS, [contents.statistics()]),
        (Opcode.CHUNK_INDEX, contents.chunks),
    )
    for kind, group in groups:
        begin = summary.count
        for each in group:
            each.write(summary)
        if summary.count > begin:
            offsets.append(SummaryOffset(int(kind), start + begin, summary.count - begin))
    offset_start = start + summary.count
    for offset in offsets:
        offset.write(summary)
    data: bytes = summary.end()
    crc = zlib.crc32(struct.pack("<BQQQ", Opcode.FOOTER, 20, start, offset_start), zlib.crc32(data))
    footer = RecordBuilder()
    Footer(summary_start=start, summary_offset_start=offset_start, summary_crc=crc).write(footer)
    end: bytes = footer.end()
    return before + data + end + MCAP0_MAGIC


def mend_all(folder: Path) -> list[Mended]:
    """Mend the files of a folder that need it; remove those that were cut before they had anything."""
    done = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        if path.stat().st_size <= len(MCAP0_MAGIC) and MCAP0_MAGIC.startswith(path.read_bytes()):
            path.unlink()
            continue
        with contextlib.suppress(RecordingError):  # somebody else's file
            mended = mend(path)
            done += [mended] if mended else []
    return done
