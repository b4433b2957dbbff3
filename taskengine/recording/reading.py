"""Reads recordings: MCAP files (https://mcap.dev/spec), also such as were cut off, and folders of them.

A file that was cut off, by a SIGKILL, a pulled plug or a full disk, ends in the middle of a record and has no footer.
Everything before that record is whole: each chunk has a checksum.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final, NamedTuple

from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, Message, Metadata, Schema
from mcap.stream_reader import CRCValidationError, breakup_chunk
from mcap.writer import MCAP0_MAGIC
from zstandard import ZstdError

from taskengine.errors import TaskEngineError

SUFFIX: Final = ".mcap"
RECORD: Final = struct.Struct("<BQ")
"""A record begins with its kind and the number of its bytes that follow."""
DAMAGED: Final = (McapError, CRCValidationError, ZstdError, ValueError, RuntimeError, EOFError, struct.error)
"""What is raised for a chunk that is not whole."""


class RecordingError(TaskEngineError):
    """A recording cannot be read or written."""


class Recorded(NamedTuple):
    """A message of a recording."""

    topic: str
    schema: str
    message: Message


class Record(NamedTuple):
    """A record of a file, without its head, and where it begins."""

    kind: int
    data: bytes
    start: int

    @property
    def end(self) -> int:
        """The offset behind the record."""
        return self.start + RECORD.size + len(self.data)

    def stream(self) -> ReadDataStream:
        """Return the data for the readers of the library."""
        return ReadDataStream(io.BytesIO(self.data))


def records(file: IO[bytes], path: Path) -> Iterator[Record]:
    """Yield the whole records of an open file, in order. Raises RecordingError for a file that is no MCAP file."""
    size = os.fstat(file.fileno()).st_size
    magic = file.read(len(MCAP0_MAGIC))
    if not MCAP0_MAGIC.startswith(magic):
        raise RecordingError(f"{path} is no MCAP file")
    start = len(MCAP0_MAGIC)
    while True:
        head = file.read(RECORD.size)
        if len(head) < RECORD.size:
            return
        kind, length = RECORD.unpack(head)
        if not kind or start + RECORD.size + length > size:  # a file system may leave zeros where power was lost
            return
        record = Record(kind, file.read(length), start)
        if len(record.data) < length:
            return
        yield record
        if kind == Opcode.FOOTER:
            return
        start = record.end


def parts_of(chunk: Chunk) -> list[Schema | Channel | Message] | None:
    """Return what is in a chunk; None for one that is damaged."""
    try:
        parts = breakup_chunk(chunk, validate_crc=True)
    except DAMAGED:
        return None
    return [part for part in parts if isinstance(part, Schema | Channel | Message)]


def files_of(paths: Sequence[Path]) -> list[Path]:
    """Return the files of these paths, of folders those with the suffix, in the order of their names.

    Raises RecordingError where there are none.
    """
    found = [file for path in paths for file in (sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path])]
    if not found:
        raise RecordingError(f"no recording (*{SUFFIX}) is in {', '.join(map(str, paths))}")
    return found


def messages(paths: Sequence[Path]) -> Iterator[Recorded]:
    """Yield the messages of files, or of folders of them, as far as they are whole. Raises RecordingError, OSError."""
    for path in files_of(paths):
        with path.open("rb") as file:
            schemas: dict[int, str] = {}
            channels: dict[int, Channel] = {}
            for record in records(file, path):
                if record.kind == Opcode.DATA_END:
                    break
                for part in _parts(record) or ():
                    if isinstance(part, Schema):
                        schemas[part.id] = part.name
                    elif isinstance(part, Channel):
                        channels[part.id] = part
                    elif part.channel_id in channels:
                        channel = channels[part.channel_id]
                        yield Recorded(channel.topic, schemas.get(channel.schema_id, ""), part)


def _parts(record: Record) -> list[Schema | Channel | Message] | None:
    """Return the schemas, channels and messages in a record; None for a chunk that is damaged."""
    if record.kind == Opcode.CHUNK:
        return parts_of(Chunk.read(record.stream()))
    if record.kind == Opcode.SCHEMA:
        return [Schema.read(record.stream())]
    if record.kind == Opcode.CHANNEL:
        return [Channel.read(record.stream())]
    return [Message.read(record.stream(), len(record.data))] if record.kind == Opcode.MESSAGE else []


def metadata(path: Path) -> dict[str, str]:
    """Return what a file says of the engine and the recorder. Raises RecordingError, OSError."""
    told: dict[str, str] = {}
    with path.open("rb") as file:
        for record in records(file, path):
            if record.kind == Opcode.METADATA:
                told |= Metadata.read(record.stream()).metadata
    return told
