"""Notes of the lanes in the shared state: the rules that hold in each, and what speaks against arming the machine.

Only a lane's owner writes its note, others read it at any time. A note has a version, which is odd while it is being
written. If a reader meets that again and again, the writer has died, which is a reason against arming until the next
owner has written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import msgspec

NOTE_BYTES = 4096
WORDS = 2
"""A note's numbers: its version and its length."""
_TRIES = 100


class LaneNote(msgspec.Struct, frozen=True):
    """The rules that hold, by their names, with the reasons; and the reasons against arming."""

    rules: dict[str, str] = {}
    reasons: list[str] = []


class LaneNotes:
    """The notes of these lanes, in memory of WORDS words and NOTE_BYTES bytes for each."""

    def __init__(self, lanes: Iterable[str], words: memoryview, room: memoryview) -> None:
        self._lanes = {lane: number for number, lane in enumerate(lanes)}
        self._words, self._room = words, room

    def write(self, lane: str, note: LaneNote) -> bool:
        """Write the note of a lane; return whether it is another one than before."""
        number = self._lanes[lane]
        data = _shortened(note)
        first, start = WORDS * number, NOTE_BYTES * number
        version = self._words[first]
        if not version & 1 and bytes(self._room[start : start + self._words[first + 1]]) == data:
            return False
        self._words[first] = version | 1
        self._room[start : start + len(data)] = data
        self._words[first + 1] = len(data)
        self._words[first] = (version | 1) + 1
        return True

    def read(self, lane: str) -> LaneNote:
        """Return the note of a lane, an empty one if there is none."""
        number = self._lanes[lane]
        first, start = WORDS * number, NOTE_BYTES * number
        for _ in range(_TRIES):
            version, length = self._words[first], self._words[first + 1]
            data = bytes(self._room[start : start + min(max(length, 0), NOTE_BYTES)])
            if not version & 1 and version == self._words[first]:
                with contextlib.suppress(msgspec.DecodeError):  # another processor's writes may come out of order
                    return msgspec.json.decode(data, type=LaneNote) if data else LaneNote()
        return LaneNote(reasons=[f"nobody knows the rules of lane {lane}, whose owner has died"])

    def all(self) -> LaneNote:
        """Return the notes of all lanes in one."""
        notes = [self.read(lane) for lane in self._lanes]
        rules = {name: reason for note in notes for name, reason in note.rules.items()}
        return LaneNote(rules, list(dict.fromkeys(reason for note in notes for reason in note.reasons)))


def _shortened(note: LaneNote) -> bytes:
    """Return a note as JSON that fits, without its last rules and reasons if they are too many."""
    rules, reasons = dict(note.rules), list(note.reasons)
    while len(data := msgspec.json.encode(LaneNote(rules, reasons))) > NOTE_BYTES:
        # a reason is kept as long as possible: one is enough against an arm
        if rules:
            rules.popitem()
        elif len(reasons) > 1:
            reasons.pop()
        else:
            reasons = [reasons[0][: len(reasons[0]) // 2]]
    return data
