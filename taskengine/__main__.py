"""`python -m taskengine`."""

from __future__ import annotations

from taskengine.cli import main

# Guarded: worker processes are spawned, and a spawned process imports this file again.
if __name__ == "__main__":
    main()
