"""One target in one process: `python -m tests.fuzz.child ENGINE MODULE RUNS SEED FOUND [CORPUS…]`.

With atheris, coverage of Python and of the compiled modules guides it; without, the inputs are drawn at random from the
corpus.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.fuzz import mutate
from tests.sanitized import LIBRARY

_GIVEN_TO_GUIDE = (
    *("8bit_counters_init", "pcs_init", "trace_cmp1", "trace_cmp2", "trace_cmp4", "trace_cmp8"),
    *("trace_const_cmp1", "trace_const_cmp2", "trace_const_cmp4", "trace_const_cmp8", "trace_switch"),
)
"""Functions of libFuzzer, in the order of `fuzzer_t` in guide.c."""


def attach() -> None:
    """Have libFuzzer, which is a part of atheris, see where Python and the compiled modules have been."""
    core = ctypes.CDLL(importlib.import_module("atheris.core_with_libfuzzer").__file__)
    functions = [ctypes.cast(getattr(core, f"__sanitizer_cov_{name}"), ctypes.c_void_p) for name in _GIVEN_TO_GUIDE]
    given = (ctypes.c_void_p * len(functions))(*functions)
    ctypes.CDLL(str(LIBRARY)).attach_libfuzzer(given)
    for name in ("_fastpath", "_socket"):
        compiled = ctypes.CDLL(str(importlib.import_module(f"taskengine.{name}").__file__))
        compiled.attach_libfuzzer(given)
        compiled.count_for_libfuzzer()


def guided(name: str, runs: int, seed: int, found: Path, corpora: list[str]) -> None:
    """Run with atheris, which never returns; it prints its figures itself."""
    import atheris

    with atheris.instrument_imports(include=["taskengine"]):
        target = importlib.import_module(name)
        if str(LIBRARY) in os.environ.get("LD_PRELOAD", ""):
            attach()
    tokens = tempfile.NamedTemporaryFile("w", suffix=".dict")  # noqa: SIM115  # libFuzzer never returns to close it
    for token in target.TOKENS:
        tokens.write('"{}"\n'.format("".join(f"\\x{byte:02x}" for byte in token)))
    tokens.flush()
    limits = [
        f"-runs={runs}",
        f"-seed={seed}",
        f"-max_len={target.MAX_BYTES}",
        "-len_control=0",
        "-print_final_stats=1",
    ]
    places = [f"-artifact_prefix={found}/", f"-dict={tokens.name}", *corpora]
    atheris.Setup([name, *limits, *places], target.fuzz)
    atheris.Fuzz()


def unguided(name: str, runs: int, seed: int, found: Path, corpora: list[str]) -> None:
    """Run with inputs drawn at random."""
    target = importlib.import_module(name)
    mutate.run(target.fuzz, runs, seed, found, [Path(folder) for folder in corpora], target.TOKENS)
    print(f"inputs: {runs}")


def main() -> None:
    engine, name, runs, seed, found, *corpora = sys.argv[1:]
    run: Callable[[str, int, int, Path, list[str]], None] = guided if engine == "atheris" else unguided
    run(name, int(runs), int(seed), Path(found), corpora)


if __name__ == "__main__":
    main()
