"""Draws what a task says of its progress on the terminal, for `taskengine call`."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from taskengine.errors import printable

if TYPE_CHECKING:
    from rich.progress import Progress as Drawing
    from rich.progress import TaskID

    from taskengine.protocol.progress import Progress


class Meter:
    """A bar on standard error, from the first report on until the end of the `with` block; any thread may `show`."""

    def __init__(self, task: str) -> None:
        self._task = task
        self._drawing: tuple[Drawing, TaskID] | None = None
        self._is_over = False
        self._lock = threading.Lock()

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over = True
        self.clear()

    @property
    def is_of_use(self) -> bool:
        """Return whether somebody can see it."""
        return sys.stderr.isatty()

    def show(self, progress: Progress) -> None:
        """Draw a report."""
        text = printable(f"{self._task}: {progress.message}" if progress.message else self._task)
        with self._lock:
            if not self._is_over:
                drawing, row = self._drawing or self._begin()
                drawing.update(row, description=text, completed=progress.done, total=progress.total)

    def clear(self) -> None:
        """Remove the bar, before something else is printed. Another report draws it again."""
        with self._lock:
            if self._drawing is not None:
                self._drawing[0].stop()
                self._drawing = None

    def _begin(self) -> tuple[Drawing, TaskID]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        text = TextColumn("{task.description}", markup=False)
        columns = text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        drawing = Progress(*columns, console=Console(stderr=True), transient=True)
        drawing.start()
        self._drawing = drawing, drawing.add_task(self._task, total=None)
        return self._drawing
