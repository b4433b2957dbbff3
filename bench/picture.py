"""The pictures: how samples are spread, and tables as lines. Raises ImportError where matplotlib is missing."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from bench.figures import Rounds, together
from bench.headline import MS
from bench.report import OURS, US

DPI = 80


class Panel(NamedTuple):
    """One scenario's samples; `unit` is how many of the axis' unit a second has."""

    title: str
    unit: float
    samples: Rounds


def draw_spread(title: str, panels: list[Panel], path: Path) -> None:
    """For each panel, how many samples took longer than so long."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 7), layout="constrained")
    names = dict.fromkeys(name for panel in panels for name in panel.samples)
    colours = {name: f"C{number % 10}" for number, name in enumerate(names)}
    styles = {name: "-" if number < 10 else "--" for number, name in enumerate(names)}
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
                linestyle=styles[name],
                linewidth=2.6 if name == OURS else 1.2,
            )
        axes.axhline(0.01, color="0.5", linestyle=":", linewidth=1)
        axes.text(0.01, 0.0104, "p99", color="0.4", ha="left", va="bottom", transform=axes.get_yaxis_transform())
        axes.set(title=panel.title, xscale="log", yscale="log", ylabel="share that took longer" if place == 1 else "")
        axes.set_xlabel({MS: "ms", US: "µs"}[panel.unit])
        axes.grid(True, which="both", alpha=0.15)
    figure.suptitle(title)
    figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=DPI)


class Curve(NamedTuple):
    """One line: its name, and its points."""

    name: str
    xs: list[float]
    ys: list[float]


def draw_curves(title: str, x: str, y: str, curves: list[Curve], path: Path) -> None:
    """Lines over a logarithmic axis, both ways."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for number, curve in enumerate(curves):
        width = 2.6 if curve.name.startswith(OURS) else 1.4
        axes.plot(curve.xs, curve.ys, marker="o", label=curve.name, linewidth=width, color=f"C{number}")
    axes.set(title=title, xlabel=x, ylabel=y, xscale="log", yscale="log")
    axes.grid(True, which="both", alpha=0.15)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=DPI)


def draw_bars(title: str, y: str, groups: list[str], bars: list[Curve], limit: float, path: Path) -> None:
    """A group of bars for each name, and a line at `limit`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(bars)
    for number, bar in enumerate(bars):
        places = [place - 0.4 + (number + 0.5) * width for place in range(len(groups))]
        drawn = axes.bar(places, bar.ys, width * 0.92, label=bar.name, color=f"C{number}")
        axes.bar_label(drawn, fmt="%.2f", fontsize=8)
    axes.axhline(limit, color="0.3", linestyle=":", linewidth=1)
    axes.set_xticks(range(len(groups)), groups)
    axes.set(title=title, ylabel=y)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=DPI)
