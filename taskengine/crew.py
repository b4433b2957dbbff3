"""The engine's own processes at the router: by which way they are reached, and where they keep their accounts. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from taskengine._fastpath import Slate
from taskengine.errors import ProtocolError
from taskengine.salvage import SENSELESS, Account


class Member(NamedTuple):
    """A worker: its name, its connection's identity, which ZeroMQ gave and nobody can claim, its slate, its process."""

    name: str
    identity: bytes
    slate: Slate
    pid: int

    def account(self, number: int) -> Account | None:
        """What it had done of a batch when it died."""
        try:
            return self.slate.read(number)
        except ProtocolError:
            return SENSELESS


class Crew:
    """Who has said hello, at these `slates`, one for each place."""

    def __init__(self, slates: Sequence[Slate]) -> None:
        self._slates = slates
        self._members: dict[str, Member] = {}
        self._names: dict[bytes, str] = {}
        self._progress: dict[str, tuple[int, ...]] = {}

    def enlist(self, name: str, identity: bytes, place: int, pid: int) -> Member:
        """A worker is here. Raises ProtocolError for a place that there is not, or that another has."""
        if not 0 <= place < len(self._slates):
            raise ProtocolError(f"worker {name} says that it has place {place} of {len(self._slates)}")
        if not self.is_free(place):
            raise ProtocolError(f"worker {name} says that it has place {place}, which is taken")
        member = self._members[name] = Member(name, identity, self._slates[place], pid)
        self._names[identity] = name
        member.slate.clear()
        return member

    def is_free(self, place: int) -> bool:
        """Nobody has the place."""
        return self.name_of_place(place) is None

    def name_of_place(self, place: int) -> str | None:
        """Who has the place."""
        slates = self._slates[place : place + 1]
        return next((name for name, member in self._members.items() if member.slate in slates), None)

    def name_of(self, identity: bytes) -> str | None:
        """Whose the identity is, None where it is a stranger's."""
        return self._names.get(identity)

    def identity_of(self, name: str) -> bytes:
        """The way to a worker."""
        return self._members[name].identity

    def recall(self, name: str, number: int) -> None:
        """Have a worker hand back its batches up to this number, after the task that it runs."""
        self._members[name].slate.recall(number)

    def release(self, name: str, number: int) -> None:
        """A worker's large answer has arrived: its slate need not keep it."""
        self._members[name].slate.release(number)

    def dismiss(self, name: str) -> Member | None:
        """A worker is dead; None where it was not here."""
        member = self._members.pop(name, None)
        if member is not None:
            del self._names[member.identity]
            self._progress.pop(name, None)
        return member

    def has_progressed(self, name: str) -> bool:
        """A worker has begun or ended a task since this was asked last."""
        before, progress = self._progress.get(name), self._members[name].slate.progress
        self._progress[name] = progress
        return before is not None and before != progress

    def is_at_task(self, name: str) -> bool:
        """A worker is in a task, or in what else a user wrote."""
        return self._members[name].slate.running

    def pid_of(self, name: str) -> int:
        """A worker's process."""
        return self._members[name].pid

    def overdue(self, now_ns: int) -> Iterator[str]:
        """Who runs a task whose timeout is over."""
        for name, member in self._members.items():
            if 0 < member.slate.until_ns <= now_ns:
                yield name
