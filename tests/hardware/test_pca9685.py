"""The registers of a PCA9685, without a bus."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskengine_hardware import pca9685
from taskengine_hardware.board_config import BoardConfig
from taskengine_hardware.board_drivers import Pca9685
from taskengine_hardware.board_errors import BoardError
from taskengine_hardware.emulated_bus import EmulatedBus

HAT = BoardConfig("hat", "PCA9685", "/dev/i2c-1", 0x40)


@pytest.mark.parametrize(
    ("frequency", "oscillator", "scale"),
    # 200 Hz is the example of the data sheet, section 7.3.5; 1526 and 24 Hz are its ends
    [(200, 25e6, 30), (50, 25e6, 121), (1500, 25e6, 3), (24, 25e6, 253), (50, 26_400_000, 128), (10_000, 25e6, 3)],
)
def test_the_prescaler_is_that_of_the_data_sheet(frequency: float, oscillator: float, scale: int) -> None:
    assert pca9685.prescale(frequency, oscillator) == scale


@pytest.mark.parametrize(
    ("share", "registers"),
    [
        (0.0, b"\0\0\0\x10"),
        (1.0, b"\0\x10\0\0"),
        (0.5, b"\0\0\x00\x08"),
        (1 / 4096, b"\0\0\x01\x00"),
        (4095 / 4096, b"\0\0\xff\x0f"),
        (0.00001, b"\0\0\0\x10"),
        (0.99999, b"\0\x10\0\0"),
        (-0.5, b"\0\0\0\x10"),
    ],
)
def test_a_share_of_the_period_is_four_registers(share: float, registers: bytes) -> None:
    assert pca9685.channel_bytes(share) == registers


@given(st.floats(0, 1), st.floats(50, 1500), st.floats(20e6, 50e6))
def test_a_pulse_is_right_to_half_a_step(share: float, frequency: float, oscillator: float) -> None:
    period = pca9685.period(frequency, oscillator)
    width = pca9685.share_of(pca9685.channel_bytes(share)) * period
    assert width == pytest.approx(share * period, abs=period / 4096 / 2 * 1.001)


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 15), st.floats(0, 1)), max_size=16), max_size=8),
    st.sampled_from([32, 64]),
)
def test_a_chip_gets_every_frame_in_the_fewest_transfers(frames: list[list[tuple[int, float]]], most: int) -> None:
    bus = EmulatedBus(most)
    board = Pca9685(bus, HAT, sleep=lambda seconds: None)
    told = dict.fromkeys(range(16), 0.0)
    board.flush()
    for frame in frames:
        before = dict(told)
        for channel, share in frame:
            board.put(channel, share, None)
            told[channel] = share
        bus.seen.clear()
        board.flush()
        changed = [
            channel
            for channel in told
            if pca9685.channel_bytes(told[channel]) != pca9685.channel_bytes(before[channel])
        ]
        fewest = 0 if not changed else 1 if max(changed) - min(changed) < most // 4 else 2
        assert len(bus.seen) == fewest
        assert all(len(data) <= most for _, data in bus.seen)
        for channel, share in told.items():
            assert bus.share(channel) == pca9685.share_of(pca9685.channel_bytes(share))


@given(st.binary(min_size=256, max_size=256), st.integers(0, 15), st.floats(0, 1))
def test_a_start_makes_no_pulse_but_those_that_were_asked_for(junk: bytes, channel: int, share: float) -> None:
    """Whatever the chip did before, from the first byte on each channel is off, or has its value."""
    bus = EmulatedBus()
    bus.registers[:] = junk
    board = Pca9685(bus, HAT, sleep=lambda seconds: None)
    board.put(channel, share, None)
    assert bus.seen == []
    board.flush()
    wanted = pca9685.share_of(pca9685.channel_bytes(share))
    for shares in bus.pulses[1:]:
        assert {shares[one] for one in range(16) if one != channel} <= {0.0}
        assert shares[channel] in (0.0, wanted)
    assert bus.share(channel) == wanted
    assert bus.registers[pca9685.PRE_SCALE] == pca9685.prescale(50)
    assert not bus.registers[pca9685.MODE1] & 0x01  # the all-call address


def test_a_chip_that_runs_goes_on_without_a_gap() -> None:
    """The next owner writes one frame, and held pulses are as they were."""
    bus = EmulatedBus()
    first = Pca9685(bus, HAT, sleep=lambda seconds: None)
    first.put(3, 0.075, None)
    first.flush()
    bus.seen.clear()
    bus.pulses.clear()
    second = Pca9685(bus, HAT, sleep=lambda seconds: None)
    second.put(3, 0.075, None)
    second.flush()
    assert [(register, len(data)) for register, data in bus.seen] == [(pca9685.LED0, 64)]
    assert len(bus.pulses) == 1
    assert bus.pulses[0][3] == pytest.approx(0.075, abs=0.0002)


def test_a_chip_with_another_frequency_is_started_anew() -> None:
    bus = EmulatedBus()
    Pca9685(bus, BoardConfig("hat", "PCA9685", "/dev/i2c-1", 0x40, 200.0), sleep=lambda seconds: None).flush()
    Pca9685(bus, HAT, sleep=lambda seconds: None).flush()
    assert bus.registers[pca9685.PRE_SCALE] == 121


def test_a_chip_that_is_reset_before_it_is_told_anything_gets_nothing() -> None:
    """What was to be held has sagged since it was opened."""
    bus = EmulatedBus()
    first = Pca9685(bus, HAT, sleep=lambda seconds: None)
    first.put(3, 0.075, None)
    first.flush()
    chip = Pca9685(bus, HAT, sleep=lambda seconds: None)
    assert not chip.is_off()
    bus.power_up()
    chip.put(3, 0.075, None)
    with pytest.raises(BoardError, match="its supply was gone"):
        chip.flush()
    assert bus.share(3) == 0.0
