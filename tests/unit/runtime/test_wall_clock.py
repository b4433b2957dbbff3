"""Whether the machine's clock is set, and which zone it goes by."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from taskengine.runtime import wall_clock
from taskengine.runtime.wall_clock import WallClock


@pytest.fixture
def undisciplined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wall_clock, "_is_disciplined", lambda: False)


@pytest.mark.usefixtures("undisciplined")
def test_a_clock_that_nobody_has_set_shows_no_time_until_timesyncd_has(tmp_path: Path) -> None:
    clock = WallClock(mark=tmp_path / "synchronized")
    assert clock.now() is None
    (tmp_path / "synchronized").touch()
    assert clock.now() == pytest.approx(time.time(), abs=5)
    (tmp_path / "synchronized").unlink()
    assert clock.now() is not None


def test_a_clock_that_the_kernel_keeps_right_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(wall_clock, "_is_disciplined", lambda: True)
    assert WallClock(mark=tmp_path / "none").now() is not None


@pytest.mark.usefixtures("undisciplined")
def test_a_clock_that_is_trusted_is_set(tmp_path: Path) -> None:
    assert WallClock(is_trusted=True, mark=tmp_path / "none").now() is not None


def test_the_kernel_says_whether_its_clock_is_kept_right() -> None:
    assert wall_clock._is_disciplined() in (True, False)


def test_another_zone_is_noticed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = WallClock()
    assert not clock.has_moved()
    monkeypatch.setenv("TZ", "Asia/Tokyo" if time.tzname[0] != "JST" else "Europe/Berlin")
    try:
        assert clock.has_moved()
        assert not clock.has_moved()
    finally:
        monkeypatch.undo()
        time.tzset()
