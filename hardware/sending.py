"""Outputs on boards: a board carries out what it is told later, or not at all, and may be lost. Pure.

Theory of operation. A value for a board is only wanted. Other processes read the shared state, so it has the older
value until the board has confirmed a safe one, or was told one that is to be held. The owner beats meanwhile (`pend`):
if it dies or hangs, the guardian makes the board safe. A board that is lost ends the leases of its outputs; it gets
their safe states as soon as it can be reached (`board_machine.py`), and only then are they commanded again. A board
that is lost takes no value, also while its owner does not know that yet: an output whose board refuses a value is lost
at once. Nothing that was wanted before is written when it comes back, since the board has its safe states then.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from .admission import Admission
from .board_errors import BoardError
from .board_machine import LATE_S, NOT_YET
from .device_config import Value
from .movements import Movements
from .outputs import NS, Output, holds, safe_value
from .shared_state import SharedState

STOP = -2
"""The place of a stop, for `pend`; the places of outputs are from 0 on."""


class Report(Protocol):
    """How a board is: why it takes no commands, whether it is safe again, its last ticket, and when to look."""

    @property
    def fault(self) -> str:
        """Why it takes no commands; "" if it does."""

    @property
    def is_ready(self) -> bool:
        """Whether it is safe after a fault, and waits for `resume`."""

    @property
    def confirmed(self) -> int:
        """The last ticket that is confirmed."""

    @property
    def due(self) -> float:
        """When to look again."""

    @property
    def reads_back(self) -> bool:
        """Whether what is confirmed was read back from the board."""

    @property
    def written(self) -> int:
        """How much the board was told, for `mark`."""


class Board(Protocol):
    """A board, which is never waited for."""

    def look(self, now: float) -> Report:
        """Do what is due, and return how the board is."""

    def ask(self, now: float, *, cuts: bool = False) -> int:
        """Return a ticket, which is confirmed when the board does what is wanted now.

        With `cuts`, its outputs are disabled if that takes too long.
        """

    def mark(self) -> int:
        """Return a number, which `Report.written` reaches when the board was told what is wanted now."""

    def resume(self) -> None:
        """Take commands again."""

    def keeps(self, device: str) -> bool:
        """Return whether a device that holds was kept by the fault that it has, if any."""


class _Unsent(NamedTuple):
    """A safe value that boards are to confirm, by their tickets."""

    value: Value
    tickets: dict[Board, int]


class _Unheld(NamedTuple):
    """A value that is to be held once these boards were told it, by their marks."""

    value: Value
    marks: dict[Board, int]


class Sending(Movements):
    """The outputs of a lane, some of them on boards; what drives them is `Control`."""

    outputs: dict[str, Output]
    admission: Admission

    def __init__(self, panel: SharedState) -> None:
        super().__init__()
        self._panel = panel
        self._values, self._told_at = panel.values, panel.told_at
        self.pend: Callable[[int], object] = _nothing
        """Called with the place of an output before a board is to make it safe."""
        self.calm: Callable[[int], object] = _nothing
        """Called when that is confirmed."""
        self._changed: dict[Output, None] = {}
        """The outputs that are to be published."""
        self._boards: tuple[Board, ...] = ()
        self._boards_due = math.inf
        """When to look at the boards at the latest."""
        self._unsent: dict[Output, _Unsent] = {}
        self._unheld: dict[Output, list[_Unheld]] = {}
        """Values of outputs that hold: the next one that its boards will have been told, and the newest."""
        self._of_stop: dict[Board, int] = {}
        """The tickets by which boards confirm a stop."""
        self._unread: frozenset[Board] = frozenset()
        """The boards that nobody can ask what they do: what is written to them may be lost."""

    @property
    def has_boards(self) -> bool:
        """Whether some outputs are on boards."""
        return bool(self._boards)

    def is_unread(self, output: Output) -> bool:
        """Return whether nobody can ask a board of an output what it does."""
        return not self._unread.isdisjoint(output.boards)

    @property
    def has_unread(self) -> bool:
        """Return whether nobody can ask some board what it does, so that a stop is never confirmed."""
        return bool(self._unread)

    def attach(self, output: Output, boards: Sequence[Board]) -> None:
        """Have an output driven by these boards, which have not answered yet."""
        output.boards = tuple(boards)
        self._boards = tuple(dict.fromkeys([*self._boards, *boards]))

    def begin_lost(self, output: Output, now: float) -> None:
        """Take no commands for an output before its boards have confirmed its first value."""
        self.pend(output.place)
        output.is_lost, output.failure = True, NOT_YET
        self._await(output, output.value, now)

    def heed(self, now: float) -> None:
        """Act on what boards report."""
        if not self._boards:
            return
        reports = {board: board.look(now) for board in self._boards}
        self._unread = frozenset(board for board, report in reports.items() if not report.reads_back)
        for output in self._on_boards():
            reasons = [reports[board].fault for board in output.boards if reports[board].fault]
            if reasons:
                self._lose_boards(output, reasons[0], now)
        dropped = [output for output in self._on_boards() if output.is_lost and not self._is_kept(output)]
        # all of its outputs are lost now, whoever was quicker
        for board, report in reports.items():
            if report.is_ready:
                board.resume()
                reports[board] = board.look(now)
        for output in self._on_boards():
            if output.is_lost and not any(reports[board].fault for board in output.boards):
                self._regain(output, now, is_dropped=output in dropped)
        self._note_held(reports, now)
        self._note_confirmed(reports, now)
        self._boards_due = min(report.due for report in reports.values())
        self.due = min(self.due, self._boards_due)

    def _on_boards(self) -> Iterable[Output]:
        return [output for output in self.outputs.values() if output.boards]

    def _note_held(self, reports: dict[Board, Report], now: float) -> None:
        """Note what is held now: a board that was never told a value does not hold it for the next owner."""
        for output, values in list(self._unheld.items()):
            while values and all(reports[board].written >= mark for board, mark in values[0].marks.items()):
                self._note(output, values.pop(0).value, now)
            if not values:
                del self._unheld[output]

    def _note_confirmed(self, reports: dict[Board, Report], now: float) -> None:
        for output, (value, tickets) in list(self._unsent.items()):
            if all(reports[board].confirmed >= ticket for board, ticket in tickets.items()):
                del self._unsent[output]
                self._note(output, value, now)
                if not self.is_unread(output):
                    # else the guardian is to tell it again if we hang
                    self.calm(output.place)
        if self._of_stop and all(reports[board].confirmed >= ticket for board, ticket in self._of_stop.items()):
            self._of_stop.clear()
            self.calm(STOP)

    def _lose_boards(self, output: Output, reason: str, now: float) -> None:
        """Note that a board of an output is lost."""
        if output.is_lost:
            self._drop(output)
            if output.failure != reason:
                output.failure = reason
                self._publish_soon(output)
            return
        self._drop(output)
        self._unheld.pop(output, None)
        value = safe_value(output.device, output.value) if self._is_kept(output) else output.rest
        self.pend(output.place)
        # for those of its boards that answer
        with contextlib.suppress(BoardError):
            output.write(value)
        output.value = value
        if holds(output.device):
            # the next owner is to hold this, and no value that was refused
            self._note(output, value, now)
        output.failure, output.is_lost = reason, True
        self._await(output, value, now)
        self.admission.end(output)
        self._publish_soon(output)

    def _is_kept(self, output: Output) -> bool:
        """Return whether what holds is held in spite of a fault; true for other outputs."""
        return not holds(output.device) or all(board.keeps(output.device.name) for board in output.boards)

    def _regain(self, output: Output, now: float, *, is_dropped: bool) -> None:
        """Take commands for an output again, whose boards are there again, and have its safe value.

        One that holds may be dropped after its loss was noted: its board's supply was gone.
        """
        if is_dropped and output.value != output.rest:
            output.value = output.rest
            self._note(output, output.value, now)
            if output in self._unsent:
                self._unsent[output] = self._unsent[output]._replace(value=output.value)
        # it has no lease
        self._drop(output)
        output.failure, output.is_lost = "", False
        self._publish_soon(output)
        if output.is_bounded and (value := output.bound(output.value)) != output.value:
            # it holds what a rule has forbidden meanwhile
            self._drive(output, value, now)

    def _publish_soon(self, output: Output) -> None:
        output.told = None
        self._changed[output] = None
        self.due = min(self.due, output.next_tell)

    def _await(self, output: Output, value: Value, now: float) -> None:
        """Note a safe value when the boards of an output confirm it."""
        self._unsent[output] = _Unsent(value, {board: board.ask(now) for board in output.boards})
        self.due = min(self.due, now)

    def _hasten(self, output: Output, now: float) -> None:
        """Have the outputs of its boards disabled if they do not have its safe value soon."""
        for board in output.boards:
            board.ask(now, cuts=True)
            self.due = min(self.due, now)

    def _await_no_more(self, output: Output) -> None:
        """Forget a safe value that a new command has replaced."""
        if self._unsent.pop(output, None) is not None:
            self.calm(output.place)

    def _ask_all(self, now: float) -> None:
        """Have all boards confirm what they are told, for a stop."""
        if self._boards:
            self.pend(STOP)
            self._of_stop = {board: board.ask(now, cuts=True) for board in self._boards}
            self.due = min(self.due, now)

    def _is_carried_out(self) -> bool:
        """Return whether all boards have confirmed what they were to."""
        return not (self._unsent or self._of_stop)

    def _note(self, output: Output, value: Value, now: float) -> None:
        if isinstance(value, float):
            self._values[output.channel] = value
            self._told_at[output.place] = int(now * NS)
        else:
            self._panel.note(output.place, value, int(now * NS))

    def _drive(self, output: Output, value: Value, now: float) -> None:
        if output.is_bounded:
            value = output.bound(value)
        if output.boards:
            self._send(output, value, now)
        else:
            # if we hang in between, the guardian has the older value, and does not take the output for safe too early
            is_rest = value == output.rest
            if not is_rest:
                self._note(output, value, now)
            output.write(value)
            output.value = value
            if is_rest:
                self._note(output, value, now)
        if output not in self._changed and value != output.told:
            self._changed[output] = None
            if output.next_tell < self.due:
                self.due = output.next_tell

    def _send(self, output: Output, value: Value, now: float) -> None:
        """Have the boards of an output be told a value; an output whose board takes none is lost."""
        if output.is_lost:
            return
        is_rest, is_held = value == output.rest, holds(output.device)
        if is_rest:
            self.pend(output.place)
            self._unheld.pop(output, None)
        else:
            if not is_held:
                self._note(output, value, now)
            self._await_no_more(output)
            self.due = min(self.due, now + LATE_S)
        try:
            output.write(value)
        except BoardError as error:
            self._lose_boards(output, f"{error}", now)
            return
        output.value = value
        if is_rest:
            self._await(output, value, now)
        elif is_held:
            waiting = self._unheld.setdefault(output, [])
            # the older one stays: in a stream of commands the newest is never the one that was written
            waiting[1:] = [_Unheld(value, {board: board.mark() for board in output.boards})]


def _nothing(place: int) -> None:
    """Ignore a place."""
