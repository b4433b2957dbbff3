"""Consents to motion in the shared state: which clients have said, since the machine was armed, that they want to move.

Only a lane's owner writes the consents of its lane, others read them at any time. They outlive the owner.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

ID_BYTES = 16
CONSENTS = 64
"""How many consents to motion of a lane outlive its owner."""
WORDS = CONSENTS + 1
"""The numbers of a lane: how many consents were given, and the arm of each of the last."""


class Consents:
    """The last consents of these lanes, in memory of WORDS words and CONSENTS * ID_BYTES bytes for each.

    `arm` is the number of the stop that was undone last, 0 for none: a consent ends with the next stop.
    """

    def __init__(self, lanes: Iterable[str], words: memoryview, room: memoryview) -> None:
        self._lanes = {lane: number for number, lane in enumerate(lanes)}
        self._words, self._room = words, room

    def give(self, lane: str, holder: bytes, arm: int) -> None:
        """Note that a holder (`Origin.holder`) has consented to motion in a lane since this arm."""
        count = WORDS * self._lanes[lane]
        place = self._words[count] % CONSENTS
        number = count + 1 + place
        start = ID_BYTES * (CONSENTS * self._lanes[lane] + place)
        # the number last: until then the entry is invalid
        self._words[number] = 0
        self._room[start : start + ID_BYTES] = digest(holder)
        self._words[number] = arm
        self._words[count] += 1

    def has(self, lane: str, holder: bytes, arm: int) -> bool:
        """Return whether the holder has consented since this arm, if it is one of the last that did."""
        sought, first, start = digest(holder), WORDS * self._lanes[lane] + 1, CONSENTS * self._lanes[lane]
        return arm > 0 and any(
            self._words[first + place] == arm and self._room[ID_BYTES * (start + place) :][:ID_BYTES] == sought
            for place in range(CONSENTS)
        )


def digest(id: bytes) -> bytes:
    """Return an id of any length as ID_BYTES bytes."""
    return hashlib.blake2s(id, digest_size=ID_BYTES).digest()
