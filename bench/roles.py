"""`python -m bench.roles PACKAGES`: what `make pi-budget` runs under a counter of instructions.

Every role plays so many packages, and then twice as many. A call of getppid(2), which nothing else here calls, tells
the counter where each of these parts begins and ends. The first part taken from the second leaves what so many packages
cost, without imports, warm-up or marks.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from bench.budget import PACKAGE
from bench.exchange import Exchange
from bench.trips import Roles, Trip, check
from taskengine.tasks import task_count

WARM_UP = 2

Part = Callable[[Trip], Trip]


def mark() -> None:
    """Tell the counter that a part begins or ends here."""
    os.getppid()


def play(part: Part, trips: Sequence[Trip], packages: int) -> None:
    """Have a role play the trips, with marks around its two parts. Raises WrongTrip."""
    middle = WARM_UP + packages
    for trip in trips[:WARM_UP]:
        made = part(trip)
    mark()
    for trip in trips[WARM_UP:middle]:
        made = part(trip)
    mark()
    for trip in trips[middle:]:
        made = part(trip)
    mark()
    # not each: what is kept takes memory that the next package would use again
    check(made, trips[-1])


def bare_loop() -> list[Any]:
    """The limits of a role's instructions."""
    return [task_count(2, 3) for _ in range(PACKAGE)]


def play_all(packages: int) -> None:
    """Have every role play, in the order of budget.ROLES. Raises WrongTrip."""
    with Roles() as recorder, Roles() as roles, Roles() as sequence:
        trips = [recorder.record() for _ in range(WARM_UP + 3 * packages)]
        # a process of the engine holds less, and its collector looks through less
        gc.freeze()
        play(lambda trip: Trip(results=bare_loop()), trips, packages)
        for part in (roles.client, roles.router, roles.workers, sequence.sequence):
            play(part, trips, packages)
        with Exchange(trips) as exchange:
            play(exchange.play, trips, packages)
        gc.unfreeze()


if __name__ == "__main__":
    play_all(int(sys.argv[1]))
