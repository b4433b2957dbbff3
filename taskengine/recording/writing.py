"""Writes recordings: MCAP files in a folder, split by size and age, the oldest removed where they are too many.

Messages are written as a chunk, and the file synchronised with the disk, every SYNC_S: a SIGKILL or a pulled plug costs
no more than that. Where the disk is full, the file is cut behind its last whole chunk and ended properly.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from mcap.writer import CompressionType, Writer

from taskengine.recording.channels import RecordingEntry, schema_data
from taskengine.recording.mending import mend
from taskengine.recording.reading import SUFFIX, RecordingError

SYNC_S: Final = 1.0
"""The pause, in s, between two chunks: what a SIGKILL or a pulled plug costs at most."""
CHUNK_BYTES: Final = 2**20
"""A chunk with so many bytes is written at once."""


class Bounds(NamedTuple):
    """How large and how old, in s, a file becomes, how many bytes all have together, and how many stay free."""

    file_bytes: int = 64 * 2**20
    file_s: float = 600.0
    all_bytes: int = 2**30
    free_bytes: int = 64 * 2**20


class RecordingFiles:
    """The files of one recorder in `folder`; `about` stands in each as metadata. `at`: ns of the wall clock."""

    def __init__(self, folder: Path, bounds: Bounds, about: Mapping[str, str]) -> None:
        self._folder = folder
        self._bounds = bounds
        self._about = dict(about)
        self._file: Any = None
        self._writer: Writer | None = None
        self._channels: dict[tuple[str, str], int] = {}
        self._schemas: dict[str, int] = {}
        self._begun = 0
        self._is_dirty = False
        self.path: Path | None = None
        self.messages = 0
        """How many were written, in all files."""

    def write(self, entry: RecordingEntry, at: int) -> None:
        """Write a message that came `at`. Raises RecordingError where the disk takes no more."""
        try:
            writer = self._writer or self._open(at)
            writer.add_message(
                channel_id=self._channel(writer, entry),
                log_time=at,
                data=entry.data,
                publish_time=entry.published,
                sequence=entry.number % 2**32,
            )
        except OSError as error:
            raise self._failed(error) from None
        self.messages += 1
        self._is_dirty = True

    def sync(self, at: int) -> None:
        """Have what was written reach the disk, and begin another file where that is due. Raises RecordingError."""
        if self._writer is None or self._file is None:
            return
        try:
            if self._is_dirty:
                self._is_dirty = False
                self._writer.flush()
                os.fdatasync(self._file.fileno())
                self._check_room()
            size, age = self._file.tell(), (at - self._begun) / 1e9
            if size >= self._bounds.file_bytes or age >= self._bounds.file_s:
                self.close()
        except OSError as error:
            raise self._failed(error) from None

    def close(self) -> None:
        """End the current file properly. May be called twice. Raises RecordingError."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.finish()
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failed(error) from None
        self._file.close()

    def _open(self, at: int) -> Writer:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._make_room()
        self._check_room()
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(at // 10**9))
        self.path = self._folder / f"{stamp}.{at // 10**6 % 1000:03}Z{SUFFIX}"
        # it has what all clients sent, whatever the policy lets others see
        self._file = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        fcntl.flock(self._file, fcntl.LOCK_EX)  # nobody mends it meanwhile
        self._writer = Writer(self._file, chunk_size=CHUNK_BYTES, compression=CompressionType.ZSTD)
        self._begun, self._channels, self._schemas = at, {}, {}
        self._writer.start(profile="", library="taskengine")
        self._writer.add_metadata("taskengine", self._about)
        self._file.flush()
        os.fsync(self._file.fileno())
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return self._writer

    def _channel(self, writer: Writer, entry: RecordingEntry) -> int:
        key = entry.topic, entry.schema
        channel = self._channels.get(key)
        if channel is None:
            if entry.schema not in self._schemas:
                data = schema_data(entry.schema)
                self._schemas[entry.schema] = writer.register_schema(entry.schema, "jsonschema", data)
            channel = writer.register_channel(entry.topic, "json", self._schemas[entry.schema])
            self._channels[key] = channel
        return channel

    def _make_room(self) -> None:
        """Remove the oldest files until another one fits within the bound of all."""
        files = sorted(self._folder.glob(f"*Z{SUFFIX}"))
        sizes = {file: file.stat().st_size for file in files}
        for file in files:
            if sum(sizes.values()) + self._bounds.file_bytes <= self._bounds.all_bytes:
                return
            file.unlink()
            del sizes[file]

    def _check_room(self) -> None:
        """Raise OSError where the disk has less room than is to stay free."""
        found = os.statvfs(self._folder)
        free = found.f_bavail * found.f_frsize
        if free < self._bounds.free_bytes:
            said = f"{free / 2**20:.0f} MiB are free, and {self._bounds.free_bytes / 2**20:.0f} MiB are to stay free"
            raise OSError(said)

    def _failed(self, error: OSError) -> RecordingError:
        """End the file as well as that goes; return the error that says what happened."""
        self._writer = None
        kept = ""
        if self._file is not None:
            with contextlib.suppress(OSError):  # the bytes that did not fit are still in Python's buffer
                self._file.close()
            with contextlib.suppress(OSError, RecordingError):
                mended = self.path and mend(self.path)
                kept = f"; {mended.path} has what was recorded until then" if mended else ""
        return RecordingError(f"recording in {self._folder} ended: {error.strerror or error}{kept}")
