"""A child process of the supervisor: starts it, exchanges messages with it, and ends it."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from taskengine._descendants import end_descendants
from taskengine._fastpath import ProgressPage
from taskengine.errors import ProtocolError
from taskengine.runtime.control import (
    COMMON,
    PACKET_BYTES,
    Alive,
    Importing,
    NotImported,
    Online,
    Order,
    Report,
    StartFailed,
    UnknownMessage,
    packets,
    read_report,
)
from taskengine.runtime.control_channel import ControlChannel, new_channel
from taskengine.runtime.descendants import orphans
from taskengine.runtime.log_buffer import LogBuffer
from taskengine.runtime.log_format import PLAIN, LineFormat, LogStyle, worker_label
from taskengine.runtime.task_output import MARK, log_by, print_by, sift
from taskengine.security.identity import Identity
from taskengine.supervisor.forked_process import FORK, ProcessEnd, end_soon, is_orphan, set_up_process

_PIPE_BYTES = 1 << 20
_MAX_LINE_BYTES = 1 << 16
"""The most bytes of a line that a process has begun and not ended."""
_MAX_REPORTS = 256
"""The most reports of a process that are read in one turn."""
_MAX_NOT_IMPORTED = 4096
"""The most task modules that a process may report as not imported."""


class Child:
    """A process in the role `role`, which runs `target(*args, control, log)` as `identity`, or as our own user.

    With `logs_output` its prints become lines of the log. A worker has a progress page at a place. It ends with the
    supervisor, after the processes that its tasks have started. A process that `survives` does not end with the
    supervisor; one that `rests` ends by itself, after it has brought its pins to their safe state. The process has its
    own pipes, the standard descriptors, and those that it `keeps`. It may send the reports that are `known`.
    """

    def __init__(
        self,
        role: str,
        target: Callable[..., None],
        args: tuple[Any, ...],
        *,
        enable_stdout: bool,
        style: LogStyle = PLAIN,
        page: ProgressPage | None = None,
        place: int | None = None,
        identity: Identity | None = None,
        logs_output: bool = False,
        survives: bool = False,
        rests: bool = False,
        keeps: Iterable[int] = (),
        known: frozenset[type[Report]] = COMMON,
    ) -> None:
        self.role = role
        self._keeps = tuple(keeps)
        self._known = known
        self.survives = survives
        self._end = (
            ProcessEnd.NEVER
            if survives
            else ProcessEnd.RESTED
            if rests
            else ProcessEnd.AFTER
            if page
            else ProcessEnd.AT_ONCE
        )
        self.place = place
        self._identity = identity
        self._page = page
        self._finished = page.finished if page else 0
        self.online = False
        self._has_answered = False
        self.failure = ""
        self.loading = ""
        """The task module that it imports now, "" for none."""
        self.not_imported: dict[str, str] = {}
        """The task modules that it could not import, and why."""
        self.fault = ""
        """Why it was killed: it sent something that is no report."""
        self.has_sent_unknown = False
        """Whether it has sent an unknown report."""
        self.started = 0.0
        self._target = target
        self._args = args
        self._enable_stdout = enable_stdout
        self._style = style
        self._logs_output = logs_output
        self._format = LineFormat(style, role)
        self._tail = b""
        self._unsent: deque[bytes] = deque()
        self.closed: set[int] = set()
        """The descriptors among `control` and `log` whose other end is closed."""

    def start(self) -> None:
        """Fork. The process closes what it inherits, also of its siblings, so that they notice the supervisor's end.

        Raises OSError if the system has no descriptor, process or memory left.
        """
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as theirs:
            self._fork(undo, theirs)
            # not its sentinel, a pipe that whatever a task forks holds open
            self.pidfd = os.pidfd_open(self.pid)
            undo.pop_all()
        orphans.add(self.pid)
        self.started = time.monotonic()

    def _fork(self, undo: contextlib.ExitStack, theirs: contextlib.ExitStack) -> None:
        """Fork; `undo` ends what was begun, `theirs` closes our copies of the process's descriptors."""
        self.control, control = new_channel()
        undo.callback(self.control.close)
        theirs.callback(control.close)
        self.log, log = os.pipe()
        undo.callback(os.close, self.log)
        theirs.callback(os.close, log)
        for fd in (self.log, log):
            os.set_blocking(fd, False)
        with contextlib.suppress(OSError):  # a user may have only so much of it
            fcntl.fcntl(self.log, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        output = None
        if self._logs_output:  # opened again, so that it blocks, as processes that tasks start expect
            output = os.open(f"/proc/self/fd/{log}", os.O_WRONLY)
            theirs.callback(os.close, output)
        how = self.role, self._identity, self._end, [control.fileno(), log, *self._keeps]
        entry = (*how, self._target, self._args, control, log, output, self._enable_stdout, self._style)
        self.process = FORK.Process(target=_enter, args=entry, name=self.role)
        self.process.start()
        undo.callback(self.process.kill)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid or 0

    @property
    def was_useful(self) -> bool:
        """Whether it has answered a client, or finished tasks."""
        return self._has_answered or (self._page is not None and self._page.finished > self._finished)

    def recall(self) -> None:
        """Have a worker hand back its tasks after the current one: the router that sent them is gone."""
        if self._page is not None:
            self._page.recall_all()

    def order(self, order: Order) -> None:
        """Send the process an order as soon as it takes one; a process that is gone gets none."""
        self._unsent.extend(packets(order))
        self.send_orders()

    def send_orders(self) -> bool:
        """Send the orders that wait, as many as the process takes; return whether some are left."""
        try:
            while self._unsent:
                self.control.send(self._unsent[0], socket.MSG_DONTWAIT)
                self._unsent.popleft()
        except BlockingIOError:
            return True
        except OSError:  # it is gone; its end tells why
            self._unsent.clear()
        return False

    def read_reports(self) -> list[Report | UnknownMessage]:
        """Read the reports that have come, and note what they say of the process.

        Raises ProtocolError for bytes that are no report, and reads no more of this process then: a task can write into
        every descriptor of its process.
        """
        reports: list[Report | UnknownMessage] = []
        try:
            while len(reports) < _MAX_REPORTS and (packet := self._receive()):
                report = read_report(packet, self._known)
                self._note(report)
                reports.append(report)
        except BlockingIOError:
            pass
        except ProtocolError:
            self.closed.add(self.control.fileno())
            raise
        return reports

    def _receive(self) -> bytes:
        """Return the next packet, b"" if the other end is closed. Raises BlockingIOError if there is none yet."""
        packet = b""
        for _ in range(2):
            try:
                packet = self.control.recv(PACKET_BYTES + 1, socket.MSG_DONTWAIT)
                break
            except ConnectionResetError:  # the kernel says first that it left orders unread, then what it reported
                continue
            except BlockingIOError:
                raise
            except OSError:
                break
        if not packet:
            self.closed.add(self.control.fileno())
        return packet

    def _note(self, report: Report | UnknownMessage) -> None:
        """Note what a report says of the process.

        Reports on imports count only until it is online: after that, tasks may write into the channel.
        """
        match report:
            case Online():
                self.loading = self.loading if self.online else ""
                self.online = True
            case StartFailed():
                self.failure = report.reason
            case Alive():
                self._has_answered = self._has_answered or report.has_answered
            case Importing() if not self.online:
                self.loading = report.module
            case NotImported() if not self.online and len(self.not_imported) < _MAX_NOT_IMPORTED:
                self.not_imported[report.module] = report.reason

    def read_lines(self) -> bytes:
        """Return the whole lines that the process has written since the last call, b"" for none."""
        try:
            data = os.read(self.log, _PIPE_BYTES)
        except BlockingIOError:
            return b""
        if not data:
            self.closed.add(self.log)
        lines, newline, self._tail = (self._tail + data).rpartition(b"\n")
        if len(self._tail) > _MAX_LINE_BYTES:
            lines, newline, self._tail = lines + newline + self._tail, b"\n", b""
        return sift(lines + newline, self._unmarked) if self._logs_output else lines + newline

    def _unmarked(self, text: str) -> bytes:
        """Return the log line for a text that a worker, or a process of its tasks, wrote past Python."""
        label = "" if self._format.is_json else f"{worker_label(self.role, self.pid)} "
        return self._format.line(label + text, pid=self.pid)

    def close(self) -> None:
        """Reap the ended process, kill the processes that it has left behind, and close its pipes."""
        self.process.join()
        orphans.remove(self.pid, time.monotonic())
        os.close(self.pidfd)
        self.control.close()
        os.close(self.log)


def _enter(
    role: str,
    identity: Identity | None,
    end: ProcessEnd,
    kept: list[int],
    target: Callable[..., None],
    args: tuple[Any, ...],
    control: socket.socket,
    log_fd: int,
    output: int | None,
    enable_stdout: bool,
    style: LogStyle,
) -> None:
    """Run the target in the new process; `output`, if given, becomes its standard output and error."""
    set_up_process(role, identity, kept if output is None else [*kept, output], end)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # what a task prints is seen now, in a file too
    log = LogBuffer(log_fd, enable_stdout, style, role, b"" if output is None else MARK)
    log_by(log, role, style.level)
    if output is not None:
        for fd in (1, 2):
            os.dup2(output, fd)
        os.close(output)
        print_by(log, role)
    channel = ControlChannel(control, log.warn)
    try:
        target(*args, channel, log)
        log.flush()
    finally:
        # our own end may come before that by the thread that does so; a supervisor that ends closes its descriptors
        # before it is nobody's parent any more
        if end in (ProcessEnd.AFTER, ProcessEnd.RESTED) and (channel.is_lost() or is_orphan()):
            end_descendants(os.getpid())
    end_soon()
