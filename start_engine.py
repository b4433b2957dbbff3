"""Starts the engine under the seed's name: the same as `python -m taskengine`."""

from __future__ import annotations

from taskengine.cli import main

if __name__ == "__main__":
    main()
