"""Files that are cut off anywhere, disks that are full, and files that are too many."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from mcap.reader import make_reader

from taskengine.client.samples import Sample
from taskengine.recording.channels import NS, RecordingEntry, entries, event
from taskengine.recording.mending import mend, mend_all
from taskengine.recording.reading import RecordingError, messages, metadata
from taskengine.recording.writing import Bounds, RecordingFiles

BOUNDS = Bounds(free_bytes=0)
START = 1_800_000_000 * NS


def entry(number: int, size: int = 40) -> RecordingEntry:
    [made] = entries(Sample("x", {"n": number, "text": random.Random(number).randbytes(size).hex()}, 0.0, number))
    return made


def record(folder: Path, bounds: Bounds = BOUNDS, seconds: int = 5, size: int = 40) -> RecordingFiles:
    """Record ten messages a second, synchronised each second."""
    files = RecordingFiles(folder, bounds, {"engine": "0.3"})
    for second in range(seconds):
        for number in range(10):
            files.write(entry(10 * second + number, size), START + second * NS + number)
        files.sync(START + (second + 1) * NS)
    return files


def read_by_the_library(path: Path) -> list[int]:
    """What the library's own reader finds by the file's index; with checksums."""
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        summary = reader.get_summary()
        assert summary is not None
        assert summary.statistics is not None
        found = [json.loads(message.data)["value"]["n"] for _, _, message in reader.iter_messages(topics=["x"])]
        assert summary.statistics.message_count == len(found)
        assert {channel.topic for channel in summary.channels.values()} <= {"x"}
        return found


def numbers(*paths: Path) -> list[int]:
    return [each.message.sequence for each in messages(paths)]


def test_a_file_that_was_ended_is_read_by_all(tmp_path: Path) -> None:
    files = record(tmp_path)
    files.close()
    files.close()
    assert files.path is not None
    assert read_by_the_library(files.path) == numbers(files.path) == list(range(50))
    assert metadata(files.path) == {"engine": "0.3"}
    assert mend(files.path) is None


def test_a_file_cut_anywhere_keeps_all_whole_chunks(tmp_path: Path) -> None:
    """What a SIGKILL or a pulled plug leaves: any beginning of the file, or one with zeros behind it."""
    files = record(tmp_path / "whole")
    files.close()
    assert files.path is not None
    whole, draw = files.path.read_bytes(), random.Random(7)
    most = -1
    cuts = [*sorted(draw.sample(range(300, len(whole)), 60)), len(whole) - 1]
    for cut in cuts:
        for tail in (b"", bytes(64)):
            path = tmp_path / f"{cut}{len(tail)}.mcap"
            path.write_bytes(whole[:cut] + tail)
            before = numbers(path)
            assert before == list(range(len(before))), "chunk by chunk"
            assert len(before) % 10 == 0
            assert len(before) >= most
            mended = mend(path)
            assert mended is not None
            assert mended.messages == len(before)
            assert read_by_the_library(path) == numbers(path) == before
            assert mend(path) is None
            path.unlink()
        most = len(before)
    assert most == 50


def test_a_damaged_chunk_and_what_follows_are_left_out(tmp_path: Path) -> None:
    files = record(tmp_path)
    assert files.path is not None
    data = bytearray(files.path.read_bytes())
    data[len(data) * 2 // 3] ^= 0xFF
    path = tmp_path / "damaged.mcap"
    path.write_bytes(data)
    mended = mend(path)
    assert mended is not None
    assert 10 <= mended.messages < 50
    assert read_by_the_library(path) == list(range(mended.messages))
    files.close()


def test_a_folder_is_mended_but_for_files_that_are_written_or_somebody_elses(tmp_path: Path) -> None:
    files = record(tmp_path, seconds=1)
    (tmp_path / "empty.mcap").write_bytes(b"")
    (tmp_path / "begun.mcap").write_bytes(b"\x89MCAP0\r\n")
    (tmp_path / "other.mcap").write_bytes(b"something else")
    assert mend_all(tmp_path) == []
    assert sorted(path.name for path in tmp_path.iterdir() if path != files.path) == ["other.mcap"]
    files.close()
    with pytest.raises(RecordingError, match=r"other\.mcap is no MCAP file"):
        list(messages([tmp_path]))
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    with pytest.raises(RecordingError, match="no recording"):
        list(messages([nothing]))


def test_files_are_split_by_size_and_age_and_the_oldest_go(tmp_path: Path) -> None:
    by_age = record(tmp_path / "age", Bounds(file_s=2.0, free_bytes=0), seconds=6)
    by_age.close()
    assert [len(numbers(path)) for path in sorted((tmp_path / "age").iterdir())] == [20, 20, 20]
    by_size = record(tmp_path / "size", Bounds(file_bytes=20_000, all_bytes=60_000, free_bytes=0), seconds=30, size=400)
    by_size.close()
    kept = sorted((tmp_path / "size").iterdir())
    assert 2 <= len(kept) <= 3
    assert sum(path.stat().st_size for path in kept) < 80_000
    assert numbers(*kept)[-1] == 299
    assert numbers(*kept)[0] > 0


def test_a_disk_with_too_little_room_ends_the_recording(tmp_path: Path) -> None:
    files = RecordingFiles(tmp_path, Bounds(free_bytes=2**60), {})
    with pytest.raises(RecordingError, match=r"are free, and .* MiB are to stay free"):
        files.write(event("x", 0), START)


FILL = """
import resource, sys
from pathlib import Path
from taskengine.recording.writing import Bounds
from taskengine.recording.reading import RecordingError
from tests.unit.recording.test_files import record
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    record(Path(sys.argv[1]), seconds=200, size=400)
except RecordingError as error:
    print(error)
"""


def test_a_full_disk_leaves_a_whole_file_and_one_clear_line(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", FILL, tmp_path], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith(f"recording in {tmp_path} ended: File too large"), ran
    assert ran.stdout.count("\n") == 1
    [path] = tmp_path.iterdir()
    assert mend(path) is None, "it was ended properly, in the room that its last chunks gave"
    found = read_by_the_library(path)
    assert found == list(range(len(found)))
    assert len(found) > 100


def test_a_disk_that_is_full_when_a_file_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = record(tmp_path, seconds=1)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RecordingError, match="No space left on device"):
        files.close()
    monkeypatch.undo()
    mend_all(tmp_path)
    assert numbers(tmp_path) == list(range(10))


def test_a_recording_is_for_its_owner_alone(tmp_path: Path) -> None:
    """It has what every client sent, whatever the policy lets them see of each other."""
    folder = tmp_path / "recordings"
    files = record(folder)
    files.close()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]
