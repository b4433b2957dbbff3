"""A pigpio daemon without a Pi, for gpiozero's PiGPIOFactory: `python -m tests.hardware.pigpiod PORT`, or a Daemon.

As with pigpiod, what a client set stays when the client has gone, and pulses are whole steps of 5 us. Waves, scripts,
buses and hardware PWM are unknown commands, there is no glitch filter, and a GPIO with pulses reads as high.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Container
from contextlib import suppress
from enum import IntEnum
from typing import NamedTuple, Self

INPUT, OUTPUT = 0, 1
PULL_OFF, PULL_DOWN, PULL_UP = 0, 1, 2
REVISION = 0xA020D3  # a Pi 3 B+
_STEPS = 200_000  # in a second
_FREQUENCIES = (8000, 4000, 2000, 1600, 1000, 800, 500, 400, 320, 250, 200, 160, 100, 80, 50, 40, 20, 10)
_LONGEST_EXTENSION = 65_536


class Command(IntEnum):
    """The commands it knows, by pigpiod's names."""

    MODES, MODEG, PUD, READ, WRITE, PWM, PRS, PFS, SERVO = range(9)
    BR1, TICK, HWVER, NB, NC, PRG, PFG, GDC, GPW, FG, NOIB = 10, 16, 17, 19, 21, 22, 23, 83, 84, 97, 99


class Refusal(IntEnum):
    """Its answers to what it does not do, by pigpiod's names."""

    BAD_USER_GPIO, BAD_GPIO, BAD_MODE, BAD_LEVEL, BAD_PUD, BAD_PULSEWIDTH, BAD_DUTYCYCLE = range(-2, -9, -1)
    BAD_DUTYRANGE, BAD_HANDLE, UNKNOWN_COMMAND, NOT_PWM_GPIO, NOT_SERVO_GPIO, BAD_FILTER = -21, -25, -88, -92, -93, -125


class Write(NamedTuple):
    """A command that set something of a GPIO, and what the GPIO did from then on."""

    at: float  # of time.monotonic()
    command: Command
    value: int
    level: float
    pulse_width: float


@dataclasses.dataclass
class Gpio:
    """Its state of one GPIO."""

    pull: int
    mode: int = INPUT
    latch: int = 0
    duty: int | None = None  # out of `range`
    servo: int | None = None  # microseconds
    frequency: int = 800
    range: int = 255
    outside: int | None = None  # the level that something else puts on it

    @property
    def _pulses(self) -> tuple[int, int]:
        """How many there are in a second, and for how many steps each is high."""
        rate, width, full = (self.frequency, self.duty, self.range) if self.servo is None else (50, self.servo, 20_000)
        return rate, (width or 0) * (_STEPS // rate) // full

    @property
    def pulse_width(self) -> float:
        """Seconds that each pulse is high; 0 without pulses."""
        return self._pulses[1] / _STEPS

    @property
    def level(self) -> float:
        """0 or 1, or while it has pulses the share of the time that it is high."""
        if self.mode != OUTPUT:
            return int(self.pull == PULL_UP) if self.outside is None else self.outside
        rate, high = self._pulses
        return rate * high / _STEPS if self.duty or self.servo else self.latch

    def set(self, command: Command, value: int) -> int:
        """Do a command; another mode, a level and pulses each end the pulses before."""
        values, refusal = _VALUES.get(command, (range(self.range + 1), Refusal.BAD_DUTYCYCLE))
        match command:
            case Command.PFS:
                self.frequency = min(_FREQUENCIES, key=lambda known: abs(known - value))
                return self.frequency
            case _ if value not in values:
                return refusal
            case Command.PRS:
                self.duty = self.duty and value * self.duty // self.range
                self.range = value
                return _STEPS // self.frequency
            case Command.PUD:
                self.pull = value
            case Command.MODES if value != self.mode:
                self.mode, self.duty, self.servo = value, None, None
            case Command.WRITE:
                self.mode, self.duty, self.servo, self.latch = OUTPUT, None, None, value
            case Command.PWM:
                self.mode, self.duty, self.servo, self.latch = OUTPUT, value, None, 0
            case Command.SERVO:
                self.mode, self.duty, self.servo, self.latch = OUTPUT, None, value, 0
        return 0


_VALUES: dict[Command, tuple[Container[int], Refusal]] = {
    Command.MODES: (range(8), Refusal.BAD_MODE),
    Command.PUD: (range(3), Refusal.BAD_PUD),
    Command.WRITE: (range(2), Refusal.BAD_LEVEL),
    Command.PRS: (range(25, 40_001), Refusal.BAD_DUTYRANGE),
    Command.SERVO: ({0, *range(500, 2501)}, Refusal.BAD_PULSEWIDTH),
    Command.FG: ({0}, Refusal.BAD_FILTER),
}
_ANSWERS: dict[int, Callable[[Gpio], int]] = {
    Command.MODEG: lambda gpio: gpio.mode,
    Command.READ: lambda gpio: int(gpio.level > 0),
    Command.PRG: lambda gpio: gpio.range,
    Command.PFG: lambda gpio: gpio.frequency,
    Command.GDC: lambda gpio: Refusal.NOT_PWM_GPIO if gpio.duty is None else gpio.duty,
    Command.GPW: lambda gpio: Refusal.NOT_SERVO_GPIO if gpio.servo is None else gpio.servo,
}


@dataclasses.dataclass
class _Watch:
    """The clients to tell of levels, and of which GPIOs."""

    client: socket.socket
    gpios: int = 0  # a bit for each
    reports: int = 0


class Daemon:
    """A daemon on 127.0.0.1 and `port`; 0 is a free one. Close its clients before it: pigpio's thread spins without."""

    def __init__(self, port: int = 0) -> None:
        self._lock = threading.Lock()
        self._gpios = [Gpio(PULL_UP if gpio < 9 else PULL_DOWN) for gpio in range(32)]
        self._history: list[list[Write]] = [[] for _ in self._gpios]
        self._clients: dict[socket.socket, threading.Thread] = {}
        self._watches: dict[int, _Watch] = {}
        self._reported = self._levels()
        self._heard = 0  # those that somebody watched
        self._server = socket.create_server(("127.0.0.1", port))
        self.port: int = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def clients(self) -> int:
        """How many connections there are: two for each PiGPIOFactory."""
        with self._lock:
            return len(self._clients)

    def gpio(self, gpio: int) -> Gpio:
        """A copy of all it holds of a GPIO."""
        with self._lock:
            return dataclasses.replace(self._gpios[gpio])

    def level(self, gpio: int) -> float:
        """0 or 1, or while the GPIO has pulses the share of the time that it is high."""
        return self.gpio(gpio).level

    def pulse_width(self, gpio: int) -> float:
        """Seconds that each pulse is high; 0 without pulses."""
        return self.gpio(gpio).pulse_width

    def history(self, gpio: int) -> list[Write]:
        """All that was set of a GPIO, the oldest first."""
        with self._lock:
            return list(self._history[gpio])

    def drive(self, gpio: int, level: int | None) -> None:
        """Put a level on a GPIO from outside, as a button does; None leaves an input to its pull."""
        with self._lock:
            self._gpios[gpio].outside = level
            self._report()

    def close(self) -> None:
        """Hang up on everybody."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.close()
        with self._lock:
            clients = dict(self._clients)
        for client, thread in clients.items():
            with suppress(OSError):  # it hung up itself
                client.shutdown(socket.SHUT_RDWR)
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _accept(self) -> None:
        with suppress(OSError):  # how accept() ends when the server is shut down
            while True:
                client, _ = self._server.accept()
                thread = threading.Thread(target=self._serve, args=[client], daemon=True)
                with self._lock:
                    self._clients[client] = thread
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(ConnectionError):  # a client that is killed may reset its connection
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while len(head := client.recv(16, socket.MSG_WAITALL)) == 16:
                number, first, second, size = struct.unpack("<4I", head)
                if size >= _LONGEST_EXTENSION or len(client.recv(size, socket.MSG_WAITALL)) < size:
                    break
                with self._lock:
                    answer = self._answer(client, number, first, second)
                    client.sendall(struct.pack("<4I", number, first, second, answer & 0xFFFFFFFF))
        with self._lock:
            del self._clients[client]
            self._watches = {handle: watch for handle, watch in self._watches.items() if watch.client is not client}

    def _answer(self, client: socket.socket, number: int, first: int, second: int) -> int:
        match number:
            case Command.HWVER:
                return REVISION
            case Command.TICK:
                return _tick()
            case Command.BR1:
                return self._levels()
            case Command.NOIB:
                handle: int = min({*range(len(self._watches) + 1)} - {*self._watches})
                self._watches[handle] = _Watch(client)
                return handle
            case Command.NB | Command.NC if first not in self._watches:
                return Refusal.BAD_HANDLE
            case Command.NB:
                self._watches[first].gpios = second
                self._report()
            case Command.NC:
                del self._watches[first]
            case _ if number not in {*_ANSWERS, *_VALUES, Command.PWM, Command.PFS}:
                return Refusal.UNKNOWN_COMMAND
            case _ if first >= len(self._gpios):
                return Refusal.BAD_USER_GPIO
            case _ if number in _ANSWERS:
                return _ANSWERS[number](self._gpios[first])
            case _:
                return self._set(Command(number), first, second)
        return 0

    def _set(self, command: Command, gpio: int, value: int) -> int:
        held = self._gpios[gpio]
        result = held.set(command, value)
        if result >= 0:
            self._history[gpio].append(Write(time.monotonic(), command, value, held.level, held.pulse_width))
            self._report()
        return result

    def _levels(self) -> int:
        return sum(_ANSWERS[Command.READ](held) << gpio for gpio, held in enumerate(self._gpios))

    def _report(self) -> None:
        """Tell of levels that have changed; one that nobody watched until now counts as low before."""
        levels = self._levels()
        watched = functools.reduce(operator.or_, (watch.gpios for watch in self._watches.values()), 0)
        changed = (self._heard ^ levels) & watched
        self._heard = levels & watched
        for watch in self._watches.values():
            if watch.gpios & changed and watch.gpios & (self._reported ^ levels):
                report = struct.pack("<2H2I", watch.reports & 0xFFFF, 0, _tick(), levels)
                watch.reports += 1
                with suppress(OSError):  # who has gone, or does not read, misses it
                    watch.client.send(report, socket.MSG_DONTWAIT)
        if changed:
            self._reported = levels


def _tick() -> int:
    return time.monotonic_ns() // 1000 & 0xFFFFFFFF


def main(port: int) -> None:
    """Serve until SIGTERM or SIGINT, and print the port; 0 is a free one."""
    told = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, told)
    with Daemon(port) as daemon:
        print(daemon.port, flush=True)
        signal.sigwait(told)


if __name__ == "__main__":
    main(int(sys.argv[1]))
