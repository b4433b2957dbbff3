"""The bus by smbus2, with a file for the kernel's device and an adapter that writes down what it is told."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import smbus2

from taskengine_hardware import i2c_bus
from taskengine_hardware.board_bus import BoardBus, Station
from taskengine_hardware.board_drivers import EmulatedPwm
from taskengine_hardware.board_errors import BoardError, BoardInUse
from taskengine_hardware.i2c_bus import I2cBus

Make = Callable[..., I2cBus]


class Adapter:
    """Stands for smbus2's: what passes over the bus, and an error for the next transfers."""

    def __init__(self, path: str, funcs: int, errors: list[int], seen: list[tuple[Any, ...]]) -> None:
        self.fd = os.open(path, os.O_RDWR)
        self.funcs, self._errors, self._seen = funcs, errors, seen

    def _pass(self, *what: Any) -> None:
        if self._errors:
            raise OSError(self._errors.pop(0), "refused")
        self._seen.append(what)

    def i2c_rdwr(self, message: Any, answer: Any = None) -> None:
        self._pass("i2c", message.addr, bytes(message), *([] if answer is None else [len(answer)]))

    def read_i2c_block_data(self, address: int, register: int, count: int) -> list[int]:
        self._pass("smbus read", address, register, count)
        return [7] * count

    def write_i2c_block_data(self, address: int, register: int, data: list[int]) -> None:
        self._pass("smbus", address, bytes([register, *data]))

    def read_byte_data(self, address: int, register: int) -> int:
        self._pass("read", address, register)
        return 0x20

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1


@pytest.fixture
def seen() -> list[tuple[Any, ...]]:
    return []


@pytest.fixture
def errors() -> list[int]:
    return []


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[tuple[Any, ...]], errors: list[int]) -> Make:
    path = tmp_path / "i2c-1"
    path.touch()

    def bus(address: int = 0x40, funcs: int = i2c_bus.I2C_FUNC_I2C) -> I2cBus:
        monkeypatch.setattr(smbus2, "SMBus", lambda path: Adapter(path, funcs, errors, seen))
        monkeypatch.setattr(fcntl, "ioctl", lambda fd, request, value: seen.append((hex(request), value)))
        return I2cBus(str(path), address)

    return bus


def test_a_frame_is_one_transfer_of_65_bytes_where_the_bus_has_transfers(
    make: Make, seen: list[tuple[Any, ...]]
) -> None:
    bus = make()
    # the kernel waits 20 ms at most, and refuses a chip that one of its drivers has
    assert seen == [("0x702", 2), ("0x703", 0x40)]
    assert bus.most == 64
    seen.clear()
    bus.write(6, bytes(range(64)))
    assert seen == [("i2c", 0x40, bytes([6, *range(64)]))]
    assert bus.read(0) == 0x20
    seen.clear()
    assert len(bus.read_block(6, 64)) == 64
    assert seen == [("i2c", 0x40, b"\x06", 64)]
    bus.close()
    bus.close()


def test_the_longest_transfer_at_the_least_speed_takes_no_longer_than_half_of_what_the_kernel_waits() -> None:
    """The least speed is that of docs/hardware.md; the kernel may wait a tick of 10 ms less than it is told."""
    frame_bits = 9 * (i2c_bus.CHIP + 3)
    assert frame_bits / 100e3 < 0.01 * (i2c_bus.TIMEOUT - 1)


def test_it_is_blocks_of_32_where_there_is_only_smbus(make: Make, seen: list[tuple[Any, ...]]) -> None:
    bus = make(funcs=i2c_bus.I2C_FUNC_BLOCKS)
    assert bus.most == 32
    seen.clear()
    bus.write(6, bytes(32))
    assert seen == [("smbus", 0x40, bytes([6, *bytes(32)]))]
    assert bus.read_block(6, 32) == b"\x07" * 32
    bus.close()
    with pytest.raises(BoardError, match="neither transfers nor blocks"):
        make(funcs=0)


def test_a_disturbance_is_tried_again_once_and_two_are_an_error(
    make: Make, seen: list[tuple[Any, ...]], errors: list[int]
) -> None:
    bus = make()
    seen.clear()
    errors.append(errno.EREMOTEIO)
    bus.write(6, b"\0")
    assert len(seen) == 1
    for error, text in (
        (errno.EREMOTEIO, "no chip answers"),
        (errno.ETIMEDOUT, "the bus hangs"),
        (errno.EIO, "refused"),
    ):
        errors[:] = [error] * 2
        with pytest.raises(BoardError, match=rf"the chip at 0x40 on .*i2c-1: {text}"):
            bus.write(6, b"\0")
    bus.close()


def test_a_chip_of_a_kernels_driver_is_not_taken(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bus = make()
    bus.close()

    def refuse(fd: int, request: int, value: int) -> None:
        if request == i2c_bus.I2C_SLAVE:
            raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    with pytest.raises(BoardError, match='a driver of the kernel has it: use type = "PWM"'):
        I2cBus(bus._path, 0x40)


def test_a_chip_has_one_owner_and_a_bus_has_many(make: Make) -> None:
    first, other = make(0x40), make(0x41)
    with pytest.raises(BoardError, match=r"0x40 .*belongs to another process"):
        make(0x40)
    first.close()
    again = make(0x40)
    again.close()
    other.close()


def test_the_lock_goes_with_its_process_and_names_it(make: Make, tmp_path: Path) -> None:
    program = (
        "import fcntl, os, struct, sys, time; fd = os.open(sys.argv[1], os.O_RDWR);"
        "fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack('hhqqi4x', fcntl.F_WRLCK, os.SEEK_SET, 0x40, 1, 0));"
        "print('has it', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "i2c-1")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "has it\n"
        try:
            with pytest.raises(BoardInUse, match="belongs to another process") as caught:
                make(0x40)
            station = Station("hat", BoardBus("i2c-1"), EmulatedPwm)
            assert re.search(rf"in use by .*\[{holder.pid}\]", station._reason(caught.value))
        finally:
            holder.kill()
    make(0x40).close()


def test_a_missing_bus_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(BoardError, match=r"/i2c-9: there is no such bus: sudo raspi-config nonint do_i2c 0"):
        I2cBus(str(tmp_path / "i2c-9"), 0x40)
