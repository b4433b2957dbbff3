"""The workers that the router knows, with their connections and their progress pages. Pure.

The progress pages are memory that is shared with the workers; the caller hands them in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from taskengine import _fastpath
from taskengine._fastpath import CallTable, ProgressPage
from taskengine.broker.looks import Cursor, PageLook, Piece
from taskengine.broker.recovery import BEGUN, SENSELESS, Account
from taskengine.errors import ProtocolError
from taskengine.protocol.layouts import NO_ANSWER


class WorkerEntry(NamedTuple):
    """A worker: its name, its progress page and its process.

    If it `is_fresh`, its page still has the progress of the previous worker at its place. `identity` is the routing id
    of its connection, which ZeroMQ gave and no other process can claim; b"" until it has said hello.
    """

    name: str
    page: ProgressPage
    pid: int
    is_fresh: bool = False
    identity: bytes = b""
    calls: CallTable | None = None
    """Which batches it has begun, if it runs many at once."""

    def is_overdue(self, now_ns: int) -> bool:
        """Return whether it runs a task whose timeout is over, or died in one."""
        return not self.is_fresh and (0 < self.page.until_ns <= now_ns or bool(self.overdue_batches(now_ns)))

    def overdue_batches(self, now_ns: int) -> list[int] | None:
        """Return which of its batches are overdue, None where it runs one task at a time."""
        return None if self.calls is None else self.calls.overdue(now_ns)

    def account(self, number: int) -> Account | None:
        """Return what it had done of a batch when it died, None where it had not begun it."""
        if self.calls is not None:
            return finished(self.calls.answer(number)) if self.calls.has_begun(number) else None
        try:
            found = self.page.read(number)
        except ProtocolError:
            return SENSELESS
        return None if found is None else Account(*found)


def finished(answer: bytes) -> Account:
    """Return the account of a batch that was answered in a concurrent lane; without an answer it had only begun."""
    if answer in (b"", NO_ANSWER):
        return BEGUN
    try:
        return Account(_fastpath.read_answer(answer), None, None)
    except ProtocolError:
        return SENSELESS


class WorkerTable:
    """The living workers, with and without a connection; `pages` has a progress page for each place."""

    def __init__(self, pages: Sequence[ProgressPage]) -> None:
        self._pages = pages
        self._members: dict[str, WorkerEntry] = {}
        self._names: dict[bytes, str] = {}
        self._progress: dict[str, tuple[int, ...]] = {}

    def expect(self, name: str, place: int, pid: int, *, is_fresh: bool) -> None:
        """Note that a worker lives and will say hello; one that is not fresh may still run tasks of another router."""
        if name not in self._members:
            self._members[name] = WorkerEntry(name, self._pages[place], pid, is_fresh)

    def expects(self, name: str, place: int) -> bool:
        """Return whether a worker lives at the place and has not said hello."""
        member = self._members.get(name)
        return member is not None and not member.identity and member.page in self._pages[place : place + 1]

    def enlist(self, name: str, identity: bytes, place: int, *, is_concurrent: bool = False) -> WorkerEntry:
        """Note that a worker has said hello, and whether it runs many tasks at once.

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
        """Return whether a worker has said hello and runs many tasks at once."""
        return name in self._members and self._members[name].calls is not None

    def is_here(self, name: str) -> bool:
        """Return whether a worker has said hello."""
        return name in self._members and self._members[name].identity != b""

    def awaits_elders(self) -> bool:
        """Return whether a worker of an earlier router has not said hello: it may still run what that one gave it."""
        return any(not (member.identity or member.is_fresh) for member in self._members.values())

    def name_of(self, identity: bytes) -> str | None:
        """Return the worker with this identity, None where there is none."""
        return self._names.get(identity)

    def identity_of(self, name: str) -> bytes:
        """Return the identity of a worker."""
        return self._members[name].identity

    def peek(self, look: PageLook) -> tuple[list[Piece], Cursor] | None:
        """Return what a worker has finished since the last look, None for nothing. Raises ProtocolError."""
        return self._members[look.worker].page.peek(look.number, look.cursor, look.jobs)

    def recall(self, name: str, number: int) -> None:
        """Have a worker hand back its batches up to this number, after the task that it runs."""
        self._members[name].page.recall(number)

    def offer(self, name: str, number: int, tasks: int) -> None:
        """Have a worker claim the tasks of the batch that it is sent next."""
        self._members[name].page.offer(number, tasks)

    def unclaimed(self, name: str, number: int) -> int:
        """Return how many tasks of a batch a worker has not claimed."""
        return self._members[name].page.unclaimed(number)

    def take_back(self, name: str, number: int, tasks: int) -> int:
        """Take up to so many unclaimed tasks of a batch back from a worker; return how many it has left."""
        return self._members[name].page.take_back(number, tasks)

    def release(self, name: str, number: int) -> None:
        """Free the memory of a large answer that has arrived, in the progress page of a worker that keeps such."""
        member = self._members[name]
        if member.calls is None:
            member.page.release(number)

    def dismiss(self, name: str) -> WorkerEntry | None:
        """Remove and return a worker that is dead, None where it had not said hello."""
        member = self._members.pop(name, None)
        self._progress.pop(name, None)
        if member is None or not member.identity:
            return None
        del self._names[member.identity]
        return member

    def has_progressed(self, name: str) -> bool:
        """Return whether a worker has begun or ended a task since the last call."""
        before, progress = self._progress.get(name), self._members[name].page.progress
        self._progress[name] = progress
        return before is not None and before != progress

    def is_at_task(self, name: str) -> bool:
        """Return whether a worker runs a task or, where it is fresh, loads modules."""
        member = self._members[name]
        return member.is_fresh or member.page.running

    def pid_of(self, name: str) -> int:
        """Return the process of a worker."""
        return self._members[name].pid

    def overdue(self, now_ns: int) -> Iterator[str]:
        """Yield the workers that run a task whose timeout is over."""
        return (name for name, member in self._members.items() if member.is_overdue(now_ns))
