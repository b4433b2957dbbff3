"""The engine's own processes at the router: by which way they are reached, and where they keep their accounts. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from taskengine._fastpath import CallTable, ProgressPage
from taskengine.broker.recovery import BEGUN, SENSELESS, Account
from taskengine.errors import ProtocolError


class WorkerEntry(NamedTuple):
    """A worker.

    Its name, its progress page and its process, and whether it is so fresh that its progress page tells of another.

    Its connection's identity, which ZeroMQ gave and nobody can claim, is b"" until it has said hello.
    """

    name: str
    page: ProgressPage
    pid: int
    is_fresh: bool = False
    identity: bytes = b""
    calls: CallTable | None = None
    """Which batches it has begun, if it runs many at once."""

    def is_overdue(self, now_ns: int) -> bool:
        """It runs a task whose timeout is over, or died in one."""
        return not self.is_fresh and (0 < self.page.until_ns <= now_ns or bool(self.overdue_batches(now_ns)))

    def overdue_batches(self, now_ns: int) -> list[int] | None:
        """Which of its batches are overdue; None where it runs one task at a time."""
        return None if self.calls is None else self.calls.overdue(now_ns)

    def account(self, number: int) -> Account | None:
        """What it had done of a batch when it died."""
        if self.calls is not None:
            return BEGUN if self.calls.has_begun(number) else None
        try:
            found = self.page.read(number)
        except ProtocolError:
            return SENSELESS
        return None if found is None else Account(*found)


class WorkerTable:
    """The living workers, at these `pages`, one for each place: those that are expected, and those that are here."""

    def __init__(self, pages: Sequence[ProgressPage]) -> None:
        self._pages = pages
        self._members: dict[str, WorkerEntry] = {}
        self._names: dict[bytes, str] = {}
        self._progress: dict[str, tuple[int, ...]] = {}

    def expect(self, name: str, place: int, pid: int, *, is_fresh: bool) -> None:
        """A worker lives, and will say hello; one that is not fresh may still be in what another router gave it."""
        if name not in self._members:
            self._members[name] = WorkerEntry(name, self._pages[place], pid, is_fresh)

    def expects(self, name: str, place: int) -> bool:
        """A worker lives at the place and has not said hello."""
        member = self._members.get(name)
        return member is not None and not member.identity and member.page in self._pages[place : place + 1]

    def enlist(self, name: str, identity: bytes, place: int, *, is_concurrent: bool = False) -> WorkerEntry:
        """A worker is here, which may run many tasks at once.

        Raises ProtocolError for one that is not expected at its place.
        """
        if not self.expects(name, place):
            raise ProtocolError(f"worker {name} says that it has place {place}, and is dead or not at it")
        calls = CallTable(self._members[name].page) if is_concurrent else None
        member = self._members[name]._replace(identity=identity, is_fresh=False, calls=calls)
        self._members[name] = member
        self._names[identity] = name
        member.page.clear()
        if calls is not None:
            calls.clear()
        return member

    def is_concurrent(self, name: str) -> bool:
        """A worker is here and runs many tasks at once."""
        return name in self._members and self._members[name].calls is not None

    def is_here(self, name: str) -> bool:
        """A worker has said hello."""
        return name in self._members and self._members[name].identity != b""

    def name_of(self, identity: bytes) -> str | None:
        """Whose the identity is, None where it is a stranger's."""
        return self._names.get(identity)

    def identity_of(self, name: str) -> bytes:
        """The way to a worker."""
        return self._members[name].identity

    def recall(self, name: str, number: int) -> None:
        """Have a worker hand back its batches up to this number, after the task that it runs."""
        self._members[name].page.recall(number)

    def release(self, name: str, number: int) -> None:
        """A worker's large answer has arrived: its progress page need not keep it."""
        self._members[name].page.release(number)

    def dismiss(self, name: str) -> WorkerEntry | None:
        """A worker is dead; None where it was not here."""
        member = self._members.pop(name, None)
        self._progress.pop(name, None)
        if member is None or not member.identity:
            return None
        del self._names[member.identity]
        return member

    def has_progressed(self, name: str) -> bool:
        """A worker has begun or ended a task since this was asked last."""
        before, progress = self._progress.get(name), self._members[name].page.progress
        self._progress[name] = progress
        return before is not None and before != progress

    def is_at_task(self, name: str) -> bool:
        """A worker is in a task, or in what else a user wrote: a fresh one loads modules."""
        member = self._members[name]
        return member.is_fresh or member.page.running

    def pid_of(self, name: str) -> int:
        """A worker's process."""
        return self._members[name].pid

    def overdue(self, now_ns: int) -> Iterator[str]:
        """Who runs a task whose timeout is over."""
        return (name for name, member in self._members.items() if member.is_overdue(now_ns))
