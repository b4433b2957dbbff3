"""Starts the engine by the file name of version 0.1; the same as `python -m taskengine`."""

from __future__ import annotations

from taskengine.cli.main import main

if __name__ == "__main__":
    main()
