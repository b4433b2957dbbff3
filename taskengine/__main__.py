"""`python -m taskengine`."""

from __future__ import annotations

from taskengine.cli.main import main

if __name__ == "__main__":
    main()
