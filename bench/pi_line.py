"""The one line of a run on a Pi that its owner can send us: what docs/pi.md has to guess until then. Pure."""

from __future__ import annotations

from bench.headline import MS
from bench.machine import Machine
from bench.report import OURS, US, Results, Row

MODEL = "Raspberry Pi"
"""How a Pi's device tree begins to name it."""
ASK = "This machine is a Pi, and docs/pi.md wants its figures. Please send us this line in an issue:"
PERCENT = 100
MB = 2**20


def is_pi(machine: Machine) -> bool:
    """Return whether a machine calls itself a Raspberry Pi."""
    return machine.name.startswith(MODEL)


def pi_line(results: Results, processor: str) -> str:
    """Return the figures of our own system. `processor` is the kernel's name for it, like aarch64."""
    machine = results.machine
    ours = next(row for row in results.rows if row.system == OURS)
    versions = " ".join(f"{name} {version}" for name, version in machine.versions.items() if name != "Cython")
    busy = max(results.busy_before, results.busy_after) * PERCENT
    return "; ".join(
        [
            "pi-line 1",
            machine.name,
            f"{processor} {machine.cores} cores {machine.memory_mb} MB",
            machine.system,
            versions,
            *_figures(ours),
            f"IO {results.headline.package} {results.headline.rate}/s",
            f"rest {results.rest.memory / MB:.0f} MB {results.rest.core * PERCENT:.2f} %",
            f"others {busy:.0f} %",
            results.when,
        ]
    )


def _figures(ours: Row) -> list[str]:
    named = (("W1 ms", MS, ours.w1), ("W2 us", US, ours.w2), ("W3 ms", MS, ours.w3), ("W4 ms", MS, ours.w4))
    found = [f"{name} {took.p50 * unit:.4g}/{took.p99 * unit:.4g}" for name, unit, took in named if took is not None]
    loop = [] if ours.loop is None else [f"W1 x loop {ours.loop.paired:.3g}"]
    return [*found, *loop]
