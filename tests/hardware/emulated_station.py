"""A board with its bus and its thread, without either and without a clock: time is told, in steps of a millisecond."""

from __future__ import annotations

from collections.abc import Mapping

from taskengine_hardware.board_bus import BoardReport
from taskengine_hardware.board_machine import BoardAction, BoardMachine, Fallback, Setting, Step

STEP_S = 0.001
TAKES_S = 0.003
"""How long a step takes on a bus that works."""


DISPROVED = "the chip does not do what it was told"


class EmulatedStation:
    """A board for `sending.py`, and the chip behind it, which has some channels on from its former owner."""

    def __init__(self, fallbacks: Mapping[str, Fallback], chip: Mapping[int, float]) -> None:
        self.machine = BoardMachine("hat")
        for device, fallback in fallbacks.items():
            self.machine.fall_back(device, fallback)
        self.chip = dict(chip)
        self.cut_until = self.hangs_until = self.deaf_until = 0.0
        self.is_awake = True
        self.is_enabled = False
        self._now = 0.0
        self.told: dict[int, float] = {}
        """What the chip was told since it was opened, and has acknowledged."""
        self._action: BoardAction | None = None
        self._ends_at = 0.0

    # What the control has --------------------------------------------------------------------------------------------

    def look(self, now: float) -> BoardReport:
        machine = self.machine
        machine.look(now)
        self.is_enabled = machine.is_enabled
        due = machine.look_due()
        return BoardReport(machine.fault, machine.is_ready, machine.confirmed, due, machine.reads_back, machine.written)

    def ask(self, now: float, *, cuts: bool = False) -> int:
        ticket = self.machine.ask(now, cuts=cuts)
        self.is_enabled = self.machine.is_enabled
        return ticket

    def mark(self) -> int:
        return self.machine.mark()

    def resume(self) -> None:
        self.machine.resume()

    def keeps(self, device: str) -> bool:
        return self.machine.keeps(device)

    # The world -------------------------------------------------------------------------------------------------------

    def put(self, channel: int, share: float) -> None:
        self.machine.put(channel, Setting(share), self._now)

    def reset(self) -> None:
        """The chip's power was gone for a moment."""
        self.is_awake = False
        self.chip = dict.fromkeys(self.chip, 0.0)

    def is_well(self, now: float) -> bool:
        """Whether the bus works."""
        return now >= max(self.cut_until, self.hangs_until, self.deaf_until)

    def step(self, now: float) -> bool:
        """Have a millisecond pass; return whether the machine has news."""
        self._now = now
        before = self._state()
        if self._action is None:
            self._action = self.machine.next(now)
            self._ends_at = now + TAKES_S
        elif now >= max(self._ends_at, self.hangs_until):
            action, self._action = self._action, None
            reason = self._outcome(action, now)
            if reason:
                self.machine.failed(action, reason, now, is_disproved=reason == DISPROVED)
            else:
                self.machine.done(action, now)
                if action.step is Step.OPEN and not self.is_awake:
                    self.machine.release()
            self.is_enabled = self.machine.is_enabled
        return self._state() != before

    def _state(self) -> tuple[str, bool, int, bool]:
        machine = self.machine
        return machine.fault, machine.is_ready, machine.confirmed, machine.is_marked_written

    def _outcome(self, action: BoardAction, now: float) -> str:
        if action.step is Step.WRITE and now < self.cut_until:
            # a part of it arrived
            self._write(dict(list(action.settings.items())[: int(now * 1000) % 3]), now)
        if now < self.cut_until:
            return "no chip answers"
        if action.step is Step.OPEN:
            self.told = {}
        elif action.step is Step.WRITE:
            # the first one starts the chip
            self.is_awake = self.is_awake or not self.told
            self.told = {channel: setting.share for channel, setting in action.settings.items()}
            self._write(action.settings, now)
        elif not self.is_awake:
            return "the chip was reset"
        elif action.step is Step.VERIFY and self.told != self.chip:
            return DISPROVED
        return ""

    def _write(self, settings: Mapping[int, Setting], now: float) -> None:
        if now >= self.deaf_until:
            self.chip |= {channel: setting.share for channel, setting in settings.items()}
