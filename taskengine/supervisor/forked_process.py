"""A process that the supervisor forks: its terminal, user, rights and descriptors, and its end."""

from __future__ import annotations

import contextlib
import ctypes
import enum
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable

from taskengine._descendants import end_with_parent
from taskengine.runtime.descendants import adopt
from taskengine.runtime.orphan import orphan
from taskengine.security.identity import Identity

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_NO_NEW_PRIVS = 38
_LAST_S = 0.5
"""How long a process that ends may wait for processes that its tasks have started."""
_FOREGROUND = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)
"""Signals that stop or pause an engine. Only the supervisor handles them; processes that tasks fork do as usual."""
# children are forked, so that a replacement starts in milliseconds on a Pi and memory is shared; the supervisor has
# one thread and no ZeroMQ context, without which forking would not be safe
FORK = multiprocessing.get_context("fork")
_mask = threading.local()
"""The signals that the thread had blocked before it forked."""


class ProcessEnd(enum.Enum):
    """How a process ends when the supervisor is gone."""

    NEVER = enum.auto()
    AT_ONCE = enum.auto()
    AFTER = enum.auto()
    """After the processes that its tasks have started."""
    RESTED = enum.auto()
    """By itself, after its pins are safe."""


def is_orphan() -> bool:
    """Return whether the supervisor that forked this process is gone."""
    parent = multiprocessing.parent_process()
    return parent is not None and parent.pid != os.getppid()


def end_soon() -> None:
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


def set_up_process(
    role: str, identity: Identity | None, kept: Iterable[int], end: ProcessEnd = ProcessEnd.AFTER
) -> None:
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
    number = {ProcessEnd.NEVER: 0, ProcessEnd.AT_ONCE: signal.SIGKILL}.get(end, signal.SIGCONT)
    libc.prctl(_PR_SET_PDEATHSIG, number)
    libc.prctl(_PR_SET_NAME, f"te-{role}"[:15].encode())
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel has no PR_SET_NO_NEW_PRIVS")
    adopt()
    if parent is not None and number == signal.SIGCONT:
        if end is ProcessEnd.AFTER:
            end_with_parent(parent.pid or 0)
        else:
            with contextlib.suppress(ProcessLookupError):
                orphan.watch(parent.pid or 0)
    if is_orphan():
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


def ending(code: int) -> str:
    """Return how a process ended: the signal's name, or the exit code."""
    return signal.Signals(-code).name if -code in set(signal.Signals) else f"exit code {code}"
