"""Bars: rich's, one of the caller's, or one that the caller has us make."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import pytest

from taskengine.client.bars import check_bar, drawn
from taskengine.errors import BadArguments, TaskFailed


class Bar:
    """What tqdm's bar looks like from outside."""

    made: ClassVar[list[Bar]] = []

    def __init__(self, total: int = 0, desc: str = "") -> None:
        self.total, self.desc, self.moves, self.is_closed = total, desc, list[int](), False
        Bar.made.append(self)

    def update(self, ended: int) -> None:
        self.moves.append(ended)

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("how", [Bar, partial(Bar, desc="survey"), lambda total: Bar(total)])
def test_what_makes_a_bar_is_told_the_total_and_the_bar_is_closed(how: Any) -> None:
    check_bar(how)
    with drawn(how, "survey", 5) as tell:
        tell(2)
        bar = Bar.made[-1]
        assert (bar.total, bar.moves, bar.is_closed) == (5, [2], False)
    assert (bar.moves, bar.is_closed) == ([2, 3], True)


def test_a_bar_of_the_callers_stays_open() -> None:
    bar = Bar(9)
    check_bar(bar)
    with drawn(bar, "survey", 5) as tell:
        tell(5)
    assert (bar.moves, bar.is_closed) == ([5], False)


def test_a_bar_is_not_filled_where_the_call_fails() -> None:
    def fail() -> None:
        with drawn(Bar, "survey", 5) as tell:
            tell(2)
            raise TaskFailed("no", type="ValueError")

    with pytest.raises(TaskFailed):
        fail()
    assert (Bar.made[-1].moves, Bar.made[-1].is_closed) == ([2], True)


def test_what_has_no_close_is_no_bar_to_be_closed() -> None:
    class Counter:
        def update(self, ended: int) -> None:
            self.ended = ended

    counter = Counter()
    with drawn(lambda total: counter, "survey", 3):
        pass
    assert counter.ended == 3


def test_rich_draws_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with drawn(True, "[red]survey", 5) as tell:
        tell(4)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "[red]survey" in printed.err
    assert "5/5" in printed.err


@pytest.mark.parametrize("what", ["bar", 3, ["x"]])
def test_other_things_draw_nothing(what: Any) -> None:
    with pytest.raises(BadArguments, match=r"`update\(n\)`"):
        check_bar(what)
