"""`python -m bench`: measure the machine at hand, print a table, write JSON and a picture."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from bench.compiled import ECHO, NotCompiled, check_compiled

ROOT = Path(__file__).resolve().parent.parent
MICRO = ROOT / "tests" / "benchmarks"
PAGE = ROOT / "docs" / "benchmarks.md"


def main() -> int:
    """The exit code: 0 measured, 1 refused or failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out", help="the folder for JSON and picture")
    parser.add_argument("--quick", action="store_true", help="a look within seconds; its figures are not to be quoted")
    parser.add_argument("--no-micro", action="store_true", help="leave out the micro-benchmarks of the compiled part")
    parser.add_argument("--full", action="store_true", help="the full matrix too, and the page of benchmarks")
    parser.add_argument("--peers", type=Path, metavar="PYTHON", help="other systems instead, as this Python has them")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page that --full and --peers write")
    options = parser.parse_args()
    try:
        check_compiled()
        check_compiled(ECHO)
    except NotCompiled as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    if not (options.no_micro or options.peers) and measure_micro(options.out, options.quick):
        print("bench: the micro-benchmarks failed", file=sys.stderr)
        return 1
    # only now: what it imports needs the compiled extension
    from bench import full, others, run

    if options.peers:
        # not resolved: the link is what makes it the environment's Python
        return others.run(options.out, options.page, options.peers.absolute(), quick=options.quick)
    if options.full:
        return full.run(options.out, options.page, quick=options.quick)
    return run.run(options.out, quick=options.quick, as_json=options.json)


def measure_micro(out: Path, quick: bool) -> int:
    """Have pytest-benchmark measure the compiled calls; its exit code. The table goes to stderr, JSON to `out`."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", str(MICRO), "--quiet", "-p", "no:cacheprovider"),
            *("--benchmark-enable", "--benchmark-only", "--benchmark-sort=name", "--benchmark-group-by=group"),
            *("--benchmark-columns=median,iqr,ops,rounds", "--benchmark-warmup=on"),
            *(f"--benchmark-max-time={0.05 if quick else 0.5}", "--benchmark-min-rounds=5"),
            f"--benchmark-json={out / 'micro.json'}",
        ],
        cwd=ROOT,
        stdout=sys.stderr,
        check=False,
    ).returncode


# Guarded: the pools' processes are spawned, and a spawned process imports this file again.
if __name__ == "__main__":
    sys.exit(main())
