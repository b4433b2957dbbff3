"""`python -m tests.fuzz.seeds`: write the seeds of every target into its corpus; what else lies there stays."""

from __future__ import annotations

import importlib

from tests.fuzz.run import CORPUS, TARGETS, module_of

PREFIX = "seed-"


def main() -> None:
    for name in TARGETS:
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"{PREFIX}*"):
            old.unlink()
        for number, data in enumerate(importlib.import_module(module_of(name)).seeds()):
            (folder / f"{PREFIX}{number:02}").write_bytes(data)


if __name__ == "__main__":
    main()
