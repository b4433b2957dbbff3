"""The audit log: a line of JSON for each refusal, change of a key and privileged call.

Lines go to a file that only its owner reads, each sealed with those before it (`chain`); where the file has grown to
`LARGEST` bytes, it becomes `NAME.1` and a new one begins. Or they go to journald or syslog. A flood costs lines of
whoever makes it, which are counted, and not the disk (`budgets`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from taskengine.budgets import Budgets
from taskengine.chain import SEAL_BYTES, Finding, seal_of, sealed, verify
from taskengine.keys import default_folder
from taskengine.settings import Settings

LARGEST = 16 * 2**20
LONGEST_LINE = 8192
LOCK_S = 0.05
"""How long to wait for another process that writes a line: one that stands still in it costs lines and no more."""
AGAIN_S = 0.001
"""How soon it is tried again."""
AUDIT_FILE = "audit.jsonl"
JOURNALD, SYSLOG = "/run/systemd/journal/socket", "/dev/log"
IDENTIFIER = "taskengine-audit"
NOTICE = 5
_AUTHPRIV = 10
Target = Path | Literal["journald", "syslog"]
_encode = msgspec.json.Encoder().encode


def file_of(settings: Settings) -> Target | None:
    """Where an engine with these settings keeps its log; None for nowhere, where nobody is told from anybody."""
    if settings.audit in ("journald", "syslog"):
        return cast(Literal["journald", "syslog"], settings.audit)
    if settings.audit_file:
        return settings.audit_file
    return (settings.keys_folder or default_folder()) / AUDIT_FILE if settings.is_curved else None


class Audit:
    """Writes to `target`, None for nowhere; `say` tells of what cannot be written.

    Where another process writes a file, this one waits for `patience` s at most.
    """

    def __init__(self, target: Target | None, say: Callable[[str], object], patience: float = LOCK_S) -> None:
        self._target = target
        self._file = _File(target, patience) if isinstance(target, Path) else None
        self._log: socket.socket | None = None
        self._say = say
        self._budgets = Budgets()
        self._is_failing = False

    def open(self) -> None:
        """Have at hand what a line needs, for when the process has no descriptor left."""
        with self._told():
            if self._file is not None:
                self._file.open()
            elif self._target is not None:
                self._log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def __del__(self) -> None:
        if self._log is not None:
            self._log.close()

    def note(self, event: str, **fields: Any) -> None:
        """Write one line, unless those that are written about `client`, or `fingerprint`, are too many already."""
        if self._target is None:
            return
        now = time.monotonic()
        self.summarise(now)
        who = str(fields.get("client") or fields.get("fingerprint") or "")
        if not self._budgets.has_room(event, who, now):
            return
        line = _line(event, fields)
        if len(line) > LONGEST_LINE:
            line = _line(
                event, {key: fields[key] for key in ("client",) if key in fields} | {"left_out_bytes": len(line)}
            )
        left_out = self._budgets.left_out_before(event, who, len(line) + SEAL_BYTES, now)
        if left_out is not None:
            self._write(line if not left_out else line[:-1] + b',"left_out_before":%d}' % left_out, event)

    def summarise(self, now: float) -> None:
        """Write how much was left out, where that is due; called at times, and before each line."""
        for left_out in self._budgets.summaries(now):
            told = {"client": left_out.who} if left_out.who else {}
            self._write(_line("left out", {"of": left_out.event, **told, "lines": left_out.lines}), "left out")

    def _write(self, line: bytes, event: str) -> None:
        with self._told():
            if self._file is not None:
                self._file.append(line)
                return
            self._log = self._log or socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            _send(self._log, cast(str, self._target), line, event)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Say what cannot be written, once until something can."""
        try:
            yield
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:
                why = error.strerror or str(error)
                self._say(f"[AUDIT-{os.getpid()}] {self._target} cannot be written: {why}")
            self._is_failing = True


def _line(event: str, fields: dict[str, Any]) -> bytes:
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return _encode({"time": when, "pid": os.getpid(), "event": event, **fields})


def _send(log: socket.socket, target: str, line: bytes, event: str) -> None:
    """Send a line to journald in its own protocol, or to syslog in that of RFC 3164."""
    if target == "journald":
        path = JOURNALD
        about = f"PRIORITY={NOTICE}\nSYSLOG_IDENTIFIER={IDENTIFIER}\nTASKENGINE_EVENT={event}\nMESSAGE="
        message = about.encode() + line + b"\n"
    else:
        path = SYSLOG
        message = f"<{_AUTHPRIV * 8 + NOTICE}>{IDENTIFIER}[{os.getpid()}]: ".encode() + line
    log.setblocking(False)
    log.sendto(message, path)


class _File:
    """The file at `path`, which several processes write; it is kept open."""

    def __init__(self, path: Path, patience: float) -> None:
        self._path = path
        self._patience = patience
        self._fd = -1
        self._end = (0, 0, "")
        """The file's number, its size and the last seal when we wrote last, so that we need not read it."""

    def open(self) -> None:
        """Open it, whatever was open. Raises OSError."""
        self._close()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._path, flags, 0o600)

    def _close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __del__(self) -> None:
        self._close()

    def append(self, line: bytes) -> None:
        """Seal a line and write it, in one write. Raises OSError."""
        with self._opened() as fd:
            found = os.fstat(fd)
            number, size, seal = self._end
            start = b""
            if (number, size) != (found.st_ino, found.st_size):
                seal, start = self._place(fd)
            body = line if found.st_size and seal else line[:-1] + b',"after":"%s"}' % seal.encode()
            whole = sealed(body, seal)
            written = start + whole + b"\n"
            if os.write(fd, written) != len(written):
                raise OSError("it was not written whole")
            size = found.st_size + len(written)
            self._end = found.st_ino, size, seal_of(whole) or ""
            if size >= LARGEST:
                os.replace(self._path, self._older)

    @property
    def _older(self) -> Path:
        return self._path.with_name(f"{self._path.name}.1")

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """The file, locked, and no other in its place meanwhile."""
        end = time.monotonic() + self._patience
        while True:
            if self._fd < 0:
                self.open()
            if _locked(self._fd):
                if _is_at(self._fd, self._path):
                    try:
                        yield self._fd
                    finally:
                        fcntl.flock(self._fd, fcntl.LOCK_UN)
                    return
                self.open()
            if time.monotonic() > end:
                raise TimeoutError("another process has it locked")
            time.sleep(AGAIN_S)

    def _place(self, fd: int) -> tuple[str, bytes]:
        """The seal that the next line follows, and what to write first, where another line was not written whole."""
        tail = _tail(fd)
        if tail:
            return _last_seal(tail), b"" if tail.endswith(b"\n") else b"\n"
        number, size, seal = self._end
        try:
            found = os.stat(self._older)
            if (found.st_ino, found.st_size) == (number, size):
                return seal, b""
            with self._older.open("rb") as older:
                return _last_seal(_tail(older.fileno())), b""
        except FileNotFoundError:
            return "", b""


def _tail(fd: int) -> bytes:
    """The end of a file, which holds its last line."""
    longest = LONGEST_LINE + 1024
    return os.pread(fd, longest, max(0, os.fstat(fd).st_size - longest))


def _last_seal(tail: bytes) -> str:
    return seal_of(tail.rstrip(b"\n").rpartition(b"\n")[2]) or ""


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(fd: int, path: Path) -> bool:
    """Whether the file is still the one at the path; another process may have made room."""
    try:
        return os.stat(path).st_ino == os.fstat(fd).st_ino
    except FileNotFoundError:
        return False


def verify_file(path: Path) -> list[tuple[Path, Finding]]:
    """Look at the log at `path`, and the full one before it, if there is one. Raises OSError."""
    older = path.with_name(f"{path.name}.1")
    findings = []
    for file in (older, path):
        if file == path or file.exists():
            with file.open("rb") as lines:
                findings.append((file, verify(line.rstrip(b"\n") for line in lines)))
    if len(findings) == 2:
        (_, before), (_, after) = findings
        if after.sealed and after.begun != before.last:
            after.wrong.insert(0, (1, f"it does not go on where {older.name} ends"))
    return findings
