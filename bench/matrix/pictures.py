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
        bars = [Curve(name, [], _column(made, column)[1:]) for name, column in (("Task Engine", 7), ("Pool", 8))]
        draw_bars("Packages of busy tasks", "times the ideal schedule of its chunks", groups, bars, 1.0, folder / file)
    elif made.name == "chunks":
        xs = _column(made, 0)
        curves = [Curve("Task Engine: W1 / loop", xs, _column(made, 2))]
        curves.append(Curve("mix / ideal", xs, _column(made, 5)))
        draw_curves("What the chunk size costs and buys", "chunk size", "times", curves, folder / file)
    elif made.name == "clients":
        xs = _column(made, 0)
        curves = [Curve(f"call, {percent}", xs, _column(made, column)) for percent, column in (("p50", 2), ("p99", 3))]
        draw_curves("Single calls of many clients", "clients", "µs", curves, folder / file)
    else:
        return made
    return msgspec.structs.replace(made, picture=file)


def _column(made: Table, number: int) -> list[float]:
    return [cell for row in made.rows if isinstance(cell := row[number], int | float)]
