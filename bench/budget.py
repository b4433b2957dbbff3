"""The sums of `make pi-budget`: counts to instructions a task, and what is held against what. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

PACKAGE = 4000
LOOP, CLIENT, ROUTER, WORKERS, SEQUENCE = "bare loop", "client", "router", "workers", "the three in sequence"
PUBLIC = "public client"
"""`Client.map` over sockets, with what moves the messages of router and workers."""
ROLES = (LOOP, CLIENT, ROUTER, WORKERS, SEQUENCE, PUBLIC)
"""In the order in which bench.roles plays them."""
MARKS = 3
"""Marks that each role makes: where its packages begin, where twice as many begin, and where they end."""

BUDGET = 21_000_000
"""Instructions in 30 ms on one core of a Pi 3 B+: 1.4 GHz at 0.5 a cycle."""
TOLERANCE = 0.04
"""By how much a role may cost more than is stored. Debian's build of 3.11 lies 6 % below to 1.3 % above a plain one."""
APART = 0.02
"""By how much the roles one by one and in sequence may differ."""
SOCKETS, TOTAL = "sockets and link", "in all"
HELD = (CLIENT, ROUTER, WORKERS, SEQUENCE)
"""The roles whose ratio to the bare loop is stored. Threads move the messages, so their share is not as steady."""


class BadCounts(Exception):
    """The counter saw other marks than the roles made."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Instructions of one role for a package and for a task, over those of the bare loop, and as share of BUDGET."""

    role: str
    package: float
    task: float
    times_loop: float
    share: float


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """One counter's figures. `build` is what they hold for, like "x86_64 3.11"; `problems` make the run fail."""

    counter: str
    build: str
    rows: list[Row]
    problems: list[str]
    notes: list[str]


def per_package(counts: Sequence[int], packages: int) -> dict[str, float]:
    """Return the cost of a package for each role, from the counts between its marks. Raises BadCounts."""
    marks = MARKS * len(ROLES)
    if len(counts) != marks:
        raise BadCounts(f"the counter saw {len(counts)} marks, and the roles made {marks}")
    # before each role's first mark lies what belongs to no role
    found = {role: (counts[MARKS * i + 2] - counts[MARKS * i + 1]) / packages for i, role in enumerate(ROLES)}
    wrong = [role for role, count in found.items() if count <= 0]
    if wrong:
        raise BadCounts(f"twice the packages took no more instructions: {', '.join(wrong)}")
    return found


def rows(found: Mapping[str, float]) -> list[Row]:
    """The roles, the bare loop first; then what sockets and link add, and the whole way."""
    sockets = found[PUBLIC] - found[CLIENT]
    shown = {role: found[role] for role in (LOOP, *HELD)}
    shown |= {SOCKETS: sockets, TOTAL: found[SEQUENCE] + sockets}
    return [
        Row(role=role, package=count, task=count / PACKAGE, times_loop=count / found[LOOP], share=count / BUDGET)
        for role, count in shown.items()
    ]


def judge(entries: Sequence[Row], stored: Mapping[str, float] | None, build: str) -> tuple[list[str], list[str]]:
    """Return the problems that fail the run, and the notes. `stored` are the ratios of this build, if there are any."""
    found = {row.role: row for row in entries}
    problems, notes = [], []
    if found[TOTAL].package > BUDGET:
        problems.append(f"{_millions(found[TOTAL].package)} are more than the Pi's {_millions(BUDGET)}")
    apart = sum(found[role].package for role in (CLIENT, ROUTER, WORKERS)) / found[SEQUENCE].package - 1
    if abs(apart) > APART:
        problems.append(
            f"the roles one by one take {apart:+.1%} of what they take in sequence: something is not counted"
        )
    if stored is None:
        notes.append(f"no ratios are stored for {build}, so none was tested; --store keeps these")
        return problems, notes
    for role in HELD:
        ratio, known = found[role].times_loop, stored.get(role)
        if known is None:
            problems.append(f"{role}: no ratio is stored for {build}; --store keeps this one")
            continue
        said = f"{role}: {ratio:.4f} times the bare loop, {ratio / known - 1:+.1%} from the stored {known:.4f}"
        if ratio > known * (1 + TOLERANCE):
            problems.append(f"{said}; {TOLERANCE:.0%} more are allowed")
        elif ratio < known * (1 - TOLERANCE):
            notes.append(f"{said}; --store holds what was gained")
    return problems, notes


def ratios(entries: Sequence[Row]) -> dict[str, float]:
    """The ratios that later runs are held against."""
    return {row.role: round(row.times_loop, 4) for row in entries if row.role in HELD}


def _millions(count: float) -> str:
    return f"{count / 1e6:.1f} million instructions"
