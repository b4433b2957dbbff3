"""A bus with boards, and the thread that talks to them: nobody else waits for a bus.

Theory of operation. `BoardMachine` decides. The bus's thread takes its steps, without the lock, one at a time, since a
bus does one thing at a time too. Everybody else only notes what is wanted, under a lock that is held for microseconds.
A bus that hangs holds up its own thread alone.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from . import priority
from .board_drivers import OpenBoard
from .board_errors import BoardError, BoardInUse, NotCarriedOut
from .board_machine import BoardAction, BoardMachine, Fallback, Setting, Step
from .lines import holders_of


class BoardReport(NamedTuple):
    """A board: why it takes no commands, "" if it does; whether it is safe again; its last ticket; when to look.

    `written` is for `mark`. `reads_back` is false if what is confirmed was written, and nobody can ask the board.
    """

    fault: str
    is_ready: bool
    confirmed: int
    due: float
    reads_back: bool
    written: int


class Station:
    """A board on a bus; `make` opens it, and `enable`, if any, drives its output-enable: true for outputs."""

    def __init__(
        self, name: str, bus: BoardBus, make: Callable[[], OpenBoard], enable: Callable[[bool], None] | None = None
    ) -> None:
        self.name = name
        self._bus, self._make, self._enable = bus, make, enable
        self._is_enabled: bool | None = None
        """The level of the output-enable; None if that is not known."""
        self.machine = BoardMachine(name)
        self._driver: OpenBoard | None = None
        self._is_off = False
        """Whether it made no pulses when it was opened last."""
        self._holders = ""
        """The processes that have it instead."""
        bus.stations.append(self)

    # For everybody ---------------------------------------------------------------------------------------------------

    def put(self, channel: int, setting: Setting) -> None:
        """Say what a channel is to be. The newest counts. Raises BoardError if the board takes no commands."""
        with self._bus.changed:
            try:
                is_news = self.machine.put(channel, setting, time.monotonic())
            except BoardError:
                # it may just have been found to hang
                self._apply()
                raise
            if is_news:
                self._bus.changed.notify()

    def fall_back(self, device: str, fallback: Fallback) -> None:
        """See `BoardMachine`."""
        with self._bus.changed:
            self.machine.fall_back(device, fallback)

    def cut_off(self) -> None:
        """Disable its outputs at once, if a line does that, before anything else is known about the board."""
        with self._bus.changed:
            self._apply()

    def look(self, now: float) -> BoardReport:
        """Do what is due without the bus, and return how the board is."""
        with self._bus.changed:
            machine = self.machine
            machine.look(now)
            self._apply()
            due = machine.look_due()
            return BoardReport(
                machine.fault, machine.is_ready, machine.confirmed, due, machine.reads_back, machine.written
            )

    def ask(self, now: float, *, cuts: bool = False) -> int:
        """Return a ticket, which `BoardReport.confirmed` reaches when the board does what is wanted now.

        With `cuts`, its outputs are disabled if that takes too long.
        """
        with self._bus.changed:
            ticket = self.machine.ask(now, cuts=cuts)
            self._apply()
            self._bus.changed.notify()
            return ticket

    def mark(self) -> int:
        """Return a number, which `BoardReport.written` reaches when the board was told what is wanted now."""
        with self._bus.changed:
            return self.machine.mark()

    def resume(self) -> None:
        """Take commands again."""
        with self._bus.changed:
            self.machine.resume()

    def keeps(self, device: str) -> bool:
        """See `BoardMachine`."""
        with self._bus.changed:
            return self.machine.keeps(device)

    # For the bus's thread --------------------------------------------------------------------------------------------

    def take(self, action: BoardAction) -> None:
        """Take a step, which may take its time, and note how it ended."""
        try:
            self._do(action)
        except Exception as error:  # a library's errors have no common class, and no board may end the thread
            reason = self._reason(error)
            with self._bus.changed:
                is_disproved = isinstance(error, NotCarriedOut)
                self.machine.failed(action, reason, time.monotonic(), is_disproved=is_disproved)
                self._apply()
        else:
            with self._bus.changed:
                if self._driver is not None:
                    self.machine.reads_back = self._driver.reads_back
                self.machine.done(action, time.monotonic())
                if action.step is Step.OPEN and self._is_off:
                    self.machine.release()
                self._apply()

    def _reason(self, error: Exception) -> str:
        """Return what an error says, with the holder of the board; finding that takes long, and is done once."""
        if not isinstance(error, BoardError):
            return f"{type(error).__name__}: {error}"
        if not isinstance(error, BoardInUse):
            self._holders = ""
            return f"{error}"
        if not self._holders:
            self._holders = holders_of(error.path) or "somebody"
        return f"{error}; in use by {self._holders}"

    def _do(self, action: BoardAction) -> None:
        if action.step is Step.OPEN:
            self.close()
            self._driver = self._make()
            self._is_off = self._driver.is_off()
            return
        driver = self._driver
        if driver is None:
            raise BoardError("it is not open")
        if action.step is Step.WRITE:
            _tell(driver, action.settings)
        elif action.step is Step.VERIFY:
            driver.verify()
        else:
            driver.check()

    def finish(self) -> None:
        """Tell the board the newest settings if it was told older ones; then let other processes have it.

        A transfer that hung may have been carried out just now, after its command was given up.
        """
        with self._bus.changed:
            untold = self.machine.untold()
        if untold is not None and self._driver is not None:
            # nobody is left to tell: the guardian makes the board safe
            with contextlib.suppress(Exception):
                _tell(self._driver, untold)
        self.close()

    def close(self) -> None:
        """Let other processes have the board, which goes on with what it was told. May be called twice."""
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.close()

    def _apply(self) -> None:
        """Enable or disable the outputs; the lock is held."""
        wanted = self.machine.is_enabled
        if self._enable is None or wanted is self._is_enabled or self._bus.is_over:
            return
        try:
            self._enable(wanted)
        except Exception as error:  # gpiozero's and lgpio's have no common class
            self._is_enabled = None
            # a board that cannot be cut off is to be safe by its bus at least
            if wanted or self.machine.is_running:
                self.machine.lose(f"output_enable: {error}", time.monotonic())
                self._bus.changed.notify()
        else:
            self._is_enabled = wanted


def _tell(driver: OpenBoard, settings: Mapping[int, Setting]) -> None:
    for channel, setting in settings.items():
        driver.put(channel, setting.share, setting.frequency)
    driver.flush()


class BoardBus:
    """A bus by this name, and its stations; `news` is called when one of them has changed."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.changed = threading.Condition(threading.Lock())
        self.stations: list[Station] = []
        self._news: Callable[[], None] = lambda: None
        self.is_over = False
        self._thread: threading.Thread | None = None

    def begin(self, news: Callable[[], None]) -> None:
        """Begin to talk to the boards."""
        self._news = news
        now = time.monotonic()
        for station in self.stations:
            station.machine.begin(now)
        self._thread = threading.Thread(target=self._run, name=f"bus {self._name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Have the thread end as soon as the bus lets it. May be called twice."""
        with self.changed:
            for station in self.stations:
                station.machine.freeze()
            self.is_over = True
            self.changed.notify()

    def join(self, timeout: float) -> None:
        """Wait at most so many s for the thread's end."""
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        priority.hurry()
        while (job := self._wait()) is not None:
            station, action = job
            before = self._state(station)
            station.take(action)
            if self._state(station) != before:
                self._news()
        for station in self.stations:
            station.finish()

    def _wait(self) -> tuple[Station, BoardAction] | None:
        """Wait for the next step; None for the end."""
        with self.changed:
            while True:
                if self.is_over:
                    return None
                now = time.monotonic()
                for station in self.stations:
                    action = station.machine.next(now)
                    if action is not None:
                        # the others come first now
                        self.stations.remove(station)
                        self.stations.append(station)
                        return station, action
                due = min(station.machine.due() for station in self.stations)
                self.changed.wait(max(0.0, due - now))

    @staticmethod
    def _state(station: Station) -> tuple[str, bool, int, bool]:
        machine = station.machine
        return machine.fault, machine.is_ready, machine.confirmed, machine.is_marked_written
