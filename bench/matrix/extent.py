"""How much of the matrix is measured: all of it, or a look that shows that it works."""

from __future__ import annotations

import msgspec

from bench.span import Block


class Extent(msgspec.Struct, frozen=True, kw_only=True):
    """Rounds and blocks of packages, the sizes of things, seconds of offering and of clients at work.

    `patience_s` is how long it may wait in all for others to leave the machine alone.
    """

    rounds: int = 7
    block: Block = Block(3, 10, 1.0)
    long_block: Block = Block(1, 3, 3.0)
    sizes: tuple[int, ...] = (1, 10, 100, 1000, 4000, 100_000, 1_000_000)
    workers: tuple[int, ...] = (1, 2, 4, 8)
    chunk_sizes: tuple[int, ...] = (1, 5, 10, 50, 200, 500)
    busy_us: tuple[int, ...] = (0, 10, 100, 1000)
    clients: tuple[int, ...] = (1, 8, 64)
    rates: tuple[int, ...] = (4000, 40_000, 400_000)
    share: int = 1
    """Loads have one in so many of their tasks."""
    offer_rounds: int = 4
    offer_s: float = 1.0
    clients_s: float = 2.0
    patience_s: float = 900.0


WHOLE = Extent()
LOOK = Extent(
    rounds=1,
    block=Block(0, 1),
    long_block=Block(0, 1),
    sizes=(1, 4000, 10_000),
    workers=(1, 2),
    chunk_sizes=(5, 50),
    busy_us=(0, 10),
    clients=(1, 2),
    rates=(400, 4000),
    share=20,
    offer_rounds=1,
    offer_s=0.1,
    clients_s=0.1,
    patience_s=0.0,
)
