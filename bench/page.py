"""The page of benchmarks: parts between markers, of which a run replaces its own and keeps the others. Pure.

A part that is in no run is written by hand, between its markers, and kept.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence

from bench import table
from bench.table import Table

PARTS = ("headline", "matrix", "peers", "decisions")
TITLES = {
    "headline": "What a package, a call and an even rate cost",
    "matrix": "The full matrix",
    "peers": "Other systems",
    "decisions": "Decisions that were measured",
}
UNMEASURED = {
    "headline": "Not measured yet: `make bench-full`.",
    "matrix": "Not measured yet: `make bench-full`.",
    "peers": "Not measured yet: `make bench-peers`.",
    "decisions": "Write here, between the markers, what was decided by measuring. A run keeps it.",
}
WIDTH = 120
HEAD = """# Benchmarks

`make bench-full` makes this page, but for the part on other systems, which `make bench-peers` makes. Each part says
when and on which machine it was measured. `make bench` makes the first part alone, in three minutes.

Everything runs on one machine, and a time is true of that machine only. Ratios can be compared with those of another
machine. Where a table has quartiles, a smaller difference means nothing.

| in the tables | is |
|---|---|
| W1, W2, W3 | one package of 4000 tiny tasks; single calls; 4000 tasks a second, evenly |
| W4 | 4000 tiny tasks submitted one by one |
| W5, W6 | results as they come: the first, and all beside the ideal schedule; the values of a stream |
| p50, p99 | the median; the time within which 99 of 100 end |
| x loop, x raw | the time divided by that of a plain loop in one process, or by that of raw libzmq |
| IO = | in the form of the original design: the most tasks in one package whose p99 is within the response time |
"""


def compose(parts: Mapping[str, str], old: str) -> str:
    """The page with these parts new, and the others as they are in the `old` page, if there is one."""
    kept = {name: found for name in PARTS if (found := part(old, name))}
    made = [HEAD]
    for name in PARTS:
        text = parts.get(name) or kept.get(name) or UNMEASURED[name]
        made.append(f"## {TITLES[name]}\n{_begin(name)}\n{text.strip()}\n{_end(name)}\n")
    return "\n".join(made)


def part(page: str, name: str) -> str:
    """The text between the markers of a part; "" where it is not there."""
    found = re.search(f"{re.escape(_begin(name))}\n(.*?)\n?{re.escape(_end(name))}", page, re.DOTALL)
    return found[1].strip() if found else ""


def table_text(made: Table, command: str, pictures: str) -> str:
    """A table with its title, its picture in the folder `pictures`, what it says, and the command that made it."""
    picture = f"\n![{made.title}]({pictures}/{made.picture})\n" if made.picture else ""
    return f"### {made.title}\n{table.markdown(made)}\n{picture}\n{_wrapped(f'{made.note} Made by `{command}`.')}\n"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def provenance(when: str, lines: Sequence[str]) -> str:
    """When and on what a part was measured, as a list."""
    return "\n".join([f"- Measured {when}", *(f"- {line}" for line in lines)]) + "\n"


def _begin(name: str) -> str:
    return f"<!-- begin {name} -->"


def _end(name: str) -> str:
    return f"<!-- end {name} -->"
