"""A waiting thread is woken by an eventfd, or by a pair of sockets where the system has no such thing."""

from __future__ import annotations

import os
import select

import pytest

from taskengine.client import wakeup


@pytest.mark.parametrize("has_eventfd", [True, False])
def test_a_ring_is_heard_once_and_the_descriptor_closes(has_eventfd: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakeup, "HAS_EVENTFD", has_eventfd)
    bell = wakeup.make()
    assert not select.select([bell], [], [], 0)[0]
    for _ in range(3):
        wakeup.ring(bell)
    assert select.select([bell], [], [], 0)[0]
    wakeup.hush(bell)
    assert not select.select([bell], [], [], 0)[0]
    wakeup.close(bell)
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(bell)


def test_rings_that_nobody_hears_block_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakeup, "HAS_EVENTFD", False)
    bell = wakeup.make()
    for _ in range(20_000):
        wakeup.ring(bell)
    while select.select([bell], [], [], 0)[0]:
        wakeup.hush(bell)
    wakeup.hush(bell)
    wakeup.close(bell)
