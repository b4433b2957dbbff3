"""A lane with devices on an emulated board, whose former owner has died, judged each millisecond.

The real `Control` and `BoardMachine` run over the real `SharedState`; the bus, its thread and the chip are emulated. A
pin beside the board never waits for it.
"""

from __future__ import annotations

from typing import Any

import pytest

from taskengine import NotAllowed, Origin, TaskFailed
from taskengine_hardware import SharedState, read
from taskengine_hardware.board_errors import BoardError
from taskengine_hardware.board_machine import LATE_S, RETRY_S, Fallback, Setting
from taskengine_hardware.control import Control, checked, safe_value
from taskengine_hardware.device_config import LANE, Value
from taskengine_hardware.effects import Fade, Pulse
from taskengine_hardware.outputs import Output
from taskengine_hardware.sending import STOP
from taskengine_hardware.shared_state import NEVER
from tests.hardware.emulated_station import STEP_S, TAKES_S, EmulatedStation

LAPTOP = Origin("laptop", b"1", b"laptop")
LEASE_S = 0.25
TICK_S = 2 * STEP_S
SAFE_S = 0.05
"""How long after the end of a lease, or a stop, an output may be on."""
BACK_S = RETRY_S + 5 * TAKES_S + 5 * STEP_S
"""How long after a disturbance the board is safe, and known to be so."""
DEVICES: dict[str, dict[str, Any]] = {
    "pan": {"type": "Servo", "pin": "hat:0", "lease": LEASE_S},
    "grip": {"type": "Servo", "pin": "hat:1", "lease": LEASE_S, "safe": "hold"},
    "wheel": {"type": "Motor", "board": "hat", "forward": 2, "backward": 3, "lease": LEASE_S},
    "lift": {"type": "Motor", "board": "hat", "forward": 4, "backward": 5, "lease": LEASE_S, "soft_start": 0.3},
    "tilt": {"type": "Servo", "pin": "hat:6", "lease": LEASE_S, "home": 0, "limits": {"speed": 5, "acceleration": 40}},
    "belt": {
        "type": "Motor",
        "board": "hat",
        "forward": 7,
        "backward": 8,
        "lease": LEASE_S,
        "soft_start": 0.1,
        "stop": {"ramp": 0.1},
    },
    "led": {"type": "LED", "pin": 17, "lease": LEASE_S},
    "flag": {"type": "Servo", "pin": "hat:9", "lease": LEASE_S, "safe": 0.5},
    "lamp": {"type": "LED", "pin": "hat:10"},
    "glow": {"type": "PWMLED", "pin": "hat:11", "safe": "hold"},
}
CHANNELS = {"pan": (0,), "grip": (1,), "wheel": (2, 3), "lift": (4, 5), "tilt": (6,), "belt": (7, 8)} | {
    "flag": (9,),
    "lamp": (10,),
    "glow": (11,),
}
HOLD = ("grip", "glow")
SHONE = ("lamp", "glow")
MOTORS = ("wheel", "lift", "belt")
TURNED_OFF = ("pan", "tilt", *MOTORS)
OFF = [channel for name in TURNED_OFF for channel in CHANNELS[name]]


STREAMS = ("zeros", "flicker")
STREAMED = ("wheel", "lift")
MOTIONS = {"move": "tilt", "sweep": "tilt", "halt": "tilt", "pulse": "wheel", "fade": "wheel", "renew": "belt"}


def shares(name: str, value: Value) -> tuple[float, ...]:
    """What the channels of a device are for a value."""
    if name in MOTORS:
        assert isinstance(value, float)
        return max(value, 0.0), max(-value, 0.0)
    if name in SHONE:
        return (float(value or 0.0),)  # type: ignore[arg-type]
    assert value is None or isinstance(value, float)
    return (0.0 if value is None else 0.075 + value / 40,)


class Site:
    """A lane whose former owner has died, with everything on."""

    def __init__(self) -> None:
        layout = read({"boards": {"hat": {"type": "PCA9685"}}, "devices": DEVICES})
        self.panel = SharedState(layout)
        for name, value in (("pan", 0.5), ("grip", 0.25), ("wheel", 1.0)):
            self.panel.note(layout.devices[name].place, value)
        self.panel.stop(1, by="guardian")
        chip = dict.fromkeys(range(12), 0.0) | {0: 0.0875, 1: 0.08125, 2: 1.0}
        self.pending: set[int] = set()
        self.pin = False
        self.now = 100.0
        self.quiet_since = 100.0
        self.late_until = 0.0
        """Until when the owner's thread does not run."""
        self.stream: tuple[str, float] = "", 0.0
        """Commands that come each millisecond, until then."""
        self.count = 0
        self.has_news = False
        """Whether the board has news that the owner's thread, which may be late, has not seen."""
        self.held: set[float] = set()
        """What the device that holds may be: what it was when its board came, and what was taken since."""
        self.had: set[float] = {0.0}
        """What that device ever was, or was told."""
        self.was_lost = True
        self.over = dict.fromkeys(TURNED_OFF, self.now)
        """Since when nobody may drive a device: its lease has ended, or the machine is stopped."""
        self.bad_until = self.now
        """Until when the board was lost, or its bus disturbed."""
        self.stood: float | None = None
        """What that channel was when a stop was confirmed."""
        fallbacks = {}
        for name, channels in CHANNELS.items():
            rest = map(Setting, shares(name, safe_value(layout.devices[name], None)))
            fallbacks[name] = Fallback(dict(zip(channels, rest, strict=True)), name in HOLD)
        self.board = EmulatedStation(fallbacks, chip)
        self.control = Control(LANE, layout.of(LANE), self.panel, lambda output, now: True)
        self.control.pend, self.control.calm = self.pending.add, self.pending.discard
        at = {}
        for name, output in self.control.outputs.items():
            at[output.place] = safe_value(output.device, self.panel.last(output.place, output.role))
            output.write = self.writer(output)
            if name in CHANNELS:
                self.control.attach(output, [self.board])
                output.write(at[output.place])
        self.board.machine.begin(self.now)
        self.leased = [output for output in self.control.outputs.values() if output.lease_ns]
        self.control.begin(at, self.now)

    def writer(self, output: Output) -> Any:
        name = output.device.name

        def write(value: Value) -> None:
            if name == "led":
                self.pin = bool(value)
                return
            refused: BoardError | None = None
            for channel, share in zip(CHANNELS[name], shares(name, value), strict=True):
                try:
                    self.board.put(channel, share)
                except BoardError as error:
                    refused = error
            if refused is not None:
                raise refused

        return write

    def do(self, deed: str, amount: int) -> None:
        """Have something happen; `amount` is in ms, or the value of a command."""
        until = self.now + amount / 1000
        if deed == "cut":
            self.board.cut_until = until
        elif deed == "hang":
            self.board.hangs_until = until
        elif deed == "deaf":
            self.board.deaf_until = until
            # a command that it ignored is found at the end of its lease, when the board is read back
            self.quiet_since = max(self.quiet_since, until + LEASE_S + SAFE_S)
        elif deed == "reset":
            self.board.reset()
            self.quiet_since = self.now + 0.5
        elif deed == "late":
            self.late_until = self.now + amount % 25 / 1000
        elif deed in STREAMS:
            self.stream = deed, until
        elif deed == "stop":
            self.control.stop(self.now)
            assert not self.pin
        else:
            self.call(deed, amount)

    def call(self, deed: str, amount: int) -> None:
        try:
            if deed == "arm":
                self.control.arm(LAPTOP, self.now)
                return
            if deed == "acquire":
                self.control.acquire(self.leased, LAPTOP, self.now)
                return
            if deed in MOTIONS:
                output = self.control.find(MOTIONS[deed])
                self.begin(deed, output, amount)
            else:
                output = self.control.find(deed)
                value = amount % 2 == 1 if deed in ("led", "lamp") else amount / 500
                self.control.command(output, checked(output, value), LAPTOP, self.now)
        except (NotAllowed, TaskFailed):
            return
        # a renewal brings no value, and is refused by no board
        assert not output.failure or deed == "renew"
        if deed == "grip":
            self.held.add(round(shares("grip", value)[0], 9))

    def begin(self, deed: str, output: Output, amount: int) -> None:
        """Begin a motion, or end it."""
        value = amount / 500
        if deed == "move":
            self.control.move(output, value, amount / 1000, "sine", LAPTOP, self.now)
        elif deed == "sweep":
            self.control.sweep(output, -0.1, 0.1, 1.0, 2, LAPTOP, self.now)
        elif deed == "renew":
            self.control.renew([output], LAPTOP, self.now)
        elif deed == "halt":
            self.control.halt(output, LAPTOP, self.now)
        elif deed == "pulse":
            self.control.play([(output, Pulse(value, 0.0, self.now + 0.05))], LAPTOP, self.now)
        else:
            self.control.play([(output, Fade(0.0, value, 0.1, self.now))], LAPTOP, self.now)

    def run(self, milliseconds: int) -> None:
        for _ in range(milliseconds):
            self.now += STEP_S
            if not self.board.is_well(self.now):
                self.quiet_since = max(self.quiet_since, self.now)
            self.has_news |= self.board.step(self.now)
            if self.now <= self.stream[1]:
                self.count += 1
                for name in STREAMED:
                    self.call(name, 0 if self.stream[0] == "zeros" else self.count % 2 * 100)
            if self.now >= self.late_until and (self.has_news or self.control.due <= self.now):
                self.has_news = False
                self.control.tick(self.now)
            self.judge()

    def judge(self) -> None:
        panel, now = self.panel, self.now
        led = self.control.find("led")
        end = panel.ends[led.place] / 1e9
        late_s = max(0.0, self.late_until - end)
        assert not self.pin or now <= end + late_s + TICK_S, "a pin waited for the board"
        self.judge_what_holds()
        for name in TURNED_OFF:
            output = self.control.find(name)
            is_on = any(self.board.chip[channel] for channel in CHANNELS[name])
            is_said_safe = panel.last(output.place, output.role) == output.rest
            assert not (is_on and is_said_safe), f"{name} is on, and other processes take it for safe"
            watched = panel.ends[output.place] != NEVER or output.place in self.pending
            assert watched or not is_on, f"{name} is on, and nobody would notice that its owner hangs"
            is_confirmed = panel.is_stopped and not panel.unconfirmed()
            assert not (is_on and is_confirmed), f"{name} is on, and the stop is confirmed"
            assert not (output.is_lost and self.board.is_enabled and is_on), "a lost board is enabled"
            assert not (output.is_lost and output in self.control._moving), f"{name} is to move once its board is back"
            self.judge_time(name, output, is_on=is_on)
        if now > max(self.quiet_since, self.late_until) + BACK_S + LATE_S:
            self.judge_quiet()

    def judge_time(self, name: str, output: Output, *, is_on: bool) -> None:
        """It is off 50 ms after its lease or a stop: by its line whatever the bus does, else by a bus that works."""
        now, is_well = self.now, self.board.is_well(self.now) and self.board.is_awake
        if not is_well or output.is_lost or self.board.machine.fault:
            self.bad_until = now
        end = self.panel.ends[output.place] / 1e9
        if not self.panel.is_stopped and now <= end:
            self.over[name] = now
        since = max(self.over[name] + (output.stop_ns / 1e9 if self.panel.is_stopped else 0.0), self.late_until)
        assert not (is_on and self.board.is_enabled) or now <= since + SAFE_S, f"{name} is on too long"
        if now > self.bad_until + SAFE_S + TICK_S:
            assert not is_on or now <= since + SAFE_S, f"{name} is on too long, on a bus that works"

    def judge_what_holds(self) -> None:
        """It never goes to a value that was commanded before its board was lost, nor while the machine is stopped."""
        output, found = self.control.find("grip"), round(self.board.chip[1], 9)
        if self.was_lost and not output.is_lost:
            value = round(shares("grip", output.value)[0], 9)
            assert found == value or not self.board.is_awake, "a board is back, and does something else than is told"
            self.held = {value}
        self.was_lost = output.is_lost
        self.had |= {found, round(self.board.told.get(1, 0.0), 9)}
        noted = round(shares("grip", self.panel.last(output.place, output.role))[0], 9)
        assert noted in self.had, "the next owner is to hold what the board never had"
        if not output.is_lost:
            assert found in self.held | {0.0}, "it went to what was commanded before its board was lost"
        is_confirmed = self.panel.is_stopped and not self.panel.unconfirmed()
        if not is_confirmed:
            self.stood = None
        elif self.stood is None:
            self.stood = found
        else:
            assert found in (self.stood, 0.0), "it moved while the machine was stopped"

    def judge_quiet(self) -> None:
        """The bus has worked for long enough."""
        assert not any(output.is_lost for output in self.control.outputs.values())
        assert self.board.is_enabled, "the board is off, and its devices are told as live"
        for name in CHANNELS if self.board.machine.is_settled and not self.stream[0] else ():
            output = self.control.find(name)
            if output.motion is None:
                found = [self.board.chip[channel] for channel in CHANNELS[name]]
                assert found == pytest.approx(shares(name, output.value)), f"{name} does something else than it is told"
        for name in TURNED_OFF:
            output = self.control.find(name)
            over = self.panel.ends[output.place] == NEVER and output.place not in self.pending
            is_at_rest = self.panel.is_stopped and not self.pending and output.motion is None
            if over or is_at_rest:
                assert not any(self.board.chip[channel] for channel in CHANNELS[name])

    def finish(self) -> None:
        """After every lease has ended on a bus that works, everything is safe, known to be so, and nobody beats."""
        left = max(self.board.cut_until, self.board.hangs_until, self.board.deaf_until) - self.now
        self.run(int(1000 * (max(left, 0.0) + LEASE_S + 0.5 + BACK_S + 2 * LATE_S)))
        assert not self.pending
        assert STOP not in self.pending
        assert not any(self.board.chip[channel] for channel in OFF)
        assert self.panel.unconfirmed() == []
        assert not self.pin


def armed(*deeds: tuple[str, int]) -> Site:
    """A machine that was armed, and then commanded."""
    site = Site()
    site.run(200)
    for deed, amount in (("arm", 0), *deeds):
        site.do(deed, amount)
        site.run(20)
    return site
