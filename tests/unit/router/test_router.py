"""A worker is not taken for silent while what it has sent waits to be read."""

from __future__ import annotations

from typing import Any, cast

from taskengine.router.health import Diagnosis
from taskengine.router.router import Router
from taskengine.runtime.intervals import TURN_MESSAGES


class Health:
    """Knows which of some workers were heard."""

    def __init__(self, *workers: str) -> None:
        self.unheard = set(workers)

    def silent(self, now: float, is_stopped: object) -> list[Diagnosis]:
        return [Diagnosis(worker, "silent") for worker in sorted(self.unheard)]


class Port:
    """Holds messages that wait, and counts how many were read."""

    def __init__(self, *waiting: str) -> None:
        self.waiting = list(waiting)
        self.read = 0

    def receive(self) -> list[bytes] | None:
        if not self.waiting:
            return None
        self.read += 1
        return [self.waiting.pop(0).encode()]


def silent(health: Health, port: Port) -> list[str]:
    router: Any = Router.__new__(Router)
    router._health, router._worker_port = health, port
    router._from_worker = lambda frames: health.unheard.discard(frames[0].decode())
    return [found.worker for found in cast(Router, router)._silent(5.0)]


def test_messages_that_wait_are_read_before_their_worker_counts_as_silent() -> None:
    assert silent(Health("a", "b"), Port("b", "c")) == ["a"]
    assert silent(Health("a"), Port()) == ["a"]


def test_nothing_is_read_out_of_turn_where_nobody_seems_silent() -> None:
    port = Port("a")
    assert silent(Health(), port) == []
    assert port.read == 0


def test_workers_that_send_without_end_keep_no_silent_one_alive() -> None:
    port = Port(*["busy"] * 1000)
    assert silent(Health("a"), port) == ["a"]
    assert port.read == TURN_MESSAGES
