from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from taskengine.broker import legacy_json
from taskengine.protocol.messages import NOWHERE
from taskengine.router.package_lines import PackageLines, part_meta, request_meta
from taskengine.runtime.log_buffer import LogBuffer
from tests.batches import join_frames
from tests.packages import package


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def test_a_package_is_followed_from_its_chunks_to_its_end(pipe: tuple[int, int]) -> None:
    log = LogBuffer(pipe[1], True)
    made, sent = PackageLines(log, 2), package(4)
    sent.flight.job = 7
    sent.cut(2, {})
    made.accepted(sent)
    made.answered({7: sent}, "TASK-1", [(7, 0, 2, 0, 1, b""), (8, 0, 1, 0, 1, b"")])
    made.answered({7: sent}, "TASK-2", [(7, 2, 4, 0, 1, b"")])
    made.ended(sent, is_shipped=True)
    log.flush()
    lines = os.read(pipe[0], 2**16).decode().splitlines()
    assert [line.split(")] ")[1].split(": {")[0] for line in lines] == [
        "Chunking: 4/2",
        "Forwarding",
        "Forwarding: Assembling: serial, Part: 1.0",
        "Forwarding",
        "Forwarding: Assembling: serial, Part: 0.0",
        "Forwarding: Shipped: serial",
    ]
    assert '"id": "TASK-2"' in lines[3]


def test_a_package_whose_client_is_gone_is_not_shipped_and_forgotten(pipe: tuple[int, int]) -> None:
    log = LogBuffer(pipe[1], True)
    made, sent = PackageLines(log, None), package(2)
    sent.cut(None, {})
    made.answered({0: sent}, "TASK-1", [(0, 0, 2, 0, 1, b"")])
    made.ended(sent, is_shipped=False)
    log.flush()
    assert b"Shipped" not in os.read(pipe[0], 2**16)
    made.answered({0: sent}, "TASK-1", [(0, 0, 2, 0, 1, b"")])
    log.flush()
    assert b"Part: 0.0" in os.read(pipe[0], 2**16)


def test_a_chunk_that_two_workers_share_is_shown_once_when_its_last_task_is_answered(pipe: tuple[int, int]) -> None:
    log = LogBuffer(pipe[1], True)
    made, sent = PackageLines(log, None), package(4)
    sent.cut(None, {})
    made.answered({0: sent}, "TASK-1", [(0, 3, 4, 0, 1, b"")])
    made.answered({0: sent}, "TASK-2", [(0, 0, 3, 0, 1, b"")])
    log.flush()
    assert os.read(pipe[0], 2**16).decode().count("Assembling") == 1


def test_nothing_is_noted_without_lines(pipe: tuple[int, int]) -> None:
    log = LogBuffer(pipe[1], False)
    made = PackageLines(log, 10)
    made.accepted(package(1))
    made.ended(package(1), is_shipped=True)
    assert (made.enabled, log.pending) == (False, False)


def test_the_meta_of_a_legacy_package_is_its_own() -> None:
    meta = b'{"type": "REQ", "pack": 7, "serial": "abc", "id": "CLIENT"}'
    sent = legacy_json.read_package((), meta, *join_frames([b'{"task": "t"}']), {}, 1, NOWHERE)
    asked, part = json.loads(request_meta(sent)), json.loads(part_meta(sent, 3, "TASK-1"))
    assert (asked["serial"], asked["pack"], asked["id"], asked["role"]) == ("abc", 7, "CLIENT", "requestor")
    assert (part["part"], part["id"], part["role"]) == (3, "TASK-1", "responder")
