"""The run of `make bench-full`: the headline scenarios, the matrix, the pictures and the page."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from bench import page, report, rest, table
from bench.headline import headline_text
from bench.matrix import chunksizes, crowd, curve, loads, pictures, rates, sizes, workers
from bench.matrix.extent import LOOK, WHOLE, Extent
from bench.quiet import Quiet
from bench.report import Results
from bench.run import FAILURES, PICTURE_FILE, SETTINGS, draw, measure, say, wide_console
from bench.scenarios import FULL, QUICK
from bench.table import Table

JSON_FILE = "full.json"
COMMAND = "make bench-full"
MEASURES: dict[str, Callable[[Extent, dict[str, object], Quiet], Table]] = {
    "sizes": sizes.measure,
    "memory": sizes.measure_memory,
    "workers": workers.measure,
    "chunk sizes": chunksizes.measure,
    "loads": loads.measure,
    "rates": rates.measure,
    "clients": crowd.measure,
    "CURVE": curve.measure,
}


class Matrix(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run: the headline scenarios, and the tables of the matrix."""

    headline: Results
    tables: list[Table]
    waited: float
    seconds: float


def run(out: Path, page_file: Path, *, quick: bool) -> int:
    """Measure, write JSON to `out`, the page, and the pictures beside the page; the exit code."""
    start = time.monotonic()
    console = wide_console()
    folder = page_file.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        results, panels = measure(QUICK if quick else FULL)
        tables = [rest.table(results.rest)]
        extent = LOOK if quick else WHOLE
        quiet = Quiet(extent.patience_s)
        for name, measured in MEASURES.items():
            say(name)
            made = measured(extent, SETTINGS, quiet)
            table.show(made, console)
            tables.append(pictures.draw(made, folder))
        draw(results, panels, folder / PICTURE_FILE)
    except FAILURES as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except ImportError as error:
        print(f"bench: no pictures: {error}; `pip install matplotlib`", file=sys.stderr)
        return 1
    waited = results.waited + quiet.waited
    matrix = Matrix(headline=results, tables=tables, waited=waited, seconds=time.monotonic() - start)
    report.write_json(matrix, out / JSON_FILE)
    old = page_file.read_text() if page_file.exists() else ""
    page_file.write_text(page.compose(parts(matrix, folder.name), old))
    print(f"Written: {out / JSON_FILE}, {page_file}", flush=True)
    report.print_report(results, console)
    return 0


def parts(matrix: Matrix, pictures_folder: str) -> dict[str, str]:
    """The page's parts that this run makes."""
    results = matrix.headline
    lines = [*report.measured_on(results.machine, results.settings), rest.text(results.rest)]
    lines.append(report.disturbance(results.busy_before, results.busy_after, matrix.waited))
    first = report.tables(results)
    headline = [
        page.provenance(results.when, lines),
        f"*{headline_text(results.headline, results.machine)}*\n",
        f"![{PICTURE_FILE}]({pictures_folder}/{PICTURE_FILE})\n",
        *(page.table_text(made, f"{COMMAND}`, and alone by `make bench", pictures_folder) for made in first),
    ]
    whole = [
        f"Measured in the same run, which took {matrix.seconds / 60:.0f} minutes, with the same settings unless a "
        "table says otherwise.\n"
    ]
    return {
        "headline": "\n".join(headline),
        "matrix": "\n".join([*whole, *(page.table_text(made, COMMAND, pictures_folder) for made in matrix.tables)]),
    }
