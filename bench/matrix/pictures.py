"""Which of the matrix' tables are drawn, and how."""

from __future__ import annotations

from pathlib import Path

import msgspec

from bench.picture import Curve, draw_bars, draw_curves
from bench.table import Table


def draw(made: Table, folder: Path) -> Table:
    """Draw the table into the folder, where it has a picture; the table, with the file's name.

    Raises ImportError where matplotlib is missing.
    """
    file = f"{made.name}.png"
    if made.name == "sizes":
        heads = {"in-process loop": 1, "Task Engine": 2, "multiprocessing.Pool": 3}
        curves = [Curve(name, _column(made, 0), _column(made, column)) for name, column in heads.items()]
        draw_curves("What a task costs in packages of each size", "tasks", "µs a task", curves, folder / file)
    elif made.name == "loads":
        groups = [str(row[0]) for row in made.rows][1:]
        heads = {"Task Engine": 7, "Task Engine, over the ideal by tasks": 6, "multiprocessing.Pool": 8}
        bars = [Curve(name, [], _column(made, column)[1:]) for name, column in heads.items()]
        unit = "times the ideal, by chunk unless it says tasks"
        draw_bars("Packages of busy tasks", unit, groups, bars, 1.0, folder / file)
    elif made.name == "chunks":
        xs = _column(made, 0)
        curves = [Curve("Task Engine, W1 over the loop", xs, _column(made, 2))]
        curves.append(Curve("Task Engine, heavy ones first, over the ideal", xs, _column(made, 5)))
        title = "What the chunk size costs and buys"
        draw_curves(title, "chunk size", "times", curves, folder / file, log_y=False)
    elif made.name == "clients":
        xs = _column(made, 0)
        heads = {"Task Engine, p50": 2, "Task Engine, p99": 3}
        curves = [Curve(name, xs, _column(made, column)) for name, column in heads.items()]
        draw_curves("Single calls of many clients", "clients", "µs", curves, folder / file)
    else:
        return made
    return msgspec.structs.replace(made, picture=file)


def _column(made: Table, number: int) -> list[float]:
    return [cell for row in made.rows if isinstance(cell := row[number], int | float)]
