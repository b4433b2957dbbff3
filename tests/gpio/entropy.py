"""Credit the guest's random pool: without that, libzmq waits for it for ever in zmq_ctx_new()."""

from __future__ import annotations

import fcntl
import os
import struct
import time

RNDADDENTROPY = 0x40085203
BYTES = 256

if __name__ == "__main__":
    seed = (str(time.time_ns()).encode() * BYTES)[:BYTES]
    fcntl.ioctl(os.open("/dev/urandom", os.O_RDWR), RNDADDENTROPY, struct.pack(f"ii{BYTES}s", 8 * BYTES, BYTES, seed))
