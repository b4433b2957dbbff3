from __future__ import annotations

import io

import pytest
from rich.console import Console

from bench import page, table
from bench.page import PARTS, UNMEASURED
from bench.table import Cell, Table

MADE = Table(
    name="sizes",
    title="Sizes",
    note="What it is.",
    heads=["tasks", "ms", "how"],
    rows=[[4000, 0.504, "ours"], ["loop", None, ""]],
    bold="loop",
    picture="sizes.png",
)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (None, ""),
        ("as it is", "as it is"),
        (1_000_000, "1 000 000"),
        (0.0, "0"),
        (12345.6, "12 346"),
        (3.0216, "3.02"),
        (0.5, "0.50"),
        (0.01234, "0.012"),
        (float("inf"), "-"),
    ],
)
def test_a_cell_has_no_more_digits_than_mean_something(cell: Cell, expected: str) -> None:
    assert table.text(cell) == expected


def test_a_table_in_markdown() -> None:
    assert table.markdown(MADE).splitlines() == [
        "| tasks | ms | how |",
        "|---:|---:|---|",
        "| 4 000 | 0.50 | ours |",
        "| **loop** |  |  |",
    ]


def test_a_table_on_the_page_names_its_picture_and_its_command() -> None:
    text = page.table_text(MADE, "make bench-full", "benchmarks")
    assert text.startswith("### Sizes\n")
    assert "![Sizes](benchmarks/sizes.png)" in text
    assert text.endswith("What it is. Made by `make bench-full`.\n")


def test_a_table_in_the_terminal_shows_all_cells() -> None:
    text = io.StringIO()
    table.show(MADE, Console(file=text, width=80))
    assert all(cell in text.getvalue() for cell in ("4 000", "0.50", "ours", "loop", "What it is."))


def test_a_new_page_says_what_is_not_measured() -> None:
    made = page.compose({}, "")
    assert {name: page.part(made, name) for name in PARTS} == UNMEASURED


def test_a_run_replaces_its_part_and_keeps_the_others() -> None:
    first = page.compose({"headline": "one", "decisions": "by hand\n\nand more"}, "")
    second = page.compose({"headline": "two"}, first)
    assert page.part(second, "headline") == "two"
    assert page.part(second, "decisions") == "by hand\n\nand more"
    assert page.part(second, "peers") == UNMEASURED["peers"]


def test_a_page_made_again_is_the_same() -> None:
    first = page.compose({"peers": page.table_text(MADE, "make bench-peers", "benchmarks")}, "")
    assert page.compose({}, first) == first
