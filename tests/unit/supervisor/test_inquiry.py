from __future__ import annotations

import os
import time
from multiprocessing.connection import Connection, wait
from pathlib import Path

import pytest

from taskengine.supervisor.inquiry import Inquiry
from tests.engine import deadline
from tests.unit.supervisor.test_child import open_files


def _write(garbage: bytes, answer: Connection) -> None:
    os.write(answer.fileno(), garbage)
    time.sleep(60)


def test_an_inquiry_has_nothing_of_ours(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w"):
        inquiry = Inquiry(lambda answer: answer.send_bytes(" ".join(open_files()).encode()))
        assert wait([inquiry.connection], deadline(10))
        assert str(tmp_path / "secret").encode() not in inquiry.answer()


@pytest.mark.parametrize("garbage", [b"\0\0", b"\xff\xff\xff\xff\x7f\0\0\0\0\0\0\0", b"\x7f\xff\xff\xff"])
def test_what_a_module_writes_is_no_answer_and_holds_nobody_up(garbage: bytes) -> None:
    inquiry = Inquiry(lambda answer: _write(garbage, answer))
    assert wait([inquiry.connection], deadline(10))
    begun = time.monotonic()
    with pytest.raises(EOFError):
        inquiry.answer()
    assert time.monotonic() - begun < deadline(5)
