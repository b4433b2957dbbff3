from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from taskengine._fastpath import ProgressPage
from taskengine.errors import ProtocolError
from taskengine.protocol.layouts import PROGRESS_BYTES
from taskengine.runtime.control import (
    LOADER_REPORTS,
    PACKET_BYTES,
    Importing,
    Online,
    Report,
    RestartCounts,
    StartFailed,
    StopProcess,
    UnknownMessage,
    packets,
)
from taskengine.runtime.control_channel import ControlChannel
from taskengine.runtime.log_buffer import LogBuffer
from taskengine.supervisor.child import Child
from tests.engine import alive, deadline, wait_until


def _tell_files(control: ControlChannel, journal: LogBuffer) -> None:
    control.send(StartFailed(" ".join(open_files())))


def open_files() -> list[str]:
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the folder itself, which is closed by now
            links.append(os.readlink(entry))
    return links


def _write(garbage: bytes, control: ControlChannel, journal: LogBuffer) -> None:
    os.write(control.fileno(), garbage)
    time.sleep(60)


def _print(control: ControlChannel, journal: LogBuffer) -> None:
    for _ in range(64):
        os.write(journal._fd, b"x" * 2**14)
    time.sleep(60)


def _leave(control: ControlChannel, journal: LogBuffer) -> None:
    left = subprocess.Popen(["sleep", "60"])
    control.send(StartFailed(str(left.pid)))
    while control.next_order() != StopProcess():
        """Orders of which it knows nothing."""


@contextlib.contextmanager
def running(child: Child) -> Iterator[Child]:
    child.start()
    try:
        yield child
    finally:
        child.process.kill()
        child.close()


def heard(child: Child) -> list[Report | UnknownMessage]:
    assert wait([child.control], deadline(10))
    return child.read_reports()


@pytest.mark.parametrize("rests", [True, False])
def test_what_it_has_started_ends_with_it_where_its_channel_ends_before_its_parent(*, rests: bool) -> None:
    """As in a supervisor that is killed, whose descriptors are closed some time before its children are told."""
    page = ProgressPage(bytearray(PROGRESS_BYTES))
    with running(Child("child", _leave, (), enable_stdout=False, rests=rests, page=page)) as child:
        [report] = heard(child)
        assert isinstance(report, StartFailed)
        child.control.shutdown(socket.SHUT_RDWR)
        child.process.join(deadline(10))
        assert not alive(int(report.reason))


def test_a_process_has_what_it_keeps_and_nothing_else_of_ours(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w"), (tmp_path / "kept").open("w") as kept:
        other = Child("other", _write, (b"",), enable_stdout=False)
        child = Child("child", _tell_files, (), enable_stdout=False, keeps=[kept.fileno()])
        with running(other), running(child):
            [report] = heard(child)
    assert isinstance(report, StartFailed)
    files = report.reason
    found = [name for name in files.split() if name.startswith("/") and "/dev/" not in name]
    assert str(tmp_path / "kept") in found
    assert str(tmp_path / "secret") not in found
    # its end of the control channel; of the pipes, its log, and what multiprocessing has for the parent's end
    assert files.count("socket:") == 1
    assert "pidfd" not in files


@pytest.mark.parametrize(
    "garbage", [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\xc1\xc1", b"\0\x90", bytes(PACKET_BYTES + 1)]
)
def test_garbage_is_an_error_and_is_heard_no_more(garbage: bytes) -> None:
    with running(Child("child", _write, (garbage,), enable_stdout=False)) as child:
        with pytest.raises(ProtocolError):
            heard(child)
        assert child.control.fileno() in child.closed


def test_half_a_report_is_an_error_and_holds_nobody_up() -> None:
    with running(Child("child", _write, (b"\1" + packets(Online())[0][1:],), enable_stdout=False)) as child:
        with pytest.raises(ProtocolError):
            heard(child)
        assert not child.online


def _fail(control: ControlChannel, journal: LogBuffer) -> None:
    control.poll()
    control.send(Importing("arm"))
    control.send(StartFailed("no pins"))


def test_what_a_process_reported_is_heard_although_it_left_orders_unread() -> None:
    with running(Child("child", _fail, (), enable_stdout=False, known=LOADER_REPORTS)) as child:
        child.order(StopProcess())
        assert select.select([child.pidfd], [], [], deadline(10))[0]
        assert child.read_reports() == [Importing("arm"), StartFailed("no pins")]
        assert (child.loading, child.failure) == ("arm", "no pins")
        assert child.control.fileno() in child.closed


def _count_tasks(control: ControlChannel, journal: LogBuffer) -> None:
    order = control.receive()
    assert isinstance(order, RestartCounts)
    control.send(StartFailed(str(sum(order.counts.values()))))


def test_a_large_order_arrives_while_the_process_takes_its_time() -> None:
    counts = {f"kind {number:>90}": number for number in range(10_000)}
    with running(Child("child", _count_tasks, (), enable_stdout=False)) as child:
        child.order(RestartCounts(counts))
        wait_until(lambda: not child.send_orders(), 10, "the order to be sent")
        assert heard(child) == [StartFailed(str(sum(counts.values())))]


def test_an_order_to_a_process_that_is_gone_is_no_failure_of_its_own() -> None:
    with running(Child("child", _print, (), enable_stdout=False)) as child:
        child.process.kill()
        child.process.join()
        child.order(RestartCounts({}))
        assert not child.send_orders()
        assert child.failure == "", "how the process ended is told by its signal"


def test_a_line_without_end_is_not_kept_for_ever() -> None:
    with running(Child("child", _print, (), enable_stdout=False)) as child:
        read = 0

        def are_read() -> bool:
            nonlocal read
            read += len(child.read_lines())
            assert len(child._tail) <= 2**16
            return read > 2**19

        wait_until(are_read, 10, "its output")
