"""The pictures: how samples are spread, and tables as lines. Raises ImportError where matplotlib is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.figures import Rounds, together
from bench.headline import MS
from bench.pools import LOOP
from bench.report import OURS, US

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 80
COLOURS = 64
FAMILIES = {
    LOOP: ["black"],
    "raw libzmq": ["0.45", "0.6", "0.75"],
    OURS: ["C0", "C9", "C4", "C2", "C6", "C8"],
    "": ["C1", "C3", "C5"],
}
"""The colours of those whose name begins so, one after the other."""


class Panel(NamedTuple):
    """One scenario's samples; `unit` is how many of the axis' unit a second has."""

    title: str
    unit: float
    samples: Rounds


def draw_spread(title: str, panels: list[Panel], path: Path) -> None:
    """For each panel, how many samples took longer than so long."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 7), layout="constrained")
    colours = colours_of(list(dict.fromkeys(name for panel in panels for name in panel.samples)))
    lines = {}
    for place, panel in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), place)
        for name, blocks in panel.samples.items():
            ordered = sorted(together(blocks))
            slower = [1 - rank / len(ordered) for rank in range(len(ordered))]
            (lines[name],) = axes.step(
                [value * panel.unit for value in ordered],
                slower,
                where="post",
                color=colours[name],
                linewidth=2.6 if name == OURS else 1.3,
            )
        axes.axhline(0.01, color="0.5", linestyle=":", linewidth=1)
        axes.text(0.01, 0.0104, "p99", color="0.4", ha="left", va="bottom", transform=axes.get_yaxis_transform())
        axes.set(title=panel.title, xscale="log", yscale="log", ylabel="share that took longer" if place == 1 else "")
        axes.set_xlabel({MS: "ms", US: "µs"}[panel.unit])
        axes.grid(True, which="both", alpha=0.15)
    figure.suptitle(title)
    figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=4, frameon=False)
    _save(figure, path)


class Curve(NamedTuple):
    """One line: its name, and its points."""

    name: str
    xs: list[float]
    ys: list[float]


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """A colour for each system: the loop, raw libzmq, the engine and the others are told apart at a glance."""
    left = {family: iter(colours) for family, colours in FAMILIES.items()}
    families = {name: next(family for family in FAMILIES if name.startswith(family)) for name in names}
    return {name: next(left[family], "0.85") for name, family in families.items()}


def draw_curves(title: str, x: str, y: str, curves: list[Curve], path: Path, *, log_y: bool = True) -> None:
    """Lines over a logarithmic axis; the other one is too, or begins at 0."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    colours = colours_of([curve.name for curve in curves])
    for curve in curves:
        width = 2.6 if curve.name == OURS else 1.4
        axes.plot(curve.xs, curve.ys, marker="o", label=curve.name, linewidth=width, color=colours[curve.name])
    axes.set(title=title, xlabel=x, ylabel=y, xscale="log")
    axes.set_xticks(curves[0].xs)
    axes.xaxis.set_minor_formatter("")
    plain = FuncFormatter(lambda value, _: f"{value:,g}".replace(",", " "))
    axes.xaxis.set_major_formatter(plain)
    if log_y:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0)
    axes.yaxis.set_major_formatter(plain)
    axes.grid(True, which="both", alpha=0.15)
    axes.legend(frameon=False)
    _save(figure, path)


def draw_bars(title: str, y: str, groups: list[str], bars: list[Curve], limit: float, path: Path) -> None:
    """A group of bars for each name, and a line at `limit`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(bars)
    colours = colours_of([bar.name for bar in bars])
    for number, bar in enumerate(bars):
        places = [place - 0.4 + (number + 0.5) * width for place in range(len(groups))]
        drawn = axes.bar(places, bar.ys, width * 0.92, label=bar.name, color=colours[bar.name])
        axes.bar_label(drawn, fmt="%.2f", fontsize=8)
    axes.axhline(limit, color="0.3", linestyle=":", linewidth=1)
    axes.set_xticks(range(len(groups)), groups)
    axes.set(title=title, ylabel=y, ylim=(0, 1.25 * max(max(bar.ys) for bar in bars)))
    axes.legend(frameon=False, ncols=len(bars))
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    """As a PNG of few colours, which takes a third of the bytes."""
    from PIL import Image

    figure.savefig(path, dpi=DPI)
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(COLOURS)
    small.save(path, optimize=True)
