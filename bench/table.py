"""A table of figures: for the terminal, for the page, and in JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
from rich import box
from rich import table as rich_table
from rich.console import Console, JustifyMethod

Cell = str | int | float | None


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """`rows` have a cell for each head, floats in the unit that the head names; a row in `bold` is known by its first.

    `name` is its place on the page, `note` says what was measured, `picture` is the file of its plot, if it has one.
    """

    name: str
    title: str
    note: str
    heads: list[str]
    rows: Sequence[Sequence[Cell]]
    bold: str = ""
    picture: str = ""


def text(cell: Cell) -> str:
    """A cell as it is read: no more digits than the noise allows."""
    if cell is None:
        return ""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int):
        return f"{cell:,}".replace(",", " ")
    if not math.isfinite(cell):
        return "-"
    if cell == 0:
        return "0"
    if abs(cell) >= 10:
        return f"{cell:,.0f}".replace(",", " ")
    return f"{cell:.2f}" if abs(cell) >= 0.1 else f"{cell:.2g}"


def left(table: Table, column: int) -> bool:
    """Whether a column is of words."""
    return all(isinstance(row[column], str | None) for row in table.rows)


def markdown(table: Table) -> str:
    """The table as Markdown."""
    rules = ["---" if left(table, number) else "---:" for number in range(len(table.heads))]
    lines = [f"| {' | '.join(table.heads)} |", f"|{'|'.join(rules)}|"]
    for row in table.rows:
        mark = "**" if table.bold and row[0] == table.bold else ""
        lines.append(f"| {' | '.join(f'{mark}{text(cell)}{mark}' if text(cell) else '' for cell in row)} |")
    return "\n".join(lines)


def show(table: Table, console: Console) -> None:
    """Print the table and its note."""
    made = rich_table.Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), title=table.title)
    for number, head in enumerate(table.heads):
        # heads wrap at their spaces, cells never
        side: JustifyMethod = "left" if left(table, number) else "right"
        made.add_column(head.replace(" ", "\n", 1), justify=side, no_wrap=True, vertical="bottom")
    for row in table.rows:
        made.add_row(*map(text, row), style="bold" if table.bold and row[0] == table.bold else None)
    console.print(made)
    console.print(table.note, highlight=False, soft_wrap=True)
