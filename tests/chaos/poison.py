"""Values that are small to send and expensive to read."""

from __future__ import annotations

import msgspec

MODULUS = 2**61 - 1
"""Of how Python hashes numbers: the tuples of these have the same hash."""


def poison(keys: int) -> bytes:
    """A map whose keys all have the same hash: tuples of numbers that are equal modulo MODULUS, or differ by it."""
    choices = [(number, number + MODULUS) for number in range(1, 17)]
    pairs = []
    for bits in range(keys):
        key = [pair[bits >> place & 1] for place, pair in enumerate(choices)]
        pairs.append(msgspec.msgpack.encode(key) + b"\xc0")
    return b"\xdf" + len(pairs).to_bytes(4) + b"".join(pairs)


def call(value: bytes) -> bytes:
    """A task of the first name with one argument."""
    return b"\x92\x00\x91" + value
