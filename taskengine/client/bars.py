"""Bars of packages: how many of their tasks have ended, drawn by rich, or by what the caller gives, such as tqdm's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from taskengine.errors import BadArguments


def check_bar(progress: Any) -> None:
    """Raise BadArguments for what cannot draw a bar."""
    if not (isinstance(progress, bool) or callable(progress) or callable(getattr(progress, "update", None))):
        text = f"progress is True, a bar with a method `update(n)`, or what makes one, such as tqdm; not {progress!r}"
        raise BadArguments(text, name="progress")


@contextlib.contextmanager
def drawn(progress: Any, task: str, total: int) -> Iterator[Callable[[int], object]]:
    """Draw a bar of so many calls of a task; yield the function that is told how many more have ended.

    True stands for rich's bar on standard error. A bar of the caller's, an object with `update(n)`, is not closed. What
    else can be called makes a bar: it gets `total`, and the bar is closed at the end. A bar is full in the end, also
    where the engine did not say in between how many have ended.
    """
    told = 0
    with contextlib.ExitStack() as held:
        update = _update_of(progress, task, total, held)

        def tell(ended: int) -> None:
            nonlocal told
            told += ended
            update(ended)

        yield tell
        if told < total:
            update(total - told)


def _update_of(progress: Any, task: str, total: int, held: contextlib.ExitStack) -> Callable[[int], object]:
    """Return the function that advances the bar by so many calls; what is to be closed is `held`."""
    if progress is True:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn()
        drawing = held.enter_context(Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)))
        row = drawing.add_task(task, total=total)
        return lambda ended: drawing.advance(row, ended)
    bar = progress
    if isinstance(progress, type) or not hasattr(progress, "update"):
        bar = progress(total=total)
        close = getattr(bar, "close", None)
        if callable(close):
            held.callback(close)
    update: Callable[[int], object] = bar.update
    return update
