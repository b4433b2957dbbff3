"""Decides what is done about a board: commands, outcomes of steps and `now` go in, actions come out. Pure.

Theory of operation. A board is opened, told all of its channels, and read back; only then is it `is_ready`, and only
after `resume` does it take commands. A newer command replaces one that has not been carried out. Whatever fails, or
takes too long, is a fault: the channels are then to be what their devices' safe states are, commands are refused, and
the board is opened again every `RETRY_S`. So a board gets its safe states as soon as it can be reached.

`ask` returns a ticket. It is confirmed once everything that was wanted before it was written, and read back. Each
ticket has its own time, and is read back as soon as it is written, however fast others follow. Where a line enables the
outputs, they are enabled only while the board is known to do what it was told.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Mapping, Set
from typing import NamedTuple

from .board_errors import BoardError

RETRY_S = 0.1
"""How soon, in s, a board is opened again after a fault."""
CHECK_S = 0.5
"""How often, in s, an idle board is looked at."""
GATHER_S = 0.001
"""How long, in s, a change waits for others, to be sent with them."""
CUT_S = 0.045
"""How long, in s, the end of a lease, or a stop, may take to be confirmed until the outputs are disabled."""
LATE_S = 0.2
"""How long, in s, a change may take to be carried out until the bus counts as dead."""
HANGS = "the bus hangs"
NOT_YET = "its board has not answered yet"


class Setting(NamedTuple):
    """The wanted state of a channel: high for this share of its period, 0 to 1, at so many Hz, None for any."""

    share: float = 0.0
    frequency: float | None = None


class Fallback(NamedTuple):
    """The settings of a device's channels after a fault: these, or, if it holds, those that they are known to have."""

    settings: Mapping[int, Setting]
    holds: bool


class Step(enum.Enum):
    """The steps that are taken with a board."""

    OPEN = "open it, and start it if it does not run"
    WRITE = "tell it what its channels are to be"
    VERIFY = "read back whether they are"
    CHECK = "look whether it runs"


class BoardAction(NamedTuple):
    """A step, with the settings of all channels for `Step.WRITE`; the rest is for `done` and `failed`."""

    step: Step
    settings: Mapping[int, Setting]
    attempt: int
    version: int
    ticket: int


class _Ask(NamedTuple):
    """A ticket: it confirms everything up to this version; outputs are disabled where it is not there by `cut_at`."""

    ticket: int
    version: int
    cut_at: float


class BoardMachine:
    """A board by this name. `begin` ends the time in which it is told its first settings, which are safe."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.fault = NOT_YET
        """Why it takes no commands; "" if it does."""
        self.has_answered = False
        """Whether the first attempt to reach it has ended."""
        self.is_ready = False
        """Whether it has its safe states after a fault, and waits for `resume`."""
        self.is_running = False
        """Whether it takes commands."""
        self.is_enabled = False
        """Whether its outputs are to be enabled."""
        self.reads_back = True
        """Whether what is confirmed was read back from the board, as far as is known."""
        self.confirmed = 0
        """The last ticket that is confirmed."""
        self._asked = 0
        """The last ticket."""
        self._asks: deque[_Ask] = deque()
        """The tickets that are not confirmed."""
        self._wanted: dict[int, Setting] = {}
        self._sent: Mapping[int, Setting] = {}
        """What the channels are known to be."""
        self._version, self._sent_version = 0, -1
        self._marked = 0
        """The version that somebody waits for."""
        self._write_at = 0.0
        self._fallbacks: dict[str, Fallback] = {}
        self._released: frozenset[str] = frozenset()
        self._has_begun = self._is_frozen = self._is_open = False
        self._attempt = 0
        """A number for the time between two faults."""
        self._doing: BoardAction | None = None
        self._doing_since = math.inf
        self._retry_at = 0.0
        self._check_at = 0.0
        self._pending_since = math.inf

    # Commands --------------------------------------------------------------------------------------------------------

    def fall_back(self, device: str, fallback: Fallback) -> None:
        """Say what the channels of a device are to be after a fault."""
        self._fallbacks[device] = fallback

    def begin(self, now: float) -> None:
        """End the set-up: from now on only a board that runs takes commands."""
        self._has_begun = True
        self._ask(now)

    def put(self, channel: int, setting: Setting, now: float) -> bool:
        """Say what a channel is to be; return whether that is news.

        Raises BoardError unless the board runs: what is not taken is never carried out.
        """
        self._look_for_hang(now)
        if self._is_frozen or (self._has_begun and not self.is_running):
            raise BoardError(self.fault or f"board {self._name}: it is being let go")
        if self._wanted.get(channel) == setting:
            return False
        if self._version == self._sent_version:
            self._write_at = now + GATHER_S
        self._wanted[channel] = setting
        self._version += 1
        self._pending_since = min(self._pending_since, now)
        return True

    def ask(self, now: float, *, cuts: bool = False) -> int:
        """Return a ticket, which is confirmed when everything that was wanted up to now is known to be so.

        With `cuts`, the outputs are disabled if that takes longer than `CUT_S`.
        """
        ticket = self._ask(now, now + CUT_S if cuts else math.inf)
        self._look_for_hang(now)
        return ticket

    def _ask(self, now: float, cut_at: float = math.inf) -> int:
        self._asked += 1
        last = self._asks[-1] if self._asks else None
        if last is not None and not self._is_open:
            # its outputs are disabled, and it is told everything at once when it can be reached
            self._asks.pop()
            cut_at = min(cut_at, last.cut_at)
        # of the same settings at about the same time, or without one, the last one stands for all
        elif last is not None and last.version == self._version and last.cut_at == math.inf:
            self._asks.pop()
        elif last is not None and last.version == self._version and cut_at - GATHER_S <= last.cut_at:
            self._asks.pop()
            cut_at = last.cut_at
        self._asks.append(_Ask(self._asked, self._version, cut_at))
        if self._is_open:
            self._pending_since = min(self._pending_since, now)
        return self._asked

    def resume(self) -> None:
        """Take commands again."""
        if self.is_ready:
            self.is_ready, self.is_running, self.fault = False, True, ""
            self._released = frozenset()

    def freeze(self) -> None:
        """Take no commands any more."""
        self._is_frozen = True

    def untold(self) -> Mapping[int, Setting] | None:
        """Return what all channels are to be, if the board was told something older; None otherwise."""
        return dict(self._wanted) if self._version != self._sent_version else None

    def keeps(self, device: str) -> bool:
        """Return whether the channels of a device that holds were kept by the last fault."""
        return device not in self._released

    def mark(self) -> int:
        """Return a number, which `written` reaches when everything that is wanted now was written."""
        self._marked = self._version
        return self._marked

    @property
    def written(self) -> int:
        """How much was written since the last fault, for `mark`; -1 for nothing."""
        return self._sent_version

    @property
    def is_marked_written(self) -> bool:
        """Whether the last mark was reached."""
        return self._sent_version >= self._marked

    # Time ------------------------------------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Disable the outputs where a safe state is late, and give up a bus that hangs."""
        if now >= self._cut_at:
            self.is_enabled = False
        self._look_for_hang(now)

    @property
    def _cut_at(self) -> float:
        return min((ask.cut_at for ask in self._asks), default=math.inf)

    def _look_for_hang(self, now: float) -> None:
        if now >= self._hangs_at():
            self.lose(HANGS, now)

    def _hangs_at(self) -> float:
        # a board that is only to be made safe is given all the time that it needs
        return min(self._pending_since, self._doing_since) + LATE_S if self.is_running else math.inf

    def look_due(self) -> float:
        """Return when `look` has something to do: an idle board's bus may hang when it is looked at."""
        cut_at = self._cut_at if self.is_enabled else math.inf
        return min(cut_at, self._hangs_at(), self._check_at + LATE_S if self.is_running else math.inf)

    @property
    def is_settled(self) -> bool:
        """Whether it is known to do all that is wanted."""
        return self.confirmed == self._asked and self._sent_version == self._version

    # Steps -----------------------------------------------------------------------------------------------------------

    def next(self, now: float) -> BoardAction | None:
        """Return the step to take now, if any; `done` or `failed` has to follow."""
        if self._doing is not None:
            return None
        # a command that waited for the bus is too old now
        self._look_for_hang(now)
        if now < self.due():
            return None
        self._doing = BoardAction(self._step(now), dict(self._wanted), self._attempt, self._version, self._written())
        self._doing_since = now
        return self._doing

    def _written(self) -> int:
        """Return the last ticket of which everything was written; 0 for none."""
        return max((ask.ticket for ask in self._asks if ask.version <= self._sent_version), default=0)

    def _step(self, now: float) -> Step:
        if not self._is_open:
            return Step.OPEN
        if self._must_verify():
            return Step.VERIFY
        # not as late as commands want to have it
        return Step.CHECK if self._sent_version >= 0 and now >= self._check_at else Step.WRITE

    def _must_verify(self) -> bool:
        return bool(self._asks) and self._asks[0].version <= self._sent_version

    def due(self) -> float:
        """Return when `next` has a step."""
        if self._doing is not None:
            return math.inf
        if not self._is_open:
            return self._retry_at
        if self._must_verify():
            return 0.0
        if self._version != self._sent_version:
            return min(self._write_at, self._check_at) if self.is_running else 0.0
        return self._check_at

    def done(self, action: BoardAction, now: float) -> None:
        """Note that a step succeeded."""
        self._end_step()
        if action.attempt != self._attempt:
            # it took so long that it was given up
            self._retry_at = now
            return
        if action.step is Step.OPEN:
            self._is_open = True
        if action.step is not Step.WRITE:
            self._check_at = now + CHECK_S
        else:
            self._sent, self._sent_version = action.settings, action.version
        if action.step is Step.VERIFY:
            self._verified(action.ticket, now)
        self._pending_since = math.inf if self.is_settled else now

    def _end_step(self) -> None:
        self._doing, self._doing_since = None, math.inf

    def _verified(self, ticket: int, now: float) -> None:
        self.confirmed = max(self.confirmed, ticket)
        while self._asks and self._asks[0].ticket <= ticket:
            self._asks.popleft()
        self.has_answered = True
        self.is_ready = not self.is_running and self._sent_version == self._version
        # another one may be late already
        self.is_enabled = (self.is_running or self.is_ready) and now < self._cut_at

    def failed(self, action: BoardAction, reason: str, now: float, *, is_disproved: bool = False) -> None:
        """Note that a step failed; `is_disproved` if the board was read back, and is not what it was told."""
        self._end_step()
        if action.attempt != self._attempt:
            self._retry_at = now
        else:
            if is_disproved:
                self._sent = {}
            self.lose(reason, now)

    def lose(self, reason: str, now: float) -> None:
        """Note a fault: nobody knows what the board does."""
        self._attempt += 1
        if self.is_running:
            self._release()
        self.fault, self.has_answered = f"board {self._name}: {reason}", True
        self.is_running = self.is_ready = self._is_open = self.is_enabled = False
        self._sent, self._sent_version = {}, -1
        self._retry_at = now + RETRY_S
        self._pending_since = math.inf
        # its outputs are disabled
        self._asks.clear()
        self._ask(now)

    def release(self) -> None:
        """Hold nothing: the board had no pulses, so what was held has sagged.

        Other devices stay as they were to be, which is off at the start. Only for a board that takes no commands.
        """
        if not self.is_running:
            self._fall({device for device, fallback in self._fallbacks.items() if fallback.holds})

    def _release(self) -> None:
        """Want the safe states of all devices; what is known to be held is held."""
        self._released = frozenset()
        self._fall({device for device, fallback in self._fallbacks.items() if not self._is_held(fallback)})

    def _is_held(self, fallback: Fallback) -> bool:
        channels = fallback.settings
        return fallback.holds and all(self._sent.get(channel) == self._wanted.get(channel) for channel in channels)

    def _fall(self, devices: Set[str]) -> None:
        for device in devices:
            self._wanted.update(self._fallbacks[device].settings)
        self._released |= devices
        self._version += 1
