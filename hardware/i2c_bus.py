"""An I2C bus of the kernel, /dev/i2c-*, by smbus2, and the lock on the address of a chip there.

Several processes may share a bus, since the kernel does one transfer at a time. A chip belongs to one process: the one
with the lock of the byte with the number of its address in the bus's file, which the kernel takes from a dead process.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from typing import Any

from .board_errors import BoardError, BoardInUse

# <linux/i2c.h>, <linux/i2c-dev.h>
I2C_TIMEOUT, I2C_SLAVE, I2C_FUNC_I2C, I2C_FUNC_BLOCKS = 0x0702, 0x0703, 0x00000001, 0x0C000000
TIMEOUT = 2
"""How long the kernel waits for a bus that hangs, in units of 10 ms."""
BLOCK = 32
"""The most bytes of one SMBus block."""
CHIP = 64
"""The most bytes of one I2C transfer here: a frame of 16 channels."""
AGAIN_S = 0.001
"""How soon, in s, a failed transfer is tried again, once."""
_FLOCK = "hhqqi4x"


class I2cBus:
    """The bus at `path` for the chip at `address`, which no other process may have. Raises BoardError."""

    def __init__(self, path: str, address: int) -> None:
        try:
            import smbus2
        except ImportError as error:
            raise BoardError(f"smbus2 cannot be imported ({error}): pip install 'taskengine-robot[boards]'") from None
        self._made, self._wanted = smbus2.i2c_msg.write, smbus2.i2c_msg.read
        self._address = address
        self._path = path
        self._bus: Any
        try:
            self._bus = smbus2.SMBus(path)
        except OSError as error:
            raise BoardError(f"{path}: {_advice(error)}") from None
        try:
            self._take()
            fcntl.ioctl(self._bus.fd, I2C_TIMEOUT, TIMEOUT)
            self._has_transfers = bool(self._bus.funcs & I2C_FUNC_I2C)
            if not self._has_transfers and self._bus.funcs & I2C_FUNC_BLOCKS != I2C_FUNC_BLOCKS:
                raise BoardError(f"{path}: this bus has neither transfers nor blocks")
            # refused with EBUSY if a driver of the kernel has the chip
            self._try(lambda: fcntl.ioctl(self._bus.fd, I2C_SLAVE, address))
        except BaseException:
            self._bus.close()
            raise
        self.most = CHIP if self._has_transfers else BLOCK
        """The most bytes of one transfer."""

    def write(self, register: int, data: bytes) -> None:
        """Write consecutive registers in one transfer. Raises BoardError."""
        if self._has_transfers:
            self._try(lambda: self._bus.i2c_rdwr(self._made(self._address, [register, *data])))
        else:
            self._try(lambda: self._bus.write_i2c_block_data(self._address, register, list(data)))

    def read(self, register: int) -> int:
        """Read a register. Raises BoardError."""
        return int(self._try(lambda: self._bus.read_byte_data(self._address, register)))

    def read_block(self, register: int, count: int) -> bytes:
        """Read consecutive registers, `most` at most. Raises BoardError."""
        if not self._has_transfers:
            return bytes(self._try(lambda: self._bus.read_i2c_block_data(self._address, register, count)))

        def transfer() -> bytes:
            answer = self._wanted(self._address, count)
            self._bus.i2c_rdwr(self._made(self._address, [register]), answer)
            return bytes(answer)

        return bytes(self._try(transfer))

    def close(self) -> None:
        """Let other processes have the chip. May be called twice."""
        self._bus.close()

    def _take(self) -> None:
        lock = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, self._address, 1, 0)
        try:
            fcntl.fcntl(self._bus.fd, fcntl.F_OFD_SETLK, lock)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise BoardError(f"{self._path}: {error.strerror}") from None
            raise BoardInUse(f"{self._where} belongs to another process", self._path) from None

    @property
    def _where(self) -> str:
        return f"the chip at {self._address:#04x} on {self._path}"

    def _try(self, transfer: Any) -> Any:
        """Do a transfer, and do it again if it failed: a single disturbance is not the end of a board."""
        for pause in (AGAIN_S, None):
            try:
                return transfer()
            except OSError as error:
                if pause is None or error.errno in (errno.EBUSY, errno.ETIMEDOUT):
                    raise BoardError(f"{self._where}: {_advice(error)}") from None
                time.sleep(pause)
        raise AssertionError("the second attempt returns, or raises")


def _advice(error: OSError) -> str:
    """Return what an error of the kernel means."""
    told = {
        errno.ENOENT: "there is no such bus: sudo raspi-config nonint do_i2c 0",
        errno.EACCES: "this user may not use it: sudo usermod -aG i2c $USER",
        errno.ENXIO: "no chip answers",
        errno.EREMOTEIO: "no chip answers",
        errno.ETIMEDOUT: "the bus hangs",
        errno.EBUSY: 'a driver of the kernel has it: use type = "PWM"',
    }
    return told.get(error.errno or 0) or f"{error.strerror or error}"
