"""Random schedules of commands, stops, arms, lease ends and disturbances of a bus, judged each millisecond.

The real `Control` and `BoardMachine` run over the real `SharedState`; the bus, its thread and the chip are emulated. A
pin beside the board never waits for it.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from taskengine import NotAllowed, Origin, TaskFailed
from taskengine_hardware import SharedState, read
from taskengine_hardware.board_machine import CUT_S, LATE_S, RETRY_S, Fallback, Setting
from taskengine_hardware.control import Control, checked, safe_value
from taskengine_hardware.device_config import LANE, Value
from taskengine_hardware.outputs import Output
from taskengine_hardware.sending import STOP
from taskengine_hardware.shared_state import NEVER
from tests.hardware.emulated_station import STEP_S, TAKES_S, EmulatedStation

LAPTOP = Origin("laptop", b"1", b"laptop")
LEASE_S = 0.25
TICK_S = 2 * STEP_S
BACK_S = RETRY_S + 5 * TAKES_S + 5 * STEP_S
"""How long after a disturbance the board is safe, and known to be so."""
DEVICES: dict[str, dict[str, Any]] = {
    "pan": {"type": "Servo", "pin": "hat:0", "lease": LEASE_S},
    "grip": {"type": "Servo", "pin": "hat:1", "lease": LEASE_S, "safe": "hold"},
    "wheel": {"type": "Motor", "board": "hat", "forward": 2, "backward": 3, "lease": LEASE_S},
    "led": {"type": "LED", "pin": 17, "lease": LEASE_S},
}
CHANNELS = {"pan": (0,), "grip": (1,), "wheel": (2, 3)}
TURNED_OFF = ("pan", "wheel")


def shares(name: str, value: Value) -> tuple[float, ...]:
    """What the channels of a device are for a value."""
    if name == "wheel":
        assert isinstance(value, float)
        return max(value, 0.0), max(-value, 0.0)
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
        chip = {0: 0.0875, 1: 0.08125, 2: 1.0, 3: 0.0}
        self.pending: set[int] = set()
        self.pin = False
        self.now = 100.0
        self.quiet_since = 100.0
        fallbacks = {}
        for name, channels in CHANNELS.items():
            rest = map(Setting, shares(name, safe_value(layout.devices[name], None)))
            fallbacks[name] = Fallback(dict(zip(channels, rest, strict=True)), name == "grip")
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
        self.control.begin(at, self.now)

    def writer(self, output: Output) -> Any:
        name = output.device.name

        def write(value: Value) -> None:
            if name == "led":
                self.pin = bool(value)
                return
            for channel, share in zip(CHANNELS[name], shares(name, value), strict=True):
                self.board.put(channel, share)

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
        elif deed == "reset":
            self.board.reset()
            self.quiet_since = self.now + 0.5
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
            output = self.control.find(deed)
            value = amount % 2 == 1 if deed == "led" else amount / 500
            self.control.command(output, checked(output, value), LAPTOP, self.now)
        except (NotAllowed, TaskFailed):
            return
        assert not output.failure

    def run(self, milliseconds: int) -> None:
        for _ in range(milliseconds):
            self.now += STEP_S
            if not self.board.is_well(self.now):
                self.quiet_since = max(self.quiet_since, self.now)
            has_news = self.board.step(self.now)
            if has_news or self.control.due <= self.now:
                self.control.tick(self.now)
            self.judge()

    def judge(self) -> None:
        panel, now = self.panel, self.now
        led = self.control.find("led")
        end = panel.ends[led.place] / 1e9
        assert not self.pin or now <= end + TICK_S, "a pin waited for the board"
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
        if now > self.quiet_since + BACK_S + LATE_S:
            self.judge_quiet()

    def judge_quiet(self) -> None:
        """The bus has worked for long enough."""
        assert not any(output.is_lost for output in self.control.outputs.values())
        assert self.board.is_enabled or not self.board.machine.is_settled
        for name in TURNED_OFF:
            output = self.control.find(name)
            over = self.panel.ends[output.place] == NEVER and output.place not in self.pending
            if over or (self.panel.is_stopped and not self.pending):
                assert not any(self.board.chip[channel] for channel in CHANNELS[name])

    def finish(self) -> None:
        """After every lease has ended on a bus that works, everything is safe, known to be so, and nobody beats."""
        left = max(self.board.cut_until, self.board.hangs_until, self.board.deaf_until) - self.now
        self.run(int(1000 * (max(left, 0.0) + LEASE_S + 0.5 + BACK_S + 2 * LATE_S)))
        assert not self.pending
        assert STOP not in self.pending
        assert [self.board.chip[channel] for channel in (0, 2, 3)] == [0.0] * 3
        assert self.panel.unconfirmed() == []
        assert not self.pin


DEEDS = ["pan", "pan", "grip", "wheel", "wheel", "led", "cut", "hang", "deaf", "reset", "stop", "arm", "arm", "arm"]
SCHEDULES = st.lists(
    st.tuples(st.integers(0, 120), st.sampled_from(DEEDS), st.integers(1, 400)), min_size=1, max_size=30
)


@settings(max_examples=150, deadline=None)
@given(SCHEDULES)
def test_whatever_happens_the_board_is_safe_as_soon_as_it_can_be(schedule: list[tuple[int, str, int]]) -> None:
    site = Site()
    try:
        for pause, deed, amount in schedule:
            site.run(pause)
            site.do(deed, amount)
        site.finish()
    finally:
        site.panel.close()


def test_a_safe_state_that_is_late_is_cut_by_the_line() -> None:
    site = Site()
    site.run(200)
    site.do("arm", 0)
    site.do("wheel", 400)
    site.run(20)
    assert (site.board.chip[2], site.board.is_enabled) == (0.8, True)
    site.do("hang", 5000)
    site.run(int(1000 * (LEASE_S + CUT_S)))
    assert (site.board.chip[2], site.board.is_enabled) == (0.8, False)
    site.finish()
