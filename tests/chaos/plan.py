"""The deeds that are done to the engine, and their times: a schedule made from a seed. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

POISONS = ("exit", "exit.again", "segfault", "loop", "fail")


class Deed(NamedTuple):
    """Something to do `at` s after the start; `amount` is how long it lasts, in s, or how much it is."""

    at: float
    kind: str
    amount: float = 0.0
    what: str = ""


class Pace(NamedTuple):
    """Between which numbers of seconds the next deed of a kind comes; those to the router first after half of it."""

    kill: tuple[float, float] = (0.2, 2.0)
    stop: tuple[float, float] = (0.5, 3.0)
    stop_router: tuple[float, float] = (10.0, 20.0)
    reload: tuple[float, float] = (7.0, 15.0)
    cancel: tuple[float, float] = (1.0, 4.0)
    kill_router: tuple[float, float] = (8.0, 12.0)
    flood: tuple[float, float] = (5.0, 10.0)
    stall: tuple[float, float] = (4.0, 8.0)
    garbage: tuple[float, float] = (0.5, 2.0)
    poison: tuple[float, float] = (0.5, 2.0)


_AMOUNTS: dict[str, Callable[[random.Random], float]] = {
    "stop": lambda chance: chance.choice((0.02, 0.2, 1.0, 4.0)) * chance.uniform(0.5, 1.0),
    "stop_router": lambda chance: chance.choice((0.2, 1.0, 6.0)) * chance.uniform(0.5, 1.0),
    "flood": lambda chance: float(chance.randrange(2000, 8000)),
    "stall": lambda chance: chance.uniform(1.0, 4.0),
}
_WHATS = {"garbage": ("frontend", "backend"), "poison": POISONS}


def plan(seed: int, seconds: float, pace: Pace | None = None) -> list[Deed]:
    """The deeds of so many seconds, in order; the same for the same seed."""
    deeds = []
    for kind, (least, most) in (pace or Pace())._asdict().items():
        chance = random.Random(f"{seed} {kind}")
        whats = _shuffled(_WHATS.get(kind, ("",)), chance)
        at = chance.uniform(least, most) / (2 if kind.endswith("router") else 1)
        while at < seconds:
            deeds.append(Deed(at, kind, _AMOUNTS[kind](chance) if kind in _AMOUNTS else 0.0, next(whats)))
            at += chance.uniform(least, most)
    return sorted(deeds)


def _shuffled(whats: tuple[str, ...], chance: random.Random) -> Iterator[str]:
    """Each once in random order, and again."""
    while True:
        yield from chance.sample(whats, len(whats))
