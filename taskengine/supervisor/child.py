"""A child process of the supervisor: starts it, exchanges messages with it, and ends it."""

from __future__ import annotations

import contextlib
import ctypes
import enum
import fcntl
import io
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection, wait
from typing import Any

from taskengine._descendants import end_descendants, end_with_parent
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
from taskengine.runtime.descendants import adopt, orphans
from taskengine.runtime.log_buffer import LogBuffer
from taskengine.runtime.log_format import PLAIN, LineFormat, LogStyle, worker_label
from taskengine.runtime.orphan import orphan
from taskengine.runtime.task_output import MARK, log_by, print_by, sift
from taskengine.security.identity import Identity

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_NO_NEW_PRIVS = 38
_PIPE_BYTES = 1 << 20
_MAX_LINE_BYTES = 1 << 16
"""The most bytes of a line that a process has begun and not ended."""
_MAX_ANSWER_BYTES = 1 << 26
"""The most bytes of the answer to an inquiry."""
_ANSWER_S = 1.0
"""How long an answer may take from its first byte to its last."""
_MAX_REPORTS = 256
"""The most reports of a process that are read in one turn."""
_MAX_NOT_IMPORTED = 4096
"""The most task modules that a process may report as not imported."""
_LAST_S = 0.5
"""How long a process that ends may wait for processes that its tasks have started."""
_FOREGROUND = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)
"""Signals that stop or pause an engine. Only the supervisor handles them; processes that tasks fork do as usual."""
# children are forked, so that a replacement starts in milliseconds on a Pi and memory is shared; the supervisor has
# one thread and no ZeroMQ context, without which forking would not be safe
_fork = multiprocessing.get_context("fork")
_mask = threading.local()
"""The signals that the thread had blocked before it forked."""


class _End(enum.Enum):
    """How a process ends when the supervisor is gone."""

    NEVER = enum.auto()
    AT_ONCE = enum.auto()
    AFTER = enum.auto()
    """After the processes that its tasks have started."""
    RESTED = enum.auto()
    """By itself, after its pins are safe."""


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
        self._end = _End.NEVER if survives else _End.RESTED if rests else _End.AFTER if page else _End.AT_ONCE
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
        self.process = _fork.Process(target=_enter, args=entry, name=self.role)
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
    end: _End,
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
    _set_up_process(role, identity, kept if output is None else [*kept, output], end)
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
        if end in (_End.AFTER, _End.RESTED) and (channel.is_lost() or _is_orphan()):
            end_descendants(os.getpid())
    _end_soon()


def _is_orphan() -> bool:
    parent = multiprocessing.parent_process()
    return parent is not None and parent.pid != os.getppid()


def _end_soon() -> None:
    """Have the kernel end this process if Python waits, as multiprocessing does for processes that it has started."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, _LAST_S)


def _close_others(kept: Iterable[int]) -> None:
    """Close all descriptors except these and the standard ones."""
    ours = {0, 1, 2, *kept}
    for fd in [int(name) for name in os.listdir("/proc/self/fd")]:
        if fd not in ours:
            with contextlib.suppress(OSError):  # the folder that was read is closed already
                os.close(fd)


def _set_up_process(role: str, identity: Identity | None, kept: Iterable[int], end: _End = _End.AFTER) -> None:
    """Set up a new process: its terminal, user and rights, and its end with the supervisor.

    Of the inherited descriptors only `kept` stay open.
    """
    signal.set_wakeup_fd(-1)
    parent = multiprocessing.parent_process()
    _close_others([*kept, *([parent.sentinel] if parent else [])])
    _leave_terminal()
    if identity is not None:
        identity.assume()
    libc = ctypes.CDLL(None, use_errno=True)
    # after the change of user, which clears PR_SET_PDEATHSIG; a process that ends by itself has to run for that, also
    # if it was stopped
    number = {_End.NEVER: 0, _End.AT_ONCE: signal.SIGKILL}.get(end, signal.SIGCONT)
    libc.prctl(_PR_SET_PDEATHSIG, number)
    libc.prctl(_PR_SET_NAME, f"te-{role}"[:15].encode())
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel has no PR_SET_NO_NEW_PRIVS")
    adopt()
    if parent is not None and number == signal.SIGCONT:
        if end is _End.AFTER:
            end_with_parent(parent.pid or 0)
        else:
            with contextlib.suppress(ProcessLookupError):
                orphan.watch(parent.pid or 0)
    if _is_orphan():
        os._exit(1)


def _leave_terminal() -> None:
    """Leave the signals of the terminal to the supervisor, also for processes that tasks start."""
    os.setpgid(0, 0)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    # not those of the terminal's ctrl-z either: a robot must not be left as it is, with nobody to make it safe
    for number in _FOREGROUND:
        # not SIG_IGN, which what a task starts would inherit
        signal.signal(number, _ignore_signal)
    # inherited on purpose: a background process that reads from the terminal gets an error instead of being stopped
    for number in (signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    if not getattr(_mask, "is_held_at_forks", False):  # an inquiry may make inquiries
        _mask.is_held_at_forks = True
        os.register_at_fork(before=_block_signals, after_in_parent=_unblock_signals, after_in_child=_restore_signals)


def _ignore_signal(number: int, frame: object) -> None:
    """Ignore a signal that the supervisor handles."""


def _block_signals() -> None:
    """Hold signals to a process that is being forked until it handles them."""
    _mask.held = signal.pthread_sigmask(signal.SIG_BLOCK, _FOREGROUND)


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _mask.held)


def _restore_signals() -> None:
    """Let processes that a task forks be ended as usual: `Process.terminate` sends SIGTERM."""
    for number in _FOREGROUND:
        if signal.getsignal(number) is _ignore_signal:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    _unblock_signals()


def _ask(function: Callable[[Connection], None], identity: Identity | None, answer: Connection) -> None:
    _set_up_process("ask", identity, [answer.fileno()])
    function(answer)
    _end_soon()


def ending(code: int) -> str:
    """Return how a process ended: the signal's name, or the exit code."""
    return signal.Signals(-code).name if -code in set(signal.Signals) else f"exit code {code}"


class Inquiry:
    """Runs `function(connection)` in a process of its own, which sends one answer; `connection` is readable then.

    The process runs as `identity`, or as our own user.
    """

    def __init__(self, function: Callable[[Connection], None], identity: Identity | None = None) -> None:
        self._is_closed = False
        self.connection, theirs = _fork.Pipe(duplex=False)
        self._process = _fork.Process(target=_ask, args=(function, identity, theirs))
        self._process.start()
        self._pid = self._process.pid or 0
        orphans.add(self._pid)
        theirs.close()

    def answer(self) -> bytes:
        """Return the answer. Raises EOFError if the process ended without one, or sent something else."""
        try:
            end = time.monotonic() + _ANSWER_S
            size = int.from_bytes(self._read(4, end))
            if size > _MAX_ANSWER_BYTES:
                raise EOFError(f"an answer has at most {_MAX_ANSWER_BYTES} bytes, not {size}")
            return self._read(size, end)
        finally:
            self.close()

    def _read(self, size: int, end: float) -> bytes:
        """Return `size` bytes, which have to come before the time `end`: a module may write into the pipe too."""
        data = bytearray()
        while len(data) < size:
            if not wait([self.connection], max(0.0, end - time.monotonic())):
                raise EOFError("the process wrote something else where its answer was expected")
            more = os.read(self.connection.fileno(), size - len(data))
            if not more:
                raise EOFError(self._ending())
            data += more
        return bytes(data)

    def _ending(self) -> str:
        """Return how the process ended, if it has."""
        self._process.join(_ANSWER_S)
        code = self._process.exitcode
        return "it wrote no answer" if code is None else ending(code)

    def close(self) -> None:
        """Kill the process and those that it has started, answered or not. May be called twice."""
        if not self._is_closed:
            self._is_closed = True
            self.connection.close()
            end_descendants(self._pid)
            self._process.kill()
            self._process.join()
            orphans.remove(self._pid, time.monotonic())


def ask(
    function: Callable[[Connection], None],
    timeout: float,
    stop: socket.socket | None = None,
    identity: Identity | None = None,
) -> bytes:
    """Make an `Inquiry` and return its answer, within `timeout` s.

    Raises EOFError if it ended without an answer, TimeoutError if it took too long, InterruptedError if `stop` became
    readable.
    """
    inquiry = Inquiry(function, identity)
    try:
        ready = wait([inquiry.connection, *([stop] if stop else [])], timeout)
        if inquiry.connection in ready:
            return inquiry.answer()
        if ready:
            raise InterruptedError("told to stop")
        raise TimeoutError(f"no answer in {timeout:g} s")
    finally:
        inquiry.close()
