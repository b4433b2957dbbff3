"""A child process of the supervisor: how it is started, spoken to and ended."""

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
_LINE_BYTES = 1 << 16
"""What a process has printed without an end of line is kept up to this many bytes."""
_ANSWER_BYTES = 1 << 26
"""The most bytes of the answer to an inquiry,"""
_ANSWER_S = 1.0
"""and how long it may take from its first byte to its last."""
_TURN_REPORTS = 256
"""The most reports that are taken of a process at a time."""
_MOST_LACKS = 4096
"""The most task modules of which a process may say that it could not load them."""
_LAST_S = 0.5
"""How long a process that was told to stop may wait for what its tasks have started."""
_FOREGROUND = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)
"""Signals that stop an engine, or pause it: they are the supervisor's. What a task forks has them as usual."""
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
    """after what its tasks have started"""
    RESTED = enum.auto()
    """by itself, after its pins are safe"""


class Child:
    """One process in the role `role`, which runs `target(*args, control, journal)` as `identity`, or as who we are.

    With `logs_output` its prints become lines of the log. A worker has a progress page at a place, and ends with the
    supervisor, after what its tasks have started. One that `survives` is not ended then, one that `rests` ends by
    itself, as soon as it has brought its pins to their safe state. Of the descriptors that are open it has those that
    it `keeps`, its own pipes and the standard ones, and it may make the reports that are `known`.
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
        """The task module that it imports."""
        self.lacks: dict[str, str] = {}
        """The task modules that it could not load, and why."""
        self.fault = ""
        """What it reported that is no report, for which it was killed."""
        self.has_sent_unknown = False
        """It has sent a report that we do not know."""
        self.started = 0.0
        self._target = target
        self._args = args
        self._enable_stdout = enable_stdout
        self._style = style
        self._logs_output = logs_output
        self._format = LineFormat(style, role)
        self._tail = b""
        self._unsaid: deque[bytes] = deque()
        self.silent: set[int] = set()
        """Of the descriptors `control` and `log` those whose other end is closed."""

    def start(self) -> None:
        """Fork. The process closes what it inherits, also of its siblings, so that they see the supervisor's end.

        Raises OSError where the system gives no descriptors, process or memory.
        """
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as theirs:
            self._fork(undo, theirs)
            # not its sentinel, a pipe that whatever a task forks holds open
            self.pidfd = os.pidfd_open(self.pid)
            undo.pop_all()
        orphans.add(self.pid)
        self.started = time.monotonic()

    def _fork(self, undo: contextlib.ExitStack, theirs: contextlib.ExitStack) -> None:
        """As `start`; `undo` ends what was begun, `theirs` closes what is the process's."""
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
        if self._logs_output:  # of its own, so that it is not non-blocking: what a task starts expects that
            output = os.open(f"/proc/self/fd/{log}", os.O_WRONLY)
            theirs.callback(os.close, output)
        how = self.role, self._identity, self._end, [control.fileno(), log, *self._keeps]
        entry = (*how, self._target, self._args, control, log, output, self._enable_stdout, self._style)
        self.process = _fork.Process(target=_enter, args=entry, name=self.role)
        self.process.start()
        undo.callback(self.process.kill)

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid or 0

    @property
    def was_useful(self) -> bool:
        """It has answered something."""
        return self._has_answered or (self._page is not None and self._page.finished > self._finished)

    def recall(self) -> None:
        """Have a worker hand back what it has once its task has ended: the router that sent it is gone."""
        if self._page is not None:
            self._page.recall_all()

    def order(self, order: Order) -> None:
        """Send the process an order, as soon as it listens; a process that is gone gets none."""
        self._unsaid.extend(packets(order))
        self.speak()

    def speak(self) -> bool:
        """Send the orders that wait, as far as the process takes them; return whether some are left."""
        try:
            while self._unsaid:
                self.control.send(self._unsaid[0], socket.MSG_DONTWAIT)
                self._unsaid.popleft()
        except BlockingIOError:
            return True
        except OSError:
            self.failure = self.failure or "it is gone"
            self._unsaid.clear()
        return False

    def hear(self) -> list[Report | UnknownMessage]:
        """Take what the process reports: that it is online, why it failed, or what else it wants.

        Raises ProtocolError for what is no report: a task can write into whatever its process has open. It is not
        heard any more then.
        """
        reports: list[Report | UnknownMessage] = []
        try:
            while len(reports) < _TURN_REPORTS and (packet := self._receive()):
                report = read_report(packet, self._known)
                self._note(report)
                reports.append(report)
        except BlockingIOError:
            pass
        except ProtocolError:
            self.silent.add(self.control.fileno())
            raise
        return reports

    def _receive(self) -> bytes:
        """Return the next packet, b"" where the other end is closed. Raises BlockingIOError where there is none yet."""
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
            self.silent.add(self.control.fileno())
        return packet

    def _note(self, report: Report | UnknownMessage) -> None:
        """Keep what a report says of the process.

        Imports are told only until it is online: tasks, which may write into the channel, come later.
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
            case NotImported() if not self.online and len(self.lacks) < _MOST_LACKS:
                self.lacks[report.module] = report.reason

    def read_lines(self) -> bytes:
        """The whole lines that the process has printed since; b"" where there are none."""
        try:
            data = os.read(self.log, _PIPE_BYTES)
        except BlockingIOError:
            return b""
        if not data:
            self.silent.add(self.log)
        lines, newline, self._tail = (self._tail + data).rpartition(b"\n")
        if len(self._tail) > _LINE_BYTES:
            lines, newline, self._tail = lines + newline + self._tail, b"\n", b""
        return sift(lines + newline, self._unmarked) if self._logs_output else lines + newline

    def _unmarked(self, text: str) -> bytes:
        """Give the line of what a worker's process, or what its tasks have started, wrote past Python."""
        label = "" if self._format.is_json else f"{worker_label(self.role, self.pid)} "
        return self._format.line(label + text, pid=self.pid)

    def close(self) -> None:
        """Reap the ended process, kill what it has left, and close its pipes."""
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
    log: int,
    output: int | None,
    enable_stdout: bool,
    style: LogStyle,
) -> None:
    """The first code of a child process; one with an `output` has it as its standard output and error."""
    _settle_in(role, identity, kept if output is None else [*kept, output], end)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # what a task prints is seen now, in a file too
    journal = LogBuffer(log, enable_stdout, style, role, b"" if output is None else MARK)
    log_by(journal, role, style.level)
    if output is not None:
        for fd in (1, 2):
            os.dup2(output, fd)
        os.close(output)
        print_by(journal, role)
    try:
        target(*args, ControlChannel(control, journal.warn), journal)
        journal.flush()
    finally:
        parent = multiprocessing.parent_process()
        if end is _End.AFTER and parent is not None and parent.pid != os.getppid():
            end_descendants(os.getpid())  # our own end may come before that by the thread that does so
    _end_soon()


def _end_soon() -> None:
    """Have the kernel end us where Python waits, as multiprocessing does for what a task has started with it."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, _LAST_S)


def _close_others(kept: Iterable[int]) -> None:
    """Close what is open but these descriptors and the standard ones."""
    ours = {0, 1, 2, *kept}
    for fd in [int(name) for name in os.listdir("/proc/self/fd")]:
        if fd not in ours:
            with contextlib.suppress(OSError):  # the folder that was read is closed already
                os.close(fd)


def _settle_in(role: str, identity: Identity | None, kept: Iterable[int], end: _End = _End.AFTER) -> None:
    """Leave the terminal to the supervisor, do not outlive it unless we are to, and have no more rights than we should.

    Of what we have inherited only the descriptors `kept` stay open.
    """
    signal.set_wakeup_fd(-1)
    parent = multiprocessing.parent_process()
    _close_others([*kept, *([parent.sentinel] if parent else [])])
    _leave_terminal()
    if identity is not None:
        identity.assume()
    libc = ctypes.CDLL(None, use_errno=True)
    # after the change of user, which clears what the kernel is to do when the parent dies; a process that ends by
    # itself has to run for that, also if it was stopped
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
    if parent is not None and parent.pid != os.getppid():
        os._exit(1)


def _leave_terminal() -> None:
    """Hear no signals of the terminal, which are the supervisor's, nor have what a task starts hear them."""
    os.setpgid(0, 0)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    # not those of the terminal's ctrl-z either: a robot must not be left as it is, with nobody to make it safe
    for number in _FOREGROUND:
        # not SIG_IGN, which what a task starts would inherit
        signal.signal(number, _pass_over)
    # that is wanted here: whatever asks somebody at the terminal, in the background, gets an error and is not stopped
    for number in (signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    if not getattr(_mask, "is_held_at_forks", False):  # an inquiry may make inquiries
        _mask.is_held_at_forks = True
        os.register_at_fork(before=_hold_signals, after_in_parent=_let_signals, after_in_child=_heed_signals)


def _pass_over(number: int, frame: object) -> None:
    """A signal is the supervisor's business."""


def _hold_signals() -> None:
    """Have what is sent to a process that is being forked wait until it heeds signals."""
    _mask.held = signal.pthread_sigmask(signal.SIG_BLOCK, _FOREGROUND)


def _let_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _mask.held)


def _heed_signals() -> None:
    """What a task forks can be ended as usual: `Process.terminate` does it by SIGTERM."""
    for number in _FOREGROUND:
        if signal.getsignal(number) is _pass_over:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    _let_signals()


def _ask(function: Callable[[Connection], None], identity: Identity | None, answer: Connection) -> None:
    _settle_in("ask", identity, [answer.fileno()])
    function(answer)
    _end_soon()


def ending(code: int) -> str:
    """How a process ended, by what its parent was told: a signal's name, or an exit code."""
    return signal.Signals(-code).name if -code in set(signal.Signals) else f"exit code {code}"


class Inquiry:
    """`function(connection)` in a process of its own, which sends its answer; `connection` is readable then.

    It runs as `identity`, or as who we are.
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
        """The bytes that were sent. Raises EOFError where the process ended without, or sent something else."""
        try:
            end = time.monotonic() + _ANSWER_S
            size = int.from_bytes(self._read(4, end))
            if size > _ANSWER_BYTES:
                raise EOFError(f"an answer has at most {_ANSWER_BYTES} bytes, not {size}")
            return self._read(size, end)
        finally:
            self.close()

    def _read(self, size: int, end: float) -> bytes:
        """So many bytes, which have to be there at the time `end`: what a module writes into the pipe is no answer."""
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
        """How the process ended, as far as it has."""
        self._process.join(_ANSWER_S)
        code = self._process.exitcode
        return "it wrote no answer" if code is None else ending(code)

    def close(self) -> None:
        """End it and what it has started, answered or not. May be called twice."""
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
    """Have an `Inquiry` made and give the bytes that it sends, waiting `timeout` s.

    Raises EOFError where it ended without sending, TimeoutError where it took too long, InterruptedError where `stop`
    became readable.
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
